//! Application processors: from INIT/SIPI through real mode to 64-bit Rust.
#![expect(unsafe_code, reason = "start-up code and its mailbox")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use exitspec_protocol::AP_START_VECTOR;

use crate::tables::{self, CPUS};
use crate::{apic, entry};

// The SIPI names this page. From real mode straight into 64-bit mode: PE and PG in one write to CR0
// (SDM vol. 3, 10.8.5 wants PAE, CR3 and LME first).
global_asm!(
    ".pushsection .low.text.ap_start, \"ax\", @progbits",
    ".code16",
    ".globl ap_start",
    "ap_start:",
    "cli",
    "xor ax, ax",
    "mov ds, ax",
    "lgdtd [ap_gdt_pointer]",
    "mov eax, 0x620",
    "mov cr4, eax",
    "mov eax, [ap_cr3]",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "xor edx, edx",
    "mov eax, 0x900",
    "wrmsr",
    "mov eax, 0x80010033",
    "mov cr0, eax",
    ".byte 0x66, 0xea", // far jump with a 32-bit offset
    ".long ap_long",
    ".word 0x08",
    ".code64",
    "ap_long:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "xor ebp, ebp",
    "mov rsp, [ap_stack]",
    "mov rdi, [ap_cpu]",
    "call {main}",
    "ud2",
    ".popsection",
    ".pushsection .low.data.ap_mailbox, \"aw\", @progbits",
    ".globl ap_cr3",
    "ap_cr3: .quad 0",
    ".globl ap_stack",
    "ap_stack: .quad 0",
    ".globl ap_cpu",
    "ap_cpu: .quad 0",
    "ap_gdt_pointer: .word 0x6f",
    ".long gdt",
    ".popsection",
    main = sym main,
);

unsafe extern "C" {
    #[link_name = "ap_cr3"]
    static AP_CR3: AtomicU64;
    #[link_name = "ap_stack"]
    static AP_STACK: AtomicU64;
    #[link_name = "ap_cpu"]
    static AP_CPU: AtomicU64;
}

static WORK: [AtomicPtr<()>; CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CPUS];
static STARTED: AtomicU64 = AtomicU64::new(0);
static FINISHED: AtomicU64 = AtomicU64::new(0);

/// Prepares CPU `cpu` (1 to 3; its APIC id is the same number) to run `work` once it gets a SIPI.
pub fn prepare(cpu: usize, work: fn()) {
    WORK[cpu].store(work as *mut (), Ordering::Release);
    STARTED.fetch_and(!(1 << cpu), Ordering::Release);
    FINISHED.fetch_and(!(1 << cpu), Ordering::Release);
    // SAFETY: the mailbox is static, and no application processor reads it before its SIPI.
    unsafe {
        AP_CR3.store(entry::page_tables(), Ordering::Release);
        AP_STACK.store(tables::stack_top(cpu), Ordering::Release);
        AP_CPU.store(cpu as u64, Ordering::Release);
    }
}

/// Starts CPU `cpu` with INIT and SIPI, to run `work`. One start at a time: wait for [`started`].
pub fn start(cpu: usize, work: fn()) {
    prepare(cpu, work);
    apic::send_init(cpu as u32);
    apic::send_startup(cpu as u32, AP_START_VECTOR);
}

/// Whether CPU `cpu` has come to its work.
pub fn started(cpu: usize) -> bool {
    STARTED.load(Ordering::Acquire) >> cpu & 1 == 1
}

/// Whether CPU `cpu`'s work has returned.
pub fn finished(cpu: usize) -> bool {
    FINISHED.load(Ordering::Acquire) >> cpu & 1 == 1
}

extern "C" fn main(cpu: usize) -> ! {
    tables::load(cpu);
    STARTED.fetch_or(1 << cpu, Ordering::Release);
    let work = WORK[cpu].load(Ordering::Acquire);
    if !work.is_null() {
        // SAFETY: only `prepare` stores non-null values, which are functions of this type.
        let work = unsafe { core::mem::transmute::<*mut (), fn()>(work) };
        work();
    }
    FINISHED.fetch_or(1 << cpu, Ordering::Release);
    entry::stop()
}
