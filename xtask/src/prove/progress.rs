//! How far a run is, and how long it will take.

use std::time::Duration;

/// Counts what is done.
#[derive(Debug)]
pub(crate) struct Progress {
    runs: usize,
    done: usize,
    builds: usize,
    built: Spent,
    ran: Spent,
    machines: u32,
}

#[derive(Debug, Default)]
struct Spent {
    number: u32,
    time: Duration,
}

impl Spent {
    fn add(&mut self, time: Duration) {
        self.number += 1;
        self.time += time;
    }

    fn each(&self) -> Duration {
        self.time.checked_div(self.number).unwrap_or_default()
    }
}

impl Progress {
    /// So many builds and runs, on so many machines at once.
    pub(crate) fn of(builds: usize, runs: usize, machines: u8) -> Self {
        let (built, ran) = (Spent::default(), Spent::default());
        Self { runs, done: 0, builds, built, ran, machines: machines.max(1).into() }
    }

    /// A bug is built, or was already.
    pub(crate) fn built(&mut self, time: Duration) {
        self.built.add(time);
    }

    /// A bug has run in a bed.
    pub(crate) fn ran(&mut self, time: Duration, line: &str) {
        self.ran.add(time);
        let seconds = time.as_secs_f64();
        self.say(1, &format!("{line} ({seconds:.0} s)"));
    }

    /// Some runs are done, or will not be.
    pub(crate) fn say(&mut self, runs: usize, line: &str) {
        self.done += runs;
        let left = self.left();
        let left = if left.is_zero() {
            String::new()
        } else {
            // To the minute once there are some.
            let left = if left.as_secs() < 90 { left.as_secs() } else { left.as_secs() / 60 * 60 };
            format!(", about {} left", humantime::format_duration(Duration::from_secs(left)))
        };
        eprintln!("[{}/{}{left}] {line}", self.done, self.runs);
    }

    /// Builds and machines go on side by side.
    fn left(&self) -> Duration {
        let builds = self.builds.saturating_sub(self.built.number as usize);
        let runs = self.runs.saturating_sub(self.done);
        let times = |each: Duration, number: usize| each * u32::try_from(number).unwrap_or(u32::MAX);
        times(self.built.each(), builds).max(times(self.ran.each(), runs) / self.machines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_builds_and_machines_says_how_long_it_takes() {
        let mut progress = Progress::of(10, 10, 2);
        assert_eq!(progress.left(), Duration::ZERO);
        for _ in 0..2 {
            progress.built(Duration::from_secs(5));
            progress.ran(Duration::from_secs(30), "a.b");
        }
        assert_eq!(progress.left(), Duration::from_mins(2));
        progress.say(7, "c.d: unbuildable");
        assert_eq!(progress.left(), Duration::from_secs(8 * 5));
    }
}
