//! ExitSpec's suite as a test target, for cargo nextest. Listing opens no device.

use std::process::ExitCode;

fn main() -> ExitCode {
    exitspec::cli::main(exitspec::own_suite::load)
}
