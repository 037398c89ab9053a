//! Waivers: deviations that are known, with their reason, so that a run can be green and still honest.
//!
//! A waiver states what deviates. A case that deviates otherwise still fails, and one that holds
//! fails as well (`xpass`), so that waivers do not rot.

mod read;
mod release;

use std::collections::BTreeMap;

use crate::case::{Combo, Vary};
use crate::outcome::{Outcome, Verdict};

/// What stands in a waived outcome between the waiver's reason and what was seen.
const OBSERVED: &str = " (observed: ";

/// The waivers that a host has, by case: its backend's and its bed's.
#[derive(Debug, Default)]
pub struct Waivers {
    by_case: BTreeMap<String, Vec<Waiver>>,
    /// For what a host does to any case under some perturbations; a case's own go first.
    wide: Vec<(Scope, Waiver)>,
    /// The files' text, from which journals tell whether it has changed.
    text: String,
}

/// The cases of a waiver that names no single one.
#[derive(Debug, PartialEq, Eq)]
enum Scope {
    /// `*`
    Any,
    /// `family.*`, with its point.
    Family(String),
}

impl Scope {
    fn has(&self, case: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Family(family) => case.starts_with(family),
        }
    }
}

/// A known deviation.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiver {
    /// Why it deviates.
    pub reason: String,
    /// Where that is tracked.
    pub link: Option<String>,
    /// The verdict that the case has.
    pub expect: Verdict,
    /// Under which perturbations it deviates so; none: as it is, and maybe under any.
    pub vary: Vec<Vary>,
    /// Whether it holds at other times, so that holding is no surprise.
    pub sometimes: bool,
    /// Texts of which one must occur in the outcome's reason or in a mismatch; none of them means any outcome.
    pub observed: Vec<String>,
    /// `file:line`.
    pub place: String,
}

impl Waivers {
    /// The waiver for a case as it is.
    pub fn get(&self, case: &str) -> Option<&Waiver> {
        self.by_case.get(case)?.iter().find(|waiver| waiver.vary.is_empty())
    }

    /// Whether a test that holds would be a surprise: a waiver is for just these perturbations, or for the case as it is.
    pub fn expects_deviation(&self, case: &str, combo: &Combo) -> bool {
        self.certain(case, combo).is_some()
    }

    fn certain(&self, case: &str, combo: &Combo) -> Option<&Waiver> {
        let covers = |waiver: &&Waiver| {
            combo.varies().iter().all(|vary| waiver.vary.contains(vary))
                && waiver.vary.is_empty() == combo.is_plain()
                && !waiver.sometimes
        };
        self.by_case.get(case)?.iter().find(covers)
    }

    /// The waiver by which an outcome is waived.
    pub fn behind(&self, case: &str, outcome: &Outcome) -> Option<&Waiver> {
        let waived = |waiver: &&Waiver| {
            outcome.verdict == Verdict::Xfail
                && outcome
                    .reason
                    .strip_prefix(&waiver.stated())
                    .is_some_and(|rest| rest.starts_with(OBSERVED))
        };
        self.of(case).find(waived)
    }

    /// A case's own waivers, and then those of what a host does to any.
    fn of(&self, case: &str) -> impl Iterator<Item = &Waiver> {
        let wide = self.wide.iter().filter(move |(scope, _)| scope.has(case)).map(|(_, waiver)| waiver);
        self.by_case.get(case).into_iter().flatten().chain(wide)
    }

    /// The text they were read from; empty without a file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The outcome in the light of the case's waivers, if it has any. A deviation of the case as it is may show under
    /// perturbations as well, or may not: only the case as it is tells whether its waiver is stale.
    pub fn apply(&self, case: &str, combo: &Combo, outcome: Outcome) -> Outcome {
        if outcome.verdict == Verdict::Pass {
            return match self.certain(case, combo) {
                Some(waiver) => waiver.apply(outcome),
                None => outcome,
            };
        }
        let about = |waiver: &&Waiver| {
            waiver.vary.is_empty() || combo.varies().iter().any(|vary| waiver.vary.contains(vary))
        };
        let waivers: Vec<&Waiver> = self.of(case).filter(about).collect();
        let fits = |waiver: &&&Waiver| waiver.expect == outcome.verdict && waiver.is_observed(&outcome);
        match waivers.iter().find(fits).or(waivers.first()) {
            Some(waiver) => waiver.apply(outcome),
            None => outcome,
        }
    }
}

impl Waiver {
    fn apply(&self, mut outcome: Outcome) -> Outcome {
        match outcome.verdict {
            Verdict::Skip | Verdict::Xfail | Verdict::Xpass => outcome,
            Verdict::Pass => Outcome::new(
                Verdict::Xpass,
                format!("it holds, although {} waives it ({}): remove the waiver", self.place, self.reason),
            ),
            verdict if verdict == self.expect && self.is_observed(&outcome) => {
                outcome.verdict = Verdict::Xfail;
                outcome.reason = format!("{}{OBSERVED}{})", self.stated(), outcome.reason);
                outcome
            }
            _ => {
                let with = if self.observed.is_empty() { "" } else { " with " };
                let texts: Vec<_> = self.observed.iter().map(|text| format!("`{text}`")).collect();
                let waived = format!("{}{with}{}", self.expect.word(), texts.join(" or "));
                let remark = format!(" [{} waives {waived}, and this is another deviation]", self.place);
                outcome.reason.push_str(&remark);
                outcome
            }
        }
    }

    /// The reason, and where it is tracked.
    fn stated(&self) -> String {
        let link = self.link.as_ref().map(|link| format!(", {link}")).unwrap_or_default();
        format!("{}{link}", self.reason)
    }

    fn is_observed(&self, outcome: &Outcome) -> bool {
        self.observed.is_empty() || self.observed.iter().any(|text| occurs(text, outcome))
    }
}

fn occurs(text: &str, outcome: &Outcome) -> bool {
    let mismatches = outcome.evidence.iter().flat_map(|evidence| &evidence.mismatches);
    outcome.reason.contains(text)
        || mismatches.into_iter().any(|mismatch| {
            let line = format!("{}: {} {}", mismatch.field, mismatch.expected, mismatch.observed);
            mismatch.observed.contains(text) || line.contains(text)
        })
}

#[cfg(test)]
mod tests;
