//! Memory-mapped devices. Each function is exactly one `MOV` through a register, so that an exit's
//! RIP and size do not depend on what the optimizer made of it. KVM can be made to emulate it.
#![expect(unsafe_code, reason = "device memory")]
use core::arch::asm;

macro_rules! mmio {
    ($read:ident $write:ident $type:ty, $class:ident, $size:literal, $register:literal, $width:literal) => {
        #[doc = concat!("Reads ", $width, " at a virtual address.\n\n# Safety\nThe address is mapped (or the fault is wanted) and reading it has no effect on Rust's memory.")]
        #[inline]
        pub unsafe fn $read(address: u64) -> $type {
            let value;
            // SAFETY: the caller's.
            unsafe {
                asm!(crate::emulable!(), concat!("mov {v", $register, "}, ", $size, " ptr [{a}]"), v = out($class) value, a = in(reg) address, options(nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $width, " at a virtual address.\n\n# Safety\nThe address is mapped (or the fault is wanted) and writing it breaks no Rust value.")]
        #[inline]
        pub unsafe fn $write(address: u64, value: $type) {
            // SAFETY: the caller's.
            unsafe {
                asm!(crate::emulable!(), concat!("mov ", $size, " ptr [{a}], {v", $register, "}"), v = in($class) value, a = in(reg) address, options(nostack, preserves_flags));
            }
        }
    };
}

mmio!(read8 write8 u8, reg_byte, "byte", "", "one byte");
mmio!(read16 write16 u16, reg, "word", ":x", "two bytes");
mmio!(read32 write32 u32, reg, "dword", ":e", "four bytes");
mmio!(read64 write64 u64, reg, "qword", "", "eight bytes");
