//! The page tables that a guest starts on: 4-level paging (SDM Vol. 3A, "4-Level Paging and 5-Level
//! Paging"), built in host memory for a place in guest memory.
//!
//! Knows addresses and permissions; what is mapped, and why, is `image`'s matter.

use std::ops::Range;

use x86_64::structures::paging::page_table::PageTableLevel;
use x86_64::structures::paging::{PageTable, PageTableFlags};
use x86_64::{PhysAddr, VirtAddr};

use super::config::PHYSICAL_MEMORY;
use super::segment::PAGE;

/// Size of the pages that show physical memory, bytes.
const LARGE_PAGE: u64 = 2 << 20;

/// From here to 4 GiB there is no RAM but devices: the local APIC, the I/O APIC, PCI.
pub(super) const DEVICES: u64 = 0xc000_0000;

/// Flags of a page that holds data.
pub(super) const DATA: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::NO_EXECUTE);

/// Flags of an entry that refers to another table: leaves alone decide what is allowed.
const TABLE: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE);

/// Page tables that will lie, one after the other, from `base` on.
pub(super) struct PageTables {
    base: u64,
    tables: Vec<PageTable>,
}

impl PageTables {
    /// An empty level-4 table at the page-aligned guest-physical address `base`.
    pub(super) fn new(base: u64) -> Self {
        Self { base, tables: vec![PageTable::new()] }
    }

    /// Maps the whole pages in `range` at their own addresses.
    pub(super) fn map_identity(&mut self, range: Range<u64>, flags: PageTableFlags) {
        for page in range.step_by(PAGE as usize) {
            self.map(page, page, PageTableLevel::One, flags);
        }
    }

    /// Maps the first 4 GiB of physical memory at `offset`, a multiple of 2 MiB.
    ///
    /// Devices are uncached: PCD without PWT selects UC- in the PAT after reset (SDM Vol. 3A, "Page
    /// Attribute Table").
    pub(super) fn map_physical_memory(&mut self, offset: u64) {
        for phys in (0..PHYSICAL_MEMORY).step_by(LARGE_PAGE as usize) {
            let cache = if phys < DEVICES { PageTableFlags::empty() } else { PageTableFlags::NO_CACHE };
            self.map(offset + phys, phys, PageTableLevel::Two, DATA | PageTableFlags::HUGE_PAGE | cache);
        }
    }

    fn map(&mut self, virt: u64, phys: u64, leaf: PageTableLevel, flags: PageTableFlags) {
        let virt = VirtAddr::new_truncate(virt);
        let (mut table, mut level) = (0, PageTableLevel::Four);
        while level != leaf {
            table = self.next_table(table, virt, level);
            level = level.next_lower_level().unwrap_or(leaf);
        }
        let entry = &mut self.tables[table][virt.page_table_index(level)];
        debug_assert!(entry.is_unused(), "{virt:?} is mapped twice");
        entry.set_addr(PhysAddr::new_truncate(phys), flags);
    }

    /// The number of the table that covers `virt` below table `table`, made if need be.
    fn next_table(&mut self, table: usize, virt: VirtAddr, level: PageTableLevel) -> usize {
        let next = self.tables.len();
        let entry = &mut self.tables[table][virt.page_table_index(level)];
        if !entry.is_unused() {
            return ((entry.addr().as_u64() - self.base) / PAGE) as usize;
        }
        entry.set_addr(PhysAddr::new_truncate(self.base + next as u64 * PAGE), TABLE);
        self.tables.push(PageTable::new());
        next
    }

    /// The guest-physical addresses that the tables take.
    pub(super) fn range(&self) -> Range<u64> {
        self.base..self.base + self.tables.len() as u64 * PAGE
    }

    /// The tables as the processor reads them.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let entries = self.tables.iter().flat_map(PageTable::iter);
        entries.flat_map(|entry| (entry.addr().as_u64() | entry.flags().bits()).to_le_bytes()).collect()
    }
}
