//! `cargo xtask soak`: builds guests, then becomes the runner's verb of that name.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::Context;

use crate::{build, test};

/// `cargo xtask soak`
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// The runner's options; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Plays tests at random on this machine; the exit status is the runner's.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    build::run(&build::Args::default())?;
    Err(test::suite_of("soak").args(&args.words).exec()).context("cannot start cargo to run the suite")
}
