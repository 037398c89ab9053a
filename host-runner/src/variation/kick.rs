//! `kick`: KVM_RUN returns EINTR at random moments, and is called again.

use super::{Point, Variation, Whose, uses};
use crate::case::{Case, Churn, Delivery};
use crate::exit::Exit;
use crate::play::{Perturb, Target, TargetError};

/// Before the run, at its beginning, or while the guest runs.
pub(super) struct Kick;

impl Variation for Kick {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        if uses::interruptions(case) {
            return Some("the case itself interrupts KVM_RUN");
        }
        uses::concurrency(case).then_some("the case acts on a guest that stays in KVM_RUN")
    }

    fn slowness(&self) -> u32 {
        2
    }

    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        let Some(mut rng) = point.acts(0.7) else { return Ok(()) };
        let cpu = point.cpu;
        let how = match rng.u8(..3) {
            0 => Perturb::ImmediateExit(cpu),
            1 => Perturb::Signal(cpu, Delivery::Now),
            _ => Perturb::Storm(Churn::Kick),
        };
        point.perturb(how).map(drop)
    }

    fn at_exit(&mut self, _: usize, exit: &Exit, _: &mut dyn Target) -> Result<Whose, TargetError> {
        Ok(if matches!(exit, Exit::Intr {}) { Whose::Mine } else { Whose::Guest })
    }
}
