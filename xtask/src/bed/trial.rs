//! A bed for chosen cases under given modules, several times in one machine: what `cargo xtask prove` needs of one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::args::BedArgs;
use super::folder::RunFolder;
use super::kernel::modules::{Module, Modules};
use super::kind::Kind;
use super::params::Params;
use super::run::{self, Plan, Turn};
use super::shared::Shared;
use super::{RunnerArgs, Trouble, build_suite, plan, suite};

/// A case has much less time than elsewhere: it has held within seconds without the bug that may hang it. In Bochs a
/// guest that spins takes the runner, and with it the case's own limit, along.
const LONGEST_CASE: Duration = Duration::from_mins(1);

/// A bed that boots one kernel with modules that change from run to run.
#[derive(Debug)]
pub(crate) struct Trial {
    plan: Plan,
}

/// Cases, and what they run under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    /// What the run's folder is called after.
    pub(crate) name: &'a str,
    pub(crate) modules: &'a Path,
    pub(crate) params: &'a Params,
    /// Cases of the suite, or programs of others.
    pub(crate) cases: &'a [String],
}

/// The course of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Where its journal and its logs are.
    pub(crate) folder: PathBuf,
    /// The journal's place.
    pub(crate) journal: PathBuf,
    /// Why it did not come to its end, if it did not.
    pub(crate) trouble: Option<String>,
    /// How long it took, with its part of the machine's boot, in seconds.
    pub(crate) seconds: f64,
}

impl Trial {
    /// Finds the emulator, installing it if need be.
    pub(crate) fn new(kind: Kind, image: &Path, modules: &Path) -> anyhow::Result<Self> {
        let words: [OsString; 3] =
            [format!("--bed={kind}").into(), word("--kernel=", image), word("--modules=", modules)];
        let (args, _) = BedArgs::split(&words);
        let runner = RunnerArgs::default();
        let suite = super::suite(&runner);
        let mut plan = plan(kind, &args, runner, suite).map_err(|trouble| match trouble {
            Trouble::Usage(error) | Trouble::Unusable(error) => error,
        })?;
        plan.shown = false;
        Ok(Self { plan })
    }

    /// Runs these tasks in turn, in one machine for as long as it lives, below `runs`. Each has a folder of `manifests`.
    /// `told` is told of each when it has ended, and says whether the others are still wanted.
    pub(crate) fn run(
        &mut self,
        tasks: &[Task<'_>],
        manifests: &[PathBuf],
        runs: &Path,
        told: &mut dyn FnMut(usize, Ended) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        self.plan.longest_case = LONGEST_CASE;
        let words = |task: &Task<'_>| -> anyhow::Result<Vec<String>> {
            let mut words: Vec<OsString> = vec!["--exact".into()];
            words.extend(task.cases.iter().map(OsString::from));
            Ok(RunnerArgs::of(&words)?.selection)
        };
        let selections = tasks.iter().map(words).collect::<anyhow::Result<Vec<_>>>()?;
        let plays = manifests.iter().map(PathBuf::as_path).zip(selections.iter().map(Vec::as_slice));
        self.go(tasks, &plays.collect::<Vec<_>>(), runs, told)
    }

    /// As [`run`](Self::run), with all programs of a folder instead of the suite, one by one (`bed-peer`).
    pub(crate) fn run_programs(
        &mut self,
        tasks: &[Task<'_>],
        programs: &Path,
        runs: &Path,
        told: &mut dyn FnMut(usize, Ended) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        self.plan.suite.runner = suite::program("bed-peer");
        // Nothing in there is a manifest.
        programs.clone_into(&mut self.plan.suite.manifests);
        programs.clone_into(&mut self.plan.suite.payloads);
        self.go(tasks, &vec![(programs, &[][..]); tasks.len()], runs, told)
    }

    fn go(
        &self,
        tasks: &[Task<'_>],
        plays: &[(&Path, &[String])],
        runs: &Path,
        told: &mut dyn FnMut(usize, Ended) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let kind = self.plan.kind;
        let modules = |task: &Task<'_>| -> anyhow::Result<Vec<Module>> {
            let modules = Modules::in_folder(task.modules)?.to_load(kind.module())?;
            modules.iter().try_for_each(|module| task.params.check(&module.name, &module.params))?;
            Ok(modules)
        };
        let modules = tasks.iter().map(modules).collect::<anyhow::Result<Vec<_>>>()?;
        let each = tasks.iter().zip(&modules).zip(plays);
        let turns: Vec<Turn<'_>> = each
            .map(|((task, modules), (manifests, selection))| Turn {
                modules,
                params: self.plan.params.and(task.params),
                manifests,
                selection,
            })
            .collect();
        let shared = Shared::default();
        for (number, task) in tasks.iter().enumerate() {
            let began = Instant::now();
            let folder = RunFolder::create(runs, &format!("{kind}-{}", task.name))?;
            let trouble = trouble(run::run_first(&self.plan, &turns[number..], &folder, &shared), &folder);
            let seconds = (began.elapsed().as_secs_f64() + shared.shift()).max(0.0);
            let (folder, journal) = (folder.path().to_owned(), folder.journal_path());
            if !told(number, Ended { folder, journal, trouble, seconds })? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Why a run did not come to its end, if it did not.
fn trouble(ended: anyhow::Result<u8>, folder: &RunFolder) -> Option<String> {
    let error = match ended {
        // It conforms, it deviates, or every case was skipped.
        Ok(0 | 1 | 4) => return None,
        Ok(status) => {
            let text = folder.path().join("text.log");
            anyhow!("the runner ended with status {status}; {} says why", text.display())
        }
        Err(error) => error,
    };
    Some(format!("{error:#}"))
}

fn word(option: &str, path: &Path) -> OsString {
    let mut word = OsString::from(option);
    word.push(path);
    word
}

/// Builds what goes into a bed; the files, whose content decides what a run means.
pub(crate) fn build_programs() -> anyhow::Result<Vec<PathBuf>> {
    let runner = RunnerArgs::default();
    build_suite(&runner)?;
    let suite = super::suite(&runner);
    Ok(vec![suite.init, suite.runner, suite.payloads, suite.manifests.join("waivers"), suite.manifests])
}

/// Builds what plays programs of others in a bed, and gives its place.
pub(crate) fn build_peer() -> anyhow::Result<PathBuf> {
    suite::build(&["--package=bed-init", "--bin=bed-init", "--bin=bed-peer"])?;
    Ok(suite::program("bed-peer"))
}
