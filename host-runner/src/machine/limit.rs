//! The time limit of KVM_RUN, imposed from outside the guest.
//!
//! A one-shot timer signals the vCPU's thread; its handler sets `kvm_run.immediate_exit`, so that
//! KVM_RUN returns EINTR whether the signal came before, during or after its entry. Nothing is armed
//! per run: when the timer fires early, because the guest has exited since, it is set again.
//!
//! What the thread has spent waiting for a CPU does not count: how busy the host is says nothing about the guest.
#![expect(unsafe_code, reason = "a signal handler that writes to kvm_run")]

use std::cell::Cell;
use std::fs;
use std::ptr;
use std::sync::Once;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};

use crate::play::TargetError;

/// The limit's signal. Its handler does nothing but what this module says.
const SIGNAL: Signal = Signal::SIGALRM;

/// How many times its budget a stay may get in addition, for time in which it did not run.
const MOST_WAITING: u32 = 20;
/// Less waiting than this is not worth another look.
const LEAST_WAITING: Duration = Duration::from_millis(1);

thread_local! {
    /// What the handler may write to: `immediate_exit` of the vCPU that this thread runs.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
    /// Set by the handler.
    static FIRED: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn on_signal(_: nix::libc::c_int) {
    FIRED.set(true);
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: non-null only between `begin` and `end`, while the vCPU's mapping lives.
        unsafe { flag.write_volatile(1) };
    }
}

/// A limit on the calling thread's stays in KVM_RUN.
pub struct Limit {
    timer: Timer,
    thread_id: i32,
    budget: Duration,
    deadline: Duration,
    /// What this stay has got beyond its budget.
    granted: Duration,
    /// How long the thread had waited for a CPU, in all, when the timer was set.
    waited: Duration,
    armed: bool,
}

impl Limit {
    /// A limit of `budget` for each stay of the calling thread.
    pub fn new(budget: Duration) -> Result<Self, TargetError> {
        static HANDLER: Once = Once::new();
        let mut installed = Ok(());
        HANDLER.call_once(|| {
            let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
            // SAFETY: the handler only stores to a thread-local and to a byte that it knows to be valid.
            installed = unsafe { sigaction(SIGNAL, &action) }.map(|_| ());
        });
        installed.map_err(failed)?;
        let thread_id = nix::unistd::gettid().as_raw();
        let notify = SigevNotify::SigevThreadId { signal: SIGNAL, thread_id, si_value: 0 };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify)).map_err(failed)?;
        FIRED.set(false);
        let [deadline, granted, waited] = [Duration::ZERO; 3];
        Ok(Self { timer, thread_id, budget, deadline, granted, waited, armed: false })
    }

    /// The time that one stay may take.
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// The thread whose stays this limits.
    pub fn thread(&self) -> i32 {
        self.thread_id
    }

    /// A stay begins. `immediate_exit` is the byte in the `kvm_run` of the vCPU that will run.
    ///
    /// # Safety
    /// The byte stays valid until [`Limit::end`].
    pub unsafe fn begin(&mut self, immediate_exit: *mut u8) -> Result<(), TargetError> {
        IMMEDIATE_EXIT.set(immediate_exit);
        if FIRED.get() {
            // The timer fired between two stays, when there was nothing to interrupt: KVM_RUN returns at
            // once, and `extend` sets the timer again.
            // SAFETY: the caller's promise.
            unsafe { immediate_exit.write_volatile(1) };
        }
        self.deadline = now() + self.budget;
        self.granted = Duration::ZERO;
        if !self.armed {
            self.arm(self.budget)?;
        }
        Ok(())
    }

    /// A stay ends.
    #[expect(clippy::unused_self, reason = "ends what `begin` began")]
    pub fn end(&self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }

    /// After EINTR: whether the timer was the reason.
    #[expect(clippy::unused_self, reason = "the flag is of the thread whose limit this is")]
    pub fn fired(&self) -> bool {
        FIRED.replace(false)
    }

    /// After the timer fired: sets it for the rest of this stay; `false` if there is no rest.
    pub fn extend(&mut self) -> Result<bool, TargetError> {
        self.armed = false;
        let mut left = self.deadline.saturating_sub(now());
        if left.is_zero() {
            left = self.grant(waited().saturating_sub(self.waited));
        }
        if left.is_zero() {
            return Ok(false);
        }
        self.arm(left)?;
        Ok(true)
    }

    /// More time for a stay that has used up its own, of which its thread has waited so long for a CPU.
    fn grant(&mut self, waited: Duration) -> Duration {
        let room = self.budget.saturating_mul(MOST_WAITING).saturating_sub(self.granted);
        let more = waited.min(room);
        if more < LEAST_WAITING {
            return Duration::ZERO;
        }
        self.granted += more;
        self.deadline = now() + more;
        more
    }

    fn arm(&mut self, time: Duration) -> Result<(), TargetError> {
        // The coarse clock may lag by a tick; never fire before the deadline that it gave.
        let time = time + Duration::from_millis(10);
        self.timer.set(Expiration::OneShot(time.into()), TimerSetTimeFlags::empty()).map_err(failed)?;
        self.armed = true;
        self.waited = waited();
        Ok(())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.end();
    }
}

/// Interrupts another thread's stay as its timer would.
pub fn interrupt(tid: i32) -> Result<(), nix::Error> {
    // SAFETY: tgkill takes three numbers.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_tgkill, std::process::id(), tid, SIGNAL as i32) };
    nix::errno::Errno::result(result).map(drop)
}

/// How long the calling thread has been ready to run without a CPU, since its start; zero where the kernel does not tell
/// (CONFIG_SCHED_INFO).
fn waited() -> Duration {
    fs::read_to_string("/proc/thread-self/schedstat").map_or(Duration::ZERO, |text| waiting_in(&text))
}

/// The second number of schedstat: nanoseconds on a run queue (Documentation/scheduler/sched-stats.rst).
fn waiting_in(schedstat: &str) -> Duration {
    let number = schedstat.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(number.unwrap_or(0))
}

/// Monotonic time to a few milliseconds: a few nanoseconds to read, in a path as hot as any here.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from)
}

fn failed(error: nix::Error) -> TargetError {
    TargetError::Harness(format!("the time limit of KVM_RUN: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn time_without_a_cpu_is_given_back_within_bounds() {
        let mut limit = Limit::new(100 * MS).unwrap();
        assert_eq!(limit.grant(Duration::ZERO), Duration::ZERO);
        assert_eq!(limit.grant(MS / 2), Duration::ZERO);
        let before = now();
        assert_eq!(limit.grant(300 * MS), 300 * MS);
        assert!(limit.deadline >= before + 300 * MS);
        // However long it waits, a stay ends.
        assert_eq!(limit.grant(Duration::from_hours(1)), 1700 * MS);
        assert_eq!(limit.grant(Duration::from_hours(1)), Duration::ZERO);
        let mut byte = 0;
        // SAFETY: the byte outlives the stay.
        unsafe { limit.begin(&raw mut byte) }.unwrap();
        assert_eq!(limit.grant(5 * MS), 5 * MS, "each stay has its own");
        limit.end();
    }

    #[test]
    fn the_kernel_tells_how_long_a_thread_has_waited() {
        assert_eq!(waiting_in("95358 339554 2\n"), Duration::from_nanos(339_554));
        assert_eq!(waiting_in(""), Duration::ZERO);
        assert_eq!(waiting_in("1 x 2"), Duration::ZERO);
    }
}
