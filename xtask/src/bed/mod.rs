//! Beds: machines that are booted for a run, so that a kernel's KVM is tested without its hardware.
//!
//! The way of a run: options, kernel and QEMU, the suite's programs, an initramfs, a machine, lines of results.
//! What a case is and what a verdict means is the runner's business alone.

mod again;
mod all;
mod amd;
pub(crate) mod apt;
pub(crate) mod args;
pub(crate) mod bisect;
mod bochs;
mod boot;
#[cfg(test)]
mod boots;
mod channel;
mod console;
mod event;
mod folder;
mod initramfs;
mod intel;
pub(crate) mod kernel;
pub(crate) mod kind;
pub(crate) mod lock;
mod matrix;
pub(crate) mod params;
mod process;
mod progress;
mod qemu;
mod reports;
mod run;
mod runner_args;
mod screen;
mod session;
mod shared;
mod suite;
pub(crate) mod trial;
mod unpack;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

pub(crate) use all::run as run_all;
use args::BedArgs;
use folder::RunFolder;
use kernel::{Kernel, Spec};
use kind::Kind;
use params::Params;
pub(crate) use process::spawn;
use run::Plan;
pub(crate) use run::newest as newest_run;
use runner_args::Resumed;
pub(crate) use runner_args::RunnerArgs;
use suite::Suite;

use crate::{build, interrupt};

/// A case that takes longer than this is lost, whatever its limit is said to be.
const LONGEST_CASE: Duration = Duration::from_hours(1);

/// The bed cannot be used; the runner's own status for a host that cannot run anything.
pub(crate) const UNUSABLE: u8 = 3;

/// Runs the suite in a bed; the exit status, as the runner's. An error is the user's mistake or ours.
pub(crate) fn run(kind: Kind, args: &BedArgs, runner: RunnerArgs) -> anyhow::Result<u8> {
    // Building takes longest, so mistakes are looked for before.
    if args.matrix.is_some() && runner.resume.is_some() {
        bail!("--resume goes on with one run, not with a matrix");
    }
    let resumed = resumed(&run::runs(), runner.resume.as_ref(), kind)?;
    let suite = suite(&runner);
    let plan = match plan(kind, args, runner, suite) {
        Ok(plan) => plan,
        Err(Trouble::Usage(error)) => return Err(error),
        Err(Trouble::Unusable(error)) => return Ok(unusable(&error)),
    };
    build_suite(&plan.runner)?;
    let _watch = interrupt::watch()?;
    match &args.matrix {
        Some(list) => {
            let list = if list.is_empty() { kind.matrix() } else { list.clone() };
            matrix::run(&plan, &of_bed(&list, kind)?, args.jobs.into())
        }
        None => one(&plan, resumed),
    }
}

/// The run to go on with, if nobody else does.
fn resumed(runs: &Path, wanted: Option<&Resumed>, kind: Kind) -> anyhow::Result<Option<RunFolder>> {
    let folder = match wanted {
        None => return Ok(None),
        Some(Resumed::Newest) => RunFolder::find(runs, None, kind.name())?,
        Some(Resumed::Named(run)) => RunFolder::find(runs, Some(run), kind.name())?,
    };
    folder.journal()?;
    Ok(Some(folder))
}

/// Finds, and fetches if need be, what a run with these words needs; why that cannot be had, if it cannot.
pub(crate) fn prepare(
    kind: Kind,
    args: &BedArgs,
    runner: RunnerArgs,
) -> anyhow::Result<Option<anyhow::Error>> {
    let suite = suite(&runner);
    match plan(kind, args, runner, suite) {
        Ok(_) => Ok(None),
        Err(Trouble::Unusable(error)) => Ok(Some(error)),
        Err(Trouble::Usage(error)) => Err(error),
    }
}

/// Builds what goes into a bed.
fn build_suite(runner: &RunnerArgs) -> anyhow::Result<()> {
    if runner.payloads.is_none() {
        build::run(&build::Args::default())?;
    }
    suite::build(&["--package=host-runner", "--package=bed-init", "--bin=exitspec", "--bin=bed-init"])
}

/// Downloads one of Debian's packages into a folder of its own; its file.
pub(crate) fn fetch(package: &str, home: &Path) -> anyhow::Result<PathBuf> {
    let place = home.join(package);
    std::fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    apt::Apt::open(&apt::Sources::HostAnd(None), &folder().join("apt"))?.download(package, &place)
}

/// Whether there is, or can be, everything that a bed needs.
pub(crate) fn is_to_be_had(kind: Kind, kernel: &Spec) -> bool {
    kind.is_to_be_had() && kernel::is_to_be_had(kernel, &folder())
}

/// Where kernels and package lists are kept.
pub(crate) fn folder() -> PathBuf {
    build::workspace().join("target").join("beds")
}

/// Where the runs are.
pub(crate) fn runs() -> PathBuf {
    run::runs()
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

/// Finds the emulator and the kernel, and checks that the parameters are the modules' own.
fn plan(kind: Kind, args: &BedArgs, runner: RunnerArgs, suite: Suite) -> Result<Plan, Trouble> {
    let folder = folder();
    let _lock = lock::lock(&folder).map_err(Trouble::Unusable)?;
    let params = of_bed(&args.params, kind).map_err(Trouble::Usage)?;
    let matrix = of_bed(args.matrix.as_deref().unwrap_or_default(), kind).map_err(Trouble::Usage)?;
    let emulator = kind.find(&folder).map_err(Trouble::Unusable)?;
    let spec = args.kernel.clone().unwrap_or_else(|| kind.kernel());
    let kernel = Kernel::find(&spec, args.modules.as_deref(), &folder).map_err(|error| match spec {
        Spec::Debian(_) | Spec::Small(_) => Trouble::Unusable(error),
        Spec::Host | Spec::Path(_) => Trouble::Usage(error),
    })?;
    let modules = kernel.to_load(kind.module()).map_err(Trouble::Usage)?;
    for params in params.iter().chain(&matrix) {
        for module in &modules {
            params.check(&module.name, &module.params).map_err(Trouble::Usage)?;
        }
    }
    eprintln!("bed      {kind}: {}, kernel {}", emulator.name(), kernel.name);
    if let Some(remark) = emulator.remark() {
        eprintln!("         {remark}");
    }
    let params = params.iter().fold(Params::default(), |all, those| all.and(those));
    Ok(Plan {
        kind,
        emulator,
        kernel,
        modules,
        suite,
        runner,
        params,
        kernel_args: args.kernel_args.clone(),
        boot_timeout: args.boot_timeout.map_or(kind.boot_timeout(), Duration::from_secs),
        silence: kind.silence(),
        longest_case: LONGEST_CASE,
        // The words of several machines at once would mean nothing; they are in the runs' folders.
        shown: args.matrix.is_none() || args.jobs == 1,
        environment: Vec::new(),
    })
}

/// Parameters of this kind of bed.
fn of_bed(params: &[Params], kind: Kind) -> anyhow::Result<Vec<Params>> {
    params.iter().map(|params| params.clone().of_bed(kind)).collect()
}

/// One run, new or resumed.
fn one(plan: &Plan, resumed: Option<RunFolder>) -> anyhow::Result<u8> {
    let (runs, kind) = (run::runs(), plan.kind);
    let folder = match resumed {
        Some(folder) => folder,
        None if plan.params == Params::default() => RunFolder::create(&runs, kind.name())?,
        None => RunFolder::create(&runs, &format!("{kind}-{}", plan.params))?,
    };
    let status = in_folder(plan, &folder);
    reports::write(&plan.suite.runner, &[folder.path()], plan.runner.report_dir.as_deref())?;
    Ok(status)
}

/// Runs and says where the results are; the exit status.
fn in_folder(plan: &Plan, folder: &RunFolder) -> u8 {
    let status = run::run(plan, &Params::default(), folder);
    run::say_where(folder);
    let status = status.with_context(|| format!("the bed {} cannot be used", plan.kind));
    status.unwrap_or_else(|error| unusable(&error))
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
        let newest = || resumed(runs.path(), Some(&Resumed::Newest), Kind::Amd);
        assert!(resumed(runs.path(), None, Kind::Amd).unwrap().is_none());
        assert!(newest().unwrap_err().to_string().contains("no run in the bed amd"));
        let named = resumed(runs.path(), Some(&Resumed::Named("none".to_owned())), Kind::Amd);
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
        let error = run(Kind::Amd, &BedArgs::split(&words).0, runner).unwrap_err();
        assert!(error.to_string().contains("not with a matrix"), "{error}");
    }
}
