//! `migrate`: the vCPUs' threads hop between the host's CPUs while they run.

use super::{Point, Variation, uses};
use crate::case::{Action, Case, Churn, Requires};
use crate::play::{Perturb, TargetError};

/// A storm for every other run.
pub(super) struct Migrate;

impl Variation for Migrate {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        let own = uses::acts(case, |action| matches!(action, Action::Disturb { .. }));
        own.then_some("the case itself disturbs the VM")
    }

    fn requires(&self) -> Requires {
        Requires { cpus: Some(2), ..Requires::default() }
    }

    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        match point.acts(0.7) {
            Some(_) => point.perturb(Perturb::Storm(Churn::Migrate)).map(drop),
            None => Ok(()),
        }
    }
}
