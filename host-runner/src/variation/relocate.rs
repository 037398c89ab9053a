//! `save-restore` and `live-migration`: the guest goes on in another VM, at each exit.

use super::{Point, Variation, uses};
use crate::case::{Action, Case};
use crate::play::{Perturb, TargetError};

/// A new VM before each run; in another process before a few of them.
pub(super) struct Relocate {
    how: Perturb,
    /// How often it may still happen.
    left: u32,
}

impl Relocate {
    /// Always, in this process.
    pub(super) fn here() -> Self {
        Self { how: Perturb::SaveRestore, left: u32::MAX }
    }

    /// Into another process: each that the guest has left waits for those that follow it, so only a few times.
    pub(super) fn live() -> Self {
        Self { how: Perturb::LiveMigration, left: 8 }
    }
}

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
        let chance = if self.how == Perturb::LiveMigration { 0.2 } else { 1.0 };
        if self.left > 0 && point.acts(chance).is_some() {
            self.left -= u32::from(point.perturb(self.how)?);
        }
        Ok(())
    }
}
