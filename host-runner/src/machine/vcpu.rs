//! One vCPU: KVM_RUN under a time limit, on whichever thread.
#![expect(unsafe_code, reason = "KVM_RUN and the kvm_run page")]

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use nix::errno::Errno;

use super::decode::{decode, io_range};
use super::limit::Limit;
use crate::bank::RunFields;
use crate::case::Bytes;
use crate::exit::Exit;
use crate::play::TargetError;

/// A vCPU.
pub struct Vcpu {
    /// Its index, and its local APIC's id.
    pub index: usize,
    /// KVM's handle for every ioctl but KVM_RUN.
    pub fd: VcpuFd,
    run: *mut kvm_run,
    run_size: usize,
    /// The host asked for one immediate exit: the timer must not clear the flag.
    immediate: AtomicBool,
    /// In KVM_RUN, or about to be: what waits to act on a running guest looks at this.
    pub running: AtomicBool,
    /// The thread that ran it last.
    pub tid: AtomicI32,
    /// How often it has been let into KVM_RUN.
    pub stays: AtomicU32,
    /// A disturbance that has ended may have left one signal pending.
    pub stray: AtomicBool,
    /// How many disturbances send it signals: their EINTRs are hidden from the steps.
    pub kickers: AtomicU32,
    /// The last exit left an instruction half done that only another KVM_RUN completes.
    owes_completion: AtomicBool,
}

// SAFETY: `run` points into the mapping that `fd` owns; the kernel serializes KVM_RUN on a vCPU, and
// every access here is a volatile copy of plain numbers.
unsafe impl Send for Vcpu {}
// SAFETY: as above.
unsafe impl Sync for Vcpu {}

impl Vcpu {
    /// Wraps KVM's handle; `run_size` is the VM's KVM_GET_VCPU_MMAP_SIZE.
    pub fn new(index: usize, mut fd: VcpuFd, run_size: usize) -> Self {
        let run: *mut kvm_run = fd.get_kvm_run();
        Self {
            index,
            fd,
            run,
            run_size,
            immediate: AtomicBool::new(false),
            running: AtomicBool::new(false),
            tid: AtomicI32::new(0),
            stays: AtomicU32::new(0),
            stray: AtomicBool::new(false),
            kickers: AtomicU32::new(0),
            owes_completion: AtomicBool::new(false),
        }
    }

    fn immediate_exit(&self) -> *mut u8 {
        // SAFETY: `run` is valid for the life of `self`; only an address is taken.
        unsafe { &raw mut (*self.run).immediate_exit }
    }

    /// KVM_RUN until the guest exits, is interrupted, or its time is over.
    pub fn run(&self, limit: &mut Limit) -> Result<Exit, TargetError> {
        self.tid.store(limit.thread(), Ordering::Release);
        self.stays.fetch_add(1, Ordering::AcqRel);
        // Before the flag is looked at, so that `end` either is seen here or interrupts what follows.
        self.running.store(true, Ordering::SeqCst);
        // A limit of another thread may have left it set.
        self.set_immediate_exit(self.immediate.load(Ordering::Acquire));
        // SAFETY: the byte is in the mapping that `self` owns, and `end` follows.
        let begun = unsafe { limit.begin(self.immediate_exit()) };
        let exit = begun.and_then(|()| self.run_under(limit));
        self.running.store(false, Ordering::Release);
        limit.end();
        if let Ok(exit) = &exit {
            self.owes_completion.store(needs_completion(exit), Ordering::Relaxed);
        }
        exit
    }

    fn run_under(&self, limit: &mut Limit) -> Result<Exit, TargetError> {
        loop {
            let Err(errno) = self.enter() else {
                // SAFETY: `run` is this vCPU's mapping of `run_size` bytes.
                return Ok(unsafe { decode(self.run, self.run_size) });
            };
            match errno {
                Errno::EINTR => {
                    if limit.fired() {
                        let asked = self.immediate.load(Ordering::Acquire);
                        if !asked {
                            self.set_immediate_exit(false);
                        }
                        if !limit.extend()? {
                            let milliseconds = limit.budget().as_millis() as u64;
                            return Err(TargetError::Timeout { milliseconds });
                        }
                        if !asked {
                            continue;
                        }
                    }
                    if self.immediate.swap(false, Ordering::AcqRel) {
                        self.set_immediate_exit(false);
                    } else if self.kickers.load(Ordering::Acquire) > 0
                        || self.stray.swap(false, Ordering::AcqRel)
                    {
                        super::signal::drain();
                        continue;
                    }
                    super::signal::drain();
                    return Ok(Exit::Intr {});
                }
                Errno::EAGAIN => return Ok(Exit::Again {}),
                Errno::EFAULT if self.exit_reason() == kvm_bindings::KVM_EXIT_MEMORY_FAULT => {
                    // SAFETY: as above.
                    return Ok(unsafe { decode(self.run, self.run_size) });
                }
                errno => {
                    let what = format!("KVM_RUN of vCPU {}", self.index);
                    return Err(TargetError::Ioctl { what, error: errno.to_string() });
                }
            }
        }
    }

    fn enter(&self) -> Result<(), Errno> {
        // SAFETY: KVM_RUN takes no argument; the handle is a vCPU's.
        let result = unsafe { nix::libc::ioctl(self.fd.as_raw_fd(), KVM_RUN, 0) };
        if result < 0 { Err(Errno::last()) } else { Ok(()) }
    }

    fn exit_reason(&self) -> u32 {
        // SAFETY: `run` is valid for the life of `self`.
        unsafe { (&raw const (*self.run).exit_reason).read_volatile() }
    }

    fn set_immediate_exit(&self, on: bool) {
        // SAFETY: a byte of this vCPU's mapping.
        unsafe { self.immediate_exit().write_volatile(on.into()) };
    }

    /// The next KVM_RUN completes what is pending and returns EINTR.
    pub fn ask_immediate_exit(&self) {
        self.immediate.store(true, Ordering::Release);
        self.set_immediate_exit(true);
    }

    /// KVM_RUN has returned for another reason than the immediate exit that was asked for.
    pub fn withdraw_immediate_exit(&self) {
        self.immediate.store(false, Ordering::Release);
        self.set_immediate_exit(false);
    }

    /// KVM_INTERRUPT, which kvm-ioctls does not have.
    pub fn inject(&self, vector: u8) -> Result<(), Errno> {
        let interrupt = kvm_bindings::kvm_interrupt { irq: vector.into() };
        // SAFETY: the ioctl reads a kvm_interrupt from a live local.
        let result = unsafe { nix::libc::ioctl(self.fd.as_raw_fd(), KVM_INTERRUPT, &raw const interrupt) };
        Errno::result(result).map(drop)
    }

    /// Makes a KVM_RUN on another thread, and every later one, return for good.
    pub fn end(&self) {
        self.immediate.store(true, Ordering::Release);
        self.set_immediate_exit(true);
        if self.running.load(Ordering::Acquire) {
            // The thread may just have ended; then there is nothing to interrupt.
            let _ = super::limit::interrupt(self.tid.load(Ordering::Acquire));
        }
    }

    /// Gives the guest the data that the last exit owes it.
    pub fn reply(&self, data: &Bytes, refuse: bool) -> Result<(), TargetError> {
        // SAFETY: `run` is this vCPU's mapping; a copy of the union is taken, any bit pattern is valid.
        let mut with = unsafe { (&raw const (*self.run).__bindgen_anon_1).read_volatile() };
        match self.exit_reason() {
            kvm_bindings::KVM_EXIT_IO => {
                // SAFETY: the exit reason says that `io` is meant.
                let io = unsafe { with.io };
                let range = io_range(&io, self.run_size).filter(|range| range.len() == data.0.len());
                let range = range.ok_or_else(|| mismatch(data.0.len()))?;
                // SAFETY: `io_range` keeps the range inside the mapping.
                unsafe {
                    let to = self.run.cast::<u8>().add(range.start);
                    std::ptr::copy_nonoverlapping(data.0.as_ptr(), to, range.len());
                }
                return Ok(());
            }
            kvm_bindings::KVM_EXIT_MMIO => {
                // SAFETY: the exit reason says that `mmio` is meant.
                let mmio = unsafe { &mut with.mmio };
                mmio.data
                    .get_mut(..data.0.len())
                    .ok_or_else(|| mismatch(data.0.len()))?
                    .copy_from_slice(&data.0);
            }
            kvm_bindings::KVM_EXIT_X86_RDMSR | kvm_bindings::KVM_EXIT_X86_WRMSR => {
                // SAFETY: the exit reason says that `msr` is meant.
                let msr = unsafe { &mut with.msr };
                msr.error = refuse.into();
                if let Some(number) = data.number().filter(|_| !data.0.is_empty()) {
                    msr.data = number;
                }
            }
            _ => return Err(TargetError::Harness("the last exit takes no reply".into())),
        }
        // SAFETY: as for the read above; the vCPU does not run now.
        unsafe { (&raw mut (*self.run).__bindgen_anon_1).write_volatile(with) };
        Ok(())
    }

    /// The fields of `kvm_run` outside the union.
    pub fn run_fields(&self) -> RunFields {
        // SAFETY: plain numbers in this vCPU's mapping.
        unsafe {
            let run = self.run;
            RunFields {
                request_interrupt_window: (&raw const (*run).request_interrupt_window).read_volatile(),
                ready_for_interrupt_injection: (&raw const (*run).ready_for_interrupt_injection)
                    .read_volatile(),
                if_flag: (&raw const (*run).if_flag).read_volatile(),
                cr8: (&raw const (*run).cr8).read_volatile(),
                apic_base: (&raw const (*run).apic_base).read_volatile(),
                flags: (&raw const (*run).flags).read_volatile(),
            }
        }
    }

    /// Writes the fields of `kvm_run` that KVM takes from the host.
    pub fn set_run_fields(&self, fields: &RunFields) {
        // SAFETY: plain numbers in this vCPU's mapping; the vCPU does not run now.
        unsafe {
            (&raw mut (*self.run).request_interrupt_window).write_volatile(fields.request_interrupt_window);
            (&raw mut (*self.run).cr8).write_volatile(fields.cr8);
        }
    }

    /// Whether the last exit left an instruction half done that only another KVM_RUN completes.
    pub fn owes_completion(&self) -> bool {
        self.owes_completion.load(Ordering::Relaxed)
    }
}

/// Port I/O, MMIO and MSR exits are completed by the next KVM_RUN (KVM API, "The kvm_run structure").
fn needs_completion(exit: &Exit) -> bool {
    matches!(
        exit,
        Exit::Io { .. }
            | Exit::Mmio { .. }
            | Exit::Rdmsr { .. }
            | Exit::Wrmsr { .. }
            | Exit::Hypercall { .. }
    )
}

fn mismatch(len: usize) -> TargetError {
    TargetError::Harness(format!("a reply of {len} bytes does not fit what the exit owes"))
}

/// `_IO(KVMIO, 0x80)`.
const KVM_RUN: nix::libc::c_ulong = 0xae80;

/// `_IOW(KVMIO, 0x86, struct kvm_interrupt)`.
const KVM_INTERRUPT: nix::libc::c_ulong = 0x4004_ae86;
