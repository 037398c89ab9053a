//! Everything that journals tell, as one JSON document with a schema: for programs that no other format serves.
//!
//! Numbers that may need 64 bits are texts in hexadecimal, since many readers of JSON have 53.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::results::{Results, Run, Test};
use super::text;
use crate::case::{Basis, Combo, Place};
use crate::exit::Mismatch;
use crate::outcome::{CodeLine, Evidence, TraceLine, Verdict};

/// The version of the document: it changes when a reader of the last one would err.
const VERSION: u32 = 1;

/// The report as text, with a newline at its end.
pub fn text(results: &Results) -> Result<String, String> {
    let document = Document {
        version: VERSION,
        runs: results.runs.iter().map(RunDocument::of).collect(),
        mistakes: results.mistakes.iter().map(MistakeDocument::of).collect(),
    };
    text::json(&document)
}

/// The JSON Schema of the document.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Document).to_value()
}

/// ExitSpec's report: verdicts of one or several runs.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "ExitSpec report")]
struct Document {
    /// Version of this form: 1.
    version: u32,
    /// The runs. The same test may be in several of them, with a verdict in each.
    runs: Vec<RunDocument>,
    /// What is wrong with the manifests, if those were looked at.
    mistakes: Vec<MistakeDocument>,
}

/// One run.
#[derive(Debug, Serialize, JsonSchema)]
struct RunDocument {
    /// Its name, which no other run here has.
    name: String,
    /// Version of the runner.
    runner: String,
    /// The suite's commit.
    revision: Option<String>,
    /// The command line.
    command: Vec<String>,
    /// Where every random choice started.
    seed: String,
    /// The first moment that its journal tells, as RFC 3339.
    begin: Option<String>,
    /// The last one.
    end: Option<String>,
    /// The host.
    host: HostDocument,
    /// Whether it was interrupted: tests have no verdict, or its journal is cut off.
    interrupted: bool,
    /// Whether the last line of its journal is cut off.
    torn: bool,
    /// What else is to be said of the run.
    remarks: Vec<String>,
    /// How many tests have which verdict; those without one are under `none`.
    counts: BTreeMap<String, usize>,
    /// The tests, in their order.
    tests: Vec<TestDocument>,
}

/// Where a run took place.
#[derive(Debug, Serialize, JsonSchema)]
struct HostDocument {
    /// `local`, or the emulated machine that was booted for the run.
    bed: String,
    /// Kernel release.
    kernel: String,
    /// Kernel build.
    build: String,
    /// CPU model.
    cpu: String,
    /// CPU vendor.
    cpu_vendor: String,
    /// Microcode revision.
    microcode: String,
    /// KVM's backend by module name.
    backend: String,
    /// Parameters of KVM's modules.
    params: BTreeMap<String, String>,
}

/// One test.
#[derive(Debug, Serialize, JsonSchema)]
struct TestDocument {
    /// Its name: the case, and after `~` the variations under which it was played.
    name: String,
    /// The case's id.
    case: String,
    /// The part of it before the first dot.
    family: String,
    /// The variations; none: the case as it is.
    variations: Vec<String>,
    /// The verdict; null if the run ended before there was one.
    verdict: Option<Verdict>,
    /// What decided it, or why there is no verdict. Empty for a pass.
    reason: String,
    /// When it was started, as RFC 3339.
    begin: Option<String>,
    /// How long it took, in microseconds.
    duration_us: u64,
    /// What the case is; null for a pass and a skip.
    about: Option<AboutDocument>,
    /// What was seen; null for a pass and a skip.
    evidence: Option<EvidenceDocument>,
}

/// What a case is.
#[derive(Debug, Serialize, JsonSchema)]
struct AboutDocument {
    /// One sentence: the behaviour.
    summary: String,
    /// Who promises it.
    basis: Basis,
    /// What is wrong with a hypervisor on which it fails.
    detects: String,
    /// Where the promise is written.
    reference: Vec<String>,
    /// Where the case is written.
    place: Place,
    /// The command that repeats the test.
    again: String,
}

/// What was seen.
#[derive(Debug, Serialize, JsonSchema)]
struct EvidenceDocument {
    /// The steps that were played, the last one being the one that decided; bounded.
    trace: Vec<TraceLine>,
    /// How many were cut from the front.
    trace_cut: usize,
    /// Steps that were still to come.
    to_come: Vec<String>,
    /// Which fields differ in the deciding step.
    mismatches: Vec<Mismatch>,
    /// Where the deciding step is written.
    place: Option<Place>,
    /// What its author says of it.
    why: Option<String>,
    /// Registers of the vCPU at that moment, in hexadecimal.
    registers: BTreeMap<String, String>,
    /// Disassembly around RIP.
    code: Vec<CodeDocument>,
    /// The guest's own messages.
    guest: Vec<String>,
    /// What the kernel logged about it.
    kernel_log: Vec<String>,
    /// What the test's process wrote before it died.
    stderr: Vec<String>,
    /// Before which runs of a vCPU a variation did something; bounded.
    perturbed: Vec<u32>,
    /// Which of them it takes.
    shrunk: Option<String>,
}

/// One disassembled instruction.
#[derive(Debug, Serialize, JsonSchema)]
struct CodeDocument {
    /// Linear address, in hexadecimal.
    address: String,
    /// The symbol and the offset in it.
    symbol: String,
    /// The instruction.
    text: String,
    /// Whether RIP points here.
    here: bool,
}

/// One mistake in a manifest.
#[derive(Debug, Serialize, JsonSchema)]
struct MistakeDocument {
    /// What is wrong.
    message: String,
    /// The manifest.
    file: String,
    /// Line, from 1.
    line: u32,
    /// Column, in characters, from 1.
    column: u32,
    /// What to do.
    help: Option<String>,
}

fn moment(time: Option<std::time::SystemTime>) -> Option<String> {
    time.map(|time| humantime::format_rfc3339_millis(time).to_string())
}

impl RunDocument {
    fn of(run: &Run) -> Self {
        let mut counts = BTreeMap::new();
        for test in &run.tests {
            *counts.entry(test.verdict().map_or("none", Verdict::word).to_owned()).or_default() += 1;
        }
        let host = &run.header.host;
        Self {
            name: run.name.clone(),
            runner: run.header.version.clone(),
            revision: run.header.revision.clone(),
            command: run.header.command.clone(),
            seed: format!("{:#x}", run.header.seed),
            begin: moment(run.begin),
            end: moment(run.end),
            host: HostDocument {
                bed: host.bed.clone(),
                kernel: host.kernel.clone(),
                build: host.build.clone(),
                cpu: host.cpu.clone(),
                cpu_vendor: host.cpu_vendor.clone(),
                microcode: host.microcode.clone(),
                backend: host.backend.clone(),
                params: host.params.clone(),
            },
            interrupted: run.is_interrupted(),
            torn: run.torn,
            remarks: run.remarks(),
            counts,
            tests: run.tests.iter().map(TestDocument::of).collect(),
        }
    }
}

impl TestDocument {
    fn of(test: &Test) -> Self {
        let finished = test.finished();
        let unseeded = test.name.split('@').next().unwrap_or(&test.name);
        let varies = Combo::of_test(unseeded);
        Self {
            name: test.name.clone(),
            case: test.case().to_owned(),
            family: test.family().to_owned(),
            variations: varies
                .iter()
                .flat_map(|(_, combo)| combo.varies())
                .map(ToString::to_string)
                .collect(),
            verdict: test.verdict(),
            reason: test.reason().to_owned(),
            begin: moment(test.begin),
            duration_us: u64::try_from(test.duration().as_micros()).unwrap_or(u64::MAX),
            about: finished.and_then(|finished| finished.about.as_deref()).map(|about| AboutDocument {
                summary: about.summary.clone(),
                basis: about.basis,
                detects: about.detects.clone(),
                reference: about.reference.clone(),
                place: about.place.clone(),
                again: about.again.clone(),
            }),
            evidence: finished
                .and_then(|finished| finished.outcome.evidence.as_deref())
                .map(EvidenceDocument::of),
        }
    }
}

impl EvidenceDocument {
    fn of(evidence: &Evidence) -> Self {
        let evidence = evidence.clone();
        let code = |line: CodeLine| CodeDocument {
            address: format!("{:#x}", line.address),
            symbol: line.symbol,
            text: line.text,
            here: line.here,
        };
        Self {
            trace: evidence.trace,
            trace_cut: evidence.trace_cut,
            to_come: evidence.to_come,
            mismatches: evidence.mismatches,
            place: evidence.place,
            why: evidence.why,
            registers: evidence
                .registers
                .into_iter()
                .map(|(name, value)| (name, format!("{value:#x}")))
                .collect(),
            code: evidence.code.into_iter().map(code).collect(),
            guest: evidence.guest,
            kernel_log: evidence.kernel_log,
            stderr: evidence.stderr,
            perturbed: evidence.perturbed,
            shrunk: evidence.shrunk,
        }
    }
}

impl MistakeDocument {
    fn of(mistake: &crate::manifest::Mistake) -> Self {
        Self {
            message: mistake.message.clone(),
            file: mistake.file.clone(),
            line: mistake.line,
            column: mistake.column,
            help: mistake.help.clone(),
        }
    }
}
