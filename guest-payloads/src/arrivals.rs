//! A handler that counts what arrives, and keeps where it came: what most scenarios want of an interrupt.

#![expect(unsafe_code, reason = "interrupts are let in")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::fault::Frame;
use crate::{apic, arg, report};

static COUNT: AtomicU64 = AtomicU64::new(0);
static ERROR: AtomicU64 = AtomicU64::new(0);
static RETURN: AtomicU64 = AtomicU64::new(0);

/// Counts: a handler for [`handle`](crate::handle).
pub fn count(frame: &mut Frame) {
    ERROR.store(frame.error, Ordering::Relaxed);
    RETURN.store(frame.rip, Ordering::Relaxed);
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Counts, and tells the local APIC that it is done.
pub fn count_and_eoi(frame: &mut Frame) {
    count(frame);
    apic::eoi();
}

/// Counts, and tells the local APIC if the case says that there is one (`apic`), of an interrupt.
pub fn count_and_eoi_if_apic(frame: &mut Frame) {
    count(frame);
    if arg("apic").is_some() && frame.vector >= 32 {
        apic::eoi();
    }
}

/// Lets what waits in, for two instructions.
pub fn let_in() {
    // SAFETY: what can arrive has a handler, or its absence is what the case is about.
    unsafe { asm!("sti", "nop", "nop", "cli", options(nostack)) };
}

/// How many have arrived.
pub fn counted() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// The error code of the last one.
pub fn error() -> u64 {
    ERROR.load(Ordering::Relaxed)
}

/// Starts over.
pub fn forget() {
    for number in [&COUNT, &ERROR, &RETURN] {
        number.store(0, Ordering::Relaxed);
    }
}

/// Reports `count`, and `return`: where the last one returns to.
pub fn tell() {
    report::value("count", counted());
    report::value("return", RETURN.load(Ordering::Relaxed));
}
