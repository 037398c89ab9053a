//! Debian's package client, used so that nothing of the host's own configuration changes.
//!
//! Lists are read and kept in a folder of ours; sources are the host's, and Debian's own where those lack
//! something. Checksums and signatures are apt's business.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Which sources apt sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sources {
    /// The host's, with the lists that it has already; no network needed to look.
    Host,
    /// The host's, and one more line, with lists of our own.
    HostAnd(Option<String>),
    /// These lines only, with lists of our own.
    Only(Vec<String>),
}

/// apt with some sources.
#[derive(Debug)]
pub(crate) struct Apt {
    options: Vec<OsString>,
}

/// Whether there is an apt here.
pub(crate) fn is_here() -> bool {
    ["apt-get", "apt-cache", "dpkg-deb"].iter().all(|name| find_program(name).is_some())
}

/// A program of the search path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Debian's keys, below the root, and the package that has them; other systems have it, too, but not installed.
const KEYS: &str = "usr/share/keyrings/debian-archive-keyring.gpg";
const KEYRING: &str = "debian-archive-keyring";

/// A line of sources.list for a suite of Debian, from Debian's own servers.
pub(crate) fn debian(suite: &str) -> String {
    let place = if suite.ends_with("-security") { "debian-security" } else { "debian" };
    format!("deb [signed-by=/{KEYS}] http://deb.debian.org/{place} {suite} main")
}

/// Lines of [`debian()`] with Debian's keys where they are: on the host, or unpacked in `folder`.
fn with_keys(lines: Vec<String>, host: &Path, folder: &Path) -> anyhow::Result<Vec<String>> {
    let wanted = format!("signed-by=/{KEYS}]");
    if host.join(KEYS).is_file() || !lines.iter().any(|line| line.contains(&wanted)) {
        return Ok(lines);
    }
    let ours = folder.join("keyring");
    if !ours.join(KEYS).is_file() {
        fetch_keys(folder, &ours).with_context(|| {
            format!("Debian's keys are not here; install them: sudo apt-get install {KEYRING}")
        })?;
    }
    let found = format!("signed-by={}]", ours.join(KEYS).display());
    // This form of the file has no way to write a space.
    if found.contains(char::is_whitespace) {
        bail!("Debian's keys are not here; install them: sudo apt-get install {KEYRING}");
    }
    Ok(lines.into_iter().map(|line| line.replace(&wanted, &found)).collect())
}

/// Debian's keys by the host's own sources, which vouch for them; unpacked, not installed.
fn fetch_keys(folder: &Path, to: &Path) -> anyhow::Result<()> {
    let draft = tempfile::tempdir_in(folder).context("cannot make a folder to unpack in")?;
    let download = |sources: &Sources| Apt::open(sources, folder)?.download(KEYRING, draft.path());
    let deb = download(&Sources::Host).or_else(|_| download(&Sources::HostAnd(None)))?;
    let tree = draft.path().join("tree");
    let status = Command::new("dpkg-deb").arg("-x").args([&deb, &tree]).status();
    if !status.context("cannot start dpkg-deb")?.success() || !tree.join(KEYS).is_file() {
        bail!("{} does not have {KEYS}", deb.display());
    }
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    fs::rename(&tree, to).with_context(|| format!("cannot make {}", to.display()))
}

impl Apt {
    /// Opens these sources; lists of our own are kept in `folder` and read anew.
    pub(crate) fn open(sources: &Sources, folder: &Path) -> anyhow::Result<Self> {
        let host = Path::new("/");
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let sources = match sources.clone() {
            Sources::HostAnd(Some(line)) => {
                Sources::HostAnd(with_keys(vec![line], host, folder)?.into_iter().next())
            }
            Sources::Only(lines) => Sources::Only(with_keys(lines, host, folder)?),
            other => other,
        };
        let Some(parts) = Self::write(&sources, host, folder)
            .with_context(|| format!("cannot write apt's files in {}", folder.display()))?
        else {
            return Ok(Self { options: Vec::new() });
        };
        let mut options = Vec::new();
        let mut set = |name: &str, path: PathBuf| {
            let mut word = OsString::from(format!("{name}="));
            word.push(path);
            options.extend([OsString::from("-o"), word]);
        };
        set("Dir::Etc::SourceList", PathBuf::from("/dev/null"));
        set("Dir::Etc::SourceParts", parts);
        set("Dir::State::Lists", folder.join("lists"));
        set("Dir::Cache", folder.join("cache"));
        // The folder may be below one that apt's own user cannot enter.
        set("APT::Sandbox::User", PathBuf::from("root"));
        let apt = Self { options };
        // One source that does not answer is no reason to do without the others.
        let update =
            apt.command("apt-get").args(["update", "-qq"]).output().context("cannot start apt-get")?;
        if !update.status.success() {
            eprintln!("apt-get update: {}", String::from_utf8_lossy(&update.stderr).trim_end());
        }
        Ok(apt)
    }

    /// Writes sources down; the folder that holds them, or `None` for the host's own. `root` is the host's.
    fn write(sources: &Sources, root: &Path, folder: &Path) -> std::io::Result<Option<PathBuf>> {
        let (host, lines) = match sources {
            Sources::Host => return Ok(None),
            Sources::HostAnd(line) => (true, line.iter().cloned().collect()),
            Sources::Only(lines) => (false, lines.clone()),
        };
        let parts = folder.join("sources.list.d");
        if parts.exists() {
            fs::remove_dir_all(&parts)?;
        }
        for name in ["sources.list.d", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(name))?;
        }
        if host {
            for entry in fs::read_dir(root.join("etc/apt/sources.list.d")).into_iter().flatten().flatten() {
                // No name of theirs is one of ours.
                let mut name = OsString::from("host-");
                name.push(entry.file_name());
                symlink(entry.path(), parts.join(name))?;
            }
            let list = root.join("etc/apt/sources.list");
            if list.is_file() {
                symlink(list, parts.join("sources.list"))?;
            }
        }
        // Never through a link, which would lead to a file of the host's.
        let mut file = OpenOptions::new().write(true).create_new(true).open(parts.join("exitspec.list"))?;
        file.write_all((lines.join("\n") + "\n").as_bytes())?;
        Ok(Some(parts))
    }

    /// The packages whose name begins like this.
    pub(crate) fn names(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let output = self.command("apt-cache").args(["pkgnames", prefix]).output();
        let output = output.context("cannot start apt-cache")?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Downloads a package into a folder; its file.
    pub(crate) fn download(&self, package: &str, to: &Path) -> anyhow::Result<PathBuf> {
        let mut command = self.command("apt-get");
        command.args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]).current_dir(to);
        let output = command.stdin(Stdio::null()).output().context("cannot start apt-get")?;
        if !output.status.success() {
            bail!("apt-get download {package}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        let files = fs::read_dir(to).with_context(|| format!("cannot read {}", to.display()))?;
        let mut debs = files.flatten().map(|entry| entry.path());
        let deb = debs.find(|path| path.extension().is_some_and(|ending| ending == "deb"));
        deb.with_context(|| format!("apt-get download {package} left no file"))
    }

    /// Installs packages, from this release if they are there.
    pub(crate) fn install(&self, packages: &[&str], release: Option<&str>) -> anyhow::Result<()> {
        let mut command = self.command("apt-get");
        command.args(["install", "-y", "-qq", "--no-install-recommends"]);
        if let Some(release) = release {
            command.args(["-t", release]);
        }
        command.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
        let output = command.stdin(Stdio::null()).output().context("cannot start apt-get")?;
        if !output.status.success() {
            let packages = packages.join(" ");
            bail!("apt-get install {packages}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_beside_the_hosts_and_never_over_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new("/nonexistent");
        assert_eq!(Apt::write(&Sources::Host, root, folder.path()).unwrap(), None);
        let only = Sources::Only(vec![debian("bookworm"), debian("bookworm-security")]);
        // Twice: what an earlier run left is no obstacle.
        for _ in 0..2 {
            let parts = Apt::write(&only, root, folder.path()).unwrap().unwrap();
            let names: Vec<_> =
                fs::read_dir(&parts).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["exitspec.list"]);
            let text = fs::read_to_string(parts.join("exitspec.list")).unwrap();
            assert!(
                text.contains("/debian bookworm main\n")
                    && text.contains("/debian-security bookworm-security ")
            );
        }
    }

    #[test]
    fn a_source_of_the_hosts_with_our_name_stays_as_it_is() {
        let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let theirs = root.path().join("etc/apt/sources.list.d");
        fs::create_dir_all(&theirs).unwrap();
        for name in ["exitspec.list", "other.sources"] {
            fs::write(theirs.join(name), "theirs").unwrap();
        }
        fs::write(root.path().join("etc/apt/sources.list"), "theirs").unwrap();
        let sources = Sources::HostAnd(Some("ours".into()));
        for _ in 0..2 {
            let parts = Apt::write(&sources, root.path(), folder.path()).unwrap().unwrap();
            let mut texts: Vec<_> = fs::read_dir(&parts)
                .unwrap()
                .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
                .collect();
            texts.sort();
            assert_eq!(texts, ["ours\n", "theirs", "theirs", "theirs"]);
            assert_eq!(fs::read_to_string(theirs.join("exitspec.list")).unwrap(), "theirs");
        }
    }

    #[test]
    fn debians_keys_are_the_hosts_or_unpacked_ones() {
        let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let put = |under: &Path| {
            fs::create_dir_all(under.join(KEYS).parent().unwrap()).unwrap();
            fs::write(under.join(KEYS), "keys").unwrap();
        };
        let lines = || vec![debian("sid"), "deb http://example.org x main".to_owned()];
        put(&folder.path().join("keyring"));
        let found = with_keys(lines(), root.path(), folder.path()).unwrap();
        let place = format!("[signed-by={}/keyring/{KEYS}]", folder.path().display());
        assert!(found[0].contains(&place), "{found:?}");
        assert_eq!(found[1], lines()[1]);
        put(root.path());
        assert_eq!(with_keys(lines(), root.path(), folder.path()).unwrap(), lines());
    }
}
