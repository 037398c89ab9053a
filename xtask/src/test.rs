//! `cargo xtask test`: builds guests and runner, then becomes the runner.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::build;

/// `cargo xtask test`
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Handed to the runner; `--help` shows what it takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    runner: Vec<OsString>,
}

/// Runs the suite from any folder. Returns only if it cannot start; the exit status is the runner's.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Listing takes payloads that are not there on trust.
    if !args.runner.iter().any(|word| word == "--list" || word == "--help") {
        build::run(&build::Args::default())?;
    }
    Err(suite().args(&args.runner).exec()).context("cannot start cargo to run the suite")
}

/// Runs the whole suite and comes back; an error unless it conforms.
pub(crate) fn check() -> anyhow::Result<()> {
    build::run(&build::Args::default())?;
    let status = suite().status().context("cannot start cargo to run the suite")?;
    if !status.success() {
        bail!("the suite does not hold ({status})");
    }
    Ok(())
}

/// The runner's verb `test` with this workspace's manifests and payloads.
fn suite() -> Command {
    let mut command = runner();
    command.arg("test");
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
fn runner() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--package", "host-runner", "--bin", "exitspec"]);
    command.arg("--manifest-path").arg(build::workspace().join("Cargo.toml")).arg("--");
    command
}
