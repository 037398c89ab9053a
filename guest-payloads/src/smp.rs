//! Application processors: from INIT/SIPI through real mode to 64-bit Rust.
#![expect(unsafe_code, reason = "start-up code and its mailbox")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use exitspec_protocol::AP_START_VECTOR;

use crate::tables::{self, CPUS};
use crate::{apic, entry};

/// 16-bit code with data segments of base 0, from real mode straight into 64-bit mode: PE and PG in one write to CR0
/// (SDM vol. 3, 10.8.5 wants PAE, CR3 and LME first). Takes CR3 from the symbol `cr3`, goes on at the label `to`, and
/// leaves flat segments.
#[doc(hidden)]
#[macro_export]
macro_rules! into_long_mode {
    ($cr3:literal, $to:literal) => {
        concat!(
            "lgdtd [low_gdt_pointer]\n",
            "mov eax, 0x620\n",
            "mov cr4, eax\n",
            "mov eax, [",
            $cr3,
            "]\n",
            "mov cr3, eax\n",
            "mov ecx, 0xc0000080\n",
            "xor edx, edx\n",
            "mov eax, 0x900\n",
            "wrmsr\n",
            "mov eax, 0x80010033\n",
            "mov cr0, eax\n",
            ".byte 0x66, 0xea\n", // far jump with a 32-bit offset
            ".long ",
            $to,
            "\n",
            ".word 0x08\n",
            ".code64\n",
            $to,
            ":\n",
            "mov eax, 0x10\n",
            "mov ds, eax\n",
            "mov es, eax\n",
            "mov ss, eax",
        )
    };
}

// The SIPI names this page.
global_asm!(
    ".pushsection .low.text.ap_start, \"ax\", @progbits",
    ".code16",
    ".globl ap_start",
    "ap_start:",
    "cli",
    "xor ax, ax",
    "mov ds, ax",
    crate::into_long_mode!("ap_cr3", "ap_long"),
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
    "low_gdt_pointer: .word 0x6f",
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
