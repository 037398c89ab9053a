//! The same cases on this machine and in every bed, and one table of the verdicts.
use std::ffi::OsString;

use super::args::BedArgs;

pub(crate) fn run(_args: &BedArgs, _words: &[OsString]) -> anyhow::Result<u8> {
    anyhow::bail!("todo")
}
