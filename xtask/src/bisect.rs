//! `cargo xtask bisect-step`: what `git bisect run` asks of each commit of a kernel.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::bed::args::{BedArgs, Where};
use crate::bed::bisect::step;
use crate::bed::kind::Kind;
use crate::bed::params::Params;

/// The status by which `git bisect run` stops: what lacks here would lack at every commit.
pub(crate) const STOP: u8 = 255;
/// The verb, as its mistakes must not be taken for a bad commit.
pub(crate) const VERB: &str = "bisect-step";

/// `cargo xtask bisect-step`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The case, by its whole id, or a test of it: port-io.in-byte~kick
    #[arg(value_name = "CASE")]
    case: String,
    /// The kernel's source. If it has a .config it is built by it, in its place; else by xtask/kernel/bed.config, below
    /// target/beds
    #[arg(long, value_name = "DIR")]
    kernel_tree: PathBuf,
    /// Build nothing: the tree has a bzImage already, and what modules it needs
    #[arg(long)]
    no_build: bool,
    /// The machine: amd or intel
    #[arg(long, value_name = "BED", default_value = "amd", value_parser = one_bed)]
    bed: Where,
    /// Parameters of KVM's modules, as for `test` (repeatable)
    #[arg(long, value_name = "PARAMS")]
    params: Vec<Params>,
    /// More words for the kernel's command line (repeatable)
    #[arg(long = "kernel-args", value_name = "WORDS", allow_hyphen_values = true)]
    words: Vec<String>,
    /// How long the kernel may take until the suite begins, in seconds [default: as for `test`]
    #[arg(long, value_name = "SECONDS")]
    boot_timeout: Option<u64>,
}

/// Builds, boots and plays.
pub(crate) fn run(args: Args) -> ExitCode {
    let kind = if args.bed == Where::Intel { Kind::Intel } else { Kind::Amd };
    let bed = BedArgs {
        bed: Some(args.bed),
        kernel: None,
        modules: None,
        params: args.params,
        matrix: None,
        jobs: 1,
        kernel_args: args.words,
        boot_timeout: args.boot_timeout,
    };
    match step(kind, &bed, &args.kernel_tree, !args.no_build, &args.case) {
        Ok(step) => step.status().into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            STOP.into()
        }
    }
}

fn one_bed(text: &str) -> Result<Where, String> {
    match text {
        "amd" => Ok(Where::Amd),
        "intel" => Ok(Where::Intel),
        _ => Err("expected amd or intel: a kernel that is to be booted".to_owned()),
    }
}
