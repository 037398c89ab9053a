//! SIGINT and SIGTERM while this program answers for a machine or for another program: the first one is left to whoever
//! waits for those, another one ends everything at once. At any other time they do what they always do.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use anyhow::Context;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::bed;

static STATE: OnceLock<State> = OnceLock::new();

/// What the handlers see and leave.
struct State {
    /// Nobody answers for anything.
    idle: Arc<AtomicBool>,
    /// The signal's number; 0 while none came.
    caught: Arc<AtomicUsize>,
}

/// While it exists, the first signal does not end this program.
#[derive(Debug)]
pub(crate) struct Watch(());

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(state) = STATE.get() {
            state.idle.store(true, Ordering::SeqCst);
        }
    }
}

/// Takes signals over. Watches do not nest.
pub(crate) fn watch() -> anyhow::Result<Watch> {
    if STATE.get().is_none() {
        let state = register().context("cannot catch signals")?;
        // If another thread was first, its handlers and these do the same.
        let _ = STATE.set(state);
    }
    if let Some(state) = STATE.get() {
        state.idle.store(false, Ordering::SeqCst);
    }
    Ok(Watch(()))
}

fn register() -> io::Result<State> {
    let (idle, again) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let caught = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        // In this order: only what comes after the first one ends the process there and then, and what it has
        // started goes with it.
        flag::register_conditional_default(signal, Arc::clone(&idle))?;
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
        flag::register_usize(signal, Arc::clone(&caught), signal.unsigned_abs() as usize)?;
    }
    Ok(State { idle, caught })
}

/// The exit status of a program that a signal has ended, if one came.
pub(crate) fn caught() -> Option<u8> {
    match STATE.get()?.caught.load(Ordering::SeqCst) {
        0 => None,
        signal => u8::try_from(128 + signal).ok(),
    }
}

/// The signal's name, from that exit status.
pub(crate) fn name(status: u8) -> &'static str {
    if i32::from(status) == 128 + SIGTERM { "SIGTERM" } else { "SIGINT" }
}

/// Runs a program to its end, and passes signals on to it; it does not outlive this one. A terminal would tell it as
/// well, and twice means at once: so it has a process group of its own.
pub(crate) fn status(command: Command) -> anyhow::Result<ExitStatus> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot catch signals")?;
    let handle = signals.handle();
    let mut child = bed::spawn(command)?;
    let group = Pid::from_raw(child.id().cast_signed());
    let telling = thread::spawn(move || {
        for signal in signals.forever() {
            if let Ok(signal) = Signal::try_from(signal) {
                // It may be over.
                let _ = killpg(group, signal);
            }
        }
    });
    let ended = child.wait();
    handle.close();
    let _ = telling.join();
    ended.context("cannot wait for a program")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, ChildStdout, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Set in the program that is sent the signals: this test's own, once more.
    const PART: &str = "EXITSPEC_TEST_SIGNALS";

    /// Starts a part and waits until it says what is to be waited for; that word.
    fn begin(part: &str) -> (Child, BufReader<ChildStdout>, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "interrupt::tests::the_other_part", "--nocapture"]).env(PART, part);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let word = loop {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended too soon");
            if let Some((_, word)) = line.split_once("ready ") {
                break word.trim().to_owned();
            }
        };
        (child, lines, word)
    }

    fn tell(child: &Child, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    fn rest(mut lines: BufReader<ChildStdout>) -> String {
        let mut text = String::new();
        lines.read_to_string(&mut text).unwrap();
        text
    }

    fn is_gone(pid: &str) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    }

    /// The program that is sent signals.
    #[test]
    fn the_other_part() {
        let Ok(part) = std::env::var(PART) else { return };
        let watch = watch().unwrap();
        match part.as_str() {
            "program" => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "trap 'exit 7' INT; echo ready $$; while :; do sleep 0.05; done"]);
                let ended = status(shell).unwrap();
                println!("ended {:?}, caught {:?}", ended.code(), caught());
            }
            "stubborn" => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "trap 'echo told' INT; echo ready $$; while :; do sleep 0.05; done"]);
                println!("ended {:?}", status(shell));
            }
            "idle" => {
                drop(watch);
                println!("ready -");
                thread::sleep(Duration::from_mins(2));
            }
            _ => panic!("{part}"),
        }
    }

    #[test]
    fn a_signal_is_passed_on_once_and_waited_for() {
        let (mut child, lines, pid) = begin("program");
        tell(&child, Signal::SIGINT);
        let text = rest(lines);
        assert!(text.contains("ended Some(7), caught Some(130)"), "{text}");
        assert!(child.wait().unwrap().success() && is_gone(&pid));
    }

    #[test]
    fn a_second_signal_ends_everything() {
        let (mut child, mut lines, pid) = begin("stubborn");
        tell(&child, Signal::SIGINT);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "told\n");
        tell(&child, Signal::SIGINT);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        // The shell had its end of the pipe, too, and closes it on its way out.
        assert!(!rest(lines).contains("ended"));
        let start = Instant::now();
        while !is_gone(&pid) {
            assert!(start.elapsed() < Duration::from_mins(2), "it outlives what started it");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_signal_does_what_it_always_does_when_nothing_is_answered_for() {
        let (mut child, _lines, _) = begin("idle");
        tell(&child, Signal::SIGTERM);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(SIGTERM));
    }

    #[test]
    fn a_status_names_its_signal() {
        assert_eq!((name(130), name(143)), ("SIGINT", "SIGTERM"));
    }
}
