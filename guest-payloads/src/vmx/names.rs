//! Names: fields of the VMCS, exit reasons, controls and events (SDM vol. 3C, "Virtual Machine Control Structures"; vol.
//! 3D, appendices B and C).

/// A field of the VMCS, by its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field(pub u32);

/// The fields.
#[expect(missing_docs, reason = "names of SDM vol. 3D, appendix B")]
pub mod field {
    use super::Field;

    pub const VPID: Field = Field(0);
    /// Bits 7:0: the highest virtual interrupt requested (RVI). 15:8: in service (SVI).
    pub const INTERRUPT_STATUS: Field = Field(0x810);
    pub const IO_BITMAP_A: Field = Field(0x2000);
    pub const IO_BITMAP_B: Field = Field(0x2002);
    pub const MSR_BITMAPS: Field = Field(0x2004);
    pub const EXIT_STORE_LIST: Field = Field(0x2006);
    pub const EXIT_LOAD_LIST: Field = Field(0x2008);
    pub const ENTRY_LOAD_LIST: Field = Field(0x200a);
    pub const TSC_OFFSET: Field = Field(0x2010);
    pub const VIRTUAL_APIC: Field = Field(0x2012);
    pub const APIC_ACCESS: Field = Field(0x2014);
    pub const EPT_POINTER: Field = Field(0x201a);
    /// A bit for each vector whose EOI exits: 0 to 63; three more such fields follow.
    pub const EOI_EXITS_0: Field = Field(0x201c);
    pub const VMREAD_BITMAP: Field = Field(0x2026);
    pub const VMWRITE_BITMAP: Field = Field(0x2028);
    pub const GUEST_PHYSICAL: Field = Field(0x2400);
    pub const LINK_POINTER: Field = Field(0x2800);
    pub const DEBUGCTL: Field = Field(0x2802);
    pub const PAT: Field = Field(0x2804);
    pub const EFER: Field = Field(0x2806);
    pub const HOST_PAT: Field = Field(0x2c00);
    pub const HOST_EFER: Field = Field(0x2c02);

    pub const PIN_CONTROLS: Field = Field(0x4000);
    pub const PROCESSOR_CONTROLS: Field = Field(0x4002);
    /// A bit for each exception that exits.
    pub const EXCEPTIONS: Field = Field(0x4004);
    pub const PF_MASK: Field = Field(0x4006);
    pub const PF_MATCH: Field = Field(0x4008);
    pub const CR3_TARGETS: Field = Field(0x400a);
    pub const EXIT_CONTROLS: Field = Field(0x400c);
    pub const EXIT_STORE_COUNT: Field = Field(0x400e);
    pub const EXIT_LOAD_COUNT: Field = Field(0x4010);
    pub const ENTRY_CONTROLS: Field = Field(0x4012);
    pub const ENTRY_LOAD_COUNT: Field = Field(0x4014);
    /// See [`event`](super::event).
    pub const ENTRY_EVENT: Field = Field(0x4016);
    pub const ENTRY_ERROR: Field = Field(0x4018);
    pub const ENTRY_LENGTH: Field = Field(0x401a);
    pub const TPR_THRESHOLD: Field = Field(0x401c);
    pub const PROCESSOR_CONTROLS_2: Field = Field(0x401e);
    pub const INSTRUCTION_ERROR: Field = Field(0x4400);
    pub const EXIT_REASON: Field = Field(0x4402);
    pub const EXIT_EVENT: Field = Field(0x4404);
    pub const EXIT_ERROR: Field = Field(0x4406);
    pub const VECTORING_EVENT: Field = Field(0x4408);
    pub const VECTORING_ERROR: Field = Field(0x440a);
    pub const INSTRUCTION_LENGTH: Field = Field(0x440c);
    pub const INSTRUCTION_INFO: Field = Field(0x440e);
    /// Bit 0: blocking by STI. 1: by MOV SS. 2: by SMI. 3: by NMI.
    pub const INTERRUPTIBILITY: Field = Field(0x4824);
    /// 0 active, 1 HLT, 2 shutdown, 3 wait-for-SIPI.
    pub const ACTIVITY: Field = Field(0x4826);
    pub const SYSENTER_CS: Field = Field(0x482a);
    pub const PREEMPTION_TIMER: Field = Field(0x482e);
    pub const HOST_SYSENTER_CS: Field = Field(0x4c00);

    pub const CR0_MASK: Field = Field(0x6000);
    pub const CR4_MASK: Field = Field(0x6002);
    pub const CR0_SHADOW: Field = Field(0x6004);
    pub const CR4_SHADOW: Field = Field(0x6006);
    pub const CR3_TARGET_0: Field = Field(0x6008);
    pub const QUALIFICATION: Field = Field(0x6400);
    pub const GUEST_LINEAR: Field = Field(0x640a);
    pub const CR0: Field = Field(0x6800);
    pub const CR3: Field = Field(0x6802);
    pub const CR4: Field = Field(0x6804);
    pub const DR7: Field = Field(0x681a);
    pub const RSP: Field = Field(0x681c);
    pub const RIP: Field = Field(0x681e);
    pub const RFLAGS: Field = Field(0x6820);
    pub const PENDING_DEBUG: Field = Field(0x6822);
    pub const SYSENTER_ESP: Field = Field(0x6824);
    pub const SYSENTER_EIP: Field = Field(0x6826);
    pub const HOST_CR0: Field = Field(0x6c00);
    pub const HOST_CR3: Field = Field(0x6c02);
    pub const HOST_CR4: Field = Field(0x6c04);
    pub const HOST_FS_BASE: Field = Field(0x6c06);
    pub const HOST_GS_BASE: Field = Field(0x6c08);
    pub const HOST_TR_BASE: Field = Field(0x6c0a);
    pub const HOST_GDTR_BASE: Field = Field(0x6c0c);
    pub const HOST_IDTR_BASE: Field = Field(0x6c0e);
    pub const HOST_SYSENTER_ESP: Field = Field(0x6c10);
    pub const HOST_SYSENTER_EIP: Field = Field(0x6c12);
    pub const HOST_RSP: Field = Field(0x6c14);
    pub const HOST_RIP: Field = Field(0x6c16);

    /// Segments, in the order of the encodings; GDTR and IDTR have a base and a limit only.
    pub const ES: u32 = 0;
    pub const CS: u32 = 1;
    pub const SS: u32 = 2;
    pub const DS: u32 = 3;
    pub const FS: u32 = 4;
    pub const GS: u32 = 5;
    pub const LDTR: u32 = 6;
    pub const TR: u32 = 7;
    pub const GDTR: u32 = 8;
    pub const IDTR: u32 = 9;

    /// L2's selector.
    pub const fn selector(segment: u32) -> Field {
        Field(0x800 + 2 * segment)
    }

    /// L1's selector after an exit; there is none of LDTR, and TR comes in its place.
    pub const fn host_selector(segment: u32) -> Field {
        Field(0xc00 + 2 * if segment == TR { LDTR } else { segment })
    }

    /// L2's limit in bytes.
    pub const fn limit(segment: u32) -> Field {
        Field(0x4800 + 2 * segment)
    }

    /// L2's access rights: bits 47:40 and 55:52 of the descriptor in bits 7:0 and 15:12; bit 16: unusable.
    pub const fn rights(segment: u32) -> Field {
        Field(0x4814 + 2 * segment)
    }

    /// L2's base.
    pub const fn base(segment: u32) -> Field {
        Field(0x6806 + 2 * segment)
    }
}

/// Basic exit reasons.
#[expect(missing_docs, reason = "names of SDM vol. 3D, appendix C")]
pub mod exit {
    pub const EXCEPTION_OR_NMI: u64 = 0;
    pub const EXTERNAL_INTERRUPT: u64 = 1;
    pub const TRIPLE_FAULT: u64 = 2;
    pub const INIT: u64 = 3;
    pub const SIPI: u64 = 4;
    pub const INTERRUPT_WINDOW: u64 = 7;
    pub const NMI_WINDOW: u64 = 8;
    pub const CPUID: u64 = 10;
    pub const HLT: u64 = 12;
    pub const INVD: u64 = 13;
    pub const INVLPG: u64 = 14;
    pub const RDPMC: u64 = 15;
    pub const RDTSC: u64 = 16;
    pub const VMCALL: u64 = 18;
    pub const VMCLEAR: u64 = 19;
    pub const VMLAUNCH: u64 = 20;
    pub const VMPTRLD: u64 = 21;
    pub const VMPTRST: u64 = 22;
    pub const VMREAD: u64 = 23;
    pub const VMRESUME: u64 = 24;
    pub const VMWRITE: u64 = 25;
    pub const VMXOFF: u64 = 26;
    pub const VMXON: u64 = 27;
    pub const CR_ACCESS: u64 = 28;
    pub const MOV_DR: u64 = 29;
    pub const IO: u64 = 30;
    pub const RDMSR: u64 = 31;
    pub const WRMSR: u64 = 32;
    pub const INVALID_GUEST_STATE: u64 = 33;
    pub const MSR_LOADING: u64 = 34;
    pub const MWAIT: u64 = 36;
    pub const MONITOR_TRAP: u64 = 37;
    pub const MONITOR: u64 = 39;
    pub const PAUSE: u64 = 40;
    pub const TPR_BELOW_THRESHOLD: u64 = 43;
    pub const APIC_ACCESS: u64 = 44;
    pub const GDTR_OR_IDTR: u64 = 46;
    pub const LDTR_OR_TR: u64 = 47;
    pub const EPT_VIOLATION: u64 = 48;
    pub const EPT_MISCONFIGURATION: u64 = 49;
    pub const INVEPT: u64 = 50;
    pub const RDTSCP: u64 = 51;
    pub const PREEMPTION_TIMER: u64 = 52;
    pub const INVVPID: u64 = 53;
    pub const WBINVD: u64 = 54;
    pub const XSETBV: u64 = 55;
    pub const RDRAND: u64 = 57;
    pub const INVPCID: u64 = 58;
    pub const RDSEED: u64 = 61;
    /// Bit 31 of the exit reason: the VM entry failed.
    pub const FAILED_ENTRY: u64 = 1 << 31;
}

/// Controls, as (field, bit).
#[expect(missing_docs, reason = "names of SDM vol. 3C, \"VM-Execution Control Fields\" and those after it")]
pub mod controls {
    use super::{Field, field};

    pub const EXTERNAL_INTERRUPT_EXITING: (Field, u64) = (field::PIN_CONTROLS, 1);
    pub const NMI_EXITING: (Field, u64) = (field::PIN_CONTROLS, 1 << 3);
    pub const VIRTUAL_NMIS: (Field, u64) = (field::PIN_CONTROLS, 1 << 5);
    pub const PREEMPTION_TIMER: (Field, u64) = (field::PIN_CONTROLS, 1 << 6);
    pub const INTERRUPT_WINDOW: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 2);
    pub const TSC_OFFSETTING: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 3);
    pub const CR3_LOAD_EXITING: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 15);
    pub const CR3_STORE_EXITING: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 16);
    pub const CR8_LOAD_EXITING: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 19);
    pub const CR8_STORE_EXITING: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 20);
    pub const TPR_SHADOW: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 21);
    pub const NMI_WINDOW: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 22);
    pub const UNCONDITIONAL_IO: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 24);
    pub const IO_BITMAPS: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 25);
    pub const MSR_BITMAPS: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 28);
    pub const SECONDARY: (Field, u64) = (field::PROCESSOR_CONTROLS, 1 << 31);
    pub const APIC_ACCESSES: (Field, u64) = (field::PROCESSOR_CONTROLS_2, 1);
    pub const EPT: (Field, u64) = (field::PROCESSOR_CONTROLS_2, 1 << 1);
    pub const ENABLE_RDTSCP: (Field, u64) = (field::PROCESSOR_CONTROLS_2, 1 << 3);
    pub const X2APIC: (Field, u64) = (field::PROCESSOR_CONTROLS_2, 1 << 4);
    pub const ENABLE_VPID: (Field, u64) = (field::PROCESSOR_CONTROLS_2, 1 << 5);
    pub const APIC_REGISTERS: (Field, u64) = (field::PROCESSOR_CONTROLS_2, 1 << 8);
    pub const VIRTUAL_INTERRUPTS: (Field, u64) = (field::PROCESSOR_CONTROLS_2, 1 << 9);
    pub const SHADOW_VMCS: (Field, u64) = (field::PROCESSOR_CONTROLS_2, 1 << 14);
    pub const SAVE_DEBUG: (Field, u64) = (field::EXIT_CONTROLS, 1 << 2);
    pub const HOST_64_BIT: (Field, u64) = (field::EXIT_CONTROLS, 1 << 9);
    pub const ACKNOWLEDGE_INTERRUPT: (Field, u64) = (field::EXIT_CONTROLS, 1 << 15);
    pub const SAVE_PAT: (Field, u64) = (field::EXIT_CONTROLS, 1 << 18);
    pub const LOAD_HOST_PAT: (Field, u64) = (field::EXIT_CONTROLS, 1 << 19);
    pub const SAVE_EFER: (Field, u64) = (field::EXIT_CONTROLS, 1 << 20);
    pub const LOAD_HOST_EFER: (Field, u64) = (field::EXIT_CONTROLS, 1 << 21);
    pub const SAVE_PREEMPTION_TIMER: (Field, u64) = (field::EXIT_CONTROLS, 1 << 22);
    pub const LOAD_DEBUG: (Field, u64) = (field::ENTRY_CONTROLS, 1 << 2);
    pub const GUEST_64_BIT: (Field, u64) = (field::ENTRY_CONTROLS, 1 << 9);
    pub const LOAD_PAT: (Field, u64) = (field::ENTRY_CONTROLS, 1 << 14);
    pub const LOAD_EFER: (Field, u64) = (field::ENTRY_CONTROLS, 1 << 15);
}

/// Events as [`field::ENTRY_EVENT`], [`field::EXIT_EVENT`] and [`field::VECTORING_EVENT`] hold them (SDM vol. 3C,
/// "VM-Entry Controls for Event Injection"). The error code has a field of its own.
pub mod event {
    pub use crate::event::*;

    /// A hardware exception with an error code.
    pub const fn exception_with(vector: u8) -> u64 {
        exception(vector) | HAS_ERROR
    }
}
