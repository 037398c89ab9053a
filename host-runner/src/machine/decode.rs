//! `kvm_run` -> [`Exit`]: reads the union's member that the exit reason names.
#![expect(unsafe_code, reason = "kvm_run is a C union in memory that the kernel writes")]

use kvm_bindings as kvm;
use kvm_bindings::kvm_run;

use crate::case::Bytes;
use crate::exit::{Direction, Exit, NotifyContext};

/// The exit that `run` describes. `size` is the length of the mapping that begins with `run`, which
/// holds the data of port I/O.
///
/// # Safety
/// `run` points to a vCPU's mapping of `size` bytes, at least `size_of::<kvm_run>()`. Another thread
/// may run the same vCPU meanwhile: the copy taken here may then mix two exits, which the caller
/// must allow for.
pub unsafe fn decode(run: *const kvm_run, size: usize) -> Exit {
    // SAFETY: the caller's promise; a copy so that every field is read once.
    let reason = unsafe { (&raw const (*run).exit_reason).read_volatile() };
    // SAFETY: as above. Every bit pattern is valid for the union's members, which are plain numbers.
    let with = unsafe { (&raw const (*run).__bindgen_anon_1).read_volatile() };
    // SAFETY: for all reads of `with`: any bit pattern is valid for its members; the reason says which is meant.
    unsafe {
        match reason {
            kvm::KVM_EXIT_UNKNOWN => Exit::Unknown { hardware_exit_reason: with.hw.hardware_exit_reason },
            kvm::KVM_EXIT_EXCEPTION => {
                Exit::Exception { vector: with.ex.exception, error_code: with.ex.error_code }
            }
            kvm::KVM_EXIT_IO => {
                let io = with.io;
                let out = u32::from(io.direction) == kvm::KVM_EXIT_IO_OUT;
                Exit::Io {
                    direction: if out { Direction::Out } else { Direction::In },
                    size: io.size,
                    port: io.port,
                    count: io.count,
                    data: if out { io_data(run, size, &io) } else { Bytes::default() },
                }
            }
            kvm::KVM_EXIT_HYPERCALL => {
                let call = with.hypercall;
                Exit::Hypercall {
                    nr: call.nr,
                    arg0: call.args[0],
                    arg1: call.args[1],
                    arg2: call.args[2],
                    flags: call.__bindgen_anon_1.flags,
                }
            }
            kvm::KVM_EXIT_DEBUG => {
                let arch = with.debug.arch;
                Exit::Debug { exception: arch.exception, pc: arch.pc, dr6: arch.dr6, dr7: arch.dr7 }
            }
            kvm::KVM_EXIT_HLT => Exit::Hlt {},
            kvm::KVM_EXIT_MMIO => {
                let mmio = with.mmio;
                let write = mmio.is_write != 0;
                let len = (mmio.len as usize).min(mmio.data.len());
                let data = if write { Bytes::new(&mmio.data[..len]) } else { Bytes::default() };
                Exit::Mmio { write, address: mmio.phys_addr, size: mmio.len, data }
            }
            kvm::KVM_EXIT_IRQ_WINDOW_OPEN => Exit::IrqWindowOpen {},
            kvm::KVM_EXIT_SHUTDOWN => Exit::Shutdown {},
            kvm::KVM_EXIT_FAIL_ENTRY => Exit::FailEntry {
                hardware_entry_failure_reason: with.fail_entry.hardware_entry_failure_reason,
                physical_cpu: with.fail_entry.cpu,
            },
            kvm::KVM_EXIT_INTR => Exit::Intr {},
            kvm::KVM_EXIT_SET_TPR => Exit::SetTpr { cr8: (&raw const (*run).cr8).read_volatile() },
            kvm::KVM_EXIT_TPR_ACCESS => {
                Exit::TprAccess { at: with.tpr_access.rip, write: with.tpr_access.is_write != 0 }
            }
            kvm::KVM_EXIT_NMI => Exit::Nmi {},
            kvm::KVM_EXIT_INTERNAL_ERROR => {
                let error = with.internal;
                // Data beyond `ndata` is whatever the page held before.
                let data = |index: usize| if index < error.ndata as usize { error.data[index] } else { 0 };
                Exit::InternalError {
                    suberror: error.suberror,
                    ndata: error.ndata,
                    data0: data(0),
                    data1: data(1),
                    data2: data(2),
                    data3: data(3),
                }
            }
            kvm::KVM_EXIT_SYSTEM_EVENT => {
                let event = with.system_event;
                Exit::SystemEvent {
                    event: event.type_,
                    ndata: event.ndata,
                    // Without data words the union holds flags, or what it held before.
                    data0: if event.ndata == 0 { 0 } else { event.__bindgen_anon_1.data[0] },
                }
            }
            kvm::KVM_EXIT_IOAPIC_EOI => Exit::IoapicEoi { vector: with.eoi.vector },
            kvm::KVM_EXIT_HYPERV => {
                Exit::Hyperv { kind: with.hyperv.type_, input: with.hyperv.u.hcall.input }
            }
            kvm::KVM_EXIT_X86_RDMSR => Exit::Rdmsr { reason: with.msr.reason, index: with.msr.index },
            kvm::KVM_EXIT_X86_WRMSR => {
                Exit::Wrmsr { reason: with.msr.reason, index: with.msr.index, data: with.msr.data }
            }
            kvm::KVM_EXIT_DIRTY_RING_FULL => Exit::DirtyRingFull {},
            kvm::KVM_EXIT_AP_RESET_HOLD => Exit::ApResetHold {},
            kvm::KVM_EXIT_X86_BUS_LOCK => Exit::BusLock {},
            kvm::KVM_EXIT_XEN => Exit::Xen { kind: with.xen.type_, input: with.xen.u.hcall.input },
            kvm::KVM_EXIT_NOTIFY => Exit::Notify {
                context: if with.notify.flags & kvm::KVM_NOTIFY_CONTEXT_INVALID == 0 {
                    NotifyContext::Valid
                } else {
                    NotifyContext::Invalid
                },
            },
            kvm::KVM_EXIT_MEMORY_FAULT => Exit::MemoryFault {
                flags: with.memory_fault.flags,
                gpa: with.memory_fault.gpa,
                size: with.memory_fault.size,
            },
            reason => Exit::Other { reason },
        }
    }
}

/// Where the data of a port I/O exit lies in the mapping, if it lies in it.
pub fn io_range(
    io: &kvm::kvm_run__bindgen_ty_1__bindgen_ty_4,
    size: usize,
) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(io.data_offset).ok()?;
    let len = usize::from(io.size).checked_mul(io.count as usize)?;
    let end = start.checked_add(len)?;
    (end <= size).then_some(start..end)
}

/// # Safety
/// As for [`decode`].
unsafe fn io_data(run: *const kvm_run, size: usize, io: &kvm::kvm_run__bindgen_ty_1__bindgen_ty_4) -> Bytes {
    let Some(range) = io_range(io, size) else { return Bytes::default() };
    let mut data = Bytes::default();
    data.0.resize(range.len(), 0);
    // SAFETY: `io_range` keeps the range inside the mapping that the caller promises.
    unsafe {
        std::ptr::copy_nonoverlapping(run.cast::<u8>().add(range.start), data.0.as_mut_ptr(), range.len());
    };
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that a hostile or broken kernel might leave.
    fn page() -> Box<[u64; 512]> {
        Box::new([0; 512])
    }

    fn decoded(fill: impl FnOnce(&mut kvm_run)) -> Exit {
        let mut page = page();
        // SAFETY: kvm_run is plain numbers and smaller than the page; u64 aligns it.
        let run = unsafe { &mut *page.as_mut_ptr().cast::<kvm_run>() };
        fill(run);
        // SAFETY: the page is 4096 bytes and ours.
        unsafe { decode(page.as_ptr().cast(), 4096) }
    }

    #[test]
    fn data_outside_the_mapping_is_not_read() {
        let exit = decoded(|run| {
            run.exit_reason = kvm::KVM_EXIT_IO;
            run.__bindgen_anon_1.io = kvm::kvm_run__bindgen_ty_1__bindgen_ty_4 {
                direction: 1,
                size: 4,
                port: 0x80,
                count: 2,
                data_offset: 4092,
            };
        });
        let Exit::Io { data, count: 2, .. } = exit else { panic!("{exit}") };
        assert_eq!(data, Bytes::default());
    }

    #[test]
    fn lengths_and_counts_of_the_kernel_are_bounded() {
        let exit = decoded(|run| {
            run.exit_reason = kvm::KVM_EXIT_MMIO;
            run.__bindgen_anon_1.mmio = kvm::kvm_run__bindgen_ty_1__bindgen_ty_6 {
                phys_addr: 7,
                data: [1; 8],
                len: 200,
                is_write: 1,
            };
        });
        assert_eq!(exit, Exit::Mmio { write: true, address: 7, size: 200, data: Bytes::new(&[1; 8]) });
        let exit = decoded(|run| {
            run.exit_reason = kvm::KVM_EXIT_INTERNAL_ERROR;
            run.__bindgen_anon_1.internal =
                kvm::kvm_run__bindgen_ty_1__bindgen_ty_13 { suberror: 1, ndata: 1, data: [5; 16] };
        });
        assert_eq!(
            exit,
            Exit::InternalError { suberror: 1, ndata: 1, data0: 5, data1: 0, data2: 0, data3: 0 }
        );
    }

    #[test]
    fn a_reason_from_the_future_is_named() {
        assert_eq!(decoded(|run| run.exit_reason = 4000), Exit::Other { reason: 4000 });
    }
}
