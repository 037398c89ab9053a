//! Which hosts a case or a step is for. All of it can be decided before anything boots.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose virtualization extension the host's KVM backend uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// kvm_intel: VMX.
    Intel,
    /// kvm_amd: SVM.
    Amd,
    /// Neither: a software backend such as kvm_pvm.
    Software,
}

/// The way on which KVM handles a plain IN or OUT of a 64-bit guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pio {
    /// `kvm_fast_pio`: the exit happens at the instruction; RIP moves on re-entry (commit 45def77ebf79).
    Fast,
    /// The full emulator: RIP waits at an IN, and is already behind an OUT at its exit.
    Emulated,
}

/// Restricts a step to some hosts: `on = "amd"`, `on = "fast-pio"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// Only with kvm_intel.
    Intel,
    /// Only with kvm_amd.
    Amd,
    /// Only with a software backend.
    Software,
    /// Only where port I/O takes KVM's fast path.
    FastPio,
    /// Only where port I/O is fully emulated.
    EmulatedPio,
}

impl On {
    /// Whether a host of this kind plays the step.
    pub fn includes(self, vendor: Vendor, pio: Pio) -> bool {
        match self {
            Self::Intel => vendor == Vendor::Intel,
            Self::Amd => vendor == Vendor::Amd,
            Self::Software => vendor == Vendor::Software,
            Self::FastPio => pio == Pio::Fast,
            Self::EmulatedPio => pio == Pio::Emulated,
        }
    }
}

/// What a host must have for a case to mean anything there. A host without it skips, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Requires {
    /// KVM capabilities by name, without `KVM_CAP_`, in lower case with dashes: `x86-smm`.
    #[serde(default)]
    pub caps: Vec<String>,
    /// CPUID features as /proc/cpuinfo names them, that KVM must offer to guests: `x2apic`.
    #[serde(default)]
    pub cpuid: Vec<String>,
    /// Nested virtualization: KVM offers SVM or VMX, whichever its backend uses, to guests.
    #[serde(default)]
    pub nested: bool,
    /// The same, with nested paging or EPT for the guest's own guests.
    #[serde(default)]
    pub nested_paging: bool,
    /// One of these backends.
    #[serde(default)]
    pub vendor: Vec<Vendor>,
    /// The path of port I/O.
    pub pio: Option<Pio>,
    /// Module parameters and their values: `"kvm_intel.unrestricted_guest" = "N"`.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Physical CPUs that this process may use.
    pub cpus: Option<u32>,
}
