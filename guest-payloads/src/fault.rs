//! Faults as values: run a closure, get its result or the exception that it took.
//!
//! Every vector is recoverable, #DF and NMI included: the handler rewrites the interrupted frame to
//! return, by IRETQ, to where [`catch`] was entered. A vector with a handler of its own
//! ([`handle`]) resumes instead. An exception that nobody asked for is reported and ends the guest.
#![expect(unsafe_code, reason = "exception frames and a return across functions")]

use core::arch::{global_asm, naked_asm};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::tables::{self, CPUS, KERNEL_CS, KERNEL_DS};
use crate::{control, entry, report};

/// An exception or interrupt, as the CPU delivered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fault {
    /// Vector.
    pub vector: u64,
    /// Error code; 0 for vectors without one.
    pub error: u64,
    /// Return address on the stack.
    pub rip: u64,
    /// CS on the stack: its low two bits are the interrupted privilege level.
    pub cs: u64,
    /// RFLAGS on the stack.
    pub rflags: u64,
    /// RSP on the stack.
    pub rsp: u64,
    /// CR2 when the handler began.
    pub cr2: u64,
}

/// The interrupted state; changes to it take effect when the handler returns.
#[derive(Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "register names")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

// A stub of 16 bytes for each vector (the IDT counts on it), then what all share.
global_asm!(
    ".pushsection .text.exception_stubs, \"ax\", @progbits",
    ".globl exception_stubs",
    ".balign 4096",
    "exception_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16, 0xcc",
    // These push an error code themselves (SDM vol. 3, table 6-1).
    ".if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)",
    ".else",
    "pushq $0",
    ".endif",
    "pushq $vector",
    "jmp exception_common",
    ".set vector, vector + 1",
    ".endr",
    ".balign 16, 0xcc",
    ".globl exception_stubs_end",
    "exception_stubs_end:",
    "exception_common:",
    "pushq %rax; pushq %rbx; pushq %rcx; pushq %rdx; pushq %rsi; pushq %rdi; pushq %rbp",
    "pushq %r8; pushq %r9; pushq %r10; pushq %r11; pushq %r12; pushq %r13; pushq %r14; pushq %r15",
    "cld",
    "movq %rsp, %rdi",
    "call {dispatch}",
    "popq %r15; popq %r14; popq %r13; popq %r12; popq %r11; popq %r10; popq %r9; popq %r8",
    "popq %rbp; popq %rdi; popq %rsi; popq %rdx; popq %rcx; popq %rbx; popq %rax",
    "addq $16, %rsp",
    "iretq",
    ".popsection",
    dispatch = sym dispatch,
    options(att_syntax),
);

/// Bytes of its interrupt stack that a handler may use; of the 4 KiB, two more levels fit below.
const HANDLER_STACK: u64 = 0x600;

/// Per CPU: the stack pointer of the innermost [`catch`], 0 outside of any.
static CATCHING: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
static CAUGHT: [Slot; CPUS] = [const { Slot(UnsafeCell::new(NO_FAULT)) }; CPUS];
static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(ptr::null_mut()) }; 256];

const NO_FAULT: Fault = Fault { vector: 0, error: 0, rip: 0, cs: 0, rflags: 0, rsp: 0, cr2: 0 };

/// The last caught fault of one CPU.
struct Slot(UnsafeCell<Fault>);

// SAFETY: each CPU uses its own slot only, and reads it after the return that follows the write.
unsafe impl Sync for Slot {}

extern "C" fn dispatch(frame: &mut Frame) {
    let handler = HANDLERS[frame.vector as usize & 0xff].load(Ordering::Acquire);
    if !handler.is_null() {
        // SAFETY: only `handle` stores non-null values, which are functions of this type.
        let handler = unsafe { core::mem::transmute::<*mut (), fn(&mut Frame)>(handler) };
        // An event inside the handler must not begin at the top of the stack that this frame and, below it, the
        // handler's own frames lie on.
        let vector = frame.vector;
        let top = tables::move_ist(vector, &raw const *frame as u64 - HANDLER_STACK);
        handler(frame);
        tables::move_ist(vector, top);
        return;
    }
    let fault = Fault {
        vector: frame.vector,
        error: frame.error,
        rip: frame.rip,
        cs: frame.cs,
        rflags: frame.rflags,
        rsp: frame.rsp,
        cr2: control::read_cr2(),
    };
    let cpu = tables::cpu();
    let catching = CATCHING[cpu].load(Ordering::Relaxed);
    if catching == 0 {
        report::fault(&fault);
        entry::stop();
    }
    // SAFETY: this CPU's slot; nobody reads it before `catch` has returned.
    unsafe { *CAUGHT[cpu].0.get() = fault };
    frame.rip = landing as *const () as u64;
    frame.cs = KERNEL_CS.into();
    frame.ss = KERNEL_DS.into();
    frame.rsp = catching;
    // Bit 1 is always 1; `catch` restores the rest.
    frame.rflags = 2;
}

/// IRETQ to its own next instruction, `unblocked`, which unblocks NMIs.
#[unsafe(naked)]
pub extern "C" fn unblock_nmis() {
    naked_asm!(
        "mov rax, rsp",
        "mov ecx, ss",
        "push rcx",
        "push rax",
        "pushfq",
        "mov ecx, cs",
        "push rcx",
        "lea rcx, [rip + unblocked]",
        "push rcx",
        "iretq",
        crate::label!("unblocked"),
        "nop",
        "ret",
    )
}

/// Installs what handles a vector and then resumes; `None` makes the vector a fault again.
pub fn handle(vector: u8, handler: Option<fn(&mut Frame)>) {
    let handler = handler.map_or(ptr::null_mut(), |handler| handler as *mut ());
    HANDLERS[usize::from(vector)].store(handler, Ordering::Release);
}

/// Runs `work`; an exception in it ends it and comes back as a value.
///
/// Nests. RFLAGS come back as they were at the call. What `work` holds is not dropped on a fault: guests
/// have no resources to leak.
pub fn catch<T, F: FnOnce() -> T>(work: F) -> Result<T, Fault> {
    struct Work<T, F>(Option<F>, Option<T>);
    extern "C" fn run<T, F: FnOnce() -> T>(work: *mut Work<T, F>) {
        // SAFETY: `catch` passes its own local, which nobody else touches meanwhile.
        let work = unsafe { &mut *work };
        work.1 = work.0.take().map(|work| work());
    }
    let mut local = Work(Some(work), None);
    let cpu = tables::cpu();
    let slot = CATCHING[cpu].as_ptr();
    let tops = tables::ist_tops(cpu);
    // SAFETY: `run` takes what it is given; `enter` keeps the C calling convention in both outcomes.
    unsafe { enter(run::<T, F> as *const (), (&raw mut local).cast(), slot) };
    // Read by pointer: on a fault the compiler's idea of the local is from before the call.
    // SAFETY: the local lives; `run` has ended, one way or the other.
    if let Some(value) = unsafe { (&raw mut local.1).read_volatile() } {
        return Ok(value);
    }
    // A fault that left handlers behind left their interrupt stacks moved.
    tables::restore_ist_tops(cpu, tops);
    // SAFETY: written by `dispatch` on this CPU.
    Err(unsafe { *CAUGHT[cpu].0.get() })
}

/// Makes faults on this CPU return to another [`catch`], 0 for none; the one so far comes back.
pub(crate) fn swap_catching(to: u64) -> u64 {
    CATCHING[tables::cpu()].swap(to, Ordering::Relaxed)
}

/// Calls `run(data)` with `*slot` holding the stack pointer to which a fault returns.
#[unsafe(naked)]
unsafe extern "C" fn enter(run: *const (), data: *mut (), slot: *mut u64) {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "push rdx",
        "push qword ptr [rdx]",
        "pushfq",
        "mov [rdx], rsp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "jmp {landing}",
        landing = sym landing,
    )
}

/// Where a caught fault returns, with the stack as `enter` left it.
#[unsafe(naked)]
extern "C" fn landing() {
    naked_asm!(
        "popfq",
        "pop rcx",
        "pop rdx",
        "mov [rdx], rcx",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
    )
}
