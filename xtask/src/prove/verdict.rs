//! From what the cases said to what that says of a bug. Pure: no files, no machines.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::bugs::{Bug, Proof};
use super::journal::{Seen, Trial};
use crate::bed::kind::Kind;

/// What became of a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Every case that is expected to fails.
    Caught,
    /// Some of them fail.
    Partly,
    /// None of them fails.
    Missed,
    /// What fails does so for another reason than the bug: the case says `error`, the kernel died of what should not
    /// kill it or lived with what should, or the unmodified KVM fails there, too.
    WrongReason,
    /// The compiler refuses it.
    Unbuildable,
    /// Nobody can see it, as its argument says.
    Unobservable,
    /// It is said to be unobservable, and a case fails.
    Refuted,
    /// It has not run.
    Open,
}

impl Verdict {
    /// Its words.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::Partly => "partly caught",
            Self::Missed => "missed",
            Self::WrongReason => "wrong reason",
            Self::Unbuildable => "unbuildable",
            Self::Unobservable => "unobservable",
            Self::Refuted => "not unobservable",
            Self::Open => "not run",
        }
    }

    /// Whether the suite and what is said of the bug are as they should be.
    pub(crate) const fn is_good(self) -> bool {
        matches!(self, Self::Caught | Self::Unobservable)
    }
}

/// What an expected case said in a bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sight {
    /// It fails with the bug, and not without.
    Fails,
    /// The kernel died while it ran.
    Crash,
    /// It holds.
    Holds,
    /// It cannot run there.
    Skipped,
    /// The case itself is at fault, it fails without the bug as well, or it has no verdict.
    Void,
}

/// What was found in a bed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct InBed {
    /// The expected cases.
    pub(crate) expected: BTreeMap<String, Sight>,
    /// Other cases that fail with the bug and not without.
    pub(crate) others: BTreeSet<String>,
    /// What is worth saying of them, for people: why a case fails, or has no verdict.
    pub(crate) remarks: Vec<String>,
}

/// What became of a bug, with what was found in each bed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) beds: BTreeMap<Kind, InBed>,
}

impl Judged {
    /// All cases that fail with the bug in a bed, expected ones first.
    pub(crate) fn caught_by(&self, bed: Kind) -> Vec<&str> {
        let Some(found) = self.beds.get(&bed) else { return Vec::new() };
        let expected =
            found.expected.iter().filter(|(_, sight)| matches!(sight, Sight::Fails | Sight::Crash));
        expected.map(|(case, _)| case.as_str()).chain(found.others.iter().map(String::as_str)).collect()
    }
}

/// Whether a verdict of the runner means that the host deviates.
pub(crate) fn deviates(seen: &Seen) -> bool {
    matches!(seen.verdict.as_str(), "fail" | "timeout" | "crash" | "xpass")
}

/// Whether a case can tell something: it holds without the bug, or deviates as is known.
pub(crate) fn tells(before: Option<&Seen>) -> bool {
    before.is_some_and(|seen| ["pass", "xfail"].contains(&seen.verdict.as_str()))
}

/// What a run in one bed shows.
pub(crate) fn in_bed(bug: &Bug, trial: &Trial) -> InBed {
    let mut found = InBed::default();
    if let Some(trouble) = &trial.trouble {
        found.remarks.push(format!("the run did not come to its end: {trouble}"));
    }
    let expected = bug.expected(trial.setting.bed);
    for case in expected {
        let (before, with) = (trial.before.get(case), trial.cases.get(case));
        let word = |seen: Option<&Seen>| match seen {
            Some(seen) if seen.reason.is_empty() => seen.verdict.clone(),
            Some(seen) => format!("{} ({})", seen.verdict, seen.reason),
            None => "no verdict".to_owned(),
        };
        let sight = match with {
            _ if before.is_some_and(|seen| seen.verdict == "skip") => Sight::Skipped,
            // What says the same as without the bug is left out where many were asked.
            None if trial.trouble.is_none() && trial.asked.contains(case) => Sight::Holds,
            _ if !tells(before) => Sight::Void,
            Some(seen) if seen.verdict == "crash" => Sight::Crash,
            Some(seen) if deviates(seen) => Sight::Fails,
            Some(seen) if tells(Some(seen)) => Sight::Holds,
            _ => Sight::Void,
        };
        if sight == Sight::Void && !tells(before) {
            found.remarks.push(format!("{case}: without the bug {}", word(before)));
        } else if with.is_some() || sight == Sight::Void {
            found.remarks.push(format!("{case}: {}", word(with)));
        }
        found.expected.insert(case.clone(), sight);
    }
    for (case, seen) in &trial.cases {
        if !expected.contains(case) && deviates(seen) && tells(trial.before.get(case)) {
            found.others.insert(case.clone());
        }
    }
    found
}

/// What became of a bug, from its runs, one in a bed at most.
pub(crate) fn judge(bug: &Bug, unbuildable: bool, trials: &[&Trial]) -> Judged {
    let beds: BTreeMap<Kind, InBed> =
        trials.iter().map(|trial| (trial.setting.bed, in_bed(bug, trial))).collect();
    let verdict = if unbuildable {
        Verdict::Unbuildable
    } else if let Proof::Unobservable(_) = bug.proof {
        if beds.values().any(|found| !found.others.is_empty()) {
            Verdict::Refuted
        } else {
            Verdict::Unobservable
        }
    } else if beds.is_empty() {
        Verdict::Open
    } else {
        observable(bug, &beds)
    };
    Judged { verdict, beds }
}

fn observable(bug: &Bug, beds: &BTreeMap<Kind, InBed>) -> Verdict {
    let everywhere = bug.beds.iter().all(|bed| beds.contains_key(bed));
    // What each expected case said, by bed or, where any bed will do, in all of them.
    let mut sights: Vec<Vec<Sight>> = Vec::new();
    if let Proof::Anywhere(cases) = &bug.proof {
        for case in cases {
            sights.push(beds.values().filter_map(|found| found.expected.get(case).copied()).collect());
        }
    } else {
        sights.extend(beds.values().flat_map(|found| found.expected.values().map(|sight| vec![*sight])));
    }
    let all = || sights.iter().flatten();
    let crash = all().any(|sight| *sight == Sight::Crash);
    if all().any(|sight| *sight == Sight::Void)
        || crash != bug.crash && (crash || all().any(|s| *s == Sight::Fails))
    {
        return Verdict::WrongReason;
    }
    let caught = |seen: &&Vec<Sight>| seen.iter().any(|sight| matches!(sight, Sight::Fails | Sight::Crash));
    // Where it cannot run says nothing while there is another bed to be tried.
    let open = |seen: &&Vec<Sight>| !everywhere && seen.iter().all(|sight| *sight == Sight::Skipped);
    let number = sights.iter().filter(caught).count();
    if number > 0 && sights.iter().all(|seen| caught(&seen) || open(&seen)) {
        Verdict::Caught
    } else if number > 0 {
        Verdict::Partly
    } else if sights.iter().all(|seen| open(&seen)) {
        Verdict::Open
    } else {
        Verdict::Missed
    }
}

#[cfg(test)]
mod tests;
