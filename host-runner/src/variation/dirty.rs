//! `dirty-log` and `dirty-ring`: dirty logging goes on and off, and every page that changed must be reported.

use super::{Point, Variation, Whose, uses};
use crate::case::{Case, MachineSpec, Requires};
use crate::exit::Exit;
use crate::play::{Perturb, Target, TargetError};

/// Logging for some runs.
pub(super) struct Dirty {
    ring: bool,
    logging: bool,
}

impl Dirty {
    /// KVM_GET_DIRTY_LOG.
    pub(super) fn by_log() -> Self {
        Self { ring: false, logging: false }
    }

    /// KVM_CAP_DIRTY_LOG_RING.
    pub(super) fn by_ring() -> Self {
        Self { ring: true, logging: false }
    }

    fn harvest(&mut self, target: &mut dyn Target) -> Result<(), TargetError> {
        if std::mem::take(&mut self.logging) {
            target.perturb(Perturb::HarvestDirty)?;
        }
        Ok(())
    }
}

impl Variation for Dirty {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        if uses::dirty_logging(case) {
            return Some("the case itself reads a dirty log");
        }
        if uses::memslots(case) {
            return Some("the case itself changes memslots");
        }
        if uses::relocation(case) {
            return Some("no ioctl saves a dirty log");
        }
        uses::concurrency(case).then_some("another vCPU may write between the log and the comparison")
    }

    fn requires(&self) -> Requires {
        let cap = self.ring.then(|| "dirty-log-ring".to_owned());
        Requires { caps: cap.into_iter().collect(), ..Requires::default() }
    }

    fn slowness(&self) -> u32 {
        4
    }

    fn machine(&self, _: &Case, spec: &mut MachineSpec) {
        spec.dirty_ring = self.ring;
    }

    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        self.harvest(point.target)?;
        if point.acts(0.4).is_some() {
            self.logging = true;
            point.perturb(Perturb::LogDirty)?;
        }
        Ok(())
    }

    fn at_exit(&mut self, _: usize, exit: &Exit, target: &mut dyn Target) -> Result<Whose, TargetError> {
        if !self.logging || !matches!(exit, Exit::DirtyRingFull {}) {
            return Ok(Whose::Guest);
        }
        // KVM may report a page again each time it writes there, so any guest can fill a ring (KVM API 8.29).
        target.perturb(Perturb::HarvestDirty)?;
        target.perturb(Perturb::LogDirty)?;
        Ok(Whose::Mine)
    }

    fn finish(&mut self, target: &mut dyn Target) -> Result<(), TargetError> {
        self.harvest(target)
    }
}
