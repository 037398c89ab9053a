//! VMX's instructions, one function each, with VMfail as a value. A #UD or #GP is the caller's to catch.
#![expect(unsafe_code, reason = "VMX instructions")]

use core::arch::asm;

use super::{Field, field};

/// How a VMX instruction failed (SDM vol. 3C, "Conventions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    /// `VMfailInvalid`: there is no current VMCS that could hold an error.
    Invalid,
    /// `VMfailValid`, with the VM-instruction error (SDM vol. 3C, "VM Instruction Error Numbers").
    Valid(u64),
}

impl Fail {
    /// The error number; 0x100, which is none, for [`Fail::Invalid`].
    pub const fn number(self) -> u64 {
        match self {
            Fail::Invalid => 0x100,
            Fail::Valid(number) => number,
        }
    }
}

/// What CF and ZF say after a VMX instruction.
pub(super) fn outcome(carry: u8, zero: u8) -> Result<(), Fail> {
    match (carry, zero) {
        (0, 0) => Ok(()),
        (0, _) => Err(Fail::Valid(vmread(field::INSTRUCTION_ERROR).unwrap_or(0))),
        _ => Err(Fail::Invalid),
    }
}

macro_rules! with_address {
    ($(#[doc = $doc:literal])* $name:ident) => {
        $(#[doc = $doc])*
        pub fn $name(address: u64) -> Result<(), Fail> {
            let (carry, zero): (u8, u8);
            // SAFETY: the address is in memory; what the instruction does to this VM is the scenario's affair.
            unsafe {
                asm!(concat!(stringify!($name), " qword ptr [{a}]"), "setc {c}", "setz {z}", a = in(reg) &raw const address,
                    c = out(reg_byte) carry, z = out(reg_byte) zero, options(nostack));
            }
            outcome(carry, zero)
        }
    };
}

with_address! {
    /// VMXON with the region at this guest-physical address.
    vmxon
}
with_address! {
    /// VMCLEAR of the VMCS at this guest-physical address.
    vmclear
}
with_address! {
    /// VMPTRLD: makes the VMCS at this guest-physical address current.
    vmptrld
}

/// VMXOFF.
pub fn vmxoff() -> Result<(), Fail> {
    let (carry, zero): (u8, u8);
    // SAFETY: ends VMX operation; nobody counts on it but the scenario.
    unsafe {
        asm!("vmxoff", "setc {c}", "setz {z}", c = out(reg_byte) carry, z = out(reg_byte) zero, options(nostack));
    }
    outcome(carry, zero)
}

/// VMPTRST: the address of the current VMCS, all ones if there is none.
pub fn vmptrst() -> u64 {
    let mut address = 0_u64;
    // SAFETY: writes the local.
    unsafe { asm!("vmptrst qword ptr [{}]", in(reg) &raw mut address, options(nostack)) };
    address
}

/// VMREAD of the current VMCS.
pub fn vmread(field: Field) -> Result<u64, Fail> {
    let value: u64;
    let (carry, zero): (u8, u8);
    // SAFETY: reads a field.
    unsafe {
        asm!("vmread {v}, {f}", "setc {c}", "setz {z}", v = inout(reg) 0_u64 => value, f = in(reg) u64::from(field.0),
            c = out(reg_byte) carry, z = out(reg_byte) zero, options(nostack));
    }
    if zero != 0 && field == field::INSTRUCTION_ERROR {
        return Err(Fail::Valid(12)); // nothing more can be asked
    }
    outcome(carry, zero).map(|()| value)
}

/// VMWRITE of the current VMCS.
pub fn vmwrite(field: Field, value: u64) -> Result<(), Fail> {
    let (carry, zero): (u8, u8);
    // SAFETY: nothing but a VM entry or exit looks at the field, which is the scenario's affair.
    unsafe {
        asm!("vmwrite {f}, {v}", "setc {c}", "setz {z}", v = in(reg) value, f = in(reg) u64::from(field.0),
            c = out(reg_byte) carry, z = out(reg_byte) zero, options(nostack));
    }
    outcome(carry, zero)
}
