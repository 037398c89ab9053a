//! `cargo xtask report`: becomes the runner's verb of that name, which makes reports of runs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::Context;

use crate::test;

/// `cargo xtask report`
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// The runner's options; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Reports runs; the exit status is the runner's.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    Err(test::runner().arg("report").args(&args.words).exec()).context("cannot start cargo to run the runner")
}
