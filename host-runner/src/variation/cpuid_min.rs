//! `cpuid-min`: the guest sees a CPU that has little more than what the case names.

use super::Variation;
use crate::case::{Case, MachineSpec};
use crate::host::cpuid;

/// What every 64-bit guest counts on (the x86-64 psABI's baseline, and what the boot protocol uses), and features
/// that are facts about the machine and no abilities.
#[rustfmt::skip]
const BASE: &[&str] = &[
    "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "sep", "mtrr", "pge", "mca",
    "cmov", "pat", "pse36", "clflush", "mmx", "fxsr", "sse", "sse2", "syscall", "nx", "lm", "hypervisor",
    "lahf_lm", "cr8_legacy", "constant_tsc", "null_sel_clr_base", "xsaveerptr",
];

/// Hides the rest.
pub(super) struct CpuidMin;

impl Variation for CpuidMin {
    fn machine(&self, case: &Case, spec: &mut MachineSpec) {
        let requires = &case.requires;
        let unneeded = |name: &&str| {
            let of_nesting = requires.nested && ["svm", "vmx"].contains(name)
                || requires.nested_paging && ["svm", "vmx", "npt"].contains(name);
            !BASE.contains(name) && !of_nesting && !requires.cpuid.iter().any(|wanted| wanted == name)
        };
        spec.cpuid_hide.extend(cpuid::names().filter(unneeded).map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn what_a_case_names_stays() {
        let hidden = |requires: &str| {
            let text = format!(
                "[[case]]\nid = \"m.c\"\nsummary = \"s\"\nbasis = \"arch\"\nreference = [\"r\"]\ndetects = \"d\"\n\
                 payload = \"p\"\nscenario = \"s\"\nrequires = {{ {requires} }}\nsteps = [{{ guest = \"done\" }}]\n"
            );
            let case = manifest::parse("m.toml", &text, None).unwrap().remove(0);
            let mut spec = MachineSpec::default();
            CpuidMin.machine(&case, &mut spec);
            move |name: &str| spec.cpuid_hide.iter().any(|hidden| hidden == name)
        };
        let plain = hidden("");
        assert!(plain("svm") && plain("x2apic") && !plain("sse2") && !plain("lm"));
        assert!(!hidden("cpuid = [\"x2apic\"]")("x2apic"));
        let nested = hidden("nested = true");
        assert!(!nested("svm") && !nested("vmx") && nested("npt"));
        assert!(!hidden("nested-paging = true")("npt"));
    }
}
