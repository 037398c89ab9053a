//! What VMX virtualizes for L2 beyond its instructions: the local APIC, a VMCS, lists of MSRs; and state that the host
//! makes invalid.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "pages that L1 gives to the CPU")]
guest::payload!();

use guest::report::value;
use guest::vmx::{self, Exit, Fail, L2, controls, exit, field, vmclear, vmptrld, vmread, vmwrite};
use guest::{arg, code, control, pio};

/// Pages of RAM that nothing else uses.
const SHADOW: u64 = 0x10_0000;
const VMREAD_BITMAP: u64 = 0x10_1000;
const VMWRITE_BITMAP: u64 = 0x10_2000;
/// A memslot of the host's.
const SLOT: u64 = 0x1100_0000;
/// Offset of the local APIC's task priority.
const TPR: u64 = 0x80;
/// The x2APIC's task priority.
const X2APIC_TPR: u64 = 0x808;
/// In the first word of a VMCS: it is a shadow VMCS.
const IS_SHADOW: u64 = 1 << 31;

code! {
    /// Single accesses of memory at RBX.
    load: guest::label!("load_here"), "mov eax, [rbx]", "ret";
    store: guest::label!("store_here"), "mov [rbx], ecx", guest::label!("behind_store"), "ret";
    store_and_load: "mov [rbx], ecx", "mov eax, [rbx]", "ret";

    /// WRMSR of RBX to the MSR in RCX.
    wrmsr: "mov rax, rbx", "mov rdx, rbx", "shr rdx, 32", guest::label!("wrmsr_here"), "wrmsr",
        guest::label!("behind_wrmsr"), "ret";

    nothing: guest::label!("first_of_l2"), "ret";
    out_twice: guest::label!("out_here"), "out 0x80, al", "out 0x80, al", "ret";
    halts: guest::label!("hlt_here"), "hlt", "ret";
    reads_tsc: "rdtsc", "shl rdx, 32", "or rax, rdx", "ret";
}

fn tell(exit: Exit) {
    value("exit", exit.reason);
    value("rip", exit.rip);
}

/// The virtual address of guest-physical `gpa`.
fn at(gpa: u64) -> u64 {
    guest::physical::<u8>(gpa) as u64
}

fn fill(gpa: u64, with: u64) {
    for word in 0..512 {
        // SAFETY: nothing else uses these pages.
        unsafe { guest::physical::<u64>(gpa).add(word).write_volatile(with) };
    }
}

fn told(result: Result<u64, Fail>) -> u64 {
    match result {
        Ok(value) => value,
        Err(fail) => fail.number() | 0xdead_0000,
    }
}

/// The field that the cases of shadowing are about, or another.
fn shadowed() -> vmx::Field {
    arg("field").map_or(field::TSC_OFFSET, |number| vmx::Field(number as u32))
}

extern "C" fn l2_vmread() {
    value("read", told(vmread(shadowed())));
}

extern "C" fn l2_vmwrite() {
    value("written", told(vmwrite(shadowed(), 0x5678).map(|()| 0)));
}

/// L2 with VMCS shadowing and a shadow VMCS in which the field holds 0x1234. `bitmap`: what the bitmaps are full of;
/// `no-link`, `plain-link`: there is no shadow VMCS, or it is none; `no-shadowing`: the control is off.
fn shadowing(code: extern "C" fn()) -> L2 {
    let mut l2 = L2::new(code);
    let mark = if arg("plain-link").is_some() { 0 } else { IS_SHADOW };
    fill(SHADOW, 0);
    // SAFETY: as in `fill`.
    unsafe { guest::physical::<u64>(SHADOW).write_volatile(vmx::revision() | mark) };
    guest::check!(vmclear(SHADOW).and_then(|()| vmptrld(SHADOW)).is_ok(), "VMPTRLD of the shadow VMCS");
    guest::check!(vmwrite(field::TSC_OFFSET, 0x1234).is_ok(), "VMWRITE to the shadow VMCS");
    guest::check!(vmclear(SHADOW).is_ok());
    l2.make_current();
    for bitmap in [VMREAD_BITMAP, VMWRITE_BITMAP] {
        fill(bitmap, arg("bitmap").unwrap_or(0));
    }
    l2.vmcs().set(field::VMREAD_BITMAP, VMREAD_BITMAP + arg("off").unwrap_or(0));
    l2.vmcs().set(field::VMWRITE_BITMAP, VMWRITE_BITMAP);
    l2.vmcs().control(controls::SHADOW_VMCS, arg("no-shadowing").is_none());
    if arg("no-link").is_none() {
        l2.vmcs().set(field::LINK_POINTER, SHADOW);
    }
    l2
}

/// An MSR list with one good entry and that of the case: `msr`, `value`; `high`: reserved bits of it.
fn with_list(code: extern "C" fn()) -> L2 {
    let mut l2 = L2::new(code);
    let entry = (arg("msr").unwrap_or(0) as u32, arg("value").unwrap_or(0));
    let list = [(0x174, 0x2222), entry];
    match arg("list") {
        Some(1) => l2.store_at_exit(&list),
        Some(2) => l2.load_at_exit(&list),
        _ => l2.load_at_entry(&list),
    }
    if let Some(high) = arg("high") {
        let list = guest::physical::<u64>(l2.vmcs().get(field::ENTRY_LOAD_LIST));
        // SAFETY: the list's page; its second entry is 16 bytes behind the first.
        unsafe { list.add(2).write_volatile(u64::from(entry.0) | high << 32) };
    }
    l2
}

fn task_priority(code: extern "C" fn(), threshold: u64) -> L2 {
    let mut l2 = L2::new(code);
    l2.shadow_tpr(threshold);
    l2.set_virtual_tpr(arg("start").unwrap_or(0));
    l2
}

guest::scenario! {
    /// L2 does VMREAD, or with `write` VMWRITE, of a field that is shadowed.
    fn shadow_access() {
        let code = if arg("write").is_some() { l2_vmwrite } else { l2_vmread };
        value("offered", vmx::offers(controls::SHADOW_VMCS).into());
        let mut l2 = shadowing(code);
        let exit = l2.run();
        value("exit", exit.reason);
        if exit.reason & exit::FAILED_ENTRY != 0 {
            return value("qualification", exit.qualification);
        }
        value("own field", l2.vmcs().get(field::TSC_OFFSET));
        guest::check!(vmclear(SHADOW).and_then(|()| vmptrld(SHADOW)).is_ok());
        value("shadow's field", told(vmread(field::TSC_OFFSET)));
    }

    /// VM entry with shadowing that VMX refuses.
    fn shadow_refused() {
        let mut l2 = shadowing(nothing);
        value("error", l2.try_run().map_or_else(Fail::number, |exit| exit.reason));
    }

    /// VMLAUNCH while a shadow VMCS is current.
    fn launch_shadow() {
        let mut l2 = shadowing(nothing);
        guest::check!(vmptrld(SHADOW).is_ok());
        value("error", l2.try_run().map_or_else(Fail::number, |exit| exit.reason));
    }

    /// L2 accesses the APIC-access page's task priority, with a TPR shadow: stores `store`, loads.
    fn access_tpr() {
        let mut l2 = task_priority(if arg("load").is_some() { store_and_load } else { store }, arg("threshold").unwrap_or(0));
        l2.regs.rbx = at(l2.virtualize_apic_accesses()) + TPR;
        l2.regs.rcx = arg("store").unwrap_or(0);
        tell(l2.run());
        value("virtual tpr", l2.virtual_tpr());
        value("loaded", l2.regs.rax & 0xffff_ffff);
    }

    /// VM entry with the task priority below the threshold, which exits behind the entry.
    fn entry_below_threshold() {
        let mut l2 = task_priority(nothing, 5);
        l2.virtualize_apic_accesses();
        tell(l2.run());
        l2.vmcs().set(field::TPR_THRESHOLD, 0);
        tell(l2.run());
    }

    /// L2 writes `value` to the x2APIC's TPR, which is virtual.
    fn x2apic_tpr() {
        let mut l2 = task_priority(if arg("fault").is_some() { caught_wrmsr } else { wrmsr }, arg("threshold").unwrap_or(0));
        l2.vmcs().control(controls::X2APIC, true);
        l2.regs.rcx = X2APIC_TPR;
        l2.regs.rbx = arg("value").unwrap_or(0);
        tell(l2.run());
        value("virtual tpr", l2.virtual_tpr());
        value("cr8 of l1", control::read_cr8());
    }

    /// What APIC virtualization the CPU offers to L1.
    fn apic_offers() {
        value("registers", vmx::offers(controls::APIC_REGISTERS).into());
        value("interrupts", vmx::offers(controls::VIRTUAL_INTERRUPTS).into());
    }

    /// The preemption timer runs out while L2 is halted.
    fn timer_in_halt() {
        let mut l2 = L2::new(halts);
        if arg("activity").is_some() {
            l2.vmcs().set(field::ACTIVITY, 1);
        }
        l2.vmcs().intercept(exit::PREEMPTION_TIMER);
        // Long enough for L2 to reach its HLT on any machine.
        l2.vmcs().set(field::PREEMPTION_TIMER, 1 << 20);
        value("exit", l2.run().reason);
        value("activity", l2.vmcs().get(field::ACTIVITY));
    }

    /// L2 runs with an MSR list, see `with_list`.
    fn msr_list() {
        let mut l2 = with_list(nothing);
        if arg("gate").is_some() {
            pio::out8(0x80, 0);
        }
        let exit = l2.run();
        value("exit", exit.reason);
        if exit.reason & exit::FAILED_ENTRY != 0 {
            value("qualification", exit.qualification);
            l2.vmcs().set(field::ENTRY_LOAD_COUNT, 0);
            value("exit", l2.run().reason);
        }
        if arg("list") == Some(1) {
            value("stored", l2.stored(1));
        }
    }

    /// VM exit stores the time-stamp counter.
    fn stored_tsc() {
        let mut l2 = L2::new(reads_tsc);
        l2.store_at_exit(&[(0x10, 0)]);
        l2.run();
        let stored = l2.stored(0);
        value("not before L2's", (stored >= l2.regs.rax).into());
        // SAFETY: RDTSC reads a counter.
        let now = unsafe { core::arch::x86_64::_rdtsc() };
        value("not after L1's", (stored <= now).into());
    }

    /// VM entry and VM exit load PAT by their own fields.
    fn pat_by_fields() {
        let mut l2 = L2::new(nothing);
        l2.vmcs().set(field::PAT, 0x0606_0606_0606_0606);
        l2.vmcs().set(field::HOST_PAT, 0x0007_0406_0007_0406);
        l2.vmcs().control(controls::LOAD_PAT, true);
        l2.vmcs().control(controls::LOAD_HOST_PAT, true);
        pio::out8(0x80, 0);
        value("exit", l2.run().reason);
        value("faults", control::read_msr(0x277).is_err().into());
    }

    /// L2 does OUT twice; its APIC-access page is in a memslot.
    fn access_page_in_slot() {
        let mut l2 = L2::new(out_twice);
        l2.virtualize_apic_accesses();
        l2.vmcs().set(field::APIC_ACCESS, SLOT);
        tell(l2.run());
    }

    /// L1 does OUT twice.
    fn l1_stands_at_out() {
        pio::out8(0x80, 1);
        pio::out8(0x80, 2);
    }
}

/// As `wrmsr`, with its fault told.
extern "C" fn caught_wrmsr() {
    let fault = control::write_msr(X2APIC_TPR as u32, arg("value").unwrap_or(0)).err();
    value("vector", fault.map_or(0, |fault| fault.vector));
}
