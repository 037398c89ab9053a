//! Certificates: what a run of a profile says of a host, complete enough to be checked by somebody else.
//!
//! A certificate is a JSON document with a digest of itself, and the same as a page for people. It is no signature:
//! whoever wants to know who issued it signs the file. This module knows nothing of processes and of the command line.

mod check;
mod digest;
mod issue;
mod page;

pub use check::{Ground, against, check};
pub use digest::{sealed, text_digest};
pub use issue::issue;
pub use page::page;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::HostFacts;
use crate::journal::Fingerprint;
use crate::outcome::Verdict;

/// What a host is certified for, and on what grounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The form of this document.
    pub format: Format,
    /// When it was issued, as RFC 3339 has it.
    pub issued: String,
    /// What it says.
    pub verdict: Overall,
    /// Why the host does not conform; empty if it does.
    pub because: Vec<String>,
    /// What was needed.
    pub profile: OfProfile,
    /// What was played.
    pub suite: OfSuite,
    /// Where it was played.
    pub host: HostFacts,
    /// How it was played.
    pub run: OfRun,
    /// Each case under each of the profile's variations, in the order of the suite.
    pub tests: Vec<OfTest>,
    /// Tests that mean nothing on this host, and cases that the profile does without.
    pub left_out: Vec<LeftOut>,
    /// SHA-256 of everything else in this document, as `sha256:` and hexadecimal digits. What is hashed is the document
    /// without this member, with sorted keys and no white space between tokens.
    pub digest: String,
}

/// The form of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// The first.
    #[serde(rename = "exitspec-certificate-1")]
    One,
}

/// What a certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overall {
    /// Every test holds.
    Conforms,
    /// Every test holds or deviates as a waiver says; the waivers are named.
    ConformsWithWaivers,
    /// Some test does not hold, or was not played.
    DoesNotConform,
}

/// The profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfProfile {
    /// Its name.
    pub name: String,
    /// What a host that conforms can be relied on for.
    pub summary: String,
    /// SHA-256 of its file.
    pub digest: String,
}

/// The suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfSuite {
    /// Version of the runner.
    pub version: String,
    /// Its commit, if it is in a repository.
    pub revision: Option<String>,
    /// Whether the repository has changes that are not committed.
    pub dirty: Option<bool>,
    /// Hashes of what decides the verdicts.
    pub hashes: Fingerprint,
}

/// The run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfRun {
    /// Where random choices started.
    pub seed: u64,
    /// What the user said of the machine to run on, as words of a command line.
    pub words: Vec<String>,
    /// The run's exit status.
    pub status: u8,
    /// Whether known deviations were waived.
    pub waivers: bool,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfTest {
    /// The case's id.
    pub case: String,
    /// Under which perturbation; none: as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variation: Option<String>,
    /// Its verdict; `none` if the run ended before it had one.
    pub verdict: Option<Verdict>,
    /// What decided it; empty for a pass.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The waiver, if it deviates as one says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiver: Option<OfWaiver>,
}

/// A waiver that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfWaiver {
    /// Why the case is known to deviate.
    pub reason: String,
    /// Where that is tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Where the waiver is written: file and line, below the folder of manifests.
    pub place: String,
}

/// What was not played, by design.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The test's name.
    pub test: String,
    /// Why it is not needed.
    pub reason: String,
}

impl OfTest {
    /// The test's name: `port-io.in~kick`.
    pub fn name(&self) -> String {
        match &self.variation {
            None => self.case.clone(),
            Some(variation) => format!("{}~{variation}", self.case),
        }
    }

    /// The verdict's word; `none` without one.
    pub fn word(&self) -> &'static str {
        self.verdict.map_or("none", Verdict::word)
    }
}

impl Overall {
    /// The word in the document.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Conforms => "conforms",
            Self::ConformsWithWaivers => "conforms-with-waivers",
            Self::DoesNotConform => "does-not-conform",
        }
    }
}

impl fmt::Display for Overall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What follows from verdicts and the run's exit status, and why it is not better.
pub fn judge(tests: &[OfTest], status: u8) -> (Overall, Vec<String>) {
    let mut because = Vec::new();
    let bad = [
        (Some(Verdict::Fail), "failed"),
        (Some(Verdict::Crash), "crashed"),
        (Some(Verdict::Timeout), "timed out"),
        (Some(Verdict::Error), "had an error"),
        (Some(Verdict::Skip), "skipped, and a certification skips nothing"),
        (Some(Verdict::Xpass), "held although waived, so a waiver is stale"),
        (None, "without a verdict"),
    ];
    for (verdict, what) in bad {
        let mut of_it = tests.iter().filter(|test| test.verdict == verdict);
        let Some(first) = of_it.next() else { continue };
        let more = of_it.count();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        because.push(format!("{what}: {}{more}", first.name()));
    }
    if tests.is_empty() {
        because.push("nothing was played".to_owned());
    }
    if because.is_empty() && status != 0 {
        because.push(format!(
            "the run ended with status {status} although each test held: the kernel reported something between tests"
        ));
    }
    let waived = tests.iter().any(|test| test.verdict == Some(Verdict::Xfail));
    match (because.is_empty(), waived) {
        (false, _) => (Overall::DoesNotConform, because),
        (true, true) => (Overall::ConformsWithWaivers, because),
        (true, false) => (Overall::Conforms, because),
    }
}

/// The JSON Schema of certificates.
pub fn schema() -> Value {
    let mut schema = schemars::generate::SchemaSettings::draft07()
        .into_generator()
        .into_root_schema_for::<Certificate>()
        .to_value();
    schema["title"] = "ExitSpec certificate".into();
    schema
}

#[cfg(test)]
mod tests;
