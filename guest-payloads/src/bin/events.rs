//! Exceptions, NMIs and interrupts that the host injects, or that meet each other on the way in.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "gates and stacks are broken on purpose")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use guest::arrivals::{self, count, count_and_eoi, counted};
use guest::fault::{Frame, unblock_nmis};
use guest::report::value;
use guest::tables::{IDT_POINTER, move_gate, remove_gate};
use guest::{Fault, apic, arg, catch, handle, mmio, paging};

/// HLT, whose address has a name. Without an in-kernel local APIC it exits.
#[unsafe(naked)]
extern "C" fn halt() {
    naked_asm!(guest::label!("hlt_here"), "hlt", guest::label!("behind_hlt"), "ret")
}

/// STI, and the one instruction that it shields.
#[unsafe(naked)]
extern "C" fn open_window() {
    naked_asm!("sti", guest::label!("shielded"), "nop", guest::label!("window"), "nop", "cli", "ret")
}

/// POPF that sets IF: it shields nothing.
#[unsafe(naked)]
extern "C" fn open_window_by_popf() {
    naked_asm!("push 0x202", "popfq", guest::label!("popped"), "nop", "nop", "cli", "ret")
}

/// STI and CLI at once, twice: the window never opens.
#[unsafe(naked)]
extern "C" fn never_open_window() {
    naked_asm!("sti", "cli", "nop", "sti", "cli", "ret")
}

/// HLT right behind STI, with single instructions behind it.
#[unsafe(naked)]
extern "C" fn halt_shielded() {
    naked_asm!(
        "sti",
        "hlt",
        guest::label!("woken"),
        "nop",
        guest::label!("woken_and_one"),
        "nop",
        "cli",
        "ret"
    )
}

static DURING: AtomicU64 = AtomicU64::new(0);

/// Counts, and halts in the first one: the host does its part there.
fn count_and_halt(frame: &mut Frame) {
    arrivals::count(frame);
    if counted() == 1 {
        halt();
        DURING.store(counted(), Ordering::Relaxed);
    }
}

fn tell(fault: Result<(), Fault>) {
    match fault {
        Ok(()) => value("no fault", 0),
        Err(fault) => {
            value("vector", fault.vector);
            value("error", fault.error);
            value("rip", fault.rip);
            value("cr2", fault.cr2);
        }
    }
}

/// Makes a vector's gate lead to no segment, so that its delivery raises #GP.
fn spoil_gate(vector: u64) {
    let low = IDT_POINTER.base + 16 * vector;
    // SAFETY: as above; the selector is bits 31:16 of the first word.
    unsafe { mmio::write32(low, mmio::read32(low) & 0xffff) };
}

/// Unmaps the stack that all exceptions use but #DF, NMI and those whose gate was moved.
fn unmap_exception_stack() {
    // Interrupt stacks of CPU 0 begin here; the first is that of ordinary exceptions.
    let stack = guest::tables::stack_top(0) - 0x8000;
    // SAFETY: the only users of that page are exceptions.
    let done = unsafe { paging::change(stack, |flags| flags & !paging::Flags::PRESENT) };
    value("unmapped", done.is_some().into());
}

fn ud2() {
    // SAFETY: the fault is the point.
    unsafe { asm!("ud2", options(nomem, nostack)) };
}

fn not_canonical() {
    // SAFETY: the fault is the point.
    unsafe { mmio::write8(0x8000_0000_0000_0000, 1) };
}

fn not_mapped() {
    // SAFETY: nothing is mapped there; the fault is the point.
    unsafe { mmio::write8(0xdead_0000, 1) };
}

fn vector_of(work: fn()) {
    match catch(work) {
        Ok(()) => value("no fault", 0),
        Err(fault) => {
            value("vector", fault.vector);
            value("error", fault.error);
        }
    }
}

guest::scenario! {
    /// Halts, and tells which exception ended that.
    fn halt_and_tell() {
        tell(catch(|| halt()));
    }

    /// Halts in the NMI's handler.
    fn nmi_in_nmi() {
        handle(2, Some(count_and_halt));
        halt();
        value("during the first", DURING.load(Ordering::Relaxed));
        value("after both", counted());
    }

    /// Opens the interrupt window once.
    fn window() {
        handle(0x41, Some(count));
        guest::pio::out8(0x80, 1);
        open_window();
        value("interrupts", counted());
    }

    /// Keeps the interrupt window open until an interrupt came.
    fn long_window() {
        handle(0x41, Some(count));
        guest::pio::out8(0x80, 1);
        // SAFETY: the one vector that can arrive has a handler.
        unsafe { asm!("sti", options(nomem, nostack)) };
        while counted() == 0 {
            core::hint::spin_loop();
        }
        value("interrupts", counted());
    }

    /// Halts with interrupts on.
    fn halt_for_interrupt() {
        handle(0x41, Some(count));
        // SAFETY: the one vector that can arrive has a handler.
        unsafe { asm!("sti", options(nomem, nostack)) };
        halt();
        value("interrupts", counted());
        // An interrupt that KVM forgot to forget comes again at the entry behind that report.
        value("interrupts", counted());
    }

    /// #UD, whose gate is not present.
    fn benign_then_contributory() {
        remove_gate(6);
        vector_of(ud2);
    }

    /// #GP, whose gate is not present.
    fn contributory_then_contributory() {
        remove_gate(13);
        vector_of(not_canonical);
    }

    /// #PF, whose gate is not present.
    fn page_fault_then_contributory() {
        remove_gate(14);
        vector_of(not_mapped);
    }

    /// #GP, whose stack is not mapped; #PF has another stack.
    fn contributory_then_page_fault() {
        move_gate(14, 4);
        unmap_exception_stack();
        vector_of(not_canonical);
    }

    /// #UD, #NP, #GP, each in the delivery of the one before.
    fn benign_then_contributory_twice() {
        remove_gate(6);
        spoil_gate(11);
        vector_of(ud2);
    }

    /// #UD, whose stack is not mapped; #PF has another stack.
    fn benign_then_page_fault() {
        move_gate(14, 4);
        unmap_exception_stack();
        vector_of(ud2);
    }

    /// #PF, whose stack is not mapped. Tells the page that CR2 names.
    fn page_fault_twice() {
        unmap_exception_stack();
        match catch(not_mapped) {
            Ok(()) => value("no fault", 0),
            Err(fault) => {
                value("vector", fault.vector);
                value("error", fault.error);
                value("page", fault.cr2 & !0xfff);
            }
        }
    }

    /// Halts, then unblocks NMIs.
    fn blocked_nmi() {
        handle(2, Some(count));
        halt();
        value("blocked", counted());
        unblock_nmis();
        arrivals::tell();
    }

    /// Opens the interrupt window once by POPF.
    fn window_by_popf() {
        handle(0x41, Some(count));
        guest::pio::out8(0x80, 1);
        open_window_by_popf();
        arrivals::tell();
    }

    /// Opens the interrupt window never.
    fn no_window() {
        guest::pio::out8(0x80, 1);
        never_open_window();
        guest::pio::out8(0x80, 2);
    }

    /// Halts behind STI, and runs on with interrupts on for two instructions.
    fn halt_behind_sti() {
        handle(0x41, Some(count));
        halt_shielded();
        arrivals::tell();
    }

    /// Halts behind STI with a local APIC, whose interrupt is pending already if `pending`.
    fn halt_with_apic() {
        handle(0x41, Some(count_and_eoi));
        apic::enable();
        if arg("pending").is_some() {
            apic::send_self(0x41);
        } else {
            value("ready", 1);
        }
        halt_shielded();
        arrivals::tell();
    }
}
