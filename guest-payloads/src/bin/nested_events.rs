//! This guest as a hypervisor, on AMD and Intel alike: exceptions, interrupts and what else comes while L2 runs, and the
//! state that goes back and forth.
//!
//! Most scenarios take `intercept-vector`, an exception that L1 intercepts, and `interrupt`, `nmi`, `hlt`, `shutdown`,
//! which it intercepts, too.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "gates are broken on purpose, and registers read")]
guest::payload!();
guest::raises!();

use core::arch::asm;

use guest::arrivals::count_and_eoi_if_apic;
use guest::nested::{self, Intercept, L2, Reason, State, event, raise};
use guest::report::value;
use guest::tables::{IDT_POINTER, remove_gate};
use guest::{apic, arg, arrivals, code, control, handle};

code! {
    /// #UD without any IDT.
    shutdown: "push 0", "push 0", "lidt [rsp]", guest::label!("fatal"), "ud2",
        guest::label!("second_life"), guest::label!("second_hlt"), "hlt";

    /// Port 0x80, where the host does its part; then some instructions with names.
    out_then_nops: guest::label!("out_here"), "out 0x80, al", guest::label!("behind_out"), "nop",
        guest::label!("one_more"), "nop", guest::label!("two_more"), "nop", "ret";
    out_then_open: "out 0x80, al", "nop", "sti", guest::label!("shielded"), "nop", guest::label!("opened"), "nop", "cli",
        "ret";
    out_then_halt: "out 0x80, al", "sti", guest::label!("hlt_here"), "hlt", guest::label!("behind_hlt"), "nop", "cli",
        "ret";
    open_then_out: "sti", "nop", "out 0x80, al", guest::label!("behind_open_out"), "nop", "cli", "ret";
    open_window: "nop", "sti", guest::label!("window_shielded"), "nop", guest::label!("window"), "nop", "cli", "ret";
    shielded_cpuid: "sti", guest::label!("cpuid_here"), "cpuid", "cli", "ret";
    two_nops: guest::label!("first"), "nop", guest::label!("second"), "nop", "cli", "ret";
    raise_cr8: "mov eax, 5", "mov cr8, rax", "mov rbx, cr8", "ret";

    /// Changes whatever it can, and exits by CPUID: its stack is not sound any more.
    change_all: "mov rax, cr0", "xor rax, 0x10000", "mov cr0, rax", "mov rax, cr4", "xor rax, 8", "mov cr4, rax",
        "mov eax, 0x2a0", "mov dr7, rax", "xor eax, eax", "mov ds, eax", "mov es, eax",
        "push 0", "push 0x7ff", "lidt [rsp]", "lgdt [rsp]",
        "push 0xad7", "popfq",
        "mov rax, 0x1111", "mov rbx, 0x2222", "mov rcx, 0x3333", "mov rdx, 0x4444", "mov rsi, 0x5555",
        "mov rdi, 0x6666", "mov rbp, 0x7777", "mov rsp, 0x8888", "mov r8, 0x9999", "mov r15, 0xffff",
        guest::label!("all_changed"), "cpuid";
}

fn prepared(code: extern "C" fn()) -> L2 {
    let mut l2 = L2::of_case(code);
    for (name, what) in [
        ("interrupt", Intercept::Interrupt),
        ("nmi", Intercept::Nmi),
        ("hlt", Intercept::Hlt),
        ("shutdown", Intercept::Shutdown),
    ] {
        if arg(name).is_some() {
            l2.intercept(what);
        }
    }
    if let Some(vector) = arg("intercept-vector") {
        l2.intercept(Intercept::Exception(vector as u8));
    }
    l2
}

/// Lets L2 take an exception that L1 injects, so that all that a delivery touches is mapped in the host. A delivery that
/// the host interrupts to map a page is a case of its own.
fn warm_up(l2: &mut L2) {
    let code = l2.get(State::Rip);
    handle(6, Some(count_and_eoi_if_apic));
    l2.go(two_nops);
    l2.inject(event::exception(6), 0, 0);
    l2.run();
    l2.go(two_nops);
    l2.set(State::Rip, code);
    handle(6, None);
    arrivals::forget();
}

/// In L2: tells the exception as its IDT delivers it.
extern "C" fn raise_and_tell() {
    raise::tell(raise);
}

/// GDTR and IDTR, ten bytes each.
fn descriptor_tables() -> [[u8; 10]; 2] {
    let mut tables = [[0; 10]; 2];
    // SAFETY: each instruction writes ten bytes.
    unsafe {
        asm!("sgdt [{}]", "sidt [{}]", in(reg) &raw mut tables[0], in(reg) &raw mut tables[1], options(nostack));
    }
    tables
}

guest::scenario! {
    /// An exception in L2, which L1 intercepts or not.
    fn exception() {
        let mut l2 = prepared(raise_and_tell);
        let exit = l2.run();
        exit.tell_vectoring();
        if let Reason::Exception(vector) = exit.reason {
            value("error", exit.error);
            if vector == 14 {
                value("address", exit.address);
            }
        }
    }

    /// An exception in L2, for whose vector there is no gate.
    fn fault_in_delivery() {
        let mut l2 = prepared(raise_and_tell);
        remove_gate(arg("vector").unwrap_or(13));
        let exit = l2.run();
        // Neither manual says what #DF has interrupted.
        if exit.reason == Reason::Exception(8) { exit.tell() } else { exit.tell_vectoring() }
        value("error", exit.error);
    }

    /// L2 shuts down; L1 runs another.
    fn shutdown_in_l2() {
        prepared(shutdown).run().tell();
        L2::new(two_nops).run().tell();
    }

    /// L1 injects `event` into L2, with `error`, `length` and RFLAGS.IF as `if`, and handles it there.
    fn inject() {
        let mut l2 = prepared(two_nops);
        if arg("warm").is_some() {
            warm_up(&mut l2);
        }
        let event = arg("event").unwrap_or(0);
        handle(event as u8, Some(count_and_eoi_if_apic));
        // SVM takes the address behind the instruction, VMX its length.
        let length = if l2.vmx().is_some() { arg("length").unwrap_or(0) } else { 0 };
        l2.inject(event, arg("error").unwrap_or(0) as u32, length);
        l2.set(State::Rflags, 2 | arg("if").unwrap_or(0) << 9);
        l2.run().tell();
        arrivals::tell();
        value("error", arrivals::error());
        value("still valid", l2.get(State::Injection) >> 31 & 1);
    }

    /// L1 injects an interrupt whose gate is not present.
    fn inject_without_gate() {
        let mut l2 = prepared(two_nops);
        remove_gate(0x41);
        l2.inject(event::interrupt(0x41), 0, 0);
        l2.set(State::Rflags, 0x202);
        let exit = l2.run();
        exit.tell_vectoring();
        value("error", exit.error);
    }

    /// L1 injects an interrupt while its second-level tables miss the IDT, repairs that, and injects again what was
    /// interrupted.
    fn inject_without_idt() {
        let mut l2 = prepared(two_nops);
        l2.nest_pages();
        handle(0x41, Some(count_and_eoi_if_apic));
        let idt = IDT_POINTER.base & !0xfff;
        l2.map_nested(idt, idt, 0);
        l2.inject(event::interrupt(0x41), 0, 0);
        l2.set(State::Rflags, 0x202);
        let exit = l2.run();
        exit.tell_vectoring();
        l2.map_nested(idt, idt, nested::OPEN);
        l2.inject(exit.vectoring, 0, 0);
        l2.run().tell();
        arrivals::tell();
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
        if arg("apic").is_some() {
            apic::enable();
        }
        let exit = l2.run();
        value("count in l2", if exit.reason == Reason::Returned { arrivals::counted() } else { 0 });
        exit.tell();
        arrivals::let_in();
        arrivals::tell();
    }

    /// L1 wants to know when L2 can take an interrupt; with `if`, it can from the start.
    fn interrupt_window() {
        let mut l2 = prepared(two_nops);
        l2.run(); // maps what it touches
        let code = if arg("if").is_some() { two_nops } else { open_window };
        l2.go(code);
        l2.intercept(Intercept::InterruptWindow);
        l2.set(State::Rflags, 2 | arg("if").unwrap_or(0) << 9);
        l2.set(State::Shadow, arg("shadow").unwrap_or(0));
        l2.run().tell();
        l2.pass(Intercept::InterruptWindow);
        l2.run().tell();
    }

    /// L2 exits in the shadow of STI.
    fn shadow_at_exit() {
        let mut l2 = prepared(shielded_cpuid);
        l2.intercept(Intercept::Cpuid);
        l2.run().tell();
        value("shadow", l2.get(State::Shadow) & 1);
        value("if", l2.get(State::Rflags) >> 9 & 1);
    }

    /// L2 raises CR8, which is its own with `own`.
    fn cr8() {
        let mut l2 = prepared(raise_cr8);
        if arg("own").is_some() {
            l2.virtualize_tpr();
        }
        l2.run().tell();
        value("read in l2", l2.regs().rbx);
        value("cr8 of l1", control::read_cr8());
        if arg("own").is_some() {
            value("cr8 of l2", l2.virtual_cr8());
        }
    }

    /// L2 changes every register that it can.
    fn state() {
        let mut l2 = prepared(change_all);
        l2.intercept(Intercept::Cpuid);
        let l1 = [control::read_cr0(), control::read_cr3(), control::read_cr4()];
        let tables = descriptor_tables();
        l2.run().tell();
        guest::check_eq!(control::read_cr0(), l1[0]);
        guest::check_eq!(control::read_cr3(), l1[1]);
        guest::check_eq!(control::read_cr4(), l1[2]);
        let base = |table: [u8; 10]| table[2..].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let now = descriptor_tables();
        guest::check!(now.map(base) == tables.map(base), "GDTR and IDTR are where L1's were");
        value("dr7 of l1", control::read_dr7());
        value("cr0 changed", l2.get(State::Cr0) ^ l1[0]);
        value("cr4 changed", l2.get(State::Cr4) ^ l1[2]);
        value("dr7", l2.get(State::Dr7));
        value("ds", l2.get(State::DsSelector));
        value("idt limit", l2.get(State::IdtLimit));
        value("gdt limit", l2.get(State::GdtLimit));
        value("rflags", l2.get(State::Rflags));
        value("rsp", l2.get(State::Rsp));
        let regs = *l2.regs();
        for (name, register) in [
            ("rax", regs.rax),
            ("rbx", regs.rbx),
            ("rcx", regs.rcx),
            ("rdx", regs.rdx),
            ("rsi", regs.rsi),
            ("rdi", regs.rdi),
            ("rbp", regs.rbp),
            ("r8", regs.r8),
            ("r15", regs.r15),
        ] {
            value(name, register);
        }
    }

    /// L2 does OUT, twice.
    fn l2_stands_at_out() {
        let mut l2 = prepared(out_then_nops);
        l2.run().tell();
        l2.go(out_then_nops);
        l2.run().tell();
    }
}
