//! Descriptor tables and the stacks that they name: static data, so that the boot fills nothing.
//!
//! The linker script fixes the addresses of tables, stubs and stacks, which makes every descriptor a
//! constant. Interrupts and exceptions run on stacks of their own (IST): some functions of `core`
//! use a red zone, which an asynchronous vector must not overwrite.
#![expect(unsafe_code, reason = "descriptor tables")]

use core::arch::asm;
use core::cell::UnsafeCell;

use exitspec_protocol::IMAGE_BASE;

/// CPUs for which there are stacks and a TSS.
pub const CPUS: usize = 4;

/// 64-bit code, ring 0.
pub const KERNEL_CS: u16 = 0x08;
/// Data, ring 0.
pub const KERNEL_DS: u16 = 0x10;
/// Data, ring 3, with RPL 3.
pub const USER_DS: u16 = 0x18 | 3;
/// 64-bit code, ring 3, with RPL 3.
pub const USER_CS: u16 = 0x20 | 3;
/// 32-bit code, ring 0: for scenarios that leave 64-bit mode.
pub const CODE32: u16 = 0x28;
/// The TSS of CPU 0; the others follow.
const TSS_SELECTOR: u16 = 0x30;

const GDT: u64 = IMAGE_BASE;
const TSS: u64 = IMAGE_BASE + 0x100;
const TSS_STRIDE: u64 = 0x80;
const TSS_LIMIT: u64 = 103;
const IDT: u64 = IMAGE_BASE + 0x1000;
const STUBS: u64 = IMAGE_BASE + 0x2000;

/// Stacks of all CPUs, below the image: for each CPU four of 4 KiB for the IST, then its own of 16 KiB.
const STACKS: u64 = IMAGE_BASE - STACKS_SIZE;
const STACKS_SIZE: u64 = CPUS as u64 * CPU_STACKS;
const CPU_STACKS: u64 = 0x8000;
const IST_STACK: u64 = 0x1000;

/// Which of a TSS's interrupt stacks a vector takes.
const fn ist(vector: usize) -> u64 {
    match vector {
        8 => 2,
        2 => 3,
        0..32 => 1,
        _ => 4,
    }
}

/// A table that the CPU writes to as well.
#[repr(C, align(16))]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: only the CPU writes to it, and only bits that Rust never reads (the TSS's busy bit).
unsafe impl<T> Sync for Shared<T> {}

/// Segment descriptors (SDM vol. 3, 3.4.5 and 7.2.3).
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".tables.gdt")]
static gdt: Shared<[u64; 6 + 2 * CPUS]> = {
    let mut table = [0; 6 + 2 * CPUS];
    table[1] = 0x00af_9b00_0000_ffff;
    table[2] = 0x00cf_9300_0000_ffff;
    table[3] = 0x00cf_f300_0000_ffff;
    table[4] = 0x00af_fb00_0000_ffff;
    table[5] = 0x00cf_9b00_0000_ffff;
    let mut cpu = 0;
    while cpu < CPUS {
        let base = TSS + cpu as u64 * TSS_STRIDE;
        // Present, available 64-bit TSS.
        table[6 + 2 * cpu] = TSS_LIMIT | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        table[7 + 2 * cpu] = base >> 32;
        cpu += 1;
    }
    Shared(UnsafeCell::new(table))
};

/// Task-state segments (SDM vol. 3, 7.7), as words: the format's 64-bit fields lie at odd multiples of four.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".tables.tss")]
static tss: Shared<[u32; CPUS * TSS_STRIDE as usize / 4]> = {
    let mut table = [0; CPUS * TSS_STRIDE as usize / 4];
    let mut cpu = 0;
    while cpu < CPUS {
        let at = cpu * TSS_STRIDE as usize / 4;
        let base = STACKS + cpu as u64 * CPU_STACKS;
        // RSP0, for what enters ring 0 without an IST: nothing does, but an interrupt gate might.
        table[at + 1] = (base + IST_STACK) as u32;
        let mut number = 1;
        while number <= 4 {
            table[at + 7 + 2 * number] = (base + number as u64 * IST_STACK) as u32;
            number += 1;
        }
        // No I/O permission bitmap: its base lies behind the limit.
        table[at + 25] = (TSS_LIMIT as u32 + 1) << 16;
        cpu += 1;
    }
    Shared(UnsafeCell::new(table))
};

/// Interrupt gates for every vector (SDM vol. 3, 6.14.1). Ring 3 may use `int3`.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".tables.idt")]
static idt: Shared<[[u64; 2]; 256]> = {
    let mut table = [[0; 2]; 256];
    let mut vector = 0;
    while vector < 256 {
        let stub = STUBS + 16 * vector as u64;
        let access = if vector == 3 { 0xee } else { 0x8e };
        let low = stub & 0xffff | (KERNEL_CS as u64) << 16 | ist(vector) << 32 | access << 40;
        table[vector] = [low | (stub >> 16 & 0xffff) << 48, stub >> 32];
        vector += 1;
    }
    Shared(UnsafeCell::new(table))
};

/// Memory for the stacks; only its place matters.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".stacks")]
static stacks: Shared<[u8; STACKS_SIZE as usize]> = Shared(UnsafeCell::new([0; STACKS_SIZE as usize]));

/// GDTR's or IDTR's value in memory.
#[repr(C, packed)]
pub struct Pointer {
    /// Offset of the table's last byte.
    pub limit: u16,
    /// Linear address.
    pub base: u64,
}

/// GDTR's value.
pub static GDT_POINTER: Pointer = Pointer { limit: (8 * (6 + 2 * CPUS) - 1) as u16, base: GDT };
/// IDTR's value.
pub static IDT_POINTER: Pointer = Pointer { limit: 4095, base: IDT };

/// Loads GDT, segments, TSS and IDT on CPU `cpu`.
pub fn load(cpu: usize) {
    let task = TSS_SELECTOR + 16 * cpu as u16;
    // SAFETY: the tables are static and describe the same flat code and data as the loader's, so that every
    // selector stays valid; the return reloads CS and SS with descriptors of equal meaning.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "lidt [{idt}]",
            // A far return of the kind that ends an NMI: an emulated machine's CPU may have kept their blocking from the
            // VM before.
            "mov {scratch}, rsp",
            "push {ds}",
            "push {scratch}",
            "pushfq",
            "push {cs}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "iretq",
            "2:",
            "mov ds, {ds:x}",
            "mov es, {ds:x}",
            // LTR wants an available TSS, and this CPU may have loaded it in an earlier life.
            "mov byte ptr [{descriptor} + 5], 0x89",
            "ltr {task:x}",
            gdt = in(reg) &raw const GDT_POINTER,
            idt = in(reg) &raw const IDT_POINTER,
            cs = const KERNEL_CS,
            ds = in(reg) u64::from(KERNEL_DS),
            task = in(reg) u32::from(task),
            descriptor = in(reg) GDT + u64::from(task),
            scratch = out(reg) _,
        );
    }
}

/// Loads another IDT: a scenario's way into a triple fault.
///
/// # Safety
/// No vector may be taken through a table that does not lead to this runtime, unless that is the point.
pub unsafe fn load_idt(limit: u16, base: u64) {
    let pointer = Pointer { limit, base };
    // SAFETY: the caller's promise; the operand is a live local.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) }
}

/// Puts the runtime's IDT back.
pub fn restore_idt() {
    // SAFETY: the runtime's own table.
    unsafe { load_idt(IDT_POINTER.limit, IDT_POINTER.base) }
}

/// Clears the present bit of a vector's gate.
pub fn remove_gate(vector: u64) {
    change_gate(vector, |word| word & !(1 << 15));
}

/// Gives a vector's gate another interrupt stack: 1 is that of most exceptions.
pub fn move_gate(vector: u64, ist: u32) {
    change_gate(vector, |word| word & !7 | ist);
}

/// Changes the second word of a vector's gate: IST in bits 2:0, and bit 15 says that the gate is present (SDM vol. 3A,
/// 6.14.1; APM vol. 2, 4.8.4).
fn change_gate(vector: u64, with: impl FnOnce(u32) -> u32) {
    let word = (IDT + 16 * (vector & 0xff) + 4) as *mut u32;
    // SAFETY: the word lies in the IDT, which is writable and which nobody holds a reference to.
    unsafe { word.write_volatile(with(word.read_volatile())) };
}

/// The CPU that this code runs on, by the stack that it runs on: the application processors' stacks and all
/// interrupt stacks lie at known places, and the boot processor's own stack anywhere else.
pub fn cpu() -> usize {
    let stack: u64;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    match stack.checked_sub(STACKS) {
        Some(offset) if offset < STACKS_SIZE => (offset / CPU_STACKS) as usize,
        _ => 0,
    }
}

/// Makes the interrupt stack of `vector` on this CPU begin below `top`; gives the old top back.
pub(crate) fn move_ist(vector: u64, top: u64) -> u64 {
    let number = ist(vector as usize & 0xff) as usize;
    let at = cpu() * TSS_STRIDE as usize / 4 + 7 + 2 * number;
    // SAFETY: the field lies in this CPU's TSS, which the CPU only reads while it delivers an interrupt.
    unsafe {
        let field = tss.0.get().cast::<u32>().add(at);
        let old = field.read_volatile();
        field.write_volatile(top as u32 & !0xf);
        old.into()
    }
}

/// Where the interrupt stacks of CPU `cpu` begin now.
pub(crate) fn ist_tops(cpu: usize) -> [u32; 8] {
    // SAFETY: the fields lie in that CPU's TSS, at multiples of four.
    unsafe { ist_field(cpu).read_volatile() }
}

/// Puts back what [`ist_tops`] gave.
pub(crate) fn restore_ist_tops(cpu: usize, tops: [u32; 8]) {
    // SAFETY: as for reading; the CPU only reads them while it delivers an interrupt.
    unsafe { ist_field(cpu).write_volatile(tops) }
}

fn ist_field(cpu: usize) -> *mut [u32; 8] {
    // From word 9 on: the 64-bit fields lie at odd multiples of four.
    tss.0.get().cast::<u32>().wrapping_add(cpu * TSS_STRIDE as usize / 4 + 9).cast()
}

/// Top of an application processor's own stack.
pub fn stack_top(cpu: usize) -> u64 {
    STACKS + (cpu as u64 + 1) * CPU_STACKS
}
