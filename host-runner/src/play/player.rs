//! The walk over the steps.

mod set;

use super::Target;
use super::evidence::{Finding, Trace};
use super::guest::{self, Said};
use super::unchanged::Before;
use crate::bank::Bank;
use crate::case::{
    BankExpect, Bytes, Case, ExitStep, Expect, GuestStep, MemoryExpect, Pio, Places, Step, Vendor, What,
};
use crate::exit::{Exit, ExitPattern, Mismatch, PatternContext};
use crate::outcome::Outcome;

/// Plays `case` on a host of this kind and judges it.
pub fn play<T: Target>(
    case: &Case,
    vendor: Vendor,
    pio: Pio,
    target: &mut T,
    places: &dyn Places,
) -> Outcome {
    let mut player = Player {
        case,
        host: (vendor, pio),
        target,
        places,
        before: Before::default(),
        trace: Trace::default(),
        reports: 0,
    };
    match player.walk() {
        Ok(()) => Outcome::pass(),
        Err(finding) => {
            let Player { target, trace, .. } = player;
            trace.outcome(case, *finding, target, places)
        }
    }
}

struct Player<'a, T> {
    case: &'a Case,
    host: (Vendor, Pio),
    target: &'a mut T,
    places: &'a dyn Places,
    before: Before,
    trace: Trace<'a>,
    /// Reports, and returns with EAGAIN, since the last step.
    reports: u32,
}

/// What the guest did next.
enum Next {
    Exit(Exit),
    Said(Said),
}

/// A finding ends the walk.
type Walk<T = ()> = Result<T, Box<Finding>>;

impl<'a, T: Target> Player<'a, T> {
    fn walk(&mut self) -> Walk {
        self.before = Before::new(self.case, self.target).map_err(|error| Finding::target(0, error))?;
        let case = self.case;
        self.steps(&case.steps)?;
        self.finish()
    }

    /// What no step named must not have happened either.
    fn finish(&mut self) -> Walk {
        for (cpu, exit) in self.target.finish().map_err(|error| Finding::target(0, error))? {
            match guest::read(&exit, self.target) {
                Some(Said::Progress(_) | Said::Done) => {}
                Some(said) => {
                    let finding = self.hear(cpu, &said);
                    return Err(
                        finding.unwrap_or_else(|| Finding::differs(cpu, "guest", "no more values", said))
                    );
                }
                None => {
                    self.trace.saw(&exit);
                    return Err(Finding::differs(cpu, "exit", "no exit that no step names", exit));
                }
            }
        }
        Ok(())
    }

    fn steps(&mut self, steps: &'a [Step]) -> Walk {
        for (index, step) in steps.iter().enumerate() {
            if step.on.is_some_and(|on| !on.includes(self.host.0, self.host.1)) {
                continue;
            }
            self.trace.enter(step, &steps[index + 1..]);
            self.reports = 0;
            self.step(step)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &'a Step) -> Walk {
        match &step.what {
            What::Exit(exit) => self.exit(exit),
            What::Guest(report) => self.guest(report),
            What::Set(set) => self.set(set),
            What::Check(check) => self.check(check),
            What::Keep(cpu, bank) => {
                let refused =
                    self.target.set_bank(*cpu, *bank, &[]).map_err(|error| Finding::target(*cpu, error))?;
                if let Some(errno) = refused {
                    let observed = format!("KVM refused: {}", errno_name(errno));
                    return Err(Finding::differs(
                        *cpu,
                        "keep",
                        "the bank is taken back as it was read",
                        observed,
                    ));
                }
                self.before.note(self.target, Some(*cpu)).map_err(|error| Finding::target(*cpu, error))
            }
            What::Do(action) => {
                self.target.act(action, self.places).map_err(|error| Finding::target(0, error))?;
                self.before.note(self.target, None).map_err(|error| Finding::target(0, error))
            }
            What::Repeat(times, steps) => {
                for _ in 0..*times {
                    self.steps(steps)?;
                }
                Ok(())
            }
        }
    }

    /// Lets a vCPU run until it exits or says something that a step must match.
    ///
    /// KVM_RUN of a vCPU that INIT or SIPI has just woken returns EAGAIN, once or more often as the two come
    /// together or apart; every VMM goes on then, and so does this, unless the step asks for it.
    fn next(&mut self, cpu: usize, takes_again: bool) -> Walk<Next> {
        loop {
            let exit = self.target.run(cpu).map_err(|error| Finding::target(cpu, error))?;
            if exit == (Exit::Again {}) && !takes_again {
                self.count(cpu)?;
                continue;
            }
            match guest::read(&exit, self.target) {
                None => return Ok(Next::Exit(exit)),
                Some(said) => {
                    self.count(cpu)?;
                    if let Some(finding) = self.hear(cpu, &said) {
                        return Err(finding);
                    }
                    if !matches!(said, Said::Progress(_)) {
                        return Ok(Next::Said(said));
                    }
                }
            }
        }
    }

    /// Counts a return of KVM_RUN that no step matches.
    fn count(&mut self, cpu: usize) -> Walk {
        self.reports += 1;
        if self.reports > self.case.budget.reports {
            return Err(Finding::flood(cpu, self.case.budget.reports));
        }
        Ok(())
    }

    /// Notes what the guest says; a finding if that alone decides the case.
    fn hear(&mut self, cpu: usize, said: &Said) -> Option<Box<Finding>> {
        self.trace.said(said);
        match said {
            Said::Progress(_) | Said::Value { .. } | Said::Done => None,
            Said::Panic(_) => Some(Finding::payload(cpu, said.to_string())),
            Said::CheckFailed(_) | Said::Fault { .. } | Said::Garbled(_) => {
                Some(Finding::guest(cpu, said.to_string()))
            }
        }
    }

    fn exit(&mut self, step: &ExitStep) -> Walk {
        let cpu = step.cpu;
        if step.threads > 1 {
            let exits = self
                .target
                .run_from_threads(cpu, step.threads)
                .map_err(|error| Finding::target(cpu, error))?;
            for exit in exits {
                self.match_exit(step, &exit)?;
            }
            return self.stopped(cpu);
        }
        for _ in 0..step.times {
            match self.next(cpu, matches!(step.pattern, ExitPattern::Again(_)))? {
                Next::Said(said) => return Err(Finding::exit(cpu, &step.pattern, said.to_string())),
                Next::Exit(exit) => {
                    self.match_exit(step, &exit)?;
                    self.answer(step, &exit)?;
                }
            }
        }
        self.stopped(cpu)
    }

    fn stopped(&mut self, cpu: usize) -> Walk {
        self.before.note(self.target, Some(cpu)).map_err(|error| Finding::target(cpu, error))
    }

    fn match_exit(&mut self, step: &ExitStep, exit: &Exit) -> Walk {
        let cpu = step.cpu;
        self.trace.saw(exit);
        let context = PatternContext { places: self.places, item_size: exit.item_size() };
        let mut mismatches = step.pattern.mismatches(exit, &context);
        mismatches.extend(several_items(&step.pattern, exit));
        if mismatches.is_empty() {
            mismatches = self.numbers(cpu, Bank::Regs, &step.regs)?;
            for memory in &step.memory {
                mismatches.extend(self.memory(memory)?);
            }
        }
        if mismatches.is_empty() { Ok(()) } else { Err(Finding::mismatch(cpu, mismatches)) }
    }

    /// Gives the guest what the exit owes it: the step's reply, or zeros.
    fn answer(&mut self, step: &ExitStep, exit: &Exit) -> Walk {
        let owed = exit.owed();
        if owed == 0 && !step.refuse {
            return Ok(());
        }
        let data = match &step.reply {
            None => Bytes::new(&[0; 8][..owed.min(8)]),
            Some(reply) => {
                let size = if matches!(exit, Exit::Rdmsr { .. }) { 8 } else { exit.item_size().max(1) };
                let count = owed / size;
                let bytes = reply.bytes(size, count);
                bytes.ok_or_else(|| {
                    Finding::harness(step.cpu, format!("the reply {reply} does not fill {owed} bytes"))
                })?
            }
        };
        let data =
            if data.0.len() < owed && step.reply.is_none() { Bytes::new(&vec![0; owed]) } else { data };
        self.target.reply(step.cpu, &data, step.refuse).map_err(|error| Finding::target(step.cpu, error))
    }

    fn guest(&mut self, step: &GuestStep) -> Walk {
        let cpu = match step {
            GuestStep::Done(cpu) | GuestStep::Value { cpu, .. } => *cpu,
        };
        let said = match self.next(cpu, false)? {
            Next::Said(said) => said,
            Next::Exit(exit) => {
                self.trace.saw(&exit);
                return Err(Finding::differs(cpu, "guest", "the guest's report", exit));
            }
        };
        match (step, &said) {
            (GuestStep::Done(_), Said::Done) => {}
            (GuestStep::Value { name, is, .. }, Said::Value { name: said_name, value })
                if name == said_name =>
            {
                if !self.holds(is, *value, 0)? {
                    return Err(Finding::mismatch(cpu, vec![self.differs(name, is, *value)]));
                }
            }
            (GuestStep::Done(_), said) => return Err(Finding::differs(cpu, "guest", "done", said)),
            (GuestStep::Value { name, .. }, said) => {
                return Err(Finding::differs(cpu, "guest", format!("the value {name}"), said));
            }
        }
        self.stopped(cpu)
    }

    fn check(&mut self, step: &BankExpect) -> Walk {
        let mismatches = self.numbers(step.cpu, step.bank, &step.values)?;
        if mismatches.is_empty() { Ok(()) } else { Err(Finding::mismatch(step.cpu, mismatches)) }
    }

    fn numbers(&mut self, cpu: usize, bank: Bank, expected: &[(String, Expect)]) -> Walk<Vec<Mismatch>> {
        if expected.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let observed = self.target.bank(cpu, bank, &names).map_err(|error| Finding::target(cpu, error))?;
        let mut mismatches = Vec::new();
        for ((name, expect), value) in expected.iter().zip(observed) {
            let before = self.before.get(cpu, bank, name);
            if !self.holds(expect, value, before)? {
                let mut mismatch = self.differs(name, expect, value);
                if *expect == Expect::Unchanged {
                    mismatch.expected = format!("unchanged ({before:#x})");
                }
                mismatches.push(mismatch);
            }
        }
        Ok(mismatches)
    }

    fn memory(&mut self, expected: &MemoryExpect) -> Walk<Option<Mismatch>> {
        let at = self.target.resolve(&expected.at, self.places).map_err(|error| Finding::target(0, error))?;
        let wanted = expected.is.stored(expected.size);
        let wanted = wanted.ok_or_else(|| {
            Finding::harness(0, format!("{} does not fit {} bytes", expected.is, expected.size))
        })?;
        let mut bytes = vec![0; wanted.0.len()];
        let observed = if self.target.read_memory(at, &mut bytes) { Some(Bytes::new(&bytes)) } else { None };
        if observed.as_ref() == Some(&wanted) {
            return Ok(None);
        }
        Ok(Some(Mismatch {
            field: format!("memory at {}", expected.at),
            expected: wanted.to_string(),
            observed: observed.map_or_else(|| "no memslot".into(), |bytes| bytes.to_string()),
        }))
    }

    fn holds(&self, expect: &Expect, value: u64, before: u64) -> Walk<bool> {
        let no_place = || Finding::harness(0, format!("`{expect}` is no place in the payload"));
        expect.holds(value, before, self.places).ok_or_else(no_place)
    }

    fn differs(&self, name: &str, expect: &Expect, value: u64) -> Mismatch {
        let expected = match expect.expr().and_then(|expr| expr.label().and(expr.resolve(self.places))) {
            Some(number) => format!("{expect} ({number:#x})"),
            None => expect.to_string(),
        };
        let place = self.places.nearest(value).filter(|_| name == "rip");
        let observed = match place {
            Some((label, 0)) => format!("{value:#x} (at {label})"),
            Some((label, offset)) if offset < 0x1000 => format!("{value:#x} ({label}+{offset:#x})"),
            _ => format!("{value:#x}"),
        };
        Mismatch { field: name.into(), expected, observed }
    }
}

/// A port access of several items where the step does not state `count`: it means one.
fn several_items(pattern: &ExitPattern, exit: &Exit) -> Option<Mismatch> {
    match (pattern, exit) {
        (ExitPattern::Io(pattern), Exit::Io { count, .. }) if pattern.count.is_none() && *count != 1 => {
            Some(Mismatch { field: "count".into(), expected: "0x1".into(), observed: format!("{count:#x}") })
        }
        _ => None,
    }
}

/// `EINVAL` and so on.
fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}
