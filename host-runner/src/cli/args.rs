//! The command line, as cargo test, cargo nextest and people use it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::plan::Varies;
use crate::machine::Piece;
use crate::outcome::Verdict;

/// Says what a hypervisor must show its user, and proves it.
#[derive(Debug, Parser)]
#[command(name = "exitspec", version, about, args_conflicts_with_subcommands = true)]
pub(super) struct CommandLine {
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
    #[command(flatten)]
    pub(super) test: TestArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Runs cases. The default: `exitspec FILTER` is `exitspec test FILTER`.
    ///
    /// Exit status: 0 conforming, 1 deviations, 2 wrong usage or manifest, 3 this host cannot run
    /// anything, 4 nothing ran.
    Test(Box<TestArgs>),
    /// Plays tests at random for a time: any case, under any variation, with any seed.
    ///
    /// Each deviation is told once, with its seed; at the end how often it was seen. Exit status: as for `test`. Options
    /// of `test` that are about a list of tests (--list, --ignored, --include-ignored, --resume), or about how it is
    /// shown (--format, --quiet, --color, --logfile, --mirror), are refused.
    Soak(Box<SoakArgs>),
    /// Asks this host what it can do, prints it, and remembers it for `--list`.
    Host(PlaceArgs),
    /// Prints the verdicts of several runs side by side, where any of them is not a pass.
    ///
    /// Exit status: 0 if all of them conform, 1 if one deviates.
    Compare(CompareArgs),
    /// Prints the JSON Schema of manifests.
    Schema,
    /// Plays cases for a supervisor on standard input.
    #[command(hide = true)]
    Worker(PlaceArgs),
}

/// Where things are.
#[derive(Debug, Clone, Args)]
pub(super) struct PlaceArgs {
    /// Folder of manifests [default: test-manifests of the workspace]
    #[arg(long, value_name = "DIR")]
    pub(super) manifests: Option<PathBuf>,
    /// Folder of guest payloads [default: where `cargo xtask build` puts them]
    #[arg(long, value_name = "DIR")]
    pub(super) payloads: Option<PathBuf>,
    /// Folder of runs and of what is remembered of this host [default: target/exitspec]
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
    /// The KVM device
    #[arg(long, value_name = "PATH", default_value = "/dev/kvm")]
    pub(super) device: PathBuf,
}

/// Which runs to compare.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Runs: names in the folder of runs, folders, or journals
    #[arg(value_name = "RUN", required = true, num_args = 1..)]
    pub(super) runs: Vec<String>,
    /// Show every case
    #[arg(long)]
    pub(super) all: bool,
    /// Show each run by itself, with a column for each variation
    #[arg(long)]
    pub(super) variations: bool,
    /// Folder of runs [default: target/exitspec]
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
}

/// How long, and as for `test`: without --vary under all variations.
#[derive(Debug, Args)]
pub(super) struct SoakArgs {
    /// For how long, such as `10m`
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(super) time: Duration,
    #[command(flatten)]
    pub(super) test: TestArgs,
}

/// What to run and how.
#[derive(Debug, Clone, Args)]
pub(super) struct TestArgs {
    /// Run cases whose id contains one of these
    #[arg(value_name = "FILTER")]
    pub(super) filters: Vec<String>,
    /// Filters are whole ids
    #[arg(long)]
    pub(super) exact: bool,
    /// Leave out cases whose id contains this (repeatable)
    #[arg(long, value_name = "FILTER")]
    pub(super) skip: Vec<String>,
    /// List cases; opens no device and boots nothing
    #[arg(long)]
    pub(super) list: bool,
    /// Form of the output
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) format: Option<Format>,
    /// Run only cases that this host would skip, although it lacks what they need
    #[arg(long)]
    pub(super) ignored: bool,
    /// Run also cases that this host would skip
    #[arg(long)]
    pub(super) include_ignored: bool,
    /// Cases at once [default: one per CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) test_threads: Option<u16>,
    /// Accepted for cargo test; output is never captured here
    #[arg(long)]
    pub(super) nocapture: bool,
    /// One character per case
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(super) color: Color,
    /// Write libtest's output to this file instead
    #[arg(long, value_name = "PATH")]
    pub(super) logfile: Option<PathBuf>,
    #[command(flatten)]
    pub(super) places: PlaceArgs,
    /// Take known deviations for what they are: failures
    #[arg(long, conflicts_with = "waivers")]
    pub(super) no_waivers: bool,
    /// Waivers, one file or several [default: waivers/BACKEND.toml and waivers/bed-BED.toml in the folder of manifests]
    #[arg(long, value_name = "FILE")]
    pub(super) waivers: Vec<PathBuf>,
    /// Go on with a run that was interrupted [default: the newest]
    #[arg(long, value_name = "RUN", num_args = 0..=1, require_equals = true,
          conflicts_with_all = ["filters", "skip", "exact", "list", "ignored", "include_ignored"])]
    #[expect(clippy::option_option, reason = "clap's form of an option with an optional value")]
    pub(super) resume: Option<Option<String>>,
    /// With --resume: the machine of that run died or hung, and this is the verdict of the cases that --running names
    #[arg(long, value_enum, value_name = "HOW", requires = "resume", requires = "running")]
    pub(super) lost: Option<Lost>,
    /// With --lost: a case that was running then (repeatable)
    #[arg(long, value_name = "CASE", requires = "lost")]
    pub(super) running: Vec<String>,
    /// With --lost: what the machine's console said last, as evidence
    #[arg(long, value_name = "FILE", requires = "lost")]
    pub(super) console: Option<PathBuf>,
    /// The bed that this machine is, when it was booted for this run
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(super) bed: Option<String>,
    /// Write every line of the journal here too, such as to a serial port: it is out before the case starts
    #[arg(long, value_name = "PATH")]
    pub(super) mirror: Option<PathBuf>,
    /// Factor on every time limit
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = scale)]
    pub(super) timeout_scale: f64,
    /// Play each case also under these perturbations, which no guest may notice (docs/variations.md): `all`, or
    /// names with commas between
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) vary: Vec<Varies>,
    /// With 2: under every two of them together, too
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(super) vary_depth: u8,
    /// Leave this out when a VM is saved and restored: some case must notice
    #[arg(long, value_name = "PIECE", value_enum, hide = true)]
    pub(super) forget: Option<Piece>,
    /// Where every random choice starts
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// What failures name as the command that repeats them, when this one is not the user's own
    #[arg(long, value_name = "COMMAND", default_value = "cargo xtask test", hide = true)]
    pub(super) again: String,
    /// The kernel log
    #[arg(long, value_name = "PATH", default_value = "/dev/kmsg", hide = true)]
    pub(super) kernel_log: PathBuf,
    /// Accepted for cargo test
    #[arg(long, hide = true)]
    pub(super) show_output: bool,
    /// Accepted for cargo test
    #[arg(short = 'Z', hide = true)]
    pub(super) unstable: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Pretty,
    Terse,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

/// What became of the machine of a run that is resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Lost {
    /// It died.
    Crash,
    /// It did not answer any more.
    Timeout,
}

impl Lost {
    /// The verdict of the cases that were running.
    pub(super) const fn verdict(self) -> Verdict {
        match self {
            Self::Crash => Verdict::Crash,
            Self::Timeout => Verdict::Timeout,
        }
    }
}

/// A name that is safe in a file's name.
fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !text.is_empty() && text.chars().all(plain);
    good.then(|| text.to_owned()).ok_or_else(|| "expected lower-case letters, digits and dashes".to_owned())
}

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse::<f64>().ok().filter(|scale| scale.is_finite() && *scale > 0.0);
    scale.ok_or_else(|| "expected a number above 0".to_owned())
}
