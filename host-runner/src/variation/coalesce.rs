//! `coalesce`: coalesced zones and ioeventfds exist where no case has anything.

use super::Variation;
use crate::play::{Perturb, Target, TargetError};

/// Once, before the guest starts.
pub(super) struct Coalesce;

impl Variation for Coalesce {
    fn begin(&mut self, target: &mut dyn Target) -> Result<(), TargetError> {
        target.perturb(Perturb::Bystanders).map(drop)
    }
}
