//! Which tests a run has: cases, and cases under perturbations.

use super::args::TestArgs;
use super::select;
use crate::case::{Case, Combo, Vary};
use crate::host::{HostFacts, missing};
use crate::profile::Profile;
use crate::suite::Suite;
use crate::variation;

/// One test of the run.
#[derive(Debug, Clone)]
pub(super) struct Test {
    /// The case's place in the suite.
    pub(super) index: usize,
    /// What is done to it.
    pub(super) combo: Combo,
    /// `port-io.in~kick`.
    pub(super) name: String,
}

impl Test {
    pub(super) fn new(cases: &[Case], index: usize, combo: Combo) -> Self {
        let name = combo.test_name(&cases[index].id);
        Self { index, combo, name }
    }

    /// The test of this name.
    pub(super) fn of_name(cases: &[Case], name: &str) -> Option<Self> {
        let (id, combo) = Combo::of_test(name)?;
        let index = cases.iter().position(|case| case.id == id)?;
        Some(Self::new(cases, index, combo))
    }
}

/// What the command line asks for, in the order of the suite. A case that the host cannot play is there once.
pub(super) fn tests(
    args: &TestArgs,
    profile: Option<&Profile>,
    cases: &[Case],
    host: &HostFacts,
) -> Vec<Test> {
    let mut tests = match profile {
        Some(profile) => of_profile(profile, cases, host),
        None => of_suite(args, cases, host),
    };
    tests.retain(|test| select::takes(args, &test.name));
    if let Some(partition) = args.partition {
        partition.cut(&mut tests, |test| &test.name);
    }
    tests
}

/// What a profile needs on this host.
pub(super) fn of_profile(profile: &Profile, cases: &[Case], host: &HostFacts) -> Vec<Test> {
    let tests = profile.tests(cases, host).tests.into_iter();
    tests.map(|(index, combo)| Test::new(cases, index, combo)).collect()
}

fn of_suite(args: &TestArgs, cases: &[Case], host: &HostFacts) -> Vec<Test> {
    let mut combos = Combo::of(&varies(args), args.vary_depth);
    // A test's name asks for what is done in it.
    let named = args.filters.iter().filter_map(|filter| Combo::of_test(filter)).map(|(_, combo)| combo);
    combos.extend(named.filter(|combo| !combo.is_plain()));
    combos.sort();
    combos.dedup();
    let mut tests = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let missing = missing(&case.requires, host).is_some();
        if args.ignored && !missing {
            continue;
        }
        tests.push(Test::new(cases, index, Combo::PLAIN));
        if !missing || args.include_ignored {
            tests.extend(combos.iter().map(|combo| Test::new(cases, index, combo.clone())));
        }
    }
    tests
}

/// Why the test is not played; `forced` does without what the case requires.
pub(super) fn skip(suite: &dyn Suite, test: &Test, host: &HostFacts, forced: bool) -> Option<String> {
    let case = suite.cases().get(test.index)?;
    missing(&case.requires, host)
        .filter(|_| !forced)
        .or_else(|| variation::requires(&test.combo).find_map(|requires| missing(&requires, host)))
        .or_else(|| variation::excluded(case, &test.combo))
        .or_else(|| suite.excluded(case, &test.combo))
}

/// The perturbations that the command line names.
pub(super) fn varies(args: &TestArgs) -> Vec<Vary> {
    let mut varies: Vec<Vary> = Vec::new();
    for word in &args.vary {
        match word {
            Varies::All => varies.extend(Vary::ALL),
            Varies::One(vary) => varies.push(*vary),
        }
    }
    varies.sort_unstable();
    varies.dedup();
    varies
}

/// A word of `--vary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Varies {
    All,
    One(Vary),
}

impl std::str::FromStr for Varies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}
