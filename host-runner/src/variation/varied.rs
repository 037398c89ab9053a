//! A target under variations: what `play` sees is the guest alone.

use std::time::Instant;

use super::dice::Dice;
use super::{Point, Variation, Whose, make};
use crate::bank::Bank;
use crate::case::{Action, Bytes, Combo, Places};
use crate::exit::Exit;
use crate::play::{Perturb, Target, TargetError};

/// Most exits in a row that the steps do not see: no case has so many instructions between two of its own.
const HIDDEN: u32 = 100_000;

/// A target, and what is done to it.
pub struct Varied<'t, T> {
    target: &'t mut T,
    variations: Vec<Box<dyn Variation>>,
    dice: Dice,
    begun: bool,
}

impl<'t, T: Target> Varied<'t, T> {
    /// `target` under the perturbations of `combo`; `test`, `seed` and `only` decide what is done when.
    pub fn new(target: &'t mut T, combo: &Combo, test: &str, seed: u64, only: Option<&[u32]>) -> Self {
        Self {
            target,
            variations: combo.varies().iter().map(|vary| make(*vary)).collect(),
            dice: Dice::new(seed, test, only.map(<[u32]>::to_vec)),
            begun: false,
        }
    }

    /// The points at which anything was done, from 1.
    pub fn acted(self) -> Vec<u32> {
        self.dice.acted()
    }

    fn before_run(&mut self, cpu: usize) -> Result<(), TargetError> {
        if !self.begun {
            self.begun = true;
            for variation in &mut self.variations {
                variation.begin(self.target)?;
            }
        }
        // What was begun for the run before.
        self.target.perturb(Perturb::Calm)?;
        self.dice.next_point();
        for (index, variation) in self.variations.iter_mut().enumerate() {
            let (target, dice) = (&mut *self.target, &mut self.dice);
            variation.before_run(&mut Point { cpu, target, dice, variation: index })?;
        }
        Ok(())
    }

    /// Whether one of the variations has caused this exit. All of them see it.
    fn is_mine(&mut self, cpu: usize, exit: &Exit) -> Result<bool, TargetError> {
        let mut mine = false;
        for variation in &mut self.variations {
            mine |= variation.at_exit(cpu, exit, self.target)? == Whose::Mine;
        }
        Ok(mine)
    }
}

impl<T: Target> Target for Varied<'_, T> {
    fn run(&mut self, cpu: usize) -> Result<Exit, TargetError> {
        self.before_run(cpu)?;
        let since = Instant::now();
        for _ in 0..HIDDEN {
            let exit = self.target.run(cpu)?;
            if !self.is_mine(cpu, &exit)? {
                return Ok(exit);
            }
        }
        Err(TargetError::Timeout { milliseconds: since.elapsed().as_millis() as u64 })
    }

    fn run_from_threads(&mut self, cpu: usize, threads: u32) -> Result<Vec<Exit>, TargetError> {
        self.before_run(cpu)?;
        self.target.run_from_threads(cpu, threads)
    }

    fn reply(&mut self, cpu: usize, data: &Bytes, refuse: bool) -> Result<(), TargetError> {
        self.target.reply(cpu, data, refuse)
    }

    fn bank(&mut self, cpu: usize, bank: Bank, names: &[&str]) -> Result<Vec<u64>, TargetError> {
        self.target.bank(cpu, bank, names)
    }

    fn set_bank(
        &mut self,
        cpu: usize,
        bank: Bank,
        values: &[(&str, u64)],
    ) -> Result<Option<i32>, TargetError> {
        self.variations.iter_mut().for_each(|variation| variation.host_acts());
        self.target.set_bank(cpu, bank, values)
    }

    fn act(&mut self, action: &Action, places: &dyn Places) -> Result<(), TargetError> {
        self.variations.iter_mut().for_each(|variation| variation.host_acts());
        self.target.act(action, places)
    }

    fn perturb(&mut self, what: Perturb) -> Result<bool, TargetError> {
        self.target.perturb(what)
    }

    fn read_memory(&mut self, gpa: u64, into: &mut [u8]) -> bool {
        self.target.read_memory(gpa, into)
    }

    fn finish(&mut self) -> Result<Vec<(usize, Exit)>, TargetError> {
        self.target.perturb(Perturb::Calm)?;
        for variation in &mut self.variations {
            variation.finish(self.target)?;
        }
        self.target.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Vary;
    use crate::variation::nops::Nops;

    /// The points that count in so many runs of a VM that stays where it is in these of its relocations.
    fn acted(vary: Vary, runs: u32, stays: &[u32]) -> Vec<u32> {
        let mut guest = Nops::staying(stays);
        let mut varied = Varied::new(&mut guest, &Combo::new(vec![vary]), "a.b", 1, None);
        for _ in 0..runs {
            assert_eq!(varied.run(0), Ok(Exit::Hlt {}));
        }
        varied.acted()
    }

    #[test]
    fn a_point_counts_if_something_was_done() {
        assert_eq!(acted(Vary::SaveRestore, 4, &[]), [1, 2, 3, 4]);
        assert_eq!(acted(Vary::SaveRestore, 4, &[0, 2]), [2, 4], "the VM could not be moved");
        // Eight live migrations that were made, not eight that were wanted.
        let all = acted(Vary::LiveMigration, 200, &[]);
        assert_eq!(all.len(), 8);
        assert_eq!(acted(Vary::LiveMigration, 200, &[1, 3])[..2], [all[0], all[2]]);
        assert_eq!(acted(Vary::LiveMigration, 200, &[1, 3]).len(), 8);
    }
}
