//! Which case a kernel report belongs to.

use std::collections::BTreeMap;
use std::path::Path;

use super::Report;

/// A case that is running.
#[derive(Debug, Clone, Default)]
pub struct Flight {
    /// Its process; `None` until the worker has told.
    pub pid: Option<i32>,
}

/// The cases that a report belongs to, and a remark if that is a guess.
///
/// A process or thread id in the report decides, or the one in the process's name ([`comm`](super::comm)). Ids can be
/// missing (an interrupt, a kernel thread) or be those of another PID namespace (a container); then all cases in flight
/// are suspects.
pub(super) fn attribute(
    report: &Report,
    flights: &BTreeMap<String, Flight>,
) -> (Vec<String>, Option<String>) {
    let owners: Vec<String> =
        flights.iter().filter(|(_, flight)| names(report, flight)).map(|(case, _)| case.clone()).collect();
    if !owners.is_empty() {
        return (owners, None);
    }
    let all: Vec<String> = flights.keys().cloned().collect();
    let remark = match all.as_slice() {
        [] => None,
        [_] => Some("(names no thread of the case; this was the only case running)".to_owned()),
        several => {
            Some(format!("(names no case's thread; any of these may have caused it: {})", several.join(", ")))
        }
    };
    (all, remark)
}

/// Whether the report names one of the cases.
pub(super) fn is_named(report: &Report, flights: &BTreeMap<String, Flight>) -> bool {
    flights.values().any(|flight| names(report, flight))
}

fn names(report: &Report, flight: &Flight) -> bool {
    flight.pid.is_some_and(|pid| report.pids.iter().any(|&id| owns(pid, id)))
}

fn owns(process: i32, id: i32) -> bool {
    process == id || Path::new(&format!("/proc/{process}/task/{id}")).exists() || descends(id, process)
}

/// Whether the process `id` is one that the case has moved on to.
fn descends(mut id: i32, process: i32) -> bool {
    for _ in 0..MOST_MOVES {
        let Some(parent) = parent(id).filter(|parent| *parent > 1) else { return false };
        if parent == process {
            return true;
        }
        id = parent;
    }
    false
}

/// More than a live migration makes, each from the one before.
const MOST_MOVES: u32 = 16;

/// The second field behind the name, which may hold anything (proc_pid_stat(5)).
fn parent(id: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pids: &[i32]) -> Report {
        Report { title: "WARNING".into(), pids: pids.to_vec(), ..Report::default() }
    }

    fn flights(pids: &[i32]) -> BTreeMap<String, Flight> {
        pids.iter().map(|&pid| (format!("case.{pid}"), Flight { pid: Some(pid) })).collect()
    }

    #[test]
    fn the_process_decides() {
        let (cases, remark) = attribute(&report(&[-2]), &flights(&[-1, -2]));
        assert_eq!((cases, remark), (vec!["case.-2".to_owned()], None));
    }

    #[test]
    fn so_does_one_of_its_threads() {
        let me = std::process::id().cast_signed();
        // The test harness runs this on a thread of its own, so the two ids differ.
        let here = nix::unistd::gettid().as_raw();
        let (cases, remark) = attribute(&report(&[here]), &flights(&[me, -2]));
        assert_eq!((cases, remark), (vec![format!("case.{me}")], None));
    }

    #[test]
    fn so_does_a_process_that_it_has_moved_on_to() {
        let me = std::process::id().cast_signed();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(parent(child.id().cast_signed()), Some(me));
        let (cases, remark) = attribute(&report(&[child.id().cast_signed()]), &flights(&[me, -2]));
        assert_eq!((cases, remark), (vec![format!("case.{me}")], None));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn otherwise_everybody_in_flight_is_a_suspect_and_it_says_so() {
        let (cases, remark) = attribute(&report(&[]), &flights(&[-1]));
        assert_eq!(cases, ["case.-1"]);
        assert!(remark.unwrap().contains("only case"));
        let (cases, remark) = attribute(&report(&[-9]), &flights(&[-1, -2]));
        assert_eq!(cases.len(), 2);
        assert!(remark.unwrap().contains("case.-1, case.-2"));
        assert!(attribute(&report(&[-9]), &flights(&[])).0.is_empty());
    }
}
