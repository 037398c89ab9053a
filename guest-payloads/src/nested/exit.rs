//! Exits by meaning.

use crate::event::{HAS_ERROR, VALID};
use crate::{report, svm, vmx};

/// Why L2 exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "instructions and registers by name")]
pub enum Reason {
    /// L2's function is done.
    Returned,
    /// VMMCALL or VMCALL, elsewhere.
    Hypercall,
    Hlt,
    Cpuid,
    Rdtsc,
    Rdtscp,
    Rdpmc,
    Invlpg,
    Pause,
    Wbinvd,
    Invd,
    Xsetbv,
    Port,
    ReadMsr,
    WriteMsr,
    /// Control registers, by number.
    ReadCr(u8),
    WriteCr(u8),
    ReadDr,
    WriteDr,
    /// LGDT, SIDT, STR and the like.
    DescriptorTable,
    /// By vector.
    Exception(u8),
    Interrupt,
    Nmi,
    Smi,
    Init,
    /// L2 can take an interrupt.
    InterruptWindow,
    /// Second-level paging: a nested page fault, an EPT violation.
    NestedFault,
    /// A triple fault.
    Shutdown,
    /// L1 asked for an L2 that cannot be.
    Refused,
    /// An instruction of SVM or VMX.
    Virtualization,
    /// None of these.
    Other,
}

impl Reason {
    /// The name under which [`Exit::tell`] reports it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Returned => "exit returned",
            Self::Hypercall => "exit hypercall",
            Self::Hlt => "exit hlt",
            Self::Cpuid => "exit cpuid",
            Self::Rdtsc => "exit rdtsc",
            Self::Rdtscp => "exit rdtscp",
            Self::Rdpmc => "exit rdpmc",
            Self::Invlpg => "exit invlpg",
            Self::Pause => "exit pause",
            Self::Wbinvd => "exit wbinvd",
            Self::Invd => "exit invd",
            Self::Xsetbv => "exit xsetbv",
            Self::Port => "exit port",
            Self::ReadMsr => "exit rdmsr",
            Self::WriteMsr => "exit wrmsr",
            Self::ReadCr(0) => "exit read cr0",
            Self::ReadCr(3) => "exit read cr3",
            Self::ReadCr(4) => "exit read cr4",
            Self::ReadCr(8) => "exit read cr8",
            Self::ReadCr(_) => "exit read cr",
            Self::WriteCr(0) => "exit write cr0",
            Self::WriteCr(3) => "exit write cr3",
            Self::WriteCr(4) => "exit write cr4",
            Self::WriteCr(8) => "exit write cr8",
            Self::WriteCr(_) => "exit write cr",
            Self::ReadDr => "exit read dr",
            Self::WriteDr => "exit write dr",
            Self::DescriptorTable => "exit descriptor table",
            Self::Exception(vector) => exception_name(vector),
            Self::Interrupt => "exit interrupt",
            Self::Nmi => "exit nmi",
            Self::Smi => "exit smi",
            Self::Init => "exit init",
            Self::InterruptWindow => "exit interrupt window",
            Self::NestedFault => "exit nested fault",
            Self::Shutdown => "exit shutdown",
            Self::Refused => "exit refused",
            Self::Virtualization => "exit virtualization",
            Self::Other => "exit other",
        }
    }
}

const fn exception_name(vector: u8) -> &'static str {
    match vector {
        0 => "exit de",
        1 => "exit db",
        3 => "exit bp",
        6 => "exit ud",
        7 => "exit nm",
        8 => "exit df",
        10 => "exit ts",
        11 => "exit np",
        12 => "exit ss",
        13 => "exit gp",
        14 => "exit pf",
        17 => "exit ac",
        _ => "exit exception",
    }
}

/// An exit, by what VMCB and VMCS have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub reason: Reason,
    /// L2's RIP.
    pub rip: u64,
    /// The CPU's own code: EXITCODE, or the exit reason.
    pub code: u64,
    /// EXITINFO1, or the qualification.
    pub detail: u64,
    /// Guest-physical, of a nested fault; linear, of #PF; else 0.
    pub address: u64,
    /// The error code of an exception that has one; else 0.
    pub error: u64,
    /// The event whose delivery the exit interrupted ([`event`](crate::nested::event)); 0 if there is none.
    pub vectoring: u64,
    /// Its error code, or 0.
    pub vectoring_error: u64,
}

impl Exit {
    /// Reports the reason by its name, with RIP as the value; `exit returned` with 0, since where that is goes without
    /// saying; `exit other` with the CPU's own code.
    pub fn tell(&self) {
        let value = match self.reason {
            Reason::Returned => 0,
            Reason::Other => self.code,
            _ => self.rip,
        };
        report::value(self.reason.name(), value);
    }

    /// Reports also the event whose delivery the exit interrupted, and its error code if it has one.
    pub fn tell_vectoring(&self) {
        self.tell();
        report::value("vectoring", self.vectoring);
        if self.vectoring & HAS_ERROR != 0 {
            report::value("vectoring error", self.vectoring_error);
        }
    }
}

impl From<svm::Exit> for Exit {
    fn from(exit: svm::Exit) -> Self {
        let reason = svm_reason(&exit);
        let (address, error) = match reason {
            Reason::Exception(14) => (exit.info2, exit.info1),
            Reason::Exception(8 | 10..=13 | 17) => (0, exit.info1),
            Reason::NestedFault => (exit.info2, 0),
            _ => (0, 0),
        };
        let there = exit.int_info & VALID != 0;
        Self {
            reason,
            rip: exit.rip,
            code: exit.code,
            detail: exit.info1,
            address,
            error,
            vectoring: if there { exit.int_info & 0xffff_ffff } else { 0 },
            vectoring_error: if there { exit.int_info >> 32 } else { 0 },
        }
    }
}

fn svm_reason(svm: &svm::Exit) -> Reason {
    use svm::exit;
    match svm.code {
        exit::VMMCALL if svm.rip == svm::returned as *const () as u64 => Reason::Returned,
        exit::VMMCALL => Reason::Hypercall,
        0x00..0x10 => Reason::ReadCr(svm.code as u8),
        0x10..0x20 => Reason::WriteCr(svm.code as u8 - 0x10),
        0x20..0x30 => Reason::ReadDr,
        0x30..0x40 => Reason::WriteDr,
        exit::EXCEPTION..exit::INTR => Reason::Exception((svm.code - exit::EXCEPTION) as u8),
        exit::INTR => Reason::Interrupt,
        exit::NMI => Reason::Nmi,
        exit::SMI => Reason::Smi,
        exit::INIT => Reason::Init,
        exit::VINTR => Reason::InterruptWindow,
        exit::IDTR_READ..exit::RDTSC => Reason::DescriptorTable,
        exit::RDTSC => Reason::Rdtsc,
        exit::RDPMC => Reason::Rdpmc,
        exit::CPUID => Reason::Cpuid,
        exit::INVD => Reason::Invd,
        exit::PAUSE => Reason::Pause,
        exit::HLT => Reason::Hlt,
        exit::INVLPG => Reason::Invlpg,
        exit::IOIO => Reason::Port,
        exit::MSR if svm.info1 == 0 => Reason::ReadMsr,
        exit::MSR => Reason::WriteMsr,
        exit::SHUTDOWN => Reason::Shutdown,
        exit::INVLPGA | exit::VMRUN | exit::VMLOAD | exit::VMSAVE | exit::STGI | exit::CLGI => {
            Reason::Virtualization
        }
        exit::RDTSCP => Reason::Rdtscp,
        exit::WBINVD => Reason::Wbinvd,
        exit::XSETBV => Reason::Xsetbv,
        exit::NPF => Reason::NestedFault,
        exit::INVALID => Reason::Refused,
        _ => Reason::Other,
    }
}

impl From<vmx::Exit> for Exit {
    fn from(exit: vmx::Exit) -> Self {
        let reason = vmx_reason(&exit);
        let there = exit.vectoring & VALID != 0;
        Self {
            reason,
            rip: exit.rip,
            code: exit.reason,
            detail: exit.qualification,
            address: match reason {
                Reason::Exception(14) => exit.qualification,
                Reason::NestedFault => exit.physical,
                _ => 0,
            },
            error: match reason {
                Reason::Exception(_) if exit.event & HAS_ERROR != 0 => exit.error,
                _ => 0,
            },
            vectoring: if there { exit.vectoring } else { 0 },
            vectoring_error: if there && exit.vectoring & HAS_ERROR != 0 { exit.vectoring_error } else { 0 },
        }
    }
}

fn vmx_reason(vmx: &vmx::Exit) -> Reason {
    use vmx::exit;
    match vmx.reason {
        reason if reason & exit::FAILED_ENTRY != 0 => Reason::Refused,
        // Bits 10:8 of the event: its type.
        exit::EXCEPTION_OR_NMI if vmx.event >> 8 & 7 == 2 => Reason::Nmi,
        exit::EXCEPTION_OR_NMI => Reason::Exception(vmx.event as u8),
        exit::EXTERNAL_INTERRUPT => Reason::Interrupt,
        exit::TRIPLE_FAULT => Reason::Shutdown,
        exit::INIT => Reason::Init,
        exit::INTERRUPT_WINDOW => Reason::InterruptWindow,
        exit::CPUID => Reason::Cpuid,
        exit::HLT => Reason::Hlt,
        exit::INVD => Reason::Invd,
        exit::INVLPG => Reason::Invlpg,
        exit::RDPMC => Reason::Rdpmc,
        exit::RDTSC => Reason::Rdtsc,
        exit::RDTSCP => Reason::Rdtscp,
        exit::VMCALL if vmx.rip == vmx::returned as *const () as u64 => Reason::Returned,
        exit::VMCALL => Reason::Hypercall,
        exit::VMCLEAR..=exit::VMXON | exit::INVEPT | exit::INVVPID => Reason::Virtualization,
        // Bits 3:0 of the qualification: which register; 5:4: MOV to it, MOV from it, CLTS, LMSW.
        exit::CR_ACCESS if vmx.qualification >> 4 & 3 == 1 => Reason::ReadCr(vmx.qualification as u8 & 15),
        exit::CR_ACCESS => Reason::WriteCr(vmx.qualification as u8 & 15),
        // Bit 4: MOV from it.
        exit::MOV_DR if vmx.qualification & 16 != 0 => Reason::ReadDr,
        exit::MOV_DR => Reason::WriteDr,
        exit::IO => Reason::Port,
        exit::RDMSR => Reason::ReadMsr,
        exit::WRMSR => Reason::WriteMsr,
        exit::PAUSE => Reason::Pause,
        exit::GDTR_OR_IDTR | exit::LDTR_OR_TR => Reason::DescriptorTable,
        exit::EPT_VIOLATION => Reason::NestedFault,
        exit::WBINVD => Reason::Wbinvd,
        exit::XSETBV => Reason::Xsetbv,
        _ => Reason::Other,
    }
}
