//! Waits for a case's process: collects its result and its output, ends it when its time is up.

#![expect(unsafe_code, reason = "neither std nor nix has a stable pidfd_open")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::child::Child;
use super::wire::LONGEST_OUTCOME;

/// How much of its output is kept: the end, in bytes.
const OUTPUT_KEPT: usize = 8 * 1024;

/// How a case's process ended.
pub(super) struct End {
    /// Its exit status; `None` if it does not die.
    pub(super) status: Option<WaitStatus>,
    /// Whether it was ended because its time was up.
    pub(super) timed_out: bool,
    /// The result that it wrote; at most one byte longer than [`LONGEST_OUTCOME`].
    pub(super) result: Vec<u8>,
    /// The end of what it wrote to standard output and error.
    pub(super) output: Vec<u8>,
}

/// Waits until the process is gone, or for `limit`, then `end`s it and waits for `grace` more.
/// Fails only if the supervisor hangs up (`control` readable: it says nothing while a case runs).
pub(super) fn watch(
    child: &Child,
    control: BorrowedFd,
    limit: Duration,
    grace: Duration,
    end: &dyn Fn(Pid),
) -> io::Result<End> {
    let process = pidfd(child.pid)?;
    let (mut result, mut output) = (Stream::new(&child.result)?, Stream::new(&child.output)?);
    let mut kept = End { status: None, timed_out: false, result: Vec::new(), output: Vec::new() };
    let mut tail = VecDeque::new();
    let mut deadline = Instant::now().checked_add(limit);
    loop {
        let mut fds =
            vec![PollFd::new(process.as_fd(), PollFlags::POLLIN), PollFd::new(control, PollFlags::POLLIN)];
        fds.extend([&result, &output].into_iter().filter(|stream| stream.open).map(Stream::poll_fd));
        match poll(&mut fds, timeout(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd| fd.revents().is_some_and(|events| !events.is_empty());
        let (ended, hung_up) = (is_ready(&fds[0]), is_ready(&fds[1]));
        drop(fds);
        result.drain(|bytes| {
            let room = LONGEST_OUTCOME + 1 - kept.result.len();
            kept.result.extend(bytes.iter().take(room));
        })?;
        output.drain(|bytes| {
            tail.extend(bytes);
            tail.drain(..tail.len().saturating_sub(OUTPUT_KEPT));
        })?;
        if ended {
            kept.status = Some(waitpid(child.pid, None)?);
            break;
        }
        if hung_up {
            end(child.pid);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            if kept.timed_out {
                // It may have died between poll and now; a zombie would be left otherwise.
                kept.status = match waitpid(child.pid, Some(WaitPidFlag::WNOHANG))? {
                    WaitStatus::StillAlive => None,
                    status => Some(status),
                };
                break;
            }
            kept.timed_out = true;
            end(child.pid);
            deadline = Instant::now().checked_add(grace);
        }
    }
    kept.output = tail.into();
    Ok(kept)
}

/// Becomes readable when the process has ended, threads included.
fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes a process id and flags and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up: waking early would spin. poll's longest wait is 24 days; then it just looks again.
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

/// The reading end of a pipe, without blocking.
struct Stream<'a> {
    fd: &'a OwnedFd,
    open: bool,
}

impl<'a> Stream<'a> {
    fn new(fd: &'a OwnedFd) -> io::Result<Self> {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { fd, open: true })
    }

    fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)
    }

    /// Takes what is there, at most a few pipes full: a flood must not keep us from the deadline.
    fn drain(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..64 {
            if !self.open {
                break;
            }
            match nix::unistd::read(self.fd, &mut buffer) {
                Ok(0) => self.open = false,
                Ok(count) => take(&buffer[..count]),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
