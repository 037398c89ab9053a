//! One line that tells how far the run is.
//!
//! Shown only if standard error is a terminal and standard output is not: on a terminal libtest's own
//! lines are the progress, and a second writer would garble them.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    done: AtomicUsize,
    all: usize,
}

impl Progress {
    pub(super) fn new(all: usize) -> Self {
        let shown = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
        Self { shown, done: AtomicUsize::new(0), all }
    }

    /// A case is done.
    pub(super) fn step(&self, case: &str) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shown {
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K{done}/{} {case}", self.all);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}
