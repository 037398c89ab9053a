//! What `play` needs of a VM. The machine is one; a scripted fake in the tests is another.

use super::Perturb;
use crate::bank::Bank;
use crate::case::{Action, Bytes, Expr, Places};
use crate::exit::Exit;

/// Something that runs a guest.
pub trait Target {
    /// KVM_RUN on a vCPU until it returns. Bounded in time by the target.
    fn run(&mut self, cpu: usize) -> Result<Exit, TargetError>;

    /// KVM_RUN on one vCPU from several threads at once: one exit per thread.
    fn run_from_threads(&mut self, cpu: usize, threads: u32) -> Result<Vec<Exit>, TargetError>;

    /// Hands over the data that the last exit of `cpu` owes the guest. `refuse` answers an MSR exit with #GP.
    fn reply(&mut self, cpu: usize, data: &Bytes, refuse: bool) -> Result<(), TargetError>;

    /// Reads numbers of a bank, in the order of `names`.
    fn bank(&mut self, cpu: usize, bank: Bank, names: &[&str]) -> Result<Vec<u64>, TargetError>;

    /// Changes numbers of a bank (none: writes it back as it is). `Ok(Some(errno))` if KVM refused.
    fn set_bank(
        &mut self,
        cpu: usize,
        bank: Bank,
        values: &[(&str, u64)],
    ) -> Result<Option<i32>, TargetError>;

    /// Does a host action. `Err(Deviates)` from the actions that compare.
    fn act(&mut self, action: &Action, places: &dyn Places) -> Result<(), TargetError>;

    /// Does what no guest may notice; `false` if it had to leave that. `Err(Deviates)` if what it compares is not so.
    fn perturb(&mut self, what: Perturb) -> Result<bool, TargetError>;

    /// Reads guest-physical memory; `false` if no memslot with data is there.
    fn read_memory(&mut self, gpa: u64, into: &mut [u8]) -> bool;

    /// The case is over: ends what still runs beside it. Exits of vCPUs that ran in the background and that no
    /// step named come out here, as do errors of disturbances.
    fn finish(&mut self) -> Result<Vec<(usize, Exit)>, TargetError> {
        Ok(Vec::new())
    }

    /// The number of an expression; the target's labels are the payload's.
    fn resolve(&self, expr: &Expr, places: &dyn Places) -> Result<u64, TargetError> {
        expr.resolve(places)
            .ok_or_else(|| TargetError::Harness(format!("`{expr}` is no place in the payload")))
    }
}

/// Why a target could not do what a step asks.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// KVM refused an ioctl that the case relies on.
    #[error("{what}: {error}")]
    Ioctl {
        /// The ioctl, by KVM's name, and what it was for.
        what: String,
        /// The kernel's answer.
        error: String,
    },
    /// The guest did not exit within its time.
    #[error("no exit within {milliseconds} ms")]
    Timeout {
        /// How long it was given.
        milliseconds: u64,
    },
    /// A comparison inside an action did not hold.
    #[error("expected {expected}, observed {observed}")]
    Deviates {
        /// What the action states.
        expected: String,
        /// What was there.
        observed: String,
    },
    /// The case or the harness asks for what cannot be.
    #[error("{0}")]
    Harness(String),
}
