//! What the runner runs: cases, and a function that plays one of them.
//!
//! The boundary between the part that plays a case (machine, play) and the part around it
//! (processes, journal, command line), so that the latter can be tested without KVM.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::case::{Case, Combo};
use crate::host::{DeviceFacts, HostFacts, Unusable};
use crate::machine::Piece;
use crate::outcome::Outcome;

/// Where a suite comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The folder of manifests.
    pub manifests: PathBuf,
    /// The folder of guest payloads.
    pub payloads: PathBuf,
    /// Whether nothing will be booted: then payloads that are not built are taken on trust.
    pub listing: bool,
}

/// Reads manifests and payloads; the error is for the user, complete with places.
pub type Load = fn(&Sources) -> Result<Box<dyn Suite>, String>;

/// What every case of a run is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunContext {
    /// The host.
    pub host: HostFacts,
    /// The KVM device.
    pub device: PathBuf,
    /// Factor on every time limit.
    pub timeout_scale: f64,
    /// What saving and restoring a VM leaves out, to show that a case notices.
    pub forget: Option<Piece>,
}

/// One test: a case, and what is done to it.
#[derive(Debug, Clone, Copy)]
pub struct Play<'a> {
    /// The case.
    pub case: &'a Case,
    /// The perturbations.
    pub combo: &'a Combo,
    /// Where every random choice starts.
    pub seed: u64,
    /// The only points at which they act; `None`: wherever the seed says.
    pub only: Option<&'a [u32]>,
}

/// Cases and how to play them.
pub trait Suite: Send + Sync {
    /// Every case, in the order of the manifests.
    fn cases(&self) -> &[Case];

    /// Why a case's guest cannot be played under these perturbations; one sentence.
    fn excluded(&self, _case: &Case, _combo: &Combo) -> Option<String> {
        None
    }

    /// Plays one test. Called in a process that exists for this call alone: it may start threads,
    /// open devices, leak and crash.
    fn run(&self, play: &Play, context: &RunContext) -> Outcome;

    /// Asks the device that the cases need.
    fn device(&self, device: &Path, host: &HostFacts) -> Result<DeviceFacts, Unusable> {
        DeviceFacts::read(device, host)
    }

    /// How much longer than at reference speed guests take on this device: a factor on every time limit,
    /// 1 or more.
    fn slowness(&self, _device: &Path, _host: &HostFacts) -> Result<f64, String> {
        Ok(1.0)
    }

    /// How long a killed process may take to go away before it counts as stuck in the kernel.
    fn grace(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// Ends a case's process. Tests make this fail, as a task in uninterruptible sleep does.
    fn end(&self, process: Pid) {
        // It may have ended by itself just now; there is nothing else to do about an error.
        let _ = kill(process, Signal::SIGKILL);
    }
}
