//! The runner as a whole, around a suite that needs neither KVM nor payloads.
//!
//! This program is its own subject: with the variable of the fake suite set it is `exitspec`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test; clippy takes only #[test] for one")]

mod certificates;
mod checks;
mod fake;
mod interrupts;
mod lab;
mod reports;
mod shards;
mod stub;
mod terminal;
mod variations;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(fake::CASES).is_some() {
        return exitspec::cli::main(fake::load);
    }
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), checks::all()).exit_code()
}
