//! For tests: a guest in 64-bit mode, with interrupts off, whose memory is full of NOPs.

use crate::bank::Bank;
use crate::case::{Action, Bytes, Places};
use crate::exit::Exit;
use crate::play::{Perturb, Target, TargetError};

/// Exits at once by HLT, and lets everything be done to it.
#[derive(Default)]
pub(super) struct Nops {
    stays: Vec<u32>,
    relocations: u32,
}

impl Nops {
    /// The VM stays where it is in these of its relocations, from 0.
    pub(super) fn staying(stays: &[u32]) -> Self {
        Self { stays: stays.to_vec(), relocations: 0 }
    }
}

/// EFER.LMA.
const LONG_MODE: u64 = 1 << 10;

impl Target for Nops {
    fn run(&mut self, _: usize) -> Result<Exit, TargetError> {
        Ok(Exit::Hlt {})
    }

    fn run_from_threads(&mut self, _: usize, _: u32) -> Result<Vec<Exit>, TargetError> {
        Ok(Vec::new())
    }

    fn reply(&mut self, _: usize, _: &Bytes, _: bool) -> Result<(), TargetError> {
        Ok(())
    }

    fn bank(&mut self, _: usize, _: Bank, names: &[&str]) -> Result<Vec<u64>, TargetError> {
        let number = |name: &&str| match *name {
            "efer" => LONG_MODE,
            "cs.l" => 1,
            "rip" => 0x1003,
            _ => 0,
        };
        Ok(names.iter().map(number).collect())
    }

    fn set_bank(&mut self, _: usize, _: Bank, _: &[(&str, u64)]) -> Result<Option<i32>, TargetError> {
        Ok(None)
    }

    fn act(&mut self, _: &Action, _: &dyn Places) -> Result<(), TargetError> {
        Ok(())
    }

    fn perturb(&mut self, what: Perturb) -> Result<bool, TargetError> {
        if !matches!(what, Perturb::SaveRestore | Perturb::LiveMigration) {
            return Ok(true);
        }
        self.relocations += 1;
        Ok(!self.stays.contains(&(self.relocations - 1)))
    }

    fn read_memory(&mut self, _: u64, into: &mut [u8]) -> bool {
        into.fill(0x90);
        true
    }
}
