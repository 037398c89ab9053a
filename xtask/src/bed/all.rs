//! The same cases on this machine and in every bed, and one table of the verdicts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, anyhow, bail};

use super::args::BedArgs;
use super::folder::RunFolder;
use super::kind::Kind;
use super::matrix::worst;
use super::run::{self, Plan};
use super::{RunnerArgs, Trouble, build_suite, in_folder, matrix, plan, reports, suite, unusable};
use crate::interrupt;

/// Runs everywhere; the worst exit status.
pub(crate) fn run(args: &BedArgs, words: &[OsString]) -> anyhow::Result<u8> {
    let runner = RunnerArgs::of(words)?;
    if args.matrix.is_some() || runner.resume.is_some() {
        bail!("--bed all is a run in each place; --matrix and --resume are for one bed");
    }
    let mut status = 0;
    let mut plans = Vec::new();
    for kind in Kind::ALL {
        match plan(kind, args, runner.clone(), suite(&runner)) {
            Ok(plan) => plans.push(plan),
            Err(Trouble::Usage(error)) => return Err(error),
            // The other places are worth having without it.
            Err(Trouble::Unusable(error)) => status = worst(status, unusable(&error)),
        }
    }
    build_suite(&runner)?;
    let _watch = interrupt::watch()?;
    let mut folders = Vec::new();
    eprintln!("\nlocal");
    let (code, folder) = local(words)?;
    status = worst(status, code);
    folders.extend(folder);
    let ran = if interrupt::caught().is_none() { beds(&mut plans, args.jobs)? } else { Vec::new() };
    for (code, folder) in ran {
        status = worst(status, code);
        folders.push(folder.path().to_owned());
    }
    if let Some(plan) = plans.first() {
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        if !folders.is_empty() {
            if interrupt::caught().is_none() {
                status = worst(status, matrix::table(plan, &folders, true)?);
            }
            // In the place of this machine's own.
            reports::write(&plan.suite.runner, &folders, plan.runner.report_dir.as_deref())?;
        }
    }
    Ok(status)
}

/// Runs on this machine; the exit status, and the run's folder if there is one.
fn local(words: &[OsString]) -> anyhow::Result<(u8, Option<PathBuf>)> {
    let before = run::newest();
    let mut command = crate::test::suite();
    command.args(words);
    let ended = interrupt::status(command).context("cannot start cargo to run the suite")?;
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    let code = code.with_context(|| format!("the runner failed ({ended})"))?;
    // A host that cannot run anything has no run.
    Ok((code, run::newest().filter(|folder| Some(folder) != before.as_ref())))
}

/// Runs in every bed, `jobs` at once; exit statuses and runs in the order of the plans.
fn beds(plans: &mut [Plan], jobs: u8) -> anyhow::Result<Vec<(u8, RunFolder)>> {
    let folders = plans.iter().map(|plan| RunFolder::create(&run::runs(), plan.kind.name()));
    let folders: Vec<RunFolder> = folders.collect::<Result<_, _>>()?;
    let statuses: Vec<u8> = if jobs == 1 {
        let each = plans.iter().zip(&folders).map(|(plan, folder)| {
            if let Some(status) = interrupt::caught() {
                return status;
            }
            eprintln!("\nbed      {}", plan.kind);
            in_folder(plan, folder)
        });
        each.collect()
    } else {
        // The words of several machines at once would mean nothing; they are in the runs' folders.
        for plan in plans.iter_mut() {
            plan.shown = false;
        }
        thread::scope(|scope| {
            let threads: Vec<_> = plans
                .iter()
                .zip(&folders)
                .map(|(plan, folder)| {
                    scope.spawn(move || {
                        let status = in_folder(plan, folder);
                        eprintln!("bed      {}: exit status {status}", plan.kind);
                        status
                    })
                })
                .collect();
            let ends = threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a bed's thread panicked")));
            ends.collect::<Result<_, _>>()
        })?
    };
    Ok(statuses.into_iter().zip(folders).collect())
}
