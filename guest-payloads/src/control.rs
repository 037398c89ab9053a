//! Model-specific and control registers, with the fault of a refused write as a value.
#![expect(unsafe_code, reason = "privileged registers")]
use crate::fault::{Fault, catch};
use core::arch::asm;

/// RDMSR.
pub fn read_msr(msr: u32) -> Result<u64, Fault> {
    catch(|| {
        let (low, high): (u32, u32);
        // SAFETY: no MSR read changes memory; a #GP is caught.
        unsafe {
            asm!(crate::emulable!(), "rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nostack, preserves_flags));
        };
        u64::from(high) << 32 | u64::from(low)
    })
}

/// WRMSR. The scenario answers for what the value does to its VM.
pub fn write_msr(msr: u32, value: u64) -> Result<(), Fault> {
    let (low, high) = (value as u32, (value >> 32) as u32);
    catch(|| {
        // SAFETY: scenarios own their VM; a #GP is caught.
        unsafe {
            asm!(crate::emulable!(), "wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags));
        };
    })
}

/// XSETBV.
pub fn write_xcr(register: u32, value: u64) -> Result<(), Fault> {
    let (low, high) = (value as u32, (value >> 32) as u32);
    catch(|| {
        // SAFETY: as for `write_msr`; guests have no vector state to lose.
        unsafe {
            asm!("xsetbv", in("ecx") register, in("eax") low, in("edx") high, options(nostack, preserves_flags));
        };
    })
}

macro_rules! control_register {
    ($read:ident $write:ident $name:literal) => {
        #[doc = concat!("Reads ", $name, ".")]
        #[inline]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reading a control register at CPL 0 changes nothing.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }

        #[doc = concat!("Writes ", $name, ". The scenario answers for what the value does to its VM.")]
        pub fn $write(value: u64) -> Result<(), Fault> {
            catch(|| {
                // SAFETY: scenarios own their VM; a #GP is caught.
                unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
            })
        }
    };
}

control_register!(read_cr0 write_cr0 "cr0");
control_register!(read_cr2 write_cr2 "cr2");
control_register!(read_cr3 write_cr3 "cr3");
control_register!(read_cr4 write_cr4 "cr4");
control_register!(read_cr8 write_cr8 "cr8");
control_register!(read_dr6 write_dr6 "dr6");
control_register!(read_dr7 write_dr7 "dr7");
control_register!(read_dr0 write_dr0 "dr0");
