//! The part of the host facts that sysfs and procfs tell. Opens no device.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::{HostFacts, LOCAL};
use crate::case::{Pio, Vendor};

/// Longer parameter values are tables or statistics, not settings.
const LONGEST_PARAMETER: usize = 64;

impl HostFacts {
    /// Reads the facts of this host, without the device's.
    pub fn read() -> Self {
        Self::read_under(Path::new("/"))
    }

    /// The same, with `proc` and `sys` below another root.
    pub fn read_under(root: &Path) -> Self {
        let cpuinfo = read(root, "proc/cpuinfo");
        let cpu_vendor = cpuinfo_field(&cpuinfo, "vendor_id");
        let backend = backend(&modules(root), &cpu_vendor);
        let params = parameters(root);
        let vendor = match backend.as_str() {
            "kvm_intel" => Vendor::Intel,
            "kvm_amd" => Vendor::Amd,
            _ => Vendor::Software,
        };
        // Hardware backends take kvm_fast_pio (commit 45def77ebf79) unless told to emulate everything.
        let forced = params.get(&format!("{backend}.force_emulation")).is_some_and(|value| value == "Y");
        let pio = if vendor == Vendor::Software || forced { Pio::Emulated } else { Pio::Fast };
        Self {
            bed: LOCAL.to_owned(),
            kernel: read(root, "proc/sys/kernel/osrelease").trim().to_owned(),
            build: read(root, "proc/sys/kernel/version").trim().to_owned(),
            cpu: cpuinfo_field(&cpuinfo, "model name"),
            cpu_vendor,
            microcode: cpuinfo_field(&cpuinfo, "microcode"),
            backend,
            vendor,
            pio,
            params,
            cpus: usable_cpus(),
            device: None,
        }
    }
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_default()
}

fn cpuinfo_field(cpuinfo: &str, name: &str) -> String {
    let value = cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    value.unwrap_or_else(|| "unknown".to_owned())
}

/// KVM's modules, loaded or built in, in alphabetical order.
fn modules(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("sys/module")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name == "kvm" || name.starts_with("kvm_"))
        .collect();
    names.sort();
    names
}

/// The backend among the modules. Both vendor modules can be built in, and then the CPU decides;
/// KVM takes one backend only, so a third one that is loaded is the one in use.
fn backend(modules: &[String], cpu_vendor: &str) -> String {
    let hardware = ["kvm_intel", "kvm_amd"];
    let other = modules.iter().find(|name| *name != "kvm" && !hardware.contains(&name.as_str()));
    let own = if matches!(cpu_vendor, "AuthenticAMD" | "HygonGenuine") { "kvm_amd" } else { "kvm_intel" };
    let own = modules.iter().find(|name| *name == own);
    other.or(own).cloned().unwrap_or_else(|| "none".to_owned())
}

fn parameters(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for module in modules(root) {
        let folder = root.join("sys/module").join(&module).join("parameters");
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Some parameters can only be written.
            let Ok(value) = fs::read_to_string(entry.path()) else { continue };
            let value = value.trim_end();
            if value.len() <= LONGEST_PARAMETER && !value.contains('\n') {
                found.insert(format!("{module}.{name}"), value.to_owned());
            }
        }
    }
    found
}

fn usable_cpus() -> u32 {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    let count = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).count();
    // A host with more CPUs than the set has bits refuses the call; one CPU is certain.
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(cpu: &str, modules: &[(&str, &[(&str, &str)])]) -> HostFacts {
        let root = tempfile::tempdir().unwrap();
        let put = |path: String, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(
            "proc/cpuinfo".into(),
            &format!("processor\t: 0\nvendor_id\t: {cpu}\nmodel name\t: A CPU\nmicrocode\t: 0x12\n"),
        );
        put("proc/sys/kernel/osrelease".into(), "6.18.0\n");
        put("proc/sys/kernel/version".into(), "#1 SMP yesterday\n");
        for (module, parameters) in modules {
            fs::create_dir_all(root.path().join("sys/module").join(module)).unwrap();
            for (name, value) in *parameters {
                put(format!("sys/module/{module}/parameters/{name}"), value);
            }
        }
        HostFacts::read_under(root.path())
    }

    #[test]
    fn the_cpu_decides_between_two_builtin_backends() {
        let both: &[(&str, &[(&str, &str)])] = &[("kvm", &[]), ("kvm_amd", &[]), ("kvm_intel", &[])];
        assert_eq!(host("GenuineIntel", both).vendor, Vendor::Intel);
        let amd = host("AuthenticAMD", both);
        assert_eq!((amd.backend.as_str(), amd.vendor, amd.pio), ("kvm_amd", Vendor::Amd, Pio::Fast));
        assert_eq!((amd.kernel.as_str(), amd.microcode.as_str()), ("6.18.0", "0x12"));
    }

    #[test]
    fn a_software_backend_emulates_port_io() {
        let facts = host("AuthenticAMD", &[("kvm", &[]), ("kvm_pvm", &[("force", "N\n")])]);
        assert_eq!(
            (facts.backend.as_str(), facts.vendor, facts.pio),
            ("kvm_pvm", Vendor::Software, Pio::Emulated)
        );
        assert_eq!(facts.params["kvm_pvm.force"], "N");
    }

    #[test]
    fn statistics_are_no_settings_and_no_module_is_said() {
        let facts = host("GenuineIntel", &[("kvm", &[("table", "1\n2\n"), ("halt_poll_ns", "0\n")])]);
        assert_eq!(facts.backend, "none");
        assert_eq!(facts.params.keys().collect::<Vec<_>>(), ["kvm.halt_poll_ns"]);
    }

    #[test]
    fn differences_name_what_differs() {
        let then = host("GenuineIntel", &[("kvm_intel", &[("ept", "Y\n")])]);
        let now = host("GenuineIntel", &[("kvm_intel", &[("ept", "N\n")])]);
        assert!(then.differences(&then).is_empty());
        assert_eq!(then.differences(&now), ["module parameter kvm_intel.ept is `N` now and was `Y`"]);
        // Two builds of one release are two kernels.
        let built = HostFacts { build: "#2 SMP today".into(), ..then.clone() };
        let said = ["the kernel's build is `#2 SMP today` now and was `#1 SMP yesterday`"];
        assert_eq!(then.differences(&built), said);
    }
}
