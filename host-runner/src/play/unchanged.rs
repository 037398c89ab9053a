//! What "unchanged" compares with: the numbers that a case asks about, as they were at the last stop.

use std::collections::HashMap;

use super::{Target, TargetError};
use crate::bank::Bank;
use crate::case::{Case, Expect, Step, What};

/// The numbers under watch. Empty for most cases, which then pay nothing for it.
#[derive(Default)]
pub struct Before {
    watched: Vec<(usize, Bank, Vec<String>)>,
    values: HashMap<(usize, Bank, String), u64>,
}

impl Before {
    /// Watches all that `case` calls unchanged, and reads it a first time.
    pub fn new(case: &Case, target: &mut impl Target) -> Result<Self, TargetError> {
        let mut before = Self::default();
        before.watch(&case.steps);
        before.note(target, None)?;
        Ok(before)
    }

    fn watch(&mut self, steps: &[Step]) {
        for step in steps {
            match &step.what {
                What::Exit(exit) => self.watch_all(exit.cpu, Bank::Regs, &exit.regs),
                What::Check(check) => self.watch_all(check.cpu, check.bank, &check.values),
                What::Repeat(_, steps) => self.watch(steps),
                _ => {}
            }
        }
    }

    fn watch_all(&mut self, cpu: usize, bank: Bank, values: &[(String, Expect)]) {
        for (name, _) in values.iter().filter(|(_, expect)| *expect == Expect::Unchanged) {
            let known = self.watched.iter_mut().find(|(c, b, _)| (*c, *b) == (cpu, bank));
            match known {
                Some((.., names)) if names.contains(name) => {}
                Some((.., names)) => names.push(name.clone()),
                None => self.watched.push((cpu, bank, vec![name.clone()])),
            }
        }
    }

    /// Reads the watched numbers again: all, or those of one vCPU.
    pub fn note(&mut self, target: &mut impl Target, only: Option<usize>) -> Result<(), TargetError> {
        for (cpu, bank, names) in self.watched.iter().filter(|(cpu, ..)| only.is_none_or(|only| only == *cpu))
        {
            let list: Vec<&str> = names.iter().map(String::as_str).collect();
            for (name, value) in names.iter().zip(target.bank(*cpu, *bank, &list)?) {
                self.values.insert((*cpu, *bank, name.clone()), value);
            }
        }
        Ok(())
    }

    /// The number at the last stop; 0 if it is not watched, and then nobody asks.
    pub fn get(&self, cpu: usize, bank: Bank, name: &str) -> u64 {
        if self.watched.is_empty() {
            return 0;
        }
        self.values.get(&(cpu, bank, name.to_owned())).copied().unwrap_or(0)
    }
}
