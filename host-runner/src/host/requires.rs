//! Whether a host has what a case requires: the reason for a skip, as one sentence.

use std::collections::BTreeMap;

use super::HostFacts;
use crate::case::{Pio, Requires, Vendor};

/// Why the case cannot mean anything on this host; `None` if it can. A requirement that only the
/// device could answer holds as long as nobody has asked the device.
pub fn missing(requires: &Requires, host: &HostFacts) -> Option<String> {
    if !requires.vendor.is_empty() && !requires.vendor.contains(&host.vendor) {
        let wanted: Vec<&str> = requires.vendor.iter().map(|vendor| vendor_name(*vendor)).collect();
        return Some(format!("needs {}, and this host's backend is {}", wanted.join(" or "), host.backend));
    }
    if let Some(pio) = requires.pio.filter(|pio| *pio != host.pio) {
        let (wanted, here) = (pio_name(pio), pio_name(host.pio));
        return Some(format!("needs {wanted} port I/O, and {} does {here} port I/O", host.backend));
    }
    if let Some(reason) = other_setting(&requires.params, host) {
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
                cpuid: ["x2apic".to_owned()].into(),
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
    fn an_unasked_device_is_given_the_benefit_of_the_doubt() {
        let unasked = HostFacts { device: None, ..host() };
        let requires = Requires { caps: vec!["xen-hvm".into()], ..Requires::default() };
        assert_eq!(missing(&requires, &unasked), None);
    }
}
