//! The guest goes on in another VM: in this process, or in another one as live migration does it.
#![expect(unsafe_code, reason = "fork and _exit have no safe form")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, RwLock};

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2};

use super::Machine;
use super::apic_page;
use super::banks::failed;
use super::build::{self, new_vcpus, new_vm};
use super::limit::Limit;
use super::seat::Seat;
use super::snapshot::{self, Saved};
use crate::exit::Exit;
use crate::play::TargetError;

impl Machine<'_> {
    /// Saves everything, builds a new VM, restores everything there. An exit that must be seen first is an error.
    pub(super) fn save_restore(&mut self) -> Result<(), TargetError> {
        match self.complete()? {
            Some((_, exit)) => Err(TargetError::Deviates {
                expected: "EINTR from the KVM_RUN that completes the exit before the save".into(),
                observed: exit.to_string(),
            }),
            None => self.move_here(),
        }
    }

    /// As [`save_restore`](Self::save_restore). If completing what is half done causes an exit, that is left for the
    /// next run to return, and the guest stays where it is: `false`.
    pub(super) fn save_restore_if_complete(&mut self) -> Result<bool, TargetError> {
        if self.early.is_none() {
            self.early = self.complete()?;
        }
        if self.early.is_some() { Ok(false) } else { self.move_here().map(|()| true) }
    }

    /// The guest goes on in a child of this process, which never comes back from here: it ends as the child does.
    /// `false` as for [`save_restore_if_complete`](Self::save_restore_if_complete).
    pub(super) fn migrate_live(&mut self) -> Result<bool, TargetError> {
        if self.early.is_none() {
            self.early = self.complete()?;
        }
        if self.early.is_some() {
            return Ok(false);
        }
        let saved = snapshot::save(self.host, self.spec, &self.vm, &self.vcpus)?;
        let saved = postcard::to_stdvec(&saved)
            .map_err(|error| TargetError::Harness(format!("a VM's state as bytes: {error}")))?;
        let memory = self.memory()?.contents();
        // Threads do not survive a fork; those that sit and wait are made anew on the other side.
        let seats: Vec<Option<bool>> =
            self.seats.iter_mut().map(|seat| seat.take().map(|seat| seat.background)).collect();
        let (receiver, sender) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| system("pipe", e))?;
        let parent = getpid();
        // SAFETY: the machine has ended its threads, so no lock is held across the fork.
        match unsafe { fork() }.map_err(|e| system("fork", e))? {
            ForkResult::Parent { child } => {
                drop(receiver);
                // A child that dies early is told of by its status.
                let _ = send(sender, &[&saved, &memory]);
                drop((saved, memory));
                follow(child)
            }
            ForkResult::Child => {
                drop(sender);
                prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| system("prctl", e))?;
                if getppid() != parent {
                    return Err(TargetError::Harness("the process that was migrated is gone".into()));
                }
                // KVM knows the parent's as its VM's, and this process would take them for those of its own.
                apic_page::disown_inherited()?;
                // The timer belongs to the parent.
                std::mem::forget(std::mem::replace(&mut self.limit, Limit::new(self.budget)?));
                let [saved, memory] = receive(receiver)
                    .map_err(|error| TargetError::Harness(format!("a VM's state through a pipe: {error}")))?;
                let saved: Saved = postcard::from_bytes(&saved)
                    .map_err(|error| TargetError::Harness(format!("a VM's state from bytes: {error}")))?;
                self.arrive(&saved, &memory)?;
                for (cpu, background) in seats.into_iter().enumerate() {
                    if let Some(background) = background {
                        let vcpu = Arc::clone(&self.vcpus[cpu]);
                        self.seats[cpu] = Some(Seat::new(vcpu, self.budget, background)?);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Completes what the last exits have left half done, as KVM's API demands before a save: another KVM_RUN with
    /// `immediate_exit`. An exit that comes of it is the guest's.
    fn complete(&mut self) -> Result<Option<(usize, Exit)>, TargetError> {
        let busy = self.seats.iter().flatten().any(|seat| seat.busy);
        if busy || !self.disturbances.is_empty() || !self.later.is_empty() {
            return Err(TargetError::Harness("a save while something else runs".into()));
        }
        for vcpu in self.vcpus.iter().filter(|vcpu| vcpu.owes_completion()) {
            vcpu.ask_immediate_exit();
            match vcpu.run(&mut self.limit)? {
                Exit::Intr {} => {}
                exit => {
                    vcpu.withdraw_immediate_exit();
                    return Ok(Some((vcpu.index, exit)));
                }
            }
        }
        Ok(None)
    }

    fn move_here(&mut self) -> Result<(), TargetError> {
        let saved = snapshot::save(self.host, self.spec, &self.vm, &self.vcpus)?;
        self.settle(&saved)
    }

    /// In the new process: new memory, then as ever.
    fn arrive(&mut self, saved: &Saved, contents: &[u8]) -> Result<(), TargetError> {
        let new = self.memory()?.copy(contents)?;
        let old = std::mem::replace(&mut self.memory, Arc::new(RwLock::new(new)));
        self.settle(saved)?;
        // Behind the old VM, which refers to it.
        drop(old);
        Ok(())
    }

    /// A new VM takes the place of this one.
    fn settle(&mut self, saved: &Saved) -> Result<(), TargetError> {
        let vm = new_vm(self.host, self.spec)?;
        build::filter_msrs(&vm, self.msr_filter.as_ref())?;
        if self.bystanders {
            build::bystanders(&vm)?;
        }
        self.memory()?.register(&vm)?;
        let vcpus = new_vcpus(self.host, self.spec, &vm)?;
        snapshot::restore(self.host, self.spec, &vm, &vcpus, saved)?;
        for (seat, vcpu) in self.seats.iter_mut().zip(&vcpus) {
            if let Some(old) = seat.take() {
                *seat = Some(Seat::new(Arc::clone(vcpu), self.budget, old.background)?);
            }
        }
        for (vcpu, debug) in vcpus.iter().zip(&self.debug) {
            if let Some(debug) = debug {
                vcpu.fd.set_guest_debug(debug).map_err(failed("KVM_SET_GUEST_DEBUG"))?;
            }
        }
        self.ring = None;
        self.rings.clear();
        self.vcpus = vcpus;
        self.vm = Arc::new(vm);
        Ok(())
    }
}

/// Waits for the process that goes on with the case, and ends as it does.
fn follow(child: Pid) -> ! {
    let status = loop {
        match waitpid(child, None) {
            Err(nix::Error::EINTR) => {}
            status => break status,
        }
    };
    let code = match status {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, by, _)) => {
            // SAFETY: the default action, which ends this process.
            let _ = unsafe { signal(by, SigHandler::SigDfl) };
            let _ = kill(getpid(), by);
            1
        }
        _ => 1,
    };
    // SAFETY: ends the process; what there is to clean up is the child's by now.
    unsafe { nix::libc::_exit(code) }
}

fn send(to: OwnedFd, parts: &[&[u8]]) -> io::Result<()> {
    let mut to = File::from(to);
    for part in parts {
        to.write_all(&(part.len() as u64).to_le_bytes())?;
        to.write_all(part)?;
    }
    Ok(())
}

fn receive(from: OwnedFd) -> io::Result<[Vec<u8>; 2]> {
    let mut from = File::from(from);
    let mut part = || {
        let mut len = [0; 8];
        from.read_exact(&mut len)?;
        let mut bytes = Vec::new();
        (&mut from).take(u64::from_le_bytes(len)).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    Ok([part()?, part()?])
}

fn system(what: &str, error: nix::Error) -> TargetError {
    TargetError::Harness(format!("{what}: {error}"))
}
