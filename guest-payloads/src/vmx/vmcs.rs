//! The current VMCS, and which controls the CPU offers and demands.

use super::instructions::{vmread, vmwrite};
use super::names::{Field, controls, exit, field};
use crate::control;
use crate::page::Page;

/// The current VMCS.
#[derive(Debug)]
pub struct Vmcs(&'static Page);

impl Vmcs {
    /// The VMCS in `page`, which is current.
    pub(super) const fn new(page: &'static Page) -> Self {
        Self(page)
    }

    /// Guest-physical address.
    pub fn address(&self) -> u64 {
        self.0.address()
    }

    /// Reads a field. Panics if the CPU does not have it: [`vmread`] tells.
    pub fn get(&self, field: Field) -> u64 {
        match vmread(field) {
            Ok(value) => value,
            Err(fail) => panic!("VMREAD of field {:#x} fails with error {}", field.0, fail.number()),
        }
    }

    /// Writes a field. Panics if the CPU does not have it: [`vmwrite`] tells.
    pub fn set(&mut self, field: Field, value: u64) {
        if let Err(fail) = vmwrite(field, value) {
            panic!("VMWRITE of field {:#x} fails with error {}", field.0, fail.number());
        }
    }

    /// Turns a control on or off; one of the secondary controls brings their activation with it.
    pub fn control(&mut self, (field, bits): (Field, u64), on: bool) {
        let old = self.get(field);
        self.set(field, if on { old | bits } else { old & !bits });
        if on && field == field::PROCESSOR_CONTROLS_2 {
            self.control(controls::SECONDARY, true);
        }
    }

    /// Turns on the control that makes exits of this reason; a reason that always exits, or that needs more than a
    /// control, is left alone.
    pub fn intercept(&mut self, reason: u64) {
        if let Some(control) = Self::control_of(reason) {
            self.control(control, true);
        }
    }

    /// Turns the control of an exit reason off.
    pub fn pass(&mut self, reason: u64) {
        if let Some(control) = Self::control_of(reason) {
            self.control(control, false);
        }
    }

    /// Makes an exception exit.
    pub fn intercept_exception(&mut self, vector: u8) {
        self.set(field::EXCEPTIONS, self.get(field::EXCEPTIONS) | 1 << vector);
    }

    fn control_of(reason: u64) -> Option<(Field, u64)> {
        let processor = |bit: u64| Some((field::PROCESSOR_CONTROLS, 1 << bit));
        let secondary = |bit: u64| Some((field::PROCESSOR_CONTROLS_2, 1 << bit));
        match reason {
            exit::EXCEPTION_OR_NMI => Some(controls::NMI_EXITING),
            exit::EXTERNAL_INTERRUPT => Some(controls::EXTERNAL_INTERRUPT_EXITING),
            exit::INTERRUPT_WINDOW => Some(controls::INTERRUPT_WINDOW),
            exit::NMI_WINDOW => Some(controls::NMI_WINDOW),
            exit::HLT => processor(7),
            exit::INVLPG => processor(9),
            exit::MWAIT => processor(10),
            exit::RDPMC => processor(11),
            exit::RDTSC | exit::RDTSCP => processor(12),
            exit::MOV_DR => processor(23),
            exit::IO => Some(controls::UNCONDITIONAL_IO),
            exit::MONITOR_TRAP => processor(27),
            exit::MONITOR => processor(29),
            exit::PAUSE => processor(30),
            exit::GDTR_OR_IDTR | exit::LDTR_OR_TR => secondary(2),
            exit::WBINVD => secondary(6),
            exit::RDRAND => secondary(11),
            exit::RDSEED => secondary(16),
            exit::PREEMPTION_TIMER => Some(controls::PREEMPTION_TIMER),
            _ => None,
        }
    }
}

/// IA32_VMX_BASIC.
pub const BASIC_MSR: u32 = 0x480;
/// IA32_VMX_MISC.
pub const MISC_MSR: u32 = 0x485;
/// IA32_VMX_EPT_VPID_CAP.
pub const EPT_VPID_MSR: u32 = 0x48c;

/// The capability MSR of a control field: the controls that must be on in its low half, those that may in its high
/// (SDM vol. 3D, appendix A). The "true" one where there is one.
fn capability(controls: Field) -> u64 {
    let truly = if msr(BASIC_MSR) >> 55 & 1 == 0 { 0 } else { 0xc };
    match controls {
        field::PIN_CONTROLS => msr(0x481 + truly),
        field::PROCESSOR_CONTROLS => msr(0x482 + truly),
        field::EXIT_CONTROLS => msr(0x483 + truly),
        field::ENTRY_CONTROLS => msr(0x484 + truly),
        field::PROCESSOR_CONTROLS_2 if msr(0x482) >> 63 != 0 => msr(0x48b),
        _ => 0,
    }
}

/// Whether the CPU lets a control be on.
pub fn offers((field, bits): (Field, u64)) -> bool {
    (capability(field) >> 32) & bits == bits
}

/// The controls of a field that must be on.
pub(super) fn required(controls: Field) -> u64 {
    capability(controls) & 0xffff_ffff
}

/// An MSR that every CPU with VMX has.
pub(super) fn msr(number: u32) -> u64 {
    match control::read_msr(number) {
        Ok(value) => value,
        Err(fault) => panic!("vector {} at MSR {number:#x}: the case must require cpuid vmx", fault.vector),
    }
}
