//! This guest as a hypervisor (L1) on whichever CPU it runs: SVM and VMX by what they have in common.
//!
//! ```ignore
//! let mut l2 = nested::L2::new(halts);
//! l2.intercept(Intercept::Hlt);
//! l2.run().tell(); // `{ guest = "exit hlt", is = "at hlt_here" }`
//! ```
//! It is thin: each call is one of [`svm`] or of [`vmx`], and what only one of them has is asked of that one
//! ([`L2::svm`], [`L2::vmx`]). It knows the APM and the SDM, not what KVM makes of them.

mod exit;
mod intercept;
pub mod raise;

use core::arch::x86_64::__cpuid;

pub use crate::event;
use crate::event::HAS_ERROR;
use crate::registers::Registers;
use crate::{arg, svm, vmx};
pub use exit::{Exit, Reason};
pub use intercept::Intercept;

/// Second-level access rights: loads.
pub const READ: u64 = 1;
/// Stores.
pub const WRITE: u64 = 2;
/// Instruction fetches.
pub const EXECUTE: u64 = 4;
/// All of them.
pub const OPEN: u64 = READ | WRITE | EXECUTE;

/// In a second-level directory: a page of 2 MiB.
const LARGE: u64 = 1 << 7;

/// State of L2 that VMCB and VMCS both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "register names")]
pub enum State {
    Rip,
    Rsp,
    Rflags,
    Cr0,
    Cr3,
    Cr4,
    Dr7,
    CsSelector,
    DsSelector,
    GdtLimit,
    IdtLimit,
    /// Bit 0: interrupts are held off for one instruction.
    Shadow,
    /// The event that the next entry injects; bit 31 says that there is one.
    Injection,
}

impl State {
    fn of_svm(self) -> svm::Field {
        use svm::field;
        match self {
            Self::Rip => field::RIP,
            Self::Rsp => field::RSP,
            Self::Rflags => field::RFLAGS,
            Self::Cr0 => field::CR0,
            Self::Cr3 => field::CR3,
            Self::Cr4 => field::CR4,
            Self::Dr7 => field::DR7,
            Self::CsSelector => field::selector(field::CS),
            Self::DsSelector => field::selector(field::DS),
            Self::GdtLimit => field::limit(field::GDTR),
            Self::IdtLimit => field::limit(field::IDTR),
            Self::Shadow => field::INT_SHADOW,
            Self::Injection => field::EVENTINJ,
        }
    }

    fn of_vmx(self) -> vmx::Field {
        use vmx::field;
        match self {
            Self::Rip => field::RIP,
            Self::Rsp => field::RSP,
            Self::Rflags => field::RFLAGS,
            Self::Cr0 => field::CR0,
            Self::Cr3 => field::CR3,
            Self::Cr4 => field::CR4,
            Self::Dr7 => field::DR7,
            Self::CsSelector => field::selector(field::CS),
            Self::DsSelector => field::selector(field::DS),
            Self::GdtLimit => field::limit(field::GDTR),
            Self::IdtLimit => field::limit(field::IDTR),
            Self::Shadow => field::INTERRUPTIBILITY,
            Self::Injection => field::ENTRY_EVENT,
        }
    }
}

/// Whether this CPU has SVM.
pub fn has_svm() -> bool {
    __cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx >> 2 & 1 != 0
}

/// Whether this CPU has VMX.
pub fn has_vmx() -> bool {
    __cpuid(1).ecx >> 5 & 1 != 0
}

#[derive(Debug)]
enum Extension {
    Svm(svm::L2),
    Vmx(vmx::L2),
}

/// L2, ready to run. There is one: making another starts over with the same pages.
#[derive(Debug)]
pub struct L2(Extension);

/// Calls the same of either extension.
macro_rules! either {
    ($l2:expr, $name:ident => $do:expr) => {
        match $l2 {
            Extension::Svm($name) => $do,
            Extension::Vmx($name) => $do,
        }
    };
}

impl L2 {
    /// Turns SVM or VMX on, and prepares `code` to run with L1's control registers and segments, interrupts off and
    /// nothing intercepted but what always is. Panics on a CPU without either.
    pub fn new(code: extern "C" fn()) -> Self {
        if has_svm() {
            Self(Extension::Svm(svm::L2::new(code)))
        } else if has_vmx() {
            Self(Extension::Vmx(vmx::L2::new(code)))
        } else {
            panic!("this CPU has neither SVM nor VMX: the case must require nested")
        }
    }

    /// As [`new`](L2::new), with what the case's arguments ask for: the intercept of the port `intercept-port`, and
    /// `nested-paging`.
    pub fn of_case(code: extern "C" fn()) -> Self {
        let mut l2 = Self::new(code);
        if let Some(port) = arg("intercept-port") {
            l2.intercept_port(port as u16, true);
        }
        if arg("nested-paging").is_some() {
            l2.nest_pages();
        }
        l2
    }

    /// The L2 of SVM, if that is what runs it.
    pub fn svm(&mut self) -> Option<&mut svm::L2> {
        match &mut self.0 {
            Extension::Svm(l2) => Some(l2),
            Extension::Vmx(_) => None,
        }
    }

    /// The L2 of VMX, if that is what runs it.
    pub fn vmx(&mut self) -> Option<&mut vmx::L2> {
        match &mut self.0 {
            Extension::Svm(_) => None,
            Extension::Vmx(l2) => Some(l2),
        }
    }

    /// L2's general registers but RSP, in and out.
    pub fn regs(&mut self) -> &mut Registers {
        either!(&mut self.0, l2 => &mut l2.regs)
    }

    /// Reads L2's state.
    pub fn get(&mut self, state: State) -> u64 {
        match &mut self.0 {
            Extension::Svm(l2) => l2.vmcb().get(state.of_svm()),
            Extension::Vmx(l2) => l2.vmcs().get(state.of_vmx()),
        }
    }

    /// Writes L2's state.
    pub fn set(&mut self, state: State, value: u64) {
        match &mut self.0 {
            Extension::Svm(l2) => l2.vmcb().set(state.of_svm(), value),
            Extension::Vmx(l2) => l2.vmcs().set(state.of_vmx(), value),
        }
    }

    /// Makes L2 go on at `code`, on an empty stack, with interrupts off.
    pub fn go(&mut self, code: extern "C" fn()) {
        either!(&mut self.0, l2 => l2.go(code));
    }

    /// Moves L2 behind an instruction of `bytes` bytes that exited before it was done.
    pub fn skip(&mut self, bytes: u64) {
        either!(&mut self.0, l2 => l2.skip(bytes));
    }

    /// Runs L2 until it exits.
    pub fn run(&mut self) -> Exit {
        match &mut self.0 {
            Extension::Svm(l2) => l2.run().into(),
            Extension::Vmx(l2) => l2.run().into(),
        }
    }

    /// Turns an intercept on.
    pub fn intercept(&mut self, what: Intercept) {
        match &mut self.0 {
            Extension::Svm(l2) => what.set_svm(l2, true),
            Extension::Vmx(l2) => what.set_vmx(l2, true),
        }
    }

    /// Turns an intercept off. VMX has some that are always on: [`Intercept`] says which.
    pub fn pass(&mut self, what: Intercept) {
        match &mut self.0 {
            Extension::Svm(l2) => what.set_svm(l2, false),
            Extension::Vmx(l2) => what.set_vmx(l2, false),
        }
    }

    /// Intercepts a port, or lets it pass.
    pub fn intercept_port(&mut self, port: u16, on: bool) {
        either!(&mut self.0, l2 => l2.intercept_port(port, on));
    }

    /// Intercepts reads and writes of an MSR, or lets them pass.
    pub fn intercept_msr(&mut self, msr: u32, read: bool, write: bool) {
        either!(&mut self.0, l2 => l2.intercept_msr(msr, read, write));
    }

    /// Turns second-level paging on, with everything below 4 GiB where it is, and open.
    pub fn nest_pages(&mut self) {
        either!(&mut self.0, l2 => l2.nest_pages());
    }

    /// Makes the guest-physical page at `gpa` lead to `to`, with the rights of `access`: 4 KiB below 4 MiB, 2 MiB above.
    /// What the TLB has of it is forgotten.
    pub fn map_nested(&mut self, gpa: u64, to: u64, access: u64) {
        match &mut self.0 {
            Extension::Svm(l2) => l2.change_nested(gpa, |old| {
                // The nested walk is a user's (APM vol. 2, 15.25.5); bit 63: no-execute.
                let execute = if access & EXECUTE == 0 { 1 << 63 } else { 0 };
                old & LARGE | to | execute | access & WRITE | if access & READ == 0 { 0 } else { 0b101 }
            }),
            Extension::Vmx(l2) => {
                // Bits 5:3: write-back.
                l2.change_nested(gpa, |old| old & LARGE | to | access | 6 << 3);
            }
        }
    }

    /// Makes the next entry inject an event ([`event`]), with `error` if it has an error code. A software interrupt returns
    /// behind an instruction of `length` bytes at RIP.
    pub fn inject(&mut self, event: u64, error: u32, length: u64) {
        match &mut self.0 {
            Extension::Svm(l2) => {
                let error = if event & HAS_ERROR == 0 { 0 } else { u64::from(error) << 32 };
                let rip = l2.vmcb().get(svm::field::RIP);
                l2.vmcb().set(svm::field::NRIP, rip + length);
                l2.vmcb().set(svm::field::EVENTINJ, event | error);
            }
            Extension::Vmx(l2) => {
                l2.vmcs().set(vmx::field::ENTRY_EVENT, event);
                l2.vmcs().set(vmx::field::ENTRY_ERROR, error.into());
                l2.vmcs().set(vmx::field::ENTRY_LENGTH, length);
            }
        }
    }

    /// Adds to what L2 reads as the TSC.
    pub fn offset_tsc(&mut self, offset: u64) {
        match &mut self.0 {
            Extension::Svm(l2) => l2.vmcb().set(svm::field::TSC_OFFSET, offset),
            Extension::Vmx(l2) => {
                l2.vmcs().control(vmx::controls::TSC_OFFSETTING, true);
                l2.vmcs().set(vmx::field::TSC_OFFSET, offset);
            }
        }
    }

    /// Gives L2 a CR8 of its own.
    pub fn virtualize_tpr(&mut self) {
        match &mut self.0 {
            Extension::Svm(l2) => {
                let old = l2.vmcb().get(svm::field::INT_CTL);
                l2.vmcb().set(svm::field::INT_CTL, old | svm::int_ctl::MASKING);
            }
            Extension::Vmx(l2) => l2.shadow_tpr(0),
        }
    }

    /// L2's own CR8.
    pub fn virtual_cr8(&mut self) -> u64 {
        match &mut self.0 {
            Extension::Svm(l2) => l2.vmcb().get(svm::field::INT_CTL) & 0xf,
            Extension::Vmx(l2) => l2.virtual_tpr() >> 4,
        }
    }
}
