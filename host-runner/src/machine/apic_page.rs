//! The APIC-access page: shared anonymous memory that kvm_intel puts into this process (SDM vol. 3, "APIC-access
//! Address"), so that a guest's accesses to its local APIC hit a page that the hardware knows.
//!
//! Freeing it (MADV_REMOVE: MADV_DONTNEED would only drop the mapping, and the same page would come back) makes KVM look
//! for it anew, and tell the hardware (commits 38b9917350cb, e649b3f0188f). The freed frame is held meanwhile, so that
//! the page really moves, and the new one is filled, so that a guest that gets to see it reads what no APIC says.
#![expect(unsafe_code, reason = "madvise and writes on a mapping that KVM made in this process")]

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::play::TargetError;

const PAGE: usize = 4096;

/// What the raw page holds every other time; the SDM leaves no register of an APIC with such a value.
const RAW: u8 = 0xa5;

/// The page, and frames that it had.
pub struct ApicPage {
    /// Its address here.
    at: usize,
    held: Held,
}

impl ApicPage {
    /// The APIC-access page of this process; `None` if KVM has made none.
    pub fn find() -> Result<Option<Self>, TargetError> {
        let Some(at) = mapped().find(|at| !is_identity_map(*at)) else { return Ok(None) };
        Ok(Some(Self { at, held: Held::new()? }))
    }

    /// Frees the page and takes the frames that it might get back. If KVM has taken it away, as for a guest that uses
    /// its APIC otherwise, nothing happens.
    pub fn churn(&mut self, round: u32) -> Result<(), TargetError> {
        if !mapped().any(|at| at == self.at) {
            return Ok(());
        }
        let Some(page) = NonNull::new(self.at as *mut u8) else { return Ok(()) };
        // SAFETY: `mapped` has just named it as a page of shared memory that KVM made; its content means nothing to this
        // process, and nothing here holds a reference into it.
        unsafe { madvise(page.cast(), PAGE, MmapAdvise::MADV_REMOVE) }
            .map_err(|error| failed("freeing the APIC-access page", error))?;
        self.held.hold();
        if round % 2 == 1 {
            // SAFETY: as above; only the hardware and the guest may see it as well.
            unsafe { page.as_ptr().write_bytes(RAW, PAGE) };
        }
        self.held.release()
    }
}

/// Forgets the pages that this process has from the one that it was forked from: those of that one's VM. What is found
/// from here on is of a VM that was made here.
pub fn disown_inherited() -> Result<(), TargetError> {
    mapped().try_for_each(disown)
}

fn disown(at: usize) -> Result<(), TargetError> {
    let Some(page) = NonNull::new(at as *mut u8) else { return Ok(()) };
    // SAFETY: `mapped` has named it as a page that KVM made in the process before; nothing in this one uses it.
    unsafe { munmap(page.cast(), PAGE) }.map_err(|error| failed("unmapping an inherited page", error))
}

/// Addresses of this process's mappings of one page of shared anonymous memory.
fn mapped() -> impl Iterator<Item = usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let found: Vec<usize> = maps.lines().filter_map(shared_page).collect();
    found.into_iter()
}

/// The address of such a page, if a line of `/proc/self/maps` tells of one.
fn shared_page(line: &str) -> Option<usize> {
    if !(line.contains(" rw-s ") && line.ends_with("/dev/zero (deleted)")) {
        return None;
    }
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    (end - start == PAGE).then_some(start)
}

/// Without unrestricted guest, kvm_intel keeps the page directory of its identity map in such a page too: pages of
/// 4 MiB, one after the other. A guest without paging needs it.
fn is_identity_map(at: usize) -> bool {
    let entries = at as *const u32;
    // SAFETY: two words of a page that `mapped` has just named, by volatile copies.
    let (first, second) = unsafe { (entries.read_volatile(), entries.add(1).read_volatile()) };
    first & 1 == 1 && second.wrapping_sub(first) == 4 << 20
}

/// Fresh pages in a ring. It is smaller than a huge page, so that each has a frame of its own.
struct Held {
    start: NonNull<u8>,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Held {}

impl Held {
    /// Pages that are taken at once.
    const BATCH: usize = 8 * PAGE;
    const SIZE: usize = 32 * Self::BATCH;

    fn new() -> Result<Self, TargetError> {
        let size = NonZeroUsize::new(Self::SIZE).ok_or_else(|| TargetError::Harness("no pages".into()))?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, size, prot, MapFlags::MAP_PRIVATE) };
        Ok(Self { start: start.map_err(|error| failed("mapping pages to hold", error))?.cast(), next: 0 })
    }

    /// Takes frames for the next batch, which has none.
    fn hold(&mut self) {
        for page in (0..Self::BATCH).step_by(PAGE) {
            // SAFETY: `next` is the offset of a batch in the mapping.
            unsafe { self.start.as_ptr().add(self.next + page).write_volatile(1) };
        }
        self.next = (self.next + Self::BATCH) % Self::SIZE;
    }

    /// Gives back the frames that were taken first.
    fn release(&mut self) -> Result<(), TargetError> {
        // SAFETY: as for `hold`; the content of private memory that nobody else has is of no use.
        let released =
            unsafe { madvise(self.start.add(self.next).cast(), Self::BATCH, MmapAdvise::MADV_DONTNEED) };
        released.map_err(|error| failed("releasing held pages", error))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this size, and used by nobody else.
        let unmapped = unsafe { munmap(self.start.cast(), Self::SIZE) };
        debug_assert!(unmapped.is_ok(), "munmap of held pages");
    }
}

fn failed(what: &str, error: nix::Error) -> TargetError {
    TargetError::Harness(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_shared_anonymous_memory_is_told_from_other_mappings() {
        let line =
            |range: &str, mode: &str, name: &str| format!("{range} {mode} 00000000 00:01 4242    {name}");
        let zero = "/dev/zero (deleted)";
        assert_eq!(shared_page(&line("7f0000001000-7f0000002000", "rw-s", zero)), Some(0x7f00_0000_1000));
        assert_eq!(shared_page(&line("7f0000001000-7f0000003000", "rw-s", zero)), None, "two pages");
        assert_eq!(shared_page(&line("7f0000001000-7f0000002000", "rw-p", zero)), None, "private");
        assert_eq!(shared_page(&line("7f0000001000-7f0000002000", "rw-s", "/memfd:x (deleted)")), None);
        assert_eq!(shared_page("gibberish"), None);
    }

    #[test]
    fn a_page_that_is_churned_is_empty_or_raw_and_the_ring_comes_round() {
        let size = NonZeroUsize::new(PAGE).unwrap();
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, as KVM makes it.
        let page = unsafe { mmap_anonymous(None, size, prot, MapFlags::MAP_SHARED) }.unwrap().cast::<u8>();
        let at = page.as_ptr() as usize;
        // SAFETY: the first byte of that mapping.
        let first = || unsafe { page.as_ptr().read_volatile() };
        // SAFETY: as above.
        unsafe { page.as_ptr().write_volatile(1) };
        let mut apic = ApicPage { at, held: Held::new().unwrap() };
        for round in 0..100 {
            apic.churn(round).unwrap();
            assert_eq!(first(), if round % 2 == 1 { RAW } else { 0 });
        }
        assert!(!is_identity_map(at));
        // SAFETY: two words of that mapping.
        unsafe {
            page.cast::<u32>().as_ptr().write_volatile(0xe7);
            page.cast::<u32>().as_ptr().add(1).write_volatile(0x40_00e7);
        }
        assert!(is_identity_map(at));
        assert!(mapped().any(|page| page == at));
        disown(at).unwrap();
        assert!(!mapped().any(|page| page == at), "a page of another VM is not found");
        apic.churn(1).unwrap();
    }
}
