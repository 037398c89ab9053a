//! A case: what a guest does, what the host does to it, and which exits the host must see.
//!
//! Plain data. A `Case` made by the manifest loader is valid: its labels exist in its payload, its
//! steps make sense together. This module knows neither TOML nor KVM's ioctls.

mod action;
mod bytes;
mod expect;
mod host_match;
mod msr;
mod spec;
mod step;
mod vary;

pub use action::{Access, Action, Breakpoint, Churn, Delivery};
pub use bytes::{Bytes, DataExpect};
pub use expect::{Expect, Expr, Places};
pub use host_match::{On, Pio, Requires, Vendor};
pub use msr::{MsrDefault, MsrExit, MsrFilter, MsrRange};
pub use spec::{Basis, Budget, FLICKER_GPA, Irqchip, MachineSpec, SlotSpec, Start, ZoneSpec};
pub use step::{BankExpect, BankSet, ExitStep, GuestStep, MemoryExpect, Place, Step, What};
pub use vary::{Combo, Vary};

use std::collections::BTreeMap;

/// One behaviour that a hypervisor must show.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// `family.what-must-hold`: a stable identifier.
    pub id: String,
    /// One sentence: the behaviour.
    pub summary: String,
    /// Who promises it.
    pub basis: Basis,
    /// Where the promise is written: SDM or APM section, KVM API section, commit.
    pub reference: Vec<String>,
    /// What is wrong with a hypervisor on which this fails.
    pub detects: String,
    /// The payload's name: a binary of guest-payloads.
    pub payload: String,
    /// What runs in it: a scenario, or with a real- or protected-mode start the label at which the vCPU starts.
    pub scenario: String,
    /// Numbers for the scenario.
    pub args: BTreeMap<String, u64>,
    /// What the host must have.
    pub requires: Requires,
    /// The VM.
    pub machine: MachineSpec,
    /// How much it may use.
    pub budget: Budget,
    /// Perturbations under which it is not played, and why.
    pub except: BTreeMap<Vary, String>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// Where the case is written.
    pub place: Place,
}
