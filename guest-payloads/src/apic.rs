//! The local APIC: one API over the xAPIC's page and the x2APIC's MSRs (SDM vol. 3, chapter 12).
#![expect(unsafe_code, reason = "device registers")]

use core::sync::atomic::{AtomicBool, Ordering};

use crate::{Fault, control, entry, mmio, report};

/// Register numbers: offset in the page, and 0x10 times the distance from MSR 0x800.
#[expect(missing_docs, reason = "names of SDM vol. 3, table 12-1")]
pub mod reg {
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TPR: u32 = 0x80;
    pub const PPR: u32 = 0xa0;
    pub const EOI: u32 = 0xb0;
    pub const LDR: u32 = 0xd0;
    pub const DFR: u32 = 0xe0;
    pub const SVR: u32 = 0xf0;
    pub const ISR: u32 = 0x100;
    pub const IRR: u32 = 0x200;
    pub const ESR: u32 = 0x280;
    pub const ICR: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const TIMER_INITIAL: u32 = 0x380;
    pub const TIMER_CURRENT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
    pub const SELF_IPI: u32 = 0x3f0;
}

/// Physical address of the xAPIC page after reset.
pub const BASE: u64 = 0xfee0_0000;
/// IA32_APIC_BASE.
pub const APIC_BASE_MSR: u32 = 0x1b;
/// IA32_APIC_BASE: globally enabled.
pub const ENABLED: u64 = 1 << 11;
/// IA32_APIC_BASE: x2APIC mode.
pub const X2APIC: u64 = 1 << 10;

static IN_X2APIC: AtomicBool = AtomicBool::new(false);

/// The x2APIC MSR of a register.
pub const fn msr(register: u32) -> u32 {
    0x800 + (register >> 4)
}

/// Reads a register in the mode that [`enable`] or [`enable_x2apic`] set.
pub fn read(register: u32) -> u32 {
    if IN_X2APIC.load(Ordering::Relaxed) {
        return sound(control::read_msr(msr(register))) as u32;
    }
    xapic_read(register)
}

/// Writes a register in the mode that [`enable`] or [`enable_x2apic`] set.
pub fn write(register: u32, value: u32) {
    if IN_X2APIC.load(Ordering::Relaxed) {
        sound(control::write_msr(msr(register), value.into()));
    } else {
        xapic_write(register, value);
    }
}

/// What an access gave that must not fault: a fault is reported as one that no scenario asked for.
fn sound<T>(access: Result<T, Fault>) -> T {
    match access {
        Ok(value) => value,
        Err(fault) => {
            report::fault(&fault);
            entry::stop()
        }
    }
}

/// Reads through the page, whatever the mode.
pub fn xapic_read(register: u32) -> u32 {
    // SAFETY: the page is mapped with the rest of physical memory; no register read touches Rust's memory.
    unsafe { mmio::read32(entry::physical::<u8>(BASE) as u64 + u64::from(register)) }
}

/// Writes through the page, whatever the mode.
pub fn xapic_write(register: u32, value: u32) {
    // SAFETY: as for reading.
    unsafe { mmio::write32(entry::physical::<u8>(BASE) as u64 + u64::from(register), value) }
}

/// Enables the local APIC in xAPIC mode, spurious vector 0xff.
pub fn enable() {
    IN_X2APIC.store(false, Ordering::Relaxed);
    xapic_write(reg::SVR, 0x1ff);
}

/// Switches to x2APIC mode and enables the local APIC, spurious vector 0xff.
pub fn enable_x2apic() -> Result<(), Fault> {
    let base = control::read_msr(APIC_BASE_MSR)?;
    control::write_msr(APIC_BASE_MSR, base | ENABLED | X2APIC)?;
    IN_X2APIC.store(true, Ordering::Relaxed);
    write(reg::SVR, 0x1ff);
    Ok(())
}

/// End of interrupt.
pub fn eoi() {
    write(reg::EOI, 0);
}

/// Sends an interrupt command: `low` is the ICR's low half, `destination` an APIC id.
pub fn send(destination: u32, low: u32) {
    if IN_X2APIC.load(Ordering::Relaxed) {
        sound(control::write_msr(msr(reg::ICR), u64::from(destination) << 32 | u64::from(low)));
    } else {
        xapic_write(reg::ICR_HIGH, destination << 24);
        xapic_write(reg::ICR, low);
    }
}

/// A fixed interrupt to this CPU.
pub fn send_self(vector: u8) {
    // Shorthand "self", edge, asserted.
    send(0, 0x4_4000 | u32::from(vector));
}

/// INIT to an APIC id.
pub fn send_init(destination: u32) {
    send(destination, 0x4500);
}

/// Start-up to an APIC id; the vector is the number of the page to start in.
pub fn send_startup(destination: u32, vector: u8) {
    send(destination, 0x4600 | u32::from(vector));
}
