//! Which state of the suite a run is of.

use std::path::Path;
use std::process::Command;

/// The commit that a folder is at, if it is in a repository and git is there.
pub fn revision(folder: &Path) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(["rev-parse", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Whether the repository that a folder is in has changes that are not committed, files that git does not know
/// included.
pub fn dirty(folder: &Path) -> Option<bool> {
    let output = Command::new("git").arg("-C").arg(folder).args(["status", "--porcelain"]).output().ok()?;
    output.status.success().then_some(!output.stdout.is_empty())
}
