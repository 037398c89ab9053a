//! The runtime tests itself: each scenario uses one of its promises, and the manifest states the result.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "faults and page-table edits on purpose")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use guest::fault::Frame;
use guest::report::{progress, value};
use guest::{apic, arg, catch, check, check_eq, control, handle, label, mmio, paging, physical, ring3, smp};

/// UD2, whose address has a name.
#[unsafe(naked)]
extern "C" fn undefined() {
    naked_asm!(label!("undefined_here"), "ud2", "ret")
}

fn ud2() {
    undefined();
}

/// Handles #UD, and takes a fault of its own on the same interrupt stack meanwhile.
fn skip_ud2(frame: &mut Frame) {
    // SAFETY: nothing is mapped there; the fault is the point.
    let fault = catch(|| unsafe { mmio::write8(0xdead_0000, 1) });
    COUNT.fetch_add(u64::from(fault.is_err_and(|fault| fault.vector == 14)), Ordering::Relaxed);
    frame.rip += 2;
}

/// The next multiple of 4 KiB of a stretch that nobody else uses.
#[repr(C, align(4096))]
struct Page(core::cell::UnsafeCell<[u64; 512]>);

// SAFETY: one scenario at a time uses it, by volatile access.
unsafe impl Sync for Page {}

static PAGE: Page = Page(core::cell::UnsafeCell::new([0x11; 512]));

static COUNT: AtomicU64 = AtomicU64::new(0);

fn count(_: &mut Frame) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    apic::eoi();
}

fn self_ipi() {
    handle(0x40, Some(count));
    // SAFETY: the vectors that can arrive have handlers.
    unsafe { asm!("sti", options(nomem, nostack)) };
    apic::send_self(0x40);
    let mut patience = 1000;
    while COUNT.load(Ordering::Relaxed) == 0 && patience > 0 {
        patience -= 1;
        core::hint::spin_loop();
    }
    // SAFETY: as it was before.
    unsafe { asm!("cli", options(nomem, nostack)) };
    value("interrupts", COUNT.load(Ordering::Relaxed));
}

fn ap_work() {
    value("cpu", guest::tables::cpu() as u64);
    let fault = catch(ud2);
    value("vector", fault.map_or_else(|fault| fault.vector, |()| 0));
}

#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_halts() {
    naked_asm!(label!("user_hlt"), "hlt")
}

guest::scenario! {
    /// Returns at once.
    fn done() {}

    /// Says things.
    fn values() {
        progress("first a note");
        value("answer", 42);
        value("argument", arg("number").unwrap_or(0));
        value("no such argument", arg("absent").map_or(1, |_| 0));
    }

    /// An assertion that does not hold.
    fn check_fails() {
        check!(true);
        check_eq!(1 + 1, 2);
        check_eq!(2 + 2, 5, "arithmetic");
    }

    /// A panic with a formatted message.
    fn panics() {
        panic!("number {} of {:#x}", 7, 0xabcd);
    }

    /// An exception that nobody asked for.
    fn unexpected_fault() {
        ud2();
    }

    /// #UD as a value, with the address of the instruction.
    fn catch_ud() {
        match catch(ud2) {
            Ok(()) => value("no fault", 0),
            Err(fault) => {
                value("vector", fault.vector);
                value("rip", fault.rip);
            }
        }
    }

    /// #PF as a value: the guard page below the stack is not mapped.
    fn catch_pf() {
        let address = 0xdead_0000_u64;
        // SAFETY: nothing is mapped there; the fault is the point.
        let fault = catch(|| unsafe { mmio::write8(address, 1) });
        match fault {
            Ok(()) => value("no fault", 0),
            Err(fault) => {
                value("vector", fault.vector);
                value("error", fault.error);
                value("cr2", fault.cr2);
            }
        }
    }

    /// #DF as a value: #UD's gate lies beyond the limit of the IDT, so its delivery is a #GP, whose own
    /// delivery works; with a stack that is not canonical and no gate for #SS it is a double fault.
    fn catch_df() {
        // A limit that holds vectors 0 to 8: #UD is delivered, and everything from 9 on is not.
        // SAFETY: the faults go through the vectors that the limit keeps.
        unsafe { guest::tables::load_idt(9 * 16 - 1, guest::tables::IDT_POINTER.base) };
        // SAFETY: a #GP by a non-canonical address: its vector 13 is beyond the limit, a second #GP: #DF.
        let fault = catch(|| unsafe { mmio::write8(0x8000_0000_0000_0000, 1) });
        guest::tables::restore_idt();
        value("vector", fault.map_or_else(|fault| fault.vector, |()| 0));
    }

    /// #GP of a read of an MSR that does not exist.
    fn catch_gp_msr() {
        let fault = control::read_msr(0x4000_dead);
        value("vector", fault.map_or_else(|fault| fault.vector, |_| 0));
    }

    /// A fault inside a closure that is inside another that faults too.
    fn nested_catch() {
        let outer = catch(|| {
            let inner = catch(ud2);
            value("inner", inner.map_or_else(|fault| fault.vector, |()| 0));
            // SAFETY: nothing is mapped there; the fault is the point.
            unsafe { mmio::write8(0xdead_0000, 1) };
        });
        value("outer", outer.map_or_else(|fault| fault.vector, |()| 0));
        value("none", catch(|| 5).unwrap_or(0));
    }

    /// A fault inside the handler of another, three times.
    fn fault_in_handler() {
        handle(6, Some(skip_ud2));
        for _ in 0..3 {
            undefined();
        }
        value("handled", COUNT.load(Ordering::Relaxed));
    }

    /// A self-IPI through the xAPIC's page.
    fn interrupt_xapic() {
        apic::enable();
        self_ipi();
    }

    /// A self-IPI through the x2APIC's MSRs.
    fn interrupt_x2apic() {
        check!(apic::enable_x2apic().is_ok());
        self_ipi();
    }

    /// An application processor runs Rust, reports and catches faults.
    fn ap_start() {
        apic::enable();
        smp::start(1, ap_work);
        while !smp::finished(1) {
            core::hint::spin_loop();
        }
    }

    /// HLT in ring 3 is a #GP there.
    fn ring3_faults() {
        match ring3::run(user_halts) {
            None => value("no fault", 0),
            Some(fault) => {
                value("vector", fault.vector);
                value("rip", fault.rip);
                value("privilege", fault.cs & 3);
            }
        }
    }

    /// A page becomes read-only and another frame.
    fn page_edit() {
        let address = PAGE.0.get() as u64;
        // SAFETY: the page holds no Rust value that anybody relies on.
        unsafe {
            check!(paging::change(address, |flags| flags & !paging::Flags::WRITABLE).is_some());
            let fault = catch(|| mmio::write8(address, 1));
            value("error", fault.map_or_else(|fault| fault.error, |()| 0));
            check!(paging::redirect(address, 0x1000).is_some());
            mmio::write64(physical::<u8>(0x1000) as u64, 0x5ca1_ab1e);
            value("redirected", mmio::read64(address));
        }
    }
}

guest::real_mode! {
    /// Halts in real mode.
    real_hlt: "mov ax, 0x1234", "hlt", "jmp real_hlt"
}

guest::protected_mode! {
    /// Halts in protected mode.
    protected_hlt: "mov eax, 0x12345678", "hlt", "jmp protected_hlt"
}

fn handler_that_faults(_: &mut Frame) {
    // SAFETY: nothing is mapped there; the fault is the point.
    unsafe { mmio::write8(0xdead_0000, 1) };
}

guest::scenario! {
    /// A fault in a handler ends a `catch` around both, again and again.
    fn faults_leave_handlers() {
        handle(6, Some(handler_that_faults));
        let caught = (0..16).filter(|_| catch(ud2).is_err_and(|fault| fault.vector == 14)).count();
        value("caught", caught as u64);
    }
}

guest::scenario! {
    /// Never exits, with interrupts off.
    fn spins() {
        // SAFETY: nothing waits for an interrupt.
        unsafe { asm!("cli", "2:", "jmp 2b", options(noreturn)) }
    }

    /// Halts for ever: with an in-kernel local APIC, HLT does not exit.
    fn halts() {
        guest::entry::stop()
    }

    /// Says the same thing without end.
    fn floods() {
        loop {
            progress("again");
        }
    }

    /// Announces reports where none are.
    fn lies() {
        guest::pio::out32(guest::protocol::REPORT_PORT, 0xffff_ff00);
    }
}
