//! From the walk to an [`Outcome`]: what was played, what decided, what the guest looked like then.

use std::collections::VecDeque;
use std::fmt::Display;

use super::guest::Said;
use super::{Target, TargetError, code, show};
use crate::bank::Bank;
use crate::case::{Case, Places, Step};
use crate::exit::{Exit, ExitPattern, Mismatch};
use crate::outcome::{Evidence, Outcome, TraceLine, Verdict};

/// Most lines of a trace that are kept.
const LINES: usize = 64;
/// Most guest messages that are kept.
const MESSAGES: usize = 64;

/// What ended a walk.
pub struct Finding {
    verdict: Verdict,
    cpu: usize,
    /// In one line.
    reason: String,
    mismatches: Vec<Mismatch>,
}

#[expect(
    clippy::unnecessary_box_returns,
    reason = "it travels in the error half of results, which must stay small"
)]
impl Finding {
    fn new(verdict: Verdict, cpu: usize, reason: String, mismatches: Vec<Mismatch>) -> Box<Self> {
        Box::new(Self { verdict, cpu, reason, mismatches })
    }

    /// Fields or numbers differ.
    pub fn mismatch(cpu: usize, mismatches: Vec<Mismatch>) -> Box<Self> {
        let one = |m: &Mismatch| format!("{}: expected {}, observed {}", m.field, m.expected, m.observed);
        let reason = mismatches.iter().map(one).collect::<Vec<_>>().join("; ");
        Self::new(Verdict::Fail, cpu, reason, mismatches)
    }

    /// One thing differs.
    pub fn differs(cpu: usize, field: &str, expected: impl Display, observed: impl Display) -> Box<Self> {
        let (expected, observed) = (expected.to_string(), observed.to_string());
        Self::mismatch(cpu, vec![Mismatch { field: field.into(), expected, observed }])
    }

    /// Something else than an exit came.
    pub fn exit(cpu: usize, expected: &ExitPattern, observed: String) -> Box<Self> {
        Self::differs(cpu, "exit", expected, observed)
    }

    /// The guest says that the host deviates.
    pub fn guest(cpu: usize, reason: String) -> Box<Self> {
        Self::new(Verdict::Fail, cpu, reason, Vec::new())
    }

    /// The guest says that it is at fault itself.
    pub fn payload(cpu: usize, reason: String) -> Box<Self> {
        Self::new(Verdict::Error, cpu, reason, Vec::new())
    }

    /// The case or the harness is at fault.
    pub fn harness(cpu: usize, reason: String) -> Box<Self> {
        Self::payload(cpu, reason)
    }

    /// The guest reports without end.
    pub fn flood(cpu: usize, limit: u32) -> Box<Self> {
        let reason = format!(
            "the guest floods the report port, or KVM_RUN returns EAGAIN: more than {limit} times within one step"
        );
        Self::guest(cpu, reason)
    }

    /// The target could not go on.
    pub fn target(cpu: usize, error: TargetError) -> Box<Self> {
        match error {
            TargetError::Timeout { .. } => Self::new(Verdict::Timeout, cpu, error.to_string(), Vec::new()),
            TargetError::Ioctl { .. } => Self::guest(cpu, error.to_string()),
            TargetError::Deviates { expected, observed } => Self::differs(cpu, "host", expected, observed),
            TargetError::Harness(reason) => Self::payload(cpu, reason),
        }
    }
}

/// What has been played, cheap to note: words are made only for a failure.
#[derive(Default)]
pub struct Trace<'a> {
    events: VecDeque<Event<'a>>,
    cut: usize,
    messages: VecDeque<String>,
    rest: &'a [Step],
}

enum Event<'a> {
    Step(&'a Step),
    Exit(Exit, u32),
    Said(Said),
}

impl<'a> Trace<'a> {
    /// A step begins; `rest` follows it.
    pub fn enter(&mut self, step: &'a Step, rest: &'a [Step]) {
        self.rest = rest;
        self.push(Event::Step(step));
    }

    /// KVM_RUN returned.
    pub fn saw(&mut self, exit: &Exit) {
        match self.events.back_mut() {
            // Equal exits in a row, as `times` asks for, are one line.
            Some(Event::Exit(last, times)) if last == exit => *times += 1,
            _ => self.push(Event::Exit(exit.clone(), 1)),
        }
    }

    /// The guest reported.
    pub fn said(&mut self, said: &Said) {
        match said {
            Said::Progress(text) => {
                if self.messages.len() == MESSAGES {
                    self.messages.pop_front();
                }
                self.messages.push_back(text.clone());
            }
            said => self.push(Event::Said(said.clone())),
        }
    }

    fn push(&mut self, event: Event<'a>) {
        if self.events.len() == LINES {
            self.events.pop_front();
            self.cut += 1;
        }
        self.events.push_back(event);
    }

    /// The outcome of a walk that ended with `finding`.
    pub fn outcome<T: Target>(
        self,
        case: &Case,
        finding: Finding,
        target: &mut T,
        places: &dyn Places,
    ) -> Outcome {
        let cpu = finding.cpu;
        let step = self
            .events
            .iter()
            .rev()
            .find_map(|event| if let Event::Step(step) = event { Some(*step) } else { None });
        let to_come = self.rest.iter().take(8).map(|step| show::step(&step.what)).collect();
        let evidence = Evidence {
            trace_cut: self.cut,
            to_come,
            mismatches: finding.mismatches,
            place: Some(step.map_or_else(|| case.place.clone(), |step| step.place.clone())),
            why: step.and_then(|step| step.why.clone()),
            registers: registers(target, cpu),
            code: code::around(target, cpu, places),
            guest: self.messages.iter().cloned().collect(),
            trace: self.lines(),
            ..Evidence::default()
        };
        let mut reason = finding.reason;
        if finding.verdict == Verdict::Timeout
            && let Some(line) = evidence.code.iter().find(|line| line.here)
        {
            reason =
                format!("{reason}: the guest is at {:#x} ({}): {}", line.address, line.symbol, line.text);
        }
        Outcome { verdict: finding.verdict, reason, evidence: Some(Box::new(evidence)) }
    }

    fn lines(self) -> Vec<TraceLine> {
        let mut lines: Vec<TraceLine> = Vec::new();
        let observe = |lines: &mut Vec<TraceLine>, observed: String| match lines.last_mut() {
            Some(line) if line.observed.is_none() => line.observed = Some(observed),
            _ => lines.push(TraceLine {
                line: 0,
                expected: String::new(),
                observed: Some(observed),
                holds: true,
            }),
        };
        for event in self.events {
            match event {
                Event::Step(step) => lines.push(TraceLine {
                    line: step.place.line,
                    expected: show::step(&step.what),
                    observed: None,
                    holds: true,
                }),
                Event::Exit(exit, 1) => observe(&mut lines, format!("exit {exit}")),
                Event::Exit(exit, times) => observe(&mut lines, format!("exit {exit}, {times} times")),
                Event::Said(said) => observe(&mut lines, said.to_string()),
            }
        }
        if let Some(last) = lines.last_mut() {
            last.holds = false;
        }
        lines
    }
}

/// The registers that a person looks at first; empty if they cannot be read.
fn registers(target: &mut impl Target, cpu: usize) -> Vec<(String, u64)> {
    let system = [
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "efer",
        "cs.selector",
        "cs.base",
        "ss.selector",
        "idt.base",
        "idt.limit",
    ];
    let mut registers = Vec::new();
    for (bank, names) in [(Bank::Regs, Bank::Regs.names()), (Bank::Sregs, system.to_vec())] {
        if let Ok(values) = target.bank(cpu, bank, &names) {
            registers.extend(names.iter().map(|&name| name.to_owned()).zip(values));
        }
    }
    registers
}
