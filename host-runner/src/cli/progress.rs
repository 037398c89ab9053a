//! One line that tells how far the run is, and what has been running for how long, on a terminal.
//!
//! Where nothing else is wanted, it is all that a run shows that goes well: libtest-mimic's own lines go nowhere, and
//! failures are told here. Else libtest-mimic writes to standard output meanwhile. Then the line is no longer than any of
//! those, and leaves the cursor at its beginning: whatever is printed next covers it. With one test at a time
//! libtest-mimic has named it already, and the cursor stands behind that: then it is the time alone, and gone before the
//! verdict is printed.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::args::{Format, TestArgs};

/// How often the line is written while nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// How often at most while much happens.
const PAUSE: Duration = Duration::from_millis(100);
/// The columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// The line, and who keeps it up to date.
#[derive(Debug)]
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
    tells_all: bool,
    /// Ends the thread when it is dropped.
    _ticker: Option<Sender<()>>,
}

/// What else is on the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Nobody sees the line.
    Hidden,
    /// Nor is anything else wanted but failures.
    Elsewhere,
    /// Nothing but failures.
    Alone,
    /// libtest-mimic's lines, each after its test.
    Between,
    /// libtest-mimic's line of the test that runs, up to the verdict.
    Behind,
}

#[derive(Debug)]
struct State {
    style: Style,
    done: usize,
    bad: usize,
    all: usize,
    /// The most columns that the line may have.
    width: usize,
    /// What runs, the oldest first.
    running: Vec<(String, Instant)>,
    /// When the line was last written, and how long it was.
    last: Option<(Instant, usize)>,
}

impl Style {
    fn of(args: &TestArgs) -> Self {
        if args.watched {
            return Self::Elsewhere;
        }
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        // One character per test leaves the cursor where it must stay, and programs read the others.
        let pretty = !args.quiet && args.format.is_none_or(|format| format == Format::Pretty);
        if dumb || !pretty || !std::io::stderr().is_terminal() {
            return Self::Hidden;
        }
        let asked = args.verbose || args.nocapture || args.format.is_some() || args.logfile.is_some();
        if std::io::stdout().is_terminal() && !asked {
            return Self::Alone;
        }
        let cpus = || thread::available_parallelism().map_or(1, usize::from);
        if args.test_threads.map_or_else(cpus, usize::from) == 1 { Self::Behind } else { Self::Between }
    }

    /// How wide the line may be among tests of these names.
    fn width<'a>(self, names: impl Iterator<Item = &'a str>) -> usize {
        if self == Self::Alone {
            let size = terminal_size::terminal_size_of(std::io::stderr());
            // A terminal may go on to the next line when the last column is filled.
            return size.map_or(COLUMNS, |(width, _)| width.0.into()).saturating_sub(1);
        }
        // libtest-mimic makes all its lines as long as the longest.
        let longest = names.map(|name| name.chars().count()).max().unwrap_or_default();
        "test ".len() + longest + " ... ok".len()
    }
}

impl Progress {
    /// For tests of these names.
    pub(super) fn new<'a>(args: &TestArgs, names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let style = Style::of(args);
        let (all, width) = (names.clone().count(), style.width(names));
        let state = State { style, done: 0, bad: 0, all, width, running: Vec::new(), last: None };
        let state = Arc::new(Mutex::new(state));
        let ticker = (!matches!(style, Style::Hidden | Style::Elsewhere)).then(|| {
            let (stop, stopped) = mpsc::channel();
            let state = Arc::clone(&state);
            thread::spawn(move || {
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    lock(&state).show(Instant::now());
                }
            });
            stop
        });
        Self { state, tells_all: matches!(style, Style::Alone | Style::Elsewhere), _ticker: ticker }
    }

    /// Whether libtest-mimic's lines are not wanted: what has to be said is said here.
    pub(super) const fn tells_all(&self) -> bool {
        self.tells_all
    }

    /// A test begins.
    pub(super) fn start(&self, name: &str) {
        let mut state = lock(&self.state);
        state.running.push((name.to_owned(), Instant::now()));
        if state.style == Style::Alone {
            state.show_soon();
        }
    }

    /// A test is done.
    pub(super) fn step(&self, name: &str, good: bool) {
        let mut state = lock(&self.state);
        state.done += 1;
        state.bad += usize::from(!good);
        state.running.retain(|(running, _)| running != name);
        state.show_soon();
    }

    /// Prints these lines where the line was.
    pub(super) fn tell(&self, text: &str) {
        let mut state = lock(&self.state);
        state.clear();
        // A terminal that is gone is no reason to stop.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
        state.show(Instant::now());
    }

    /// The line is not needed any more.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        if state.style == Style::Alone {
            state.clear();
        }
        state.style = Style::Hidden;
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Shows the line, unless it was just shown and is alone: then the next one will do.
    fn show_soon(&mut self) {
        let now = Instant::now();
        let just = self.last.is_some_and(|(last, _)| now.saturating_duration_since(last) < PAUSE);
        if self.style != Style::Alone || !just {
            self.show(now);
        }
    }

    fn show(&mut self, now: Instant) {
        if let Some(text) = self.text(now) {
            self.last = Some((now, text.trim_end().chars().count()));
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr().lock(), "{text}");
        }
    }

    /// Takes away a line that is alone.
    fn clear(&mut self) {
        if let Some((_, length)) = self.last.take() {
            let _ = write!(std::io::stderr().lock(), "{:length$}\r", "");
        }
    }

    fn text(&self, now: Instant) -> Option<String> {
        let oldest = self.running.first().map(|(name, start)| (name, now.duration_since(*start).as_secs()));
        let named = match self.style {
            Style::Hidden | Style::Elsewhere => return None,
            Style::Behind => {
                // The verdict takes its place.
                return Some(match oldest {
                    Some((_, seconds)) => {
                        let time = format!("{seconds} s");
                        format!("\x1b[K{time}\x1b[{}D", time.len())
                    }
                    None => "\x1b[K".to_owned(),
                });
            }
            Style::Between if self.done >= self.all => return None,
            Style::Between => oldest.filter(|(_, seconds)| *seconds > 0),
            Style::Alone => oldest,
        };
        let bad = if self.bad > 0 { format!(" {} bad", self.bad) } else { String::new() };
        let named = named.map(|(name, seconds)| format!("  {seconds} s {name}")).unwrap_or_default();
        let line = format!("{}/{}{bad}{named}", self.done, self.all);
        let width = self.width;
        let line: String = line.chars().take(width).collect();
        // Spaces cover what a longer line of before has left.
        Some(format!("{line:<width$}\r"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(running: &[(&str, Instant)], style: Style) -> State {
        let running = running.iter().map(|(name, start)| ((*name).to_owned(), *start)).collect();
        State { style, done: 3, bad: 0, all: 90, width: 32, running, last: None }
    }

    #[test]
    fn what_runs_longest_is_named_with_its_time() {
        let start = Instant::now();
        let later = start + Duration::from_secs(7);
        let text = |state: &State| state.text(later).unwrap();
        let two = [("a.slow", start), ("a.fast", start + Duration::from_secs(6))];
        assert_eq!(text(&state(&two, Style::Between)).trim_end(), "3/90  7 s a.slow");
        let bad = State { bad: 2, ..state(&[("a.slow", later)], Style::Between) };
        assert_eq!(text(&bad).trim_end(), "3/90 2 bad", "what has just begun is not named");
        let alone = State { style: Style::Alone, ..bad };
        assert_eq!(text(&alone).trim_end(), "3/90 2 bad  0 s a.slow", "there is nothing else to see");
        assert_eq!(text(&state(&two, Style::Behind)), "\x1b[K7 s\x1b[3D");
        assert_eq!(text(&state(&[], Style::Behind)), "\x1b[K");
        assert_eq!(State { done: 90, ..state(&[], Style::Between) }.text(later), None);
        assert_eq!(state(&two, Style::Hidden).text(later), None);
    }

    #[test]
    fn what_is_printed_next_covers_the_line() {
        let start = Instant::now();
        let width = Style::Between.width(["a.pass", "exactly-twenty-chars"].into_iter());
        assert_eq!(width, "test exactly-twenty-chars ... ok".len());
        for style in [Style::Between, Style::Alone] {
            for name in ["a", "exactly-twenty-chars", "a-name-that-is-much-longer-than-any-other"] {
                let line = State { width, ..state(&[(name, start)], style) };
                let line = line.text(start + Duration::from_secs(99)).unwrap();
                assert_eq!(line.strip_suffix('\r').unwrap().len(), width, "{line}");
            }
        }
    }
}
