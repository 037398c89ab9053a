//! The step `set`: numbers that KVM takes, or refuses at once or when the vCPU is to run with them.

use super::{Player, Walk, errno_name};
use crate::case::BankSet;
use crate::play::evidence::Finding;
use crate::play::{Target, TargetError};

impl<T: Target> Player<'_, T> {
    pub(super) fn set(&mut self, step: &BankSet) -> Walk {
        let (cpu, bank) = (step.cpu, step.bank);
        let mut values = Vec::with_capacity(step.values.len());
        for (name, expr) in &step.values {
            let value =
                self.target.resolve(expr, self.places).map_err(|error| Finding::target(cpu, error))?;
            values.push((name.as_str(), value));
        }
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        let before = if step.at_run {
            self.target.bank(cpu, bank, &names).map_err(|error| Finding::target(cpu, error))?
        } else {
            Vec::new()
        };
        let refused = self.write(step, &values)?;
        match (&step.errno, refused) {
            (Some(errno), None) if step.at_run => {
                self.refused_at_run(cpu, errno)?;
                let before: Vec<(&str, u64)> = names.into_iter().zip(before).collect();
                if let Some(errno) = self.write(step, &before)? {
                    let observed = format!("refusal with {errno}");
                    return Err(Finding::differs(
                        cpu,
                        "set",
                        "the numbers go back to what they were",
                        observed,
                    ));
                }
            }
            (expected, refused) if *expected != refused => {
                let shown = |errno: Option<&String>| {
                    errno.map_or("success".to_owned(), |errno| format!("refusal with {errno}"))
                };
                return Err(Finding::differs(cpu, "set", shown(expected.as_ref()), shown(refused.as_ref())));
            }
            _ => {}
        }
        self.before.note(self.target, Some(cpu)).map_err(|error| Finding::target(cpu, error))
    }

    /// The errno's name, if KVM refuses.
    fn write(&mut self, step: &BankSet, values: &[(&str, u64)]) -> Walk<Option<String>> {
        let refused = self.target.set_bank(step.cpu, step.bank, values);
        Ok(refused.map_err(|error| Finding::target(step.cpu, error))?.map(errno_name))
    }

    /// KVM has taken what it could refuse, and so must not run the vCPU.
    fn refused_at_run(&mut self, cpu: usize, errno: &str) -> Walk {
        match self.target.run(cpu) {
            Err(TargetError::Ioctl { what, error })
                if what.starts_with("KVM_RUN") && error.split(':').next() == Some(errno) =>
            {
                Ok(())
            }
            Err(error) => Err(Finding::target(cpu, error)),
            Ok(exit) => {
                self.trace.saw(&exit);
                let expected = format!("refusal with {errno}, or by the next KVM_RUN");
                Err(Finding::differs(cpu, "set", expected, exit))
            }
        }
    }
}
