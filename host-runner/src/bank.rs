//! Banks: the vCPU's state as named numbers, so that three words of the manifest language (`set`,
//! `check`, `keep`) serve every KVM_GET_*/KVM_SET_* pair.
//!
//! A bank knows which structure of KVM's holds a name. It does no ioctl: the machine does.

use kvm_bindings as kvm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{nested, smram};

/// A group of state that one pair of ioctls reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bank {
    /// KVM_GET_REGS: the general registers, RIP and RFLAGS.
    Regs,
    /// KVM_GET_SREGS: segments, descriptor tables, control registers, EFER.
    Sregs,
    /// KVM_GET_DEBUGREGS.
    DebugRegs,
    /// KVM_GET_VCPU_EVENTS: what is pending, injected, masked.
    Events,
    /// KVM_GET_MP_STATE.
    MpState,
    /// KVM_GET_LAPIC: registers of the local APIC by the SDM's names (vol. 3, table 13-1).
    Lapic,
    /// KVM_GET_MSRS: names such as `tsc`, or numbers such as `0x10`.
    Msrs,
    /// The shared `kvm_run` page: what KVM tells and takes without an ioctl.
    Run,
    /// KVM_GET_NESTED_STATE: whether the vCPU runs L2, and for whom (KVM API 4.114).
    Nested,
    /// The SMM state save area of a vCPU that has entered SMM, in guest memory at SMBASE + 0xfe00 (APM vol. 2, "SMM
    /// State-Save Area"). Segments as in the area: `selector`, `attributes`, `limit`, `base`.
    Smram,
}

/// A bank's content.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BankState {
    /// `kvm_regs`.
    Regs(kvm::kvm_regs),
    /// `kvm_sregs`.
    Sregs(kvm::kvm_sregs),
    /// `kvm_debugregs`.
    DebugRegs(kvm::kvm_debugregs),
    /// `kvm_vcpu_events`.
    Events(kvm::kvm_vcpu_events),
    /// `kvm_mp_state`.
    MpState(kvm::kvm_mp_state),
    /// The fields of `kvm_run` outside the union.
    Run(RunFields),
}

/// The fields of `kvm_run` that are not an exit's.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct RunFields {
    /// Host to KVM: exit when an interrupt can be injected.
    pub request_interrupt_window: u8,
    /// KVM to host: an interrupt can be injected now.
    pub ready_for_interrupt_injection: u8,
    /// RFLAGS.IF.
    pub if_flag: u8,
    /// CR8, both ways, without an in-kernel local APIC.
    pub cr8: u64,
    /// IA32_APIC_BASE.
    pub apic_base: u64,
    /// KVM_RUN_X86_SMM and friends.
    pub flags: u16,
}

/// A number does not fit the field that a name stands for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:#x} does not fit `{name}`, which has {bits} bits")]
pub struct TooWide {
    name: String,
    value: u64,
    bits: usize,
}

/// Makes, for one structure, the list of names and access by name.
macro_rules! fields {
    ($module:ident, $type:ty, $($name:literal => $($path:ident).+ $([$index:literal])?;)*) => {
        mod $module {
            use super::*;
            pub(super) const NAMES: &[&str] = &[$($name),*];
            pub(super) fn get(state: &$type, name: &str) -> Option<u64> {
                match name { $($name => Some(state.$($path).+ $([$index])? as u64),)* _ => None }
            }
            pub(super) fn set(state: &mut $type, name: &str, value: u64) -> Option<Result<(), TooWide>> {
                match name {
                    $($name => Some(put(&mut state.$($path).+ $([$index])?, name, value)),)*
                    _ => None,
                }
            }
        }
    };
}

fn put<T: TryFrom<u64>>(field: &mut T, name: &str, value: u64) -> Result<(), TooWide> {
    *field =
        T::try_from(value).map_err(|_| TooWide { name: name.into(), value, bits: size_of::<T>() * 8 })?;
    Ok(())
}

fields! { regs, kvm::kvm_regs,
    "rax" => rax; "rbx" => rbx; "rcx" => rcx; "rdx" => rdx; "rsi" => rsi; "rdi" => rdi; "rsp" => rsp; "rbp" => rbp;
    "r8" => r8; "r9" => r9; "r10" => r10; "r11" => r11; "r12" => r12; "r13" => r13; "r14" => r14; "r15" => r15;
    "rip" => rip; "rflags" => rflags;
}

fields! { sregs, kvm::kvm_sregs,
    "cr0" => cr0; "cr2" => cr2; "cr3" => cr3; "cr4" => cr4; "cr8" => cr8; "efer" => efer; "apic-base" => apic_base;
    "gdt.base" => gdt.base; "gdt.limit" => gdt.limit; "idt.base" => idt.base; "idt.limit" => idt.limit;
    "cs.base" => cs.base; "cs.limit" => cs.limit; "cs.selector" => cs.selector; "cs.type" => cs.type_; "cs.present" => cs.present; "cs.dpl" => cs.dpl; "cs.db" => cs.db; "cs.s" => cs.s; "cs.l" => cs.l; "cs.g" => cs.g; "cs.avl" => cs.avl; "cs.unusable" => cs.unusable;
    "ds.base" => ds.base; "ds.limit" => ds.limit; "ds.selector" => ds.selector; "ds.type" => ds.type_; "ds.present" => ds.present; "ds.dpl" => ds.dpl; "ds.db" => ds.db; "ds.s" => ds.s; "ds.l" => ds.l; "ds.g" => ds.g; "ds.avl" => ds.avl; "ds.unusable" => ds.unusable;
    "es.base" => es.base; "es.limit" => es.limit; "es.selector" => es.selector; "es.type" => es.type_; "es.present" => es.present; "es.dpl" => es.dpl; "es.db" => es.db; "es.s" => es.s; "es.l" => es.l; "es.g" => es.g; "es.avl" => es.avl; "es.unusable" => es.unusable;
    "fs.base" => fs.base; "fs.limit" => fs.limit; "fs.selector" => fs.selector; "fs.type" => fs.type_; "fs.present" => fs.present; "fs.dpl" => fs.dpl; "fs.db" => fs.db; "fs.s" => fs.s; "fs.l" => fs.l; "fs.g" => fs.g; "fs.avl" => fs.avl; "fs.unusable" => fs.unusable;
    "gs.base" => gs.base; "gs.limit" => gs.limit; "gs.selector" => gs.selector; "gs.type" => gs.type_; "gs.present" => gs.present; "gs.dpl" => gs.dpl; "gs.db" => gs.db; "gs.s" => gs.s; "gs.l" => gs.l; "gs.g" => gs.g; "gs.avl" => gs.avl; "gs.unusable" => gs.unusable;
    "ss.base" => ss.base; "ss.limit" => ss.limit; "ss.selector" => ss.selector; "ss.type" => ss.type_; "ss.present" => ss.present; "ss.dpl" => ss.dpl; "ss.db" => ss.db; "ss.s" => ss.s; "ss.l" => ss.l; "ss.g" => ss.g; "ss.avl" => ss.avl; "ss.unusable" => ss.unusable;
    "tr.base" => tr.base; "tr.limit" => tr.limit; "tr.selector" => tr.selector; "tr.type" => tr.type_; "tr.present" => tr.present; "tr.dpl" => tr.dpl; "tr.db" => tr.db; "tr.s" => tr.s; "tr.l" => tr.l; "tr.g" => tr.g; "tr.avl" => tr.avl; "tr.unusable" => tr.unusable;
    "ldt.base" => ldt.base; "ldt.limit" => ldt.limit; "ldt.selector" => ldt.selector; "ldt.type" => ldt.type_; "ldt.present" => ldt.present; "ldt.dpl" => ldt.dpl; "ldt.db" => ldt.db; "ldt.s" => ldt.s; "ldt.l" => ldt.l; "ldt.g" => ldt.g; "ldt.avl" => ldt.avl; "ldt.unusable" => ldt.unusable;
}

fields! { debug_regs, kvm::kvm_debugregs,
    "dr0" => db[0]; "dr1" => db[1]; "dr2" => db[2]; "dr3" => db[3]; "dr6" => dr6; "dr7" => dr7; "flags" => flags;
}

fields! { events, kvm::kvm_vcpu_events,
    "flags" => flags; "sipi-vector" => sipi_vector;
    "exception.injected" => exception.injected; "exception.pending" => exception.pending;
    "exception.vector" => exception.nr; "exception.has-error-code" => exception.has_error_code;
    "exception.error-code" => exception.error_code; "exception.has-payload" => exception_has_payload;
    "exception.payload" => exception_payload;
    "interrupt.injected" => interrupt.injected; "interrupt.vector" => interrupt.nr; "interrupt.soft" => interrupt.soft;
    "interrupt.shadow" => interrupt.shadow;
    "nmi.injected" => nmi.injected; "nmi.pending" => nmi.pending; "nmi.masked" => nmi.masked;
    "smi.smm" => smi.smm; "smi.pending" => smi.pending; "smi.inside-nmi" => smi.smm_inside_nmi;
    "smi.latched-init" => smi.latched_init;
    "triple-fault.pending" => triple_fault.pending;
}

fields! { mp_state, kvm::kvm_mp_state, "state" => mp_state; }

fields! { run, RunFields,
    "request-interrupt-window" => request_interrupt_window; "cr8" => cr8; "apic-base" => apic_base;
    "ready-for-interrupt-injection" => ready_for_interrupt_injection; "if-flag" => if_flag; "flags" => flags;
}

/// Local APIC registers: name and offset in the page (SDM vol. 3, table 13-1).
const LAPIC: &[(&str, usize)] = &[
    ("id", 0x20),
    ("version", 0x30),
    ("tpr", 0x80),
    ("apr", 0x90),
    ("ppr", 0xa0),
    ("ldr", 0xd0),
    ("dfr", 0xe0),
    ("svr", 0xf0),
    ("isr0", 0x100),
    ("isr1", 0x110),
    ("isr2", 0x120),
    ("isr3", 0x130),
    ("isr4", 0x140),
    ("isr5", 0x150),
    ("isr6", 0x160),
    ("isr7", 0x170),
    ("tmr0", 0x180),
    ("tmr1", 0x190),
    ("tmr2", 0x1a0),
    ("tmr3", 0x1b0),
    ("tmr4", 0x1c0),
    ("tmr5", 0x1d0),
    ("tmr6", 0x1e0),
    ("tmr7", 0x1f0),
    ("irr0", 0x200),
    ("irr1", 0x210),
    ("irr2", 0x220),
    ("irr3", 0x230),
    ("irr4", 0x240),
    ("irr5", 0x250),
    ("irr6", 0x260),
    ("irr7", 0x270),
    ("esr", 0x280),
    ("cmci", 0x2f0),
    ("icr-low", 0x300),
    ("icr-high", 0x310),
    ("lvt-timer", 0x320),
    ("lvt-thermal", 0x330),
    ("lvt-pmi", 0x340),
    ("lvt-lint0", 0x350),
    ("lvt-lint1", 0x360),
    ("lvt-error", 0x370),
    ("timer-initial", 0x380),
    ("timer-current", 0x390),
    ("timer-divide", 0x3e0),
];

/// MSRs that have a name in manifests (SDM vol. 4, table 2-2).
const MSRS: &[(&str, u32)] = &[
    ("tsc", 0x10),
    ("apic-base", 0x1b),
    ("tsc-adjust", 0x3b),
    ("sysenter-cs", 0x174),
    ("sysenter-esp", 0x175),
    ("sysenter-eip", 0x176),
    ("smbase", 0x9e),
    ("debugctl", 0x1d9),
    ("pat", 0x277),
    ("tsc-deadline", 0x6e0),
    ("efer", 0xc000_0080),
    ("star", 0xc000_0081),
    ("lstar", 0xc000_0082),
    ("cstar", 0xc000_0083),
    ("fmask", 0xc000_0084),
    ("fs-base", 0xc000_0100),
    ("gs-base", 0xc000_0101),
    ("kernel-gs-base", 0xc000_0102),
    ("tsc-aux", 0xc000_0103),
    ("vm-hsave-pa", 0xc001_0117),
];

/// Offset of a local APIC register in its page, by name.
pub fn lapic_register(name: &str) -> Option<usize> {
    LAPIC.iter().find(|(known, _)| *known == name).map(|&(_, offset)| offset)
}

/// An MSR's index, by name or as a hexadecimal number.
pub fn msr_index(name: &str) -> Option<u32> {
    let named = MSRS.iter().find(|(known, _)| *known == name).map(|&(_, index)| index);
    named.or_else(|| u32::from_str_radix(name.strip_prefix("0x")?, 16).ok())
}

impl Bank {
    /// Every bank.
    pub const ALL: &[Self] = &[
        Self::Regs,
        Self::Sregs,
        Self::DebugRegs,
        Self::Events,
        Self::MpState,
        Self::Lapic,
        Self::Msrs,
        Self::Run,
        Self::Nested,
        Self::Smram,
    ];

    /// The bank's name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regs => "regs",
            Self::Sregs => "sregs",
            Self::DebugRegs => "debug-regs",
            Self::Events => "events",
            Self::MpState => "mp-state",
            Self::Lapic => "lapic",
            Self::Msrs => "msrs",
            Self::Run => "run",
            Self::Nested => "nested",
            Self::Smram => "smram",
        }
    }

    /// Every name of the bank. MSRs may also be numbers.
    pub fn names(self) -> Vec<&'static str> {
        match self {
            Self::Regs => regs::NAMES.to_vec(),
            Self::Sregs => sregs::NAMES.to_vec(),
            Self::DebugRegs => debug_regs::NAMES.to_vec(),
            Self::Events => events::NAMES.to_vec(),
            Self::MpState => mp_state::NAMES.to_vec(),
            Self::Run => run::NAMES.to_vec(),
            Self::Lapic => LAPIC.iter().map(|(name, _)| *name).collect(),
            Self::Msrs => MSRS.iter().map(|(name, _)| *name).collect(),
            Self::Nested => nested::names().collect(),
            Self::Smram => smram::names().collect(),
        }
    }

    /// Whether the bank has a field of this name.
    pub fn has(self, name: &str) -> bool {
        self.names().contains(&name) || self == Self::Msrs && msr_index(name).is_some()
    }
}

impl BankState {
    /// The number called `name`, or `None` if the bank has no such name.
    pub fn get(&self, name: &str) -> Option<u64> {
        match self {
            Self::Regs(state) => regs::get(state, name),
            Self::Sregs(state) => sregs::get(state, name),
            Self::DebugRegs(state) => debug_regs::get(state, name),
            Self::Events(state) => events::get(state, name),
            Self::MpState(state) => mp_state::get(state, name),
            Self::Run(state) => run::get(state, name),
        }
    }

    /// Sets the number called `name`; `None` if the bank has no such name.
    pub fn set(&mut self, name: &str, value: u64) -> Option<Result<(), TooWide>> {
        match self {
            Self::Regs(state) => regs::set(state, name, value),
            Self::Sregs(state) => sregs::set(state, name, value),
            Self::DebugRegs(state) => debug_regs::set(state, name, value),
            Self::Events(state) => events::set(state, name, value),
            Self::MpState(state) => mp_state::set(state, name, value),
            Self::Run(state) => run::set(state, name, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_what_was_set() {
        let states = [
            BankState::Regs(kvm::kvm_regs::default()),
            BankState::Sregs(kvm::kvm_sregs::default()),
            BankState::DebugRegs(kvm::kvm_debugregs::default()),
            BankState::Events(kvm::kvm_vcpu_events::default()),
            BankState::MpState(kvm::kvm_mp_state::default()),
            BankState::Run(RunFields::default()),
        ];
        let banks = [Bank::Regs, Bank::Sregs, Bank::DebugRegs, Bank::Events, Bank::MpState, Bank::Run];
        for (bank, blank) in banks.into_iter().zip(states) {
            for name in bank.names() {
                let mut state = blank;
                state.set(name, 0x5a).unwrap().unwrap();
                assert_eq!(state.get(name), Some(0x5a), "{name}");
                let others =
                    bank.names().into_iter().filter(|other| *other != name && state.get(other) != Some(0));
                assert_eq!(others.count(), 0, "{name} shares its place");
            }
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let mut state = BankState::Events(kvm::kvm_vcpu_events::default());
        let error = state.set("nmi.masked", 0x100).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "0x100 does not fit `nmi.masked`, which has 8 bits");
        assert_eq!(state.set("nmi.mask", 1), None);
    }

    #[test]
    fn msrs_are_known_by_name_and_by_number() {
        assert_eq!(msr_index("efer"), Some(0xc000_0080));
        assert_eq!(msr_index("0x1b"), Some(0x1b));
        assert_eq!(msr_index("1b"), None);
        assert!(Bank::Msrs.has("0x1b") && !Bank::Regs.has("0x1b"));
    }
}
