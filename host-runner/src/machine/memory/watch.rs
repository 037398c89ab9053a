//! Which pages of guest memory change, and which of them by the host's own hand.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::{Memory, PAGE, Slot};
use crate::play::TargetError;
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY};
use kvm_ioctls::VmFd;

/// A page: index of the slot, page in it.
pub type PageOf = (usize, u32);

/// What memory held when watching began, and what the host has written since.
pub(super) struct Watch {
    /// The bytes of each slot that is watched.
    copies: Vec<Option<Vec<u8>>>,
    by_host: BTreeSet<PageOf>,
}

impl Memory {
    /// Turns dirty logging on wherever the guest can write, and remembers what is there.
    pub fn watch(&mut self, vm: &VmFd) -> Result<(), TargetError> {
        let writable = |slot: &Slot| slot.present && slot.flags & KVM_MEM_READONLY == 0;
        for slot in self.slots.iter_mut().filter(|slot| writable(slot)) {
            slot.flags |= KVM_MEM_LOG_DIRTY_PAGES;
            slot.tell(vm, slot.shown)?;
        }
        let copy = |index: usize, slot: &Slot| {
            let mut bytes = vec![0; slot.len as usize];
            self.copy_slot(index, &mut bytes);
            bytes
        };
        let slots = self.slots.iter().enumerate();
        let copies = slots.map(|(index, slot)| writable(slot).then(|| copy(index, slot))).collect();
        let watch = Watch { copies, by_host: BTreeSet::new() };
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        Ok(())
    }

    /// The pages that have changed since [`watch`](Self::watch), but for those that the host wrote to.
    pub fn changed(&self) -> Vec<PageOf> {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watch) = watch.as_ref() else { return Vec::new() };
        let mut changed = Vec::new();
        for (index, before) in watch.copies.iter().enumerate() {
            let Some(before) = before else { continue };
            let mut now = vec![0; before.len()];
            self.copy_slot(index, &mut now);
            let pages = before.chunks(PAGE as usize).zip(now.chunks(PAGE as usize)).enumerate();
            let differing = pages.filter(|(_, (before, now))| before != now);
            changed.extend(differing.map(|(page, _)| (index, page as u32)));
        }
        changed.retain(|page| !watch.by_host.contains(page));
        changed
    }

    /// Turns dirty logging off.
    pub fn unwatch(&mut self, vm: &VmFd) -> Result<(), TargetError> {
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = None;
        for slot in self.slots.iter_mut().filter(|slot| slot.flags & KVM_MEM_LOG_DIRTY_PAGES != 0) {
            slot.flags &= !KVM_MEM_LOG_DIRTY_PAGES;
            slot.tell(vm, slot.shown)?;
        }
        Ok(())
    }

    /// The slots that are logged: index, name.
    pub fn logged(&self) -> Vec<(usize, String)> {
        let slots = self.slots.iter().enumerate();
        let logged = slots.filter(|(_, slot)| slot.present && slot.flags & KVM_MEM_LOG_DIRTY_PAGES != 0);
        logged.map(|(index, slot)| (index, slot.name.clone())).collect()
    }

    /// What people call a page.
    pub fn page_name(&self, (slot, page): PageOf) -> String {
        let slot = &self.slots[slot];
        format!("page {page:#x} of `{}` ({:#x})", slot.name, slot.gpa + u64::from(page) * PAGE)
    }

    /// Copies from the beginning of a slot.
    pub(super) fn copy_slot(&self, index: usize, into: &mut [u8]) {
        let slot = &self.slots[index];
        let len = into.len().min(slot.len as usize);
        // SAFETY: the mapping has `len` bytes; the buffer is private.
        unsafe { std::ptr::copy_nonoverlapping(slot.host.as_ptr(), into.as_mut_ptr(), len) };
    }

    /// The host writes.
    pub(super) fn note_write(&self, slot: usize, at: u64, len: usize) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watch.as_mut()
            && len > 0
        {
            let pages = at / PAGE..=(at + len as u64 - 1) / PAGE;
            watch.by_host.extend(pages.map(|page| (slot, page as u32)));
        }
    }
}
