//! One case from start to final verdict: process, kernel log, waiver, journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::Failed;

use super::progress::Progress;
use crate::case::Case;
use crate::isolate::{Pool, time_limit};
use crate::journal::Journal;
use crate::kernel_log::KernelLog;
use crate::outcome::{Outcome, Verdict};
use crate::report::{self, Paint};
use crate::suite::Suite;
use crate::waivers::Waivers;

/// What all cases of a run share.
pub(super) struct Run {
    pub(super) suite: Arc<dyn Suite>,
    pub(super) pool: Pool,
    pub(super) kernel_log: KernelLog,
    pub(super) journal: Option<Journal>,
    pub(super) waivers: Waivers,
    pub(super) paint: Paint,
    /// The command that repeats the run, without the case.
    pub(super) again: String,
    pub(super) progress: Progress,
    pub(super) timeout_scale: f64,
    /// The final verdicts.
    pub(super) outcomes: Mutex<BTreeMap<String, Outcome>>,
}

impl Run {
    /// Plays the case at this index of the suite.
    pub(super) fn play(&self, index: usize) -> Result<(), Failed> {
        let Some(case) = self.suite.cases().get(index) else { return Err("no such case".into()) };
        let limit = time_limit(case, self.timeout_scale);
        self.keep(|journal| journal.started(&case.id, limit))?;
        let start = Instant::now();
        self.kernel_log.begin(&case.id);
        let outcome = self.pool.play(&case.id, limit, &mut |pid| self.kernel_log.started(&case.id, pid));
        let outcome = with_kernel_log(outcome, self.kernel_log.end(&case.id));
        let outcome = self.waivers.apply(&case.id, outcome);
        self.keep(|journal| journal.finished(&case.id, &outcome, start.elapsed()))?;
        self.settle(case, outcome)
    }

    /// A case that is not played: its requirement is missing.
    pub(super) fn settle_unplayed(&self, case: &Case, outcome: Outcome) -> Result<(), Failed> {
        self.keep(|journal| journal.finished(&case.id, &outcome, std::time::Duration::ZERO))?;
        self.settle(case, outcome)
    }

    fn settle(&self, case: &Case, outcome: Outcome) -> Result<(), Failed> {
        let good = outcome.verdict.is_good();
        self.progress.step(good);
        let text = (!good).then(|| report::failure(case, &outcome, &self.again, self.paint));
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert(case.id.clone(), outcome);
        text.map_or(Ok(()), |text| Err(Failed::from(text)))
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

/// A report of the kernel fails a case that would have passed, and is evidence for any other.
fn with_kernel_log(mut outcome: Outcome, reports: Vec<Vec<String>>) -> Outcome {
    let Some(title) = reports.first().and_then(|report| report.first()) else { return outcome };
    if matches!(outcome.verdict, Verdict::Pass | Verdict::Error) {
        outcome.verdict = Verdict::Fail;
        outcome.reason = format!("the kernel reported: {title}");
    }
    outcome.evidence.get_or_insert_default().kernel_log = reports.into_iter().flatten().collect();
    outcome
}
