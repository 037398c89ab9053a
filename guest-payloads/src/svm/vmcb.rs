//! The VMCB: its fields by name, and what an intercept is called (APM vol. 2, appendices B and C).
#![expect(unsafe_code, reason = "a page that the CPU writes to")]

use crate::page::Page;

/// A field of the VMCB: offset in the page, and width in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field(u16, u8);

/// The fields. Those of the control area come first, those of the state-save area begin at [`ES`](field::ES).
#[expect(missing_docs, reason = "names of APM vol. 2, tables B-1 and B-2")]
pub mod field {
    use super::Field;

    pub const IOPM_BASE_PA: Field = Field(0x40, 8);
    pub const MSRPM_BASE_PA: Field = Field(0x48, 8);
    pub const TSC_OFFSET: Field = Field(0x50, 8);
    pub const ASID: Field = Field(0x58, 4);
    pub const TLB_CONTROL: Field = Field(0x5c, 1);
    /// V_TPR, V_IRQ, V_GIF, V_INTR_MASKING...: see [`int_ctl`](super::int_ctl).
    pub const INT_CTL: Field = Field(0x60, 8);
    /// Bit 0: interrupt shadow. Bit 1: the guest's IF, as with virtual interrupt masking.
    pub const INT_SHADOW: Field = Field(0x68, 8);
    pub const EXITCODE: Field = Field(0x70, 8);
    pub const EXITINFO1: Field = Field(0x78, 8);
    pub const EXITINFO2: Field = Field(0x80, 8);
    /// Bits 31:0 as in [`EVENTINJ`]; bits 63:32: the error code.
    pub const EXITINTINFO: Field = Field(0x88, 8);
    /// Bit 0: nested paging.
    pub const NP_ENABLE: Field = Field(0x90, 8);
    /// See [`event`](super::event).
    pub const EVENTINJ: Field = Field(0xa8, 8);
    pub const N_CR3: Field = Field(0xb0, 8);
    pub const VIRT_EXT: Field = Field(0xb8, 8);
    pub const CLEAN: Field = Field(0xc0, 4);
    pub const NRIP: Field = Field(0xc8, 8);

    /// Segments have four fields: selector, attributes, limit and base, at 0, 2, 4 and 8.
    pub const ES: u16 = 0x400;
    pub const CS: u16 = 0x410;
    pub const SS: u16 = 0x420;
    pub const DS: u16 = 0x430;
    pub const FS: u16 = 0x440;
    pub const GS: u16 = 0x450;
    pub const GDTR: u16 = 0x460;
    pub const LDTR: u16 = 0x470;
    pub const IDTR: u16 = 0x480;
    pub const TR: u16 = 0x490;
    pub const CPL: Field = Field(0x4cb, 1);
    pub const EFER: Field = Field(0x4d0, 8);
    pub const CR4: Field = Field(0x548, 8);
    pub const CR3: Field = Field(0x550, 8);
    pub const CR0: Field = Field(0x558, 8);
    pub const DR7: Field = Field(0x560, 8);
    pub const DR6: Field = Field(0x568, 8);
    pub const RFLAGS: Field = Field(0x570, 8);
    pub const RIP: Field = Field(0x578, 8);
    pub const RSP: Field = Field(0x5d8, 8);
    pub const RAX: Field = Field(0x5f8, 8);
    pub const STAR: Field = Field(0x600, 8);
    pub const LSTAR: Field = Field(0x608, 8);
    pub const CSTAR: Field = Field(0x610, 8);
    pub const SFMASK: Field = Field(0x618, 8);
    pub const KERNEL_GS_BASE: Field = Field(0x620, 8);
    pub const SYSENTER_CS: Field = Field(0x628, 8);
    pub const SYSENTER_ESP: Field = Field(0x630, 8);
    pub const SYSENTER_EIP: Field = Field(0x638, 8);
    pub const CR2: Field = Field(0x640, 8);
    pub const G_PAT: Field = Field(0x668, 8);

    /// A segment's selector.
    pub const fn selector(segment: u16) -> Field {
        Field(segment, 2)
    }

    /// A segment's attributes: bits 47:40 and 55:52 of its descriptor, side by side.
    pub const fn attributes(segment: u16) -> Field {
        Field(segment + 2, 2)
    }

    /// A segment's or a descriptor table's limit in bytes.
    pub const fn limit(segment: u16) -> Field {
        Field(segment + 4, 4)
    }

    /// A segment's or a descriptor table's base.
    pub const fn base(segment: u16) -> Field {
        Field(segment + 8, 8)
    }
}

/// Exit codes. Those below 0xa0 are also intercepts: bit `code % 32` of the intercept word `code / 32`.
#[expect(missing_docs, reason = "names of APM vol. 2, appendix C")]
pub mod exit {
    pub const READ_CR0: u64 = 0x00;
    pub const READ_CR3: u64 = 0x03;
    pub const WRITE_CR0: u64 = 0x10;
    pub const WRITE_CR3: u64 = 0x13;
    pub const WRITE_CR4: u64 = 0x14;
    pub const WRITE_CR8: u64 = 0x18;
    pub const READ_DR0: u64 = 0x20;
    pub const WRITE_DR7: u64 = 0x37;
    /// Exception 0; the other vectors follow.
    pub const EXCEPTION: u64 = 0x40;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const SMI: u64 = 0x62;
    pub const INIT: u64 = 0x63;
    pub const VINTR: u64 = 0x64;
    pub const CR0_SEL_WRITE: u64 = 0x65;
    pub const IDTR_READ: u64 = 0x66;
    pub const TR_READ: u64 = 0x69;
    pub const GDTR_WRITE: u64 = 0x6b;
    pub const RDTSC: u64 = 0x6e;
    pub const RDPMC: u64 = 0x6f;
    pub const PUSHF: u64 = 0x70;
    pub const POPF: u64 = 0x71;
    pub const CPUID: u64 = 0x72;
    pub const IRET: u64 = 0x74;
    pub const SOFTWARE_INTERRUPT: u64 = 0x75;
    pub const INVD: u64 = 0x76;
    pub const PAUSE: u64 = 0x77;
    pub const HLT: u64 = 0x78;
    pub const INVLPG: u64 = 0x79;
    pub const INVLPGA: u64 = 0x7a;
    pub const IOIO: u64 = 0x7b;
    pub const MSR: u64 = 0x7c;
    pub const SHUTDOWN: u64 = 0x7f;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const VMSAVE: u64 = 0x83;
    pub const STGI: u64 = 0x84;
    pub const CLGI: u64 = 0x85;
    pub const RDTSCP: u64 = 0x87;
    pub const WBINVD: u64 = 0x89;
    pub const XSETBV: u64 = 0x8d;
    pub const NPF: u64 = 0x400;
    /// VMEXIT_INVALID: VMRUN refused the VMCB.
    pub const INVALID: u64 = u64::MAX;
}

/// Bits of [`field::INT_CTL`] (APM vol. 2, table B-1, offset 0x60).
pub mod int_ctl {
    /// V_IRQ: a virtual interrupt is pending.
    pub const IRQ: u64 = 1 << 8;
    /// V_GIF: L2's GIF, if [`GIF_ENABLE`].
    pub const GIF: u64 = 1 << 9;
    /// Virtual GIF: CLGI and STGI of L2 change V_GIF.
    pub const GIF_ENABLE: u64 = 1 << 25;
    /// V_IGN_TPR: V_TPR does not hold it back.
    pub const IGNORE_TPR: u64 = 1 << 20;
    /// V_INTR_MASKING: L2's IF and TPR mask virtual interrupts only; the IF of L1 masks physical ones.
    pub const MASKING: u64 = 1 << 24;

    /// A virtual interrupt that is pending, whatever V_TPR says.
    pub const fn interrupt(vector: u8) -> u64 {
        IRQ | IGNORE_TPR | (vector as u64) << 32
    }
}

/// Events as [`field::EVENTINJ`] and [`field::EXITINTINFO`] hold them (APM vol. 2, 15.20).
pub mod event {
    pub use crate::event::*;

    /// An exception with an error code.
    pub const fn exception_with(vector: u8, error: u32) -> u64 {
        exception(vector) | HAS_ERROR | (error as u64) << 32
    }
}

/// A VMCB.
#[derive(Debug)]
pub struct Vmcb(&'static Page);

impl Vmcb {
    /// The VMCB in `page`, as it is.
    pub(super) const fn new(page: &'static Page) -> Self {
        Self(page)
    }

    /// Guest-physical address.
    pub fn address(&self) -> u64 {
        self.0.address()
    }

    /// Reads a field.
    pub fn get(&self, field: Field) -> u64 {
        let at = field.0.into();
        // SAFETY: fields lie in the page, each aligned to its width.
        unsafe {
            match field.1 {
                1 => self.0.at::<u8>(at).read_volatile().into(),
                2 => self.0.at::<u16>(at).read_volatile().into(),
                4 => self.0.at::<u32>(at).read_volatile().into(),
                _ => self.0.at::<u64>(at).read_volatile(),
            }
        }
    }

    /// Writes a field; bits that it does not have are cut off.
    pub fn set(&mut self, field: Field, value: u64) {
        let at = field.0.into();
        // SAFETY: as for reading; nobody holds a reference to the bytes.
        unsafe {
            match field.1 {
                1 => self.0.at::<u8>(at).write_volatile(value as u8),
                2 => self.0.at::<u16>(at).write_volatile(value as u16),
                4 => self.0.at::<u32>(at).write_volatile(value as u32),
                _ => self.0.at::<u64>(at).write_volatile(value),
            }
        }
    }

    /// Turns the intercept with this exit code on; 0x40 + n is that of exception n.
    pub fn intercept(&mut self, code: u64) {
        let word = Self::word(code);
        self.set(word, self.get(word) | 1 << (code % 32));
    }

    /// Turns an intercept off.
    pub fn pass(&mut self, code: u64) {
        let word = Self::word(code);
        self.set(word, self.get(word) & !(1 << (code % 32)));
    }

    /// The word of intercepts that has this one; codes that are no intercepts count as those of the last word.
    fn word(code: u64) -> Field {
        Field(4 * (code / 32).min(4) as u16, 4)
    }
}
