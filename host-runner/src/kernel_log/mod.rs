//! The kernel log during a run: a WARNING, BUG or sanitizer report fails the case that caused it.
//!
//! [`report`] recognizes reports in lines of text, [`attribute`] finds the case that one belongs to,
//! and this module reads /dev/kmsg and keeps the books. It knows nothing of KVM.

mod attribute;
mod report;

pub use attribute::Flight;
pub use report::{Collector, Report, comm};

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest wait for the rest of a report that is being printed when its case ends, in milliseconds.
const REST_MS: u16 = 200;
/// Reports kept for one case; the text of each is bounded, too.
const MOST_REPORTS: usize = 8;
/// Most reports that wait to be told of more processes.
const MOST_UNDECIDED: usize = 64;

/// The process of a case that never had one.
const NONE: i32 = -1;

/// Watches the kernel log for the cases in flight.
pub struct KernelLog {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    source: Option<File>,
    collector: Collector,
    flights: BTreeMap<String, Flight>,
    found: BTreeMap<String, Vec<Vec<String>>>,
    stray: Vec<Report>,
    /// Reports that name nobody, while it is not known yet who some of the cases are; bounded.
    undecided: Vec<Report>,
    overrun: bool,
}

impl KernelLog {
    /// Opens `path` (/dev/kmsg) and goes to its end: what is in it already is not ours.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut source = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        match source.seek(SeekFrom::End(0)) {
            // A pipe has no past.
            Err(error) if error.raw_os_error() != Some(libc::ESPIPE) => return Err(error),
            _ => {}
        }
        Ok(Self { state: Mutex::new(State { source: Some(source), ..State::default() }) })
    }

    /// A log that is not watched.
    pub fn unwatched() -> Self {
        Self { state: Mutex::default() }
    }

    /// A case is about to start.
    pub fn begin(&self, case: &str) {
        let mut state = self.lock();
        state.drain();
        state.flights.insert(case.to_owned(), Flight::default());
    }

    /// The case runs in this process.
    pub fn started(&self, case: &str, pid: i32) {
        self.lock().started(case, pid);
    }

    /// The case is over: the reports that belong to it, each a title and then its lines.
    pub fn end(&self, case: &str) -> Vec<Vec<String>> {
        let mut state = self.lock();
        state.drain();
        state.finish_open_report();
        if state.flights.get(case).is_some_and(|flight| flight.pid.is_none()) {
            // Nobody will say which process it was.
            state.started(case, NONE);
        }
        state.flights.remove(case);
        state.found.remove(case).unwrap_or_default()
    }

    /// Reports that belong to no case, for the summary: printed between cases or after the last.
    pub fn stray(&self) -> Vec<Report> {
        let mut state = self.lock();
        state.drain();
        state.finish_open_report();
        state.decide();
        std::mem::take(&mut state.stray)
    }

    /// Whether the kernel printed faster than we read, and some records are lost.
    pub fn overrun(&self) -> bool {
        self.lock().overrun
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reads all that is there and hands out the reports that are complete.
    fn drain(&mut self) {
        let Some(source) = &mut self.source else { return };
        // /dev/kmsg gives one record per read, of at most 8 KiB.
        let mut buffer = [0; 16 * 1024];
        let mut reports = Vec::new();
        loop {
            match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let text = String::from_utf8_lossy(&buffer[..count]);
                    reports.extend(text.lines().filter_map(|line| self.collector.record(line)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Records were overwritten before we read them; the next read goes on behind.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => self.overrun = true,
                Err(_) => break,
            }
        }
        for report in reports {
            self.hand_out(report);
        }
    }

    /// A report can be half printed when its case ends: waits a little for the rest, then takes it as it is.
    fn finish_open_report(&mut self) {
        while self.collector.is_open() && self.more_comes() {
            self.drain();
        }
        if let Some(report) = self.collector.finish() {
            self.hand_out(report);
        }
    }

    fn more_comes(&self) -> bool {
        let Some(source) = &self.source else { return false };
        let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::from(REST_MS));
        ready.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
    }

    /// Hands out what was waiting to know of more processes.
    fn decide(&mut self) {
        for report in std::mem::take(&mut self.undecided) {
            self.hand_out(report);
        }
    }

    fn started(&mut self, case: &str, pid: i32) {
        if let Some(flight) = self.flights.get_mut(case) {
            flight.pid = Some(pid);
        }
        self.decide();
    }

    fn hand_out(&mut self, report: Report) {
        let untold = self.flights.values().any(|flight| flight.pid.is_none());
        if untold && !attribute::is_named(&report, &self.flights) && self.undecided.len() < MOST_UNDECIDED {
            // It may be of a process of which we have not been told yet.
            self.undecided.push(report);
            return;
        }
        let (cases, remark) = attribute::attribute(&report, &self.flights);
        if cases.is_empty() {
            self.stray.push(report);
            return;
        }
        let mut text = report.into_lines();
        if let Some(remark) = remark {
            text.insert(1, remark);
        }
        for case in cases {
            let found = self.found.entry(case).or_default();
            if found.len() < MOST_REPORTS {
                found.push(text.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::sys::stat::Mode;

    use super::*;

    /// A log in a pipe, and its writing end.
    fn log() -> (KernelLog, File, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let log = KernelLog::open(&path).unwrap();
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        (log, writer, folder)
    }

    const WARNING: &str = "4,1,10,-;------------[ cut here ]------------\n\
        4,2,11,-;WARNING: CPU: 1 PID: 41 at arch/x86/kvm/x86.c:1 f+0x1/0x2 [kvm]\n\
        4,3,12,-;CPU: 1 UID: 0 PID: 41 Comm: exitspec-case Not tainted 6.18.0 #1\n\
        4,4,13,-;---[ end trace 0000000000000000 ]---\n";

    #[test]
    fn a_report_fails_the_case_whose_process_it_names() {
        let (log, mut writer, _folder) = log();
        for (case, pid) in [("a.one", 40), ("a.two", 41)] {
            log.begin(case);
            log.started(case, pid);
        }
        writer.write_all(WARNING.as_bytes()).unwrap();
        assert!(log.end("a.one").is_empty());
        let found = log.end("a.two");
        assert_eq!(found.len(), 1);
        assert!(found[0][0].starts_with("WARNING: CPU: 1 PID: 41 at"), "{found:?}");
        assert!(log.stray().is_empty());
    }

    #[test]
    fn a_report_of_a_process_that_is_gone_finds_the_case_that_it_was() {
        let (log, mut writer, _folder) = log();
        for (case, pid) in [("a.one", 40), ("a.two", 4_194_303)] {
            log.begin(case);
            log.started(case, pid);
        }
        // A live migration's second process, or a thread, of which nothing is left in /proc.
        let warning = WARNING.replace("PID: 41", "PID: 99999999").replace("exitspec-case", &comm(4_194_303));
        assert_ne!(warning, WARNING);
        writer.write_all(warning.as_bytes()).unwrap();
        assert!(log.end("a.one").is_empty());
        let found = log.end("a.two");
        assert_eq!(found.len(), 1);
        assert!(!found[0].iter().any(|line| line.contains("names no")), "{found:?}");
        assert!(comm(4_194_304).len() <= 15, "or the kernel cuts it");
    }

    #[test]
    fn a_report_that_comes_before_its_case_is_known_waits_for_it() {
        let (log, mut writer, _folder) = log();
        log.begin("a.one");
        log.started("a.one", 40);
        log.begin("a.two");
        writer.write_all(WARNING.as_bytes()).unwrap();
        assert!(log.end("a.one").is_empty(), "it may be that of the other");
        log.started("a.two", 41);
        assert_eq!(log.end("a.two").len(), 1);
        // Of one that is never told it is a suspect, and nothing is lost.
        log.begin("a.three");
        writer.write_all(WARNING.as_bytes()).unwrap();
        assert_eq!(log.end("a.three").len(), 1);
        assert!(log.stray().is_empty());
    }

    #[test]
    fn half_a_report_at_the_end_of_its_case_is_kept() {
        let (log, mut writer, _folder) = log();
        log.begin("a.one");
        let half = WARNING.split_inclusive('\n').take(2).collect::<String>();
        writer.write_all(half.as_bytes()).unwrap();
        assert_eq!(log.end("a.one").len(), 1);
    }

    #[test]
    fn a_report_between_cases_is_stray_and_an_unwatched_log_is_silent() {
        let (log, mut writer, _folder) = log();
        writer.write_all(WARNING.as_bytes()).unwrap();
        log.begin("a.one");
        assert!(log.end("a.one").is_empty());
        assert_eq!(log.stray().len(), 1);
        let none = KernelLog::unwatched();
        none.begin("a.one");
        assert!(none.end("a.one").is_empty());
    }
}
