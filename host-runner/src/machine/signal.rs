//! The signal that interrupts KVM_RUN from outside: pending and blocked everywhere but inside KVM_RUN.
//!
//! That is KVM_SET_SIGNAL_MASK's purpose (KVM API 4.21): a signal sent before, during or after the
//! ioctl's entry always makes it return EINTR, and no handler ever runs.
#![expect(unsafe_code, reason = "an ioctl and a system call that the libraries do not wrap")]

use std::os::fd::AsRawFd;

use kvm_ioctls::VcpuFd;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use crate::play::TargetError;

const SIGNAL: Signal = Signal::SIGUSR1;

fn set() -> SigSet {
    let mut set = SigSet::empty();
    set.add(SIGNAL);
    set
}

/// Blocks the signal in the calling thread and those that it will start.
pub fn block() -> Result<(), TargetError> {
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set()), None).map_err(failed)
}

/// Lets the signal through while `vcpu` is in KVM_RUN.
pub fn unblock_in_run(vcpu: &VcpuFd) -> Result<(), TargetError> {
    /// `struct kvm_signal_mask` with the kernel's signal set of 8 bytes behind it.
    #[repr(C, packed)]
    struct Mask {
        len: u32,
        blocked: u64,
    }
    // Nothing is blocked during KVM_RUN.
    let mask = Mask { len: 8, blocked: 0 };
    // SAFETY: the ioctl reads a kvm_signal_mask, whose layout `Mask` has, from a live local.
    let result = unsafe { nix::libc::ioctl(vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK, &raw const mask) };
    nix::errno::Errno::result(result).map(drop).map_err(failed)
}

/// Sends the signal to a thread of this process.
pub fn send(tid: i32) -> Result<(), TargetError> {
    // SAFETY: tgkill takes three numbers.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_tgkill, std::process::id(), tid, SIGNAL as i32) };
    nix::errno::Errno::result(result).map(drop).map_err(failed)
}

/// Takes a pending signal away after KVM_RUN returned EINTR for it.
pub fn drain() {
    let none = nix::libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: reads a signal set and a timeout from live locals; the result pointer may be null.
    unsafe { nix::libc::sigtimedwait(set().as_ref(), std::ptr::null_mut(), &raw const none) };
}

fn failed(error: nix::Error) -> TargetError {
    TargetError::Harness(format!("the signal for KVM_RUN: {error}"))
}

/// `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`: the struct's flexible part does not count.
const KVM_SET_SIGNAL_MASK: nix::libc::c_ulong = 0x4004_ae8b;
