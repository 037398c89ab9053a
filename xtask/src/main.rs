//! Developer tasks, one file per verb: `cargo xtask <verb>`.

mod build;

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
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Build(args) => build::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The chain of causes, without the backtrace that RUST_BACKTRACE would add: it is the user's error.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
