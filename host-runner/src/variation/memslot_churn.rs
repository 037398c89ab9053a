//! `memslot-churn`: an unrelated memslot comes and goes while the guest runs, and the guest's own memory moves to
//! other host addresses between its runs.

use super::{Point, Variation, uses};
use crate::case::{Case, Churn};
use crate::play::{Perturb, TargetError};

/// One, the other, or both.
pub(super) struct MemslotChurn;

impl Variation for MemslotChurn {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        if uses::memslots(case) {
            return Some("the case itself changes memslots");
        }
        if uses::concurrency(case) {
            return Some("another vCPU may run while memory moves");
        }
        // Deleting a memslot deletes its log.
        uses::dirty_logging(case).then_some("the case itself reads a dirty log")
    }

    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        let Some(mut rng) = point.acts(0.7) else { return Ok(()) };
        let which = rng.u8(1..4);
        if which & 1 != 0 {
            point.perturb(Perturb::Rehost)?;
        }
        if which & 2 != 0 {
            point.perturb(Perturb::Storm(Churn::Slots))?;
        }
        Ok(())
    }
}
