//! One line on the terminal that tells how far a run in a bed is, as the runner's own does on this machine. There the
//! runner names no case by itself then, and what is printed goes where the line was.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::console::clean;
use super::event::Journal;
use super::runner_args::RunnerArgs;

/// How often the line is written while nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// How often at most while much happens.
const PAUSE: Duration = Duration::from_millis(100);
/// The columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// The line; none where nobody sees it, or something else is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Option<Arc<Mutex<Line>>>);

#[derive(Debug, Default)]
struct Line {
    done: usize,
    /// How many there are; 0 if that is not known.
    all: usize,
    running: Option<(String, Instant)>,
    last: Option<Instant>,
}

impl Progress {
    /// For a run that is shown, with these words for the runner.
    pub(crate) fn of(runner: &RunnerArgs) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let seen = io::stdout().is_terminal() && io::stderr().is_terminal() && !dumb;
        if !seen || runner.asks_for_lines() {
            return Self::default();
        }
        let line = Arc::new(Mutex::new(Line::default()));
        let kept = Arc::downgrade(&line);
        thread::spawn(move || {
            loop {
                thread::sleep(TICK);
                let Some(line) = kept.upgrade() else { return };
                lock(&line).show(Instant::now());
            }
        });
        Self(Some(line))
    }

    /// Whether there is one.
    pub(crate) fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// The journal goes on.
    pub(crate) fn take(&self, event: &Journal) {
        if let Some(line) = &self.0 {
            let (mut line, now) = (lock(line), Instant::now());
            line.take(event, now);
            if line.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE) {
                line.show(now);
            }
        }
    }

    /// Prints something in the line's place. It is back with the next event.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        let Some(line) = &self.0 else { return print() };
        let mut line = lock(line);
        line.clear();
        print()
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn take(&mut self, event: &Journal, now: Instant) {
        match event {
            Journal::Header { selected } => self.all = selected.len(),
            Journal::Started { case, .. } => self.running = Some((clean(case), now)),
            Journal::Finished { case } => {
                self.done += 1;
                self.running.take_if(|(running, _)| *running == clean(case));
            }
            Journal::Ended {} => {}
        }
    }

    fn show(&mut self, now: Instant) {
        if self.done == 0 && self.running.is_none() {
            return;
        }
        let size = terminal_size::terminal_size_of(io::stderr());
        let width = size.map_or(COLUMNS, |(width, _)| width.0.into()).saturating_sub(1);
        self.last = Some(now);
        // A terminal that is gone is no reason to stop.
        let _ = write!(io::stderr(), "\r\x1b[K{}\r", self.text(now, width));
    }

    fn clear(&mut self) {
        if self.last.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn text(&self, now: Instant, width: usize) -> String {
        let all = if self.all > 0 { format!("/{}", self.all) } else { String::new() };
        let running = self.running.as_ref().map(|(case, start)| {
            let seconds = now.saturating_duration_since(*start).as_secs();
            format!("  {seconds} s {case}")
        });
        format!("{}{all}{}", self.done, running.unwrap_or_default()).chars().take(width).collect()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_and_names_what_runs() {
        let (mut line, start) = (Line::default(), Instant::now());
        let later = start + Duration::from_secs(7);
        line.take(&Journal::Header { selected: vec!["a.a".into(), "a.b".into()] }, start);
        assert_eq!(line.text(later, 79), "0/2");
        line.take(&Journal::Finished { case: "a.a".into() }, start);
        line.take(&Journal::Started { case: "a.b\x1b[2J".into(), limit_ms: None }, start);
        let text = line.text(later, 79);
        assert!(text.starts_with("1/2  7 s a.b") && !text.contains('\x1b'), "{text:?}");
        assert_eq!(line.text(later, 6), "1/2  7");
        line.take(&Journal::Finished { case: "a.b\x1b[2J".into() }, later);
        assert_eq!(line.text(later, 79), "2/2");
        // A run that is gone on with has its first line elsewhere.
        line.all = 0;
        assert_eq!(line.text(later, 79), "2");
    }

    #[test]
    fn nobody_is_shown_a_line_that_has_asked_for_lines_or_reads_a_file() {
        assert!(!Progress::default().is_shown());
        let asks = |word: &str| RunnerArgs::of(&[word.into()]).unwrap().asks_for_lines();
        for word in ["-v", "--verbose", "-q", "--quiet", "--nocapture", "--format=json"] {
            assert!(asks(word), "{word}");
        }
        assert!(!asks("--no-waivers") && !asks("port-io"));
    }
}
