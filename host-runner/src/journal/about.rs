//! What a case is, kept beside its verdict: a report is made from journals alone, maybe on another machine.

use serde::{Deserialize, Serialize};

use crate::case::{Basis, Case, Place};

/// What a case promises, and how it is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// One sentence: the behaviour.
    pub summary: String,
    /// Who promises it.
    pub basis: Basis,
    /// What is wrong with a hypervisor on which it fails.
    pub detects: String,
    /// Where the promise is written.
    pub reference: Vec<String>,
    /// Where the case is written. The step that decided has its own place, in the evidence.
    pub place: Place,
    /// The command that repeats it.
    pub again: String,
}

impl About {
    /// What there is to say of this case.
    pub fn of(case: &Case, again: String) -> Self {
        Self {
            summary: case.summary.clone(),
            basis: case.basis,
            detects: case.detects.clone(),
            reference: case.reference.clone(),
            place: case.place.clone(),
            again,
        }
    }
}
