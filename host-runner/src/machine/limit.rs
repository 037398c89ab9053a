//! The time limit of KVM_RUN, imposed from outside the guest.
//!
//! A one-shot timer signals the vCPU's thread; its handler sets `kvm_run.immediate_exit`, so that
//! KVM_RUN returns EINTR whether the signal came before, during or after its entry. Nothing is armed
//! per run: when the timer fires early, because the guest has exited since, it is set again.
#![expect(unsafe_code, reason = "a signal handler that writes to kvm_run")]

use std::cell::Cell;
use std::ptr;
use std::sync::Once;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};

use crate::play::TargetError;

/// The limit's signal. Its handler does nothing but what this module says.
const SIGNAL: Signal = Signal::SIGALRM;

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
        Ok(Self { timer, thread_id, budget, deadline: Duration::ZERO, armed: false })
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
        let left = self.deadline.saturating_sub(now());
        if left.is_zero() {
            return Ok(false);
        }
        self.arm(left)?;
        Ok(true)
    }

    fn arm(&mut self, time: Duration) -> Result<(), TargetError> {
        // The coarse clock may lag by a tick; never fire before the deadline that it gave.
        let time = time + Duration::from_millis(10);
        self.timer.set(Expiration::OneShot(time.into()), TimerSetTimeFlags::empty()).map_err(failed)?;
        self.armed = true;
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

/// Monotonic time to a few milliseconds: a few nanoseconds to read, in a path as hot as any here.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from)
}

fn failed(error: nix::Error) -> TargetError {
    TargetError::Harness(format!("the time limit of KVM_RUN: {error}"))
}
