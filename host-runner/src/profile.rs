//! Profiles: which tests a certification needs, and what they mean on a host.
//!
//! A profile that exists is valid: what it names is in the suite (`manifest::load_profile` sees to that). Knows
//! nothing of TOML, runs and verdicts.

use std::collections::BTreeSet;

use crate::case::{Case, Combo, Requires, Vary};
use crate::host::{HostFacts, missing, not_for};
use crate::variation;

/// What a certification needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The file's stem.
    pub name: String,
    /// One sentence: what a host that conforms can be relied on for.
    pub summary: String,
    /// What a host must have to be a candidate at all.
    pub requires: Requires,
    /// The perturbations under which each case is played, too; each alone.
    pub vary: Vec<Vary>,
    /// The ids of the cases.
    pub cases: BTreeSet<String>,
    /// Cases of the named families that it does without, and why.
    pub without: Vec<(String, String)>,
    /// The file's text.
    pub text: String,
}

/// A profile's tests on one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Cases by their place in the suite, and what is done to them. All of them must be played.
    pub tests: Vec<(usize, Combo)>,
    /// The names of tests that mean nothing there, and why.
    pub left_out: Vec<(String, String)>,
}

impl Profile {
    /// Why `host` is no candidate; `None` if it is.
    pub fn unfit(&self, host: &HostFacts) -> Option<String> {
        missing(&self.requires, host)
    }

    /// The tests on this host.
    ///
    /// A case for another kind of host is left out, and so is a perturbation that its author or the perturbation
    /// itself rules out: that is how the suite is made, and says nothing of the host. What the host lacks is not
    /// left out; such a test is skipped when it is run, and a certification refuses that.
    pub fn tests(&self, cases: &[Case], host: &HostFacts) -> Wanted {
        let mut wanted = Wanted::default();
        let combos: Vec<Combo> = std::iter::once(Combo::PLAIN).chain(Combo::of(&self.vary, 1)).collect();
        for (index, case) in cases.iter().enumerate().filter(|(_, case)| self.cases.contains(&case.id)) {
            if let Some(reason) = not_for(&case.requires, host) {
                wanted.left_out.push((case.id.clone(), reason));
                continue;
            }
            for combo in &combos {
                match variation::excluded(case, combo) {
                    Some(reason) => wanted.left_out.push((combo.test_name(&case.id), reason)),
                    None => wanted.tests.push((index, combo.clone())),
                }
            }
        }
        wanted
    }
}
