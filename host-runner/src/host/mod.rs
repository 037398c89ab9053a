//! What this host can do, and whether that is enough for a case.
//!
//! Facts come in two parts: what sysfs and procfs tell (readable at any time, no device opened), and
//! what `/dev/kvm` tells (only when cases are going to run). Nothing here creates a VM.

mod cache;
pub mod caps;
pub mod cpuid;
mod device;
mod fs_facts;
mod requires;
pub mod switches;

pub use cache::Cache;
pub use device::{DeviceFacts, Unusable};
pub use requires::{missing, not_for, other_setting};

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::case::{Pio, Vendor};

/// The bed of runs that are not told another.
pub const LOCAL: &str = "local";

/// What is known of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostFacts {
    /// Where this `/dev/kvm` lives: `local`, or the name of the emulated machine that was booted for the run.
    pub bed: String,
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// Its build, as `uname -v`; empty where nobody said.
    #[serde(default)]
    pub build: String,
    /// CPU model, as /proc/cpuinfo's `model name`.
    pub cpu: String,
    /// CPU vendor, as /proc/cpuinfo's `vendor_id`: `GenuineIntel`.
    pub cpu_vendor: String,
    /// Microcode revision, as /proc/cpuinfo prints it; `unknown` if it does not.
    pub microcode: String,
    /// KVM's backend by module name: `kvm_intel`, `kvm_amd`, `kvm_pvm`; `none` if there is none.
    pub backend: String,
    /// Whose extension the backend uses.
    pub vendor: Vendor,
    /// The path that port I/O takes.
    pub pio: Pio,
    /// Module parameters of KVM's modules: `kvm_intel.unrestricted_guest` and its value.
    pub params: BTreeMap<String, String>,
    /// CPUs that this process may use.
    pub cpus: u32,
    /// What `/dev/kvm` told; `None` while nobody has asked it.
    pub device: Option<DeviceFacts>,
}

impl HostFacts {
    /// The names and values in which two hosts differ, for a person; empty if cases must behave
    /// the same on both. The number of CPUs and the device's own list follow from the rest.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, ours: &str, theirs: &str| {
            if ours != theirs {
                found.push(format!("{what} is `{theirs}` now and was `{ours}`"));
            }
        };
        compare("the bed", &self.bed, &other.bed);
        compare("the kernel", &self.kernel, &other.kernel);
        compare("the kernel's build", &self.build, &other.build);
        compare("the CPU", &self.cpu, &other.cpu);
        compare("the microcode", &self.microcode, &other.microcode);
        compare("KVM's backend", &self.backend, &other.backend);
        let none = "absent".to_owned();
        for name in
            self.params.keys().chain(other.params.keys().filter(|name| !self.params.contains_key(*name)))
        {
            let value = |facts: &'_ Self| facts.params.get(name).unwrap_or(&none).clone();
            compare(&format!("module parameter {name}"), &value(self), &value(other));
        }
        found
    }
}

impl fmt::Display for HostFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Linux {}, {}, backend {}, microcode {}",
            self.kernel, self.cpu, self.backend, self.microcode
        )?;
        if self.bed == LOCAL { Ok(()) } else { write!(f, ", bed {}", self.bed) }
    }
}
