//! Perturbations that no guest may notice, and that change no exit. Each is one file and one [`Variation`].
//!
//! `play` defines the points: before the first KVM_RUN, before each that a step asks for, and at each exit. What is
//! done there is decided here, and done by the machine. This module knows neither KVM's ioctls nor expectations.

mod coalesce;
mod cpuid_min;
mod dice;
mod dirty;
mod emulate;
mod irqchip;
mod kick;
mod memslot_churn;
mod migrate;
#[cfg(test)]
mod nops;
mod page_churn;
mod relocate;
mod single_step;
mod threads;
mod uses;
mod varied;

pub use varied::Varied;

use crate::case::{Case, Combo, MachineSpec, Pio, Requires, Vary};
use crate::exit::Exit;
use crate::play::{Perturb, Target, TargetError};
use dice::Dice;
pub use dice::REMEMBERED;

/// One perturbation. Every method has the default of doing nothing.
pub trait Variation {
    /// Why it cannot be applied to this case, which uses what it needs for itself; one clause.
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        let _ = case;
        None
    }

    /// What it needs of a host.
    fn requires(&self) -> Requires {
        Requires::default()
    }

    /// How many times longer a case may take.
    fn slowness(&self) -> u32 {
        1
    }

    /// Changes the VM that is built.
    fn machine(&self, case: &Case, spec: &mut MachineSpec) {
        let _ = (case, spec);
    }

    /// How KVM does port I/O then, if that changes.
    fn pio(&self) -> Option<Pio> {
        None
    }

    /// Once, before the first KVM_RUN.
    fn begin(&mut self, target: &mut dyn Target) -> Result<(), TargetError> {
        let _ = target;
        Ok(())
    }

    /// Before each KVM_RUN that a step asks for.
    fn before_run(&mut self, point: &mut Point<'_>) -> Result<(), TargetError> {
        let _ = point;
        Ok(())
    }

    /// KVM_RUN has returned.
    fn at_exit(&mut self, cpu: usize, exit: &Exit, target: &mut dyn Target) -> Result<Whose, TargetError> {
        let _ = (cpu, exit, target);
        Ok(Whose::Guest)
    }

    /// The case's host has done something to the VM.
    fn host_acts(&mut self) {}

    /// Once, when the last step is done.
    fn finish(&mut self, target: &mut dyn Target) -> Result<(), TargetError> {
        let _ = target;
        Ok(())
    }
}

/// Whose doing an exit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The guest's, or the case's: the steps see it.
    Guest,
    /// The variation's: the steps do not see it, and the vCPU goes on.
    Mine,
}

/// A moment before KVM_RUN.
pub struct Point<'p> {
    /// The vCPU that is about to run.
    pub cpu: usize,
    /// The VM.
    pub target: &'p mut dyn Target,
    dice: &'p mut Dice,
    variation: usize,
}

impl Point<'_> {
    /// Whether to act here, which happens with this chance; if so, what chooses how.
    pub fn acts(&mut self, chance: f64) -> Option<fastrand::Rng> {
        self.dice.acts(self.variation, chance)
    }

    /// Does something to the VM; the point counts as one unless nothing was done, which is `false`.
    pub fn perturb(&mut self, what: Perturb) -> Result<bool, TargetError> {
        let done = self.target.perturb(what);
        if done != Ok(false) {
            self.dice.note();
        }
        done
    }
}

fn make(vary: Vary) -> Box<dyn Variation> {
    match vary {
        Vary::SaveRestore => Box::new(relocate::Relocate::here()),
        Vary::LiveMigration => Box::new(relocate::Relocate::live()),
        Vary::Kick => Box::new(kick::Kick),
        Vary::Migrate => Box::new(migrate::Migrate),
        Vary::Threads => Box::new(threads::Threads),
        Vary::PageChurn => Box::new(page_churn::PageChurn),
        Vary::DirtyLog => Box::new(dirty::Dirty::by_log()),
        Vary::DirtyRing => Box::new(dirty::Dirty::by_ring()),
        Vary::MemslotChurn => Box::new(memslot_churn::MemslotChurn),
        Vary::SingleStep => Box::new(single_step::SingleStep::default()),
        Vary::IrqchipSplit => Box::new(irqchip::InKernel(crate::case::Irqchip::Split)),
        Vary::IrqchipKernel => Box::new(irqchip::InKernel(crate::case::Irqchip::Kernel)),
        Vary::CpuidMin => Box::new(cpuid_min::CpuidMin),
        Vary::Coalesce => Box::new(coalesce::Coalesce),
        Vary::Emulate => Box::new(emulate::Emulate),
    }
}

/// What cannot be together, and why.
const RIVALS: &[(Vary, Vary, &str)] = &[
    (Vary::SaveRestore, Vary::LiveMigration, "the one is the other"),
    (Vary::SaveRestore, Vary::DirtyLog, NO_LOG),
    (Vary::SaveRestore, Vary::DirtyRing, NO_LOG),
    (Vary::LiveMigration, Vary::DirtyLog, NO_LOG),
    (Vary::LiveMigration, Vary::DirtyRing, NO_LOG),
    (Vary::DirtyLog, Vary::DirtyRing, "a VM has the one or the other"),
    (Vary::DirtyLog, Vary::MemslotChurn, "a memslot that is deleted takes its log along"),
    (Vary::DirtyRing, Vary::MemslotChurn, "a memslot that is deleted takes its log along"),
    (Vary::SaveRestore, Vary::SingleStep, "a stop comes between each exit and the save"),
    (Vary::LiveMigration, Vary::SingleStep, "a stop comes between each exit and the save"),
    (Vary::Kick, Vary::Threads, "a signal is for the thread that is replaced"),
    (Vary::IrqchipSplit, Vary::IrqchipKernel, "a VM has the one or the other"),
];
const NO_LOG: &str = "no ioctl saves a dirty log";

/// Why `case` is not played under these perturbations; one sentence.
pub fn excluded(case: &Case, combo: &Combo) -> Option<String> {
    let varies = combo.varies();
    if let Some((one, other, reason)) =
        RIVALS.iter().find(|(one, other, _)| varies.contains(one) && varies.contains(other))
    {
        return Some(format!("not under {one} and {other}: {reason}"));
    }
    combo.varies().iter().find_map(|vary| {
        let reason = case.except.get(vary).map(String::as_str).or_else(|| make(*vary).conflict(case))?;
        Some(format!("not under {vary}: {reason}"))
    })
}

/// What these perturbations need of a host.
pub fn requires(combo: &Combo) -> impl Iterator<Item = Requires> {
    combo.varies().iter().map(|vary| make(*vary).requires())
}

/// How KVM does port I/O under these perturbations, on a host that does it like this.
pub fn pio(combo: &Combo, host: Pio) -> Pio {
    combo.varies().iter().find_map(|vary| make(*vary).pio()).unwrap_or(host)
}

/// How many times longer a case may take under these perturbations.
pub fn slowness(combo: &Combo) -> u32 {
    combo.varies().iter().map(|vary| make(*vary).slowness()).product()
}

/// The VM of `case` under these perturbations.
pub fn machine(case: &Case, combo: &Combo) -> MachineSpec {
    let mut spec = case.machine.clone();
    combo.varies().iter().for_each(|vary| make(*vary).machine(case, &mut spec));
    spec
}
