//! `page-churn`: the host's pages behind guest memory come and go, before and while the guest runs.

use super::{Point, Variation, uses};
use crate::case::{Case, Churn};
use crate::play::{Perturb, TargetError};

/// A storm, or one event before the run.
pub(super) struct PageChurn;

impl Variation for PageChurn {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        if uses::dirty_logging(case) {
            return Some("KVM may report a page that it maps anew");
        }
        uses::concurrency(case).then_some("another vCPU may write while a page is write-protected")
    }

    fn slowness(&self) -> u32 {
        4
    }

    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        let Some(mut rng) = point.acts(0.8) else { return Ok(()) };
        let how = if rng.bool() { Perturb::Storm(Churn::Pages) } else { Perturb::Pages(rng.u32(..)) };
        point.perturb(how).map(drop)
    }
}
