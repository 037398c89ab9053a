//! The worker process: takes a case, forks a child for it, says what became of it.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::child::{self, Child};
use super::watch::{End, watch};
use super::wire::{Answer, LONGEST_OUTCOME, Played, Request, receive, send};
use crate::case::Combo;
use crate::outcome::{Evidence, Outcome, Verdict};
use crate::suite::{Play, RunContext, Suite};

/// Lines of a dead case's output that are reported.
const OUTPUT_LINES: usize = 40;

/// Serves the supervisor on standard input, which is a socket, until it hangs up.
///
/// Hanging up is all that it takes to end a worker, and thereby its child: a worker is always
/// reading from the socket or polling it. PR_SET_PDEATHSIG would not do here, as it fires when the
/// parent's *thread* ends; for the child, whose parent has one thread, it is right.
pub fn serve(suite: &dyn Suite) -> io::Result<()> {
    // If memory runs out, the kernel shall take a case, not the supervisor. Best effort.
    let _ = fs::write("/proc/self/oom_score_adj", "500");
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    let mut requests = BufReader::new(socket.try_clone()?);
    let mut context = None;
    while let Some(request) = receive(&mut requests)? {
        match (request, &context) {
            (Request::Context(told), _) => context = Some(*told),
            (Request::Play { .. }, None) => return Err(io::Error::other("a case before the context")),
            (Request::Play { what, limit_ms }, Some(context)) => {
                play(suite, context, &mut socket, &requests, &what, Duration::from_millis(limit_ms))?;
            }
        }
    }
    Ok(())
}

fn play(
    suite: &dyn Suite,
    context: &RunContext,
    socket: &mut UnixStream,
    requests: &BufReader<UnixStream>,
    what: &Played,
    limit: Duration,
) -> io::Result<()> {
    let known = Combo::of_test(&what.test).and_then(|(id, combo)| {
        let case = suite.cases().iter().find(|case| case.id == id)?;
        Some((case, combo))
    });
    let Some((case, combo)) = known else {
        let text = "the worker does not know this case: manifests changed during the run";
        let outcome = Box::new(Outcome::new(Verdict::Error, text));
        return send(socket, &Answer::Finished { outcome, stuck: false });
    };
    // The child must not hold the socket, or nobody would notice when this worker dies.
    let sockets = [socket.as_raw_fd(), requests.get_ref().as_raw_fd()];
    let close_sockets = || {
        for socket in sockets {
            let _ = nix::unistd::close(socket);
        }
    };
    let child: Child = child::start(&close_sockets, || {
        suite.run(&Play { case, combo: &combo, seed: what.seed, only: what.only.as_deref() }, context)
    })?;
    send(socket, &Answer::Started { pid: child.pid.as_raw() })?;
    let end = watch(&child, socket.as_fd(), limit, suite.grace(), &|pid| suite.end(pid))?;
    let stuck = end.status.is_none();
    let outcome = Box::new(judge(&end, limit));
    send(socket, &Answer::Finished { outcome, stuck })
}

/// The outcome that the process gave if it ended well, or what its end means.
fn judge(end: &End, limit: Duration) -> Outcome {
    let dead = |verdict, reason: String| {
        let evidence = Evidence { stderr: some_lines(&end.output), ..Evidence::default() };
        Outcome { verdict, reason, evidence: Some(Box::new(evidence)) }
    };
    let limit = limit.as_secs_f64();
    match end.status {
        None => dead(
            Verdict::Timeout,
            format!(
                "not done after {limit} s, and its process does not even die of SIGKILL: it is stuck in the kernel"
            ),
        ),
        Some(_) if end.timed_out => dead(Verdict::Timeout, format!("not done after {limit} s; killed")),
        Some(WaitStatus::Exited(_, 0)) if end.result.is_empty() => {
            dead(Verdict::Crash, "its process exited with 0 and gave no result".into())
        }
        Some(WaitStatus::Exited(_, 0)) if end.result.len() > LONGEST_OUTCOME => {
            dead(Verdict::Error, format!("its result is longer than {LONGEST_OUTCOME} bytes"))
        }
        Some(WaitStatus::Exited(_, 0)) => match serde_json::from_slice::<Outcome>(&end.result) {
            Ok(outcome) => with_output(outcome, &end.output),
            Err(error) => dead(Verdict::Crash, format!("its process gave no proper result: {error}")),
        },
        Some(WaitStatus::Exited(_, status)) => {
            dead(Verdict::Crash, format!("its process exited with status {status}"))
        }
        Some(WaitStatus::Signaled(_, signal, _)) => {
            dead(Verdict::Crash, format!("its process was killed by {}", signal_name(signal)))
        }
        Some(status) => dead(Verdict::Crash, format!("its process ended in an odd way: {status:?}")),
    }
}

fn signal_name(signal: Signal) -> String {
    let meaning = match signal {
        Signal::SIGSEGV => " (bad memory access)",
        Signal::SIGABRT => " (abort; a failed allocation or a panic while panicking)",
        Signal::SIGKILL => " (by somebody else: the kernel when memory ran out, or a user)",
        Signal::SIGBUS => " (memory without backing)",
        Signal::SIGSYS => " (a forbidden system call)",
        _ => "",
    };
    format!("{}{meaning}", signal.as_str())
}

/// An error of the harness is explained by what it printed, such as the place of a panic.
fn with_output(mut outcome: Outcome, output: &[u8]) -> Outcome {
    if outcome.verdict == Verdict::Error && !output.is_empty() {
        outcome.evidence.get_or_insert_default().stderr = some_lines(output);
    }
    outcome
}

/// The first lines, where a panic says what it is, and the last; what was between them is counted.
fn some_lines(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    let Some(cut) = lines.len().checked_sub(OUTPUT_LINES).filter(|cut| *cut > 0) else {
        return lines.iter().map(|line| (*line).to_owned()).collect();
    };
    let (first, last) = (&lines[..OUTPUT_LINES / 2], &lines[OUTPUT_LINES / 2 + cut..]);
    let between = format!("[{cut} lines]");
    first.iter().chain([&between.as_str()]).chain(last).map(|line| (*line).to_owned()).collect()
}
