//! What the host may do to the pages behind guest memory at any time: no data is lost, and no guest notices.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use nix::sys::mman::{MmapAdvise, ProtFlags, madvise, mprotect, munmap};

use super::{Memory, PAGE, Slot, set_region, system};
use crate::case::FLICKER_GPA;
use crate::play::TargetError;

/// Number of the slot that [`Memory::flicker`] makes: no case declares so many.
const FLICKER_SLOT: u32 = 100;

impl Memory {
    /// Drops the host's mappings of all guest pages; the data stays in the memfd.
    pub fn drop_pages(&self) -> Result<(), TargetError> {
        self.slots.iter().try_for_each(|slot| {
            // SAFETY: a shared file mapping: MADV_DONTNEED only unmaps, the next access finds the same data.
            let dropped = unsafe { madvise(slot.host.cast(), slot.len as usize, MmapAdvise::MADV_DONTNEED) };
            dropped.map_err(|e| system("MADV_DONTNEED on guest memory", e))
        })
    }

    /// One of several events in the life of a page, on all of them; the number chooses.
    pub fn stir_pages(&self, which: u32) -> Result<(), TargetError> {
        /// `asm-generic/mman-common.h`; nix does not know them all.
        const PAGEOUT: i32 = 21;
        const COLLAPSE: i32 = 25;
        match which % 5 {
            0 => self.drop_pages(),
            1 => {
                self.advise(PAGEOUT);
                Ok(())
            }
            2 => {
                self.advise(COLLAPSE);
                Ok(())
            }
            3 => {
                // Huge pages are split where a single one of them goes.
                self.advise(COLLAPSE);
                let first = &self.slots[0];
                // SAFETY: as in `drop_pages`, on the first page.
                let dropped = unsafe { madvise(first.host.cast(), PAGE as usize, MmapAdvise::MADV_DONTNEED) };
                dropped.map_err(|e| system("MADV_DONTNEED on a guest page", e))
            }
            _ => self.slots.iter().try_for_each(Slot::protect_and_back),
        }
    }

    /// What the kernel may do or leave undone: a refusal, for want of memory or of swap, changes nothing.
    fn advise(&self, advice: i32) {
        for slot in &self.slots {
            // SAFETY: the mapping is ours, and the advice keeps its data.
            let _ = unsafe { nix::libc::madvise(slot.host.as_ptr().cast(), slot.len as usize, advice) };
        }
    }

    /// Maps all memory elsewhere in the host and gives it to KVM anew: its memslots go for a moment.
    pub fn rehost(&mut self, vm: &VmFd) -> Result<(), TargetError> {
        let mut offset = 0;
        for index in 0..self.slots.len() {
            let len = self.slots[index].len;
            let host = self.map_at(offset, len)?;
            offset += len;
            let slot = &mut self.slots[index];
            if slot.present {
                slot.tell(vm, 0)?;
            }
            let old = std::mem::replace(&mut slot.host, host);
            if slot.present {
                slot.tell(vm, slot.shown)?;
            }
            // SAFETY: made by `map_at` with this length; KVM has been told of the new one, and nobody else has it.
            unsafe { munmap(old.cast(), len as usize) }.map_err(|e| system("munmap of guest memory", e))?;
        }
        Ok(())
    }

    /// An unrelated memslot of one page comes and goes.
    pub fn flicker(&self, vm: &VmFd) -> Result<(), TargetError> {
        let ram = self.slot("ram")?;
        let mut region = kvm_userspace_memory_region {
            slot: FLICKER_SLOT,
            guest_phys_addr: FLICKER_GPA,
            ..ram.region(PAGE)
        };
        region.flags = 0;
        set_region(vm, region)?;
        region.memory_size = 0;
        set_region(vm, region)
    }
}

impl Slot {
    /// Makes the pages read-only for the host, and so for the guest, and writable again.
    fn protect_and_back(&self) -> Result<(), TargetError> {
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        for prot in [ProtFlags::PROT_READ, both] {
            // SAFETY: the mapping is ours; whoever else copies into it does so on this thread.
            let done = unsafe { mprotect(self.host.cast(), self.len as usize, prot) };
            done.map_err(|e| system("mprotect of guest memory", e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::new(0x2000, false, &[]).unwrap()
    }

    #[test]
    fn dropped_pages_keep_their_data() {
        let memory = memory();
        assert!(memory.write(0x1000, b"kept"));
        memory.drop_pages().unwrap();
        let mut bytes = [0; 4];
        assert!(memory.read(0x1000, &mut bytes));
        assert_eq!(&bytes, b"kept");
    }

    #[test]
    fn pages_keep_their_data_whatever_happens_to_them() {
        let memory = memory();
        assert!(memory.write(0xffe, b"kept"));
        for which in 0..5 {
            memory.stir_pages(which).unwrap();
            let mut bytes = [0; 4];
            assert!(memory.read(0xffe, &mut bytes));
            assert_eq!(&bytes, b"kept", "{which}");
        }
    }
}
