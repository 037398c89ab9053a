//! The walk against a scripted fake: no KVM, no payload.

use std::collections::{HashMap, VecDeque};

use exitspec_protocol::{REPORT_MAGIC, REPORT_PORT, Report, ReportKind};

use super::{Perturb, Target, TargetError, play};
use crate::bank::Bank;
use crate::case::*;
use crate::exit::{Direction, Exit, ExitPattern};
use crate::outcome::{Outcome, Verdict};

/// A guest that does what its script says.
#[derive(Default)]
struct Fake {
    exits: VecDeque<Result<Exit, TargetError>>,
    registers: HashMap<String, u64>,
    memory: HashMap<u64, Vec<u8>>,
    replies: Vec<Bytes>,
    refuse_set: Option<i32>,
    runs: u32,
    unclaimed: Vec<(usize, Exit)>,
}

impl Target for Fake {
    fn run(&mut self, _: usize) -> Result<Exit, TargetError> {
        self.runs += 1;
        let exit = self.exits.pop_front().unwrap_or(Err(TargetError::Timeout { milliseconds: 5 }));
        // Every instruction moves RIP.
        *self.registers.entry("rip".into()).or_default() += 2;
        exit
    }
    fn run_from_threads(&mut self, cpu: usize, threads: u32) -> Result<Vec<Exit>, TargetError> {
        (0..threads).map(|_| self.run(cpu)).collect()
    }
    fn reply(&mut self, _: usize, data: &Bytes, _: bool) -> Result<(), TargetError> {
        self.replies.push(data.clone());
        Ok(())
    }
    fn bank(&mut self, _: usize, _: Bank, names: &[&str]) -> Result<Vec<u64>, TargetError> {
        Ok(names.iter().map(|name| self.registers.get(*name).copied().unwrap_or(0)).collect())
    }
    fn set_bank(&mut self, _: usize, _: Bank, values: &[(&str, u64)]) -> Result<Option<i32>, TargetError> {
        if self.refuse_set.is_none() {
            self.registers.extend(values.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        }
        Ok(self.refuse_set)
    }
    fn act(&mut self, action: &Action, _: &dyn Places) -> Result<(), TargetError> {
        match action {
            Action::DirtyPages { .. } => {
                Err(TargetError::Deviates { expected: "dirty pages [1]".into(), observed: "[]".into() })
            }
            _ => Ok(()),
        }
    }
    fn perturb(&mut self, _: Perturb) -> Result<bool, TargetError> {
        Ok(true)
    }
    fn finish(&mut self) -> Result<Vec<(usize, Exit)>, TargetError> {
        Ok(std::mem::take(&mut self.unclaimed))
    }
    fn read_memory(&mut self, gpa: u64, into: &mut [u8]) -> bool {
        let Some(bytes) = self.memory.get(&gpa) else { return false };
        let Some(bytes) = bytes.get(..into.len()) else { return false };
        into.copy_from_slice(bytes);
        true
    }
}

impl Fake {
    fn exits(exits: impl IntoIterator<Item = Exit>) -> Self {
        Self { exits: exits.into_iter().map(Ok).collect(), ..Self::default() }
    }

    /// Adds a report to the script.
    fn report(mut self, kind: ReportKind, text: &str, values: [u64; 4]) -> Self {
        let address = 0x1000 * (self.memory.len() as u64 + 1);
        let mut bytes = Vec::new();
        for word in [REPORT_MAGIC, kind as u32, 0, 7] {
            bytes.extend(word.to_le_bytes());
        }
        for long in [0, 0, address + 0x800, text.len() as u64] {
            bytes.extend(long.to_le_bytes());
        }
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        assert_eq!(bytes.len(), Report::SIZE);
        self.memory.insert(address, bytes);
        self.memory.insert(address + 0x800, text.into());
        self.exits.push_back(Ok(Exit::Io {
            direction: Direction::Out,
            size: 4,
            port: REPORT_PORT,
            count: 1,
            data: Bytes::new(&(address as u32).to_le_bytes()),
        }));
        self
    }
}

struct Labels;
impl Places for Labels {
    fn at(&self, label: &str) -> Option<u64> {
        (label == "start").then_some(0)
    }
    fn after(&self, label: &str) -> Option<u64> {
        self.at(label).map(|at| at + 2)
    }
}

fn case(steps: Vec<What>) -> Case {
    let step = |(index, what)| Step {
        what,
        on: None,
        why: Some(format!("why {index}")),
        place: Place { file: "x.toml".into(), line: 10 + index as u32, ..Place::default() },
    };
    Case {
        id: "x.case".into(),
        summary: "s".into(),
        basis: Basis::Arch,
        reference: vec!["SDM".into()],
        detects: "d".into(),
        payload: "p".into(),
        scenario: "s".into(),
        args: std::collections::BTreeMap::default(),
        requires: Requires::default(),
        machine: MachineSpec::default(),
        budget: Budget { reports: 5, ..Budget::default() },
        except: [].into(),
        steps: steps.into_iter().enumerate().map(step).collect(),
        place: Place::default(),
    }
}

fn exit_step(name: &str, fields: serde_json::Value) -> ExitStep {
    let pattern = ExitPattern::deserialize(name, fields).unwrap().unwrap();
    ExitStep {
        pattern,
        cpu: 0,
        regs: vec![],
        memory: vec![],
        reply: None,
        refuse: false,
        times: 1,
        threads: 1,
    }
}

fn exit(name: &str, fields: serde_json::Value) -> What {
    What::Exit(Box::new(exit_step(name, fields)))
}

fn run(steps: Vec<What>, fake: &mut Fake) -> Outcome {
    play(&case(steps), Vendor::Software, Pio::Emulated, fake, &Labels)
}

fn io_in(port: u16) -> Exit {
    Exit::Io { direction: Direction::In, size: 2, port, count: 1, data: Bytes::default() }
}

#[test]
fn exits_match_in_order_and_the_reply_is_handed_over() {
    let mut step = exit_step("io", serde_json::json!({"direction": "in", "port": 0x61}));
    step.reply = Some(DataExpect::Number(0xbeef));
    let mut fake = Fake::exits([io_in(0x61), Exit::Hlt {}]);
    let outcome = run(vec![What::Exit(Box::new(step)), exit("hlt", serde_json::json!({}))], &mut fake);
    assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
    assert_eq!(fake.replies, [Bytes::new(&[0xef, 0xbe])]);
}

#[test]
fn data_that_no_step_gives_is_zero() {
    let mut fake = Fake::exits([io_in(0x61)]);
    assert_eq!(run(vec![exit("io", serde_json::json!({}))], &mut fake).verdict, Verdict::Pass);
    assert_eq!(fake.replies, [Bytes::new(&[0, 0])]);
}

#[test]
fn a_wrong_field_fails_with_line_expected_and_observed() {
    let mut fake = Fake::exits([Exit::Hlt {}, io_in(0x62)]);
    let steps = vec![
        exit("hlt", serde_json::json!({})),
        exit("io", serde_json::json!({"port": 0x61})),
        exit("hlt", serde_json::json!({})),
    ];
    let outcome = run(steps, &mut fake);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.reason, "port: expected 0x61, observed 0x62");
    let evidence = outcome.evidence.unwrap();
    assert_eq!(evidence.place.unwrap().line, 11);
    assert_eq!(evidence.why.as_deref(), Some("why 1"));
    assert_eq!(evidence.to_come, ["exit hlt"]);
    let holds: Vec<bool> = evidence.trace.iter().map(|line| line.holds).collect();
    assert_eq!(holds, [true, false]);
    assert_eq!(
        evidence.trace[1].observed.as_deref(),
        Some("exit io direction=in size=0x2 port=0x62 count=0x1 data=")
    );
}

#[test]
fn another_exit_fails() {
    let outcome = run(vec![exit("shutdown", serde_json::json!({}))], &mut Fake::exits([Exit::Hlt {}]));
    assert_eq!(
        (outcome.verdict, outcome.reason.as_str()),
        (Verdict::Fail, "exit: expected shutdown, observed hlt")
    );
}

#[test]
fn registers_places_and_unchanged_are_compared() {
    let with = |name: &str, expect: &str| {
        let mut step = exit_step("hlt", serde_json::json!({}));
        step.regs = vec![(name.into(), serde_json::from_str(expect).unwrap())];
        run(vec![What::Exit(Box::new(step))], &mut Fake::exits([Exit::Hlt {}]))
    };
    assert_eq!(with("rip", r#""after start""#).verdict, Verdict::Pass);
    assert_eq!(with("rip", r#""at start""#).reason, "rip: expected at start (0x0), observed 0x2");
    assert_eq!(with("rax", r#""unchanged""#).verdict, Verdict::Pass);
    assert_eq!(with("rip", r#""unchanged""#).reason, "rip: expected unchanged (0x0), observed 0x2");
}

#[test]
fn unchanged_means_since_the_host_set_it() {
    let set = What::Set(BankSet {
        cpu: 0,
        bank: Bank::Regs,
        values: vec![("rax".into(), Expr::Number(9))],
        errno: None,
        at_run: false,
    });
    let mut step = exit_step("hlt", serde_json::json!({}));
    step.regs = vec![("rax".into(), Expect::Unchanged)];
    assert_eq!(
        run(vec![set, What::Exit(Box::new(step))], &mut Fake::exits([Exit::Hlt {}])).verdict,
        Verdict::Pass
    );
}

#[test]
fn times_and_threads_need_every_exit() {
    let mut step = exit_step("hlt", serde_json::json!({}));
    step.times = 3;
    let steps = || vec![What::Exit(Box::new(step.clone()))];
    assert_eq!(
        run(steps(), &mut Fake::exits([Exit::Hlt {}, Exit::Hlt {}, Exit::Hlt {}])).verdict,
        Verdict::Pass
    );
    assert_eq!(
        run(steps(), &mut Fake::exits([Exit::Hlt {}, Exit::Hlt {}, Exit::Shutdown {}])).verdict,
        Verdict::Fail
    );
    (step.times, step.threads) = (1, 2);
    let steps = || vec![What::Exit(Box::new(step.clone()))];
    assert_eq!(run(steps(), &mut Fake::exits([Exit::Hlt {}, Exit::Hlt {}])).verdict, Verdict::Pass);
    assert_eq!(run(steps(), &mut Fake::exits([Exit::Hlt {}, Exit::Intr {}])).verdict, Verdict::Fail);
}

#[test]
fn what_no_step_named_must_not_have_happened() {
    let with = |unclaimed: Exit, mut fake: Fake| {
        fake.exits.push_back(Ok(Exit::Hlt {}));
        fake.unclaimed = vec![(1, unclaimed)];
        run(vec![exit("hlt", serde_json::json!({}))], &mut fake)
    };
    let outcome = with(Exit::Shutdown {}, Fake::default());
    assert_eq!(outcome.reason, "exit: expected no exit that no step names, observed shutdown");
    let report = |kind| {
        let mut fake = Fake::default().report(kind, "text", [6, 0, 0, 0]);
        let exit = fake.exits.pop_front().unwrap().unwrap();
        with(exit, fake).verdict
    };
    assert_eq!(report(ReportKind::Fault), Verdict::Fail, "a vCPU in the background took a fault");
    assert_eq!(report(ReportKind::CheckFailed), Verdict::Fail);
    assert_eq!(report(ReportKind::Value), Verdict::Fail);
    assert_eq!(report(ReportKind::Progress), Verdict::Pass);
}

#[test]
fn an_unstated_count_is_one() {
    let several =
        Exit::Io { direction: Direction::In, size: 1, port: 0x61, count: 7, data: Bytes::default() };
    let io = |fields| exit("io", fields);
    let outcome = run(vec![io(serde_json::json!({"port": 0x61}))], &mut Fake::exits([several.clone()]));
    assert_eq!(outcome.reason, "count: expected 0x1, observed 0x7");
    let stated = io(serde_json::json!({"port": 0x61, "count": 7}));
    assert_eq!(run(vec![stated], &mut Fake::exits([several])).verdict, Verdict::Pass);
}

#[test]
fn again_is_passed_over_unless_it_is_asked_for() {
    let hlt = || exit("hlt", serde_json::json!({}));
    let again = || exit("again", serde_json::json!({}));
    let script = || Fake::exits([Exit::Again {}, Exit::Hlt {}]);
    assert_eq!(run(vec![hlt()], &mut script()).verdict, Verdict::Pass);
    assert_eq!(run(vec![again(), hlt()], &mut script()).verdict, Verdict::Pass);
    assert_eq!(run(vec![again(), again()], &mut script()).verdict, Verdict::Fail);
    let endless = &mut Fake::exits((0..100).map(|_| Exit::Again {}));
    assert_eq!(run(vec![hlt()], endless).verdict, Verdict::Fail);
}

#[test]
fn guest_values_and_done_are_matched() {
    let value =
        |is| What::Guest(GuestStep::Value { cpu: 0, name: "cr2".into(), is: Expect::Is(Expr::Number(is)) });
    let guest = || {
        let progress = Fake::default().report(ReportKind::Progress, "on its way", [0; 4]);
        progress.report(ReportKind::Value, "cr2", [5, 0, 0, 0]).report(ReportKind::Done, "", [0; 4])
    };
    let done = || What::Guest(GuestStep::Done(0));
    assert_eq!(run(vec![value(5), done()], &mut guest()).verdict, Verdict::Pass);
    let outcome = run(vec![value(6), done()], &mut guest());
    assert_eq!(outcome.reason, "cr2: expected 0x6, observed 0x5");
    assert_eq!(outcome.evidence.unwrap().guest, ["on its way"]);
    assert_eq!(run(vec![done()], &mut guest()).reason, "guest: expected done, observed guest cr2 = 0x5");
    assert_eq!(run(vec![exit("hlt", serde_json::json!({}))], &mut guest()).verdict, Verdict::Fail);
}

#[test]
fn what_a_guest_says_of_itself_decides() {
    let hlt = || vec![exit("hlt", serde_json::json!({}))];
    let said = |kind, values| run(hlt(), &mut Fake::default().report(kind, "text", values));
    let check = said(ReportKind::CheckFailed, [1, 2, 1, 0]);
    assert_eq!(check.verdict, Verdict::Fail);
    assert!(check.reason.contains("text: observed 0x1, expected 0x2"), "{}", check.reason);
    assert_eq!(said(ReportKind::Panic, [0; 4]).verdict, Verdict::Error, "a panic is the payload's fault");
    let fault = said(ReportKind::Fault, [14, 2, 0x200123, 0xdead]);
    assert_eq!(fault.verdict, Verdict::Fail);
    assert!(
        fault.reason.contains("#PF (vector 14), error code 0x2, at 0x200123, CR2 0xdead"),
        "{}",
        fault.reason
    );
}

#[test]
fn hostile_reports_are_bounded() {
    let mut flood = Fake::default();
    for _ in 0..10 {
        flood = flood.report(ReportKind::Progress, "again", [0; 4]);
    }
    let outcome = run(vec![exit("hlt", serde_json::json!({}))], &mut flood);
    assert!(outcome.reason.contains("floods the report port"), "{}", outcome.reason);
    assert_eq!(flood.runs, 6, "ended at the budget of 5");

    let mut nowhere = Fake::exits([Exit::Io {
        direction: Direction::Out,
        size: 4,
        port: REPORT_PORT,
        count: 1,
        data: Bytes::new(&[0xff; 4]),
    }]);
    let outcome = run(vec![exit("hlt", serde_json::json!({}))], &mut nowhere);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.reason.contains("0xffffffff"), "{}", outcome.reason);

    let mut escape = Fake::default().report(ReportKind::Panic, "\x1b[2J\u{7}bell", [0; 4]);
    let outcome = run(vec![exit("hlt", serde_json::json!({}))], &mut escape);
    assert!(!outcome.reason.chars().any(char::is_control), "{:?}", outcome.reason);
}

#[test]
fn a_target_that_cannot_go_on_is_judged_by_the_reason() {
    let with = |error| {
        let mut fake = Fake::default();
        fake.exits.push_back(Err(error));
        run(vec![exit("hlt", serde_json::json!({}))], &mut fake).verdict
    };
    assert_eq!(with(TargetError::Timeout { milliseconds: 1 }), Verdict::Timeout);
    assert_eq!(with(TargetError::Ioctl { what: "KVM_RUN".into(), error: "ENOSPC".into() }), Verdict::Fail);
    assert_eq!(with(TargetError::Harness("x".into())), Verdict::Error);
    let action = What::Do(Action::DirtyPages { slot: "s".into(), pages: vec![1] });
    assert_eq!(run(vec![action], &mut Fake::default()).reason, "host: expected dirty pages [1], observed []");
}

#[test]
fn a_refused_set_must_be_expected() {
    let set = |errno: Option<&str>| {
        let errno = errno.map(str::to_owned);
        What::Set(BankSet { cpu: 0, bank: Bank::Sregs, values: vec![], errno, at_run: false })
    };
    let refusing = || Fake { refuse_set: Some(22), ..Fake::default() };
    assert_eq!(run(vec![set(Some("EINVAL"))], &mut refusing()).verdict, Verdict::Pass);
    assert_eq!(
        run(vec![set(None)], &mut refusing()).reason,
        "set: expected success, observed refusal with EINVAL"
    );
    assert_eq!(run(vec![set(Some("EINVAL"))], &mut Fake::default()).verdict, Verdict::Fail);
    assert_eq!(run(vec![What::Keep(0, Bank::Regs)], &mut refusing()).verdict, Verdict::Fail);
}

#[test]
fn a_refusal_may_come_when_the_vcpu_is_to_run() {
    let set = || {
        vec![What::Set(BankSet {
            cpu: 0,
            bank: Bank::Sregs,
            values: vec![("cr3".into(), Expr::Number(7))],
            errno: Some("EINVAL".into()),
            at_run: true,
        })]
    };
    let refusing = |errno: &str| {
        let mut fake = Fake::default();
        let (what, error) = ("KVM_RUN of vCPU 0".into(), format!("{errno}: Some text"));
        fake.exits.push_back(Err(TargetError::Ioctl { what, error }));
        fake
    };
    let mut at_once = Fake { refuse_set: Some(22), ..refusing("EINVAL") };
    assert_eq!(run(set(), &mut at_once).verdict, Verdict::Pass);
    assert_eq!(at_once.exits.len(), 1, "it need not run then");
    let mut late = refusing("EINVAL");
    let cr3 = late.bank(0, Bank::Sregs, &["cr3"]).unwrap();
    assert_eq!(run(set(), &mut late).verdict, Verdict::Pass);
    assert_eq!(late.exits.len(), 0);
    assert_eq!(late.bank(0, Bank::Sregs, &["cr3"]).unwrap(), cr3, "put back");
    assert_eq!(run(set(), &mut refusing("EFAULT")).verdict, Verdict::Fail);
    assert_eq!(run(set(), &mut Fake { refuse_set: Some(16), ..Fake::default() }).verdict, Verdict::Fail);
    assert_eq!(
        run(set(), &mut Fake::exits([Exit::Hlt {}])).reason,
        "set: expected refusal with EINVAL, or by the next KVM_RUN, observed hlt"
    );
}

#[test]
fn steps_for_other_hosts_are_not_played() {
    let mut case = case(vec![exit("shutdown", serde_json::json!({})), exit("hlt", serde_json::json!({}))]);
    case.steps[0].on = Some(On::FastPio);
    let mut fake = Fake::exits([Exit::Hlt {}]);
    assert_eq!(play(&case, Vendor::Software, Pio::Emulated, &mut fake, &Labels).verdict, Verdict::Pass);
    let mut fake = Fake::exits([Exit::Hlt {}]);
    assert_eq!(play(&case, Vendor::Intel, Pio::Fast, &mut fake, &Labels).verdict, Verdict::Fail);
}

#[test]
fn memory_is_compared_at_the_exit() {
    let with = |is: u64| {
        let mut step = exit_step("hlt", serde_json::json!({}));
        step.memory = vec![MemoryExpect { at: Expr::Number(0x40), size: 4, is: DataExpect::Number(is) }];
        let mut fake = Fake::exits([Exit::Hlt {}]);
        fake.memory.insert(0x40, vec![1, 2, 0, 0]);
        run(vec![What::Exit(Box::new(step))], &mut fake)
    };
    assert_eq!(with(0x201).verdict, Verdict::Pass);
    assert_eq!(with(0x202).reason, "memory at 0x40: expected 0x00000202, observed 0x00000201");
}

#[test]
fn long_walks_keep_a_bounded_trace() {
    let body = exit("hlt", serde_json::json!({}));
    let step = Step { what: body, on: None, why: None, place: Place::default() };
    let mut fake = Fake::exits((0..500).map(|_| Exit::Hlt {}));
    let outcome = run(vec![What::Repeat(1000, vec![step])], &mut fake);
    assert_eq!(outcome.verdict, Verdict::Timeout);
    let evidence = outcome.evidence.unwrap();
    assert!(
        evidence.trace.len() <= 64 && evidence.trace_cut > 900,
        "{} {}",
        evidence.trace.len(),
        evidence.trace_cut
    );
}
