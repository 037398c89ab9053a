//! The one list of exits: name in manifests, number in KVM, fields.
//!
//! To teach ExitSpec a new exit, add a row here and a line to the machine's decoder.
//! Source of numbers and fields: KVM API, section "The kvm_run structure".

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Direction, ExitField, Mismatch, NotifyContext, PatternContext};
use crate::case::{Bytes, Expect};

macro_rules! exits {
    ($( $(#[$doc:meta])* $name:literal $variant:ident $pattern:ident { $( $(#[$field_doc:meta])* $field:ident: $type:ty ),* $(,)? } )*) => {
        /// A return of KVM_RUN.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(tag = "exit", rename_all = "kebab-case")]
        pub enum Exit {
            $( $(#[$doc])* $variant { $( $(#[$field_doc])* $field: $type ),* }, )*
        }

        /// What a manifest says of an exit: a kind, and any of its fields.
        #[derive(Debug, Clone, PartialEq)]
        pub enum ExitPattern {
            $( $(#[$doc])* $variant($pattern), )*
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
            #[serde(deny_unknown_fields, rename_all = "kebab-case")]
            pub struct $pattern {
                $( $(#[$field_doc])* pub $field: Option<<$type as ExitField>::Pattern>, )*
            }
        )*

        /// Every exit's name in manifests.
        pub const KINDS: &[&str] = &[$($name),*];

        impl Exit {
            /// The exit's name in manifests.
            pub const fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $name, )* }
            }
        }

        impl ExitPattern {
            /// The exit's name in manifests.
            pub const fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $name, )* }
            }

            /// Reads the fields of the exit called `name`; `None` if there is no such exit.
            pub fn deserialize<'de, D: serde::Deserializer<'de>>(name: &str, fields: D) -> Option<Result<Self, D::Error>> {
                match name {
                    $( $name => Some($pattern::deserialize(fields).map(Self::$variant)), )*
                    _ => None,
                }
            }

            /// Name and JSON Schema of every exit.
            pub fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<(&'static str, schemars::Schema)> {
                vec![ $( ($name, $pattern::json_schema(generator)), )* ]
            }

            /// The names of the fields that the exit called `name` has.
            pub fn fields(name: &str) -> Option<&'static [&'static str]> {
                match name {
                    $( $name => Some(&[ $( stringify!($field) ),* ]), )*
                    _ => None,
                }
            }

            /// The numbers that this pattern states.
            pub fn expects(&self) -> Vec<&Expect> {
                match self { $( Self::$variant(pattern) => {
                    let _ = pattern;
                    #[allow(unused_mut, reason = "some exits have no fields")]
                    let mut found: Vec<&Expect> = Vec::new();
                    $( found.extend(pattern.$field.as_ref().and_then(<$type as ExitField>::expect)); )*
                    found
                } )* }
            }

            /// The numbers that this pattern states, with the fields' names in manifests.
            pub fn named_expects(&self) -> Vec<(String, &Expect)> {
                match self { $( Self::$variant(pattern) => {
                    let _ = pattern;
                    #[allow(unused_mut, reason = "some exits have no fields")]
                    let mut found: Vec<(String, &Expect)> = Vec::new();
                    $( found.extend(pattern.$field.as_ref().and_then(<$type as ExitField>::expect)
                        .map(|expect| (stringify!($field).replace('_', "-"), expect))); )*
                    found
                } )* }
            }

            /// What in `exit` differs from this pattern; empty if it matches. A wrong kind is one mismatch.
            #[allow(unused_variables, reason = "some exits have no fields")]
            pub fn mismatches(&self, exit: &Exit, context: &PatternContext) -> Vec<Mismatch> {
                match (self, exit) {
                    $( (Self::$variant(pattern), Exit::$variant { $($field),* }) => {
                        #[allow(unused_mut, reason = "some exits have no fields")]
                        let mut found = Vec::new();
                        $( if let Some(expected) = &pattern.$field && !$field.holds(expected, context) {
                            found.push(Mismatch {
                                field: stringify!($field).replace('_', "-"),
                                expected: <$type as ExitField>::shown(expected, context),
                                observed: $field.show(),
                            });
                        } )*
                        found
                    } )*
                    _ => vec![Mismatch { field: "exit".into(), expected: self.name().into(), observed: exit.name().into() }],
                }
            }
        }

        impl fmt::Display for Exit {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $( Self::$variant { $($field),* } => {
                    f.write_str($name)?;
                    $( write!(f, " {}={}", stringify!($field).replace('_', "-"), $field.show())?; )*
                    Ok(())
                } )* }
            }
        }

        impl fmt::Display for ExitPattern {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $( Self::$variant(pattern) => {
                    let _ = pattern;
                    f.write_str($name)?;
                    $( if let Some(expected) = &pattern.$field {
                        write!(f, " {}={expected}", stringify!($field).replace('_', "-"))?;
                    } )*
                    Ok(())
                } )* }
            }
        }
    };
}

exits! {
    /// KVM_EXIT_UNKNOWN: the hardware's exit reason means nothing to KVM.
    "unknown" Unknown UnknownPattern {
        /// `hw.hardware_exit_reason`: the vendor's own code.
        hardware_exit_reason: u64,
    }
    /// KVM_EXIT_EXCEPTION.
    "exception" Exception ExceptionPattern {
        /// Vector.
        vector: u32,
        /// Error code, 0 if the vector has none.
        error_code: u32,
    }
    /// KVM_EXIT_IO: IN, OUT, INS or OUTS.
    "io" Io IoPattern {
        /// Which way.
        direction: Direction,
        /// Bytes an item: 1, 2 or 4.
        size: u8,
        /// Port.
        port: u16,
        /// Items: 1, but for string instructions. A step that does not state it means 1.
        count: u32,
        /// What the guest gave, for `out`; empty for `in`, whose data the host owes.
        data: Bytes,
    }
    /// KVM_EXIT_HYPERCALL.
    "hypercall" Hypercall HypercallPattern {
        /// Hypercall number.
        nr: u64,
        /// First argument.
        arg0: u64,
        /// Second argument.
        arg1: u64,
        /// Third argument.
        arg2: u64,
        /// Flags; bit 0: long mode.
        flags: u64,
    }
    /// KVM_EXIT_DEBUG: single-step or breakpoint of KVM_SET_GUEST_DEBUG.
    "debug" Debug DebugPattern {
        /// Vector: 1 (#DB) or 3 (#BP).
        exception: u32,
        /// Linear address at which the guest stopped.
        pc: u64,
        /// DR6 as the guest would see it.
        dr6: u64,
        /// DR7.
        dr7: u64,
    }
    /// KVM_EXIT_HLT.
    "hlt" Hlt HltPattern {}
    /// KVM_EXIT_MMIO: a guest-physical address that no memslot backs (or a write to a read-only one).
    "mmio" Mmio MmioPattern {
        /// Whether the guest wrote.
        write: bool,
        /// Guest-physical address.
        address: u64,
        /// Bytes, 1 to 8.
        size: u32,
        /// What the guest gave, for a write; empty for a read, whose data the host owes.
        data: Bytes,
    }
    /// KVM_EXIT_IRQ_WINDOW_OPEN: the guest can take an interrupt now, as the host asked to know.
    "irq-window-open" IrqWindowOpen IrqWindowOpenPattern {}
    /// KVM_EXIT_SHUTDOWN: triple fault.
    "shutdown" Shutdown ShutdownPattern {}
    /// KVM_EXIT_FAIL_ENTRY: the hardware refused the guest's state.
    "fail-entry" FailEntry FailEntryPattern {
        /// The vendor's reason.
        hardware_entry_failure_reason: u64,
        /// Physical CPU.
        physical_cpu: u32,
    }
    /// KVM_RUN returned EINTR: a signal or immediate_exit. `exit_reason` may or may not say
    /// KVM_EXIT_INTR; the errno is what KVM promises.
    "intr" Intr IntrPattern {}
    /// KVM_RUN returned EAGAIN: the vCPU was woken out of wait-for-SIPI and has not run yet.
    "again" Again AgainPattern {}
    /// KVM_EXIT_SET_TPR: the guest lowered CR8 below what the host set in `kvm_run.cr8`.
    "set-tpr" SetTpr SetTprPattern {
        /// `kvm_run.cr8`.
        cr8: u64,
    }
    /// KVM_EXIT_TPR_ACCESS.
    "tpr-access" TprAccess TprAccessPattern {
        /// RIP of the access.
        at: u64,
        /// Whether it was a write.
        write: bool,
    }
    /// KVM_EXIT_NMI.
    "nmi" Nmi NmiPattern {}
    /// KVM_EXIT_INTERNAL_ERROR.
    "internal-error" InternalError InternalErrorPattern {
        /// 1 emulation, 2 simultaneous exceptions, 3 delivery event, 4 unexpected exit reason.
        suberror: u32,
        /// How many data words KVM gave.
        ndata: u32,
        /// First data word.
        data0: u64,
        /// Second data word.
        data1: u64,
        /// Third data word.
        data2: u64,
        /// Fourth data word.
        data3: u64,
    }
    /// KVM_EXIT_SYSTEM_EVENT.
    "system-event" SystemEvent SystemEventPattern {
        /// 1 shutdown, 2 reset, 3 crash, ...
        event: u32,
        /// How many data words KVM gave.
        ndata: u32,
        /// First data word (or flags).
        data0: u64,
    }
    /// KVM_EXIT_IOAPIC_EOI: with a split irqchip, the guest ended a level-triggered interrupt.
    "ioapic-eoi" IoapicEoi IoapicEoiPattern {
        /// Vector.
        vector: u8,
    }
    /// KVM_EXIT_HYPERV.
    "hyperv" Hyperv HypervPattern {
        /// 1 SynIC, 2 hypercall, 3 debugger.
        kind: u32,
        /// MSR (SynIC, debugger) or hypercall input.
        input: u64,
    }
    /// KVM_EXIT_X86_RDMSR: the host owes an MSR's value.
    "rdmsr" Rdmsr RdmsrPattern {
        /// Why: 1 invalid, 2 unknown, 4 filter.
        reason: u32,
        /// MSR.
        index: u32,
    }
    /// KVM_EXIT_X86_WRMSR.
    "wrmsr" Wrmsr WrmsrPattern {
        /// Why: 1 invalid, 2 unknown, 4 filter.
        reason: u32,
        /// MSR.
        index: u32,
        /// What the guest wrote.
        data: u64,
    }
    /// KVM_EXIT_DIRTY_RING_FULL.
    "dirty-ring-full" DirtyRingFull DirtyRingFullPattern {}
    /// KVM_EXIT_AP_RESET_HOLD: an SEV-ES AP waits for INIT/SIPI.
    "ap-reset-hold" ApResetHold ApResetHoldPattern {}
    /// KVM_EXIT_X86_BUS_LOCK.
    "bus-lock" BusLock BusLockPattern {}
    /// KVM_EXIT_XEN.
    "xen" Xen XenPattern {
        /// 1: hypercall.
        kind: u32,
        /// Hypercall number.
        input: u64,
    }
    /// KVM_EXIT_NOTIFY: the guest ran without an event window for too long.
    "notify" Notify NotifyPattern {
        /// Whether the context is still sound.
        context: NotifyContext,
    }
    /// KVM_EXIT_MEMORY_FAULT.
    "memory-fault" MemoryFault MemoryFaultPattern {
        /// Bit 3: private.
        flags: u64,
        /// Guest-physical address.
        gpa: u64,
        /// Bytes.
        size: u64,
    }
    /// An exit reason that this suite does not know yet.
    "other" Other OtherPattern {
        /// `kvm_run.exit_reason`.
        reason: u32,
    }
}

impl Exit {
    /// Size in bytes of one item of this exit's data, 1 where it has none.
    pub fn item_size(&self) -> usize {
        match self {
            Self::Io { size, .. } => usize::from(*size),
            Self::Mmio { size, .. } => *size as usize,
            _ => 1,
        }
    }

    /// How many bytes the host owes the guest before it can go on.
    pub fn owed(&self) -> usize {
        match self {
            Self::Io { direction: Direction::In, size, count, .. } => usize::from(*size) * *count as usize,
            Self::Mmio { write: false, size, .. } => *size as usize,
            Self::Rdmsr { .. } => 8,
            _ => 0,
        }
    }
}
