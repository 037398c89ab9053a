//! A case's own process, from fork to exit.

#![expect(unsafe_code, reason = "fork and _exit have no safe form")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{self, ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout};

use crate::kernel_log::comm;
use crate::outcome::{Outcome, Verdict};

/// Private memory of a case's process, in bytes: guests have at most 64 MiB.
const MOST_DATA: u64 = 1 << 30;
/// Its address space: thread stacks and allocator arenas reserve much more than they use.
const MOST_ADDRESS_SPACE: u64 = 16 << 30;

/// The parent's ends of a case's process.
pub(super) struct Child {
    /// Its process id.
    pub(super) pid: Pid,
    /// Its outcome comes from here.
    pub(super) result: OwnedFd,
    /// Its standard output and error come from here.
    pub(super) output: OwnedFd,
}

/// Forks a process for one case. `close_first` are file descriptors that it must not keep.
pub(super) fn start(close_first: &dyn Fn(), play: impl FnOnce() -> Outcome) -> nix::Result<Child> {
    let flags = nix::fcntl::OFlag::O_CLOEXEC;
    let (result, result_write) = unistd::pipe2(flags)?;
    let (output, output_write) = unistd::pipe2(flags)?;
    let parent = unistd::getpid();
    // SAFETY: a worker has one thread, so no lock is held across the fork and the child may do
    // everything that the parent could.
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Child { pid: child, result, output }),
        ForkResult::Child => {
            drop((result, output));
            close_first();
            let status = live(parent, File::from(result_write), &output_write, play).is_err().into();
            // SAFETY: ends the process. Destructors and atexit handlers are the parent's business.
            unsafe { libc::_exit(status) }
        }
    }
}

fn live(parent: Pid, mut result: File, output: &OwnedFd, play: impl FnOnce() -> Outcome) -> io::Result<()> {
    restrict(parent, output)?;
    let outcome = catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Outcome::new(Verdict::Error, format!("the harness panicked: {text}"))
    });
    result.write_all(&serde_json::to_vec(&outcome)?)?;
    io::stdout().flush()
}

fn restrict(parent: Pid, output: &OwnedFd) -> io::Result<()> {
    // The worker has one thread, so "parent thread died" means "worker died".
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if unistd::getppid() != parent {
        return Err(io::Error::other("the worker is gone"));
    }
    // Threads inherit it, and processes that the case moves on to.
    prctl::set_name(&CString::new(comm(unistd::getpid().as_raw()))?)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_DATA, MOST_DATA, MOST_DATA)?;
    setrlimit(Resource::RLIMIT_AS, MOST_ADDRESS_SPACE, MOST_ADDRESS_SPACE)?;
    dup2_stdin(File::open("/dev/null")?.as_fd())?;
    dup2_stdout(output)?;
    dup2_stderr(output)?;
    Ok(())
}
