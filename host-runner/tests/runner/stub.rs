//! A guest that exits at once, whatever is done to it, and remembers what was done.

use exitspec::bank::Bank;
use exitspec::case::{Action, Bytes, Places};
use exitspec::exit::Exit;
use exitspec::outcome::{Evidence, Outcome, Verdict};
use exitspec::play::{Perturb, Target, TargetError};
use exitspec::suite::Play;
use exitspec::variation::Varied;

#[derive(Default)]
struct Stub {
    done: Vec<Perturb>,
}

impl Target for Stub {
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
        Ok(vec![0; names.len()])
    }

    fn set_bank(&mut self, _: usize, _: Bank, _: &[(&str, u64)]) -> Result<Option<i32>, TargetError> {
        Ok(None)
    }

    fn act(&mut self, _: &Action, _: &dyn Places) -> Result<(), TargetError> {
        Ok(())
    }

    fn perturb(&mut self, what: Perturb) -> Result<bool, TargetError> {
        self.done.push(what);
        Ok(true)
    }

    fn read_memory(&mut self, _: u64, _: &mut [u8]) -> bool {
        false
    }
}

/// Eight runs under the play's perturbations: a failure that says what was done, and when.
pub(crate) fn diced(play: &Play) -> Outcome {
    let mut stub = Stub::default();
    let name = play.combo.test_name(&play.case.id);
    let mut varied = Varied::new(&mut stub, play.combo, &name, play.seed, play.only);
    for _ in 0..8 {
        varied.run(0).unwrap();
    }
    let evidence = Evidence { perturbed: varied.acted(), ..Evidence::default() };
    let reason = format!("{:?}", stub.done);
    Outcome { evidence: Some(Box::new(evidence)), ..Outcome::new(Verdict::Fail, reason) }
}
