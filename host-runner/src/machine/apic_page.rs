//! The APIC-access page: shared anonymous memory that kvm_intel puts into this process
//! (SDM vol. 3, "APIC-access Address"; commit e649b3f0188f is about losing it).
//!
//! Freeing it (MADV_REMOVE: MADV_DONTNEED would only drop the mapping, and the same page would come
//! back) makes KVM look for it anew. The freed frame is taken meanwhile, so that the page really moves.
#![expect(unsafe_code, reason = "madvise on a mapping that KVM made in this process")]

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

const PAGE: usize = 4096;

/// Frees the APIC-access page, if there is one, and takes the frames that it might get back.
pub fn churn() {
    let Some(page) = find() else { return };
    // SAFETY: `find` names a page of shared memory that KVM made for the local APIC's accesses; its
    // content means nothing to this process, and nothing here holds a reference into it.
    let removed = unsafe { madvise(page.cast(), PAGE, MmapAdvise::MADV_REMOVE) };
    if removed.is_ok() {
        take_frames();
    }
}

/// An empty 4 KiB `rw-s` mapping of deleted `/dev/zero` is the page.
fn find() -> Option<NonNull<u8>> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    // Without unrestricted guest, kvm_intel keeps the page table of its identity map in such a page too;
    // that one is not empty, and a guest without paging needs it.
    // SAFETY: a readable page of this process, read once by a volatile copy.
    let empty = |page: &NonNull<u8>| unsafe { page.cast::<u32>().as_ptr().read_volatile() } == 0;
    maps.lines()
        .filter_map(|line| {
            if !(line.contains(" rw-s ") && line.ends_with("/dev/zero (deleted)")) {
                return None;
            }
            let (start, end) = line.split_whitespace().next()?.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            (end - start == PAGE).then(|| NonNull::new(start as *mut u8))?
        })
        .find(empty)
}

/// Touches and releases a few fresh pages.
fn take_frames() {
    const PAGES: usize = 16;
    let Some(size) = NonZeroUsize::new(PAGES * PAGE) else { return };
    // SAFETY: a new private mapping at an address of the kernel's choice, written within its size and
    // unmapped before anybody else learns of it.
    unsafe {
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        if let Ok(fresh) = mmap_anonymous(None, size, prot, MapFlags::MAP_PRIVATE) {
            for page in 0..PAGES {
                fresh.cast::<u8>().as_ptr().add(page * PAGE).write_volatile(1);
            }
            let _ = munmap(fresh, size.get());
        }
    }
}
