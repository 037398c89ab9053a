//! `cargo xtask ci`: everything that must hold before a change is taken.
//!
//! The suite itself runs where there is a `/dev/kvm`, and in a bed where there is QEMU or it can be installed;
//! elsewhere their absence is said, and the rest decides.

use std::path::Path;

use anyhow::Context;
use xshell::{Shell, cmd};

use crate::bed::kind::Kind;
use crate::{bed, build, schema};

/// `cargo xtask ci`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail where there is no usable /dev/kvm, instead of leaving the suite out.
    #[arg(long)]
    require_kvm: bool,
    /// Fail where the bed amd cannot be had, instead of leaving it out.
    #[arg(long)]
    require_bed: bool,
}

/// Runs every check, in the order in which a mistake is cheapest to find.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let sh = Shell::new().context("cannot find the current folder")?;
    sh.change_dir(build::workspace());
    step("formatting");
    cmd!(sh, "cargo fmt --all --check").run().context("run `cargo fmt`")?;
    step("guests: build and lints");
    build::run(&build::Args { deny_warnings: true, clippy: true })?;
    build::run(&build::Args { deny_warnings: true, clippy: false })?;
    step("host side: lints");
    cmd!(sh, "cargo clippy --quiet --workspace --all-targets -- -D warnings").run()?;
    step("documentation");
    let _flags = sh.push_env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    cmd!(sh, "cargo doc --quiet --workspace --no-deps --document-private-items").run()?;
    step("tests");
    cmd!(sh, "cargo test --quiet --workspace").run()?;
    step("schema");
    schema::run()?;
    if Path::new("/dev/kvm").exists() || args.require_kvm {
        step("the suite on /dev/kvm");
        crate::test::check()?;
    } else {
        println!("\nthere is no /dev/kvm here: the suite itself has not run");
    }
    if bed::is_to_be_had(Kind::Amd) || args.require_bed {
        step("beds: a kernel that dies");
        cmd!(sh, "cargo test --quiet --package xtask -- --ignored").run()?;
        step("the suite in the bed amd");
        crate::test::check_bed(Kind::Amd)?;
    } else {
        println!("\nno QEMU and no Debian packages here: the suite has not run in the bed amd");
    }
    Ok(())
}

fn step(name: &str) {
    println!("\n== {name}");
}
