//! The command line, as cargo test, cargo nextest and people use it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Asks this host what it can do, prints it, and remembers it for `--list`.
    Host(PlaceArgs),
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

/// What to run and how.
#[derive(Debug, Args)]
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
    /// Waivers [default: waivers/BACKEND.toml in the folder of manifests]
    #[arg(long, value_name = "FILE")]
    pub(super) waivers: Option<PathBuf>,
    /// Go on with a run that was interrupted [default: the newest]
    #[arg(long, value_name = "RUN", num_args = 0..=1, require_equals = true,
          conflicts_with_all = ["filters", "skip", "exact", "list", "ignored", "include_ignored"])]
    #[expect(clippy::option_option, reason = "clap's form of an option with an optional value")]
    pub(super) resume: Option<Option<String>>,
    /// Factor on every time limit
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = scale)]
    pub(super) timeout_scale: f64,
    /// Where every random choice starts
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
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

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse::<f64>().ok().filter(|scale| scale.is_finite() && *scale > 0.0);
    scale.ok_or_else(|| "expected a number above 0".to_owned())
}
