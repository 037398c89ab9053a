//! Debian's kernels, fetched as packages and unpacked; nothing is installed.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::bed::apt::{self, Apt, Sources};

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// The folder of its modules.
    pub(crate) modules: PathBuf,
}

/// The newest kernel of a series (`6.12`), from `folder` if it is there already.
pub(crate) fn fetch(series: &str, folder: &Path) -> anyhow::Result<Unpacked> {
    let home = home(series, folder);
    if !home.is_dir() {
        if !apt::is_here() {
            bail!(
                "debian:{series} is fetched by apt, which is not here; name a kernel of your own by --kernel PATH"
            );
        }
        eprintln!("fetching Debian's Linux {series}");
        download(series, folder, &home)?;
    }
    unpacked(&home).with_context(|| format!("{} is incomplete; remove it and try again", home.display()))
}

/// Where a series is kept once it is unpacked.
pub(crate) fn home(series: &str, folder: &Path) -> PathBuf {
    folder.join("kernels").join(format!("debian-{series}"))
}

/// What is in the folder of an unpacked package.
fn unpacked(home: &Path) -> anyhow::Result<Unpacked> {
    let only = |folder: PathBuf, prefix: &str| -> anyhow::Result<PathBuf> {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut found =
            entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let first = found.next().with_context(|| format!("there is no {prefix}* in {}", folder.display()))?;
        Ok(first.path())
    };
    // A system with merged folders has its modules below /usr.
    let modules = only(home.join("lib/modules"), "").or_else(|_| only(home.join("usr/lib/modules"), ""))?;
    let image = only(home.join("boot"), "vmlinuz-").or_else(|_| only(modules.clone(), "vmlinuz"))?;
    Ok(Unpacked { image, modules })
}

fn download(series: &str, folder: &Path, home: &Path) -> anyhow::Result<()> {
    let kernels = folder.join("kernels");
    fs::create_dir_all(&kernels).with_context(|| format!("cannot make {}", kernels.display()))?;
    from_anywhere(series, folder, |apt| attempt(series, apt, &kernels, home))
}

/// Asks the host's lists, then its sources, then Debian's own, until one has it.
pub(super) fn from_anywhere<T>(
    series: &str,
    folder: &Path,
    fetch: impl Fn(&Apt) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let own = suites(series).iter().map(|suite| apt::debian(suite)).collect();
    let mut reasons = Vec::new();
    for (sources, name) in [
        (Sources::Host, "the host's lists"),
        (Sources::HostAnd(None), "the host's sources"),
        (Sources::Only(own), "deb.debian.org"),
    ] {
        match Apt::open(&sources, &folder.join("apt")).and_then(|apt| fetch(&apt)) {
            Ok(fetched) => return Ok(fetched),
            Err(error) => reasons.push(format!("{name}: {error:#}")),
        }
    }
    let reasons: String = reasons.iter().map(|reason| format!("\n    {reason}")).collect();
    bail!("Debian's Linux {series} cannot be fetched; name a kernel of your own by --kernel PATH{reasons}")
}

fn attempt(series: &str, apt: &Apt, kernels: &Path, home: &Path) -> anyhow::Result<()> {
    let names = apt.names(&format!("linux-image-{series}."))?;
    let package = newest(&names).with_context(|| format!("there is no kernel {series}"))?;
    let draft = tempfile::tempdir_in(kernels).context("cannot make a folder to unpack in")?;
    let tree = draft.path().join("tree");
    let version = package.trim_start_matches("linux-image-");
    // From Linux 7 on the kernel comes in several packages.
    for part in ["linux-image-", "linux-binary-", "linux-modules-"] {
        let part = format!("{part}{version}");
        if part == package || apt.names(&part)?.contains(&part) {
            unpack(&apt.download(&part, draft.path())?, &tree)?;
        }
    }
    unpacked(&tree)?;
    // At once, so that a folder that is there is whole.
    fs::rename(&tree, home).with_context(|| format!("cannot make {}", home.display()))
}

/// Unpacks a package, and removes it.
fn unpack(deb: &Path, tree: &Path) -> anyhow::Result<()> {
    let status = Command::new("dpkg-deb").arg("-x").args([deb, tree]).status();
    if !status.context("cannot start dpkg-deb")?.success() {
        bail!("dpkg-deb cannot unpack {}", deb.display());
    }
    fs::remove_file(deb).with_context(|| format!("cannot remove {}", deb.display()))
}

/// The newest kernel for every 64-bit PC: no cloud, no real-time, no unsigned or debugging variant.
fn newest(names: &[String]) -> Option<&str> {
    let plain = names.iter().filter_map(|name| {
        let version = name.strip_prefix("linux-image-")?.strip_suffix("-amd64")?;
        let fits = version.split(['.', '-', '+']).all(|part| {
            part.bytes().all(|b| b.is_ascii_digit()) || part.starts_with("deb") || part.starts_with("bpo")
        });
        let numbers: Vec<u32> = version.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect();
        fits.then_some((name.as_str(), numbers))
    });
    plain.min_by_key(|(_, numbers)| Reverse(numbers.clone())).map(|(name, _)| name)
}

/// The suites of Debian that have a series of kernels.
fn suites(series: &str) -> &'static [&'static str] {
    match series {
        "5.10" => &["bullseye", "bullseye-security"],
        "6.1" => &["bookworm", "bookworm-security"],
        "6.12" => &["bookworm", "bookworm-security", "trixie", "trixie-security"],
        _ => &["trixie", "trixie-security", "trixie-backports", "sid"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_kernel_is_taken() {
        let names: Vec<String> = [
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.118+deb12-rt-amd64",
            "linux-image-6.12.119+deb12-amd64-dbg",
            "linux-image-6.12.119+deb12-amd64-unsigned",
            "linux-image-6.12.100+deb12-amd64",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(newest(&names), Some("linux-image-6.12.117+deb12-amd64"));
        let names = ["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-56-amd64"].map(str::to_owned);
        assert_eq!(newest(&names), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn what_is_unpacked_already_is_taken_without_apt() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("kernels/debian-6.1");
        fs::create_dir_all(home.join("boot")).unwrap();
        assert!(fetch("6.1", folder.path()).unwrap_err().to_string().contains("incomplete"));
        fs::create_dir_all(home.join("lib/modules/6.1.0-1-amd64")).unwrap();
        fs::write(home.join("boot/vmlinuz-6.1.0-1-amd64"), "").unwrap();
        let kernel = fetch("6.1", folder.path()).unwrap();
        assert_eq!(kernel.image, home.join("boot/vmlinuz-6.1.0-1-amd64"));
        assert_eq!(kernel.modules, home.join("lib/modules/6.1.0-1-amd64"));
    }
}
