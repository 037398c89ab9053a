//! Dirty logging as a variation uses it: what has changed must have been reported, by bitmap or by ring.
#![expect(unsafe_code, reason = "the dirty rings are shared with the kernel")]

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use kvm_bindings::{KVM_DIRTY_LOG_PAGE_OFFSET, kvm_dirty_gfn};
use kvm_ioctls::{VcpuFd, VmFd};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::memory::PAGE;
use super::{Machine, poisoned};
use crate::play::TargetError;

/// Entries of a dirty ring: the most that KVM allows, many times the pages that a case's guest writes between two exits.
const ENTRIES: usize = 65536;
/// Bytes of a dirty ring, which is what KVM_CAP_DIRTY_LOG_RING takes.
pub const RING_BYTES: u64 = (ENTRIES * size_of::<kvm_dirty_gfn>()) as u64;

/// KVM API 8.29: the page is dirty; the page has been harvested.
const DIRTY: u32 = 1;
const RESET: u32 = 2;

impl Machine<'_> {
    /// Logging begins.
    pub(super) fn log_dirty(&mut self) -> Result<(), TargetError> {
        // Kept until the VM goes: a ring goes on where it was.
        if self.spec.dirty_ring && self.rings.is_empty() {
            self.rings = self.vcpus.iter().map(|vcpu| Ring::map(&vcpu.fd)).collect::<Result<_, _>>()?;
        }
        self.memory.write().map_err(|_| poisoned())?.watch(&self.vm)
    }

    /// Logging ends: `Err(Deviates)` if a page has changed that was not reported.
    pub(super) fn harvest_dirty(&mut self) -> Result<(), TargetError> {
        let mut memory = self.memory.write().map_err(|_| poisoned())?;
        let mut reported = BTreeSet::new();
        if self.spec.dirty_ring {
            for ring in &mut self.rings {
                // The upper half of a slot's number is its address space.
                reported.extend(ring.take().into_iter().map(|(slot, page)| ((slot & 0xffff) as usize, page)));
            }
            reset_rings(&self.vm)?;
        } else {
            for (index, name) in memory.logged() {
                reported.extend(memory.dirty_pages(&self.vm, &name)?.into_iter().map(|page| (index, page)));
            }
        }
        let missed = memory.changed().into_iter().find(|page| !reported.contains(page));
        let missed = missed.map(|page| memory.page_name(page));
        memory.unwatch(&self.vm)?;
        match missed {
            None => Ok(()),
            Some(page) => Err(TargetError::Deviates {
                expected: format!("{page} reported as dirty, since it has changed"),
                observed: format!("{} pages reported, and not this one", reported.len()),
            }),
        }
    }
}

/// A vCPU's dirty ring (KVM API 8.29).
pub struct Ring {
    entries: NonNull<kvm_dirty_gfn>,
    next: usize,
}

impl Ring {
    fn map(vcpu: &VcpuFd) -> Result<Self, TargetError> {
        let size = NonZeroUsize::MIN.saturating_add(RING_BYTES as usize - 1);
        let offset = (u64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * PAGE).cast_signed();
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the descriptor is a live vCPU's, borrowed for this call; a new mapping replaces nothing.
        let mapped = unsafe {
            let fd = BorrowedFd::borrow_raw(vcpu.as_raw_fd());
            mmap(None, size, prot, MapFlags::MAP_SHARED, fd, offset)
        };
        let mapped =
            mapped.map_err(|error| TargetError::Harness(format!("mapping the dirty ring: {error}")))?;
        Ok(Self { entries: mapped.cast(), next: 0 })
    }

    fn flags(&self, at: usize) -> u32 {
        // SAFETY: `at` is below ENTRIES, so the entry is in the mapping; a volatile copy of a number.
        let flags = unsafe { (&raw const (*self.entries.as_ptr().add(at % ENTRIES)).flags).read_volatile() };
        fence(Ordering::Acquire);
        flags
    }

    /// Takes all entries out: slot, page.
    fn take(&mut self) -> Vec<(u32, u32)> {
        let mut taken = Vec::new();
        while self.flags(self.next) == DIRTY && taken.len() < ENTRIES {
            // SAFETY: `next` is below ENTRIES; volatile accesses of plain numbers that the kernel has finished.
            unsafe {
                let entry = self.entries.as_ptr().add(self.next);
                taken.push((
                    (&raw const (*entry).slot).read_volatile(),
                    (&raw const (*entry).offset).read_volatile() as u32,
                ));
                fence(Ordering::Release);
                (&raw mut (*entry).flags).write_volatile(RESET);
            }
            self.next = (self.next + 1) % ENTRIES;
        }
        taken
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, used by nobody else.
        let unmapped = unsafe { munmap(self.entries.cast(), RING_BYTES as usize) };
        debug_assert!(unmapped.is_ok(), "munmap of a dirty ring");
    }
}

fn reset_rings(vm: &VmFd) -> Result<(), TargetError> {
    // SAFETY: the ioctl takes no argument.
    let result = unsafe { nix::libc::ioctl(vm.as_raw_fd(), KVM_RESET_DIRTY_RINGS, 0) };
    Errno::result(result).map(drop).map_err(|errno| TargetError::Ioctl {
        what: "KVM_RESET_DIRTY_RINGS".into(),
        error: errno.to_string(),
    })
}

/// `_IO(KVMIO, 0xc7)`.
const KVM_RESET_DIRTY_RINGS: nix::libc::c_ulong = 0xaec7;
