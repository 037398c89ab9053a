//! One line that tells how far the run is, and what has been running for how long, on a terminal.
//!
//! libtest-mimic writes its own lines to standard output meanwhile. So the line is no longer than any of those, and leaves
//! the cursor at its beginning: whatever is printed next covers it. With one test at a time libtest-mimic has named it
//! already, and the cursor stands behind that: then it is the time alone, and gone before the verdict is printed.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::args::{Format, TestArgs};

/// How often the line is written while nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// The line, and who keeps it up to date.
#[derive(Debug)]
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
    /// Ends the thread when it is dropped.
    _ticker: Option<Sender<()>>,
}

#[derive(Debug)]
struct State {
    shown: bool,
    /// Whether tests run one at a time.
    alone: bool,
    done: usize,
    bad: usize,
    all: usize,
    /// The longest name of a test: libtest-mimic makes all its lines as long.
    width: usize,
    /// What runs, the oldest first.
    running: Vec<(String, Instant)>,
}

impl Progress {
    /// For tests of these names.
    pub(super) fn new<'a>(args: &TestArgs, names: impl Iterator<Item = &'a str>) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        // One character per test leaves the cursor where it must stay, and programs read the others.
        let pretty = !args.quiet && args.format.is_none_or(|format| format == Format::Pretty);
        let shown = std::io::stderr().is_terminal() && !dumb && pretty;
        let cpus = || thread::available_parallelism().map_or(1, usize::from);
        let threads = args.test_threads.map_or_else(cpus, usize::from);
        let lengths: Vec<usize> = names.map(|name| name.chars().count()).collect();
        let state = State {
            shown,
            alone: threads == 1,
            done: 0,
            bad: 0,
            all: lengths.len(),
            width: lengths.into_iter().max().unwrap_or_default(),
            running: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let ticker = shown.then(|| {
            let (stop, stopped) = mpsc::channel();
            let state = Arc::clone(&state);
            thread::spawn(move || {
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    lock(&state).show(Instant::now());
                }
            });
            stop
        });
        Self { state, _ticker: ticker }
    }

    /// A test begins.
    pub(super) fn start(&self, name: &str) {
        lock(&self.state).running.push((name.to_owned(), Instant::now()));
    }

    /// A test is done.
    pub(super) fn step(&self, name: &str, good: bool) {
        let mut state = lock(&self.state);
        state.done += 1;
        state.bad += usize::from(!good);
        state.running.retain(|(running, _)| running != name);
        state.show(Instant::now());
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn show(&self, now: Instant) {
        if self.shown
            && let Some(text) = self.text(now)
        {
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr().lock(), "{text}");
        }
    }

    fn text(&self, now: Instant) -> Option<String> {
        let oldest = self.running.first().map(|(name, start)| (name, now.duration_since(*start).as_secs()));
        if self.alone {
            // Behind the name; the verdict takes its place.
            return Some(match oldest {
                Some((_, seconds)) => {
                    let time = format!("{seconds} s");
                    format!("\x1b[K{time}\x1b[{}D", time.len())
                }
                None => "\x1b[K".to_owned(),
            });
        }
        if self.done >= self.all {
            return None;
        }
        let bad = if self.bad > 0 { format!(" {} bad", self.bad) } else { String::new() };
        let named = oldest.filter(|(_, seconds)| *seconds > 0);
        let named = named.map(|(name, seconds)| format!("  {seconds} s {name}")).unwrap_or_default();
        let line = format!("{}/{}{bad}{named}", self.done, self.all);
        // Spaces cover what a longer line of before has left.
        let width = "test ".len() + self.width + " ... ok".len();
        let line: String = line.chars().take(width).collect();
        Some(format!("{line:<width$}\r"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(running: &[(&str, Instant)], alone: bool) -> State {
        let running = running.iter().map(|(name, start)| ((*name).to_owned(), *start)).collect();
        State { shown: true, alone, done: 3, bad: 0, all: 90, width: 20, running }
    }

    #[test]
    fn what_runs_longest_is_named_with_its_time() {
        let start = Instant::now();
        let later = start + Duration::from_secs(7);
        let text = |state: &State| state.text(later).unwrap();
        let two = [("a.slow", start), ("a.fast", start + Duration::from_secs(6))];
        assert_eq!(text(&state(&two, false)).trim_end(), "3/90  7 s a.slow");
        let bad = State { bad: 2, ..state(&[("a.slow", later)], false) };
        assert_eq!(text(&bad).trim_end(), "3/90 2 bad", "what has just begun is not named");
        assert_eq!(text(&state(&two, true)), "\x1b[K7 s\x1b[3D");
        assert_eq!(text(&state(&[], true)), "\x1b[K");
        assert_eq!(State { done: 90, ..state(&[], false) }.text(later), None);
    }

    #[test]
    fn what_is_printed_next_covers_the_line() {
        let start = Instant::now();
        for name in ["a", "exactly-twenty-chars", "a-name-that-is-much-longer-than-any-other"] {
            let line = state(&[(name, start)], false).text(start + Duration::from_secs(99)).unwrap();
            let line = line.strip_suffix('\r').unwrap();
            assert_eq!(line.len(), "test exactly-twenty-chars ... ok".len(), "{line}");
        }
    }
}
