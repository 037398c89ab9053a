//! Machines that die by script.

use std::collections::VecDeque;

use super::*;

const UP: &str = r#"{"event":"bed-up"}"#;
const HEADER: &str = r#"{"event":"header","seed":1}"#;
const EXIT: &str = r#"{"event":"exit","status":1}"#;
const PATIENCE: Patience = Patience { boot: Duration::from_mins(1), results: Duration::from_mins(3) };

fn started(case: &str) -> String {
    format!(r#"{{"event":"started","case":"{case}","at":"now"}}"#)
}

fn finished(case: &str) -> String {
    format!(r#"{{"event":"finished","case":"{case}","outcome":{{"verdict":"pass"}}}}"#)
}

/// What one boot does: lines, then an end.
struct Script(VecDeque<String>, fn() -> Heard, &'static str);

impl Machine for Script {
    fn listen(&mut self, patience: Duration) -> anyhow::Result<Heard> {
        assert!(patience == PATIENCE.boot || patience == PATIENCE.results);
        Ok(self.0.pop_front().map_or_else(self.1, |line| Heard::Line(line.into_bytes())))
    }

    fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        Ok(vec!["Linux version".to_owned(), self.2.to_owned()])
    }
}

#[derive(Default)]
struct Fake {
    scripts: VecDeque<Script>,
    journal: Vec<u8>,
    resumes: Vec<Option<Resume>>,
    remarks: Vec<String>,
}

impl Fake {
    fn boot<S: AsRef<str>>(mut self, lines: &[S], end: fn() -> Heard, console: &'static str) -> Self {
        let lines = lines.iter().map(|line| line.as_ref().to_owned()).collect();
        self.scripts.push_back(Script(lines, end, console));
        self
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
}

#[test]
fn a_panic_costs_the_case_that_ran_and_the_next_boot_goes_on() {
    let mut bed = Fake::default()
        .boot(&[UP, HEADER, &started("a.a"), &finished("a.a"), &started("a.b")], off, "Kernel panic: b")
        .boot(&[UP, &finished("a.b"), &started("a.c"), &finished("a.c"), &started("a.d")], silence, "")
        .boot(&[UP, &finished("a.d"), EXIT], never, "");
    assert_eq!(run(&mut bed, PATIENCE, false).unwrap(), 1);
    let lost = |loss, lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Some(Resume { lost: Some((loss, lines)) })
    };
    assert_eq!(
        bed.resumes,
        [None, lost(Loss::Crash, &["Kernel panic: b"]), lost(Loss::Timeout, &["Linux version", ""])]
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
