//! `save-restore` and `live-migration`: the guest goes on in another VM, at each exit.

use super::{Point, Variation, uses};
use crate::case::{Action, Case};
use crate::play::{Perturb, TargetError};

/// A new VM before each run; in another process before a few of them.
pub(super) struct Relocate(pub(super) Perturb);

impl Variation for Relocate {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        if uses::interruptions(case) {
            // An interruption that waits is the VMM's, and no state of KVM.
            return Some("the case itself interrupts KVM_RUN");
        }
        if uses::concurrency(case) {
            return Some("a VM that runs cannot be saved");
        }
        if uses::acts(case, |action| matches!(action, Action::CoalescedRing { .. })) {
            return Some("no ioctl saves the coalesced ring");
        }
        // KVM's API: the VMM keeps the log.
        uses::dirty_logging(case).then_some("no ioctl saves a dirty log")
    }

    fn slowness(&self) -> u32 {
        4
    }

    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        // A process is left waiting for each that follows it.
        let chance = if self.0 == Perturb::LiveMigration { 0.2 } else { 1.0 };
        match point.acts(chance) {
            Some(_) => point.perturb(self.0),
            None => Ok(()),
        }
    }
}
