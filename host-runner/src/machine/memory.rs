//! Guest memory: one memfd, mapped once per memslot.
//!
//! The data lives in the memfd, so the host may drop, move or remap pages at any time without losing
//! any. Guests write to it while the host reads: all access is by copy through raw pointers.
#![expect(unsafe_code, reason = "maps memory that a guest writes to concurrently")]

mod churn;
mod watch;

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Mutex;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::case::SlotSpec;
use crate::play::TargetError;

/// Bytes a page.
pub const PAGE: u64 = 4096;

/// A memslot: a range of guest-physical addresses and the host memory behind it.
pub struct Slot {
    /// Its name in manifests; `ram` for RAM.
    pub name: String,
    /// KVM's number for it.
    pub number: u32,
    /// Guest-physical address of the first byte.
    pub gpa: u64,
    /// Bytes of host memory.
    pub len: u64,
    /// Bytes of it that the guest sees.
    shown: u64,
    /// Whether KVM knows it at the moment.
    pub present: bool,
    /// In which of KVM's address spaces it exists.
    spaces: &'static [u32],
    flags: u32,
    host: NonNull<u8>,
}

impl Slot {
    fn region(&self, size: u64) -> kvm_userspace_memory_region {
        kvm_userspace_memory_region {
            slot: self.number,
            flags: self.flags,
            guest_phys_addr: self.gpa,
            memory_size: size,
            userspace_addr: self.host.as_ptr() as u64,
        }
    }

    /// Tells KVM of the slot, with this size, in every address space in which it exists.
    fn tell(&self, vm: &VmFd, size: u64) -> Result<(), TargetError> {
        self.numbers()
            .try_for_each(|slot| set_region(vm, kvm_userspace_memory_region { slot, ..self.region(size) }))
    }

    /// Its number in every address space in which it exists, which is in the upper half.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        self.spaces.iter().map(|space| self.number | space << 16)
    }
}

/// What to change of a slot.
#[derive(Default)]
pub struct Change {
    /// Guest-physical address.
    pub gpa: Option<u64>,
    /// Pages; 0 deletes it.
    pub pages: Option<u32>,
    /// KVM_MEM_LOG_DIRTY_PAGES.
    pub log_dirty: Option<bool>,
    /// KVM_MEM_READONLY.
    pub read_only: Option<bool>,
}

/// KVM's address spaces (KVM API, KVM_CAP_MULTI_ADDRESS_SPACE): 0 is the ordinary one, 1 that of SMM.
const ORDINARY: &[u32] = &[0];
const SMM_ONLY: &[u32] = &[1];
const BOTH: &[u32] = &[0, 1];

/// All of a VM's memory.
pub struct Memory {
    memfd: OwnedFd,
    slots: Vec<Slot>,
    /// Who writes to it, while that is wanted.
    watch: Mutex<Option<watch::Watch>>,
}

// SAFETY: the mappings belong to this value alone, and every access to them is a copy between a private
// buffer and memory that guests change at will; nothing assumes that it is stable.
unsafe impl Send for Memory {}
// SAFETY: as above; `&self` methods only copy.
unsafe impl Sync for Memory {}

impl Memory {
    /// RAM of `ram` bytes from guest-physical 0, and the declared slots, all of them visible in SMM too if there is
    /// an SMM. Nothing is given to KVM yet.
    pub fn new(ram: u64, smm: bool, slots: &[SlotSpec]) -> Result<Self, TargetError> {
        let everywhere = if smm { BOTH } else { ORDINARY };
        let total = ram + slots.iter().map(|slot| u64::from(slot.pages) * PAGE).sum::<u64>();
        let mut memory = Self::without_slots(total)?;
        memory.map("ram", 0, ram, 0, true, everywhere)?;
        for spec in slots {
            let flags = if spec.read_only { KVM_MEM_READONLY } else { 0 }
                | if spec.log_dirty { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
            let len = u64::from(spec.pages) * PAGE;
            let spaces = if spec.smram { SMM_ONLY } else { everywhere };
            memory.map(&spec.name, spec.gpa, len, flags, spec.present, spaces)?;
            if spec.fill != 0 {
                let page = [spec.fill; PAGE as usize];
                for at in (0..len).step_by(PAGE as usize) {
                    memory.write_slot(memory.slots.len() - 1, at, &page);
                }
            }
        }
        Ok(memory)
    }

    /// So many bytes, in which no slot is yet.
    fn without_slots(total: u64) -> Result<Self, TargetError> {
        let memfd =
            memfd_create(c"exitspec-guest", MFdFlags::MFD_CLOEXEC).map_err(|e| system("memfd_create", e))?;
        nix::unistd::ftruncate(&memfd, total.cast_signed())
            .map_err(|e| system("ftruncate of guest memory", e))?;
        Ok(Self { memfd, slots: Vec::new(), watch: Mutex::new(None) })
    }

    fn map(
        &mut self,
        name: &str,
        gpa: u64,
        len: u64,
        flags: u32,
        present: bool,
        spaces: &'static [u32],
    ) -> Result<(), TargetError> {
        let offset = self.slots.iter().map(|slot| slot.len).sum::<u64>();
        let host = self.map_at(offset, len)?;
        let number = self.slots.len() as u32;
        self.slots.push(Slot {
            name: name.into(),
            number,
            gpa,
            len,
            shown: len,
            present,
            spaces,
            flags,
            host,
        });
        Ok(())
    }

    fn map_at(&self, offset: u64, len: u64) -> Result<NonNull<u8>, TargetError> {
        let size = usize::try_from(len).ok().and_then(NonZeroUsize::new);
        let size = size.ok_or_else(|| TargetError::Harness(format!("a memslot of {len} bytes")))?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let host =
            unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, self.memfd.as_fd(), offset.cast_signed()) };
        Ok(host.map_err(|e| system("mmap of guest memory", e))?.cast())
    }

    /// All bytes of all slots, present or not.
    pub fn contents(&self) -> Vec<u8> {
        let total = self.slots.iter().map(|slot| slot.len).sum::<u64>();
        let mut bytes = vec![0; total as usize];
        let mut at = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            let end = at + slot.len as usize;
            self.copy_slot(index, &mut bytes[at..end]);
            at = end;
        }
        bytes
    }

    /// Memory of the same slots with other host memory behind them, which holds these bytes.
    pub fn copy(&self, contents: &[u8]) -> Result<Self, TargetError> {
        let mut memory = Self::without_slots(contents.len() as u64)?;
        for old in &self.slots {
            memory.map(&old.name, old.gpa, old.len, old.flags, old.present, old.spaces)?;
            if let Some(new) = memory.slots.last_mut() {
                new.shown = old.shown;
            }
        }
        let mut at = 0;
        for index in 0..memory.slots.len() {
            let end = at + memory.slots[index].len as usize;
            let part = contents.get(at..end).ok_or_else(|| {
                TargetError::Harness("a VM's memory through a pipe: not all of it came".into())
            })?;
            memory.write_slot(index, 0, part);
            at = end;
        }
        Ok(memory)
    }

    /// Tells KVM of every slot that is present.
    pub fn register(&self, vm: &VmFd) -> Result<(), TargetError> {
        self.slots.iter().filter(|slot| slot.present).try_for_each(|slot| slot.tell(vm, slot.shown))
    }

    /// The slot called `name`.
    pub fn slot(&self, name: &str) -> Result<&Slot, TargetError> {
        self.slots.iter().find(|slot| slot.name == name).ok_or_else(|| no_slot(name))
    }

    fn slot_mut(&mut self, name: &str) -> Result<&mut Slot, TargetError> {
        self.slots.iter_mut().find(|slot| slot.name == name).ok_or_else(|| no_slot(name))
    }

    /// Creates a declared slot in KVM.
    pub fn create(&mut self, vm: &VmFd, name: &str) -> Result<(), TargetError> {
        let slot = self.slot_mut(name)?;
        slot.present = true;
        slot.shown = slot.len;
        slot.tell(vm, slot.shown)
    }

    /// Deletes a slot from KVM; its content stays.
    pub fn delete(&mut self, vm: &VmFd, name: &str) -> Result<(), TargetError> {
        let slot = self.slot_mut(name)?;
        slot.present = false;
        slot.tell(vm, 0)
    }

    /// Moves a slot to another guest-physical address.
    pub fn relocate(&mut self, vm: &VmFd, name: &str, gpa: u64) -> Result<(), TargetError> {
        let slot = self.slot_mut(name)?;
        slot.gpa = gpa;
        slot.tell(vm, slot.shown)
    }

    /// Tells KVM of a slot as it is now but for the change; `Some(errno)`, and no change, if KVM refuses.
    pub fn change(&mut self, vm: &VmFd, name: &str, change: &Change) -> Result<Option<i32>, TargetError> {
        let slot = self.slot_mut(name)?;
        let len = change.pages.map_or(slot.len, |pages| u64::from(pages) * PAGE);
        if len > slot.len {
            return Err(TargetError::Harness(format!("memslot `{name}` has no {len} bytes")));
        }
        let (gpa, flags) = (slot.gpa, slot.flags);
        slot.gpa = change.gpa.unwrap_or(gpa);
        for (flag, on) in [(KVM_MEM_LOG_DIRTY_PAGES, change.log_dirty), (KVM_MEM_READONLY, change.read_only)]
        {
            match on {
                Some(true) => slot.flags |= flag,
                Some(false) => slot.flags &= !flag,
                None => {}
            }
        }
        let told = slot.numbers().try_for_each(|number| {
            let region = kvm_userspace_memory_region { slot: number, ..slot.region(len) };
            // SAFETY: as in `set_region`.
            unsafe { vm.set_user_memory_region(region) }
        });
        if let Err(error) = told {
            (slot.gpa, slot.flags) = (gpa, flags);
            return Ok(Some(error.errno()));
        }
        slot.present = len != 0;
        slot.shown = len;
        Ok(None)
    }

    /// Copies out of guest-physical memory; `false` if a byte of it is in no present slot.
    pub fn read(&self, gpa: u64, into: &mut [u8]) -> bool {
        self.pieces(gpa, into.len()).is_some_and(|pieces| {
            let mut done = 0;
            for (slot, at, len) in pieces {
                // SAFETY: `pieces` keeps `at + len` inside the slot's mapping; the buffer is private.
                unsafe {
                    let from = self.slots[slot].host.as_ptr().add(at);
                    std::ptr::copy_nonoverlapping(from, into[done..].as_mut_ptr(), len);
                }
                done += len;
            }
            true
        })
    }

    /// Copies into guest-physical memory; `false`, and nothing written, if a byte of it is in no present slot.
    pub fn write(&self, gpa: u64, from: &[u8]) -> bool {
        self.pieces(gpa, from.len()).is_some_and(|pieces| {
            let mut done = 0;
            for (slot, at, len) in pieces {
                self.write_slot(slot, at as u64, &from[done..done + len]);
                done += len;
            }
            true
        })
    }

    fn write_slot(&self, slot: usize, at: u64, from: &[u8]) {
        self.note_write(slot, at, from.len());
        let slot = &self.slots[slot];
        assert!(at + from.len() as u64 <= slot.len, "a write beyond memslot `{}`", slot.name);
        // SAFETY: the assertion keeps the write inside the slot's mapping; the source is private.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), slot.host.as_ptr().add(at as usize), from.len());
        };
    }

    /// The slots behind a range: index, offset in it, bytes.
    fn pieces(&self, gpa: u64, len: usize) -> Option<Vec<(usize, usize, usize)>> {
        let end = gpa.checked_add(len as u64)?;
        let mut pieces = Vec::with_capacity(1);
        let mut at = gpa;
        while at < end {
            let holds = |slot: &Slot| slot.present && slot.gpa <= at && at - slot.gpa < slot.shown;
            let index = self.slots.iter().position(holds)?;
            let slot = &self.slots[index];
            let here = (end - at).min(slot.gpa + slot.shown - at);
            pieces.push((index, (at - slot.gpa) as usize, here as usize));
            at += here;
        }
        Some(pieces)
    }

    /// KVM_GET_DIRTY_LOG: numbers of the pages written since it was last asked, in or outside of SMM.
    pub fn dirty_pages(&self, vm: &VmFd, name: &str) -> Result<Vec<u32>, TargetError> {
        let slot = self.slot(name)?;
        // Each address space has its own log of the same memory.
        let logs = slot.numbers().map(|number| {
            vm.get_dirty_log(number, slot.len as usize).map_err(|e| TargetError::Ioctl {
                what: format!("KVM_GET_DIRTY_LOG of slot `{name}` ({number:#x})"),
                error: e.to_string(),
            })
        });
        let logs: Vec<Vec<u64>> = logs.collect::<Result<_, _>>()?;
        Ok(in_any(&logs, (slot.len / PAGE) as u32))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for slot in &self.slots {
            // SAFETY: the mapping was made by `map_at` with this length and is used by nobody else: the
            // machine drops its VM, and with it KVM's use of the address, before its memory.
            let unmapped = unsafe { munmap(slot.host.cast(), slot.len as usize) };
            debug_assert!(unmapped.is_ok(), "munmap of guest memory");
        }
    }
}

/// The pages that are set in one bitmap at least.
fn in_any(logs: &[Vec<u64>], pages: u32) -> Vec<u32> {
    let is_set = |log: &Vec<u64>, page: u32| {
        log.get(page as usize / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
    };
    (0..pages).filter(|&page| logs.iter().any(|log| is_set(log, page))).collect()
}

fn set_region(vm: &VmFd, region: kvm_userspace_memory_region) -> Result<(), TargetError> {
    // SAFETY: the region's host memory is one of our mappings, which outlives the VM.
    unsafe { vm.set_user_memory_region(region) }.map_err(|e| TargetError::Ioctl {
        what: format!(
            "KVM_SET_USER_MEMORY_REGION of slot {} ({:#x} bytes at {:#x})",
            region.slot, region.memory_size, region.guest_phys_addr
        ),
        error: e.to_string(),
    })
}

fn no_slot(name: &str) -> TargetError {
    TargetError::Harness(format!("there is no memslot `{name}`"))
}

fn system(what: &str, error: nix::Error) -> TargetError {
    TargetError::Harness(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let slot = |name: &str, gpa, present| SlotSpec {
            name: name.into(),
            gpa,
            pages: 1,
            read_only: false,
            log_dirty: false,
            present,
            smram: false,
            fill: 0xaa,
        };
        Memory::new(0x2000, false, &[slot("next", 0x2000, true), slot("absent", 0x3000, false)]).unwrap()
    }

    #[test]
    fn access_crosses_slots_and_stops_at_holes() {
        let memory = memory();
        let mut bytes = [0; 4];
        assert!(memory.write(0x1ffe, &[1, 2, 3, 4]));
        assert!(memory.read(0x1ffe, &mut bytes));
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert!(memory.read(0x2002, &mut bytes));
        assert_eq!(bytes, [0xaa; 4], "the slot's fill");
        assert!(!memory.write(0x2ffe, &[9; 4]), "the next slot is absent");
        assert!(memory.read(0x2ffc, &mut bytes));
        assert_eq!(bytes, [0xaa; 4], "a refused write writes nothing");
        assert!(!memory.read(u64::MAX - 1, &mut bytes));
    }

    #[test]
    fn a_page_is_dirty_if_one_address_space_says_so() {
        assert_eq!(in_any(&[vec![0b01, 1], vec![0b10]], 66), [0, 1, 64]);
        assert_eq!(in_any(&[vec![0b111]], 2), [0, 1], "no page beyond the slot");
        let slot = |name: &str, smram| SlotSpec {
            name: name.into(),
            gpa: 0x2000,
            pages: 1,
            read_only: false,
            log_dirty: true,
            present: true,
            smram,
            fill: 0,
        };
        let memory = Memory::new(0x2000, true, &[slot("both", false), slot("smram", true)]).unwrap();
        let numbers = |name: &str| memory.slot(name).unwrap().numbers().collect::<Vec<_>>();
        assert_eq!(numbers("both"), [1, 0x1_0001]);
        assert_eq!(numbers("smram"), [0x1_0002]);
    }
}
