//! What `/dev/kvm` itself tells: capabilities and CPUID features. System ioctls only, no VM.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HostFacts, caps, cpuid};

/// What this KVM offers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DeviceFacts {
    /// Capabilities for which KVM_CHECK_EXTENSION is above zero, by manifest name.
    pub caps: BTreeSet<String>,
    /// Features in KVM_GET_SUPPORTED_CPUID, by /proc/cpuinfo name.
    pub cpuid: BTreeSet<String>,
}

impl DeviceFacts {
    /// Opens the device and asks it.
    pub fn read(device: &Path, host: &HostFacts) -> Result<Self, Unusable> {
        let open_error = |errno: i32| Unusable::open(device, errno, host);
        let path = CString::new(device.as_os_str().as_bytes()).map_err(|_| open_error(libc::EINVAL))?;
        let kvm = Kvm::new_with_path(path).map_err(|error| open_error(error.errno()))?;
        let version = kvm.get_api_version();
        if version != KVM_API_VERSION.cast_signed() {
            return Err(Unusable::Version { device: device.into(), version });
        }
        let entries = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| Unusable::Cpuid { device: device.into(), error: error.to_string() })?;
        let caps = caps::supported(|number| kvm.check_extension_raw(number.into()));
        let mut cpuid = cpuid::supported(entries.as_slice());
        // KVM tells of it by the capability alone, as it needs a local APIC in the kernel (KVM API 4.46).
        if caps.contains("tsc-deadline-timer") {
            cpuid.insert("tsc_deadline_timer".to_owned());
        }
        Ok(Self { caps, cpuid })
    }
}

/// Why this host cannot run anything, and what to do about it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unusable {
    /// The device is absent: no module, no virtualization extension, or a container without it.
    #[error(
        "{} does not exist: KVM is not loaded, or not visible here\n{advice}\
         in a container: start it with --device /dev/kvm", device.display()
    )]
    Absent {
        /// The device's path.
        device: PathBuf,
        /// What to do, a line each.
        advice: String,
    },
    /// The device is there and may not be opened.
    #[error(
        "{} may not be opened by this user ({error})\nto allow it: sudo usermod -aG kvm $USER, then log in again\n\
         in a container: start it with --device /dev/kvm and --group-add the group that owns the device",
        device.display()
    )]
    Forbidden {
        /// The device's path.
        device: PathBuf,
        /// The kernel's answer.
        error: String,
    },
    /// Opening failed in another way, or the device is something else.
    #[error("{} cannot be opened: {error}\n{advice}", device.display())]
    Open {
        /// The device's path.
        device: PathBuf,
        /// The kernel's answer.
        error: String,
        /// What to do.
        advice: String,
    },
    /// KVM_GET_API_VERSION is not 12, the only version since 2007.
    #[error(
        "{} answers KVM_GET_API_VERSION with {version}, and every KVM since Linux 2.6.22 answers 12\n\
         it is no KVM device: check what `ls -l {0}` and `lsmod` say",
        device.display()
    )]
    Version {
        /// The device's path.
        device: PathBuf,
        /// What it answered.
        version: i32,
    },
    /// KVM_GET_SUPPORTED_CPUID failed.
    #[error("{} refuses KVM_GET_SUPPORTED_CPUID: {error}\nKVM is broken here; see dmesg", device.display())]
    Cpuid {
        /// The device's path.
        device: PathBuf,
        /// The kernel's answer.
        error: String,
    },
}

impl Unusable {
    fn open(device: &Path, errno: i32, host: &HostFacts) -> Self {
        let error = std::io::Error::from_raw_os_error(errno).to_string();
        let device = device.to_owned();
        match errno {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => Self::Absent { device, advice: load_module(host) },
            libc::EACCES | libc::EPERM => Self::Forbidden { device, error },
            _ => Self::Open { device, error, advice: load_module(host) },
        }
    }
}

fn load_module(host: &HostFacts) -> String {
    let (module, extension, nested) = match host.cpu_vendor.as_str() {
        "AuthenticAMD" | "HygonGenuine" => ("kvm_amd", "SVM", "kvm_amd.nested=1"),
        _ => ("kvm_intel", "VT-x (VMX)", "kvm_intel.nested=1"),
    };
    format!(
        "to load it: sudo modprobe {module}\n\
         if that fails, enable {extension} in the firmware; inside a virtual machine, enable nested\n\
         virtualization on the machine below ({nested}) and give this guest the host's CPU model\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(cpu_vendor: &str) -> HostFacts {
        HostFacts { cpu_vendor: cpu_vendor.into(), ..HostFacts::read_under(Path::new("/nonexistent")) }
    }

    #[test]
    fn an_absent_device_names_the_module_of_this_cpu() {
        let amd = DeviceFacts::read(Path::new("/nonexistent/kvm"), &host("AuthenticAMD")).unwrap_err();
        let text = amd.to_string();
        for word in ["/nonexistent/kvm", "modprobe kvm_amd", "nested", "--device /dev/kvm"] {
            assert!(text.contains(word), "{text}");
        }
        let intel = DeviceFacts::read(Path::new("/nonexistent/kvm"), &host("GenuineIntel")).unwrap_err();
        assert!(intel.to_string().contains("modprobe kvm_intel"));
    }

    #[test]
    fn a_forbidden_device_names_the_group() {
        let text = Unusable::open(Path::new("/dev/kvm"), libc::EACCES, &host("GenuineIntel")).to_string();
        assert!(text.contains("usermod -aG kvm"), "{text}");
    }

    #[test]
    fn another_device_is_not_mistaken_for_kvm() {
        // /dev/null answers every ioctl with ENOTTY.
        let error = DeviceFacts::read(Path::new("/dev/null"), &host("GenuineIntel")).unwrap_err();
        assert!(matches!(error, Unusable::Version { version: -1, .. }), "{error}");
    }
}
