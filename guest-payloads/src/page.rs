//! Pages that a CPU reads by physical address: what control structures name, and second-level page tables.
//!
//! Knows neither SVM nor VMX.
#![expect(unsafe_code, reason = "pages that the CPU reads")]

use core::cell::UnsafeCell;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Pages without Rust values in them, for the CPU. Their addresses are physical ones too, since images are
/// identity-mapped.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Pages<const BYTES: usize>(UnsafeCell<[u8; BYTES]>);

/// One of them.
pub(crate) type Page = Pages<PAGE>;

// SAFETY: accessed by volatile reads and writes only, by one CPU: there is one L2.
unsafe impl<const BYTES: usize> Sync for Pages<BYTES> {}

impl<const BYTES: usize> Pages<BYTES> {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new([0; BYTES]))
    }

    /// Where `offset` bytes from the start are, as pointer to a `T`.
    pub(crate) fn at<T>(&self, offset: usize) -> *mut T {
        (&raw const *self).cast_mut().wrapping_byte_add(offset).cast()
    }

    pub(crate) fn address(&self) -> u64 {
        self.0.get() as u64
    }

    pub(crate) fn clear(&self) {
        for at in 0..BYTES / 8 {
            self.set_word(at, 0);
        }
    }

    /// The 64-bit word with this number.
    pub(crate) fn word(&self, at: usize) -> u64 {
        // SAFETY: `checked` keeps it inside; nobody holds a reference.
        unsafe { self.checked(at).read_volatile() }
    }

    pub(crate) fn set_word(&self, at: usize, value: u64) {
        // SAFETY: as for reading.
        unsafe { self.checked(at).write_volatile(value) }
    }

    fn checked(&self, at: usize) -> *mut u64 {
        assert!(at < BYTES / 8);
        self.at(8 * at)
    }

    /// Sets or clears a bit, counted from the first byte's bit 0.
    pub(crate) fn set_bit(&self, bit: usize, on: bool) {
        let (at, mask) = (bit / 64, 1 << (bit % 64));
        self.set_word(at, if on { self.word(at) | mask } else { self.word(at) & !mask });
    }
}

/// Second-level page tables for all below 4 GiB, identity-mapped: the first 4 MiB by 4 KiB pages, so that single
/// ones can be broken, the rest by 2 MiB pages.
#[derive(Debug)]
pub(crate) struct Identity(Pages<{ 8 * PAGE }>);

// Which of the tables is what: the root, the pointers below it, a directory for each GiB, two last tables.
const ROOT: usize = 0;
const POINTERS: usize = 1;
const FIRST_DIRECTORY: usize = 2;
const FIRST_TABLE: usize = 6;
const LAST_TABLES: usize = 2;
const ENTRIES: usize = 512;

/// In a directory: a page of 2 MiB.
const LARGE: u64 = 1 << 7;

impl Identity {
    pub(crate) const fn new() -> Self {
        Self(Pages::new())
    }

    /// Writes the tables anew, with `table` in entries that lead to a table and `page` in those of pages; the root's
    /// address.
    pub(crate) fn build(&self, table: u64, page: u64) -> u64 {
        self.0.clear();
        self.set(ROOT, 0, self.address(POINTERS) | table);
        for gib in 0..4 {
            self.set(POINTERS, gib, self.address(FIRST_DIRECTORY + gib) | table);
            for entry in 0..ENTRIES {
                let large = (gib * ENTRIES + entry) as u64;
                self.set(FIRST_DIRECTORY + gib, entry, large << 21 | LARGE | page);
            }
        }
        for number in 0..LAST_TABLES {
            self.set(FIRST_DIRECTORY, number, self.address(FIRST_TABLE + number) | table);
            for entry in 0..ENTRIES {
                let small = (number * ENTRIES + entry) as u64;
                self.set(FIRST_TABLE + number, entry, small << 12 | page);
            }
        }
        self.address(ROOT)
    }

    /// Changes the entry of the page at `gpa`, which has 4 KiB below 4 MiB and 2 MiB above; the new entry.
    pub(crate) fn change(&self, gpa: u64, with: impl FnOnce(u64) -> u64) -> u64 {
        let page = (gpa >> 12) as usize;
        let (table, entry) = if page < LAST_TABLES * ENTRIES {
            (FIRST_TABLE + page / ENTRIES, page % ENTRIES)
        } else {
            let large = page / ENTRIES;
            (FIRST_DIRECTORY + large / ENTRIES, large % ENTRIES)
        };
        let new = with(self.0.word(table * ENTRIES + entry));
        self.set(table, entry, new);
        new
    }

    fn set(&self, table: usize, entry: usize, value: u64) {
        self.0.set_word(table * ENTRIES + entry, value);
    }

    fn address(&self, table: usize) -> u64 {
        self.0.address() + (table * PAGE) as u64
    }
}
