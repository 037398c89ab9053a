//! Beds as a [`Bench`]: real machines, whose runs leave folders behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::journal;
use super::work::{Bench, Ran};
use crate::bed::kind::Kind;
use crate::bed::params::Params;
use crate::bed::trial::Trial;

/// Beds that are prepared when they are first needed.
#[derive(Debug)]
pub(crate) struct Beds {
    /// The kernel to boot.
    image: PathBuf,
    /// Where runs leave their folders.
    runs: PathBuf,
    /// Whether the folders of runs stay that came to their end.
    keep: bool,
    ready: BTreeMap<Kind, Trial>,
}

impl Beds {
    /// For this kernel.
    pub(crate) fn of(image: PathBuf, runs: PathBuf, keep: bool) -> Self {
        Self { image, runs, keep, ready: BTreeMap::new() }
    }
}

impl Bench for Beds {
    fn run(
        &mut self,
        bed: Kind,
        modules: &Path,
        params: &Params,
        cases: &[String],
        name: &str,
    ) -> anyhow::Result<Ran> {
        let trial = match self.ready.remove(&bed) {
            Some(trial) => trial,
            None => Trial::new(bed, &self.image, modules)?,
        };
        let trial = self.ready.entry(bed).or_insert(trial);
        let ended = trial.run(modules, params, cases, &self.runs, &format!("{bed}-{name}"))?;
        let cases = journal::verdicts(&ended.journal);
        if !self.keep && ended.trouble.is_none() {
            // It only takes space.
            let _ = fs::remove_dir_all(&ended.folder);
        }
        Ok(Ran { cases, trouble: ended.trouble })
    }
}
