//! One step of a case.

use super::{Action, DataExpect, Expect, Expr, On};
use crate::bank::Bank;
use crate::exit::ExitPattern;

/// A place in a manifest, for people.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Place {
    /// The manifest's path as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// The text of the step or case id as it is written, its first line.
    pub text: String,
}

/// One line of a case's `steps`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What happens or must happen.
    pub what: What,
    /// Only on such hosts.
    pub on: Option<On>,
    /// Why, in the author's words; shown on failure.
    pub why: Option<String>,
    /// Where it is written.
    pub place: Place,
}

/// What happens or must happen.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// `exit = "io"`: the guest runs until KVM_RUN returns, and it must be this.
    Exit(Box<ExitStep>),
    /// `guest = "name"`: the guest runs until it reports, and it must be this.
    Guest(GuestStep),
    /// `set = "regs"`: the host reads a bank, changes numbers of it, writes it back.
    Set(BankSet),
    /// `check = "sregs"`: the host reads a bank; its numbers must be these.
    Check(BankExpect),
    /// `keep = "regs"`: the host reads a bank and writes it back as it was. On which vCPU, which bank.
    Keep(usize, Bank),
    /// `do = "nmi"`: the host does something else.
    Do(Action),
    /// `repeat = 100, steps = [...]`.
    Repeat(u32, Vec<Step>),
}

/// An exit to see.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitStep {
    /// Kind and fields.
    pub pattern: ExitPattern,
    /// Which vCPU runs.
    pub cpu: usize,
    /// Registers of the bank `regs` at the exit.
    pub regs: Vec<(String, Expect)>,
    /// Guest memory at the exit.
    pub memory: Vec<MemoryExpect>,
    /// What the host gives back: data of an IN, an MMIO read or RDMSR.
    pub reply: Option<DataExpect>,
    /// For rdmsr and wrmsr: the host answers with #GP.
    pub refuse: bool,
    /// How often in a row, by KVM_RUN again and again.
    pub times: u32,
    /// How many threads call KVM_RUN on this vCPU at once; each must see this exit.
    pub threads: u32,
}

/// A report to see.
#[derive(Debug, Clone, PartialEq)]
pub enum GuestStep {
    /// The scenario on this vCPU ran to its end.
    Done(usize),
    /// The scenario states a value.
    Value {
        /// Which vCPU runs.
        cpu: usize,
        /// The value's name.
        name: String,
        /// What it must be.
        is: Expect,
    },
}

/// Numbers that the host sets.
#[derive(Debug, Clone, PartialEq)]
pub struct BankSet {
    /// Which vCPU.
    pub cpu: usize,
    /// Which bank.
    pub bank: Bank,
    /// Names and numbers.
    pub values: Vec<(String, Expr)>,
    /// KVM must refuse with this errno, by name: `EINVAL`.
    pub errno: Option<String>,
    /// KVM may also take the numbers, if it refuses the next KVM_RUN with that errno. They are put back then.
    pub at_run: bool,
}

/// Numbers that must be so.
#[derive(Debug, Clone, PartialEq)]
pub struct BankExpect {
    /// Which vCPU.
    pub cpu: usize,
    /// Which bank.
    pub bank: Bank,
    /// Names and expectations.
    pub values: Vec<(String, Expect)>,
}

/// Guest memory that must be so.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryExpect {
    /// Guest-physical address.
    pub at: Expr,
    /// Bytes of the number, 1 to 8; 1 for a text or list.
    pub size: u8,
    /// What must be there.
    pub is: DataExpect,
}
