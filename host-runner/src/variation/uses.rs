//! What a case uses for itself, as far as variations must know.

use crate::bank::Bank;
use crate::case::{Action, Case, Delivery, ExitStep, Step, What};

/// Every step of a case, those of repetitions too.
fn steps(case: &Case) -> Vec<&Step> {
    fn collect<'c>(steps: &'c [Step], into: &mut Vec<&'c Step>) {
        for step in steps {
            into.push(step);
            if let What::Repeat(_, inner) = &step.what {
                collect(inner, into);
            }
        }
    }
    let mut all = Vec::new();
    collect(&case.steps, &mut all);
    all
}

/// Whether the host does something that is of this kind.
pub(super) fn acts(case: &Case, is: impl Fn(&Action) -> bool) -> bool {
    steps(case).iter().any(|step| matches!(&step.what, What::Do(action) if is(action)))
}

/// Whether a step waits for an exit of this kind.
pub(super) fn expects(case: &Case, is: impl Fn(&ExitStep) -> bool) -> bool {
    steps(case).iter().any(|step| matches!(&step.what, What::Exit(exit) if is(exit)))
}

/// Whether a step reads or writes this bank.
pub(super) fn touches(case: &Case, bank: Bank) -> bool {
    steps(case).iter().any(|step| match &step.what {
        What::Set(set) => set.bank == bank,
        What::Check(check) => check.bank == bank,
        What::Keep(_, kept) => *kept == bank,
        _ => false,
    })
}

/// Whether the case has to do with KVM_RUN being interrupted.
pub(super) fn interruptions(case: &Case) -> bool {
    acts(case, |action| matches!(action, Action::Signal { .. } | Action::ImmediateExit { .. }))
        || expects(case, |exit| matches!(exit.pattern.name(), "intr" | "again"))
}

/// Whether something happens while the guest runs: the case disturbs the VM, lets a vCPU run beside another, or has
/// the host act on a guest that runs.
pub(super) fn concurrency(case: &Case) -> bool {
    let beside = |action: &Action| {
        matches!(action, Action::Background { .. } | Action::Disturb { .. }) || meets_running(action)
    };
    acts(case, beside) || expects(case, |exit| exit.threads > 1)
}

/// Whether the host does this while the guest runs.
fn meets_running(action: &Action) -> bool {
    match action {
        Action::Msi { when, .. }
        | Action::IrqLine { when, .. }
        | Action::Signal { when, .. }
        | Action::MsrFilter { when, .. }
        | Action::SlotCreate { when, .. }
        | Action::SlotDelete { when, .. } => *when == Delivery::Running,
        _ => false,
    }
}

/// Whether the host sends SMIs.
pub(super) fn smis(case: &Case) -> bool {
    acts(case, |action| matches!(action, Action::Smi { .. }))
}

/// Whether the case saves and restores the VM by itself.
pub(super) fn relocation(case: &Case) -> bool {
    acts(case, |action| matches!(action, Action::SaveRestore))
}

/// Whether the case debugs its guest.
pub(super) fn debugging(case: &Case) -> bool {
    acts(case, |action| matches!(action, Action::GuestDebug { .. }))
        || expects(case, |exit| exit.pattern.name() == "debug")
        || touches(case, Bank::DebugRegs)
}

/// Whether the case has to do with dirty logging.
pub(super) fn dirty_logging(case: &Case) -> bool {
    case.machine.slots.iter().any(|slot| slot.log_dirty)
        || acts(case, |action| matches!(action, Action::DirtyPages { .. }))
}

/// Whether the case creates, deletes or moves memslots.
pub(super) fn memslots(case: &Case) -> bool {
    acts(case, |action| {
        matches!(
            action,
            Action::SlotCreate { .. }
                | Action::SlotDelete { .. }
                | Action::SlotMove { .. }
                | Action::SlotChange { .. }
        )
    })
}
