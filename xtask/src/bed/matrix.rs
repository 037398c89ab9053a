//! The same suite under several module parameters, a machine for each, and one table at the end.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context;

use super::folder::RunFolder;
use super::params::Params;
use super::run::{self, Plan};
use super::{reports, unusable};
use crate::interrupt;

/// Runs the suite under each of these, `jobs` at once; the worst exit status.
pub(crate) fn run(plan: &Plan, list: &[Params], jobs: usize) -> anyhow::Result<u8> {
    let (runs, kind) = (run::runs(), plan.kind);
    let todo = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, list.len()) {
            scope.spawn(|| {
                while interrupt::caught().is_none()
                    && let Some(params) = list.get(todo.fetch_add(1, Ordering::Relaxed))
                {
                    let name = plan.params.and(params).to_string();
                    let folder = RunFolder::create(&runs, &format!("{kind}-{name}"));
                    let ran = folder.and_then(|folder| Ok((run::run(plan, params, &folder)?, folder)));
                    let (status, folder) = match ran {
                        Ok((status, folder)) => (status, Some(folder)),
                        Err(error) => (unusable(&error.context(format!("the bed {kind} with {name}"))), None),
                    };
                    eprintln!("bed      {name}: exit status {status}");
                    if let Ok(mut done) = done.lock() {
                        done.push((name, status, folder));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    let place = |name: &str| list.iter().position(|params| plan.params.and(params).to_string() == name);
    done.sort_by_key(|(name, ..)| place(name));
    let folders: Vec<_> = done.iter().filter_map(|(_, _, folder)| folder.as_ref()).collect();
    let mut status = done.iter().fold(0, |all, (_, status, _)| worst(all, *status));
    if !folders.is_empty() {
        let paths: Vec<_> = folders.iter().map(|folder| folder.path()).collect();
        if interrupt::caught().is_none() {
            status = worst(status, table(plan, &paths, false)?);
        }
        reports::write(&plan.suite.runner, &paths, plan.runner.report_dir.as_deref())?;
    }
    Ok(status)
}

/// Prints the runs side by side. Whether all of them conform is known from their own statuses, and how they do not: what
/// is given back is the status of a table that cannot be printed, and else 0.
pub(crate) fn table(plan: &Plan, runs: &[&Path], all: bool) -> anyhow::Result<u8> {
    // The runner for the bed runs here as well, and it is built already.
    let mut compare = Command::new(&plan.suite.runner);
    if plan.runner.wants_json() {
        compare.stdout(std::io::stderr());
    } else {
        println!();
    }
    compare.arg("compare").args(all.then_some("--all")).args(runs);
    let ended = compare.status().context("cannot start the runner to compare")?;
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    let code = code.with_context(|| format!("`exitspec compare` fails ({ended})"))?;
    Ok(if code > 1 { code } else { 0 })
}

/// The exit status of two runs together: what says less of the kernel is worse, a status that nobody knows most.
pub(crate) fn worst(one: u8, other: u8) -> u8 {
    let rank = |status: u8| [0, 4, 1, 2, 3].iter().position(|known| *known == status).unwrap_or(usize::MAX);
    if rank(other) > rank(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_status_is_not_the_greatest() {
        // From the best to the worst.
        let order = [0, 4, 1, 2, 3, 101];
        for (place, better) in order.iter().enumerate() {
            for worse in &order[place..] {
                assert_eq!(worst(*better, *worse), *worse);
                assert_eq!(worst(*worse, *better), *worse);
            }
        }
    }
}
