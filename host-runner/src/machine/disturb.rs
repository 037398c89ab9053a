//! Disturbances that no guest may notice, each from a thread of its own until it is told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_ioctls::VmFd;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::apic_page::ApicPage;
use super::banks;
use super::memory::Memory;
use super::msr_filter;
use super::signal;
use super::vcpu::Vcpu;
use crate::case::{Churn, MsrFilter};
use crate::play::TargetError;

/// What a disturbance may touch.
pub struct Scene {
    /// The VM.
    pub vm: Arc<VmFd>,
    /// Its memory.
    pub memory: Arc<RwLock<Memory>>,
    /// Its vCPUs.
    pub vcpus: Vec<Arc<Vcpu>>,
    /// Its MSR filter.
    pub msr_filter: MsrFilter,
}

/// A running disturbance.
pub struct Disturbance {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), TargetError>>>,
    kicked: Vec<Arc<Vcpu>>,
    /// vCPUs whose threads it moves, and where they may run when it ends.
    pinned: Option<(Vec<Arc<Vcpu>>, CpuSet)>,
}

impl Disturbance {
    /// Starts one.
    pub fn start(churn: Churn, scene: Scene) -> Result<Self, TargetError> {
        let kicked = if churn == Churn::Kick { scene.vcpus.clone() } else { Vec::new() };
        for vcpu in &kicked {
            signal::unblock_in_run(&vcpu.fd)?;
            vcpu.kickers.fetch_add(1, Ordering::AcqRel);
        }
        let pinned = if churn == Churn::Migrate {
            let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(failed)?;
            Some((scene.vcpus.clone(), allowed))
        } else {
            None
        };
        let mut apic_page = match churn {
            Churn::Pages | Churn::ApicPage => ApicPage::find()?,
            _ => None,
        };
        if churn == Churn::ApicPage && apic_page.is_none() {
            return Err(TargetError::Harness(
                "`disturb` with `apic-page`: KVM has put no APIC-access page into this process".into(),
            ));
        }
        // Once before anything else happens, however few chances the thread gets.
        disturb(churn, &scene, &mut apic_page, 0)?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let body = move || {
            let mut round = 1_u32;
            while !until.load(Ordering::Acquire) {
                std::thread::sleep(pause(round));
                disturb(churn, &scene, &mut apic_page, round)?;
                round = round.wrapping_add(1);
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().spawn(body);
        let thread = thread.map_err(|error| TargetError::Harness(format!("a disturbing thread: {error}")))?;
        Ok(Self { stop, thread: Some(thread), kicked, pinned })
    }

    /// Ends it; an error of its own comes out here.
    pub fn end(mut self) -> Result<(), TargetError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), TargetError> {
        self.stop.store(true, Ordering::Release);
        let ended = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        for vcpu in self.kicked.drain(..) {
            vcpu.stray.store(true, Ordering::Release);
            vcpu.kickers.fetch_sub(1, Ordering::AcqRel);
        }
        if let Some((vcpus, allowed)) = self.pinned.take() {
            for vcpu in vcpus {
                // The thread may have ended.
                let _ = sched_setaffinity(Pid::from_raw(vcpu.tid.load(Ordering::Acquire)), &allowed);
            }
        }
        ended.unwrap_or_else(|_| Err(TargetError::Harness("a disturbing thread panicked".into())))
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        // An error at this point belongs to a case that has its verdict.
        let _ = self.join();
    }
}

/// How long the guest is left alone before a disturbance: no fixed beat, and more room the longer it goes on. A host
/// that needs longer to mend what one of them does than the next one takes to come would never get on.
fn pause(round: u32) -> Duration {
    let room = 1 + round / 256;
    Duration::from_micros(u64::from(20 + round.wrapping_mul(37) % 180)) * room
}

fn disturb(
    churn: Churn,
    scene: &Scene,
    apic_page: &mut Option<ApicPage>,
    round: u32,
) -> Result<(), TargetError> {
    let mut move_apic_page = || apic_page.as_mut().map_or(Ok(()), |page| page.churn(round));
    let running = || scene.vcpus.iter().filter(|vcpu| vcpu.running.load(Ordering::Acquire));
    match churn {
        Churn::Migrate => {
            let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(failed)?;
            let cpus: Vec<usize> =
                (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true)).collect();
            for vcpu in running() {
                let mut one = CpuSet::new();
                let cpu = cpus.get(round as usize % cpus.len().max(1)).copied().unwrap_or(0);
                one.set(cpu).map_err(failed)?;
                // The thread may just have ended; then there is nothing to move.
                let _ = sched_setaffinity(Pid::from_raw(vcpu.tid.load(Ordering::Acquire)), &one);
            }
        }
        Churn::Pages => {
            read(&scene.memory)?.drop_pages()?;
            move_apic_page()?;
        }
        Churn::ApicPage => move_apic_page()?,
        Churn::Kick => {
            for vcpu in running() {
                // As above.
                let _ = signal::send(vcpu.tid.load(Ordering::Acquire));
            }
        }
        Churn::Slots => read(&scene.memory)?.flicker(&scene.vm)?,
        Churn::MsrDefault => {
            let other = scene.msr_filter.with_other_default();
            for filter in [&other, &scene.msr_filter] {
                msr_filter::set(&scene.vm, filter).map_err(banks::failed("KVM_X86_SET_MSR_FILTER"))?;
            }
        }
    }
    Ok(())
}

fn read(memory: &RwLock<Memory>) -> Result<std::sync::RwLockReadGuard<'_, Memory>, TargetError> {
    memory.read().map_err(|_| TargetError::Harness("guest memory's lock is poisoned".into()))
}

fn failed(error: nix::Error) -> TargetError {
    TargetError::Harness(format!("moving a vCPU's thread: {error}"))
}
