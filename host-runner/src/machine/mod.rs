//! A live VM: memory, vCPUs, interrupt controllers, CPUID. Built from a case's [`MachineSpec`] and a
//! payload's image; plays the part of [`Target`]. It knows nothing of TOML or of expectations.

mod act;
mod apic_page;
mod banks;
mod build;
mod coalesced;
mod decode;
mod dirty;
mod disturb;
mod limit;
mod memory;
mod msr_filter;
mod perturb;
mod relocate;
mod saved_msrs;
mod seat;
mod signal;
mod smram;
mod snapshot;
pub mod speed;
mod start;
mod state_ioctls;
mod vcpu;

use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_bindings::{CpuId, kvm_guest_debug};
use kvm_ioctls::{Kvm, VmFd};

use self::banks::failed;
use self::build::{filter_msrs, load, new_vcpus, new_vm};
use self::disturb::Disturbance;
use self::limit::Limit;
use self::memory::Memory;
pub use self::memory::PAGE;
use self::seat::Seat;
pub use self::snapshot::Piece;
use self::vcpu::Vcpu;
use crate::bank::Bank;
use crate::case::{Action, Bytes, MachineSpec, MsrFilter, Places, Start};
use crate::exit::Exit;
use crate::payload::Image;
use crate::play::{Perturb, Target, TargetError};

/// What every machine on this host shares: made once, before any case.
pub struct Host {
    /// `/dev/kvm`.
    pub kvm: Kvm,
    /// KVM_GET_SUPPORTED_CPUID.
    pub cpuid: CpuId,
    /// The backend is kvm_intel, which needs a TSS and an identity map for real mode without
    /// unrestricted guest (KVM API 4.23, 4.41).
    pub intel: bool,
    /// What saving and restoring a VM leaves out, to show that somebody notices.
    pub forget: Option<Piece>,
}

/// A VM in which a case is played.
pub struct Machine<'h> {
    // Dropped in this order: threads before vCPUs, vCPUs, what is mapped of them, and VM before memory.
    later: Vec<JoinHandle<Result<Option<usize>, TargetError>>>,
    /// The vCPU that was not in KVM_RUN when an action was to meet it there.
    missed: Option<usize>,
    disturbances: Vec<Disturbance>,
    /// The disturbances of variations.
    storms: Vec<Disturbance>,
    seats: Vec<Option<Seat>>,
    limit: Limit,
    ring: Option<coalesced::Ring>,
    /// The vCPUs' dirty rings, once they have been asked for.
    rings: Vec<dirty::Ring>,
    vcpus: Vec<Arc<Vcpu>>,
    vm: Arc<VmFd>,
    memory: Arc<RwLock<Memory>>,
    host: &'h Host,
    spec: &'h MachineSpec,
    image: &'h Image,
    /// Where vCPU 0 starts, for starts that are not long mode.
    entry: u64,
    budget: Duration,
    /// An exit that came of completing what was half done: the next run of that vCPU returns it.
    early: Option<(usize, Exit)>,
    /// Whether there are coalesced zones and ioeventfds that no case asks for.
    bystanders: bool,
    /// What KVM_SET_GUEST_DEBUG was last told, by vCPU: no ioctl reads it back.
    debug: Vec<Option<kvm_guest_debug>>,
    /// The MSR filter in force, which no ioctl reads back either.
    msr_filter: Option<MsrFilter>,
}

impl<'h> Machine<'h> {
    /// Builds the VM and loads the payload. `entry` is the start label's address, unused in long mode;
    /// `params` are the boot parameters' bytes; `budget` bounds each stay in KVM_RUN.
    pub fn new(
        host: &'h Host,
        spec: &'h MachineSpec,
        image: &'h Image,
        params: &[u8],
        entry: u64,
        budget: Duration,
    ) -> Result<Self, TargetError> {
        signal::block()?;
        let memory = Memory::new(u64::from(spec.memory_kib) << 10, spec.smm, &spec.slots)?;
        for chunk in &image.chunks {
            load(&memory, chunk.gpa, &chunk.bytes)?;
        }
        if spec.forced_emulation {
            build::force_emulation(&memory, &image.emulable)?;
        }
        load(&memory, image.params_gpa, params)?;
        let vm = new_vm(host, spec)?;
        memory.register(&vm)?;
        let vcpus = new_vcpus(host, spec, &vm)?;
        filter_msrs(&vm, spec.msr_filter.as_ref())?;
        let machine = Self {
            later: Vec::new(),
            missed: None,
            disturbances: Vec::new(),
            storms: Vec::new(),
            seats: vcpus.iter().map(|_| None).collect(),
            limit: Limit::new(budget)?,
            vcpus,
            vm: Arc::new(vm),
            memory: Arc::new(RwLock::new(memory)),
            host,
            spec,
            image,
            entry,
            budget,
            ring: None,
            early: None,
            rings: Vec::new(),
            bystanders: false,
            debug: vec![None; spec.vcpus as usize],
            msr_filter: spec.msr_filter.clone(),
        };
        machine.start(0, machine.entry)?;
        Ok(machine)
    }

    /// Puts a vCPU into the machine's start state; `entry` is where it starts unless in long mode.
    fn start(&self, cpu: usize, entry: u64) -> Result<(), TargetError> {
        let vcpu = self.vcpu(cpu)?;
        let mut sregs = vcpu.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        let regs = match self.spec.start {
            Start::Long => start::long(&self.image.start, &mut sregs),
            Start::Protected => start::protected(entry, self.image.stack.end, &mut sregs),
            Start::Real => start::real(entry, &mut sregs),
        };
        vcpu.fd.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS of the start state"))?;
        vcpu.fd.set_regs(&regs).map_err(failed("KVM_SET_REGS of the start state"))
    }

    fn vcpu(&self, cpu: usize) -> Result<&Arc<Vcpu>, TargetError> {
        self.vcpus.get(cpu).ok_or_else(|| TargetError::Harness(format!("there is no vCPU {cpu}")))
    }

    fn memory(&self) -> Result<std::sync::RwLockReadGuard<'_, Memory>, TargetError> {
        self.memory.read().map_err(|_| poisoned())
    }
}

impl Target for Machine<'_> {
    fn run(&mut self, cpu: usize) -> Result<Exit, TargetError> {
        if let Some((_, exit)) = self.early.take_if(|(of, _)| *of == cpu) {
            return Ok(exit);
        }
        for (index, seat) in self.seats.iter_mut().enumerate() {
            if let Some(seat) = seat.as_mut().filter(|seat| seat.background && index != cpu) {
                seat.go()?;
            }
        }
        let exit = match self.seats.get_mut(cpu) {
            Some(Some(seat)) => seat.exit(),
            Some(None) => self.vcpus[cpu].run(&mut self.limit),
            None => return self.vcpu(cpu).map(|_| Exit::Again {}),
        };
        if !self.later.is_empty() {
            self.join_later()?;
        }
        exit
    }

    fn run_from_threads(&mut self, cpu: usize, threads: u32) -> Result<Vec<Exit>, TargetError> {
        let vcpu = self.vcpu(cpu)?;
        let budget = self.budget;
        // KVM takes one thread at a time as well, but lets go before the exit has been read: the next
        // KVM_RUN would overwrite it in the shared `kvm_run`.
        let turn = Mutex::new(());
        std::thread::scope(|scope| {
            let run = || {
                let _turn = turn.lock().map_err(|_| TargetError::Harness("a vCPU thread panicked".into()))?;
                Limit::new(budget).and_then(|mut limit| vcpu.run(&mut limit))
            };
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            let exits = running.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(TargetError::Harness("a vCPU thread panicked".into())))
            });
            exits.collect()
        })
    }

    fn reply(&mut self, cpu: usize, data: &Bytes, refuse: bool) -> Result<(), TargetError> {
        self.vcpu(cpu)?.reply(data, refuse)
    }

    fn bank(&mut self, cpu: usize, bank: Bank, names: &[&str]) -> Result<Vec<u64>, TargetError> {
        if bank == Bank::Smram {
            return smram::read(self.vcpu(cpu)?, &*self.memory()?, names);
        }
        banks::read(self.vcpu(cpu)?, bank, names)
    }

    fn set_bank(
        &mut self,
        cpu: usize,
        bank: Bank,
        values: &[(&str, u64)],
    ) -> Result<Option<i32>, TargetError> {
        if bank == Bank::Smram {
            return smram::write(self.vcpu(cpu)?, &*self.memory()?, values).map(|()| None);
        }
        banks::write(self.vcpu(cpu)?, bank, values)
    }

    fn act(&mut self, action: &Action, places: &dyn Places) -> Result<(), TargetError> {
        self.perform(action, places)
    }

    fn perturb(&mut self, what: Perturb) -> Result<bool, TargetError> {
        self.disturbed(what)
    }

    fn finish(&mut self) -> Result<Vec<(usize, Exit)>, TargetError> {
        self.join_later()?;
        if let Some(cpu) = self.missed.take() {
            return Err(TargetError::Harness(format!(
                "an action was to meet vCPU {cpu} in KVM_RUN, which did not stay there: let the guest wait for it"
            )));
        }
        self.disturbances.drain(..).try_for_each(Disturbance::end)?;
        let seats = self.seats.iter_mut().enumerate();
        let unclaimed = seats.filter_map(|(cpu, seat)| Some((cpu, seat.as_mut()?.unclaimed()?)));
        unclaimed.map(|(cpu, exit)| exit.map(|exit| (cpu, exit))).collect()
    }

    fn read_memory(&mut self, gpa: u64, into: &mut [u8]) -> bool {
        self.memory.read().is_ok_and(|memory| memory.read(gpa, into))
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // Threads that run the guest must not wait for their whole budget.
        for vcpu in
            self.seats.iter().zip(&self.vcpus).filter(|(seat, _)| seat.is_some()).map(|(_, vcpu)| vcpu)
        {
            vcpu.end();
        }
    }
}

fn poisoned() -> TargetError {
    TargetError::Harness("guest memory's lock is poisoned".into())
}
