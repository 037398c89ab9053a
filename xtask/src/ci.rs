//! `cargo xtask ci`: everything that must hold before a change is taken.
//!
//! The suite itself runs where there is a `/dev/kvm`, and in the beds whose emulators are there or can be
//! installed; elsewhere their absence is said, and the rest decides.

use std::path::Path;

use anyhow::Context;
use xshell::{Shell, cmd};

use crate::bed::kernel::Spec;
use crate::bed::kind::Kind;
use crate::{bed, browser, build, engines, schema};

/// The variations in which nothing races with the guest, so that a verdict of theirs is the same each time.
const STEADY: &str = "save-restore,live-migration,threads,dirty-log,dirty-ring,cpuid-min,coalesce";

/// The kernel for a bed whose own cannot be had.
const SPARE: &str = "debian:6.12";

/// `cargo xtask ci`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail where there is no usable /dev/kvm, instead of leaving the suite out.
    #[arg(long)]
    require_kvm: bool,
    /// Fail where a bed cannot be had, instead of leaving it out.
    #[arg(long)]
    require_bed: bool,
    /// Fail where a tool that reads reports cannot be had, instead of leaving it out.
    #[arg(long)]
    require_consumers: bool,
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
    step("examples for CI engines");
    engines::check()?;
    step("the HTML report in a browser");
    match browser::find() {
        Ok(program) => browser::check(&program)?,
        Err(why) => println!("left out, since no browser can be had here\n{why:#}"),
    }
    step("reports: their consumers' own parsers");
    crate::consumers::check(args.require_consumers)?;
    step("test-manifests/schema.json, written for editors");
    schema::run()?;
    if Path::new("/dev/kvm").exists() || args.require_kvm {
        step(&format!("the suite on /dev/kvm, also under {STEADY}"));
        crate::test::check(STEADY)?;
    } else {
        println!("\nthere is no /dev/kvm here: the suite itself has not run");
    }
    for kind in Kind::ALL {
        bed(&sh, kind, args.require_bed)?;
    }
    Ok(())
}

/// A bed's own tests, and the suite in it.
fn bed(sh: &Shell, kind: Kind, required: bool) -> anyhow::Result<()> {
    step(&format!("the bed {kind}: what it needs"));
    if (bed::is_to_be_had(kind, &kind.kernel()) || required) && is_had(kind, &[], required)? {
        step(&format!("the bed {kind}: a kernel that dies"));
        let tests = format!("{kind}_");
        cmd!(sh, "cargo test --quiet --package xtask -- --ignored {tests}").run()?;
        step(&format!("the suite in the bed {kind}"));
        crate::test::check_bed(kind, &[])?;
        return if kind == Kind::Amd { unfixed(required) } else { Ok(()) };
    }
    if SPARE.parse().is_ok_and(|spare: Spec| bed::is_to_be_had(kind, &spare)) {
        step(&format!("some cases in the bed {kind}, with a kernel that boots slowly"));
        return crate::test::check_bed(kind, &[&format!("--kernel={SPARE}"), "selftest"]);
    }
    println!("\nthe bed {kind} cannot be had here: the suite has not run in it");
    Ok(())
}

/// A kernel that lacks fixes, against the list of what it lacks.
fn unfixed(required: bool) -> anyhow::Result<()> {
    step("the bed amd with a kernel that lacks fixes");
    let files = ["waivers/kvm_amd", "waivers/bed-amd", "unfixed/amd-6.1"];
    let manifests = build::workspace().join("test-manifests");
    let waivers = files.map(|name| format!("--waivers={}/{name}.toml", manifests.display()));
    let mut words = vec!["--kernel=debian:6.1"];
    words.extend(waivers.iter().map(String::as_str));
    if is_had(Kind::Amd, &words, required)? { crate::test::check_bed(Kind::Amd, &words) } else { Ok(()) }
}

/// Whether there is what a run with these words needs, fetched if need be. If not, without a network for example, it
/// is left out, which is said.
fn is_had(kind: Kind, words: &[&str], required: bool) -> anyhow::Result<bool> {
    let Some(why) = crate::test::prepare_bed(kind, words)? else { return Ok(true) };
    if required {
        return Err(why).context("the bed cannot be had");
    }
    println!(
        "\nleft out, since what it needs cannot be had here: cargo xtask test --bed {kind} {}\n{why:#}",
        words.join(" ")
    );
    Ok(false)
}

fn step(name: &str) {
    println!("\n== {name}");
}
