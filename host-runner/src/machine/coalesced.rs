//! The ring of coalesced writes (KVM API 4.116, KVM_REGISTER_COALESCED_MMIO).
#![expect(unsafe_code, reason = "the ring is shared with the kernel")]

use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use kvm_bindings::{kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::play::TargetError;

const PAGE: usize = 4096;

/// Entries that fit behind the ring's header in its page.
const MAX: usize = (PAGE - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>();

/// A mapping of the ring.
pub struct Ring(NonNull<kvm_coalesced_mmio_ring>);

/// Which page of a vCPU's mapping holds the ring: the value of KVM_CAP_COALESCED_MMIO.
pub fn page_offset(kvm: &Kvm) -> Result<usize, TargetError> {
    usize::try_from(kvm.check_extension_int(Cap::CoalescedMmio))
        .ok()
        .filter(|page| *page > 0)
        .ok_or_else(|| TargetError::Harness("this KVM has no coalesced MMIO".into()))
}

impl Ring {
    /// Maps the ring of `vcpu`'s VM.
    pub fn map(vcpu: &VcpuFd, page: usize) -> Result<Self, TargetError> {
        let size = NonZeroUsize::MIN.saturating_add(PAGE - 1);
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the descriptor is a live vCPU's, borrowed for this call; a new mapping replaces nothing.
        let mapped = unsafe {
            let fd = BorrowedFd::borrow_raw(vcpu.as_raw_fd());
            mmap(None, size, prot, MapFlags::MAP_SHARED, fd, ((page * PAGE) as u64).cast_signed())
        };
        let mapped =
            mapped.map_err(|error| TargetError::Harness(format!("mapping the coalesced ring: {error}")))?;
        Ok(Self(mapped.cast()))
    }

    /// Takes all writes out of the ring; they must be these.
    pub fn expect(&mut self, address: u64, size: u8, data: &[u64]) -> Result<(), TargetError> {
        let expected: Vec<_> = data.iter().map(|number| (address, u32::from(size), *number)).collect();
        let observed = self.take();
        if observed == expected {
            return Ok(());
        }
        Err(TargetError::Deviates { expected: show(&expected), observed: show(&observed) })
    }

    fn take(&mut self) -> Vec<(u64, u32, u64)> {
        let ring = self.0.as_ptr();
        let mut taken = Vec::new();
        // SAFETY: the mapping is one page, which holds the header and MAX entries; indices are reduced to
        // less than MAX; all reads are volatile copies of plain numbers. The kernel appends behind `last`
        // and never touches `first`.
        unsafe {
            let last = (&raw const (*ring).last).read_volatile() as usize % MAX;
            fence(Ordering::Acquire);
            let mut first = (&raw const (*ring).first).read_volatile() as usize % MAX;
            let entries = ring.add(1).cast::<kvm_coalesced_mmio>();
            while first != last && taken.len() < MAX {
                let entry = entries.add(first).read_volatile();
                let len = (entry.len as usize).min(entry.data.len());
                let mut number = [0; 8];
                number[..len].copy_from_slice(&entry.data[..len]);
                taken.push((entry.phys_addr, entry.len, u64::from_le_bytes(number)));
                first = (first + 1) % MAX;
            }
            fence(Ordering::Release);
            (&raw mut (*ring).first).write_volatile(first as u32);
        }
        taken
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, used by nobody else.
        let unmapped = unsafe { munmap(self.0.cast(), PAGE) };
        debug_assert!(unmapped.is_ok(), "munmap of the coalesced ring");
    }
}

fn show(writes: &[(u64, u32, u64)]) -> String {
    let shown: Vec<_> =
        writes.iter().take(16).map(|(at, size, data)| format!("{data:#x}/{size} at {at:#x}")).collect();
    let more = writes.len().saturating_sub(16);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{} coalesced writes: {}{more}", writes.len(), shown.join(", "))
}
