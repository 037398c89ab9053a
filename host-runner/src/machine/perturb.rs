//! What variations ask for, done to this VM.

use std::sync::Arc;

use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};

use super::banks::failed;
use super::build;
use super::disturb::{Disturbance, Scene};
use super::seat::Seat;
use super::{Machine, poisoned};
use crate::case::Churn;
use crate::play::{Perturb, TargetError};

impl Machine<'_> {
    /// Does what a variation asks for; `false` if the VM stays where it is.
    pub(super) fn disturbed(&mut self, what: Perturb) -> Result<bool, TargetError> {
        let done = match what {
            Perturb::SaveRestore => {
                self.calm()?;
                return self.save_restore_if_complete();
            }
            Perturb::LiveMigration => {
                self.calm()?;
                return self.migrate_live();
            }
            Perturb::ImmediateExit(cpu) => {
                self.vcpu(cpu)?.ask_immediate_exit();
                Ok(())
            }
            Perturb::Signal(cpu, when) => self.signal(cpu, when),
            Perturb::NewThread(cpu) => {
                let seat = Seat::new(Arc::clone(self.vcpu(cpu)?), self.budget, false)?;
                self.seats[cpu] = Some(seat);
                Ok(())
            }
            Perturb::Storm(churn) => self.storm(churn),
            Perturb::Calm => self.calm(),
            Perturb::SingleStep(on) => self.single_step(on),
            Perturb::Rehost => self.memory.write().map_err(|_| poisoned())?.rehost(&self.vm),
            Perturb::Pages(which) => self.memory()?.stir_pages(which),
            Perturb::LogDirty => self.log_dirty(),
            Perturb::HarvestDirty => self.harvest_dirty(),
            Perturb::Bystanders => {
                self.bystanders = true;
                build::bystanders(&self.vm)
            }
        };
        done.map(|()| true)
    }

    fn storm(&mut self, churn: Churn) -> Result<(), TargetError> {
        self.storms.push(Disturbance::start(churn, self.scene())?);
        Ok(())
    }

    /// What a disturbance may touch.
    pub(super) fn scene(&self) -> Scene {
        Scene {
            vm: Arc::clone(&self.vm),
            memory: Arc::clone(&self.memory),
            vcpus: self.vcpus.clone(),
            msr_filter: self.msr_filter.clone().unwrap_or_default(),
        }
    }

    fn calm(&mut self) -> Result<(), TargetError> {
        self.storms.drain(..).try_for_each(Disturbance::end)
    }

    fn single_step(&mut self, on: bool) -> Result<(), TargetError> {
        for (vcpu, debug) in self.vcpus.iter().zip(&mut self.debug) {
            let control = if on { KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP } else { 0 };
            let told = kvm_guest_debug { control, ..kvm_guest_debug::default() };
            vcpu.fd.set_guest_debug(&told).map_err(failed("KVM_SET_GUEST_DEBUG"))?;
            *debug = Some(told);
        }
        Ok(())
    }
}
