//! A live VM: memory, vCPUs, interrupt controllers, CPUID. Built from a case's [`MachineSpec`] and a
//! payload's image; plays the part of [`Target`]. It knows nothing of TOML or of expectations.

mod apic_page;
mod banks;
mod coalesced;
mod decode;
mod disturb;
mod limit;
mod memory;
mod seat;
mod signal;
mod snapshot;
pub mod speed;
mod start;
mod vcpu;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_bindings::{CpuId, kvm_enable_cap, kvm_guest_debug, kvm_guest_debug_arch, kvm_msi};
use kvm_ioctls::{Kvm, VmFd};

use self::banks::failed;
use self::disturb::{Disturbance, Scene};
use self::limit::Limit;
use self::memory::Memory;
pub use self::memory::PAGE;
use self::seat::Seat;
use self::vcpu::Vcpu;
use crate::bank::Bank;
use crate::case::{Access, Action, Breakpoint, Bytes, Delivery, Irqchip, MachineSpec, Places, Start};
use crate::exit::Exit;
use crate::host::switches;
use crate::payload::Image;
use crate::play::{Target, TargetError};

/// What every machine on this host shares: made once, before any case.
pub struct Host {
    /// `/dev/kvm`.
    pub kvm: Kvm,
    /// KVM_GET_SUPPORTED_CPUID.
    pub cpuid: CpuId,
    /// The backend is kvm_intel, which needs a TSS and an identity map for real mode without
    /// unrestricted guest (KVM API 4.23, 4.41).
    pub intel: bool,
}

/// A VM in which a case is played.
pub struct Machine<'h> {
    // Dropped in this order: threads before vCPUs, vCPUs and VM before memory.
    later: Vec<JoinHandle<Result<(), TargetError>>>,
    disturbances: Vec<Disturbance>,
    seats: Vec<Option<Seat>>,
    limit: Limit,
    vcpus: Vec<Arc<Vcpu>>,
    vm: Arc<VmFd>,
    memory: Arc<RwLock<Memory>>,
    host: &'h Host,
    spec: &'h MachineSpec,
    image: &'h Image,
    /// Where vCPU 0 starts, for starts that are not long mode.
    entry: u64,
    budget: Duration,
    ring: Option<coalesced::Ring>,
    /// What KVM_SET_GUEST_DEBUG was last told, by vCPU: no ioctl reads it back.
    debug: Vec<Option<kvm_guest_debug>>,
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
        let memory = Memory::new(u64::from(spec.memory_kib) << 10, &spec.slots)?;
        for chunk in &image.chunks {
            load(&memory, chunk.gpa, &chunk.bytes)?;
        }
        load(&memory, image.params_gpa, params)?;
        let vm = new_vm(host, spec)?;
        memory.register(&vm)?;
        let vcpus = new_vcpus(host, spec, &vm)?;
        let machine = Self {
            later: Vec::new(),
            disturbances: Vec::new(),
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
            debug: vec![None; spec.vcpus as usize],
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

    /// Does `what` from another thread once `cpu` is in KVM_RUN; the next exit waits for it.
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
            if met {
                return Ok(());
            }
            Err(TargetError::Harness(format!(
                "an action was to meet vCPU {} in KVM_RUN, which did not stay there: let the guest wait for it",
                vcpu.index
            )))
        };
        let thread = std::thread::Builder::new().name("later".into()).spawn(body);
        self.later.push(thread.map_err(|error| TargetError::Harness(format!("a thread: {error}")))?);
        Ok(())
    }

    fn join_later(&mut self) -> Result<(), TargetError> {
        self.later.drain(..).try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(TargetError::Harness("a delayed action panicked".into())))
        })
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

    fn save_restore(&mut self) -> Result<(), TargetError> {
        let busy = self.seats.iter().flatten().any(|seat| seat.busy);
        if busy || !self.disturbances.is_empty() || !self.later.is_empty() {
            return Err(TargetError::Harness("`save-restore` while something else runs".into()));
        }
        for vcpu in &self.vcpus {
            if vcpu.owes_completion() {
                vcpu.ask_immediate_exit();
                match vcpu.run(&mut self.limit)? {
                    Exit::Intr {} => {}
                    exit => {
                        return Err(TargetError::Deviates {
                            expected: "EINTR from the KVM_RUN that completes the exit before the save".into(),
                            observed: exit.to_string(),
                        });
                    }
                }
            }
        }
        let saved = snapshot::save(self.host, self.spec, &self.vm, &self.vcpus)?;
        let memory = self.memory()?;
        let vm = new_vm(self.host, self.spec)?;
        memory.register(&vm)?;
        drop(memory);
        let vcpus = new_vcpus(self.host, self.spec, &vm)?;
        snapshot::restore(self.spec, &vm, &vcpus, &saved)?;
        for (seat, vcpu) in self.seats.iter_mut().zip(&vcpus) {
            if let Some(old) = seat.take() {
                *seat = Some(Seat::new(Arc::clone(vcpu), self.budget, old.background)?);
            }
        }
        self.vcpus = vcpus;
        for (cpu, debug) in self.debug.iter().enumerate() {
            if let Some(debug) = debug {
                self.vcpus[cpu].fd.set_guest_debug(debug).map_err(failed("KVM_SET_GUEST_DEBUG"))?;
            }
        }
        self.vm = Arc::new(vm);
        self.ring = None;
        Ok(())
    }
}

impl Target for Machine<'_> {
    fn run(&mut self, cpu: usize) -> Result<Exit, TargetError> {
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
        banks::read(self.vcpu(cpu)?, bank, names)
    }

    fn set_bank(
        &mut self,
        cpu: usize,
        bank: Bank,
        values: &[(&str, u64)],
    ) -> Result<Option<i32>, TargetError> {
        banks::write(self.vcpu(cpu)?, bank, values)
    }

    fn act(&mut self, action: &Action, places: &dyn Places) -> Result<(), TargetError> {
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
            Action::Signal { cpu, when } => {
                let vcpu = self.vcpu(*cpu)?;
                signal::unblock_in_run(&vcpu.fd)?;
                vcpu.stray.store(false, Ordering::Release);
                match when {
                    Delivery::Now => signal::send(match &self.seats[*cpu] {
                        Some(seat) => seat.tid,
                        None => nix::unistd::gettid().as_raw(),
                    }),
                    Delivery::Running => {
                        self.later(*cpu, |vcpu| signal::send(vcpu.tid.load(Ordering::Acquire)))
                    }
                }
            }
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
                let scene = Scene {
                    vm: Arc::clone(&self.vm),
                    memory: Arc::clone(&self.memory),
                    vcpus: self.vcpus.clone(),
                };
                self.disturbances.push(Disturbance::start(*churn, scene)?);
                Ok(())
            }),
            Action::Quiet => self.disturbances.drain(..).try_for_each(Disturbance::end),
        }
    }

    fn finish(&mut self) -> Result<Vec<(usize, Exit)>, TargetError> {
        self.join_later()?;
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

fn new_vm(host: &Host, spec: &MachineSpec) -> Result<VmFd, TargetError> {
    let vm = host.kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
    if host.intel {
        vm.set_tss_address(TSS_ADDRESS).map_err(failed("KVM_SET_TSS_ADDR"))?;
        vm.set_identity_map_address(IDENTITY_MAP_ADDRESS).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
    }
    let enable = |cap: u32, arg: u64| {
        let mut enable = kvm_enable_cap { cap, ..kvm_enable_cap::default() };
        enable.args[0] = arg;
        vm.enable_cap(&enable)
    };
    for name in &spec.enable_caps {
        let unknown = || TargetError::Harness(format!("capability `{name}` cannot be enabled"));
        let (cap, arg) = switches::enable(name).ok_or_else(unknown)?;
        enable(cap, arg).map_err(failed(&format!("KVM_ENABLE_CAP of {name}")))?;
    }
    let mut quirks = 0;
    for name in &spec.disable_quirks {
        quirks |= switches::quirk(name)
            .ok_or_else(|| TargetError::Harness(format!("there is no quirk `{name}`")))?;
    }
    if quirks != 0 {
        enable(kvm_bindings::KVM_CAP_DISABLE_QUIRKS2, quirks.into())
            .map_err(failed("KVM_CAP_DISABLE_QUIRKS2"))?;
    }
    match spec.irqchip {
        Irqchip::None => {}
        Irqchip::Split => {
            enable(kvm_bindings::KVM_CAP_SPLIT_IRQCHIP, 24).map_err(failed("KVM_CAP_SPLIT_IRQCHIP"))?;
        }
        Irqchip::Kernel => vm.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?,
    }
    for zone in &spec.coalesced {
        let start = if zone.pio {
            kvm_ioctls::IoEventAddress::Pio(zone.start)
        } else {
            kvm_ioctls::IoEventAddress::Mmio(zone.start)
        };
        vm.register_coalesced_mmio(start, zone.size).map_err(failed("KVM_REGISTER_COALESCED_MMIO"))?;
    }
    Ok(vm)
}

/// Below the BIOS, where QEMU puts them too: away from RAM and from what cases use.
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

fn new_vcpus(host: &Host, spec: &MachineSpec, vm: &VmFd) -> Result<Vec<Arc<Vcpu>>, TargetError> {
    let mut vcpus = Vec::with_capacity(spec.vcpus as usize);
    for index in 0..spec.vcpus {
        let fd = vm.create_vcpu(index.into()).map_err(failed("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&cpuid(host, spec, index)?).map_err(failed("KVM_SET_CPUID2"))?;
        vcpus.push(Arc::new(Vcpu::new(index as usize, fd, vm.run_size())));
    }
    Ok(vcpus)
}

/// What the guest sees of the CPU: all that KVM supports, less what the case hides.
fn cpuid(host: &Host, spec: &MachineSpec, index: u32) -> Result<CpuId, TargetError> {
    let mut cpuid = host.cpuid.clone();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            // Initial APIC id, in bits 31:24 (SDM vol. 2A, "CPUID").
            1 => entry.ebx = entry.ebx & 0x00ff_ffff | index << 24,
            0xb | 0x1f => entry.edx = index,
            _ => {}
        }
    }
    for name in &spec.cpuid_hide {
        let unknown = || TargetError::Harness(format!("CPUID feature `{name}` is not known"));
        let feature = crate::host::cpuid::feature(name).ok_or_else(unknown)?;
        feature.hide(cpuid.as_mut_slice());
    }
    Ok(cpuid)
}

fn load(memory: &Memory, gpa: u64, bytes: &[u8]) -> Result<(), TargetError> {
    if memory.write(gpa, bytes) {
        Ok(())
    } else {
        Err(TargetError::Harness(format!(
            "the payload wants {} bytes at {gpa:#x}, which is no RAM",
            bytes.len()
        )))
    }
}

fn interrupt(vcpu: &Vcpu, vector: u8) -> Result<(), TargetError> {
    match vcpu.inject(vector) {
        Ok(()) => Ok(()),
        Err(errno) => Err(refused("KVM_INTERRUPT", errno as i32)),
    }
}

fn refused(what: &str, errno: i32) -> TargetError {
    TargetError::Ioctl { what: what.into(), error: nix::Error::from_raw(errno).to_string() }
}

fn poisoned() -> TargetError {
    TargetError::Harness("guest memory's lock is poisoned".into())
}
