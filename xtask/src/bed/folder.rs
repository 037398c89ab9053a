//! The folder of a run: `target/exitspec/<start>-<bed>/` with results, text and consoles.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};

/// The journal's name, as the runner has it.
const JOURNAL: &str = "results.jsonl";

/// A run's folder.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes a folder for a new run and points `latest` to it. `ending` is the bed, and what is special.
    pub(crate) fn create(runs: &Path, ending: &str) -> anyhow::Result<Self> {
        let make = || -> io::Result<PathBuf> {
            fs::create_dir_all(runs)?;
            loop {
                // As the runner's own, so that names sort by time; colons are trouble in paths.
                let start = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace(':', "-");
                let name = format!("{start}-{ending}");
                match fs::create_dir(runs.join(&name)) {
                    Ok(()) => {
                        point_latest(runs, &name)?;
                        return Ok(runs.join(name));
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Self(make().with_context(|| format!("cannot make a folder in {}", runs.display()))?))
    }

    /// The folder of an earlier run: by name, by path, or the newest that belongs to a bed.
    pub(crate) fn find(runs: &Path, run: Option<&str>, ending: &str) -> anyhow::Result<Self> {
        let folder = match run {
            Some(run) if Path::new(run).join(JOURNAL).is_file() => PathBuf::from(run),
            Some(run) => runs.join(run),
            None => {
                let entries = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
                let ours = |path: &PathBuf| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    name.split_once("Z-").is_some_and(|(_, what)| what.starts_with(ending))
                };
                let newest = entries.filter(|path| ours(path) && path.join(JOURNAL).is_file()).max();
                newest
                    .with_context(|| format!("there is no run in the bed {ending} in {}", runs.display()))?
            }
        };
        if !folder.join(JOURNAL).is_file() {
            bail!("there is no such run: {} does not exist", folder.join(JOURNAL).display());
        }
        Ok(Self(folder))
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The journal's place.
    pub(crate) fn journal_path(&self) -> PathBuf {
        self.0.join(JOURNAL)
    }

    /// The journal, to be written on. A torn last line is ended first.
    pub(crate) fn journal(&self) -> anyhow::Result<File> {
        let path = self.journal_path();
        let named = || path.display().to_string();
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(named)?;
        file.try_lock()
            .map_err(io::Error::from)
            .context("another process is writing to it")
            .with_context(named)?;
        let written = fs::read(&path).with_context(named)?;
        if !written.is_empty() && !written.ends_with(b"\n") {
            io::Write::write_all(&mut &file, b"\n").with_context(named)?;
        }
        Ok(file)
    }

    /// A new file for a boot: `console.log`, `console-2.log` and so on.
    pub(crate) fn log(&self, name: &str) -> anyhow::Result<(PathBuf, File)> {
        self.numbered(name, |path| OpenOptions::new().append(true).create_new(true).open(path))
    }

    /// The log of a machine that other runs use as well, under a name as [`log`](Self::log) gives one.
    pub(crate) fn share_log(&self, name: &str, log: &Path) -> anyhow::Result<()> {
        // It stays when the folder of the run goes that has booted the machine.
        self.numbered(name, |path| fs::hard_link(log, path)).map(|_| ())
    }

    /// The first of these names that is free, and what `make` makes of it.
    fn numbered<T>(&self, name: &str, make: impl Fn(&Path) -> io::Result<T>) -> anyhow::Result<(PathBuf, T)> {
        let names = (1..).map(|n| if n == 1 { format!("{name}.log") } else { format!("{name}-{n}.log") });
        for file in names {
            let path = self.0.join(file);
            match make(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
                Ok(made) => return Ok((path, made)),
            }
        }
        bail!("there are too many logs in {}", self.0.display())
    }
}

fn point_latest(runs: &Path, name: &str) -> io::Result<()> {
    let draft = runs.join(format!("latest.{name}"));
    symlink(name, &draft)?;
    fs::rename(&draft, runs.join("latest"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_run_is_found_by_name_by_path_and_as_the_newest_of_its_bed() {
        let runs = tempfile::tempdir().unwrap();
        assert!(RunFolder::find(runs.path(), None, "amd").unwrap_err().to_string().contains("no run"));
        let first = RunFolder::create(runs.path(), "amd").unwrap();
        let second = RunFolder::create(runs.path(), "amd-npt=0").unwrap();
        for folder in [&first, &second] {
            drop(folder.journal().unwrap());
        }
        fs::create_dir(runs.path().join("2999-01-01T00-00-00.000Z")).unwrap();
        fs::write(runs.path().join("2999-01-01T00-00-00.000Z/results.jsonl"), "").unwrap();
        assert_eq!(RunFolder::find(runs.path(), None, "amd").unwrap().path(), second.path());
        let name = first.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(RunFolder::find(runs.path(), Some(name), "amd").unwrap().path(), first.path());
        assert_eq!(RunFolder::find(runs.path(), first.path().to_str(), "amd").unwrap().path(), first.path());
        assert!(RunFolder::find(runs.path(), Some("none"), "amd").is_err());
        let latest = fs::canonicalize(runs.path().join("latest")).unwrap();
        assert_eq!(latest, fs::canonicalize(second.path()).unwrap());
    }

    #[test]
    fn a_torn_line_is_ended_and_logs_are_numbered() {
        let runs = tempfile::tempdir().unwrap();
        let run = RunFolder::create(runs.path(), "amd").unwrap();
        run.journal().unwrap().write_all(b"{}\n{torn").unwrap();
        let journal = run.journal().unwrap();
        assert_eq!(fs::read(run.journal_path()).unwrap(), b"{}\n{torn\n");
        assert!(run.journal().unwrap_err().to_string().contains("results.jsonl"));
        drop(journal);
        let (first, mut file) = run.log("console").unwrap();
        run.log("console").unwrap();
        assert!(run.path().join("console-2.log").exists());

        let other = RunFolder::create(runs.path(), "amd").unwrap();
        other.share_log("console", &first).unwrap();
        other.log("console").unwrap();
        fs::remove_dir_all(run.path()).unwrap();
        file.write_all(b"Linux").unwrap();
        assert_eq!(fs::read(other.path().join("console.log")).unwrap(), b"Linux");
        assert!(other.path().join("console-2.log").exists());
    }
}
