//! Verbs that are the runner's own: this process becomes the runner.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::{build, test};

/// Whatever the runner's verb takes.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Words {
    /// The runner's options; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// A verb that plays nothing; the exit status is the runner's.
pub(crate) fn read(verb: &str, words: &Words) -> anyhow::Result<ExitCode> {
    go(test::runner().arg(verb), words)
}

/// A verb that plays cases, whose guests are built first; the exit status is the runner's.
pub(crate) fn play(verb: &str, words: &Words) -> anyhow::Result<ExitCode> {
    build::run(&build::Args::default())?;
    go(&mut test::suite_of(verb), words)
}

fn go(runner: &mut Command, words: &Words) -> anyhow::Result<ExitCode> {
    Err(runner.args(&words.words).exec()).context("cannot start cargo to run exitspec")
}
