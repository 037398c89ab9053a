//! Beds as a [`Bench`]: real machines, whose runs leave folders behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::journal;
use super::part::Parts;
use super::work::{Bench, Ran};
use crate::bed::kind::Kind;
use crate::bed::trial::{Task, Trial};

/// Beds that are prepared when they are first needed.
#[derive(Debug)]
pub(crate) struct Beds {
    /// The kernel to boot.
    image: PathBuf,
    /// What of the suite goes into a machine.
    parts: Parts,
    /// Where runs leave their folders.
    runs: PathBuf,
    /// Whether the folders of runs stay that came to their end.
    keep: bool,
    ready: BTreeMap<Kind, Trial>,
}

impl Beds {
    /// For this kernel.
    pub(crate) fn of(image: PathBuf, manifests: PathBuf, runs: PathBuf, keep: bool) -> Self {
        Self { image, parts: Parts::of(manifests), runs, keep, ready: BTreeMap::new() }
    }
}

impl Bench for Beds {
    fn run(
        &mut self,
        bed: Kind,
        tasks: &[Task<'_>],
        told: &mut dyn FnMut(usize, Ran) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let Some(first) = tasks.first() else { return Ok(()) };
        let trial = match self.ready.remove(&bed) {
            Some(trial) => trial,
            None => Trial::new(bed, &self.image, first.modules)?,
        };
        let trial = self.ready.entry(bed).or_insert(trial);
        let manifests = tasks.iter().map(|task| self.parts.with(task.cases));
        let manifests = manifests.collect::<anyhow::Result<Vec<_>>>()?;
        let mut dull = Vec::new();
        let done = trial.run(tasks, &manifests, &self.runs, &mut |task, ended| {
            let ran = Ran {
                cases: journal::verdicts(&ended.journal),
                trouble: ended.trouble,
                seconds: ended.seconds,
            };
            if ran.trouble.is_none() {
                dull.push(ended.folder);
            }
            told(task, ran)
        });
        // The next task's folder has the same logs, so they are of use until the last has ended.
        if !self.keep {
            for folder in dull {
                // It only takes space.
                let _ = fs::remove_dir_all(folder);
            }
        }
        done
    }
}
