//! The pages that a VMCS names: bitmaps of ports and MSRs, lists of MSRs, virtual-APIC page, and EPT.
#![expect(unsafe_code, reason = "names for the host, and INVEPT")]

use core::arch::asm;

use super::Fail;
use super::instructions::outcome;
use crate::page::{Identity, PAGE, Page, Pages};

/// I/O bitmaps A and B (SDM vol. 3C, "I/O-Bitmap Addresses"): a bit for each port, 1 to exit. For the host:
/// `at vmx_io_bitmaps`.
#[unsafe(export_name = "vmx_io_bitmaps")]
pub(super) static IO_BITMAPS: Pages<{ 2 * PAGE }> = Pages::new();
/// MSR bitmaps (SDM vol. 3C, "MSR-Bitmap Address"): reads of low and high MSRs, then writes of both, 1 KiB each.
pub(super) static MSR_BITMAPS: Page = Page::new();
/// The virtual-APIC page. For the host: `at vmx_virtual_apic`.
#[unsafe(export_name = "vmx_virtual_apic")]
pub(super) static VIRTUAL_APIC: Page = Page::new();
/// The APIC-access page: what is in it does not matter.
pub(super) static APIC_ACCESS: Page = Page::new();
/// MSR lists: what VM entries load, VM exits store, VM exits load.
pub(super) static MSR_LISTS: [Page; 3] = [const { Page::new() }; 3];
/// EPT.
static EPT: Identity = Identity::new();

/// Read, write, execute.
const OPEN: u64 = 0b111;
/// Memory type write-back, in an entry that maps a page.
const WRITE_BACK: u64 = 6 << 3;

/// Makes accesses of a port exit, or no longer.
pub(super) fn set_port(port: u16, intercept: bool) {
    IO_BITMAPS.set_bit(port.into(), intercept);
}

/// Makes reads and writes of an MSR exit, or no longer. An MSR that the bitmaps do not cover always exits.
pub(super) fn set_msr(msr: u32, read: bool, write: bool) {
    let first = match msr >> 13 {
        0 => 0,
        0x6_0000 => 0x400,
        _ => return,
    };
    let bit = first * 8 + (msr as usize & 0x1fff);
    MSR_BITMAPS.set_bit(bit, read);
    MSR_BITMAPS.set_bit(bit + 0x800 * 8, write);
}

/// Writes EPT anew; the EPT pointer: write-back tables, a walk of four.
pub(super) fn build_nested() -> u64 {
    EPT.build(OPEN, OPEN | WRITE_BACK) | 3 << 3 | 6
}

/// Changes the EPT entry of the page at `gpa`, which has 4 KiB below 4 MiB and 2 MiB above; the new entry.
pub(super) fn change_nested(gpa: u64, with: impl FnOnce(u64) -> u64) -> u64 {
    EPT.change(gpa, with)
}

/// INVEPT of this type, with this EPT pointer.
pub fn invept(kind: u64, ept_pointer: u64) -> Result<(), Fail> {
    let (carry, zero): (u8, u8);
    let descriptor = [ept_pointer, 0];
    // SAFETY: what the TLB forgets is read again.
    unsafe {
        asm!("invept {kind}, [{d}]", "setc {c}", "setz {z}", kind = in(reg) kind, d = in(reg) &raw const descriptor,
            c = out(reg_byte) carry, z = out(reg_byte) zero, options(nostack));
    }
    outcome(carry, zero)
}

/// INVVPID of this type, for a VPID and a linear address.
pub fn invvpid(kind: u64, vpid: u64, linear: u64) -> Result<(), Fail> {
    let (carry, zero): (u8, u8);
    let descriptor = [vpid, linear];
    // SAFETY: as for INVEPT.
    unsafe {
        asm!("invvpid {kind}, [{d}]", "setc {c}", "setz {z}", kind = in(reg) kind, d = in(reg) &raw const descriptor,
            c = out(reg_byte) carry, z = out(reg_byte) zero, options(nostack));
    }
    outcome(carry, zero)
}
