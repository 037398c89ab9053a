//! Reports: what a guest tells its host. One `OUT` each, and no other exit.
//!
//! The host reads a report while the `OUT` waits for it; see [`exitspec_protocol::Report`].
//! Nothing here knows what becomes of a report.
#![expect(unsafe_code, reason = "the instruction that reports has a symbol of its own, so it is naked")]

use core::arch::naked_asm;
use core::fmt::{self, Write};
use core::panic::{Location, PanicInfo};

use exitspec_protocol::{MAX_TEXT, REPORT_MAGIC, REPORT_PORT, Report, ReportKind, Span};

use crate::fault::Fault;
use crate::tables;

/// A note for whoever reads a failure; never matched.
pub fn progress(text: &str) {
    send(ReportKind::Progress, text, None, [0; 4]);
}

/// A value that the manifest states.
pub fn value(name: &str, value: u64) {
    send(ReportKind::Value, name, None, [value, 0, 0, 0]);
}

/// A panic: the payload is at fault.
pub fn panic(info: &PanicInfo) {
    let mut text = Text::new();
    let _ = write!(text, "{}", info.message()); // what does not fit is cut
    send(ReportKind::Panic, text.as_str(), info.location(), [0; 4]);
}

/// An exception that no scenario asked for.
pub fn fault(fault: &Fault) {
    send(ReportKind::Fault, "", None, [fault.vector, fault.error, fault.rip, fault.cr2]);
}

/// The end of the scenario. The host does not let the guest go on.
pub fn done() {
    send(ReportKind::Done, "", None, [0; 4]);
}

/// Reports a [`check!`](crate::check) that does not hold.
#[doc(hidden)]
#[track_caller]
pub fn check(holds: bool, text: &str) {
    if !holds {
        send(ReportKind::CheckFailed, text, Some(Location::caller()), [0; 4]);
    }
}

/// Reports a [`check_eq!`](crate::check_eq) that does not hold.
#[doc(hidden)]
#[track_caller]
pub fn check_eq(observed: u64, expected: u64, text: &str) {
    if observed != expected {
        let values = [observed, expected, 1, 0];
        send(ReportKind::CheckFailed, text, Some(Location::caller()), values);
    }
}

/// Reports that a condition does not hold; the scenario goes on.
///
/// `check!(condition)` or `check!(condition, "what it means")`.
#[macro_export]
macro_rules! check {
    ($holds:expr $(,)?) => {
        $crate::report::check($holds, stringify!($holds))
    };
    ($holds:expr, $text:expr $(,)?) => {
        $crate::report::check($holds, $text)
    };
}

/// Reports that a number is not the expected one; the scenario goes on.
///
/// `check_eq!(observed, expected)` or `check_eq!(observed, expected, "what it is")`; integers of any width.
#[macro_export]
macro_rules! check_eq {
    ($observed:expr, $expected:expr $(,)?) => {
        $crate::report::check_eq($observed as u64, $expected as u64, stringify!($observed))
    };
    ($observed:expr, $expected:expr, $text:expr $(,)?) => {
        $crate::report::check_eq($observed as u64, $expected as u64, $text)
    };
}

fn send(kind: ReportKind, text: &str, place: Option<&Location>, values: [u64; 4]) {
    let report = Report {
        magic: REPORT_MAGIC,
        kind: kind as u32,
        cpu: tables::cpu() as u32,
        line: place.map_or(0, Location::line),
        file: span(place.map_or("", |place| place.file())),
        text: span(text),
        values,
    };
    announce(&report);
}

fn span(text: &str) -> Span {
    Span { addr: text.as_ptr() as u64, len: text.len() as u64 }
}

/// The one instruction that reports: its symbol is `guest_report`.
///
/// The report's address fits EAX, since images and stacks are identity-mapped below 4 GiB.
#[unsafe(naked)]
#[unsafe(export_name = "guest_report")]
extern "C" fn announce(report: &Report) {
    naked_asm!("mov eax, edi", "mov edx, {port}", "out dx, eax", "ret", port = const REPORT_PORT)
}

/// A text of at most [`MAX_TEXT`] bytes, since a guest has no heap; the rest is cut.
struct Text {
    bytes: [u8; MAX_TEXT],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Self { bytes: [0; MAX_TEXT], len: 0 }
    }

    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or_default();
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(cut) => core::str::from_utf8(&bytes[..cut.valid_up_to()]).unwrap_or_default(),
        }
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.len..).unwrap_or_default();
        let len = text.len().min(free.len());
        free[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}
