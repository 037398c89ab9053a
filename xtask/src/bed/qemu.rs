//! QEMU: found, or installed where that is possible without asking anybody.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::apt::{self, Apt, Sources};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// An installed QEMU.
#[derive(Debug, Clone)]
pub(crate) struct Qemu {
    pub(crate) program: PathBuf,
    /// As it says itself: `10.0.2`.
    pub(crate) version: String,
}

impl Qemu {
    /// Finds QEMU, installing it if need be. `folder` keeps apt's lists.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Self> {
        if let Some(program) = apt::find_program(PROGRAM) {
            return version(program);
        }
        if !apt::is_here() {
            bail!("{PROGRAM} is not here; install QEMU 10 or newer by your system's package manager");
        }
        if !nix::unistd::geteuid().is_root() {
            bail!(
                "{PROGRAM} is not here; install it: sudo apt-get install --no-install-recommends {PACKAGE}"
            );
        }
        eprintln!("installing QEMU");
        install(&folder.join("apt"))?;
        let program = apt::find_program(PROGRAM);
        version(program.with_context(|| format!("{PACKAGE} is installed without {PROGRAM}"))?)
    }

    /// What is worth knowing before a verdict of this version is believed.
    pub(super) fn remark(&self) -> Option<String> {
        let major: u32 = self.version.split('.').next()?.parse().ok()?;
        (major < 10).then(|| {
            format!("QEMU {}: hardware breakpoints do not fire in it, so cases about them deviate; 10 or newer is better", self.version)
        })
    }
}

/// Whether [`Qemu::find`] can succeed.
pub(crate) fn is_to_be_had() -> bool {
    apt::find_program(PROGRAM).is_some() || (apt::is_here() && nix::unistd::geteuid().is_root())
}

/// From Debian 12's backports, as its own is too old; elsewhere what the host's sources have.
fn install(lists: &Path) -> anyhow::Result<()> {
    let os = os_release();
    let mut reasons = Vec::new();
    for (sources, release) in attempts(&os) {
        let from = release.as_deref().unwrap_or("the host's sources");
        match Apt::open(&sources, lists).and_then(|apt| apt.install(&[PACKAGE], release.as_deref())) {
            Ok(()) => return Ok(()),
            Err(error) => reasons.push(format!("\n    {from}: {error:#}")),
        }
    }
    bail!("QEMU cannot be installed; try: {}{}", advice(&os), reasons.concat())
}

/// From which sources QEMU is installed, and from which release of them, the best first.
fn attempts(os: &str) -> Vec<(Sources, Option<String>)> {
    let mut attempts = Vec::new();
    if let Some(release) = backports(os) {
        // A host that has them already may name other keys for them, and apt takes only one answer.
        attempts.push((Sources::HostAnd(None), Some(release.clone())));
        attempts.push((Sources::HostAnd(Some(apt::debian(&release))), Some(release)));
    }
    attempts.push((Sources::HostAnd(None), None));
    attempts
}

/// What a user can type.
fn advice(os: &str) -> String {
    let install = "sudo apt-get install --no-install-recommends";
    match backports(os) {
        Some(release) => format!(
            "{install} -t {release} {PACKAGE} (https://backports.debian.org says how to add {release}; the release's own QEMU is too old for some cases)"
        ),
        None => format!("{install} {PACKAGE}"),
    }
}

fn os_release() -> String {
    std::fs::read_to_string("/etc/os-release").unwrap_or_default()
}

/// The backports that have a newer QEMU, for the system that os-release(5) describes.
fn backports(os: &str) -> Option<String> {
    let value = |name: &str| {
        let line = os.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|text| text.trim_matches('"'))
    };
    (value("ID")? == "debian" && value("VERSION_CODENAME")? == "bookworm")
        .then(|| "bookworm-backports".to_owned())
}

fn version(program: PathBuf) -> anyhow::Result<Qemu> {
    let output = Command::new(&program).arg("--version").output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().and_then(|line| line.split_once("version ")).map(|(_, rest)| rest);
    let version = version.and_then(|rest| rest.split_whitespace().next()).unwrap_or("of unknown version");
    Ok(Qemu { program, version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_are_for_debian_12_alone() {
        let os = |id: &str, name: &str| format!("NAME=\"x\"\nID={id}\nVERSION_CODENAME={name}\n");
        assert_eq!(backports(&os("debian", "bookworm")), Some("bookworm-backports".into()));
        assert_eq!(backports(&os("\"debian\"", "\"bookworm\"")), Some("bookworm-backports".into()));
        assert_eq!(backports(&os("debian", "trixie")), None);
        assert_eq!(backports(&os("ubuntu", "noble")), None);
        assert_eq!(backports(""), None);
    }

    #[test]
    fn backports_of_the_hosts_own_are_tried_before_ours() {
        let bookworm = "ID=debian\nVERSION_CODENAME=bookworm\n";
        let tried = attempts(bookworm);
        let release = Some("bookworm-backports".to_owned());
        assert_eq!(tried[0], (Sources::HostAnd(None), release.clone()));
        assert!(matches!(&tried[1], (Sources::HostAnd(Some(line)), own)
            if line.contains("bookworm-backports") && *own == release));
        assert_eq!(tried[2..], [(Sources::HostAnd(None), None)]);
        assert!(advice(bookworm).contains("-t bookworm-backports qemu-system-x86"));
        assert_eq!(attempts("ID=ubuntu\n"), [(Sources::HostAnd(None), None)]);
        assert!(!advice("ID=ubuntu\n").contains("backports"));
    }

    #[test]
    fn an_old_version_comes_with_a_warning() {
        let of = |version: &str| Qemu { program: "q".into(), version: version.into() }.remark();
        assert!(of("7.2.22").unwrap().contains("breakpoints"));
        assert_eq!(of("10.0.2"), None);
    }
}
