//! `cargo xtask build`: the bare-metal guests, with the compiler flags that they need.
//!
//! The guests are built for the host's own target, since no other has to be installed for it; what makes
//! them bare-metal is the flags below, fat LTO (which regenerates `core` with these flags) and the linker
//! script of `guest-payloads`. `rust-toolchain.toml` pins the compiler that this was tried with.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::paint;

/// The host's own target: nothing has to be installed for it.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "guest";

const RUSTFLAGS: &[&str] = &[
    "-Cpanic=abort",
    "-Crelocation-model=static",
    "-Ccode-model=small",
    "-Cforce-frame-pointers=yes",
    "-Cforce-unwind-tables=no",
    "-Cno-redzone=yes",
    "-Ctarget-feature=-sse,-sse2,+soft-float",
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-arg=--build-id=none",
    "-Clink-arg=-zmax-page-size=4096",
];

/// What rustc says, once per crate, of the target features above (rust-lang/rust#116344). It is no lint,
/// so nothing can allow it; the pinned compiler makes it harmless.
const PHASED_OUT: &str = "previously accepted by the compiler but is being phased out";

/// `cargo xtask build`
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Treat the guests' warnings as errors.
    #[arg(long)]
    pub(crate) deny_warnings: bool,
    /// Check the guests with clippy instead of building them.
    #[arg(long)]
    pub(crate) clippy: bool,
}

/// Builds every payload into `target/guest/x86_64-unknown-linux-gnu/guest/`.
///
/// Fails if cargo does, or if there are warnings that must not be.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut child = cargo_for_guests(if args.clippy { "clippy" } else { "build" })
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo to build the guests")?;
    let stdout = child.stdout.take().context("cargo has no standard output")?;
    let mut warnings = 0_usize;
    for line in BufReader::new(stdout).lines() {
        warnings += show(&line.context("cannot read what cargo says")?);
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("the guests do not build ({status}); cargo's messages above say why");
    }
    if args.deny_warnings && warnings > 0 {
        bail!("the guests have {warnings} warning(s), shown above");
    }
    Ok(())
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

fn cargo_for_guests(verb: &str) -> Command {
    let mut command = cargo();
    command.current_dir(workspace()).args([verb, "--quiet", "--package", "guest-payloads", "--bins"]);
    command.args(["--features", "guest", "--profile", PROFILE, "--target", TARGET]);
    let colours = paint::colours(&std::io::stderr());
    command.args(["--message-format", if colours { "json-diagnostic-rendered-ansi" } else { "json" }]);
    command.arg("--target-dir").arg(target_dir());
    // This variable wins over every other way to set flags, so a developer's own cannot leak in.
    command.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"));
    command
}

/// Prints the compiler's message in a line of cargo's JSON, if it is one to show; 1 if it is a warning. Standard output
/// is the runner's alone.
fn show(line: &str) -> usize {
    // Build scripts may print anything: a line that is not cargo's is passed on.
    let Ok(event) = serde_json::from_str::<Value>(line) else {
        eprintln!("{line}");
        return 0;
    };
    let message = &event["message"];
    let Some(rendered) = message["rendered"].as_str() else { return 0 };
    let warning = message["level"] == "warning";
    if warning && is_noise(rendered) {
        return 0;
    }
    eprint!("{rendered}");
    warning.into()
}

/// Whether a warning is the one about target features, or the summary that counts it.
fn is_noise(rendered: &str) -> bool {
    rendered.contains(PHASED_OUT)
        || rendered.contains("warning emitted")
        || rendered.contains("warnings emitted")
}

/// The workspace's root: this crate's parent folder.
pub(crate) fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where the built payloads are.
pub(crate) fn payloads() -> PathBuf {
    target_dir().join(TARGET).join(PROFILE)
}

fn target_dir() -> PathBuf {
    workspace().join("target").join("guest")
}
