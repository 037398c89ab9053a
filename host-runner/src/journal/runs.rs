//! The folder of runs: a folder per run, named by its start, and a link to the latest.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The journal's name in a run's folder.
const JOURNAL: &str = "results.jsonl";

/// The folder of runs, usually `target/exitspec`.
#[derive(Debug, Clone)]
pub struct Runs {
    folder: PathBuf,
}

impl Runs {
    /// The runs in this folder, which need not exist yet.
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Makes a folder for a new run and points `latest` to it; gives the journal's path.
    pub fn create(&self) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.folder)?;
        // Colons are trouble in PATH-like variables and on other file systems.
        let start = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace(':', "-");
        let name = (0..).map(|n| if n == 0 { start.clone() } else { format!("{start}-{n}") });
        for name in name {
            match fs::create_dir(self.folder.join(&name)) {
                Ok(()) => {
                    self.point_latest(&name)?;
                    return Ok(self.folder.join(name).join(JOURNAL));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The journal of a run by name or path, or of the newest.
    pub fn find(&self, run: Option<&str>) -> io::Result<PathBuf> {
        let journal = match run {
            None => self.newest()?.join(JOURNAL),
            Some(run) if Path::new(run).is_file() => PathBuf::from(run),
            Some(run) if Path::new(run).join(JOURNAL).is_file() => Path::new(run).join(JOURNAL),
            Some(run) => self.folder.join(run).join(JOURNAL),
        };
        if journal.is_file() {
            return Ok(journal);
        }
        Err(io::Error::other(format!("there is no such run: {} does not exist", journal.display())))
    }

    /// Names begin with the start time, so the greatest name is the newest run. A bed's runs can only go on
    /// in that bed; its name follows the time.
    fn newest(&self) -> io::Result<PathBuf> {
        let runs = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let runs = runs.filter(|path| !path.is_symlink() && !is_a_beds(path) && path.join(JOURNAL).is_file());
        runs.max().ok_or_else(|| io::Error::other(format!("there is no run in {}", self.folder.display())))
    }

    fn point_latest(&self, name: &str) -> io::Result<()> {
        let draft = self.folder.join(format!("latest.{}", std::process::id()));
        let _ = fs::remove_file(&draft);
        symlink(name, &draft)?;
        fs::rename(&draft, self.folder.join("latest"))
    }
}

fn is_a_beds(run: &Path) -> bool {
    let name = run.file_name().unwrap_or_default().to_string_lossy();
    name.split_once("Z-").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}
