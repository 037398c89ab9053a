//! Exceptions, interrupts and NMIs that the host queues, and how events meet each other. Handlers count, and
//! the host sees them by an exit of their own where the order matters.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "interrupt flag, broken gates and page tables on purpose")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use guest::fault::Frame;
use guest::report::value;
use guest::tables::{IDT_POINTER, load_idt, restore_idt};
use guest::{Fault, apic, arg, catch, control, handle, paging, pio};

/// Two pages that no Rust value lives in, for an IDT that lies across their boundary.
#[repr(C, align(4096))]
struct Pages(UnsafeCell<[u64; 1024]>);

// SAFETY: one scenario at a time uses it, by volatile access.
unsafe impl Sync for Pages {}

#[unsafe(no_mangle)]
static idt_pages: Pages = Pages(UnsafeCell::new([0; 1024]));
const GATES: usize = 32;

/// Bits of a gate's low half (SDM vol. 3, 6.14.1).
const PRESENT: u64 = 1 << 47;
const SELECTOR: u64 = 0xffff << 16;

static NMIS: AtomicU64 = AtomicU64::new(0);
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);
static RETURN: AtomicU64 = AtomicU64::new(0);

/// The NMI handler: an exit while NMIs are masked.
fn nmi(frame: &mut Frame) {
    RETURN.store(frame.rip, Ordering::Relaxed);
    pio::out8(0x80, NMIS.fetch_add(1, Ordering::Relaxed) as u8 + 1);
}

fn interrupt(frame: &mut Frame) {
    RETURN.store(frame.rip, Ordering::Relaxed);
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
}

fn interrupt_from_apic(frame: &mut Frame) {
    interrupt(frame);
    apic::eoi();
}

/// HLT with interrupts off.
#[unsafe(naked)]
extern "C" fn halt() {
    naked_asm!(guest::label!("halt_here"), "hlt", guest::label!("halted"), "nop", "ret")
}

/// HLT with interrupts on, from STI's shadow.
#[unsafe(naked)]
extern "C" fn halt_interruptible() {
    naked_asm!(
        "sti",
        "hlt",
        guest::label!("shadowed"),
        "nop",
        guest::label!("in_the_open"),
        "nop",
        "cli",
        "ret"
    )
}

/// STI, one instruction in its shadow, and then none.
#[unsafe(naked)]
extern "C" fn open_window() {
    naked_asm!(
        "mov edx, 0x80",
        "out dx, al", // where the host asks for the window
        "nop",
        "sti",
        guest::label!("in_shadow"),
        "nop",
        guest::label!("behind_shadow"),
        "nop",
        "nop",
        "cli",
        "ret",
    )
}

/// POPF that sets IF: no shadow.
#[unsafe(naked)]
extern "C" fn open_window_by_popf() {
    naked_asm!(
        "mov edx, 0x80",
        "out dx, al", // where the host asks for the window
        "nop",
        "push 0x202",
        "popfq",
        guest::label!("behind_popf"),
        "nop",
        "nop",
        "cli",
        "ret",
    )
}

/// STI and CLI at once: the window never opens.
#[unsafe(naked)]
extern "C" fn never_open() {
    naked_asm!(
        "mov edx, 0x80",
        "out dx, al", // where the host asks for the window
        "sti",
        "cli",
        "nop",
        "sti",
        "cli",
        "nop",
        "out dx, al",
        "ret",
    )
}

/// IRETQ to its own next instruction, which ends the blocking of NMIs.
#[unsafe(naked)]
extern "C" fn unblock_nmis() {
    naked_asm!(
        "mov edx, 0x81",
        "out dx, al", // still blocked
        "mov rax, rsp",
        "mov ecx, ss",
        "push rcx",
        "push rax",
        "pushfq",
        "mov ecx, cs",
        "push rcx",
        "lea rcx, [rip + nmis_unblocked]",
        "push rcx",
        "iretq",
        guest::label!("nmis_unblocked"),
        "nop",
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn undefined() {
    naked_asm!(guest::label!("undefined_here"), "ud2", "ret")
}

/// #GP by a non-canonical address.
#[unsafe(naked)]
extern "C" fn not_canonical() {
    naked_asm!(
        "mov rax, 1",
        "shl rax, 63",
        guest::label!("not_canonical_here"),
        "mov byte ptr [rax], 1",
        "ret"
    )
}

/// #PF.
#[unsafe(naked)]
extern "C" fn not_mapped() {
    naked_asm!("mov eax, 0xdead0000", guest::label!("not_mapped_here"), "mov byte ptr [rax], 1", "ret")
}

fn state(fault: Result<(), Fault>) {
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

/// Copies the runtime's first gates to [`idt_pages`] so that gate `first_of_second` begins the second page.
fn split_table(first_of_second: usize) -> *mut u64 {
    // SAFETY: `first_of_second` is below `GATES`, so the table lies within the two pages.
    let table = unsafe { idt_pages.0.get().cast::<u64>().add(512 - 2 * first_of_second) };
    for word in 0..2 * GATES {
        // SAFETY: both tables have that many words; the CPU only reads them.
        unsafe { table.add(word).write_volatile((IDT_POINTER.base as *const u64).add(word).read_volatile()) };
    }
    table
}

fn clear_in_gate(table: *mut u64, vector: usize, bits: u64) {
    // SAFETY: `vector` is below `GATES` at every call.
    unsafe {
        let gate = table.add(2 * vector);
        gate.write_volatile(gate.read_volatile() & !bits);
    }
}

/// Makes one of [`idt_pages`] present or not.
fn present(page: u64, present: bool) {
    let address = idt_pages.0.get() as u64 + 4096 * page;
    // SAFETY: no Rust value lives in these pages.
    let changed = unsafe {
        paging::change(address, |flags| {
            if present { flags | paging::Flags::PRESENT } else { flags - paging::Flags::PRESENT }
        })
    };
    guest::check!(changed.is_some(), "the IDT's pages are 4 KiB pages");
}

/// Raises a fault with `table` as IDT, of which page `hidden` is not mapped, and says what came of it.
fn collide(table: *mut u64, hidden: Option<u64>, fault: extern "C" fn()) {
    if let Some(page) = hidden {
        present(page, false);
    }
    // SAFETY: clears a register that a page fault sets.
    let _ = control::write_cr2(0);
    let result = catch(|| {
        // SAFETY: the vectors that arrive have gates, which is the scenario's point.
        unsafe { load_idt(16 * GATES as u16 - 1, table as u64) };
        fault();
    });
    restore_idt();
    state(result);
    if let Some(page) = hidden {
        present(page, true);
    }
}

guest::scenario! {
    /// HLT, where the host queues an exception; what it was.
    fn exception() {
        state(catch(|| halt()));
    }

    /// HLT, where the host queues NMIs; how often the handler ran, and where the first returned to.
    fn nmis() {
        handle(2, Some(nmi));
        halt();
        value("nmis", NMIS.load(Ordering::Relaxed));
        value("return", RETURN.load(Ordering::Relaxed));
    }

    /// HLT, where the host masks NMIs; then IRETQ.
    fn masked_nmi() {
        handle(2, Some(nmi));
        halt();
        value("masked", NMIS.load(Ordering::Relaxed));
        unblock_nmis();
        value("unmasked", NMIS.load(Ordering::Relaxed));
        value("return", RETURN.load(Ordering::Relaxed));
    }

    /// HLT with IF = 1; how often the handler of vector 0x40 ran, and where it returned to.
    fn halt_and_wait() {
        handle(0x40, Some(interrupt));
        halt_interruptible();
        value("interrupts", INTERRUPTS.load(Ordering::Relaxed));
        value("return", RETURN.load(Ordering::Relaxed));
    }

    /// The interrupt window by STI, or by POPF if `popf`.
    fn window() {
        handle(0x40, Some(interrupt));
        if arg("popf").is_some() {
            open_window_by_popf();
        } else {
            open_window();
        }
        value("interrupts", INTERRUPTS.load(Ordering::Relaxed));
        value("return", RETURN.load(Ordering::Relaxed));
    }

    /// IF = 1 until the handler of vector 0x40 has run.
    fn wait_for_interrupt() {
        handle(0x40, Some(interrupt));
        pio::out8(0x80, 0);
        // SAFETY: the only vector that can arrive has a handler.
        unsafe { asm!("sti", options(nomem, nostack)) };
        while INTERRUPTS.load(Ordering::Relaxed) == 0 {
            core::hint::spin_loop();
        }
        // SAFETY: as it was before.
        unsafe { asm!("cli", options(nomem, nostack)) };
        value("interrupts", INTERRUPTS.load(Ordering::Relaxed));
    }

    /// As `nmis`, but it waits until the handler has run twice, and then for as long as one too many might take.
    fn wait_for_two_nmis() {
        handle(2, Some(nmi));
        halt();
        while NMIS.load(Ordering::Relaxed) < 2 {
            core::hint::spin_loop();
        }
        for _ in 0..2000 {
            core::hint::spin_loop();
        }
        value("nmis", NMIS.load(Ordering::Relaxed));
    }

    /// The interrupt window that never opens.
    fn no_window() {
        never_open();
    }

    /// HLT with an in-kernel local APIC and a pending interrupt, from STI's shadow.
    fn halt_wakes() {
        handle(0x40, Some(interrupt_from_apic));
        apic::enable();
        if arg("self").is_some() {
            apic::send_self(0x40);
        } else {
            value("ready", 1);
        }
        halt_interruptible();
        value("interrupts", INTERRUPTS.load(Ordering::Relaxed));
        value("return", RETURN.load(Ordering::Relaxed));
    }

    /// Benign, then contributory: #UD whose gate is not present.
    fn benign_then_contributory() {
        let table = split_table(0);
        clear_in_gate(table, 6, PRESENT);
        collide(table, None, undefined);
    }

    /// Contributory twice: #GP whose gate is not present, hence #NP, whose gate names no segment.
    fn contributory_twice() {
        let table = split_table(0);
        clear_in_gate(table, 13, PRESENT);
        clear_in_gate(table, 11, SELECTOR);
        collide(table, None, not_canonical);
    }

    /// #UD, #NP, #GP: benign first, so that #DF comes only with the third.
    fn benign_then_contributory_twice() {
        let table = split_table(0);
        clear_in_gate(table, 6, PRESENT);
        clear_in_gate(table, 11, SELECTOR);
        collide(table, None, undefined);
    }

    /// Page fault, then contributory.
    fn page_fault_then_contributory() {
        let table = split_table(0);
        clear_in_gate(table, 14, PRESENT);
        collide(table, None, not_mapped);
    }

    /// Page fault, then another: #PF's gate is not mapped, #DF's is.
    fn page_fault_twice() {
        collide(split_table(9), Some(1), not_mapped);
    }

    /// Contributory, then page fault: #GP's gate is not mapped, #PF's is.
    fn contributory_then_page_fault() {
        collide(split_table(14), Some(0), not_canonical);
    }

    /// Benign, then page fault: #UD's gate is not mapped, #PF's is.
    fn benign_then_page_fault() {
        collide(split_table(14), Some(0), undefined);
    }
}
