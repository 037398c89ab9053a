//! One line that tells how far the run is, on a terminal.
//!
//! libtest-mimic writes its own lines to standard output meanwhile. So the line is short, shorter than any
//! of those, and leaves the cursor at its beginning: whatever is printed next covers it.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    done: AtomicUsize,
    bad: AtomicUsize,
    all: usize,
}

impl Progress {
    pub(super) fn new(all: usize) -> Self {
        let shown = std::io::stderr().is_terminal();
        Self { shown, done: AtomicUsize::new(0), bad: AtomicUsize::new(0), all }
    }

    /// A case is done.
    pub(super) fn step(&self, good: bool) {
        let bad = self.bad.fetch_add(usize::from(!good), Ordering::Relaxed) + usize::from(!good);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shown && done < self.all {
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr().lock(), "{}", line(done, self.all, bad));
        }
    }
}

/// Shorter than `test a.b ... ok`, which is to cover it.
fn line(done: usize, all: usize, bad: usize) -> String {
    if bad == 0 { format!("{done}/{all}\r") } else { format!("{done}/{all} {bad} bad\r") }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn what_is_printed_next_covers_the_line() {
        assert_eq!(line(3, 90, 0), "3/90\r");
        assert_eq!(line(3, 90, 2), "3/90 2 bad\r");
        assert!(line(999, 999, 99).len() <= "test a.b ... ok".len() + 1);
    }
}
