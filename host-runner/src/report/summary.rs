//! The end of a run: how many held, what was skipped and why, on which host.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::paint::safe;
use crate::host::HostFacts;
use crate::outcome::{Outcome, Verdict};

/// How many waived deviations, and how many reasons of skips, are told unless all of them are wanted.
const SHORT: usize = 3;
/// Where the others are.
const MORE: &str = "; --verbose lists them";

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
    /// Whether every skip and every waived deviation is told; what makes a run red always is.
    pub all: bool,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = Tally::of(self.outcomes.values());
        let most = if self.all { usize::MAX } else { SHORT };
        let mut skips: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (case, outcome) in self.outcomes {
            let told = || format!("{:<8} {case}: {}", outcome.verdict.word(), safe(&outcome.reason));
            match outcome.verdict {
                Verdict::Pass => {}
                Verdict::Skip => skips.entry(&outcome.reason).or_default().push(case),
                Verdict::Xfail if tally.xfail > most => {}
                _ => writeln!(f, "{}", told())?,
            }
        }
        if tally.xfail > most {
            writeln!(f, "xfail    {} deviate as waived{MORE}", tally.xfail)?;
        }
        // What is missing for most cases comes first.
        let mut skips: Vec<_> = skips.into_iter().collect();
        skips.sort_by_key(|(_, cases)| Reverse(cases.len()));
        // A line that counts one reason could as well name it.
        let most = if skips.len() == SHORT + 1 { skips.len() } else { most };
        for (reason, cases) in skips.iter().take(most) {
            let names = cases[..cases.len().min(3)].join(", ");
            let more = cases.len().saturating_sub(3);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(f, "skip     {} ({}): {names}{more}", cases.len(), safe(reason))?;
        }
        if let Some(rest) = skips.get(most..).filter(|rest| !rest.is_empty()) {
            let count: usize = rest.iter().map(|(_, cases)| cases.len()).sum();
            writeln!(f, "skip     {count} for {} other reasons{MORE}", rest.len())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outcomes: &BTreeMap<String, Outcome>, all: bool) -> String {
        let host = HostFacts::read_under(std::path::Path::new("/nonexistent"));
        Summary { outcomes, host: &host, journal: None, remarks: &[], interrupted: None, all }.to_string()
    }

    #[test]
    fn long_lists_are_counted_and_failures_are_not() {
        let outcome = |verdict, reason: String| Outcome::new(verdict, reason);
        let mut outcomes = BTreeMap::new();
        for n in 0..5 {
            outcomes.insert(format!("a.known-{n}"), outcome(Verdict::Xfail, format!("waived {n}")));
            outcomes.insert(format!("a.needs-{n}"), outcome(Verdict::Skip, format!("needs {n}")));
            outcomes.insert(format!("a.bad-{n}"), outcome(Verdict::Fail, format!("differs {n}")));
            outcomes.insert(format!("a.smm-{n}"), outcome(Verdict::Skip, "needs SMM".to_owned()));
        }
        let short = text(&outcomes, false);
        assert!(short.contains("xfail    5 deviate as waived; --verbose"), "{short}");
        assert!(!short.contains("waived 0") && !short.contains("needs 2"), "{short}");
        let most = "skip     5 (needs SMM): a.smm-0, a.smm-1, a.smm-2 and 2 more\nskip     1 (needs 0): a.needs-0\n\
            skip     1 (needs 1): a.needs-1\nskip     3 for 3 other reasons; --verbose lists them\n";
        assert!(short.contains(most), "{short}");
        let long = text(&outcomes, true);
        assert!(
            long.contains("xfail    a.known-4: waived 4") && long.contains("(needs 4): a.needs-4"),
            "{long}"
        );
        for text in [short, long] {
            assert_eq!(text.matches("differs").count(), 5, "{text}");
            assert!(text.ends_with("\n5 passed, 5 failed, 10 skipped\n"), "{text}");
        }
    }

    #[test]
    fn short_lists_are_told() {
        let mut outcomes = BTreeMap::new();
        for n in 0..SHORT {
            outcomes.insert(format!("a.known-{n}"), Outcome::new(Verdict::Xfail, format!("waived {n}")));
            outcomes.insert(format!("a.needs-{n}"), Outcome::new(Verdict::Skip, format!("needs {n}")));
        }
        assert_eq!(text(&outcomes, false), text(&outcomes, true));
    }
}
