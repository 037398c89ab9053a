//! `irqchip-split` and `irqchip-kernel`: interrupt controllers exist that the case does not use.

use super::{Variation, uses};
use crate::bank::Bank;
use crate::case::{Action, Case, Irqchip, MachineSpec};

/// Interrupt controllers in the kernel.
pub(super) struct InKernel(pub(super) Irqchip);

impl Variation for InKernel {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        if case.machine.irqchip != Irqchip::None {
            return Some("the case says which interrupt controllers there are");
        }
        if case.machine.vcpus > 1 {
            return Some("with a local APIC in the kernel all vCPUs but the first wait for INIT");
        }
        if uses::expects(case, |exit| matches!(exit.pattern.name(), "hlt" | "set-tpr" | "irq-window-open")) {
            return Some("HLT and the TPR cause no exits with a local APIC in the kernel");
        }
        let injects = |action: &Action| matches!(action, Action::Interrupt { .. } | Action::IrqLine { .. });
        if uses::acts(case, injects) {
            return Some("the case injects by KVM_INTERRUPT");
        }
        [Bank::Run, Bank::MpState]
            .iter()
            .any(|bank| uses::touches(case, *bank))
            .then_some("the case looks at what the local APIC changes")
    }

    fn machine(&self, _: &Case, spec: &mut MachineSpec) {
        spec.irqchip = self.0;
    }
}
