//! Page-table edits: the loader's tables, found by what the host says and reached through the map of physical memory.
#![expect(unsafe_code, reason = "page tables")]

use core::arch::asm;

use x86_64::structures::paging::{PageTable, PageTableFlags, page_table::PageTableEntry};
use x86_64::{PhysAddr, VirtAddr};

use crate::entry;

/// Flags of a page.
pub use x86_64::structures::paging::PageTableFlags as Flags;

/// Changes the flags of the 4 KiB page that maps `address`; `None` if no such page is there. The TLB entry
/// is dropped.
///
/// # Safety
/// Rust's own code, data and stack stay mapped as they are.
pub unsafe fn change(address: u64, with: impl FnOnce(PageTableFlags) -> PageTableFlags) -> Option<()> {
    // SAFETY: the caller's promise.
    let entry = unsafe { leaf(address, PageTableFlags::empty()) }?;
    let flags = with(entry.flags());
    entry.set_flags(flags);
    flush(address);
    Some(())
}

/// Lets ring 3 use the 4 KiB page at `address`, and write to it if `writable`.
///
/// # Safety
/// As for [`change`].
pub unsafe fn open_to_user(address: u64, writable: bool) -> Option<()> {
    // SAFETY: the caller's promise.
    let entry = unsafe { leaf(address, PageTableFlags::USER_ACCESSIBLE) }?;
    let more = if writable { PageTableFlags::WRITABLE } else { PageTableFlags::empty() };
    entry.set_flags(entry.flags() | PageTableFlags::USER_ACCESSIBLE | more);
    flush(address);
    Some(())
}

/// Makes the 4 KiB page at `address` show the frame at `gpa`; `None` if no such page is there.
///
/// # Safety
/// As for [`change`].
pub unsafe fn redirect(address: u64, gpa: u64) -> Option<()> {
    // SAFETY: the caller's promise.
    let entry = unsafe { leaf(address, PageTableFlags::empty()) }?;
    let flags = entry.flags();
    entry.set_addr(PhysAddr::new(gpa & 0x000f_ffff_ffff_f000), flags);
    flush(address);
    Some(())
}

/// Where the entry of the 4 KiB page at `address` lies; `None` if no such page is there.
///
/// # Safety
/// As for [`change`], for whoever writes to it.
pub unsafe fn entry(address: u64) -> Option<u64> {
    // SAFETY: the caller's promise.
    unsafe { leaf(address, PageTableFlags::empty()) }.map(|entry| &raw const *entry as u64)
}

/// The entry of the 4 KiB page at `address`, with `upper` added to the tables above it. Its content may be
/// changed by the CPU (accessed, dirty) at any time.
unsafe fn leaf(address: u64, upper: PageTableFlags) -> Option<&'static mut PageTableEntry> {
    let address = VirtAddr::new(address);
    let mut table = entry::page_tables();
    for index in [address.p4_index(), address.p3_index(), address.p2_index()] {
        // SAFETY: the loader's tables lie in RAM, which is mapped; scenarios run one at a time.
        let entry = unsafe { &mut (&mut *entry::physical::<PageTable>(table))[index] };
        let flags = entry.flags();
        if !flags.contains(PageTableFlags::PRESENT) || flags.contains(PageTableFlags::HUGE_PAGE) {
            return None;
        }
        entry.set_flags(flags | upper);
        table = entry.addr().as_u64();
    }
    // SAFETY: as above.
    Some(unsafe { &mut (&mut *entry::physical::<PageTable>(table))[address.p1_index()] })
}

/// INVLPG.
pub fn flush(address: u64) {
    // SAFETY: dropping a TLB entry never changes what is mapped.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}
