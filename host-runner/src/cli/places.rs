//! Where manifests, payloads and runs are when the command line does not say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::PlaceArgs;
use crate::suite::Sources;

/// Every folder, decided.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) sources: Sources,
    pub(super) runs: PathBuf,
    pub(super) device: PathBuf,
}

impl Places {
    pub(super) fn of(args: &PlaceArgs, listing: bool) -> Self {
        let target = target_folder();
        let workspace = target.parent().unwrap_or(Path::new(".")).to_owned();
        let or = |given: &Option<PathBuf>, default: PathBuf| given.clone().unwrap_or(default);
        Self {
            sources: Sources {
                manifests: or(&args.manifests, workspace.join("test-manifests")),
                payloads: or(&args.payloads, target.join("guest/x86_64-unknown-linux-gnu/guest")),
                listing,
            },
            runs: args.run_dir.clone().unwrap_or_else(runs_folder),
            device: args.device.clone(),
        }
    }

    /// The arguments that make a worker find the same.
    pub(super) fn worker_arguments(&self) -> Vec<OsString> {
        let pairs = [("--manifests", &self.sources.manifests), ("--payloads", &self.sources.payloads)];
        let pairs = pairs.into_iter().flat_map(|(flag, path)| [flag.into(), path.clone().into_os_string()]);
        std::iter::once("worker".into()).chain(pairs).collect()
    }
}

/// The folder of runs.
pub(super) fn runs_folder() -> PathBuf {
    target_folder().join("exitspec")
}

/// Cargo's target folder that this program is in, which Cargo marks by a CACHEDIR.TAG; else `target`.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let marked = program.ancestors().skip(1).find(|folder| folder.join("CACHEDIR.TAG").is_file());
    marked.map_or_else(|| PathBuf::from("target"), Path::to_owned)
}
