//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    exitspec::cli::main(exitspec::own_suite::load)
}
