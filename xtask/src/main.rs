//! Developer tasks, `cargo xtask <verb>`: a file for each verb, and `verb` for those that are the runner's own.

mod bed;
mod bisect;
mod browser;
mod build;
mod certify;
mod ci;
mod consumers;
mod engines;
mod interrupt;
mod kernel;
mod paint;
mod prove;
mod schema;
mod test;
mod verb;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use verb::Words;

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
    Soak(Words),
    /// Run what a profile needs, and issue a certificate of it.
    ///
    /// Exit status: 0 the host conforms, 1 it does not (the certificate says why), else as for `test`: there is none.
    Certify(Box<certify::Args>),
    /// Hold a certificate against the suite as it is here, or against another run.
    ///
    /// Exit status: 0 verified, 1 it differs, 2 it is no certificate. Whether the host conforms is printed.
    Verify(certify::VerifyArgs),
    /// Say what changed from one run to another, and nothing else.
    Diff(Words),
    /// For `git bisect run` in a kernel's source: build it, boot it in a bed, play a case.
    ///
    /// Exit status: 0 the case holds; 1 it fails, hangs or takes the kernel with it; 125 this kernel cannot tell, as it
    /// does not build or boot, or skips the case; 255 wrong usage, or something is missing here, which ends the bisection.
    #[command(name = bisect::VERB)]
    BisectStep(bisect::Args),
    /// Write reports of runs in formats that other tools read: JUnit, KTAP and so on.
    Report(Words),
    /// Build a kernel to test in a bed.
    Kernel(kernel::Args),
    /// Seed bugs into KVM, one at a time, and show which case catches each.
    Prove(prove::Args),
    /// Load the HTML report in a browser: its filters, what is there without scripts, pictures of it.
    Browser,
    /// Check everything: formatting, lints, documentation, tests, and the suite on /dev/kvm and in both beds.
    Ci(ci::Args),
    /// Check the reports with the tools that read them, fetched if need be: a step of `ci`.
    Consumers(consumers::Args),
    /// Write test-manifests/schema.json, with which editors check manifests, and docs/certificate.schema.json.
    Schema,
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        // git would take clap's 2 for a bad commit.
        if error.use_stderr() && std::env::args().nth(1).is_some_and(|verb| verb == bisect::VERB) {
            let _ = error.print();
            std::process::exit(bisect::STOP.into());
        }
        error.exit()
    });
    let done = match cli.verb {
        Verb::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Test(args) => test::run(&args),
        Verb::Soak(args) => verb::play("soak", &args),
        Verb::Certify(args) => certify::run(*args),
        Verb::Verify(args) => certify::verify(&args),
        Verb::Diff(args) => verb::read("diff", &args),
        Verb::BisectStep(args) => Ok(bisect::run(args)),
        Verb::Report(args) => verb::read("report", &args),
        Verb::Kernel(args) => kernel::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Prove(args) => prove::run(&args),
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
