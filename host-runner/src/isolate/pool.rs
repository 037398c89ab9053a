//! The supervisor's side: starts workers, hands them cases, replaces those that are lost.

use std::ffi::OsString;
use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::wire::{Answer, Played, Request, receive, send};
use crate::outcome::{Outcome, Verdict};
use crate::suite::RunContext;

/// How much longer than its case a worker may be silent. It answers at the case's limit, or ten
/// seconds later if the case does not die.
const WORKER_SLACK: Duration = Duration::from_mins(1);

/// Workers. As many exist as threads call [`Pool::play`] at once.
pub struct Pool {
    idle: Mutex<Vec<Worker>>,
    arguments: Vec<OsString>,
    context: RunContext,
    stopper: Stopper,
}

/// Ends what a pool plays, from any thread, once and for all.
#[derive(Debug, Clone, Default)]
pub struct Stopper(Arc<Mutex<Playing>>);

#[derive(Debug, Default)]
struct Playing {
    stopped: bool,
    /// To the workers that play.
    sockets: Vec<Arc<UnixStream>>,
}

struct Worker {
    process: Child,
    socket: Arc<UnixStream>,
    answers: BufReader<UnixStream>,
}

impl Pool {
    /// A pool whose workers are this program, started with `arguments`.
    pub fn new(arguments: Vec<OsString>, context: RunContext) -> Self {
        Self { idle: Mutex::default(), arguments, context, stopper: Stopper::default() }
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Whether it plays nothing any more.
    pub fn is_stopped(&self) -> bool {
        self.stopper.playing().stopped
    }

    /// Plays one test in a process of its own; `started` hears that process's id. Whatever happens to
    /// that process or to the worker becomes the outcome. There is none if the pool is stopped meanwhile.
    pub fn play(&self, what: &Played, limit: Duration, started: &mut dyn FnMut(i32)) -> Option<Outcome> {
        let mut worker = match self.take() {
            Ok(worker) => worker,
            Err(error) => {
                let reason = format!("a worker process cannot be started: {error}");
                return Some(Outcome::new(Verdict::Error, reason));
            }
        };
        if !self.stopper.enter(&worker.socket) {
            worker.dismiss();
            return None;
        }
        let played = worker.play(what, limit, started);
        let stopped = self.stopper.leave(&worker.socket);
        Some(match played {
            Ok((outcome, false)) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                outcome
            }
            Ok((mut outcome, true)) => {
                outcome.reason += "; its worker was given up and another takes over";
                worker.dismiss();
                outcome
            }
            Err(_) if stopped => {
                // It ends its case's process before it goes.
                worker.ending();
                return None;
            }
            Err(error) => {
                // One that hung up is ending by itself, and its own exit status tells why.
                let hung_up = matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset);
                let ended = if hung_up { worker.ending() } else { worker.dismiss() };
                Outcome::new(Verdict::Crash, format!("its worker process is lost ({error}; {ended})"))
            }
        })
    }

    fn take(&self) -> io::Result<Worker> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Worker::start(&self.arguments, &self.context), Ok)
    }
}

impl Stopper {
    /// No case is played any more, and those that are under way have no outcome: we hang up on their workers.
    pub fn stop(&self) {
        let mut playing = self.playing();
        playing.stopped = true;
        for socket in &playing.sockets {
            // It may have hung up itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether this worker may play.
    fn enter(&self, socket: &Arc<UnixStream>) -> bool {
        let mut playing = self.playing();
        if !playing.stopped {
            playing.sockets.push(Arc::clone(socket));
        }
        !playing.stopped
    }

    /// This worker plays no more; whether that is our doing.
    fn leave(&self, socket: &Arc<UnixStream>) -> bool {
        let mut playing = self.playing();
        playing.sockets.retain(|other| !Arc::ptr_eq(other, socket));
        playing.stopped
    }

    fn playing(&self) -> std::sync::MutexGuard<'_, Playing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    fn start(arguments: &[OsString], context: &RunContext) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        // What a terminal sends to the program in its foreground is the supervisor's to answer.
        let process = Command::new("/proc/self/exe")
            .args(arguments)
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        send(&mut &socket, &Request::Context(Box::new(context.clone())))?;
        let answers = BufReader::new(socket.try_clone()?);
        Ok(Self { process, socket: Arc::new(socket), answers })
    }

    fn play(
        &mut self,
        what: &Played,
        limit: Duration,
        started: &mut dyn FnMut(i32),
    ) -> io::Result<(Outcome, bool)> {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.socket.set_read_timeout(limit.checked_add(WORKER_SLACK))?;
        send(&mut &*self.socket, &Request::Play { what: what.clone(), limit_ms })?;
        loop {
            match receive(&mut self.answers)? {
                Some(Answer::Started { pid }) => started(pid),
                Some(Answer::Finished { outcome, stuck }) => return Ok((*outcome, stuck)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Ends the worker; how it ended, for a person. It never sleeps uninterruptibly, so this is quick.
    fn dismiss(mut self) -> String {
        // An error means that it is already gone.
        let _ = self.process.kill();
        self.ending()
    }

    fn ending(mut self) -> String {
        self.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for worker in self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let Worker { mut process, socket, answers } = worker;
            // It ends because we hang up.
            drop((socket, answers));
            let _ = process.wait();
        }
    }
}
