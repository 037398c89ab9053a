//! Capabilities and quirks that a case can turn on or off, by name.

use kvm_bindings as kvm;

/// VM capabilities that take effect only when enabled: name, number, first argument.
const CAPS: &[(&str, u32, u64)] = &[
    ("exception-payload", kvm::KVM_CAP_EXCEPTION_PAYLOAD, 1),
    ("x86-triple-fault-event", kvm::KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1),
    (
        "x86-user-space-msr",
        kvm::KVM_CAP_X86_USER_SPACE_MSR,
        (kvm::KVM_MSR_EXIT_REASON_INVAL | kvm::KVM_MSR_EXIT_REASON_UNKNOWN | kvm::KVM_MSR_EXIT_REASON_FILTER)
            as u64,
    ),
    ("exit-on-emulation-failure", kvm::KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1),
    ("x2apic-api", kvm::KVM_CAP_X2APIC_API, 3),
];

/// Quirks (KVM API, KVM_CAP_DISABLE_QUIRKS2): name and bit.
const QUIRKS: &[(&str, u32)] = &[
    ("lint0-reenabled", kvm::KVM_X86_QUIRK_LINT0_REENABLED),
    ("cd-nw-cleared", kvm::KVM_X86_QUIRK_CD_NW_CLEARED),
    ("lapic-mmio-hole", kvm::KVM_X86_QUIRK_LAPIC_MMIO_HOLE),
    ("out-7e-inc-rip", kvm::KVM_X86_QUIRK_OUT_7E_INC_RIP),
    ("misc-enable-no-mwait", kvm::KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT),
    ("fix-hypercall-insn", kvm::KVM_X86_QUIRK_FIX_HYPERCALL_INSN),
    ("mwait-never-ud-faults", kvm::KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS),
];

/// Number and argument of a capability that can be enabled.
pub fn enable(name: &str) -> Option<(u32, u64)> {
    CAPS.iter().find(|(known, ..)| *known == name).map(|&(_, cap, arg)| (cap, arg))
}

/// The bit of a quirk.
pub fn quirk(name: &str) -> Option<u32> {
    QUIRKS.iter().find(|(known, _)| *known == name).map(|&(_, bit)| bit)
}

/// Names of the capabilities that can be enabled.
pub fn enable_names() -> impl Iterator<Item = &'static str> {
    CAPS.iter().map(|(name, ..)| *name)
}

/// Names of the quirks.
pub fn quirk_names() -> impl Iterator<Item = &'static str> {
    QUIRKS.iter().map(|(name, _)| *name)
}
