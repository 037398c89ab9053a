//! The guest's reports: OUT to the report port, with the address of a record in guest memory.
//!
//! Everything here comes from the guest and is bounded and cleaned before anybody sees it.

use exitspec_protocol::{MAX_TEXT, REPORT_PORT, Report, ReportKind, Span};

use super::Target;
use crate::exit::{Direction, Exit};

/// What a guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A note.
    Progress(String),
    /// A value for the manifest to match.
    Value { name: String, value: u64 },
    /// An assertion in the guest that did not hold.
    CheckFailed(String),
    /// The payload's own fault.
    Panic(String),
    /// An exception that no scenario asked for.
    Fault { vector: u64, error: u64, rip: u64, cr2: u64 },
    /// The scenario is over.
    Done,
    /// An OUT to the report port that announces nothing readable.
    Garbled(u64),
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Progress(text) => write!(f, "progress: {text}"),
            Self::Value { name, value } => write!(f, "guest {name} = {value:#x}"),
            Self::CheckFailed(text) => write!(f, "guest's check failed: {text}"),
            Self::Panic(text) => write!(f, "guest panicked: {text}"),
            Self::Fault { vector, error, rip, cr2 } => {
                let name = vector_name(*vector);
                write!(
                    f,
                    "guest took {name} (vector {vector}), error code {error:#x}, at {rip:#x}, CR2 {cr2:#x}"
                )
            }
            Self::Done => f.write_str("guest done"),
            Self::Garbled(address) => write!(f, "guest announced a report at {address:#x}, where none is"),
        }
    }
}

/// Mnemonics of SDM vol. 3, table 6-1.
fn vector_name(vector: u64) -> &'static str {
    match vector {
        0 => "#DE",
        1 => "#DB",
        2 => "NMI",
        3 => "#BP",
        4 => "#OF",
        5 => "#BR",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        18 => "#MC",
        19 => "#XM",
        21 => "#CP",
        _ => "an interrupt",
    }
}

/// The report that `exit` announces, if it is one.
pub fn read(exit: &Exit, target: &mut impl Target) -> Option<Said> {
    let Exit::Io { direction: Direction::Out, port: REPORT_PORT, size: 4, count: 1, data } = exit else {
        return None;
    };
    let address = data.number()?;
    let mut bytes = [0; Report::SIZE];
    let report = target.read_memory(address, &mut bytes).then(|| Report::from_bytes(&bytes)).flatten();
    let Some(report) = report else { return Some(Said::Garbled(address)) };
    let text = text(&report.text, target);
    let [first, second, third, fourth] = report.values;
    Some(match ReportKind::from_u32(report.kind)? {
        ReportKind::Progress => Said::Progress(text),
        ReportKind::Value => Said::Value { name: text, value: first },
        ReportKind::CheckFailed => {
            let place = format!("{}:{}", self::text(&report.file, target), report.line);
            let numbers = if third == 1 {
                format!(": observed {first:#x}, expected {second:#x}")
            } else {
                String::new()
            };
            Said::CheckFailed(format!("{text}{numbers} ({place})"))
        }
        ReportKind::Panic => {
            Said::Panic(format!("{text} ({}:{})", self::text(&report.file, target), report.line))
        }
        ReportKind::Fault => Said::Fault { vector: first, error: second, rip: third, cr2: fourth },
        ReportKind::Done => Said::Done,
    })
}

/// Text out of guest memory: cut to [`MAX_TEXT`], without control characters.
fn text(span: &Span, target: &mut impl Target) -> String {
    let len = usize::try_from(span.len).map_or(MAX_TEXT, |len| len.min(MAX_TEXT));
    let mut bytes = vec![0; len];
    if !target.read_memory(span.addr, &mut bytes) {
        return format!("<no text at {:#x}>", span.addr);
    }
    let clean = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    let mut text: String = String::from_utf8_lossy(&bytes).chars().map(clean).collect();
    if span.len > MAX_TEXT as u64 {
        text.push_str("...");
    }
    text
}
