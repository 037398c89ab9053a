//! What the host can do to a guest between its exits, or while it runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DataExpect, Expr, MsrDefault, MsrRange};

/// A host action: `{ do = "nmi" }`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Puts a vCPU back into the machine's start state, with RIP at a label: what a VMM does on reset.
    Restart {
        /// Which vCPU.
        #[serde(default)]
        cpu: usize,
        /// Where it goes on.
        at: Expr,
    },
    /// KVM_INTERRUPT: injects an external interrupt; for VMs without an in-kernel local APIC.
    Interrupt {
        /// Which vCPU.
        #[serde(default)]
        cpu: usize,
        /// Vector.
        vector: u8,
    },
    /// KVM_NMI. Like every vCPU ioctl it waits for KVM_RUN to return; a running vCPU takes an NMI by `msi`.
    Nmi {
        /// Which vCPU.
        #[serde(default)]
        cpu: usize,
    },
    /// KVM_SMI: a system-management interrupt. Like every vCPU ioctl it waits for KVM_RUN to return.
    Smi {
        /// Which vCPU.
        #[serde(default)]
        cpu: usize,
    },
    /// KVM_SIGNAL_MSI: a message to the in-kernel local APICs (SDM vol. 3, "Message Signalled Interrupts").
    Msi {
        /// Address, such as 0xfee0_0000.
        address: u64,
        /// Data: vector and delivery mode.
        data: u32,
        /// When.
        #[serde(default)]
        when: Delivery,
    },
    /// KVM_IRQ_LINE on the in-kernel irqchip.
    IrqLine {
        /// GSI.
        gsi: u32,
        /// Whether the line is high.
        level: bool,
        /// When.
        #[serde(default)]
        when: Delivery,
    },
    /// A signal to the vCPU's thread: the next KVM_RUN, or the running one, returns EINTR.
    Signal {
        /// Which vCPU.
        #[serde(default)]
        cpu: usize,
        /// When.
        #[serde(default)]
        when: Delivery,
    },
    /// Sets `kvm_run.immediate_exit` for the next KVM_RUN.
    ImmediateExit {
        /// Which vCPU.
        #[serde(default)]
        cpu: usize,
    },
    /// KVM_SET_GUEST_DEBUG; without fields, debugging ends.
    GuestDebug {
        /// Which vCPU.
        #[serde(default)]
        cpu: usize,
        /// KVM_GUESTDBG_SINGLESTEP.
        #[serde(default)]
        single_step: bool,
        /// KVM_GUESTDBG_BLOCKIRQ.
        #[serde(default)]
        block_irq: bool,
        /// KVM_GUESTDBG_USE_HW_BP: up to four.
        #[serde(default)]
        breakpoints: Vec<Breakpoint>,
    },
    /// Writes guest memory.
    WriteMemory {
        /// Guest-physical address.
        at: Expr,
        /// Bytes of a number, 1 to 8.
        #[serde(default = "one")]
        size: u8,
        /// What to write.
        data: DataExpect,
    },
    /// KVM_SET_USER_MEMORY_REGION: creates a declared memslot.
    SlotCreate {
        /// Its name in `machine.slots`.
        slot: String,
        /// When.
        #[serde(default)]
        when: Delivery,
    },
    /// KVM_SET_USER_MEMORY_REGION with size 0.
    SlotDelete {
        /// Its name in `machine.slots`, or `ram`.
        slot: String,
        /// When.
        #[serde(default)]
        when: Delivery,
    },
    /// KVM_SET_USER_MEMORY_REGION as the slot is now, but for what is named here. Creates a slot that is absent.
    SlotChange {
        /// Its name in `machine.slots`.
        slot: String,
        /// Guest-physical address.
        gpa: Option<u64>,
        /// Pages, no more than it was declared with; 0 deletes it.
        pages: Option<u32>,
        /// KVM_MEM_LOG_DIRTY_PAGES.
        log_dirty: Option<bool>,
        /// KVM_MEM_READONLY.
        read_only: Option<bool>,
        /// KVM must refuse with this, and the slot stays as it was.
        errno: Option<String>,
    },
    /// Moves a memslot to another guest-physical address.
    SlotMove {
        /// Its name in `machine.slots`.
        slot: String,
        /// Where to.
        gpa: u64,
    },
    /// KVM_GET_DIRTY_LOG: exactly these pages of a memslot were written since it was last asked.
    DirtyPages {
        /// Its name in `machine.slots`.
        slot: String,
        /// Page numbers in it.
        pages: Vec<u32>,
    },
    /// KVM_X86_SET_MSR_FILTER: replaces the MSR filter; without keys, nothing is filtered any longer.
    MsrFilter {
        /// What happens to MSRs that no range names.
        #[serde(default)]
        default: MsrDefault,
        /// As `machine.msr-filter.ranges`.
        #[serde(default)]
        ranges: Vec<MsrRange>,
        /// KVM must refuse with this.
        errno: Option<String>,
        /// When.
        #[serde(default)]
        when: Delivery,
    },
    /// The coalesced ring holds exactly these writes; they are taken out.
    CoalescedRing {
        /// Which vCPU's mapping of the ring is read.
        #[serde(default)]
        cpu: usize,
        /// The first address or port; each further write must go to the same.
        address: u64,
        /// Bytes of each write.
        size: u8,
        /// The numbers written, in order.
        data: Vec<u64>,
    },
    /// The next KVM_RUNs of a vCPU come from a new thread.
    NewThread {
        /// Which vCPU.
        #[serde(default)]
        cpu: usize,
    },
    /// Lets a vCPU run on a thread of its own from here; its exits wait for steps that name it.
    Background {
        /// Which vCPU.
        cpu: usize,
    },
    /// Saves the whole VM, builds a new one, restores it there.
    SaveRestore,
    /// Disturbs the VM from another thread while the following steps run, until `quiet`.
    Disturb {
        /// How.
        with: Vec<Churn>,
    },
    /// Ends every `disturb`.
    Quiet,
}

fn one() -> u8 {
    1
}

/// When an action happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Now, while the vCPU is stopped.
    #[default]
    Now,
    /// From another thread, while the guest runs towards the next step.
    Running,
}

/// A disturbance that no guest may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Churn {
    /// The vCPUs' threads hop between the host's CPUs.
    Migrate,
    /// The guest's pages lose their mappings in the host (the data stays), and the APIC-access page is moved if there is
    /// one.
    Pages,
    /// The APIC-access page, which kvm_intel puts into this process, is freed and filled over and over, and its frames are
    /// held, so that it moves. For cases that require `kvm_intel.flexpriority`.
    ApicPage,
    /// Signals interrupt KVM_RUN; EINTR is hidden from the steps.
    Kick,
    /// An unrelated memslot comes and goes.
    Slots,
    /// The default of the MSR filter flips to and fro; MSRs that a range names are allowed or denied as ever.
    MsrDefault,
}

/// What a hardware breakpoint watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Execution.
    #[default]
    Execute,
    /// Writes.
    Write,
    /// Reads and writes.
    Access,
}

/// A hardware breakpoint (SDM vol. 3, "Debug Registers").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Breakpoint {
    /// Linear address.
    pub at: Expr,
    /// What it watches.
    #[serde(default)]
    pub on: Access,
    /// Bytes: 1, 2, 4 or 8; 1 for execution.
    #[serde(default = "one")]
    pub size: u8,
}
