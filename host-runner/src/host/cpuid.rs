//! CPUID features by the names that /proc/cpuinfo uses.
//!
//! Source: SDM vol. 2 "CPUID", APM vol. 3 appendix E, names from Linux's `cpufeatures.h`.

use std::collections::BTreeSet;

use kvm_bindings::kvm_cpuid_entry2;

/// An output register of CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Where a feature's bit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// EAX of the query.
    pub leaf: u32,
    /// ECX of the query.
    pub subleaf: u32,
    /// The register that holds the bit.
    pub register: Register,
    /// The bit, from 0.
    pub bit: u8,
}

impl Feature {
    /// Whether the bit is set in these CPUID entries.
    pub fn is_in(self, entries: &[kvm_cpuid_entry2]) -> bool {
        entries.iter().any(|entry| {
            let value = match self.register {
                Register::Eax => entry.eax,
                Register::Ebx => entry.ebx,
                Register::Ecx => entry.ecx,
                Register::Edx => entry.edx,
            };
            entry.function == self.leaf && entry.index == self.subleaf && value >> self.bit & 1 == 1
        })
    }
}

impl Feature {
    /// Clears the bit in these CPUID entries.
    pub fn hide(self, entries: &mut [kvm_cpuid_entry2]) {
        for entry in
            entries.iter_mut().filter(|entry| (entry.function, entry.index) == (self.leaf, self.subleaf))
        {
            let value = match self.register {
                Register::Eax => &mut entry.eax,
                Register::Ebx => &mut entry.ebx,
                Register::Ecx => &mut entry.ecx,
                Register::Edx => &mut entry.edx,
            };
            *value &= !(1 << self.bit);
        }
    }
}

/// One output register and its features.
type Row = (u32, u32, Register, &'static [(&'static str, u8)]);

#[rustfmt::skip]
const FEATURES: &[Row] = &[
    (0x1, 0, Register::Ecx, &[
        ("pni", 0), ("pclmulqdq", 1), ("dtes64", 2), ("monitor", 3), ("vmx", 5), ("smx", 6), ("ssse3", 9),
        ("fma", 12), ("cx16", 13), ("pdcm", 15), ("pcid", 17), ("sse4_1", 19), ("sse4_2", 20), ("x2apic", 21),
        ("movbe", 22), ("popcnt", 23), ("tsc_deadline_timer", 24), ("aes", 25), ("xsave", 26), ("avx", 28),
        ("f16c", 29), ("rdrand", 30), ("hypervisor", 31),
    ]),
    (0x1, 0, Register::Edx, &[
        ("fpu", 0), ("vme", 1), ("de", 2), ("pse", 3), ("tsc", 4), ("msr", 5), ("pae", 6), ("mce", 7), ("cx8", 8),
        ("apic", 9), ("sep", 11), ("mtrr", 12), ("pge", 13), ("mca", 14), ("cmov", 15), ("pat", 16), ("pse36", 17),
        ("clflush", 19), ("dts", 21), ("mmx", 23), ("fxsr", 24), ("sse", 25), ("sse2", 26), ("ss", 27), ("ht", 28),
    ]),
    (0x6, 0, Register::Eax, &[("arat", 2)]),
    (0x7, 0, Register::Ebx, &[
        ("fsgsbase", 0), ("tsc_adjust", 1), ("sgx", 2), ("bmi1", 3), ("hle", 4), ("avx2", 5), ("smep", 7),
        ("bmi2", 8), ("erms", 9), ("invpcid", 10), ("rtm", 11), ("mpx", 14), ("avx512f", 16), ("rdseed", 18),
        ("adx", 19), ("smap", 20), ("clflushopt", 23), ("clwb", 24), ("intel_pt", 25), ("sha_ni", 29),
    ]),
    (0x7, 0, Register::Ecx, &[
        ("umip", 2), ("pku", 3), ("waitpkg", 5), ("shstk", 7), ("vaes", 9), ("la57", 16), ("rdpid", 22),
        ("bus_lock_detect", 24), ("movdiri", 27), ("movdir64b", 28),
    ]),
    (0x7, 0, Register::Edx, &[
        ("md_clear", 10), ("serialize", 14), ("tsxldtrk", 16), ("arch_lbr", 19), ("ibt", 20),
        ("flush_l1d", 28), ("arch_capabilities", 29),
    ]),
    (0x7, 1, Register::Eax, &[("fred", 17), ("lkgs", 18), ("wrmsrns", 19), ("lam", 26)]),
    (0xd, 1, Register::Eax, &[("xsaveopt", 0), ("xsavec", 1), ("xgetbv1", 2), ("xsaves", 3)]),
    (0x8000_0001, 0, Register::Ecx, &[
        ("lahf_lm", 0), ("cmp_legacy", 1), ("svm", 2), ("cr8_legacy", 4), ("abm", 5), ("sse4a", 6),
        ("misalignsse", 7), ("3dnowprefetch", 8), ("topoext", 22), ("perfctr_core", 23),
    ]),
    (0x8000_0001, 0, Register::Edx, &[
        ("syscall", 11), ("nx", 20), ("fxsr_opt", 25), ("pdpe1gb", 26), ("rdtscp", 27), ("lm", 29),
    ]),
    (0x8000_0007, 0, Register::Edx, &[("constant_tsc", 8)]),
    (0x8000_0008, 0, Register::Ebx, &[("clzero", 0), ("xsaveerptr", 2), ("wbnoinvd", 9)]),
    (0x8000_000a, 0, Register::Edx, &[
        ("npt", 0), ("lbrv", 1), ("nrip_save", 3), ("tsc_scale", 4), ("vmcb_clean", 5), ("flushbyasid", 6),
        ("decodeassists", 7), ("pausefilter", 10), ("pfthreshold", 12), ("avic", 13),
        ("v_vmsave_vmload", 15), ("vgif", 16), ("vnmi", 25),
    ]),
    (0x8000_0021, 0, Register::Eax, &[("null_sel_clr_base", 6), ("autoibrs", 8), ("no_smm_ctl_msr", 9)]),
];

fn features() -> impl Iterator<Item = (&'static str, Feature)> {
    FEATURES.iter().flat_map(|&(leaf, subleaf, register, names)| {
        names.iter().map(move |&(name, bit)| (name, Feature { leaf, subleaf, register, bit }))
    })
}

/// Where the feature of this name is; `None` if the table does not know it.
pub fn feature(name: &str) -> Option<Feature> {
    features().find(|(known, _)| *known == name).map(|(_, feature)| feature)
}

/// Every name that [`feature`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    features().map(|(name, _)| name)
}

/// The names of the features in these entries.
pub(super) fn supported(entries: &[kvm_cpuid_entry2]) -> BTreeSet<String> {
    features().filter(|(_, feature)| feature.is_in(entries)).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_bit_in_the_right_leaf_is_a_feature() {
        let entry = |function, index, ecx| kvm_cpuid_entry2 { function, index, ecx, ..Default::default() };
        assert_eq!(Vec::from_iter(supported(&[entry(1, 0, 1 << 21)])), ["x2apic"]);
        assert_eq!(Vec::from_iter(supported(&[entry(7, 0, 1 << 16)])), ["la57"]);
        assert!(supported(&[entry(7, 1, 1 << 16), entry(2, 0, !0)]).is_empty());
    }

    #[test]
    fn a_hidden_feature_is_gone_and_the_others_stay() {
        let mut entries = [kvm_cpuid_entry2 { function: 1, ecx: !0, edx: !0, ..Default::default() }];
        feature("x2apic").unwrap().hide(&mut entries);
        assert_eq!((entries[0].ecx, entries[0].edx), (!(1 << 21), !0));
        assert!(!supported(&entries).contains("x2apic") && supported(&entries).contains("movbe"));
    }

    #[test]
    fn no_name_and_no_bit_is_listed_twice() {
        let names: BTreeSet<&str> = features().map(|(name, _)| name).collect();
        assert_eq!(names.len(), features().count());
        let all: Vec<Feature> = features().map(|(_, feature)| feature).collect();
        for (n, feature) in all.iter().enumerate() {
            assert!(!all[..n].contains(feature), "{feature:?}");
        }
        assert_eq!(feature("smep").map(|found| (found.leaf, found.bit)), Some((7, 7)));
        assert_eq!(feature("no such"), None);
    }
}
