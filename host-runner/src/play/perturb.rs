//! What a variation can ask of a VM: things that no guest may notice.

use crate::case::{Churn, Delivery};

/// One thing that is done to the VM, or to the threads that run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Perturb {
    /// Everything is saved, a new VM made, everything restored, and the new one goes on.
    SaveRestore,
    /// As [`SaveRestore`](Self::SaveRestore) through bytes, memory included, in another process, which goes on alone.
    LiveMigration,
    /// `kvm_run.immediate_exit` for the next KVM_RUN of a vCPU.
    ImmediateExit(usize),
    /// A signal to a vCPU's thread.
    Signal(usize, Delivery),
    /// The next KVM_RUN of a vCPU comes from a new thread.
    NewThread(usize),
    /// A thread disturbs the VM until [`Calm`](Self::Calm).
    Storm(Churn),
    /// Ends every storm.
    Calm,
    /// KVM_GUESTDBG_SINGLESTEP on every vCPU, on or off.
    SingleStep(bool),
    /// Guest memory at other host addresses: every memslot that is present is deleted and created anew.
    Rehost,
    /// Something happens to the host's pages behind guest memory; the number chooses.
    Pages(u32),
    /// KVM_MEM_LOG_DIRTY_PAGES on every memslot that can have it, and a copy of what is in them.
    LogDirty,
    /// What changed since must have been reported as dirty; dirty logging ends.
    HarvestDirty,
    /// Coalesced zones and ioeventfds where no case has anything.
    Bystanders,
}
