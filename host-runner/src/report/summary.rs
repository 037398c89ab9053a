//! The end of a run: how many held, what was skipped and why, on which host.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::paint::safe;
use crate::host::HostFacts;
use crate::outcome::{Outcome, Verdict};

/// How many cases have which verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Held.
    pub held: usize,
    /// Known deviations.
    pub xfail: usize,
    /// Skipped.
    pub skipped: usize,
    /// Everything that makes a run red.
    pub bad: usize,
}

impl Tally {
    /// Counts.
    pub fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            match outcome.verdict {
                Verdict::Pass => tally.held += 1,
                Verdict::Xfail => tally.xfail += 1,
                Verdict::Skip => tally.skipped += 1,
                _ => tally.bad += 1,
            }
        }
        tally
    }

    /// Whether any case ran.
    pub const fn ran(self) -> bool {
        self.held + self.xfail + self.bad > 0
    }
}

/// What the summary says.
#[derive(Debug)]
pub struct Summary<'a> {
    /// Every case of the run.
    pub outcomes: &'a BTreeMap<String, Outcome>,
    /// The host.
    pub host: &'a HostFacts,
    /// Where the results are; `None` if they are not kept.
    pub journal: Option<PathBuf>,
    /// Remarks: the kernel log could not be read, reports that belong to no case.
    pub remarks: &'a [String],
    /// What ended the run before its time, and how it goes on.
    pub interrupted: Option<String>,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = Tally::of(self.outcomes.values());
        let mut skips: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (case, outcome) in self.outcomes {
            match outcome.verdict {
                Verdict::Skip => skips.entry(&outcome.reason).or_default().push(case),
                Verdict::Pass => {}
                verdict => writeln!(f, "{:<8} {case}: {}", verdict.word(), safe(&outcome.reason))?,
            }
        }
        for (reason, cases) in skips {
            let names = cases[..cases.len().min(3)].join(", ");
            let more = cases.len().saturating_sub(3);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(f, "skip     {} ({reason}): {names}{more}", cases.len())?;
        }
        for remark in self.remarks {
            writeln!(f, "note     {}", safe(remark))?;
        }
        writeln!(f, "host     {}", self.host)?;
        if let Some(journal) = &self.journal {
            writeln!(f, "results  {}", journal.display())?;
        }
        if let Some(text) = &self.interrupted {
            writeln!(f, "ended    {}", safe(text))?;
        }
        let Tally { held, xfail, skipped, bad } = tally;
        writeln!(f, "{held} held, {bad} deviated, {skipped} skipped, {xfail} deviated as waived")?;
        // The words that scripts look for; a waived deviation counts as passed, as in libtest.
        writeln!(f, "{} passed, {bad} failed, {skipped} skipped", held + xfail)
    }
}
