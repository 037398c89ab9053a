//! Reports of a bed's runs (`--report-dir`): made outside of the machines, of the journals that came out of them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Writes reports of these runs into the folder that was asked for, if one was.
pub(crate) fn write(runner: &Path, runs: &[&Path], folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    // A machine that never came up has left no line.
    let begun = |run: &&&Path| run.join("results.jsonl").metadata().is_ok_and(|file| file.len() > 0);
    let runs: Vec<&Path> = runs.iter().filter(begun).copied().collect();
    if runs.is_empty() {
        eprintln!("reports  none: no run has begun");
        return Ok(());
    }
    let ended =
        Command::new(runner).arg("report").arg("--output").arg(folder).arg("--from").args(runs).status();
    let ended = ended.context("cannot start the runner to report")?;
    if !ended.success() {
        bail!("`exitspec report` fails ({ended})");
    }
    eprintln!("reports  {}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_run_that_never_began_is_not_reported() {
        let folder = tempfile::tempdir().unwrap();
        let runs = ["empty", "begun"].map(|name| folder.path().join(name));
        for (run, text) in runs.iter().zip(["", "{}\n"]) {
            fs::create_dir(run).unwrap();
            fs::write(run.join("results.jsonl"), text).unwrap();
        }
        let (yes, no) = (Path::new("true"), Path::new("false"));
        assert!(write(no, &[&runs[1]], None).is_ok());
        assert!(write(no, &[&runs[0]], Some(folder.path())).is_ok());
        assert!(write(no, &[&runs[0], &runs[1]], Some(folder.path())).is_err());
        assert!(write(yes, &[&runs[0], &runs[1]], Some(folder.path())).is_ok());
    }
}
