//! Port I/O. Each function is exactly one `IN` or `OUT`, so each makes exactly one exit. KVM can be made to emulate it.
#![expect(unsafe_code, reason = "port instructions")]
use core::arch::asm;

macro_rules! port {
    ($read:ident $write:ident $type:ty, $register:tt, $width:literal) => {
        #[doc = concat!("Reads ", $width, " from `port`.")]
        #[inline]
        pub fn $read(port: u16) -> $type {
            let value;
            // SAFETY: every device of the VM belongs to the scenario; none of them does DMA.
            unsafe {
                asm!(crate::emulable!(), concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $width, " to `port`.")]
        #[inline]
        pub fn $write(port: u16, value: $type) {
            // SAFETY: as for reading.
            unsafe {
                asm!(crate::emulable!(), concat!("out dx, ", $register), in("dx") port, in($register) value, options(nostack, preserves_flags));
            }
        }
    };
}

port!(in8 out8 u8, "al", "one byte");
port!(in16 out16 u16, "ax", "two bytes");
port!(in32 out32 u32, "eax", "four bytes");
