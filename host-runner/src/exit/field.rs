//! The types of exit fields: how each is expected, compared and printed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::case::{Bytes, DataExpect, Expect, Places};

/// What a field's comparison may look at besides the field.
pub struct PatternContext<'a> {
    /// The payload's labels.
    pub places: &'a dyn Places,
    /// Size in bytes of one item of the exit's data.
    pub item_size: usize,
}

/// A field of an exit.
pub trait ExitField: fmt::Debug {
    /// How a manifest states it.
    type Pattern: fmt::Debug + Clone + PartialEq + fmt::Display + JsonSchema + for<'de> Deserialize<'de>;
    /// Whether it is as stated; `false` too if a place does not resolve.
    fn holds(&self, pattern: &Self::Pattern, context: &PatternContext) -> bool;
    /// The pattern with its places resolved, for people.
    fn shown(pattern: &Self::Pattern, context: &PatternContext) -> String;
    /// The field for people.
    fn show(&self) -> String;
    /// The expression in a pattern, whose label must exist.
    fn expect(_pattern: &Self::Pattern) -> Option<&Expect> {
        None
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl ExitField for $type {
            type Pattern = Expect;
            fn holds(&self, pattern: &Expect, context: &PatternContext) -> bool {
                pattern.holds(*self as u64, 0, context.places) == Some(true)
            }
            fn shown(pattern: &Expect, context: &PatternContext) -> String {
                show_expect(pattern, context.places)
            }
            fn show(&self) -> String {
                format!("{self:#x}")
            }
            fn expect(pattern: &Expect) -> Option<&Expect> {
                Some(pattern)
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64);

/// An expectation with the number that its place stands for.
fn show_expect(expect: &Expect, places: &dyn Places) -> String {
    match expect.expr() {
        Some(expr) if expr.label().is_some() => match expr.resolve(places) {
            Some(number) => format!("{expect} ({number:#x})"),
            None => format!("{expect} (no such place)"),
        },
        _ => expect.to_string(),
    }
}

macro_rules! words {
    ($($type:ty),*) => {$(
        impl ExitField for $type {
            type Pattern = Self;
            fn holds(&self, pattern: &Self, _: &PatternContext) -> bool {
                self == pattern
            }
            fn shown(pattern: &Self, _: &PatternContext) -> String {
                pattern.to_string()
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
words!(bool, Direction, NotifyContext);

impl ExitField for Bytes {
    type Pattern = DataExpect;
    fn holds(&self, pattern: &DataExpect, context: &PatternContext) -> bool {
        pattern.holds(self, context.item_size)
    }
    fn shown(pattern: &DataExpect, _: &PatternContext) -> String {
        pattern.to_string()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Which way data goes, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// IN, INS: the host owes the guest data. `KVM_EXIT_IO_IN`.
    In,
    /// OUT, OUTS: the guest gave data. `KVM_EXIT_IO_OUT`.
    Out,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

/// `kvm_run.notify.flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyContext {
    /// The VM can go on.
    Valid,
    /// KVM_NOTIFY_CONTEXT_INVALID.
    Invalid,
}

impl fmt::Display for NotifyContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        })
    }
}
