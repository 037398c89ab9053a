//! What becomes of cases whose machine was lost: a verdict, and the machine's console as evidence.

use std::fs;

use super::Stop;
use super::args::{self, TestArgs};
use super::begin::usage;
use super::plan::Test;
use crate::outcome::{Evidence, Outcome};

/// Most lines of a dead machine's console that are kept as evidence, and most characters of one.
const CONSOLE_LINES: usize = 100;
const CONSOLE_LINE: usize = 400;

/// A case that was running when its machine died.
pub(super) struct Lost {
    pub(super) test: Test,
    pub(super) outcome: Outcome,
}

/// The outcome of cases that were running when the machine died, if the command line says that it did.
pub(super) fn outcome(args: &TestArgs) -> Result<Option<Outcome>, Stop> {
    let Some(how) = args.lost else { return Ok(None) };
    let mut lines = Vec::new();
    if let Some(path) = &args.console {
        let text = fs::read(path).map_err(|error| usage(path, &error))?;
        let text = String::from_utf8_lossy(&text);
        let cut = |line: &str| line.chars().take(CONSOLE_LINE).collect::<String>();
        lines.extend(text.lines().map(cut).take(CONSOLE_LINES));
    }
    let mut reason = match how {
        args::Lost::Crash => "the machine died while this case ran".to_owned(),
        args::Lost::Timeout => "the machine hung while this case ran".to_owned(),
    };
    // What the console of a machine that only hangs has said last is not about this case.
    if let (args::Lost::Crash, Some(title)) = (how, lines.first()) {
        reason.push_str(": ");
        reason.push_str(title.trim());
    }
    let evidence = Evidence { kernel_log: lines, ..Evidence::default() };
    Ok(Some(Outcome { verdict: how.verdict(), reason, evidence: Some(Box::new(evidence)) }))
}
