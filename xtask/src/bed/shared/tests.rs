//! Several runs of one machine of paper.

use std::collections::VecDeque;

use super::*;

/// What a machine says, how long each line takes it, and how often it was switched off.
struct Paper {
    lines: VecDeque<&'static str>,
    end: fn() -> Heard,
    step: Duration,
    now: Instant,
    stopped: Rc<Cell<u32>>,
}

impl Machine for Paper {
    fn listen(&mut self, _: Duration) -> anyhow::Result<Heard> {
        self.now += self.step;
        Ok(self.lines.pop_front().map_or_else(self.end, |line| Heard::Line(line.into())))
    }

    fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        self.stopped.set(self.stopped.get() + 1);
        Ok(vec!["Linux version".to_owned()])
    }

    fn now(&self) -> Instant {
        self.now
    }
}

const FIRST: &str = r#"{"event":"bed-up","turn":0}"#;
const SECOND: &str = r#"{"event":"bed-up","turn":1}"#;
const EXIT: &str = r#"{"event":"exit","status":1}"#;

struct Lab {
    shared: Shared,
    stopped: Rc<Cell<u32>>,
    machine: Box<dyn Machine>,
}

impl Lab {
    fn of(turns: usize, lines: &[&'static str], end: fn() -> Heard) -> Self {
        let (shared, stopped) = (Shared::default(), Rc::default());
        let lines = lines.iter().copied().collect();
        let step = Duration::from_secs(10);
        let machine = Paper { lines, end, step, now: Instant::now(), stopped: Rc::clone(&stopped) };
        let logs = vec![("console", PathBuf::from("console.log"))];
        let machine = shared.first(Box::new(machine), turns, logs);
        Self { shared, stopped, machine }
    }

    /// Listens until a run would be done.
    fn hear_out(&mut self) -> Vec<String> {
        hear_out(&mut *self.machine)
    }
}

fn hear_out(machine: &mut dyn Machine) -> Vec<String> {
    let mut all = Vec::new();
    while let Heard::Line(line) = machine.listen(HANDOVER).unwrap() {
        let exit = matches!(Event::of_line(&line), Some(Event::Exit { .. }));
        all.push(String::from_utf8(line).unwrap());
        if exit {
            break;
        }
    }
    all
}

fn ended() -> Heard {
    Heard::Ended
}

#[test]
fn each_run_hears_its_own_turn_and_the_last_one_switches_off() {
    let mut lab = Lab::of(2, &[FIRST, "one", EXIT, "late", SECOND, "two", EXIT], ended);
    assert!(lab.shared.next().is_none());
    assert_eq!(lab.hear_out(), [FIRST, "one", EXIT]);
    assert!(lab.machine.stop().unwrap().is_empty());
    assert_eq!(lab.stopped.get(), 0);
    let (mut second, logs) = lab.shared.next().unwrap().unwrap();
    assert_eq!(logs, [("console", PathBuf::from("console.log"))]);
    assert!(lab.shared.next().is_none(), "it is somebody's");
    assert_eq!(hear_out(&mut *second), [SECOND, "two", EXIT]);
    assert_eq!(second.stop().unwrap(), ["Linux version"]);
    assert_eq!(lab.stopped.get(), 1);
    assert!(lab.shared.next().is_none());
}

#[test]
fn a_run_that_goes_wrong_leaves_nothing() {
    for lines in [&[FIRST, "one"][..], &[FIRST, "one", SECOND, EXIT]] {
        let mut lab = Lab::of(2, lines, ended);
        assert_eq!(lab.hear_out(), [FIRST, "one"], "the next turn's lines are not this one's");
        assert_eq!(lab.machine.stop().unwrap(), ["Linux version"]);
        assert!(lab.shared.next().is_none());
    }
}

#[test]
fn a_machine_that_cannot_go_on_says_why_and_is_switched_off() {
    let unload = r#"{"event":"bed-error","message":"cannot unload module kvm: in use\u001b"}"#;
    for (line, end, why) in [
        (unload, ended as fn() -> Heard, "cannot unload module kvm: in use"),
        ("late", ended, "it died"),
        // That of another turn does not do.
        (FIRST, || Heard::Silence, "it went silent"),
        // It talks for ever.
        ("late", || Heard::Line(b"late".into()), "it went silent"),
    ] {
        let mut lab = Lab::of(2, &[FIRST, EXIT, line], end);
        lab.hear_out();
        lab.machine.stop().unwrap();
        let error = lab.shared.next().unwrap().err().unwrap();
        assert_eq!(error, why);
        assert_eq!(lab.stopped.get(), 1);
        assert!(lab.shared.next().is_none());
    }
}

#[test]
fn each_run_pays_its_part_of_the_boot() {
    // Switching on takes 20 s, until the second line.
    let mut lab = Lab::of(2, &["{}", FIRST, EXIT, SECOND, EXIT], ended);
    lab.hear_out();
    lab.machine.stop().unwrap();
    assert!((lab.shared.shift() + 10.0).abs() < 0.001);
    let (mut second, _) = lab.shared.next().unwrap().unwrap();
    hear_out(&mut *second);
    assert!((lab.shared.shift() - 10.0).abs() < 0.001);
    assert!(lab.shared.shift().abs() < 0.001);
}
