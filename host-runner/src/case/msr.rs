//! Which MSRs a guest may read and write, and which accesses go to the host (KVM API 4.97, 7.22).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A refused access of an MSR that exits instead of raising #GP (KVM_CAP_X86_USER_SPACE_MSR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MsrExit {
    /// KVM_MSR_EXIT_REASON_INVAL: the MSR refuses the value.
    Inval,
    /// KVM_MSR_EXIT_REASON_UNKNOWN: there is no such MSR.
    Unknown,
    /// KVM_MSR_EXIT_REASON_FILTER: the filter denies it.
    Filter,
}

/// What happens to MSRs that no range names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MsrDefault {
    /// KVM_MSR_FILTER_DEFAULT_ALLOW.
    #[default]
    Allow,
    /// KVM_MSR_FILTER_DEFAULT_DENY.
    Deny,
}

/// An MSR filter (KVM_X86_SET_MSR_FILTER). Without ranges nothing is filtered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MsrFilter {
    /// What happens to MSRs that no range names: `"allow"` or `"deny"`.
    pub default: MsrDefault,
    /// Up to 16 ranges.
    pub ranges: Vec<MsrRange>,
}

/// MSRs in a row, and which of them may be accessed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MsrRange {
    /// The first MSR.
    pub base: u32,
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// KVM_MSR_FILTER_READ: the range is about reads.
    #[serde(default = "yes")]
    pub reads: bool,
    /// KVM_MSR_FILTER_WRITE: it is about writes.
    #[serde(default = "yes")]
    pub writes: bool,
    /// The MSRs of the range that may be accessed, by number; the others are denied.
    #[serde(default)]
    pub allow: Vec<u32>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl MsrFilter {
    /// The same ranges with the other default: for MSRs that a range names nothing changes.
    #[must_use]
    pub fn with_other_default(&self) -> Self {
        let default = match self.default {
            MsrDefault::Allow => MsrDefault::Deny,
            MsrDefault::Deny => MsrDefault::Allow,
        };
        Self { default, ranges: self.ranges.clone() }
    }
}
