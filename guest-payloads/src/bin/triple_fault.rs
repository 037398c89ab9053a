//! Roads into shutdown, and faults that look like one and are none. Every scenario reports `armed` right
//! before it sets out, so that a shutdown on the way there is not taken for the one that is meant.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "broken descriptor tables, stacks and page tables on purpose")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use guest::report::value;
use guest::tables::{IDT_POINTER, load_idt, restore_idt};
use guest::{apic, arg, catch, control, protected_mode, real_mode, ring3, smp};

/// A page that no Rust value lives in.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; 512]>);

// SAFETY: one scenario at a time uses it, by volatile access.
unsafe impl Sync for Page {}

/// An IDT of 32 gates to break; also the page of zeros of which CR3 makes a top-level table.
static TABLE: Page = Page(UnsafeCell::new([0; 512]));
const GATES: usize = 32;

/// Set by the host.
#[unsafe(no_mangle)]
static go_on: AtomicU64 = AtomicU64::new(0);

fn table() -> *mut u64 {
    TABLE.0.get().cast()
}

/// Copies the runtime's first gates to [`TABLE`].
fn copy_gates() {
    for word in 0..2 * GATES {
        // SAFETY: both tables have that many words; the CPU only reads them.
        unsafe {
            table().add(word).write_volatile((IDT_POINTER.base as *const u64).add(word).read_volatile());
        };
    }
}

/// Clears bits of the low half of a gate in [`TABLE`].
fn clear_in_gate(vector: usize, bits: u64) {
    // SAFETY: `vector` is below `GATES` at every call.
    unsafe {
        let gate = table().add(2 * vector);
        gate.write_volatile(gate.read_volatile() & !bits);
    }
}

/// Bits of a gate's low half (SDM vol. 3, 6.14.1).
const PRESENT: u64 = 1 << 47;
const IST: u64 = 7 << 32;

/// Reports that all is prepared, then loads an IDT.
fn arm(limit: u16, base: u64) {
    value("armed", 1);
    // SAFETY: what becomes of the next fault is the point of every scenario here.
    unsafe { load_idt(limit, base) };
}

/// Arms an IDT of limit 0. Behind its limit lie good gates: whoever reads them delivers the fault.
fn arm_nothing() {
    arm(0, IDT_POINTER.base);
}

fn arm_table() {
    arm(16 * GATES as u16 - 1, table() as u64);
}

/// Raises #UD. What follows is where a second life starts, with the machine's start state.
#[unsafe(naked)]
extern "C" fn undefined() {
    naked_asm!(
        guest::label!("fatal"),
        "ud2",
        "ret",
        guest::label!("second_life"),
        "call {reborn}",
        reborn = sym reborn,
    )
}

extern "C" fn reborn() -> ! {
    value("reborn", 1);
    guest::report::done();
    guest::entry::stop()
}

/// Raises #UD on a stack of the scenario's choice.
#[unsafe(naked)]
extern "C" fn undefined_on(stack: u64) {
    naked_asm!("mov rsp, rdi", guest::label!("fatal_on_bad_stack"), "ud2")
}

/// Loads CR3; the next instruction is no longer mapped.
#[unsafe(naked)]
extern "C" fn load_cr3(table: u64) {
    naked_asm!("mov cr3, rdi", guest::label!("unmapped_here"), "out 0x80, al", "ret")
}

#[unsafe(naked)]
extern "C" fn halt() {
    naked_asm!(guest::label!("halt_here"), "hlt", "ret")
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

#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_undefined() {
    naked_asm!(guest::label!("user_fatal"), "ud2")
}

fn ap_dies() {
    arm_nothing();
    undefined();
}

real_mode! {
    /// #UD with an interrupt vector table of limit 0. In memory beyond the limit there is a vector, which
    /// leads to HLT.
    real_no_vectors:
    "mov word ptr [0x18], offset real_beyond_limit",
    "mov word ptr [0x1a], 0",
    "out 0x80, al",
    "lidt [real_no_vectors_pointer]",
    ".globl real_fatal",
    "real_fatal: ud2",
    "real_beyond_limit: hlt",
    "real_no_vectors_pointer: .word 0, 0, 0"
}

real_mode! {
    /// #UD through a vector that leads to a handler.
    real_handled:
    "mov word ptr [0x18], offset real_handler",
    "mov word ptr [0x1a], 0",
    ".globl real_handled_fatal",
    "real_handled_fatal: ud2",
    "real_handler: pop bx",
    "hlt"
}

protected_mode! {
    /// #UD in 32-bit protected mode, whose IDT has limit 0 from the start.
    protected_no_idt:
    "out 0x80, al",
    ".globl protected_fatal",
    "protected_fatal: ud2",
    "hlt"
}

guest::scenario! {
    /// #UD without any IDT; if the host repairs it, #UD is handled.
    fn no_idt() {
        let fault = catch(|| {
            arm_nothing();
            undefined();
        });
        value("vector", fault.map_or_else(|fault| fault.vector, |()| 0));
    }

    /// #UD, #NP and #DF all find gates that are not present.
    fn gates_absent() {
        copy_gates();
        for vector in 0..GATES {
            clear_in_gate(vector, PRESENT);
        }
        arm_table();
        undefined();
    }

    /// All gates are good but for those of #GP and #DF.
    fn double_fault_gate_absent() {
        copy_gates();
        clear_in_gate(13, PRESENT);
        clear_in_gate(8, PRESENT);
        arm_table();
        not_canonical();
    }

    /// Only #GP's gate is not present: its delivery raises #NP, and the two merge into #DF.
    fn double_fault_handled() {
        copy_gates();
        clear_in_gate(13, PRESENT);
        clear_in_gate(11, PRESENT);
        let fault = catch(|| {
            arm_table();
            not_canonical();
        });
        restore_idt();
        value("vector", fault.map_or_else(|fault| fault.vector, |()| 0));
        value("error", fault.map_or_else(|fault| fault.error, |()| 0));
    }

    /// #UD on the stack `stack`, where all gates stay on the stack of the fault but, if `df_ist`, that of #DF.
    fn bad_stack() {
        let stack = arg("stack").unwrap_or(0);
        copy_gates();
        for vector in 0..GATES {
            if vector != 8 || arg("df_ist").is_none() {
                clear_in_gate(vector, IST);
            }
        }
        let fault = catch(|| {
            arm_table();
            undefined_on(stack);
        });
        restore_idt();
        value("vector", fault.map_or_else(|fault| fault.vector, |()| 0));
    }

    /// CR3 names a page of zeros: the next fetch faults, and so does every attempt to deliver that.
    fn no_page_tables() {
        value("armed", 1);
        load_cr3(table() as u64);
    }

    /// #UD at CPL 3 without any IDT.
    fn from_ring3() {
        arm_nothing();
        ring3::run(user_undefined);
    }

    /// Halts without any IDT: the host does the rest.
    fn halt_without_idt() {
        arm_nothing();
        halt();
        restore_idt();
        value("survived", 1);
    }

    /// Halts with an IDT that is good but for #DF's gate: the host does the rest.
    fn halt_without_double_fault_gate() {
        copy_gates();
        clear_in_gate(8, PRESENT);
        let fault = catch(|| {
            arm_table();
            halt();
        });
        restore_idt();
        value("vector", fault.map_or_else(|fault| fault.vector, |()| 0));
    }

    /// A second CPU dies; this one waits for the host's word and goes on.
    fn second_cpu() {
        apic::enable();
        smp::start(1, ap_dies);
        // No interrupt comes, but a hypervisor below this one may preempt only those who would take one.
        // SAFETY: nothing in this VM raises an interrupt.
        unsafe { asm!("sti", options(nomem, nostack)) };
        while go_on.load(Ordering::Acquire) == 0 {
            core::hint::spin_loop();
        }
        // SAFETY: as it was before.
        unsafe { asm!("cli", options(nomem, nostack)) };
        value("finished", smp::finished(1).into());
    }

    /// #UD that is handled, over and over, and page faults in between.
    fn handled_faults() {
        let mut handled = 0;
        for _ in 0..8 {
            handled += u64::from(catch(|| undefined()).is_err_and(|fault| fault.vector == 6));
            // SAFETY: nothing is mapped there; the fault is the point.
            let fault = catch(|| unsafe { guest::mmio::write8(0xdead_0000, 1) });
            handled += u64::from(fault.is_err_and(|fault| fault.vector == 14));
        }
        value("handled", handled);
        value("cr2", control::read_cr2());
    }
}
