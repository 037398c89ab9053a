//! Beds: machines that are booted for a run, so that a kernel's KVM is tested without its hardware.
//!
//! The way of a run: options, kernel and QEMU, the suite's programs, an initramfs, a machine, lines of results.
//! What a case is and what a verdict means is the runner's business alone.

mod again;
mod amd;
mod apt;
pub(crate) mod args;
#[cfg(test)]
mod boots;
mod channel;
mod console;
mod event;
mod folder;
mod initramfs;
mod kernel;
mod lock;
mod matrix;
mod params;
mod qemu;
mod run;
mod runner_args;
mod session;
mod suite;
mod unpack;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use args::BedArgs;
use folder::RunFolder;
use kernel::{Kernel, Spec};
use params::Params;
use run::Plan;
use runner_args::Resumed;
pub(crate) use runner_args::RunnerArgs;
use suite::Suite;

use crate::build;

/// The bed cannot be used; the runner's own status for a host that cannot run anything.
pub(crate) const UNUSABLE: u8 = 3;

/// How long nothing may come from a machine that runs cases. Longer than the runner's own limits, so that
/// it is the runner who ends a case that hangs, as long as the kernel lives.
const SILENCE: Duration = Duration::from_mins(6);

/// How long a kernel may take until the suite begins.
const BOOT_TIMEOUT: Duration = Duration::from_mins(2);

/// The kernel that is booted if none is named.
const DEFAULT_KERNEL: &str = "6.12";

/// Runs the suite in a bed; the exit status, as the runner's. An error is the user's mistake or ours.
pub(crate) fn run(args: &BedArgs, runner: RunnerArgs) -> anyhow::Result<u8> {
    // Building takes longest, so mistakes are looked for before.
    if args.matrix.is_some() && runner.resume.is_some() {
        bail!("--resume goes on with one run, not with a matrix");
    }
    let resumed = resumed(&run::runs(), runner.resume.as_ref())?;
    let suite = suite(&runner);
    let plan = match plan(args, runner, suite) {
        Ok(plan) => plan,
        Err(Trouble::Usage(error)) => return Err(error),
        Err(Trouble::Unusable(error)) => return Ok(unusable(&error)),
    };
    if plan.runner.payloads.is_none() {
        build::run(&build::Args::default())?;
    }
    suite::build(&["--package=host-runner", "--package=bed-init", "--bin=exitspec", "--bin=bed-init"])?;
    match &args.matrix {
        Some(list) => matrix::run(&plan, list, args.jobs.into()),
        None => one(&plan, resumed),
    }
}

/// The run to go on with, if nobody else does.
fn resumed(runs: &Path, wanted: Option<&Resumed>) -> anyhow::Result<Option<RunFolder>> {
    let folder = match wanted {
        None => return Ok(None),
        Some(Resumed::Newest) => RunFolder::find(runs, None, "amd")?,
        Some(Resumed::Named(run)) => RunFolder::find(runs, Some(run), "amd")?,
    };
    folder.journal()?;
    Ok(Some(folder))
}

/// Finds, and fetches if need be, what a run with these words needs; why that cannot be had, if it cannot.
pub(crate) fn prepare(args: &BedArgs, runner: RunnerArgs) -> anyhow::Result<Option<anyhow::Error>> {
    let suite = suite(&runner);
    match plan(args, runner, suite) {
        Ok(_) => Ok(None),
        Err(Trouble::Unusable(error)) => Ok(Some(error)),
        Err(Trouble::Usage(error)) => Err(error),
    }
}

/// Whether there is, or can be, everything that a bed needs.
pub(crate) fn is_to_be_had() -> bool {
    let kernel = folder().join("kernels").join(format!("debian-{DEFAULT_KERNEL}")).is_dir();
    qemu::is_to_be_had() && (kernel || apt::is_here())
}

/// Where kernels and package lists are kept.
fn folder() -> PathBuf {
    build::workspace().join("target").join("beds")
}

/// What goes into the bed.
fn suite(runner: &RunnerArgs) -> Suite {
    Suite {
        init: suite::program("bed-init"),
        runner: suite::program("exitspec"),
        manifests: runner.manifests.clone().unwrap_or_else(|| build::workspace().join("test-manifests")),
        payloads: runner.payloads.clone().unwrap_or_else(build::payloads),
        waivers: runner.waivers.clone(),
    }
}

/// Why there is no plan.
#[derive(Debug)]
enum Trouble {
    /// The user's mistake.
    Usage(anyhow::Error),
    /// This machine lacks something.
    Unusable(anyhow::Error),
}

/// Finds QEMU and the kernel, and checks that the parameters are the modules' own.
fn plan(args: &BedArgs, runner: RunnerArgs, suite: Suite) -> Result<Plan, Trouble> {
    let folder = folder();
    let _lock = lock::lock(&folder).map_err(Trouble::Unusable)?;
    let qemu = qemu::find(&folder).map_err(Trouble::Unusable)?;
    let spec = args.kernel.clone().unwrap_or_else(|| Spec::Debian(DEFAULT_KERNEL.to_owned()));
    let kernel = Kernel::find(&spec, args.modules.as_deref(), &folder).map_err(|error| match spec {
        Spec::Debian(_) => Trouble::Unusable(error),
        Spec::Host | Spec::Path(_) => Trouble::Usage(error),
    })?;
    let modules = kernel.to_load(amd::MODULE).map_err(Trouble::Usage)?;
    for params in args.params.iter().chain(args.matrix.iter().flatten()) {
        for module in &modules {
            params.check(&module.name, &module.params).map_err(Trouble::Usage)?;
        }
    }
    eprintln!("bed      amd: QEMU {}, kernel {}", qemu.version, kernel.name);
    if let Some(remark) = qemu.remark() {
        eprintln!("         {remark}");
    }
    let params = args.params.iter().fold(Params::default(), |all, those| all.and(those));
    Ok(Plan {
        qemu,
        kernel,
        modules,
        suite,
        runner,
        params,
        kernel_args: args.kernel_args.clone(),
        boot_timeout: args.boot_timeout.map_or(BOOT_TIMEOUT, Duration::from_secs),
        silence: SILENCE,
        // The words of several machines at once would mean nothing; they are in the runs' folders.
        shown: args.matrix.is_none() || args.jobs == 1,
        environment: Vec::new(),
    })
}

/// One run, new or resumed.
fn one(plan: &Plan, resumed: Option<RunFolder>) -> anyhow::Result<u8> {
    let runs = run::runs();
    let ending =
        if plan.params == Params::default() { "amd".to_owned() } else { format!("amd-{}", plan.params) };
    let folder = match resumed {
        Some(folder) => folder,
        None => RunFolder::create(&runs, &ending)?,
    };
    let status = run::run(plan, &Params::default(), &folder);
    run::say_where(&folder);
    Ok(status.context("the bed amd cannot be used").unwrap_or_else(|error| unusable(&error)))
}

/// Says why the bed cannot be used; the exit status.
fn unusable(error: &anyhow::Error) -> u8 {
    eprintln!("error: {error:#}");
    UNUSABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_cannot_be_resumed_is_a_mistake_before_anything_is_built() {
        let runs = tempfile::tempdir().unwrap();
        let newest = || resumed(runs.path(), Some(&Resumed::Newest));
        assert!(resumed(runs.path(), None).unwrap().is_none());
        assert!(newest().unwrap_err().to_string().contains("no run in the bed amd"));
        let named = resumed(runs.path(), Some(&Resumed::Named("none".to_owned())));
        assert!(named.unwrap_err().to_string().contains("no such run"));
        let folder = RunFolder::create(runs.path(), "amd").unwrap();
        let journal = folder.journal().unwrap();
        assert!(format!("{:#}", newest().unwrap_err()).contains("another process"));
        drop(journal);
        assert_eq!(newest().unwrap().unwrap().path(), folder.path());
    }

    #[test]
    fn a_matrix_is_not_resumed() {
        let words = ["--matrix=default,npt=0".into()];
        let runner = RunnerArgs { resume: Some(Resumed::Newest), ..RunnerArgs::default() };
        let error = run(&BedArgs::split(&words).0, runner).unwrap_err();
        assert!(error.to_string().contains("not with a matrix"), "{error}");
    }
}
