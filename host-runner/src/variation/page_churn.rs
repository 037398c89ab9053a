//! `page-churn`: the host's pages behind guest memory come and go, before and while the guest runs.

use super::{Point, Variation, uses};
use crate::case::{Action, Case, Churn};
use crate::play::{Perturb, Target, TargetError};

/// A storm, or one event before the run.
pub(super) struct PageChurn;

impl Variation for PageChurn {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        let own = uses::acts(case, |action| matches!(action, Action::Disturb { .. }));
        own.then_some("the case itself disturbs the VM")
    }

    fn slowness(&self) -> u32 {
        4
    }

    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        point.perturb(Perturb::Calm)?;
        let Some(mut rng) = point.acts(0.8) else { return Ok(()) };
        if rng.bool() {
            point.perturb(Perturb::Storm(Churn::Pages))
        } else {
            point.perturb(Perturb::Pages(rng.u32(..)))
        }
    }

    fn finish(&mut self, target: &mut dyn Target) -> Result<(), TargetError> {
        target.perturb(Perturb::Calm)
    }
}
