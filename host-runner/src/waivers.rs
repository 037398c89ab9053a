//! Waivers: deviations that are known, with their reason, so that a run can be green and still honest.
//!
//! A waiver states what deviates. A case that deviates otherwise still fails, and one that holds
//! fails as well (`xpass`), so that waivers do not rot.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::case::{Combo, Vary};
use crate::host::{HostFacts, other_setting};
use crate::outcome::{Outcome, Verdict};

/// What stands in a waived outcome between the waiver's reason and what was seen.
const OBSERVED: &str = " (observed: ";

/// The waivers that a host has, by case: its backend's and its bed's.
#[derive(Debug, Default)]
pub struct Waivers {
    by_case: BTreeMap<String, Vec<Waiver>>,
    /// The files' text, from which journals tell whether it has changed.
    text: String,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    waiver: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    case: Option<Spanned<String>>,
    /// Several cases that deviate for one reason.
    #[serde(default)]
    cases: Vec<Spanned<String>>,
    reason: String,
    link: Option<String>,
    #[serde(default)]
    expect: Deviation,
    observed: Option<Observed>,
    #[serde(default)]
    vary: Vec<Vary>,
    #[serde(default)]
    sometimes: bool,
    /// Module parameters without which the waiver does not apply: `"kvm_amd.npt" = "0"`.
    #[serde(default)]
    params: BTreeMap<String, String>,
}

/// What is seen; several texts if it is not the same each time.
#[derive(Deserialize)]
#[serde(untagged)]
enum Observed {
    Always(String),
    OneOf(Vec<String>),
}

impl Observed {
    fn texts(self) -> Vec<String> {
        match self {
            Observed::Always(text) => vec![text],
            Observed::OneOf(texts) => texts,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Deviation {
    #[default]
    Fail,
    Timeout,
    Crash,
    Error,
}

impl Deviation {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Fail => Verdict::Fail,
            Self::Timeout => Verdict::Timeout,
            Self::Crash => Verdict::Crash,
            Self::Error => Verdict::Error,
        }
    }
}

impl Waivers {
    /// Adds a file of waivers for a suite that has these `cases`, as far as they apply to `host`. A file that does
    /// not exist is a mistake only if it is `wanted`. The error is for the user, with file, line and column.
    pub fn add<'a>(
        &mut self,
        path: &Path,
        wanted: bool,
        cases: impl Iterator<Item = &'a str>,
        host: &HostFacts,
    ) -> Result<(), String> {
        match fs::read_to_string(path) {
            Ok(text) => self.parse(&text, &path.display().to_string(), cases, host),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !wanted => Ok(()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    fn parse<'a>(
        &mut self,
        text: &str,
        file: &str,
        cases: impl Iterator<Item = &'a str>,
        host: &HostFacts,
    ) -> Result<(), String> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let place =
                error.span().map_or_else(|| file.to_owned(), |span| place(text, file, span.start, true));
            format!("{place}: {}", error.message())
        })?;
        let cases: Vec<&str> = cases.collect();
        for entry in document.waiver {
            let ids: Vec<Spanned<String>> = entry.case.into_iter().chain(entry.cases).collect();
            let applies = other_setting(&entry.params, host).is_none();
            let observed = entry.observed.map(Observed::texts).unwrap_or_default();
            if ids.is_empty() {
                return Err(format!("{file}: a waiver names no case (\"{}\")", entry.reason));
            }
            for id in ids {
                let (start, case) = (id.span().start, id.into_inner());
                let mistake = |what: &str| Err(format!("{}: {what}", place(text, file, start, true)));
                if !cases.contains(&case.as_str()) {
                    return mistake(&format!("a waiver for `{case}`, but there is no such case"));
                }
                if entry.reason.trim().is_empty() {
                    return mistake(&format!("the waiver for `{case}` gives no reason"));
                }
                if !applies {
                    continue;
                }
                let waiver = Waiver {
                    reason: entry.reason.clone(),
                    link: entry.link.clone(),
                    expect: entry.expect.verdict(),
                    vary: entry.vary.clone(),
                    sometimes: entry.sometimes,
                    observed: observed.clone(),
                    place: place(text, file, start, false),
                };
                let others = self.by_case.entry(case.clone()).or_default();
                let same = |other: &&Waiver| {
                    other.vary == waiver.vary || other.vary.iter().any(|vary| waiver.vary.contains(vary))
                };
                if let Some(first) = others.iter().find(same) {
                    return mistake(&format!("a second waiver for `{case}`; {} has the first", first.place));
                }
                others.push(waiver);
            }
        }
        self.text.push_str(text);
        Ok(())
    }

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
        self.by_case.get(case)?.iter().find(waived)
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
        let waivers: Vec<&Waiver> = self.by_case.get(case).into_iter().flatten().filter(about).collect();
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

fn place(text: &str, file: &str, offset: usize, with_column: bool) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    if with_column { format!("{file}:{line}:{column}") } else { format!("{file}:{line}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Mismatch;
    use crate::outcome::Evidence;

    fn parse(text: &str) -> Result<Waivers, String> {
        let mut waivers = Waivers::default();
        waivers.parse(text, "w.toml", ["a.one", "a.two"].into_iter(), &host("Y"))?;
        Ok(waivers)
    }

    fn host(npt: &str) -> HostFacts {
        let mut host = HostFacts::read_under(Path::new("/nonexistent"));
        host.params.insert("kvm_amd.npt".into(), npt.into());
        host
    }

    const ONE: &str = "[[waiver]]\ncase = \"a.one\"\nreason = \"known\"\n";

    #[test]
    fn a_waived_deviation_is_expected_and_others_are_not() {
        let waivers = parse(&format!("{ONE}observed = \"0x7\"\nlink = \"L\"\n")).unwrap();
        let fail = |reason: &str| Outcome::new(Verdict::Fail, reason);
        let xfail = waivers.apply("a.one", &Combo::PLAIN, fail("rax is 0x7"));
        assert_eq!(xfail.verdict, Verdict::Xfail);
        assert_eq!(xfail.reason, "known, L (observed: rax is 0x7)");
        assert_eq!(waivers.behind("a.one", &xfail), waivers.get("a.one"));
        assert_eq!(waivers.behind("a.two", &xfail), None);
        assert_eq!(waivers.behind("a.one", &Outcome::new(Verdict::Xfail, "known (observed: x)")), None);
        let other = waivers.apply("a.one", &Combo::PLAIN, fail("rax is 0x8"));
        assert_eq!(other.verdict, Verdict::Fail);
        assert!(other.reason.contains("w.toml:2") && other.reason.contains("another deviation"));
        assert_eq!(
            waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Timeout, "0x7")).verdict,
            Verdict::Timeout
        );
        assert_eq!(waivers.apply("a.two", &Combo::PLAIN, fail("0x7")).verdict, Verdict::Fail);
        let mismatch = Mismatch { field: "rax".into(), expected: "0x1".into(), observed: "0x7".into() };
        let evidence = Evidence { mismatches: vec![mismatch], ..Evidence::default() };
        let seen = Outcome { evidence: Some(Box::new(evidence)), ..fail("rax") };
        assert_eq!(waivers.apply("a.one", &Combo::PLAIN, seen).verdict, Verdict::Xfail);
    }

    #[test]
    fn a_deviation_can_differ_from_run_to_run() {
        let waivers = parse(&format!("{ONE}observed = [\"0x7\", \"0x8\"]\n")).unwrap();
        let verdict =
            |reason: &str| waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Fail, reason));
        assert_eq!(verdict("rax is 0x7").verdict, Verdict::Xfail);
        assert_eq!(verdict("rax is 0x8").verdict, Verdict::Xfail);
        let other = verdict("rax is 0x9");
        assert_eq!(other.verdict, Verdict::Fail);
        assert!(other.reason.contains("with `0x7` or `0x8`"), "{}", other.reason);
    }

    #[test]
    fn a_waiver_can_be_for_perturbations_alone() {
        let under = "[[waiver]]\ncase = \"a.one\"\nreason = \"lost\"\nvary = [\"kick\"]\n";
        let waivers = parse(under).unwrap();
        let verdict = |waivers: &Waivers, vary: &[Vary], outcome| {
            waivers.apply("a.one", &Combo::new(vary.to_vec()), outcome).verdict
        };
        let fail = || Outcome::new(Verdict::Fail, "x");
        assert_eq!(verdict(&waivers, &[], fail()), Verdict::Fail);
        assert_eq!(verdict(&waivers, &[Vary::Kick], fail()), Verdict::Xfail);
        assert_eq!(verdict(&waivers, &[Vary::Kick, Vary::Migrate], fail()), Verdict::Xfail);
        assert_eq!(verdict(&waivers, &[Vary::Kick], Outcome::pass()), Verdict::Xpass);
        assert_eq!(verdict(&waivers, &[Vary::Migrate], fail()), Verdict::Fail);
        // With one for the case as it is.
        let both = parse(&format!("{under}{ONE}")).unwrap();
        assert_eq!(verdict(&both, &[], fail()), Verdict::Xfail);
        assert_eq!(verdict(&both, &[Vary::Migrate], fail()), Verdict::Xfail);
        assert_eq!(verdict(&both, &[Vary::Migrate], Outcome::pass()), Verdict::Pass, "it need not show");
        assert!(parse(&format!("{under}{under}")).unwrap_err().contains("second waiver"));
    }

    #[test]
    fn a_stale_waiver_is_no_pass_and_a_skip_stays_one() {
        let waivers = parse(ONE).unwrap();
        let xpass = waivers.apply("a.one", &Combo::PLAIN, Outcome::pass());
        assert_eq!(xpass.verdict, Verdict::Xpass);
        assert!(xpass.reason.contains("remove the waiver"));
        assert_eq!(
            waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Skip, "")).verdict,
            Verdict::Skip
        );
    }

    #[test]
    fn the_verdict_can_be_stated() {
        let waivers = parse(&format!("{ONE}expect = \"timeout\"\n")).unwrap();
        assert_eq!(
            waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Timeout, "x")).verdict,
            Verdict::Xfail
        );
        assert_eq!(
            waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Fail, "x")).verdict,
            Verdict::Fail
        );
    }

    #[test]
    fn mistakes_have_a_place() {
        let error = |text: &str| parse(text).unwrap_err();
        let unknown = error("\n[[waiver]]\ncase = \"a.three\"\nreason = \"r\"\n");
        assert!(unknown.starts_with("w.toml:3:8: ") && unknown.contains("a.three"), "{unknown}");
        assert!(error(&format!("{ONE}{ONE}")).contains("second waiver"));
        assert!(error(&format!("{ONE}because = 1\n")).starts_with("w.toml:4:1: unknown field"));
        assert!(error(&format!("{ONE}expect = \"pass\"\n")).starts_with("w.toml:4:10: "));
        assert!(error("[[waiver]]\ncase = \"a.one\"\nreason = \" \"\n").contains("no reason"));
    }

    #[test]
    fn what_deviates_at_times_may_hold() {
        let waivers = parse(&format!("{ONE}sometimes = true\n")).unwrap();
        let verdict = |outcome| waivers.apply("a.one", &Combo::PLAIN, outcome).verdict;
        assert_eq!(verdict(Outcome::pass()), Verdict::Pass);
        assert_eq!(verdict(Outcome::new(Verdict::Fail, "x")), Verdict::Xfail);
        assert!(!waivers.expects_deviation("a.one", &Combo::PLAIN), "nothing to expect");
    }

    #[test]
    fn one_reason_can_be_that_of_several_cases() {
        let waivers = parse("[[waiver]]\ncases = [\"a.one\",\n  \"a.two\"]\nreason = \"r\"\n").unwrap();
        assert_eq!(waivers.get("a.one").unwrap().place, "w.toml:2");
        assert_eq!(waivers.get("a.two").unwrap().place, "w.toml:3");
        assert!(parse("[[waiver]]\nreason = \"r\"\n").unwrap_err().contains("names no case"));
    }

    #[test]
    fn only_a_file_that_was_asked_for_must_exist() {
        let none = Path::new("/nonexistent/waivers.toml");
        let mut waivers = Waivers::default();
        assert!(waivers.add(none, false, std::iter::empty(), &host("Y")).is_ok());
        assert!(
            waivers.add(none, true, std::iter::empty(), &host("Y")).unwrap_err().contains("/nonexistent")
        );
    }

    #[test]
    fn a_waiver_can_be_for_a_module_parameter_only() {
        let text = format!("{ONE}params = {{ \"kvm_amd.npt\" = \"0\" }}\n");
        let applies = |npt: &str| {
            let mut waivers = Waivers::default();
            waivers.parse(&text, "w.toml", ["a.one"].into_iter(), &host(npt)).unwrap();
            waivers.get("a.one").is_some()
        };
        assert_eq!([applies("Y"), applies("N")], [false, true]);
    }

    #[test]
    fn two_files_add_up_and_do_not_contradict() {
        let mut waivers = parse(ONE).unwrap();
        let two = ONE.replace("a.one", "a.two");
        let cases = || ["a.one", "a.two"].into_iter();
        waivers.parse(&two, "bed.toml", cases(), &host("Y")).unwrap();
        assert!(waivers.get("a.one").is_some() && waivers.get("a.two").is_some());
        let error = waivers.parse(ONE, "bed.toml", cases(), &host("Y")).unwrap_err();
        assert!(error.contains("bed.toml:2:8") && error.contains("w.toml:2"), "{error}");
    }
}
