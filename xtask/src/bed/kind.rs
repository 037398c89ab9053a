//! The kinds of beds, and what is different between them.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use bed_init::PowerOff;

use super::bochs::{self, Bochs};
use super::channel::Relay;
use super::kernel::{Kernel, Spec};
use super::params::Params;
use super::qemu::{self, Qemu};
use super::session::Machine;

/// A kind of bed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// QEMU emulates a CPU with SVM.
    Amd,
    /// Bochs emulates a CPU with VMX.
    Intel,
}

/// A program that emulates machines.
pub(crate) trait Emulator: fmt::Debug + Send + Sync {
    /// What it is: `QEMU 10.0.2`.
    fn name(&self) -> String;

    /// What is worth knowing before a verdict of it is believed.
    fn remark(&self) -> Option<String> {
        None
    }

    /// Switches a machine on.
    fn boot(&self, parts: Parts<'_>) -> anyhow::Result<Box<dyn Machine>>;
}

/// What a machine is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) kernel: &'a Kernel,
    /// The kernel's command line, but for what this kind of machine needs.
    pub(crate) words: Vec<String>,
    pub(crate) initramfs: File,
    /// Where the console goes.
    pub(crate) console: File,
    /// Where the runner's text goes.
    pub(crate) text: Relay<File>,
}

impl Kind {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Amd, Self::Intel];

    /// As in `--bed`, in a run's name and in the journal.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::Intel => "intel",
        }
    }

    /// The module under test.
    pub(crate) const fn module(self) -> &'static str {
        match self {
            Self::Amd => "kvm_amd",
            Self::Intel => "kvm_intel",
        }
    }

    /// The kernel that is booted if none is named.
    pub(crate) fn kernel(self) -> Spec {
        match self {
            Self::Amd => Spec::Debian("6.12".to_owned()),
            Self::Intel => Spec::Small("6.12".to_owned()),
        }
    }

    /// Parameters that this machine needs. Bochs 2.7 logs dirty pages with the offset within the page (SDM vol. 3C,
    /// "Page-Modification Logging": bits 11:0 are 0), at which `vmx_flush_pml_buffer()` warns each time; without the
    /// log KVM protects pages from writes instead.
    pub(crate) fn params(self) -> Params {
        let text = match self {
            Self::Amd => "default",
            Self::Intel => "kvm_intel.pml=0",
        };
        text.parse().unwrap_or_default()
    }

    /// What `--matrix` is without a list.
    pub(crate) fn matrix(self) -> Vec<Params> {
        let list = match self {
            Self::Amd => "default,npt=0,vgif=0,nested=0,npt=0+vgif=0",
            Self::Intel => {
                "default,unrestricted_guest=0,ept=0,flexpriority=0,nested=0,vpid=0,eptad=0,preemption_timer=0,\
                 emulate_invalid_guest_state=0,enable_apicv=0"
            }
        };
        list.split(',').filter_map(|one| one.parse().ok()).collect()
    }

    /// How long a kernel may take until the suite begins. Bochs is several times slower than QEMU.
    pub(crate) const fn boot_timeout(self) -> Duration {
        match self {
            Self::Amd => Duration::from_mins(2),
            Self::Intel => Duration::from_mins(10),
        }
    }

    /// How long nothing may come from a machine that runs cases. It is the runner who ends a case that hangs, as
    /// long as the kernel lives; but in Bochs a guest that spins with interrupts off lets nobody else run, and to
    /// boot again takes seconds.
    pub(crate) const fn silence(self) -> Duration {
        match self {
            Self::Amd => Duration::from_mins(6),
            Self::Intel => Duration::from_mins(4),
        }
    }

    /// The runner's `--timeout-scale`: guests are emulated by an emulated CPU, so that everything takes longer
    /// than the runner can measure beforehand.
    pub(crate) const fn slower(self) -> f64 {
        match self {
            Self::Amd | Self::Intel => 5.0,
        }
    }

    /// How the machine switches itself off.
    pub(crate) const fn power_off(self) -> PowerOff {
        match self {
            Self::Amd => PowerOff::Acpi,
            Self::Intel => PowerOff::Bochs,
        }
    }

    /// Finds the emulator, installing it if need be. `folder` keeps apt's lists.
    pub(crate) fn find(self, folder: &Path) -> anyhow::Result<Box<dyn Emulator>> {
        match self {
            Self::Amd => Ok(Box::new(Qemu::find(folder)?)),
            Self::Intel => Ok(Box::new(Bochs::find(folder)?)),
        }
    }

    /// Whether [`Kind::find`] can succeed.
    pub(crate) fn is_to_be_had(self) -> bool {
        match self {
            Self::Amd => qemu::is_to_be_had(),
            Self::Intel => bochs::is_to_be_had(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_matrix_is_well_formed() {
        for kind in Kind::ALL {
            let matrix = kind.matrix();
            assert_eq!(matrix[0], Params::default());
            assert!(kind.params().of_bed(kind).is_ok());
            assert!(matrix.len() >= 4 && matrix.iter().all(|params| params.clone().of_bed(kind).is_ok()));
        }
        assert_eq!(Kind::Intel.matrix().len(), 10);
        assert_eq!(Kind::Intel.params().of("kvm_intel"), "pml=0");
    }
}
