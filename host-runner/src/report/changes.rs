//! What changed from one run to another: of the host, of the suite, and of each test. What is the same is not said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::paint::safe;
use crate::journal::Recovered;
use crate::outcome::{Outcome, Verdict};

/// The longest text of an outcome that is shown, in characters.
const LONGEST: usize = 400;

/// Changes from one run to another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Changes {
    /// Facts of the host that differ.
    pub host: Vec<Fact>,
    /// What of the suite differs, as sentences; then changes of tests need not be the host's.
    pub suite: Vec<String>,
    /// Tests with another verdict.
    pub verdicts: Vec<Change>,
    /// Tests with the same verdict for another reason.
    pub observed: Vec<Change>,
    /// Tests of the first run alone.
    pub only_before: Vec<Alone>,
    /// Tests of the second run alone.
    pub only_after: Vec<Alone>,
}

/// A fact of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Its name.
    pub what: String,
    /// In the first run; absent: there was none.
    pub before: Option<String>,
    /// In the second.
    pub after: Option<String>,
}

/// A test in both runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub test: String,
    /// In the first run.
    pub before: Seen,
    /// In the second.
    pub after: Seen,
}

/// A test in one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alone {
    /// Its name.
    pub test: String,
    /// What became of it.
    pub seen: Seen,
}

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Its verdict; `lost` if the run ended before it had one.
    pub verdict: &'static str,
    /// What decided it.
    pub reason: String,
    /// Fields in which the deciding exit differs from the manifest, as `rip = 0x1012`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<String>,
}

impl Changes {
    /// What changed.
    pub fn between(before: &Recovered, after: &Recovered) -> Self {
        let mut changes = Self { host: host(before, after), suite: suite(before, after), ..Self::default() };
        let (old, new) = (tests(before), tests(after));
        for (test, before) in &old {
            let Some(after) = new.get(test) else {
                changes.only_before.push(Alone { test: test.clone(), seen: before.clone() });
                continue;
            };
            let list = match before.verdict == after.verdict {
                true if before == after => continue,
                true => &mut changes.observed,
                false => &mut changes.verdicts,
            };
            list.push(Change { test: test.clone(), before: before.clone(), after: after.clone() });
        }
        let new = new.into_iter().filter(|(test, _)| !old.contains_key(test));
        changes.only_after = new.map(|(test, seen)| Alone { test, seen }).collect();
        changes
    }

    /// Whether both runs say the same of the same host and suite.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn host(before: &Recovered, after: &Recovered) -> Vec<Fact> {
    let (old, new) = (&before.header.host, &after.header.host);
    let mut facts = Vec::new();
    let mut compare = |what: &str, before: Option<&str>, after: Option<&str>| {
        if before != after {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            facts.push(Fact { what: what.to_owned(), before: owned(before), after: owned(after) });
        }
    };
    compare("bed", Some(&old.bed), Some(&new.bed));
    compare("kernel", Some(&old.kernel), Some(&new.kernel));
    compare("kernel's build", Some(&old.build), Some(&new.build));
    compare("CPU", Some(&old.cpu), Some(&new.cpu));
    compare("microcode", Some(&old.microcode), Some(&new.microcode));
    compare("backend", Some(&old.backend), Some(&new.backend));
    let (cpus, now) = (old.cpus.to_string(), new.cpus.to_string());
    compare("CPUs", Some(&cpus), Some(&now));
    for name in old.params.keys().chain(new.params.keys()).collect::<BTreeSet<_>>() {
        compare(name, old.params.get(name).map(String::as_str), new.params.get(name).map(String::as_str));
    }
    if let (Some(old), Some(new)) = (&old.device, &new.device) {
        let lists = [("KVM capability", &old.caps, &new.caps), ("CPU feature", &old.cpuid, &new.cpuid)];
        for (what, old, new) in lists {
            for name in old.symmetric_difference(new) {
                let has = |set: &BTreeSet<String>| set.contains(name).then_some("there");
                compare(&format!("{what} {name}"), has(old), has(new));
            }
        }
    }
    facts
}

fn suite(before: &Recovered, after: &Recovered) -> Vec<String> {
    let (old, new) = (&before.header, &after.header);
    let mut found = old.fingerprint.differences(&new.fingerprint);
    // Another program, and the same runner: each bed has its own, built for it.
    found.retain(|what| old.host.bed == new.host.bed || !what.contains("runner"));
    // Two kinds of hosts have waivers of their own.
    found.retain(|what| old.host.backend == new.host.backend || !what.contains("waivers"));
    if old.seed != new.seed {
        found.push(format!("the seed was {} and is {}", old.seed, new.seed));
    }
    found
}

/// Every test of a run.
fn tests(run: &Recovered) -> BTreeMap<String, Seen> {
    let lost = || Seen { verdict: "lost", reason: String::new(), mismatches: Vec::new() };
    let mut tests: BTreeMap<String, Seen> =
        run.header.selected.iter().map(|test| (test.clone(), lost())).collect();
    tests.extend(run.finished.iter().map(|(test, outcome)| (test.clone(), seen(outcome))));
    tests
}

fn seen(outcome: &Outcome) -> Seen {
    let mismatches = outcome.evidence.iter().flat_map(|evidence| &evidence.mismatches);
    Seen {
        verdict: outcome.verdict.word(),
        reason: if outcome.verdict == Verdict::Pass { String::new() } else { outcome.reason.clone() },
        mismatches: mismatches.map(|one| format!("{} = {}", one.field, one.observed)).collect(),
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Fact { what, before, after } in &self.host {
            let value = |value: &Option<String>| value.as_deref().map_or("absent".to_owned(), shown);
            writeln!(f, "host     {}: {} -> {}", shown(what), value(before), value(after))?;
        }
        for what in &self.suite {
            writeln!(f, "suite    {}", shown(what))?;
        }
        for Change { test, before, after } in &self.verdicts {
            writeln!(f, "verdict  {}: {} -> {}", shown(test), before.verdict, after.verdict)?;
            lines(f, '-', before)?;
            lines(f, '+', after)?;
        }
        for Change { test, before, after } in &self.observed {
            writeln!(f, "observed {}: {}, otherwise", shown(test), after.verdict)?;
            lines(f, '-', before)?;
            lines(f, '+', after)?;
        }
        for (sign, list) in [('-', &self.only_before), ('+', &self.only_after)] {
            for Alone { test, seen } in list {
                writeln!(f, "only {sign}   {}: {}", shown(test), seen.verdict)?;
            }
        }
        if self.is_empty() { writeln!(f, "nothing changed") } else { Ok(()) }
    }
}

/// What was seen, a line each.
fn lines(f: &mut fmt::Formatter<'_>, sign: char, seen: &Seen) -> fmt::Result {
    for text in std::iter::once(&seen.reason).chain(&seen.mismatches).filter(|text| !text.is_empty()) {
        writeln!(f, "         {sign} {}", shown(text))?;
    }
    Ok(())
}

/// Text of a journal, as a terminal may have it.
fn shown(text: &str) -> String {
    safe(&text.chars().take(LONGEST).collect::<String>())
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::exit::Mismatch;
    use crate::host::HostFacts;
    use crate::journal::Header;
    use crate::outcome::Evidence;

    fn run(verdicts: &[(&str, Verdict, &str)]) -> Recovered {
        let header = Header { selected: vec!["a.one".into(), "a.two".into()], ..Header::of_nothing() };
        let outcome = |verdict, observed: &str| {
            let mismatch =
                Mismatch { field: "rip".into(), expected: "0x10".into(), observed: observed.into() };
            let evidence = Evidence { mismatches: vec![mismatch], ..Evidence::default() };
            let evidence = (verdict == Verdict::Fail).then(|| Box::new(evidence));
            Outcome { evidence, ..Outcome::new(verdict, "why") }
        };
        let finished = verdicts
            .iter()
            .map(|(test, verdict, observed)| ((*test).to_owned(), outcome(*verdict, observed)))
            .collect();
        Recovered { header, finished, unfinished: Vec::new(), torn: false }
    }

    const FAIL: Verdict = Verdict::Fail;
    const PASS: Verdict = Verdict::Pass;

    #[test]
    fn nothing_is_said_of_what_is_the_same() {
        let one = run(&[("a.one", FAIL, "0x12"), ("a.two", PASS, "")]);
        let changes = Changes::between(&one, &one);
        assert!(changes.is_empty());
        assert_eq!(changes.to_string(), "nothing changed\n");
    }

    #[test]
    fn verdicts_observations_and_cases_are_told_apart() {
        let one = run(&[("a.one", FAIL, "0x12"), ("a.two", PASS, ""), ("a.old", PASS, "")]);
        let mut two = run(&[("a.one", FAIL, "0x14"), ("a.new\x1b", Verdict::Skip, "")]);
        two.header.host.params.insert("kvm_amd.npt".into(), "N".into());
        two.header.fingerprint.manifests = "1".into();
        let text = Changes::between(&one, &two).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "host     kvm_amd.npt: absent -> N",
                "suite    the manifests have changed",
                "verdict  a.two: pass -> lost",
                "observed a.one: fail, otherwise",
                "         - why",
                "         - rip = 0x12",
                "         + why",
                "         + rip = 0x14",
                "only -   a.old: pass",
                "only +   a.new\\u{1b}: skip",
            ]
        );
    }

    #[test]
    fn facts_of_the_host_differ_one_by_one() {
        let one = run(&[]);
        let with = |change: fn(&mut HostFacts)| {
            let mut two = run(&[]);
            change(&mut two.header.host);
            let changes = Changes::between(&one, &two);
            assert!(!changes.is_empty() && changes.host.len() == 1, "{changes:?}");
            changes.host[0].what.clone()
        };
        assert_eq!(with(|host| host.kernel = "7".into()), "kernel");
        assert_eq!(with(|host| host.build = "#2".into()), "kernel's build");
        assert_eq!(with(|host| host.cpu = "x".into()), "CPU");
        assert_eq!(with(|host| host.cpus += 1), "CPUs");
        assert_eq!(with(|host| host.microcode = "0x2".into()), "microcode");
        assert_eq!(with(|host| host.backend = "kvm_amd".into()), "backend");
        assert_eq!(with(|host| host.bed = "amd".into()), "bed");
    }
}
