//! What runs inside a bed: the runner, linked statically, and what it needs.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::build::{self, TARGET};

/// Programs and files that go into a bed.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    /// The first program.
    pub(crate) init: PathBuf,
    /// The runner.
    pub(crate) runner: PathBuf,
    /// The folder of manifests, where a turn does not bring its own; `waivers` below it goes along.
    pub(crate) manifests: PathBuf,
    /// The folder of payloads.
    pub(crate) payloads: PathBuf,
    /// Waivers that the user names.
    pub(crate) waivers: Vec<PathBuf>,
}

/// Builds programs of this workspace without a need for libraries: `what` as cargo takes it.
pub(crate) fn build(what: &[&str]) -> anyhow::Result<()> {
    let mut command = build::cargo();
    command.current_dir(build::workspace()).args(["build", "--quiet", "--release", "--target", TARGET]);
    command.arg("--target-dir").arg(target_dir()).args(what);
    // This variable wins over every other way to set flags, so a developer's own cannot leak in.
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // They are copied into each machine.
    command.env("CARGO_PROFILE_RELEASE_STRIP", "true").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    let status = command.status().context("cannot start cargo to build the runner for a bed")?;
    if !status.success() {
        bail!(
            "the runner for a bed does not build ({status}); cargo's messages above say why; if the linker does not find libc, install its static library (libc6-dev on Debian)"
        );
    }
    Ok(())
}

/// Where a program of [`build()`] is.
pub(crate) fn program(name: &str) -> PathBuf {
    target_dir().join(TARGET).join("release").join(name)
}

fn target_dir() -> PathBuf {
    build::workspace().join("target").join("bed")
}
