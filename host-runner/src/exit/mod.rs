//! What KVM told us: every reason for which KVM_RUN returns on x86, complete, comparable, printable.
//!
//! [`table`] is the one list of exits and their fields; the observed [`Exit`] and the
//! [`ExitPattern`] of a manifest are both made from it. This module reads no `kvm_run`: the machine
//! does, and hands over an `Exit`.

mod field;
mod table;

pub use field::{Direction, ExitField, NotifyContext, PatternContext};
pub use table::{Exit, ExitPattern, KINDS};

/// One field of an exit that is not as the manifest expects.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Mismatch {
    /// The field or register.
    pub field: String,
    /// What the manifest says.
    pub expected: String,
    /// What was observed.
    pub observed: String,
}
