//! Machines that die by script.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Mutex;

use super::*;

const UP: &str = r#"{"event":"bed-up","turn":0}"#;
const HEADER: &str = r#"{"event":"header","seed":1}"#;
const EXIT: &str = r#"{"event":"exit","status":1}"#;
const PATIENCE: Patience =
    Patience { boot: Duration::from_mins(1), results: Duration::from_mins(3), case: Duration::from_hours(1) };

fn started(case: &str) -> String {
    format!(r#"{{"event":"started","case":"{case}","at":"now"}}"#)
}

fn finished(case: &str) -> String {
    format!(r#"{{"event":"finished","case":"{case}","outcome":{{"verdict":"pass"}}}}"#)
}

fn started_for(case: &str, limit_ms: u64) -> String {
    format!(r#"{{"event":"started","case":"{case}","at":"now","limit_ms":{limit_ms}}}"#)
}

/// What one boot does: lines, then an end.
struct Script {
    lines: VecDeque<String>,
    end: fn() -> Heard,
    console: &'static str,
    /// How much time each line takes.
    step: Duration,
    now: Instant,
    waits: Rc<Mutex<Vec<Duration>>>,
}

impl Machine for Script {
    fn listen(&mut self, patience: Duration) -> anyhow::Result<Heard> {
        self.waits.lock().unwrap().push(patience);
        self.now += self.step;
        Ok(self.lines.pop_front().map_or_else(self.end, |line| Heard::Line(line.into_bytes())))
    }

    fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        if self.console == FAILS {
            bail!("the console cannot be written");
        }
        Ok(vec!["Linux version".to_owned(), self.console.to_owned()])
    }

    fn now(&self) -> Instant {
        self.now
    }
}

/// A console that is an error.
const FAILS: &str = "fails";

#[derive(Default)]
struct Fake {
    scripts: VecDeque<Script>,
    journal: Vec<u8>,
    resumes: Vec<Option<Resume>>,
    remarks: Vec<String>,
    step: Duration,
    /// How long each line was waited for, in all boots.
    waits: Rc<Mutex<Vec<Duration>>>,
    told: Vec<Journal>,
}

impl Fake {
    fn boot<S: AsRef<str>>(mut self, lines: &[S], end: fn() -> Heard, console: &'static str) -> Self {
        let lines = lines.iter().map(|line| line.as_ref().to_owned()).collect();
        let (step, now, waits) = (self.step, Instant::now(), Rc::clone(&self.waits));
        self.scripts.push_back(Script { lines, end, console, step, now, waits });
        self
    }

    fn waits(&self) -> Vec<u64> {
        self.waits.lock().unwrap().iter().map(Duration::as_secs).collect()
    }

    fn fails(&mut self) -> String {
        format!("{:#}", run(self, PATIENCE, false).unwrap_err())
    }

    fn journal(&self) -> Vec<&str> {
        std::str::from_utf8(&self.journal).unwrap().lines().collect()
    }
}

impl Bed for Fake {
    fn boot(&mut self, number: usize, resume: Option<&Resume>) -> anyhow::Result<Box<dyn Machine>> {
        self.resumes.push(resume.cloned());
        assert_eq!(number, self.resumes.len());
        Ok(Box::new(self.scripts.pop_front().context("one boot too many")?))
    }

    fn journal(&mut self) -> &mut dyn Write {
        &mut self.journal
    }

    fn remark(&mut self, text: &str) {
        self.remarks.push(text.to_owned());
    }

    fn told(&mut self, event: &Journal) {
        self.told.push(event.clone());
    }
}

fn off() -> Heard {
    Heard::Ended
}

fn silence() -> Heard {
    Heard::Silence
}

fn never() -> Heard {
    panic!("listened to a machine that has ended")
}

#[test]
fn an_ordinary_run_is_one_boot_with_the_runners_status() {
    let lines = [UP, HEADER, &started("a.a"), &finished("a.a"), EXIT];
    let mut bed = Fake::default().boot(&lines, never, "");
    assert_eq!(run(&mut bed, PATIENCE, false).unwrap(), 1);
    assert_eq!(bed.resumes, [None]);
    assert_eq!(bed.journal(), lines[1..4]);
    let case = || "a.a".to_owned();
    let told = [
        Journal::Header { selected: Vec::new() },
        Journal::Started { case: case(), limit_ms: None },
        Journal::Finished { case: case() },
    ];
    assert_eq!(bed.told, told);
    assert_eq!(bed.waits(), [60, 180, 180, 180, 180], "for the boot, then for results");
}

#[test]
fn a_case_is_waited_for_longer_than_the_runner_waits() {
    let lines =
        [UP, HEADER, &started_for("a.a", 600_000), &finished("a.a"), &started_for("a.b", u64::MAX), EXIT];
    let mut bed = Fake::default().boot(&lines, never, "");
    run(&mut bed, PATIENCE, false).unwrap();
    // A sixth of the wait between cases is added; what a kernel makes up is bounded.
    assert_eq!(bed.waits(), [60, 180, 180, 630, 180, 20 * 180 + 30]);
}

#[test]
fn talk_is_no_progress() {
    let fake = || Fake { step: Duration::from_secs(25), ..Fake::default() };
    let error = fake().boot(&["a", "b", "c", "d"], never, "still booting").fails();
    assert!(error.contains("went silent before the suite") && error.contains("still booting"), "{error}");
    let late = [UP, HEADER, "x", UP, "x", "x", "x", "x", "x", "x", "x"];
    let mut bed = fake().boot(&late, never, "").boot(&[UP], silence, "");
    // The first machine's header is progress, what follows is not; the second boot's patience is a new one.
    assert!(run(&mut bed, PATIENCE, false).is_err());
    assert_eq!(bed.waits(), [60, 180, 180, 155, 130, 105, 80, 55, 30, 5, 60, 180]);
}

#[test]
fn a_journal_that_does_not_end_is_no_run() {
    let verdict = finished(&"x".repeat(1 << 20));
    let mut lines = vec![UP.to_owned(), HEADER.to_owned()];
    lines.extend(std::iter::repeat_n(verdict, 256));
    let error = Fake::default().boot(&lines, never, "").fails();
    assert!(error.contains("256 MiB"), "{error}");
}

#[test]
fn a_runner_that_is_killed_costs_its_case() {
    let killed = r#"{"event":"bed-error","message":"/exitspec was killed by signal 9"}"#;
    let mut bed = Fake::default().boot(&[UP, HEADER, &started("a.a"), killed], never, "Out of memory").boot(
        &[UP, &finished("a.a"), EXIT],
        never,
        "",
    );
    assert_eq!(run(&mut bed, PATIENCE, false).unwrap(), 1);
    let console = ["/exitspec was killed by signal 9", "Linux version", "Out of memory"];
    assert_eq!(bed.resumes[1], Some(lost("a.a", Loss::Crash, &console)));
    let error = Fake::default().boot(&[UP, HEADER, killed], never, "").fails();
    assert!(error.contains("signal 9"), "no case ran: {error}");
}

#[test]
fn a_verdict_that_is_owed_stays_owed_and_nothing_else_is_blamed() {
    let mut bed = Fake::default()
        .boot(&[UP, HEADER, &started("a.a")], off, "first")
        .boot(&[UP, &finished("a.z")], off, "second")
        .boot(&[UP, &finished("a.a")], off, "third")
        .boot(&[UP, &started("a.c"), EXIT], never, "");
    assert_eq!(run(&mut bed, PATIENCE, false).unwrap(), 1);
    let owed = Some(lost("a.a", Loss::Crash, &["Linux version", "first"]));
    assert_eq!(bed.resumes, [None, owed.clone(), owed, Some(Resume { lost: None })]);
    assert!(bed.remarks[2].contains("while no case ran"), "{:?}", bed.remarks);
}

#[test]
fn a_run_that_is_done_stays_done_however_its_machine_ends() {
    let mut bed = Fake::default().boot(&[UP, HEADER, EXIT], never, FAILS);
    assert_eq!(run(&mut bed, PATIENCE, false).unwrap(), 1);
    assert!(bed.remarks[0].contains("cannot be written"), "{:?}", bed.remarks);
    let error = Fake::default().boot(&[UP, HEADER, &started("a.a")], off, FAILS).fails();
    assert!(error.contains("cannot be written"), "{error}");
}

#[test]
fn ids_of_a_machine_are_cleaned_before_they_are_shown() {
    let mut bed = Fake::default().boot(&[UP, HEADER, &started("a\\u001b[2J")], off, "").boot(
        &[UP, &started("x"), EXIT],
        never,
        "",
    );
    run(&mut bed, PATIENCE, false).unwrap();
    assert!(bed.remarks[0].contains("while a[2J ran"), "{:?}", bed.remarks);
}

fn lost(case: &str, how: Loss, console: &[&str]) -> Resume {
    let console = console.iter().map(|line| (*line).to_owned()).collect();
    Resume { lost: Some(Lost { case: case.to_owned(), how, console }) }
}

#[test]
fn a_panic_costs_the_case_that_ran_and_the_next_boot_goes_on() {
    let mut bed = Fake::default()
        .boot(&[UP, HEADER, &started("a.a"), &finished("a.a"), &started("a.b")], off, "Kernel panic: b")
        .boot(&[UP, &finished("a.b"), &started("a.c"), &finished("a.c"), &started("a.d")], silence, "")
        .boot(&[UP, &finished("a.d"), EXIT], never, "");
    assert_eq!(run(&mut bed, PATIENCE, false).unwrap(), 1);
    assert_eq!(
        bed.resumes,
        [
            None,
            Some(lost("a.b", Loss::Crash, &["Kernel panic: b"])),
            Some(lost("a.d", Loss::Timeout, &["Linux version", ""]))
        ]
    );
    assert_eq!(bed.journal().len(), 9);
    assert!(
        bed.remarks[0].contains("a.b") && bed.remarks[1].contains("went silent while a.d"),
        "{:?}",
        bed.remarks
    );
}

#[test]
fn a_bed_that_never_comes_up_is_not_tried_again_and_says_its_last_words() {
    for end in [off, silence] {
        let error = Fake::default().boot::<&str>(&[], end, "Kernel panic: no init").fails();
        assert!(error.contains("before the suite") && error.contains("no init"), "{error}");
    }
    let error = r#"{"event":"bed-error","message":"cannot load kvm_amd.ko"}"#;
    let error = Fake::default().boot(&[error], never, "kvm_amd: unknown parameter").fails();
    assert!(error.contains("cannot load") && error.contains("unknown parameter"), "{error}");
    let error = Fake::default().boot(&[UP], off, "Kernel panic").fails();
    assert!(error.contains("before the first case"), "{error}");
}

#[test]
fn boots_without_a_verdict_end_the_run() {
    let mut bed = Fake::default().boot(&[UP, HEADER, &started("a.a")], off, "Kernel panic: first").boot(
        &[UP],
        off,
        "Kernel panic: second",
    );
    let error = bed.fails();
    assert!(error.contains("without any verdict") && error.contains("second"), "{error}");
    // A case that was begun is a step ahead: it is lost next time.
    let mut bed = Fake::default().boot(&[UP, HEADER], off, "").boot(&[UP, &started("a.a")], off, "").boot(
        &[UP, &finished("a.a"), EXIT],
        never,
        "",
    );
    assert_eq!(run(&mut bed, PATIENCE, false).unwrap(), 1);
}

#[test]
fn a_kernel_that_always_dies_is_given_up() {
    let mut bed = Fake::default().boot(&[UP, HEADER, &started("a.0")], off, "");
    for _ in 1..MOST_BOOTS {
        bed = bed.boot(&[UP, &finished("a.b"), &started("a.c")], off, "");
    }
    let error = bed.fails();
    assert!(error.contains("20 boots"), "{error}");
    assert_eq!(bed.resumes.len(), MOST_BOOTS);
}

#[test]
fn garbage_is_not_kept_and_an_interrupted_run_is_gone_on_with() {
    let mut bed =
        Fake::default().boot(&["garbage", UP, "{}", &started("a.b"), &finished("a.b"), EXIT], never, "");
    assert_eq!(run(&mut bed, PATIENCE, true).unwrap(), 1);
    assert_eq!(bed.resumes, [Some(Resume { lost: None })]);
    assert_eq!(bed.journal(), [started("a.b"), finished("a.b")]);
}
