//! `cargo xtask test`: builds guests and runner, then becomes the runner, or runs it in a bed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

use crate::bed::args::{BedArgs, Where};
use crate::bed::kind::Kind;
use crate::{bed, build};

/// `cargo xtask test`
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// A bed's options, and the runner's; `--help` shows both.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Runs the suite from any folder; the exit status is the runner's.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (bed, words) = BedArgs::split(&args.words);
    let asks = |names: &[&str]| words.iter().any(|word| names.iter().any(|name| word == name));
    if asks(&["--help", "-h"]) {
        println!("{}\n", BedArgs::help().trim_end());
    } else if asks(&["--list"]) {
        // Listing takes payloads that are not there on trust, and boots nothing.
    } else {
        match bed.place() {
            Where::Local => build::run(&build::Args::default())?,
            Where::All => return bed::run_all(&bed, &words).map(ExitCode::from),
            Where::Amd => return in_bed(Kind::Amd, &bed, &words).map(ExitCode::from),
            Where::Intel => return in_bed(Kind::Intel, &bed, &words).map(ExitCode::from),
        }
    }
    let mut command = suite();
    if let [kind] = bed.place().beds()[..] {
        command.arg(format!("--bed={kind}"));
    }
    Err(command.args(&words).exec()).context("cannot start cargo to run the suite")
}

fn in_bed(kind: Kind, bed: &BedArgs, words: &[OsString]) -> anyhow::Result<u8> {
    bed::run(kind, bed, bed::RunnerArgs::of(words)?)
}

/// Runs the whole suite, also under these variations, and comes back; an error unless it conforms.
pub(crate) fn check(vary: &str) -> anyhow::Result<()> {
    build::run(&build::Args::default())?;
    let status =
        suite().args(["--quiet", "--vary", vary]).status().context("cannot start cargo to run the suite")?;
    if !status.success() {
        bail!("the suite does not hold ({status})");
    }
    Ok(())
}

/// Runs the suite in a bed, with these words of the command line, and comes back; an error unless it conforms.
pub(crate) fn check_bed(kind: Kind, words: &[&str]) -> anyhow::Result<()> {
    let line = words.iter().map(|word| format!(" {word}")).collect::<String>();
    let (bed, words) = BedArgs::split(&words.iter().map(OsString::from).collect::<Vec<_>>());
    let status = in_bed(kind, &bed, &words)?;
    if status != 0 {
        bail!("`cargo xtask test --bed {kind}{line}` does not conform (exit status {status})");
    }
    Ok(())
}

/// Fetches what a run in a bed with these words needs; why that cannot be had, if it cannot.
pub(crate) fn prepare_bed(kind: Kind, words: &[&str]) -> anyhow::Result<Option<anyhow::Error>> {
    let (bed, words) = BedArgs::split(&words.iter().map(OsString::from).collect::<Vec<_>>());
    bed::prepare(kind, &bed, bed::RunnerArgs::of(&words)?)
}

/// The runner's verb `test` with this workspace's manifests and payloads.
pub(crate) fn suite() -> Command {
    suite_of("test")
}

/// A verb of the runner that plays cases, with this workspace's manifests and payloads.
pub(crate) fn suite_of(verb: &str) -> Command {
    let mut command = runner();
    command.arg(verb);
    command.arg("--manifests").arg(build::workspace().join("test-manifests"));
    command.arg("--payloads").arg(build::payloads());
    command
}

/// What the runner prints when it is called with this argument alone.
pub(crate) fn ask_runner(verb: &str) -> anyhow::Result<Vec<u8>> {
    let output = runner().arg(verb).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`exitspec {verb}` fails ({})", output.status);
    }
    Ok(output.stdout)
}

/// The runner, built first if need be. Cargo replaces itself by it.
pub(crate) fn runner() -> Command {
    let mut command = build::cargo();
    command.args(["run", "--quiet", "--release", "--package", "host-runner", "--bin", "exitspec"]);
    command.arg("--manifest-path").arg(build::workspace().join("Cargo.toml")).arg("--");
    command
}
