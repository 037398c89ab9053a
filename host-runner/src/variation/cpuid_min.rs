//! `cpuid-min`: the guest sees a CPU that has little more than what the case names.

use super::Variation;
use crate::case::{Case, MachineSpec};
use crate::host::cpuid;

/// What every 64-bit guest counts on (the x86-64 psABI's baseline, and what the boot protocol uses), and features
/// that are facts about the machine and no abilities.
const BASE: &[&str] = &[
    "fpu",
    "vme",
    "de",
    "pse",
    "tsc",
    "msr",
    "pae",
    "mce",
    "cx8",
    "apic",
    "sep",
    "mtrr",
    "pge",
    "mca",
    "cmov",
    "pat",
    "pse36",
    "clflush",
    "mmx",
    "fxsr",
    "sse",
    "sse2",
    "syscall",
    "nx",
    "lm",
    "hypervisor",
    "lahf_lm",
    "cr8_legacy",
    "constant_tsc",
    "null_sel_clr_base",
    "xsaveerptr",
];

/// Hides the rest.
pub(super) struct CpuidMin;

impl Variation for CpuidMin {
    fn machine(&self, case: &Case, spec: &mut MachineSpec) {
        let needed =
            |name: &&str| !BASE.contains(name) && !case.requires.cpuid.iter().any(|wanted| wanted == name);
        spec.cpuid_hide.extend(cpuid::names().filter(needed).map(str::to_owned));
    }
}
