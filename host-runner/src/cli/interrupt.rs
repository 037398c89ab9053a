//! SIGINT and SIGTERM while a run is under way: the first one ends it in order, another one at once.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::{End, Stop};

/// Whether the run is to end before its time.
#[derive(Debug)]
pub(super) struct Interrupt {
    /// The number of the signal; 0 while none came.
    caught: Arc<AtomicUsize>,
    signals: Signals,
}

/// A signal that ends runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caught {
    Interrupt,
    Terminate,
}

/// What [`Interrupt`] has seen, for those who have to know.
#[derive(Debug, Clone)]
pub(super) struct Flag(Arc<AtomicUsize>);

impl Interrupt {
    /// From now on the first signal does not end the process.
    pub(super) fn catch() -> Result<Self, Stop> {
        Self::register().map_err(|error| Stop::Usage(format!("cannot catch signals: {error}")))
    }

    fn register() -> io::Result<Self> {
        let (caught, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // In this order: only what comes after the first one ends the process there and then.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register_usize(signal, Arc::clone(&caught), signal.unsigned_abs() as usize)?;
        }
        Ok(Self { caught, signals: Signals::new([SIGINT, SIGTERM])? })
    }

    pub(super) fn flag(&self) -> Flag {
        Flag(Arc::clone(&self.caught))
    }

    /// Does this when a signal comes, or has come, from a thread of its own.
    pub(super) fn then(mut self, act: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            if self.signals.forever().next().is_some() {
                act();
            }
        });
    }
}

impl Flag {
    pub(super) fn caught(&self) -> Option<Caught> {
        match i32::try_from(self.0.load(Ordering::SeqCst)) {
            Ok(SIGINT) => Some(Caught::Interrupt),
            Ok(SIGTERM) => Some(Caught::Terminate),
            _ => None,
        }
    }
}

impl Caught {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// What a shell says of a process that the signal has ended.
    pub(super) const fn end(self) -> End {
        match self {
            Self::Interrupt => End::Interrupted,
            Self::Terminate => End::Terminated,
        }
    }
}

/// Standard output, which libtest-mimic would fill with every test that is not played any more.
#[derive(Debug, Default)]
pub(super) struct Hush(Mutex<Option<OwnedFd>>);

impl Hush {
    /// What is printed from now on is lost. At worst, if that cannot be, it is not.
    pub(super) fn begin(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nowhere = OpenOptions::new().write(true).open("/dev/null");
        if let (Ok(stdout), Ok(nowhere)) = (io::stdout().as_fd().try_clone_to_owned(), nowhere)
            && nix::unistd::dup2_stdout(nowhere).is_ok()
        {
            *kept = Some(stdout);
        }
    }

    /// Standard output is as it was.
    pub(super) fn end(&self) {
        if let Some(stdout) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // There is no other place to say it.
            let _ = nix::unistd::dup2_stdout(stdout);
        }
    }
}
