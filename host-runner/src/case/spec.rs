//! The VM of a case, and what the case may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MsrExit, MsrFilter};

/// Where `disturb` with `slots` makes its memslot come and go: 32 GiB, which no case's own memslot may cover.
pub const FLICKER_GPA: u64 = 32 << 30;

/// Who promises a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The architecture: SDM, APM.
    Arch,
    /// KVM's documented user-space API, or a commit that userspace relies on.
    KvmAbi,
    /// What KVM does and a maintainer would want to hear of if it changed.
    Impl,
}

/// How a vCPU's interrupt controllers are emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Irqchip {
    /// None in the kernel: HLT exits, the host injects with KVM_INTERRUPT.
    #[default]
    None,
    /// KVM_CAP_SPLIT_IRQCHIP: local APICs in the kernel, no PIC or IOAPIC.
    Split,
    /// KVM_CREATE_IRQCHIP: everything in the kernel.
    Kernel,
}

/// The state in which vCPU 0 starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// 64-bit, through the boot protocol: the runtime runs the scenario.
    #[default]
    Long,
    /// 32-bit flat protected mode without paging, at the label that `scenario` names.
    Protected,
    /// Real mode with CS base 0, at the label that `scenario` names.
    Real,
}

/// The VM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MachineSpec {
    /// RAM from guest-physical 0, in KiB; at least 4096, at most 65536.
    pub memory_kib: u32,
    /// vCPUs, 1 to 4.
    pub vcpus: u32,
    /// Interrupt controllers.
    pub irqchip: Irqchip,
    /// KVM_CREATE_PIT2: an i8254 in the kernel; needs `irqchip = "kernel"`. Hosts without KVM_CAP_PIT2 skip the case.
    pub pit: bool,
    /// Start state of vCPU 0. The others wait for INIT/SIPI with an in-kernel local APIC, and
    /// otherwise start only when told to.
    pub start: Start,
    /// System-management mode: all memslots exist in the SMM address space too (KVM_CAP_MULTI_ADDRESS_SPACE),
    /// and hosts without KVM_CAP_X86_SMM skip the case.
    pub smm: bool,
    /// CPUID features, as /proc/cpuinfo names them, that the guest shall not see.
    pub cpuid_hide: Vec<String>,
    /// More memslots.
    pub slots: Vec<SlotSpec>,
    /// KVM_REGISTER_COALESCED_MMIO zones.
    pub coalesced: Vec<ZoneSpec>,
    /// Quirks to disable, without `KVM_X86_QUIRK_`, in lower case with dashes: `out-7e-inc-rip`.
    pub disable_quirks: Vec<String>,
    /// VM capabilities to enable, as in `requires.caps`: `exception-payload`, `x86-triple-fault-event`.
    pub enable_caps: Vec<String>,
    /// Refused accesses of MSRs that exit as `rdmsr` and `wrmsr` (KVM_CAP_X86_USER_SPACE_MSR): `"inval"`, `"unknown"`, `"filter"`.
    pub msr_exits: Vec<MsrExit>,
    /// Which MSRs the guest may access (KVM_X86_SET_MSR_FILTER).
    pub msr_filter: Option<MsrFilter>,
    /// Dirty pages are collected in rings (KVM_CAP_DIRTY_LOG_RING). A variation's alone.
    #[serde(skip)]
    pub dirty_ring: bool,
    /// KVM's forced-emulation prefix is wherever the payload has a place for it. A variation's alone.
    #[serde(skip)]
    pub forced_emulation: bool,
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            memory_kib: 4096,
            vcpus: 1,
            irqchip: Irqchip::None,
            pit: false,
            start: Start::Long,
            smm: false,
            cpuid_hide: Vec::new(),
            slots: Vec::new(),
            coalesced: Vec::new(),
            disable_quirks: Vec::new(),
            enable_caps: Vec::new(),
            msr_exits: Vec::new(),
            msr_filter: None,
            dirty_ring: false,
            forced_emulation: false,
        }
    }
}

/// A memslot beside RAM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SlotSpec {
    /// The name by which steps speak of it.
    pub name: String,
    /// Guest-physical address, page-aligned, outside of RAM.
    pub gpa: u64,
    /// Pages of 4 KiB, 1 to 4096.
    pub pages: u32,
    /// KVM_MEM_READONLY: writes exit as MMIO.
    #[serde(default)]
    pub read_only: bool,
    /// KVM_MEM_LOG_DIRTY_PAGES.
    #[serde(default)]
    pub log_dirty: bool,
    /// Exists from the start; `false`: a step creates it.
    #[serde(default = "yes")]
    pub present: bool,
    /// SMRAM: it exists in the SMM address space only. Needs `smm = true`.
    #[serde(default)]
    pub smram: bool,
    /// Every byte of it at the start.
    #[serde(default)]
    pub fill: u8,
}

fn yes() -> bool {
    true
}

/// A range whose writes KVM collects in a ring before it exits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ZoneSpec {
    /// Guest-physical address or port.
    pub start: u64,
    /// Bytes or ports.
    pub size: u32,
    /// Whether `start` is a port.
    #[serde(default)]
    pub pio: bool,
}

/// What a case may use before it is ended and named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Budget {
    /// Longest time that one wait for an exit may take, in milliseconds at reference speed; scaled by
    /// the host's measured speed, and never shortened. Time in which its thread waits for a CPU does not count.
    pub run_ms: u32,
    /// Most guest reports between two steps.
    pub reports: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { run_ms: 2000, reports: 256 }
    }
}
