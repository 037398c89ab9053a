//! This guest as a hypervisor: exceptions, interrupts and what else comes from outside while L2 runs.
//!
//! Most scenarios take `intercept` and `intercept-too`, exit codes of intercepts to turn on.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "gates are broken on purpose, and registers read")]
guest::payload!();
guest::raises!();

use core::arch::asm;

use guest::arrivals::count_and_eoi_if_apic;
use guest::nested::raise;
use guest::report::value;
use guest::svm::{self, L2, event, exit, field, int_ctl};
use guest::tables::{move_gate, remove_gate};
use guest::{apic, arg, arrivals, code, handle};

code! {
    /// #UD without any IDT.
    shutdown: "push 0", "push 0", "lidt [rsp]", guest::label!("fatal"), "ud2",
        guest::label!("second_life"), guest::label!("second_hlt"), "hlt";

    /// Port 0x80, where the host does its part; then some instructions with names.
    out_then_nops: guest::label!("out_here"), "out 0x80, al", guest::label!("behind_out"), "nop",
        guest::label!("one_more"), "nop", guest::label!("two_more"), "nop", "ret";
    out_then_open: "out 0x80, al", "nop", "sti", guest::label!("shielded"), "nop", guest::label!("open"), "nop", "cli",
        "ret";
    out_then_halt: "out 0x80, al", "sti", "hlt", guest::label!("behind_hlt"), "nop", "cli", "ret";
    open_then_out: "sti", "nop", "out 0x80, al", guest::label!("behind_open_out"), "nop", "cli", "ret";
    halt_open: "sti", "hlt", guest::label!("woken"), "nop", "cli", "ret";
    open_window: "sti", guest::label!("window_shielded"), "nop", guest::label!("window"), "nop", "cli", "ret";
    two_nops: guest::label!("first"), "nop", guest::label!("second"), "nop", "cli", "ret";
}

/// Lets L2 take an interrupt that L1 injects, so that all that a delivery touches is mapped in the host. Vectoring that
/// the host interrupts to map a page is a case of its own.
fn warm_up(l2: &mut L2) {
    handle(0x41, Some(count_and_eoi_if_apic));
    let code = l2.vmcb().get(field::RIP);
    l2.go(two_nops);
    l2.vmcb().set(field::EVENTINJ, event::interrupt(0x41));
    l2.run();
    l2.go(two_nops);
    l2.vmcb().set(field::RIP, code);
    arrivals::forget();
}

/// In L2: tells the exception as its IDT delivers it.
extern "C" fn raise_and_tell() {
    raise::tell(raise);
}

/// OUT to port 0x80, where the host does its part.
fn host_acts() {
    guest::pio::out8(0x80, 0);
}

fn int_ctl_of(l2: &mut L2) -> u64 {
    l2.vmcb().get(field::INT_CTL)
}

guest::scenario! {
    /// An exception in L2, which L1 intercepts or not.
    fn exception() {
        let mut l2 = L2::of_case(raise_and_tell);
        l2.vmcb().set(field::CR2, 0x5555);
        let exit = l2.run();
        exit.tell();
        if exit.code == exit::EXCEPTION + 14 {
            value("info1", exit.info1);
            value("info2", exit.info2);
            value("cr2", l2.vmcb().get(field::CR2));
        }
        if exit.code == exit::EXCEPTION + 13 {
            value("info1", exit.info1);
        }
        value("interrupted", exit.int_info >> 31 & 1);
    }

    /// An exception in L2, whose delivery finds no stack: #PF, then, has a stack of its own. Or, with `no-gate`, no gate.
    fn fault_in_delivery() {
        let mut l2 = L2::of_case(raise_and_tell);
        if arg("no-gate").is_some() {
            remove_gate(arg("vector").unwrap_or(13));
        } else {
            move_gate(14, 4);
            let stack = guest::tables::stack_top(0) - 0x8000;
            // SAFETY: the only users of that page are exceptions.
            let done = unsafe { guest::paging::change(stack, |flags| flags & !guest::paging::Flags::PRESENT) };
            guest::check!(done.is_some());
        }
        let exit = l2.run();
        exit.tell();
        value("info1", exit.info1);
        value("page", exit.info2 & !0xfff);
        value("interrupted", exit.int_info);
    }

    /// L2 shuts down.
    fn shutdown_in_l2() {
        L2::of_case(shutdown).run().tell();
        let mut sound = L2::new(two_nops);
        value("sound", sound.run().code);
    }

    /// L1 injects `event` into L2, and handles `vector` there.
    fn inject() {
        let mut l2 = L2::of_case(two_nops);
        let event = arg("event").unwrap_or(0);
        if arg("warm").is_some() {
            warm_up(&mut l2);
        }
        handle(event as u8, Some(count_and_eoi_if_apic));
        l2.vmcb().set(field::EVENTINJ, event);
        let first = l2.vmcb().get(field::RIP);
        l2.vmcb().set(field::NRIP, first);
        l2.run().tell();
        arrivals::tell();
        value("error", arrivals::error());
        value("still valid", l2.vmcb().get(field::EVENTINJ) >> 31 & 1);
    }

    /// The host acts while L2 stands at an OUT; L2's code is `code`. `masking`: V_INTR_MASKING; `host-if`: L1's IF.
    /// Then L1 opens its interrupt window.
    fn host_event() {
        let mut l2 = L2::of_case(match arg("code") {
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
        if arg("masking").is_some() {
            l2.vmcb().set(field::INT_CTL, int_ctl::MASKING);
        }
        l2.host_interrupts = arg("host-if").is_some();
        let exit = l2.run_and_stay_closed();
        value("count in l2", arrivals::counted());
        exit.tell();
        if arg("stay-closed").is_some() {
            return;
        }
        svm::stgi();
        arrivals::let_in();
        arrivals::tell();
    }

    /// The host makes an interrupt pending while GIF is clear, then L1 runs L2, with an event of its own if `inject`.
    fn pending_at_vmrun() {
        let mut l2 = L2::of_case(two_nops);
        handle(0x41, Some(count_and_eoi_if_apic));
        handle(0x42, Some(count_and_eoi_if_apic));
        apic::enable();
        l2.vmcb().set(field::INT_CTL, int_ctl::MASKING);
        l2.host_interrupts = true;
        if arg("inject").is_some() {
            warm_up(&mut l2);
            l2.vmcb().set(field::EVENTINJ, event::exception(6));
            handle(6, Some(count_and_eoi_if_apic));
        }
        svm::clgi();
        host_acts();
        let exit = l2.run_and_stay_closed();
        value("count in l2", arrivals::counted());
        value("exit", exit.code);
        value("at first", (exit.rip == two_nops as *const () as u64).into());
        value("interrupted", exit.int_info);
        l2.vmcb().set(field::EVENTINJ, exit.int_info);
        svm::stgi();
        arrivals::let_in();
        value("count", arrivals::counted());
        value("exit", l2.run().code);
        arrivals::tell();
    }

    /// The host acts between CLGI and STGI, with L1's IF set.
    fn gif() {
        guest::check!(svm::enable().is_ok());
        handle(0x41, Some(count_and_eoi_if_apic));
        handle(2, Some(count_and_eoi_if_apic));
        if arg("apic").is_some() {
            apic::enable();
        }
        svm::clgi();
        // SAFETY: what arrives has a handler.
        unsafe { asm!("sti", options(nostack)) };
        host_acts();
        host_acts();
        value("closed", arrivals::counted());
        svm::stgi();
        // SAFETY: no effect but time for what is pending to arrive.
        unsafe { asm!("nop", "nop", "cli", options(nostack)) };
        value("open", arrivals::counted());
    }

    /// #VMEXIT, with nothing done about GIF.
    fn gif_after_exit() {
        let mut l2 = L2::of_case(two_nops);
        handle(2, Some(count_and_eoi_if_apic));
        l2.open = arg("open").is_some();
        host_acts();
        let exit = l2.run_and_stay_closed();
        host_acts();
        value("closed", arrivals::counted());
        svm::stgi();
        value("open", arrivals::counted());
        exit.tell();
    }

    /// A virtual interrupt waits from the start.
    fn virtual_interrupt() {
        let mut l2 = L2::of_case(match arg("code") {
            Some(1) => halt_open,
            Some(2) => two_nops,
            _ => open_window,
        });
        warm_up(&mut l2);
        l2.vmcb().set(field::INT_CTL, int_ctl::interrupt(0x41) | int_ctl::MASKING);
        if arg("shadow").is_some() {
            l2.vmcb().set(field::INT_SHADOW, 1);
            l2.vmcb().set(field::RFLAGS, 0x202);
        }
        l2.run().tell();
        arrivals::tell();
        value("still pending", int_ctl_of(&mut l2) >> 8 & 1);
    }

    /// A virtual interrupt of priority 4 waits; V_TPR is 5, then 3.
    fn virtual_priority() {
        let mut l2 = L2::of_case(open_window);
        warm_up(&mut l2);
        let interrupt = int_ctl::interrupt(0x41) & !int_ctl::IGNORE_TPR | int_ctl::MASKING | 4 << 16;
        for v_tpr in [5, 3] {
            l2.vmcb().set(field::INT_CTL, interrupt | v_tpr);
            l2.go(open_window);
            l2.run().tell();
            value("count", arrivals::counted());
            value("still pending", int_ctl_of(&mut l2) >> 8 & 1);
        }
    }
}
