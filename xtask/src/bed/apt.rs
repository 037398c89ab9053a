//! Debian's package client, used so that nothing of the host's own configuration changes.
//!
//! Lists are read and kept in a folder of ours; sources are the host's, and Debian's own where those lack
//! something. Checksums and signatures are apt's business.

use std::ffi::OsString;
use std::fs;
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

/// A line of sources.list for a suite of Debian, from Debian's own servers.
pub(crate) fn debian(suite: &str) -> String {
    let place = if suite.ends_with("-security") { "debian-security" } else { "debian" };
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    format!("deb [signed-by={key}] http://deb.debian.org/{place} {suite} main")
}

impl Apt {
    /// Opens these sources; lists of our own are kept in `folder` and read anew.
    pub(crate) fn open(sources: &Sources, folder: &Path) -> anyhow::Result<Self> {
        let Some(parts) = Self::write(sources, folder)
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

    /// Writes sources down; the folder that holds them, or `None` for the host's own.
    fn write(sources: &Sources, folder: &Path) -> std::io::Result<Option<PathBuf>> {
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
            for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
                symlink(entry.path(), parts.join(entry.file_name()))?;
            }
            let list = Path::new("/etc/apt/sources.list");
            if list.is_file() {
                symlink(list, parts.join("sources.list"))?;
            }
        }
        fs::write(parts.join("exitspec.list"), lines.join("\n") + "\n")?;
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
        assert_eq!(Apt::write(&Sources::Host, folder.path()).unwrap(), None);
        let only = Sources::Only(vec![debian("bookworm"), debian("bookworm-security")]);
        // Twice: what an earlier run left is no obstacle.
        for _ in 0..2 {
            let parts = Apt::write(&only, folder.path()).unwrap().unwrap();
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
}
