//! What became of a case, with the evidence for it.
//!
//! Serializable, so that a worker can hand it over and the journal can keep it. It knows nothing of
//! output formats.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::case::Place;
use crate::exit::Mismatch;

/// The verdict on one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The host behaves as the case says.
    Pass,
    /// The host deviates.
    Fail,
    /// A requirement is missing; decided before the boot.
    Skip,
    /// The case or the harness is at fault.
    Error,
    /// The guest or the kernel did not come back in time.
    Timeout,
    /// The worker process or the kernel died.
    Crash,
    /// The host deviates as a waiver says.
    Xfail,
    /// The host behaves although a waiver says that it does not: the waiver is stale.
    Xpass,
}

impl Verdict {
    /// The verdict's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Crash => "crash",
            Self::Xfail => "xfail",
            Self::Xpass => "xpass",
        }
    }

    /// Whether a run with this verdict in it can be green.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Pass | Self::Skip | Self::Xfail)
    }
}

/// A verdict and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// One line: what decided it. Empty for a pass.
    pub reason: String,
    /// What was seen, for everything but pass and skip.
    pub evidence: Option<Box<Evidence>>,
}

impl Outcome {
    /// A pass.
    pub const fn pass() -> Self {
        Self { verdict: Verdict::Pass, reason: String::new(), evidence: None }
    }

    /// An outcome without evidence.
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into(), evidence: None }
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// The steps as they were played, the last one being the one that decided; bounded.
    pub trace: Vec<TraceLine>,
    /// How many lines were cut from the front of `trace`.
    pub trace_cut: usize,
    /// Steps that were still to come, as the manifest writes them.
    pub to_come: Vec<String>,
    /// Which fields differ in the deciding step.
    pub mismatches: Vec<Mismatch>,
    /// Where the deciding step is written.
    pub place: Option<Place>,
    /// The author's `why` of the deciding step.
    pub why: Option<String>,
    /// Registers of the vCPU at that moment, as name and value.
    pub registers: Vec<(String, u64)>,
    /// Disassembly around RIP: address, symbol, text; the line at RIP is marked.
    pub code: Vec<CodeLine>,
    /// The guest's own messages, oldest first; bounded.
    pub guest: Vec<String>,
    /// What the kernel logged about it; bounded.
    pub kernel_log: Vec<String>,
    /// The points, counted by runs of a vCPU, at which a variation did something; bounded.
    #[serde(default)]
    pub perturbed: Vec<u32>,
    /// What was found out about them by playing again.
    #[serde(default)]
    pub shrunk: Option<String>,
    /// What the worker wrote to its standard error before it died; bounded.
    pub stderr: Vec<String>,
}

/// A step: what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceLine {
    /// The manifest's line.
    pub line: u32,
    /// What the step expects or does.
    pub expected: String,
    /// What came; `None` for host actions.
    pub observed: Option<String>,
    /// Whether it is as expected.
    pub holds: bool,
}

/// One disassembled instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeLine {
    /// Linear address.
    pub address: u64,
    /// `symbol+0x10`, or empty.
    pub symbol: String,
    /// The instruction.
    pub text: String,
    /// Whether RIP points here.
    pub here: bool,
}
