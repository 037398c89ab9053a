//! Accesses to guest-physical addresses without memory, and to memslots that come and go.
//!
//! Every access that a manifest names is one labelled instruction of a naked function, so that size,
//! count and RIP of the exits do not depend on the compiler.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "accesses to devices and to memory that changes under the guest")]
guest::payload!();

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use guest::report::value;
use guest::{check_eq, paging, physical, ring3};

/// Guest-physical address of two pages behind which there is nothing unless the case declares a slot.
const HOLE: u64 = 0x1000_0000;
/// Pages that cases put memory at.
const SLOT: u64 = 0x1100_0000;

/// A page of its own, whose mapping scenarios bend.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: scenarios are single-threaded and reach the page only from assembly.
unsafe impl Sync for Page {}

/// RAM that string instructions copy from and to.
#[unsafe(export_name = "mmio_buffer")]
static BUFFER: Page = Page(UnsafeCell::new([0; 4096]));

/// The page through which ring 3 sees the hole.
static WINDOW: Page = Page(UnsafeCell::new([0; 4096]));

/// The RAM that string instructions use.
fn buffer() -> *mut u64 {
    BUFFER.0.get().cast()
}

#[unsafe(naked)]
extern "C" fn load8(address: *mut u8) -> u64 {
    naked_asm!("mov rax, -1", guest::emulable!("load8_here"), "mov al, [rdi]", "ret")
}

#[unsafe(naked)]
extern "C" fn load16(address: *mut u8) -> u64 {
    naked_asm!("mov rax, -1", guest::emulable!("load16_here"), "mov ax, [rdi]", "ret")
}

#[unsafe(naked)]
extern "C" fn load32(address: *mut u8) -> u64 {
    naked_asm!("mov rax, -1", guest::emulable!("load32_here"), "mov eax, [rdi]", "ret")
}

#[unsafe(naked)]
extern "C" fn load64(address: *mut u8) -> u64 {
    naked_asm!("mov rax, -1", guest::emulable!("load64_here"), "mov rax, [rdi]", "ret")
}

/// 16 bytes by way of XMM0, into `to`.
#[unsafe(naked)]
extern "C" fn load128(address: *mut u8, to: *mut u64) {
    naked_asm!(guest::label!("load128_here"), "movdqu xmm0, [rdi]", "movdqu [rsi], xmm0", "ret")
}

/// 16 bytes by way of XMM0, from `data`.
#[unsafe(naked)]
extern "C" fn store128(address: *mut u8, data: *const u64) {
    naked_asm!("movdqu xmm0, [rsi]", guest::label!("store128_here"), "movdqu [rdi], xmm0", "ret")
}

#[unsafe(naked)]
extern "C" fn load_zero_extended(address: *mut u8) -> u64 {
    naked_asm!("mov rax, -1", guest::emulable!(), "movzx eax, word ptr [rdi]", "ret")
}

#[unsafe(naked)]
extern "C" fn load_byte_sign_extended(address: *mut u8) -> u64 {
    naked_asm!("xor eax, eax", guest::emulable!(), "movsx rax, byte ptr [rdi]", "ret")
}

#[unsafe(naked)]
extern "C" fn load_dword_sign_extended(address: *mut u8) -> u64 {
    naked_asm!("xor eax, eax", guest::emulable!(), "movsxd rax, dword ptr [rdi]", "ret")
}

#[unsafe(naked)]
extern "C" fn store8(address: *mut u8, data: u64) {
    naked_asm!(guest::emulable!("store8_here"), "mov [rdi], sil", "ret")
}

#[unsafe(naked)]
extern "C" fn store16(address: *mut u8, data: u64) {
    naked_asm!(guest::emulable!("store16_here"), "mov [rdi], si", "ret")
}

#[unsafe(naked)]
extern "C" fn store32(address: *mut u8, data: u64) {
    naked_asm!(guest::emulable!("store32_here"), "mov [rdi], esi", "ret")
}

#[unsafe(naked)]
extern "C" fn store64(address: *mut u8, data: u64) {
    naked_asm!(guest::emulable!("store64_here"), "mov [rdi], rsi", "ret")
}

/// An immediate of 32 bits is sign-extended to the operand (SDM vol. 2, "MOV").
#[unsafe(naked)]
extern "C" fn store_immediate(address: *mut u8) {
    naked_asm!(guest::emulable!(), "mov qword ptr [rdi], -2", "ret")
}

/// Writes `times` numbers, down to zero.
#[unsafe(naked)]
extern "C" fn store_times(address: *mut u8, times: u64) {
    naked_asm!("2:", "dec rsi", guest::emulable!(), "mov [rdi], esi", "test rsi, rsi", "jnz 2b", "ret")
}

#[unsafe(naked)]
extern "C" fn add_to(address: *mut u8, data: u64) {
    naked_asm!(guest::emulable!("add_here"), "add [rdi], esi", "ret")
}

#[unsafe(naked)]
extern "C" fn exchange(address: *mut u8, data: u64) -> u64 {
    naked_asm!("mov rax, rsi", guest::emulable!("xchg_here"), "xchg [rdi], eax", "ret")
}

#[unsafe(naked)]
extern "C" fn copy32(to: *mut u8, from: *mut u8, count: u64) -> u64 {
    naked_asm!("mov rcx, rdx", guest::emulable!("movs_here"), "rep movsd", "mov rax, rcx", "ret")
}

fn hole() -> *mut u8 {
    physical(HOLE)
}

guest::scenario! {
    /// One read of each width, into a register full of ones.
    fn read_widths() {
        value("al", load8(hole()));
        value("ax", load16(hole().wrapping_add(2)));
        value("eax", load32(hole().wrapping_add(4)));
        value("rax", load64(hole().wrapping_add(8)));
    }

    /// One read and one write of 16 bytes.
    fn sixteen_bytes() {
        let mut bytes = [0_u64; 2];
        load128(hole(), bytes.as_mut_ptr());
        value("low", bytes[0]);
        value("high", bytes[1]);
        store128(hole().wrapping_add(0x20), bytes.as_ptr());
    }

    /// MOVZX, MOVSX, MOVSXD.
    fn read_extends() {
        value("movzx", load_zero_extended(hole()));
        value("movsx", load_byte_sign_extended(hole()));
        value("movsxd", load_dword_sign_extended(hole()));
    }

    /// One write of each width, and one with an immediate.
    fn write_widths() {
        store8(hole(), 0x8877_6655_4433_2211);
        store16(hole().wrapping_add(2), 0x8877_6655_4433_2211);
        store32(hole().wrapping_add(4), 0x8877_6655_4433_2211);
        store64(hole().wrapping_add(8), 0x8877_6655_4433_2211);
        store_immediate(hole());
    }

    /// One unaligned read of eight bytes: three in the hole's first page, five in the second.
    fn split_read() {
        value("rax", load64(hole().wrapping_add(0xffd)));
    }

    /// One unaligned write of eight bytes: three in the hole's first page, five in the second.
    fn split_write() {
        store64(hole().wrapping_add(0xffd), 0x8877_6655_4433_2211);
    }

    /// Eight bytes, the first four in the last ones of a slot of one page.
    fn ram_then_hole() {
        let border = physical::<u8>(SLOT + 0xffc);
        value("rax", load64(border));
        store64(border, 0x8877_6655_4433_2211);
        value("ram", load32(border));
    }

    /// Eight bytes, the last four in the first ones of a slot.
    fn hole_then_ram() {
        let border = physical::<u8>(SLOT - 4);
        value("rax", load64(border));
        store64(border, 0x8877_6655_4433_2211);
        value("ram", load32(physical(SLOT)));
    }

    /// Writes to a slot and reads it again.
    fn write_then_read() {
        let slot = physical::<u8>(SLOT + 8);
        value("before", load32(slot));
        store32(slot, 0x4433_2211);
        value("after", load32(slot));
    }

    /// Writes `times` numbers, counting down to zero, to one address.
    fn many_writes() {
        store_times(hole(), guest::arg("times").unwrap_or(1));
    }

    /// Reads an address twice.
    fn read_twice() {
        value("first", load32(physical(SLOT)));
        value("second", load32(physical(SLOT)));
    }

    /// Reads a slot's place and its neighbour, again and again.
    fn touch_again() {
        for _ in 0..guest::arg("rounds").unwrap_or(1) {
            value("absent", load32(physical(SLOT)));
            value("present", load32(physical(SLOT)));
        }
    }

    /// Reads where a slot is now and where it will be, and once more.
    fn follow_slot() {
        value("old-before", load32(physical(SLOT)));
        value("new-before", load32(physical(SLOT + 0x10_0000)));
        value("old-after", load32(physical(SLOT)));
        value("new-after", load32(physical(SLOT + 0x10_0000)));
    }

    /// `add [mmio], esi`.
    fn add_in_place() {
        add_to(hole(), 0x11);
    }

    /// `xchg [mmio], eax`, which locks by itself.
    fn exchange_in_place() {
        value("rax", exchange(hole(), 0x1234_5678));
    }

    /// One read and one write of four bytes.
    fn read_and_write() {
        value("rax", load32(hole()));
        store32(hole(), 0x4433_2211);
    }

    /// `rep movsd` of three items from RAM.
    fn copy_to_mmio() {
        // SAFETY: the buffer is this scenario's own.
        unsafe {
            buffer().write_volatile(0x2222_2222_1111_1111);
            buffer().add(1).write_volatile(0x3333_3333);
        }
        value("rcx", copy32(hole(), buffer().cast(), 3));
    }

    /// `rep movsd` of two items to RAM.
    fn copy_from_mmio() {
        value("rcx", copy32(buffer().cast(), hole(), 2));
        // SAFETY: the buffer is this scenario's own.
        value("ram", unsafe { buffer().read_volatile() });
    }

    /// A read and a write at CPL 3, through a page that shows the hole.
    fn from_ring3() {
        let window = WINDOW.0.get() as u64;
        // SAFETY: nothing of Rust's is in that page.
        let opened = unsafe { paging::redirect(window, HOLE).and(paging::open_to_user(window, true)) };
        check_eq!(u64::from(opened.is_some()), 1, "the window is a page of 4 KiB");
        let fault = ring3::run(user_access);
        value("vector", fault.map_or(0, |fault| fault.vector));
        value("cpl", fault.map_or(0, |fault| fault.cs & 3));
    }
}

/// Reads from the window, writes what it read to the next address, and returns by #UD.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_access() {
    naked_asm!(
        "lea rdi, [rip + {window}]",
        guest::emulable!("user_load"),
        "mov eax, [rdi + 0x10]",
        guest::label!("user_store"),
        "mov [rdi + 0x20], eax",
        "ud2",
        window = sym WINDOW,
    )
}

guest::protected_mode! {
    /// Jumps to where there is no memory.
    fetch_from_hole: "mov eax, 0x10000000", "jmp eax"
}

guest::real_mode! {
    /// Never gets to its first instruction: the host injects an NMI. `residual_fresh` is what a host starts
    /// after a reset: an instruction that KVM may have to emulate, and four HLT.
    residual: "jmp residual",
        guest::label!("residual_fresh"),
        "mov eax, cr0",
        guest::label!("residual_hlt"), "hlt",
        "hlt", "hlt", "hlt", "hlt",
        "2:", "jmp 2b"
}

guest::protected_mode! {
    /// Writes to the hole, then takes an exception that cannot be delivered.
    triple_fault: "mov eax, 0x10000000", guest::emulable!(), "mov dword ptr [eax], 0x55",
        guest::label!("triple_fault_here"), "ud2",
        guest::label!("triple_fault_fresh"),
        "mov ebx, 0x600d", "hlt",
        "2:", "jmp 2b"
}
