//! The pages that a VMCB names: permission maps of ports and MSRs, and nested page tables.
#![expect(unsafe_code, reason = "pages that the CPU reads")]

use core::cell::UnsafeCell;

use super::PAGE;

/// Pages without Rust values in them, for the CPU. Their addresses are physical ones too, since images are
/// identity-mapped.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(super) struct Pages<const BYTES: usize>(UnsafeCell<[u8; BYTES]>);

/// One of them.
pub(super) type Page = Pages<PAGE>;

// SAFETY: accessed by volatile reads and writes only, by one CPU: there is one L2.
unsafe impl<const BYTES: usize> Sync for Pages<BYTES> {}

impl<const BYTES: usize> Pages<BYTES> {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new([0; BYTES]))
    }

    pub(super) fn bytes(&self) -> *mut u8 {
        self.0.get().cast()
    }

    pub(super) fn address(&self) -> u64 {
        self.bytes() as u64
    }

    pub(super) fn clear(&self) {
        for at in 0..BYTES / 8 {
            self.set_word(at, 0);
        }
    }

    /// The 64-bit word with this number.
    fn word(&self, at: usize) -> u64 {
        // SAFETY: `checked` keeps it inside; nobody holds a reference.
        unsafe { self.checked(at).read_volatile() }
    }

    fn set_word(&self, at: usize, value: u64) {
        // SAFETY: as for reading.
        unsafe { self.checked(at).write_volatile(value) }
    }

    fn checked(&self, at: usize) -> *mut u64 {
        assert!(at < BYTES / 8);
        self.bytes().cast::<u64>().wrapping_add(at)
    }

    /// Sets or clears a bit, counted from the first byte's bit 0.
    fn set_bit(&self, bit: usize, on: bool) {
        let (at, mask) = (bit / 64, 1 << (bit % 64));
        self.set_word(at, if on { self.word(at) | mask } else { self.word(at) & !mask });
    }
}

/// The I/O permission map (APM vol. 2, 15.10.1): a bit for each port, 1 to intercept it. For the host: `at svm_iopm`.
#[unsafe(export_name = "svm_iopm")]
pub(super) static IOPM: Pages<{ 3 * PAGE }> = Pages::new();
/// The MSR permission map (APM vol. 2, 15.11): two bits for each MSR, that of reads first.
pub(super) static MSRPM: Pages<{ 2 * PAGE }> = Pages::new();

/// Intercepts a port, or no longer.
pub(super) fn set_port(port: u16, intercept: bool) {
    IOPM.set_bit(port.into(), intercept);
}

/// Intercepts reads and writes of an MSR, or no longer. An MSR that the map does not cover always exits.
pub(super) fn set_msr(msr: u32, read: bool, write: bool) {
    let first = match msr >> 16 {
        0 => 0,
        0xc000 => 0x800,
        0xc001 => 0x1000,
        _ => return,
    };
    let bit = first * 8 + 2 * (msr as usize & 0x1fff);
    MSRPM.set_bit(bit, read);
    MSRPM.set_bit(bit + 1, write);
}

/// Nested page tables for all below 4 GiB, identity-mapped: the first 4 MiB by 4 KiB pages, so that single
/// ones can be broken, the rest by 2 MiB pages.
static TABLES: [Page; 8] = [const { Page::new() }; 8];
// Which of the tables is what: the root, the pointers below it, a directory for each GiB, two last tables.
const ROOT: usize = 0;
const POINTERS: usize = 1;
const FIRST_DIRECTORY: usize = 2;
const FIRST_TABLE: usize = 6;
const ENTRIES: usize = 512;

/// Present, writable, user: the nested walk is always a user's (APM vol. 2, 15.25.5).
pub(super) const OPEN: u64 = 0b111;
const LARGE: u64 = 1 << 7;

/// Writes the nested page tables anew; the root's address.
pub(super) fn build_nested() -> u64 {
    for table in &TABLES {
        table.clear();
    }
    TABLES[ROOT].set_word(0, TABLES[POINTERS].address() | OPEN);
    for gib in 0..4 {
        let directory = &TABLES[FIRST_DIRECTORY + gib];
        TABLES[POINTERS].set_word(gib, directory.address() | OPEN);
        for entry in 0..ENTRIES {
            directory.set_word(entry, ((gib * ENTRIES + entry) as u64) << 21 | LARGE | OPEN);
        }
    }
    for (number, table) in TABLES[FIRST_TABLE..].iter().enumerate() {
        TABLES[FIRST_DIRECTORY].set_word(number, table.address() | OPEN);
        for entry in 0..ENTRIES {
            table.set_word(entry, ((number * ENTRIES + entry) as u64) << 12 | OPEN);
        }
    }
    TABLES[ROOT].address()
}

/// Changes the nested entry of the page at `gpa`, which has 4 KiB below 4 MiB and 2 MiB above.
pub(super) fn change_nested(gpa: u64, with: impl FnOnce(u64) -> u64) {
    let page = (gpa >> 12) as usize;
    let (table, entry) = if page < 2 * ENTRIES {
        (FIRST_TABLE + page / ENTRIES, page % ENTRIES)
    } else {
        let large = page / ENTRIES;
        (FIRST_DIRECTORY + large / ENTRIES, large % ENTRIES)
    };
    let table = &TABLES[table];
    table.set_word(entry, with(table.word(entry)));
}
