//! What the host does to a guest between its exits, or while it runs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use kvm_bindings::{kvm_guest_debug, kvm_guest_debug_arch, kvm_msi};
use kvm_ioctls::VmFd;

use super::banks::{self, failed};
use super::disturb::Disturbance;
use super::memory::{Change, Memory};
use super::seat::Seat;
use super::vcpu::Vcpu;
use super::{Machine, coalesced, msr_filter, poisoned, signal};
use crate::bank::Bank;
use crate::case::{Access, Action, Breakpoint, Delivery, MsrFilter, Places};
use crate::play::{Target, TargetError};

impl Machine<'_> {
    /// Does a host action.
    pub fn perform(&mut self, action: &Action, places: &dyn Places) -> Result<(), TargetError> {
        match action {
            Action::Restart { cpu, at } => {
                let entry = self.resolve(at, places)?;
                self.start(*cpu, entry)?;
                match banks::write(self.vcpu(*cpu)?, Bank::Regs, &[("rip", entry)])? {
                    None => Ok(()),
                    Some(errno) => Err(refused("KVM_SET_REGS", errno)),
                }
            }
            Action::Interrupt { cpu, vector } => interrupt(self.vcpu(*cpu)?, *vector),
            Action::Nmi { cpu } => self.vcpu(*cpu)?.fd.nmi().map_err(failed("KVM_NMI")),
            Action::Smi { cpu } => self.vcpu(*cpu)?.fd.smi().map_err(failed("KVM_SMI")),
            Action::Msi { address, data, when } => {
                let msi = kvm_msi {
                    address_lo: *address as u32,
                    address_hi: (*address >> 32) as u32,
                    data: *data,
                    ..kvm_msi::default()
                };
                self.when(*when, move |vm, _| vm.signal_msi(msi).map(drop).map_err(failed("KVM_SIGNAL_MSI")))
            }
            Action::IrqLine { gsi, level, when } => {
                let (gsi, level) = (*gsi, *level);
                self.when(*when, move |vm, _| vm.set_irq_line(gsi, level).map_err(failed("KVM_IRQ_LINE")))
            }
            Action::Signal { cpu, when } => self.signal(*cpu, *when),
            Action::ImmediateExit { cpu } => {
                self.vcpu(*cpu)?.ask_immediate_exit();
                Ok(())
            }
            Action::GuestDebug { cpu, single_step, block_irq, breakpoints } => {
                self.guest_debug(*cpu, *single_step, *block_irq, breakpoints, places)
            }
            Action::WriteMemory { at, size, data } => {
                let gpa = self.resolve(at, places)?;
                let bytes = data.stored(*size);
                let bytes =
                    bytes.ok_or_else(|| TargetError::Harness(format!("{data} does not fit {size} bytes")))?;
                if self.memory()?.write(gpa, &bytes.0) {
                    Ok(())
                } else {
                    Err(TargetError::Harness(format!("no memslot at {gpa:#x} to write to")))
                }
            }
            Action::SlotCreate { slot, when } => {
                let slot = slot.clone();
                self.when(*when, move |vm, memory| memory.write().map_err(|_| poisoned())?.create(vm, &slot))
            }
            Action::SlotDelete { slot, when } => {
                let slot = slot.clone();
                self.when(*when, move |vm, memory| memory.write().map_err(|_| poisoned())?.delete(vm, &slot))
            }
            Action::SlotMove { slot, gpa } => {
                self.memory.write().map_err(|_| poisoned())?.relocate(&self.vm, slot, *gpa)
            }
            Action::SlotChange { slot, gpa, pages, log_dirty, read_only, errno } => {
                let change =
                    Change { gpa: *gpa, pages: *pages, log_dirty: *log_dirty, read_only: *read_only };
                let mut memory = self.memory.write().map_err(|_| poisoned())?;
                let refused = memory.change(&self.vm, slot, &change)?;
                as_expected("KVM_SET_USER_MEMORY_REGION", refused, errno.as_deref())
            }
            Action::MsrFilter { default, ranges, errno, when } => {
                let filter = MsrFilter { default: *default, ranges: ranges.clone() };
                if errno.is_none() {
                    self.msr_filter = Some(filter.clone());
                }
                let errno = errno.clone();
                self.when(*when, move |vm, _| {
                    let refused = msr_filter::set(vm, &filter).err().map(kvm_ioctls::Error::errno);
                    as_expected("KVM_X86_SET_MSR_FILTER", refused, errno.as_deref())
                })
            }
            Action::DirtyPages { slot, pages } => {
                let observed = self.memory()?.dirty_pages(&self.vm, slot)?;
                if observed == *pages {
                    return Ok(());
                }
                Err(TargetError::Deviates {
                    expected: format!("dirty pages {pages:?}"),
                    observed: format!("{observed:?}"),
                })
            }
            Action::CoalescedRing { address, size, data, .. } => {
                let vcpu = Arc::clone(self.vcpu(0)?);
                let page = coalesced::page_offset(&self.host.kvm)?;
                let ring = match &mut self.ring {
                    Some(ring) => ring,
                    none => none.insert(coalesced::Ring::map(&vcpu.fd, page)?),
                };
                ring.expect(*address, *size, data)
            }
            Action::NewThread { cpu } => {
                let seat = Seat::new(Arc::clone(self.vcpu(*cpu)?), self.budget, false)?;
                self.seats[*cpu] = Some(seat);
                Ok(())
            }
            Action::Background { cpu } => {
                let mut seat = Seat::new(Arc::clone(self.vcpu(*cpu)?), self.budget, true)?;
                seat.go()?;
                self.seats[*cpu] = Some(seat);
                Ok(())
            }
            Action::SaveRestore => self.save_restore(),
            Action::Disturb { with } => with.iter().try_for_each(|churn| {
                self.disturbances.push(Disturbance::start(*churn, self.scene())?);
                Ok(())
            }),
            Action::Quiet => self.disturbances.drain(..).try_for_each(Disturbance::end),
        }
    }

    /// Signals a vCPU's thread.
    pub(super) fn signal(&mut self, cpu: usize, when: Delivery) -> Result<(), TargetError> {
        let vcpu = self.vcpu(cpu)?;
        signal::unblock_in_run(&vcpu.fd)?;
        vcpu.stray.store(false, Ordering::Release);
        match when {
            Delivery::Now => signal::send(match &self.seats[cpu] {
                Some(seat) => seat.tid,
                None => nix::unistd::gettid().as_raw(),
            }),
            Delivery::Running => self.later(cpu, |vcpu| signal::send(vcpu.tid.load(Ordering::Acquire))),
        }
    }

    /// Does `what` from another thread once `cpu` is in KVM_RUN; the next exit waits for it. If the vCPU does not stay
    /// there for so long, that exit says more than this does, and only a case that holds otherwise is at fault.
    fn later<F>(&mut self, cpu: usize, what: F) -> Result<(), TargetError>
    where
        F: FnOnce(&Vcpu) -> Result<(), TargetError> + Send + 'static,
    {
        let vcpu = Arc::clone(self.vcpu(cpu)?);
        let patience = self.budget;
        let stays = vcpu.stays.load(Ordering::Acquire);
        let body = move || {
            // How long the guest has been running is not promised, only that it has been let in.
            let step = Duration::from_micros(50);
            let mut waited = Duration::ZERO;
            let running = || vcpu.running.load(Ordering::Acquire);
            while !running() && vcpu.stays.load(Ordering::Acquire) == stays && waited < patience {
                std::thread::sleep(step);
                waited += step;
            }
            std::thread::sleep(step * 4);
            let met = running();
            what(&vcpu)?;
            Ok((!met).then_some(vcpu.index))
        };
        let thread = std::thread::Builder::new().spawn(body);
        self.later.push(thread.map_err(|error| TargetError::Harness(format!("a thread: {error}")))?);
        Ok(())
    }

    /// Waits for the actions that were to meet a running guest.
    pub(super) fn join_later(&mut self) -> Result<(), TargetError> {
        for thread in self.later.drain(..) {
            let panicked = |_| Err(TargetError::Harness("a delayed action panicked".into()));
            self.missed = thread.join().unwrap_or_else(panicked)?.or(self.missed);
        }
        Ok(())
    }

    fn when<F>(&mut self, delivery: Delivery, act: F) -> Result<(), TargetError>
    where
        F: FnOnce(&VmFd, &RwLock<Memory>) -> Result<(), TargetError> + Send + 'static,
    {
        let (vm, memory) = (Arc::clone(&self.vm), Arc::clone(&self.memory));
        match delivery {
            Delivery::Now => act(&vm, &memory),
            Delivery::Running => self.later(0, move |_| act(&vm, &memory)),
        }
    }

    fn guest_debug(
        &mut self,
        cpu: usize,
        single_step: bool,
        block_irq: bool,
        breakpoints: &[Breakpoint],
        places: &dyn Places,
    ) -> Result<(), TargetError> {
        use kvm_bindings::{
            KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
        };
        let mut arch = kvm_guest_debug_arch::default();
        // DR7: enable bits in pairs, then R/W and LEN in fours (SDM vol. 3, "Debug Control Register").
        let mut dr7 = 0x400_u64;
        for (index, breakpoint) in breakpoints.iter().enumerate().take(4) {
            arch.debugreg[index] = self.resolve(&breakpoint.at, places)?;
            let access = match breakpoint.on {
                Access::Execute => 0b00,
                Access::Write => 0b01,
                Access::Access => 0b11,
            };
            let len = match breakpoint.size {
                1 => 0b00,
                2 => 0b01,
                8 => 0b10,
                _ => 0b11,
            };
            dr7 |= 1 << (2 * index + 1) | (access | len << 2) << (16 + 4 * index);
        }
        let mut control = 0;
        if single_step {
            control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
        }
        if block_irq {
            control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ;
        }
        if !breakpoints.is_empty() {
            control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
            arch.debugreg[7] = dr7;
        }
        let debug = kvm_guest_debug { control, arch, ..kvm_guest_debug::default() };
        self.vcpu(cpu)?.fd.set_guest_debug(&debug).map_err(failed("KVM_SET_GUEST_DEBUG"))?;
        self.debug[cpu] = Some(debug);
        Ok(())
    }
}

fn interrupt(vcpu: &Vcpu, vector: u8) -> Result<(), TargetError> {
    match vcpu.inject(vector) {
        Ok(()) => Ok(()),
        Err(errno) => Err(refused("KVM_INTERRUPT", errno as i32)),
    }
}

/// Whether KVM refused what it was to refuse, with that errno, and took what it was to take.
fn as_expected(what: &str, refused: Option<i32>, errno: Option<&str>) -> Result<(), TargetError> {
    let refused = refused.map(|errno| format!("{:?}", nix::Error::from_raw(errno)));
    if refused.as_deref() == errno {
        return Ok(());
    }
    let shown = |errno: Option<&str>| match errno {
        Some(errno) => format!("{what} refused with {errno}"),
        None => format!("{what} done"),
    };
    Err(TargetError::Deviates { expected: shown(errno), observed: shown(refused.as_deref()) })
}

fn refused(what: &str, errno: i32) -> TargetError {
    TargetError::Ioctl { what: what.into(), error: nix::Error::from_raw(errno).to_string() }
}
