//! This guest as a hypervisor with VMX: exceptions, interrupts, timers and what else comes from outside while L2 runs.
//!
//! Most scenarios take `exceptions`, the exception bitmap, and `intercept` and `intercept-too`, exit reasons whose
//! controls to turn on.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "gates are broken on purpose, and registers read")]
guest::payload!();
guest::raises!();

use core::arch::asm;

use guest::arrivals::count_and_eoi_if_apic;
use guest::fault::Frame;
use guest::nested::raise;
use guest::report::value;
use guest::tables::remove_gate;
use guest::vmx::{Exit, L2, controls, event, exit, field};
use guest::{apic, arg, arrivals, catch, code, control, handle, pio};

code! {
    /// One exception each.
    not_mapped_read: "mov eax, 0xdead0000", guest::label!("pf_read_here"), "mov al, [rax]", "ret";
    icebp: guest::label!("icebp_here"), ".byte 0xf1", guest::label!("behind_icebp"), "ret";
    step_sti: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "sti", guest::label!("behind_sti"), "nop", "ret";
    step_mov_ss: "mov ecx, ss", "pushfq", "or dword ptr [rsp], 0x100", "popfq", "mov ss, ecx", ".byte 0xf1",
        guest::label!("behind_mov_ss"), "nop", "ret";
    guarded_dr: "mov rax, dr7", "or eax, 0x2000", "mov dr7, rax", guest::label!("gd_here"), "mov rax, dr6", "ret";

    /// #UD without any IDT.
    shutdown: "push 0", "push 0", "lidt [rsp]", guest::label!("fatal"), "ud2";

    /// Port 0x80, where the host does its part; then some instructions with names.
    out_then_nops: guest::label!("out_here"), "out 0x80, al", guest::label!("behind_out"), "nop",
        guest::label!("one_more"), "nop", guest::label!("two_more"), "nop", "ret";
    out_then_open: "out 0x80, al", "nop", "sti", guest::label!("shielded"), "nop", guest::label!("open"), "nop", "cli",
        "ret";
    out_then_halt: "out 0x80, al", "sti", "hlt", guest::label!("behind_hlt"), "nop", "cli", "ret";
    open_then_out: "sti", "nop", guest::label!("open_out_here"), "out 0x80, al", guest::label!("behind_open_out"), "nop",
        "nop", "cli", "ret";
    shielded_cpuid: "sti", guest::label!("cpuid_here"), "cpuid", "cli", "ret";
    alignment_and_fpu: "mov rax, cr0", "or eax, 0x40008", guest::label!("owned_ts_here"), "mov cr0, rax", "fninit", "ret";
    two_nops: guest::label!("first"), "nop", guest::label!("second"), "nop", "cli", "ret";
    spin: "sti", "2:", "pause", "jmp 2b";
    set_tpr: "mov eax, 5", "mov cr8, rax", "mov r9, cr8", "mov eax, 2", guest::label!("lower_tpr"), "mov cr8, rax",
        guest::label!("behind_lower_tpr"), "nop", "ret";
    load: guest::label!("load_here"), "mov eax, [rbx]", "ret";
    store: guest::label!("store_here"), "mov [rbx], eax", "ret";
    rdmsr: guest::label!("rdmsr_here"), "rdmsr", "ret";

    /// IRET, after which NMIs are no longer blocked.
    iret: "mov rax, rsp", "push 0x10", "push rax", "pushfq", "push 8", "lea rax, [rip + behind_iret]", "push rax",
        "iretq", guest::label!("behind_iret"), "nop", "ret";
}

/// L2 with what the case's arguments ask for.
fn prepared(code: extern "C" fn()) -> L2 {
    let mut l2 = L2::new(code);
    for name in ["intercept", "intercept-too"] {
        if let Some(reason) = arg(name) {
            l2.vmcs().intercept(reason);
        }
    }
    l2.vmcs().set(field::EXCEPTIONS, arg("exceptions").unwrap_or(0));
    l2
}

fn tell(exit: Exit) {
    value("exit", exit.reason);
    value("rip", exit.rip);
}

/// The event that an exit is about, with its error code if it has one.
fn tell_event(exit: Exit) {
    tell(exit);
    if exit.reason == exit::EXCEPTION_OR_NMI {
        value("event", exit.event);
        if exit.event & event::HAS_ERROR != 0 {
            value("error", exit.error);
        }
    }
}

/// The exception `vector`, or the way to it.
fn raise_any() {
    match arg("vector") {
        Some(1) if arg("icebp").is_some() => icebp(),
        Some(1) if arg("guarded").is_some() => guarded_dr(),
        Some(14) if arg("read").is_some() => not_mapped_read(),
        _ => raise(),
    }
}

/// In L2: tells the exception as its IDT delivers it.
extern "C" fn raise_and_tell() {
    raise::tell(raise_any);
}

/// OUT to port 0x80, where the host does its part.
fn host_acts() {
    pio::out8(0x80, 0);
}

/// Turns the local APIC on, if the case has one.
fn enable_apic() {
    if arg("apic").is_some() {
        apic::enable();
    }
}

guest::scenario! {
    /// An exception in L2, which exits or not.
    fn exception() {
        let mut l2 = prepared(raise_and_tell);
        l2.vmcs().set(field::PF_MASK, arg("pf-mask").unwrap_or(0));
        l2.vmcs().set(field::PF_MATCH, arg("pf-match").unwrap_or(0));
        guest::check!(control::write_cr2(0x5555).is_ok());
        guest::check!(control::write_dr6(0xffff_0ff0).is_ok());
        let exit = l2.run();
        tell_event(exit);
        if exit.reason == exit::EXCEPTION_OR_NMI {
            value("qualification", exit.qualification);
            value("length", if exit.event >> 8 & 7 >= 5 { exit.length } else { 0 });
            value("vectoring", exit.vectoring);
            value("cr2", control::read_cr2());
            value("dr6", control::read_dr6());
        }
    }

    /// An exception in L2, whose gate is not present.
    fn fault_in_delivery() {
        let mut l2 = prepared(raise_and_tell);
        remove_gate(arg("vector").unwrap_or(13));
        let exit = l2.run();
        tell_event(exit);
        value("vectoring", exit.vectoring);
        if exit.vectoring & event::HAS_ERROR != 0 {
            value("vectoring error", exit.vectoring_error);
        }
    }

    /// L2 shuts down.
    fn shutdown_in_l2() {
        let exit = prepared(shutdown).run();
        tell(exit);
        value("vectoring", exit.vectoring);
        let mut sound = L2::new(two_nops);
        value("sound", sound.run().reason);
    }

    /// L1 injects `event`, and handles it in L2; `error` and `length` as the event needs. RFLAGS.IF as `if`. With `warm`,
    /// all that the delivery of an exception touches is mapped in the host before.
    fn inject() {
        let mut l2 = prepared(two_nops);
        if arg("warm").is_some() {
            handle(6, Some(count_and_eoi_if_apic));
            l2.vmcs().set(field::ENTRY_EVENT, event::exception(6));
            l2.run();
            l2.go(two_nops);
            arrivals::forget();
        }
        let event = arg("event").unwrap_or(0);
        handle(event as u8, Some(count_and_eoi_if_apic));
        l2.vmcs().set(field::ENTRY_EVENT, event);
        l2.vmcs().set(field::ENTRY_ERROR, arg("error").unwrap_or(0));
        l2.vmcs().set(field::ENTRY_LENGTH, arg("length").unwrap_or(0));
        l2.vmcs().set(field::RFLAGS, 2 | arg("if").unwrap_or(0) << 9);
        l2.vmcs().set(field::ACTIVITY, arg("activity").unwrap_or(0));
        tell(l2.run());
        arrivals::tell();
        value("error", arrivals::error());
        value("still valid", l2.vmcs().get(field::ENTRY_EVENT) >> 31);
    }

    /// L1 injects an event whose gate is not present.
    fn inject_without_gate() {
        let mut l2 = prepared(two_nops);
        let event = arg("event").unwrap_or(0);
        remove_gate(event & 0xff);
        l2.vmcs().set(field::ENTRY_EVENT, event);
        l2.vmcs().set(field::ENTRY_ERROR, arg("error").unwrap_or(0));
        l2.vmcs().set(field::ENTRY_LENGTH, arg("length").unwrap_or(0));
        l2.vmcs().set(field::RFLAGS, 0x202);
        let exit = l2.run();
        tell_event(exit);
        value("vectoring", exit.vectoring);
        if exit.vectoring & event::HAS_ERROR != 0 {
            value("vectoring error", exit.vectoring_error);
        }
        if exit.vectoring >> 8 & 7 == 4 {
            value("length", exit.length);
        }
    }

    /// The host acts while L2 stands at an OUT; L2's code is `code`. Then L1 opens its interrupt window.
    fn host_event() {
        let mut l2 = prepared(match arg("code") {
            Some(1) => out_then_open,
            Some(2) => out_then_halt,
            Some(3) => open_then_out,
            _ => out_then_nops,
        });
        handle(0x41, Some(count_and_eoi_if_apic));
        handle(2, Some(count_and_eoi_if_apic));
        enable_apic();
        if arg("acknowledge").is_some() {
            l2.vmcs().control(controls::ACKNOWLEDGE_INTERRUPT, true);
        }
        if arg("virtual-nmis").is_some() {
            l2.vmcs().control(controls::VIRTUAL_NMIS, true);
        }
        let exit = l2.run();
        value("count in l2", arrivals::counted());
        tell(exit);
        value("event", exit.event & if exit.event >> 31 == 0 { 0 } else { u64::MAX });
        arrivals::let_in();
        arrivals::tell();
    }

    /// As above, and an NMI follows in L1: the exit of the first blocks it until IRET.
    fn nmi_exit_blocks_nmis() {
        let mut l2 = prepared(out_then_nops);
        handle(2, Some(count_and_eoi_if_apic));
        tell_event(l2.run());
        host_acts();
        value("blocked", arrivals::counted());
        iret();
        value("after iret", arrivals::counted());
    }

    /// INIT, or what the host sends, reaches L1 in VMX root operation, and then L2.
    fn init() {
        enable_apic();
        let mut l2 = prepared(two_nops);
        if arg("in-root").is_some() {
            host_acts();
        } else {
            l2.go(out_then_nops);
        }
        tell(l2.run());
    }

    /// L2 starts in activity state `activity`, with interrupts open if `if`.
    fn activity() {
        handle(0x41, Some(count_and_eoi_if_apic));
        enable_apic();
        let mut l2 = prepared(two_nops);
        l2.vmcs().set(field::ACTIVITY, arg("activity").unwrap_or(0));
        l2.vmcs().set(field::RFLAGS, 2 | arg("if").unwrap_or(0) << 9);
        if arg("before").is_some() {
            host_acts();
        }
        let exit = l2.run();
        tell(exit);
        if exit.reason == exit::SIPI {
            value("qualification", exit.qualification);
        }
        value("activity", l2.vmcs().get(field::ACTIVITY));
        value("count", arrivals::counted());
    }

    /// L2 halts, and L1 makes that exit or not: where it stands is in the activity state.
    fn halted_exit() {
        let mut l2 = prepared(out_then_halt);
        handle(0x41, Some(count_and_eoi_if_apic));
        enable_apic();
        let exit = l2.run();
        tell(exit);
        value("activity", l2.vmcs().get(field::ACTIVITY));
        value("length", if exit.reason == exit::HLT { exit.length } else { 0 });
    }

    /// NMI-window exiting, with virtual NMIs blocked until IRET, or not with `open`.
    fn nmi_window() {
        let mut l2 = prepared(iret);
        l2.vmcs().control(controls::NMI_EXITING, true);
        l2.vmcs().control(controls::VIRTUAL_NMIS, true);
        l2.vmcs().intercept(exit::NMI_WINDOW);
        l2.vmcs().set(field::INTERRUPTIBILITY, if arg("open").is_some() { 0 } else { 8 });
        guest::check!(l2.vmcs().get(field::RIP) == iret as *const () as u64);
        let exit = l2.run();
        value("exit", exit.reason);
        value("at the start", (exit.rip == iret as *const () as u64).into());
        value("behind iret", (exit.rip == behind_iret()).into());
        value("blocked", l2.vmcs().get(field::INTERRUPTIBILITY) >> 3 & 1);
    }

    /// An injected NMI with virtual NMIs: they are blocked in its handler, which exits.
    fn injected_nmi_blocks() {
        let mut l2 = prepared(two_nops);
        l2.vmcs().control(controls::NMI_EXITING, true);
        l2.vmcs().control(controls::VIRTUAL_NMIS, true);
        handle(2, Some(cpuid_in_handler));
        l2.vmcs().set(field::ENTRY_EVENT, event::nmi());
        let exit = l2.run();
        value("exit", exit.reason);
        value("blocked", l2.vmcs().get(field::INTERRUPTIBILITY) >> 3 & 1);
        l2.skip(exit.length);
        tell(l2.run());
        value("still blocked", l2.vmcs().get(field::INTERRUPTIBILITY) >> 3 & 1);
    }

    /// The preemption timer runs out: at once if `timer` is 0, after a while of spinning if not.
    fn preemption_timer() {
        let timer = arg("timer").unwrap_or(0);
        let mut l2 = prepared(if timer == 0 { two_nops } else { spin });
        l2.vmcs().control(controls::PREEMPTION_TIMER, true);
        l2.vmcs().set(field::PREEMPTION_TIMER, timer);
        let exit = l2.run();
        value("exit", exit.reason);
        value("at the start", (exit.rip == two_nops as *const () as u64).into());
        value("kept", l2.vmcs().get(field::PREEMPTION_TIMER));
    }

    /// L2 exits while the preemption timer runs, and its value is saved.
    fn preemption_timer_saved() {
        let mut l2 = prepared(shielded_cpuid);
        l2.vmcs().control(controls::PREEMPTION_TIMER, true);
        l2.vmcs().control(controls::SAVE_PREEMPTION_TIMER, true);
        l2.vmcs().set(field::PREEMPTION_TIMER, 0xf000_0000);
        tell(l2.run());
        let left = l2.vmcs().get(field::PREEMPTION_TIMER);
        value("saved", (left > 0x1000_0000 && left < 0xf000_0000).into());
    }

    /// A preemption timer of 0 behind an entry whose timer had much left.
    fn preemption_timer_anew() {
        let mut l2 = prepared(two_nops);
        l2.vmcs().control(controls::PREEMPTION_TIMER, true);
        l2.vmcs().set(field::PREEMPTION_TIMER, 0xf000_0000);
        value("exit", l2.run().reason);
        l2.go(two_nops);
        l2.vmcs().set(field::PREEMPTION_TIMER, 0);
        value("exit", l2.run().reason);
    }

    /// L2 sets CR0.AM, writes CR0.TS as the read shadow of L1 has it, which owns it and has it clear, and uses the FPU.
    fn host_owned_ts() {
        let mut l2 = prepared(alignment_and_fpu);
        let cr0 = control::read_cr0();
        l2.vmcs().set(field::CR0, cr0 & !0x4_0008);
        l2.vmcs().set(field::CR0_MASK, 8);
        l2.vmcs().set(field::CR0_SHADOW, cr0 | 8);
        tell(l2.run());
        value("changed", l2.vmcs().get(field::CR0) ^ cr0 & !0x4_0008);
    }

    /// The monitor trap flag: an exit after each instruction.
    fn monitor_trap() {
        let mut l2 = prepared(two_nops);
        l2.vmcs().intercept(exit::MONITOR_TRAP);
        tell(l2.run());
        l2.vmcs().pass(exit::MONITOR_TRAP);
        tell(l2.run());
    }

    /// Pending debug exceptions, `pending`, at VM entry, with RFLAGS.TF if `tf`.
    fn pending_debug() {
        handle(1, Some(count_and_eoi_if_apic));
        let mut l2 = prepared(two_nops);
        // Once without: a page that the host must map first is a case of its own.
        l2.run();
        l2.go(two_nops);
        l2.vmcs().set(field::PENDING_DEBUG, arg("pending").unwrap_or(0));
        l2.vmcs().set(field::RFLAGS, 2 | arg("tf").unwrap_or(0) << 8);
        let exit = l2.run();
        tell_event(exit);
        if exit.reason == exit::EXCEPTION_OR_NMI {
            value("qualification", exit.qualification);
        }
        value("count", arrivals::counted());
    }

    /// L2's CR8 with a TPR shadow and a threshold of 3: 5 passes, 2 exits.
    fn tpr_shadow() {
        let mut l2 = prepared(set_tpr);
        l2.shadow_tpr(3);
        // CR8 is above the threshold from the start, or the entry itself would exit.
        let start = l2.virtual_tpr();
        value("start", start);
        l2.set_virtual_tpr(0x60);
        tell(l2.run());
        value("read", l2.regs.r9);
        value("virtual tpr", l2.virtual_tpr());
        value("cr8 of l1", control::read_cr8());
    }

    /// L2 loads from, or with `write` stores to, the APIC-access page at `offset`.
    fn apic_access() {
        let mut l2 = prepared(if arg("write").is_some() { store } else { load });
        let page = l2.virtualize_apic_accesses();
        l2.regs.rbx = guest::physical::<u8>(page) as u64 + arg("offset").unwrap_or(0);
        let exit = l2.run();
        tell(exit);
        value("qualification", exit.qualification);
    }

    /// L2 reads the x2APIC's TPR, which is the virtual one.
    fn virtual_x2apic() {
        let mut l2 = prepared(rdmsr);
        l2.shadow_tpr(0);
        l2.vmcs().control(controls::X2APIC, true);
        l2.set_virtual_tpr(0x70);
        l2.regs.rcx = 0x808;
        tell(l2.run());
        value("tpr", l2.regs.rax & 0xffff_ffff);
    }

    /// In L1: single-steps STI, or INT1 in the shadow of MOV to SS.
    fn step_in_shadow() {
        let code = if arg("mov-ss").is_some() { step_mov_ss } else { step_sti };
        let fault = catch(|| code()).err().unwrap_or_default();
        value("vector", fault.vector);
        value("rip", fault.rip);
    }

    /// L2 does OUT, twice.
    fn l2_stands_at_out() {
        let mut l2 = prepared(out_then_nops);
        handle(1, Some(count_and_eoi_if_apic));
        let exit = l2.run();
        tell_event(exit);
        l2.go(out_then_nops);
        tell(l2.run());
    }
}

/// What an NMI does in L2: exits.
fn cpuid_in_handler(_: &mut Frame) {
    // SAFETY: changes the named registers only.
    unsafe { asm!("push rbx", "cpuid", "pop rbx", inout("eax") 0 => _, out("ecx") _, out("edx") _) };
}

/// Where `iret` goes.
fn behind_iret() -> u64 {
    unsafe extern "C" {
        #[link_name = "behind_iret"]
        static BEHIND: u8;
    }
    &raw const BEHIND as u64
}
