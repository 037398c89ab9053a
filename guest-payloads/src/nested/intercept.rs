//! What L1 intercepts, by meaning.

use crate::svm::{self, int_ctl};
use crate::vmx::{self, controls};

/// Something that L2 does or that comes from outside, for L1 to see. VMX always exits for those that say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "instructions and registers by name")]
pub enum Intercept {
    Hlt,
    /// VMX: always.
    Cpuid,
    Rdtsc,
    /// VMX: with RDTSC, for which it has one control.
    Rdtscp,
    Rdpmc,
    Invlpg,
    Pause,
    Wbinvd,
    /// VMX: always.
    Invd,
    ReadCr3,
    WriteCr3,
    ReadCr8,
    WriteCr8,
    /// Accesses of debug registers.
    Dr,
    /// LGDT, SIDT, STR and the like.
    DescriptorTable,
    /// The exception with this vector.
    Exception(u8),
    /// External interrupts, whatever L2's IF is.
    Interrupt,
    Nmi,
    /// The moment from which L2 can take an interrupt.
    InterruptWindow,
    /// VMX: always.
    Shutdown,
    /// VMX: always.
    Init,
}

impl Intercept {
    pub(super) fn set_svm(self, l2: &mut svm::L2, on: bool) {
        use svm::exit;
        match self {
            // So that L2's IF holds nothing back, as on VMX.
            Self::Interrupt => {
                l2.host_interrupts = on;
                Self::flip(l2, int_ctl::MASKING, on);
            }
            // A virtual interrupt that is never taken: its intercept comes first.
            Self::InterruptWindow => Self::flip(l2, int_ctl::interrupt(0), on),
            _ => {}
        }
        let codes = match self {
            Self::Hlt => exit::HLT..=exit::HLT,
            Self::Cpuid => exit::CPUID..=exit::CPUID,
            Self::Rdtsc => exit::RDTSC..=exit::RDTSC,
            Self::Rdtscp => exit::RDTSCP..=exit::RDTSCP,
            Self::Rdpmc => exit::RDPMC..=exit::RDPMC,
            Self::Invlpg => exit::INVLPG..=exit::INVLPG,
            Self::Pause => exit::PAUSE..=exit::PAUSE,
            Self::Wbinvd => exit::WBINVD..=exit::WBINVD,
            Self::Invd => exit::INVD..=exit::INVD,
            Self::ReadCr3 => exit::READ_CR3..=exit::READ_CR3,
            Self::WriteCr3 => exit::WRITE_CR3..=exit::WRITE_CR3,
            Self::ReadCr8 => exit::READ_CR0 + 8..=exit::READ_CR0 + 8,
            Self::WriteCr8 => exit::WRITE_CR8..=exit::WRITE_CR8,
            Self::Dr => exit::READ_DR0..=exit::READ_DR0 + 31,
            Self::DescriptorTable => exit::IDTR_READ..=exit::IDTR_READ + 7,
            Self::Exception(vector) => {
                let code = exit::EXCEPTION + u64::from(vector);
                code..=code
            }
            Self::Interrupt => exit::INTR..=exit::INTR,
            Self::Nmi => exit::NMI..=exit::NMI,
            Self::InterruptWindow => exit::VINTR..=exit::VINTR,
            Self::Shutdown => exit::SHUTDOWN..=exit::SHUTDOWN,
            Self::Init => exit::INIT..=exit::INIT,
        };
        for code in codes {
            if on {
                l2.vmcb().intercept(code);
            } else {
                l2.vmcb().pass(code);
            }
        }
    }

    fn flip(l2: &mut svm::L2, bits: u64, on: bool) {
        let old = l2.vmcb().get(svm::field::INT_CTL);
        l2.vmcb().set(svm::field::INT_CTL, if on { old | bits } else { old & !bits });
    }

    pub(super) fn set_vmx(self, l2: &mut vmx::L2, on: bool) {
        use vmx::exit;
        let reason = match self {
            Self::Hlt => exit::HLT,
            Self::Rdtsc => exit::RDTSC,
            Self::Rdtscp => exit::RDTSCP,
            Self::Rdpmc => exit::RDPMC,
            Self::Invlpg => exit::INVLPG,
            Self::Pause => exit::PAUSE,
            Self::Wbinvd => exit::WBINVD,
            Self::Dr => exit::MOV_DR,
            Self::DescriptorTable => exit::GDTR_OR_IDTR,
            Self::Interrupt => exit::EXTERNAL_INTERRUPT,
            Self::Nmi => exit::EXCEPTION_OR_NMI,
            Self::InterruptWindow => exit::INTERRUPT_WINDOW,
            Self::ReadCr3 => return l2.vmcs().control(controls::CR3_STORE_EXITING, on),
            Self::WriteCr3 => return l2.vmcs().control(controls::CR3_LOAD_EXITING, on),
            Self::ReadCr8 => return l2.vmcs().control(controls::CR8_STORE_EXITING, on),
            Self::WriteCr8 => return l2.vmcs().control(controls::CR8_LOAD_EXITING, on),
            Self::Exception(vector) => {
                let old = l2.vmcs().get(vmx::field::EXCEPTIONS);
                let bit = 1 << vector;
                return l2.vmcs().set(vmx::field::EXCEPTIONS, if on { old | bit } else { old & !bit });
            }
            Self::Cpuid | Self::Invd | Self::Shutdown | Self::Init => return,
        };
        if on {
            l2.vmcs().intercept(reason);
        } else {
            l2.vmcs().pass(reason);
        }
    }
}
