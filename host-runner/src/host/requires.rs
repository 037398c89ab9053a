//! Whether a host has what a case requires: the reason for a skip, as one sentence.

use std::collections::BTreeMap;

use super::HostFacts;
use crate::case::{Pio, Requires, Vendor};

/// Why the case cannot mean anything on this host; `None` if it can. A requirement that only the
/// device could answer holds as long as nobody has asked the device.
pub fn missing(requires: &Requires, host: &HostFacts) -> Option<String> {
    not_for(requires, host).or_else(|| lacks(requires, host))
}

/// Why the case is for another kind of host: another backend, path of port I/O or setting of a module; `None` if it
/// is for this one.
pub fn not_for(requires: &Requires, host: &HostFacts) -> Option<String> {
    if !requires.vendor.is_empty() && !requires.vendor.contains(&host.vendor) {
        let wanted: Vec<&str> = requires.vendor.iter().map(|vendor| vendor_name(*vendor)).collect();
        return Some(format!("needs {}, and this host's backend is {}", wanted.join(" or "), host.backend));
    }
    if let Some(pio) = requires.pio.filter(|pio| *pio != host.pio) {
        let (wanted, here) = (pio_name(pio), pio_name(host.pio));
        return Some(format!("needs {wanted} port I/O, and {} does {here} port I/O", host.backend));
    }
    other_setting(&requires.params, host)
}

/// What a host of the right kind does not have.
fn lacks(requires: &Requires, host: &HostFacts) -> Option<String> {
    if let Some(reason) = no_nesting(requires, host) {
        return Some(reason);
    }
    if let Some(cpus) = requires.cpus.filter(|cpus| *cpus > host.cpus) {
        return Some(format!("needs {cpus} CPUs, and this process may use {}", host.cpus));
    }
    let device = host.device.as_ref()?;
    if let Some(cap) = requires.caps.iter().find(|cap| !device.caps.contains(*cap)) {
        let name = cap.to_uppercase().replace('-', "_");
        return Some(format!("needs KVM_CAP_{name}, which this KVM does not have"));
    }
    let feature = requires.cpuid.iter().find(|feature| !device.cpuid.contains(*feature))?;
    Some(format!("needs the CPU feature {feature}, which this KVM does not offer to guests"))
}

/// Why guests cannot have guests of their own here; `None` if they can, or need not.
fn no_nesting(requires: &Requires, host: &HostFacts) -> Option<String> {
    if !requires.nested && !requires.nested_paging {
        return None;
    }
    // VMX tells of EPT by an MSR, which KVM derives from its own use of it; SVM tells of nested paging by CPUID.
    let (extension, settings) = match host.vendor {
        Vendor::Intel => ("vmx", ["kvm_intel.nested", "kvm_intel.ept"]),
        Vendor::Amd => ("svm", ["kvm_amd.nested", "kvm_amd.npt"]),
        Vendor::Software => {
            return Some(format!("needs nested virtualization, which {} does not have", host.backend));
        }
    };
    let wanted = if requires.nested_paging { &settings[..] } else { &settings[..1] };
    let off = |name: &&&str| host.params.get(**name).is_some_and(|here| same_setting(here, "N"));
    if let Some(name) = wanted.iter().find(off) {
        let here = &host.params[*name];
        return Some(format!("needs nested virtualization{}, and {name} is {here}", with_paging(requires)));
    }
    let cpuid = &host.device.as_ref()?.cpuid;
    let npt = requires.nested_paging && host.vendor == Vendor::Amd && !cpuid.contains("npt");
    let absent = if cpuid.contains(extension) { npt.then_some("npt")? } else { extension };
    Some(format!(
        "needs nested virtualization{}, and this KVM does not offer {absent} to guests",
        with_paging(requires)
    ))
}

fn with_paging(requires: &Requires) -> &'static str {
    if requires.nested_paging { " with nested paging" } else { "" }
}

/// Which module parameter is not as wanted; `None` if all are.
pub fn other_setting(params: &BTreeMap<String, String>, host: &HostFacts) -> Option<String> {
    params.iter().find_map(|(name, wanted)| match host.params.get(name) {
        None => Some(format!("needs {name}={wanted}, and this host has no such module parameter")),
        Some(here) if !same_setting(wanted, here) => Some(format!("needs {name}={wanted}, and it is {here}")),
        Some(_) => None,
    })
}

fn vendor_name(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Intel => "kvm_intel",
        Vendor::Amd => "kvm_amd",
        Vendor::Software => "a software backend",
    }
}

fn pio_name(pio: Pio) -> &'static str {
    match pio {
        Pio::Fast => "fast",
        Pio::Emulated => "emulated",
    }
}

/// sysfs prints booleans as Y and N, the kernel's command line takes 1 and 0 as well.
fn same_setting(wanted: &str, here: &str) -> bool {
    let boolean = |text: &str| match text {
        "Y" | "y" | "1" => Some(true),
        "N" | "n" | "0" => Some(false),
        _ => None,
    };
    wanted == here || boolean(wanted).is_some() && boolean(wanted) == boolean(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::DeviceFacts;

    fn host() -> HostFacts {
        HostFacts {
            bed: "local".into(),
            kernel: "6.18".into(),
            build: "#1".into(),
            cpu: "A CPU".into(),
            cpu_vendor: "GenuineIntel".into(),
            microcode: "0x1".into(),
            backend: "kvm_intel".into(),
            vendor: Vendor::Intel,
            pio: Pio::Fast,
            params: BTreeMap::from([("kvm_intel.ept".into(), "Y".into())]),
            cpus: 2,
            device: Some(DeviceFacts {
                caps: ["x86-smm".to_owned()].into(),
                cpuid: ["x2apic".to_owned(), "vmx".to_owned()].into(),
            }),
        }
    }

    fn reason(requires: &Requires) -> Option<String> {
        missing(requires, &host())
    }

    #[test]
    fn what_is_there_is_not_missing() {
        let all = Requires {
            caps: vec!["x86-smm".into()],
            cpuid: vec!["x2apic".into()],
            nested: true,
            nested_paging: true,
            vendor: vec![Vendor::Amd, Vendor::Intel],
            pio: Some(Pio::Fast),
            params: BTreeMap::from([("kvm_intel.ept".into(), "1".into())]),
            cpus: Some(2),
        };
        assert_eq!(reason(&all), None);
        assert_eq!(reason(&Requires::default()), None);
    }

    #[test]
    fn each_requirement_has_its_sentence() {
        let says = |requires: Requires, words: &[&str]| {
            let text = reason(&requires).unwrap();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        let none = Requires::default;
        says(Requires { caps: vec!["x86-smm".into(), "xen-hvm".into()], ..none() }, &["KVM_CAP_XEN_HVM"]);
        says(Requires { cpuid: vec!["la57".into()], ..none() }, &["la57"]);
        says(Requires { vendor: vec![Vendor::Amd], ..none() }, &["kvm_amd", "kvm_intel"]);
        says(Requires { pio: Some(Pio::Emulated), ..none() }, &["emulated", "fast"]);
        let param = |name: &str, value: &str| Requires {
            params: BTreeMap::from([(name.into(), value.into())]),
            ..none()
        };
        says(param("kvm_intel.ept", "N"), &["kvm_intel.ept=N", "is Y"]);
        says(param("kvm_amd.npt", "Y"), &["no such module parameter"]);
        says(Requires { cpus: Some(3), ..none() }, &["3 CPUs", "use 2"]);
    }

    #[test]
    fn nesting_is_the_extension_of_the_backend_as_its_module_is_set() {
        let nested = Requires { nested: true, ..Requires::default() };
        let paging = Requires { nested_paging: true, ..Requires::default() };
        let on = |vendor, backend: &str, params: &[(&str, &str)], cpuid: &[&str]| HostFacts {
            vendor,
            backend: backend.into(),
            params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            device: Some(DeviceFacts {
                caps: std::collections::BTreeSet::new(),
                cpuid: cpuid.iter().map(|name| (*name).to_owned()).collect(),
            }),
            ..host()
        };
        let says = |requires: &Requires, host: &HostFacts, words: &[&str]| {
            let text = missing(requires, host).unwrap();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        let amd = on(Vendor::Amd, "kvm_amd", &[("kvm_amd.npt", "Y")], &["svm", "npt"]);
        assert_eq!((missing(&nested, &amd), missing(&paging, &amd)), (None, None));
        says(&nested, &on(Vendor::Amd, "kvm_amd", &[], &["vmx"]), &["does not offer svm"]);
        says(
            &nested,
            &on(Vendor::Amd, "kvm_amd", &[("kvm_amd.nested", "0")], &["svm"]),
            &["kvm_amd.nested is 0"],
        );
        let shadow = on(Vendor::Amd, "kvm_amd", &[("kvm_amd.npt", "N")], &["svm", "npt"]);
        assert_eq!(missing(&nested, &shadow), None);
        says(&paging, &shadow, &["with nested paging", "kvm_amd.npt is N"]);
        says(&paging, &on(Vendor::Amd, "kvm_amd", &[], &["svm"]), &["does not offer npt"]);
        let intel = on(Vendor::Intel, "kvm_intel", &[("kvm_intel.ept", "N")], &["vmx"]);
        assert_eq!(missing(&nested, &intel), None);
        says(&paging, &intel, &["kvm_intel.ept is N"]);
        says(&nested, &on(Vendor::Intel, "kvm_intel", &[], &["svm"]), &["does not offer vmx"]);
        says(&nested, &on(Vendor::Software, "kvm_pvm", &[], &["svm", "vmx"]), &["kvm_pvm does not have"]);
        let unasked = HostFacts { device: None, ..amd };
        assert_eq!(missing(&paging, &unasked), None);
    }

    #[test]
    fn an_unasked_device_is_given_the_benefit_of_the_doubt() {
        let unasked = HostFacts { device: None, ..host() };
        let requires = Requires { caps: vec!["xen-hvm".into()], ..Requires::default() };
        assert_eq!(missing(&requires, &unasked), None);
    }
}
