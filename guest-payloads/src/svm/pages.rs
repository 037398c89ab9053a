//! The pages that a VMCB names: permission maps of ports and MSRs, and nested page tables.
#![expect(unsafe_code, reason = "a name for the host")]

use crate::page::{Identity, PAGE, Pages};

/// The I/O permission map (APM vol. 2, 15.10.1): a bit for each port, 1 to intercept it. For the host: `at svm_iopm`.
#[unsafe(export_name = "svm_iopm")]
pub(super) static IOPM: Pages<{ 3 * PAGE }> = Pages::new();
/// The MSR permission map (APM vol. 2, 15.11): two bits for each MSR, that of reads first.
pub(super) static MSRPM: Pages<{ 2 * PAGE }> = Pages::new();
/// Nested page tables.
static NESTED: Identity = Identity::new();

/// Present, writable, user: the nested walk is always a user's (APM vol. 2, 15.25.5).
const OPEN: u64 = 0b111;

/// Intercepts a port, or no longer.
pub(super) fn set_port(port: u16, intercept: bool) {
    IOPM.set_bit(port.into(), intercept);
}

/// Intercepts reads and writes of an MSR, or no longer. An MSR that the map does not cover always exits.
pub(super) fn set_msr(msr: u32, read: bool, write: bool) {
    let first = match msr >> 16 {
        0 => 0,
        0xc000 => 0x800,
        0xc001 => 0x1000,
        _ => return,
    };
    let bit = first * 8 + 2 * (msr as usize & 0x1fff);
    MSRPM.set_bit(bit, read);
    MSRPM.set_bit(bit + 1, write);
}

/// Writes the nested page tables anew; the root's address.
pub(super) fn build_nested() -> u64 {
    NESTED.build(OPEN, OPEN)
}

/// Changes the nested entry of the page at `gpa`, which has 4 KiB below 4 MiB and 2 MiB above.
pub(super) fn change_nested(gpa: u64, with: impl FnOnce(u64) -> u64) {
    NESTED.change(gpa, with);
}
