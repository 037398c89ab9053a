//! A bed for chosen cases under given modules: what `cargo xtask prove` needs of one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::args::BedArgs;
use super::folder::RunFolder;
use super::kernel::modules::Modules;
use super::kind::Kind;
use super::params::Params;
use super::run::{self, Plan};
use super::{RunnerArgs, Trouble, build_suite, plan, suite};

/// A bed that boots one kernel with modules that change from run to run.
#[derive(Debug)]
pub(crate) struct Trial {
    plan: Plan,
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

    /// Boots, loads these modules with these parameters and runs these cases, as often as it takes; below `runs`.
    pub(crate) fn run(
        &mut self,
        modules: &Path,
        params: &Params,
        cases: &[String],
        runs: &Path,
        name: &str,
    ) -> anyhow::Result<Ended> {
        let mut words: Vec<OsString> = vec!["--exact".into()];
        words.extend(cases.iter().map(OsString::from));
        self.plan.runner = RunnerArgs::of(&words)?;
        self.go(modules, params, runs, name)
    }

    /// The same with all programs of a folder instead of the suite, one by one (`bed-peer`).
    pub(crate) fn run_programs(
        &mut self,
        modules: &Path,
        params: &Params,
        programs: &Path,
        runs: &Path,
        name: &str,
    ) -> anyhow::Result<Ended> {
        self.plan.suite.runner = suite::program("bed-peer");
        // Nothing in there is a manifest.
        programs.clone_into(&mut self.plan.suite.manifests);
        programs.clone_into(&mut self.plan.suite.payloads);
        self.go(modules, params, runs, name)
    }

    fn go(&mut self, modules: &Path, params: &Params, runs: &Path, name: &str) -> anyhow::Result<Ended> {
        let kind = self.plan.kind;
        self.plan.modules = Modules::in_folder(modules)?.to_load(kind.module())?;
        for module in &self.plan.modules {
            params.check(&module.name, &module.params)?;
        }
        let folder = RunFolder::create(runs, name)?;
        let ended = run::run(&self.plan, params, &folder);
        let trouble = match ended {
            // It conforms, it deviates, or every case was skipped.
            Ok(0 | 1 | 4) => None,
            Ok(status) => {
                let text = folder.path().join("text.log");
                Some(anyhow!("the runner ended with status {status}; {} says why", text.display()))
            }
            Err(error) => Some(error),
        };
        let trouble = trouble.map(|error| format!("{error:#}"));
        Ok(Ended { folder: folder.path().to_owned(), journal: folder.journal_path(), trouble })
    }
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
