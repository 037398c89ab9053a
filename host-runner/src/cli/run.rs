//! One case from start to final verdict: process, kernel log, waiver, journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Completion, Failed};

use super::ground::Ground;
use super::interrupt::Flag;
use super::plan::Test;
use super::progress::Progress;
use super::shrink::shrink;
use crate::case::Case;
use crate::isolate::Played;
use crate::journal::{About, Journal};
use crate::outcome::{Outcome, Verdict};
use crate::report::{self, Paint};
use crate::suite::Suite;
use crate::waivers::Waivers;

/// What all cases of a run share.
pub(super) struct Run {
    pub(super) suite: Arc<dyn Suite>,
    pub(super) ground: Ground,
    pub(super) journal: Option<Journal>,
    pub(super) waivers: Waivers,
    pub(super) paint: Paint,
    /// The command that repeats the run, without the case.
    pub(super) again: String,
    pub(super) progress: Progress,
    pub(super) interrupt: Flag,
    pub(super) seed: u64,
    /// The final verdicts.
    pub(super) outcomes: Mutex<BTreeMap<String, Outcome>>,
}

impl Run {
    /// Plays a test, unless the run is interrupted: then it has no verdict.
    pub(super) fn play(&self, test: &Test) -> Result<Completion, Failed> {
        let unplayed = || Ok(Completion::ignored_with("the run was interrupted"));
        if self.ground.pool.is_stopped() {
            return unplayed();
        }
        let Some(case) = self.suite.cases().get(test.index) else { return Err("no such case".into()) };
        let limit = self.ground.limit(case, &test.combo);
        self.keep(|journal| journal.started(&test.name, limit))?;
        let start = Instant::now();
        self.progress.start(&test.name);
        let once = |what: &Played| self.ground.play(&test.name, what, limit);
        let Some(outcome) = once(&played(test, self.seed, None)) else { return unplayed() };
        let mut outcome = self.waivers.apply(&case.id, &test.combo, outcome);
        if outcome.verdict == Verdict::Fail && !test.combo.is_plain() {
            let plain = Played { test: case.id.clone(), seed: self.seed, only: None };
            shrink(&mut outcome, |only| match only {
                None => once(&plain),
                Some(points) => once(&played(test, self.seed, Some(points))),
            });
        }
        self.keep(|journal| {
            journal.finished(&test.name, &outcome, start.elapsed(), || self.about(test, case))
        })?;
        self.settle(test, outcome).map(|()| Completion::Completed)
    }

    /// A test that is not played: its requirement is missing.
    pub(super) fn settle_unplayed(&self, test: &Test, outcome: Outcome) -> Result<(), Failed> {
        let Some(case) = self.suite.cases().get(test.index) else { return Err("no such case".into()) };
        let about = || self.about(test, case);
        self.keep(|journal| journal.finished(&test.name, &outcome, std::time::Duration::ZERO, about))?;
        self.settle(test, outcome)
    }

    fn settle(&self, test: &Test, outcome: Outcome) -> Result<(), Failed> {
        let Some(case) = self.suite.cases().get(test.index) else { return Err("no such case".into()) };
        let good = outcome.verdict.is_good();
        self.progress.step(&test.name, good);
        let about = || self.about(test, case);
        let text = (!good).then(|| report::failure(&case.id, Some(&about()), &outcome, self.paint));
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert(test.name.clone(), outcome);
        drop(outcomes);
        let Some(text) = text else { return Ok(()) };
        if self.progress.tells_all() {
            self.progress.tell(&format!("---- {} ----\n{text}\n", test.name));
            return Err(Failed::without_message());
        }
        Err(Failed::from(text))
    }

    fn about(&self, test: &Test, case: &Case) -> About {
        About::of(case, self.again(test))
    }

    /// The command that repeats a test.
    fn again(&self, test: &Test) -> String {
        let Self { again, seed, .. } = self;
        if test.combo.is_plain() {
            return format!("{again} --exact {}", test.name);
        }
        format!("{again} --seed {seed} --exact {}", test.name)
    }

    /// Writes to the journal; a result that cannot be kept is a failure, as the promise is broken.
    fn keep(&self, write: impl FnOnce(&Journal) -> std::io::Result<()>) -> Result<(), Failed> {
        let Some(journal) = &self.journal else { return Ok(()) };
        write(journal).map_err(|error| {
            Failed::from(format!(
                "cannot write {}: {error}\nfree some space, then --resume",
                journal.path().display()
            ))
        })
    }
}

/// What a worker is told.
pub(super) fn played(test: &Test, seed: u64, only: Option<&[u32]>) -> Played {
    Played { test: test.name.clone(), seed, only: only.map(<[u32]>::to_vec) }
}
