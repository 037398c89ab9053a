//! The command line, as cargo test, cargo nextest and people use it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::partition::Partition;
use super::plan::Varies;
use super::report::{Format as ReportFormat, ORIGIN, SOURCES};
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
    /// anything, 4 nothing ran; 130 and 143 ended by SIGINT (Ctrl-C) or SIGTERM. A run that is ended so writes its
    /// reports, and --resume goes on with it; a second signal ends it at once.
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
    /// Says what changed from one run to another, such as between two kernels, and nothing else.
    ///
    /// `compare` shows runs side by side. Exit status: 0 nothing changed, 1 something did, 2 there is no such run.
    Diff(DiffArgs),
    /// Issues the certificate of a run with --profile: a JSON document, and the same as a page.
    ///
    /// `cargo xtask certify` runs and issues. Exit status: 0 the host conforms, 1 it does not, 2 the run is no run of the
    /// whole profile with this suite.
    Certify(CertifyArgs),
    /// Holds a certificate against the suite as it is here.
    ///
    /// Exit status: 0 it is what was issued, and of this suite; 1 it differs; 2 it is no certificate. Whether the host
    /// conforms is another question, which the certificate answers.
    Verify(VerifyArgs),
    /// Prints a JSON Schema.
    Schema {
        /// Of what
        #[arg(long, value_enum, default_value_t = SchemaOf::Manifest, value_name = "WHAT")]
        of: SchemaOf,
    },
    /// Writes reports of one or several runs, finished or interrupted, in formats that other tools read.
    ///
    /// They are made from the runs' journals alone (docs/reports.md). Exit status: 0 if they are written,
    /// whatever the verdicts are.
    Report(ReportArgs),
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

/// Which runs to tell apart.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The first run: a name in the folder of runs, a folder, or a journal
    #[arg(value_name = "RUN_A")]
    pub(super) before: String,
    /// The second
    #[arg(value_name = "RUN_B")]
    pub(super) after: String,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = DiffFormat::Text, value_name = "FORMAT")]
    pub(super) format: DiffFormat,
    /// Folder of runs [default: target/exitspec]
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
}

/// Which runs to report, and how.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Runs: names in the folder of runs, folders, or journals [default: the newest]
    #[arg(long, value_name = "RUN", num_args = 1..)]
    pub(super) from: Vec<String>,
    /// The format; several (repeatable), or all without this option, go into a folder
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) format: Vec<ReportFormat>,
    /// Where to write: with one format a file, or `-` for standard output, which is the default; else a folder
    #[arg(long, value_name = "FILE|DIR")]
    pub(super) output: Option<PathBuf>,
    /// Look for mistakes in this folder of manifests, and tell them in json, sarif and github; without --from no
    /// run is reported
    #[arg(long, value_name = "DIR")]
    pub(super) manifests: Option<PathBuf>,
    /// The folder of manifests in the repository, for formats that point into it
    #[arg(long, value_name = "DIR", default_value = SOURCES)]
    pub(super) sources: String,
    /// Who reports, for kcidb: lower-case letters, digits and underscores
    #[arg(long, value_name = "NAME", default_value = ORIGIN, value_parser = origin)]
    pub(super) origin: String,
    /// Print the JSON Schema of the format json instead
    #[arg(long)]
    pub(super) schema: bool,
    /// Folder of runs [default: target/exitspec]
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DiffFormat {
    Text,
    Json,
}

/// What has a JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaOf {
    Manifest,
    Certificate,
}

/// What to certify.
#[derive(Debug, Args)]
pub(super) struct CertifyArgs {
    /// The run: a name in the folder of runs, a folder, or a journal
    #[arg(value_name = "RUN")]
    pub(super) run: String,
    /// The profile that it was of
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(super) profile: String,
    /// The run's exit status
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) status: u8,
    /// It was run with --no-waivers
    #[arg(long)]
    pub(super) no_waivers: bool,
    /// The document; the page goes beside it [default: certificate.json in the run's folder]
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) places: PlaceArgs,
    /// The user's words about the machine, kept in the certificate
    #[arg(last = true, value_name = "WORD")]
    pub(super) words: Vec<String>,
}

/// What to verify.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The certificate's JSON document
    #[arg(value_name = "FILE")]
    pub(super) certificate: PathBuf,
    /// The certificate of another run on the same host, which must say the same of each test
    #[arg(long, value_name = "FILE")]
    pub(super) against: Option<PathBuf>,
    #[command(flatten)]
    pub(super) places: PlaceArgs,
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
    /// Run what this profile needs, test-manifests/profiles/NAME.toml, with its variations
    #[arg(long, value_name = "NAME", value_parser = name,
          conflicts_with_all = ["resume", "vary", "vary_depth", "ignored", "include_ignored"])]
    pub(super) profile: Option<String>,
    /// Run one of several equal parts of what is selected, such as `count:2/5` or `hash:2/5`: the second of five, by
    /// the tests' places in the list, or by their names
    #[arg(long, value_name = "SHARD", conflicts_with = "resume")]
    pub(super) partition: Option<Partition>,
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
    /// Name every case, where a terminal shows only how far the run is, and list all skips and waived deviations
    #[arg(short, long, conflicts_with = "quiet")]
    pub(super) verbose: bool,
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
    /// Write reports in all formats into this folder at the end, also of a run that is ended by a signal (see
    /// `exitspec report`)
    #[arg(long, value_name = "DIR", conflicts_with = "list")]
    pub(super) report_dir: Option<PathBuf>,
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
    /// Somebody else shows how far the run is, on a terminal: only failures are told, and the summary
    #[arg(long, hide = true)]
    pub(super) watched: bool,
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

/// KCIDB's form of an origin.
fn origin(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let good = !text.is_empty() && text.chars().all(plain);
    good.then(|| text.to_owned())
        .ok_or_else(|| "expected lower-case letters, digits and underscores".to_owned())
}

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse::<f64>().ok().filter(|scale| scale.is_finite() && *scale > 0.0);
    scale.ok_or_else(|| "expected a number above 0".to_owned())
}
