//! Developer tasks, one file per verb: `cargo xtask <verb>`.

mod bed;
mod browser;
mod build;
mod ci;
mod consumers;
mod kernel;
mod report;
mod schema;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// ExitSpec's developer tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the bare-metal guests.
    Build(build::Args),
    /// Build guests and runner, then run the suite (or what the arguments select of it).
    Test(test::Args),
    /// Build guests and runner, then play cases at random, under any variation, for a time.
    Soak(soak::Args),
    /// Write reports of runs in formats that other tools read: JUnit, KTAP and so on.
    Report(report::Args),
    /// Build a kernel to test in a bed.
    Kernel(kernel::Args),
    /// Load the HTML report in a browser: its filters, what is there without scripts, pictures of it.
    Browser,
    /// Check everything: formatting, lints, documentation, tests, and the suite on /dev/kvm and in both beds.
    Ci(ci::Args),
    /// Check the reports with the tools that read them, fetched if need be: a step of `ci`.
    Consumers(consumers::Args),
    /// Write test-manifests/schema.json, with which editors check manifests.
    Schema,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Test(args) => test::run(&args),
        Verb::Soak(args) => soak::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Kernel(args) => kernel::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Browser => browser::run().map(|()| ExitCode::SUCCESS),
        Verb::Ci(args) => ci::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Consumers(args) => consumers::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Schema => schema::run().map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(status) => status,
        // The chain of causes, without the backtrace that RUST_BACKTRACE would add: it is the user's error.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
