//! A VMCS from nothing: the controls that the capability MSRs demand, L1 as the host, and an L2 that is like L1.
#![expect(unsafe_code, reason = "the task register")]

use core::arch::asm;

use super::entry;
use super::names::{controls, field};
use super::pages;
use super::vmcs::{Vmcs, msr, offers, required};
use crate::control;
use crate::page::PAGE;
use crate::tables::{GDT_POINTER, IDT_POINTER, KERNEL_CS, KERNEL_DS};

/// In a segment's access rights: it is unusable.
const UNUSABLE: u64 = 1 << 16;

/// 64-bit L1 and L2, no exits that are not asked for.
pub(super) fn set_controls(vmcs: &mut Vmcs) {
    for controls in
        [field::PIN_CONTROLS, field::PROCESSOR_CONTROLS, field::EXIT_CONTROLS, field::ENTRY_CONTROLS]
    {
        vmcs.set(controls, required(controls));
    }
    for control in [
        controls::HOST_64_BIT,
        controls::GUEST_64_BIT,
        controls::LOAD_DEBUG,
        controls::SAVE_DEBUG,
        controls::MSR_BITMAPS,
    ] {
        vmcs.control(control, true);
    }
    vmcs.set(field::MSR_BITMAPS, pages::MSR_BITMAPS.address());
    vmcs.set(field::IO_BITMAP_A, pages::IO_BITMAPS.address());
    vmcs.set(field::IO_BITMAP_B, pages::IO_BITMAPS.address() + PAGE as u64);
    if offers(controls::SECONDARY) {
        vmcs.set(field::PROCESSOR_CONTROLS_2, 0);
    }
    for zero in [
        field::EXCEPTIONS,
        field::PF_MASK,
        field::PF_MATCH,
        field::CR3_TARGETS,
        field::EXIT_STORE_COUNT,
        field::EXIT_LOAD_COUNT,
        field::ENTRY_LOAD_COUNT,
        field::ENTRY_EVENT,
        field::CR0_MASK,
        field::CR4_MASK,
        field::TSC_OFFSET,
    ] {
        vmcs.set(zero, 0);
    }
}

/// What a VM exit loads: L1 as it is.
pub(super) fn set_host_state(vmcs: &mut Vmcs) {
    vmcs.set(field::HOST_CR0, control::read_cr0());
    vmcs.set(field::HOST_CR3, control::read_cr3());
    vmcs.set(field::HOST_CR4, control::read_cr4());
    for (segment, selector) in [
        (field::CS, KERNEL_CS),
        (field::SS, KERNEL_DS),
        (field::DS, KERNEL_DS),
        (field::ES, KERNEL_DS),
        (field::FS, 0),
        (field::GS, 0),
        (field::TR, task_register()),
    ] {
        vmcs.set(field::host_selector(segment), selector.into());
    }
    vmcs.set(field::HOST_FS_BASE, msr(0xc000_0100));
    vmcs.set(field::HOST_GS_BASE, msr(0xc000_0101));
    vmcs.set(field::HOST_TR_BASE, task_state().0);
    vmcs.set(field::HOST_GDTR_BASE, GDT_POINTER.base);
    vmcs.set(field::HOST_IDTR_BASE, IDT_POINTER.base);
    vmcs.set(field::HOST_SYSENTER_CS, msr(0x174));
    vmcs.set(field::HOST_SYSENTER_ESP, msr(0x175));
    vmcs.set(field::HOST_SYSENTER_EIP, msr(0x176));
    vmcs.set(field::HOST_RIP, entry::exit_address());
}

/// What a VM entry loads: as L1, but for what [`L2::go`](super::L2::go) sets.
pub(super) fn set_guest_state(vmcs: &mut Vmcs) {
    let cr0 = control::read_cr0();
    let cr4 = control::read_cr4();
    for (field, value) in [
        (field::CR0, cr0),
        (field::CR0_SHADOW, cr0),
        (field::CR3, control::read_cr3()),
        (field::CR4, cr4),
        (field::CR4_SHADOW, cr4),
        (field::DR7, 0x400), // at reset (SDM vol. 3A, table 11-1)
        (field::DEBUGCTL, 0),
        (field::LINK_POINTER, u64::MAX),
        (field::INTERRUPTIBILITY, 0),
        (field::ACTIVITY, 0),
        (field::PENDING_DEBUG, 0),
        (field::SYSENTER_CS, msr(0x174)),
        (field::SYSENTER_ESP, msr(0x175)),
        (field::SYSENTER_EIP, msr(0x176)),
    ] {
        vmcs.set(field, value);
    }
    let (task, task_limit) = task_state();
    for (segment, selector, rights, base, limit) in [
        // 64-bit code, data, and a busy TSS: bits 55:52 and 47:40 of the runtime's descriptors.
        (field::CS, KERNEL_CS, 0xa09b, 0, 0xffff_ffff),
        (field::SS, KERNEL_DS, 0xc093, 0, 0xffff_ffff),
        (field::DS, KERNEL_DS, 0xc093, 0, 0xffff_ffff),
        (field::ES, KERNEL_DS, 0xc093, 0, 0xffff_ffff),
        (field::FS, 0, UNUSABLE, 0, 0),
        (field::GS, 0, UNUSABLE, 0, 0),
        (field::LDTR, 0, UNUSABLE, 0, 0),
        (field::TR, task_register(), 0x8b, task, task_limit),
    ] {
        vmcs.set(field::selector(segment), selector.into());
        vmcs.set(field::rights(segment), rights);
        vmcs.set(field::base(segment), base);
        vmcs.set(field::limit(segment), limit);
    }
    for (table, pointer) in [(field::GDTR, &GDT_POINTER), (field::IDTR, &IDT_POINTER)] {
        vmcs.set(field::base(table), pointer.base);
        vmcs.set(field::limit(table), pointer.limit.into());
    }
}

/// TR's selector.
fn task_register() -> u16 {
    let selector: u16;
    // SAFETY: stores a register.
    unsafe { asm!("str {:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector
}

/// Base and limit of the TSS, from its descriptor.
fn task_state() -> (u64, u64) {
    let at = (GDT_POINTER.base + u64::from(task_register() & !7)) as *const u64;
    // SAFETY: the descriptor of 16 bytes lies in the runtime's GDT.
    let (low, high) = unsafe { (at.read_volatile(), at.add(1).read_volatile()) };
    (low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32, low & 0xffff)
}
