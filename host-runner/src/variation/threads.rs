//! `threads`: each KVM_RUN comes from a thread that has never run the vCPU.

use super::{Point, Variation, uses};
use crate::case::{Action, Case};
use crate::play::{Perturb, TargetError};

/// A new thread for each run.
pub(super) struct Threads;

impl Variation for Threads {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        let own = uses::concurrency(case)
            || uses::acts(case, |action| matches!(action, Action::NewThread { .. } | Action::Signal { .. }));
        own.then_some("the case itself says which thread runs the vCPU")
    }

    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        let cpu = point.cpu;
        match point.acts(1.0) {
            Some(_) => point.perturb(Perturb::NewThread(cpu)).map(drop),
            None => Ok(()),
        }
    }
}
