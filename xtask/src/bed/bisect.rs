//! One step of a bisection: does a kernel show what a case is about?

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use super::folder::RunFolder;
use super::kernel::{Kernel, Spec, tree};
use super::kind::Kind;
use super::params::Params;
use super::run::{self, Plan};
use super::runner_args::RunnerArgs;
use super::{Trouble, build_suite, folder, plan, suite};
use crate::bed::args::BedArgs;

/// What a step has found, as `git bisect run` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The case holds.
    Good,
    /// The kernel deviates, hangs in the case or dies of it.
    Bad,
    /// This kernel cannot tell: it does not build or boot, or cannot play the case.
    Skip,
}

impl Step {
    /// The exit status.
    pub(crate) const fn status(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Bad => 1,
            Self::Skip => 125,
        }
    }

    fn of(verdict: Option<&str>) -> Self {
        match verdict {
            // Nothing is waived in a bisection, so the last two do not come.
            Some("pass" | "xpass") => Self::Good,
            Some("fail" | "timeout" | "crash" | "xfail") => Self::Bad,
            _ => Self::Skip,
        }
    }
}

/// Takes a step with the kernel of a tree, built first if `build` says so. An error is what no other commit would
/// mend: the user's mistake, or something that lacks here.
pub(crate) fn step(
    kind: Kind,
    args: &BedArgs,
    source: &Path,
    build: bool,
    case: &str,
) -> anyhow::Result<Step> {
    let source = tree::source(source)?;
    let runner = RunnerArgs {
        rest: vec!["--no-waivers".to_owned()],
        selection: vec!["--exact".to_owned(), case.to_owned()],
        ..RunnerArgs::default()
    };
    // What does not depend on the kernel comes first, so that its lack is not taken for a kernel's fault.
    kind.find(&folder()).with_context(|| format!("the bed {kind} cannot be used"))?;
    build_suite(&runner)?;
    let suite = suite(&runner);
    known(&suite.runner, &suite.manifests, &suite.payloads, case)?;
    let kernel = match build.then(|| tree::build(&source, &folder())) {
        None => source,
        Some(Ok(built)) => built,
        Some(Err(error)) => return Ok(cannot_tell(&error)),
    };
    let spec = Spec::Path(kernel);
    if let Err(error) = Kernel::find(&spec, None, &folder()).and_then(|kernel| kernel.to_load(kind.module()))
    {
        return Ok(cannot_tell(&error));
    }
    let args = BedArgs { kernel: Some(spec), ..args.clone() };
    match plan(kind, &args, runner, suite) {
        Ok(plan) => play(&plan, case, &RunFolder::create(&run::runs(), &format!("bisect-{kind}"))?),
        Err(Trouble::Usage(error) | Trouble::Unusable(error)) => Err(error),
    }
}

/// Whether there is such a case at all.
fn known(runner: &Path, manifests: &Path, payloads: &Path, case: &str) -> anyhow::Result<()> {
    let mut list = std::process::Command::new(runner);
    list.args(["test", "--list", "--format=terse", "--exact", case]);
    list.arg("--manifests").arg(manifests).arg("--payloads").arg(payloads);
    let output = list.output().context("cannot start the runner")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.lines().any(|line| line.ends_with(": test")) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    anyhow::bail!("there is no case `{case}`; `cargo xtask test --list` names them\n{said}");
}

/// Plays the case.
pub(super) fn play(plan: &Plan, case: &str, folder: &RunFolder) -> anyhow::Result<Step> {
    if let Err(error) = run::run(plan, &Params::default(), folder) {
        return Ok(cannot_tell(&error));
    }
    run::say_where(folder);
    let path = folder.journal_path();
    let journal = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let verdict = verdict(&journal, case);
    let step = Step::of(verdict.as_deref());
    eprintln!("step     {case}: {}: {step:?}", verdict.as_deref().unwrap_or("no verdict"));
    Ok(step)
}

fn cannot_tell(error: &anyhow::Error) -> Step {
    eprintln!("step     this kernel cannot tell: {error:#}");
    Step::Skip
}

/// The verdict of a case in a journal.
fn verdict(journal: &str, case: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        event: String,
        case: String,
        outcome: Outcome,
    }
    #[derive(Deserialize)]
    struct Outcome {
        verdict: String,
    }
    let lines = journal.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let of_case = lines.filter(|line| line.event == "finished" && line.case == case);
    of_case.map(|line| line.outcome.verdict).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_verdict_is_to_git() {
        let status = |verdict| Step::of(verdict).status();
        assert_eq!(status(Some("pass")), 0);
        assert_eq!(["fail", "timeout", "crash"].map(|word| status(Some(word))), [1, 1, 1]);
        assert_eq!(["skip", "error", "?"].map(|word| status(Some(word))), [125, 125, 125]);
        assert_eq!(status(None), 125);
    }

    #[test]
    fn a_verdict_is_that_of_the_case() {
        let line = |case: &str, verdict: &str| {
            format!(
                r#"{{"event":"finished","case":"{case}","outcome":{{"verdict":"{verdict}","reason":""}},"duration_us":1}}"#
            )
        };
        let journal = [
            r#"{"event":"started","case":"a.one"}"#,
            &line("a.one~kick", "fail"),
            "torn",
            &line("a.one", "pass"),
        ];
        assert_eq!(verdict(&journal.join("\n"), "a.one").as_deref(), Some("pass"));
        assert_eq!(verdict(&journal.join("\n"), "a.two"), None);
    }

    #[test]
    fn mistakes_that_no_commit_mends_are_no_step() {
        let (args, _) = BedArgs::split(&[]);
        let error = step(Kind::Amd, &args, Path::new("/nonexistent"), true, "a.one").unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent"), "{error:#}");
        let empty = tempfile::tempdir().unwrap();
        let error = step(Kind::Amd, &args, empty.path(), true, "a.one").unwrap_err();
        assert!(format!("{error:#}").contains("no kernel's source"), "{error:#}");
    }
}
