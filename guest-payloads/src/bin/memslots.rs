//! A guest that uses memory which the host adds, changes and takes away.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "memory of the host's memslots")]
guest::payload!();

use core::arch::asm;

use guest::report::value;
use guest::{arg, mmio, pio};

/// Where the memslots are.
const SLOT: u64 = 0x1100_0000;

fn address(page: u64) -> u64 {
    guest::physical::<u8>(arg("gpa").unwrap_or(SLOT) + 0x1000 * page) as u64
}

fn load(page: u64) -> u64 {
    // SAFETY: no Rust values lie there.
    unsafe { mmio::read32(address(page)).into() }
}

fn store(page: u64, data: u32) {
    // SAFETY: as for `load`.
    unsafe { mmio::write32(address(page), data) };
}

guest::real_mode! {
    /// Halts, in real mode.
    real_halt: "hlt", "jmp real_halt"
}

guest::scenario! {
    /// Loads from the slot behind each of `rounds` OUTs.
    fn loads() {
        for _ in 0..arg("rounds").unwrap_or(2) {
            pio::out8(0x80, 0);
            value("loaded", load(0));
        }
    }

    /// Stores to the slot's first page and loads from it, behind each of `rounds` OUTs.
    fn stores() {
        for round in 1..=arg("rounds").unwrap_or(2) {
            pio::out8(0x80, 0);
            store(0, round as u32);
            value("loaded", load(0));
        }
    }

    /// Behind each OUT: stores to the pages of `first`, then of `second`, then of `third`, a bit each; loads of page 0.
    fn stores_to_pages() {
        for name in ["first", "second", "third"] {
            pio::out8(0x80, 0);
            value("loaded", load(0));
            for page in 0..8 {
                if arg(name).unwrap_or(0) >> page & 1 == 1 {
                    store(page, 0x77);
                }
            }
        }
        pio::out8(0x80, 0);
    }

    /// Loads until 0x600d comes, or for a while; once before, so that it is mapped.
    fn loads_until_good() {
        value("first", load(0));
        // SAFETY: RDTSC reads a counter.
        let now = || unsafe { core::arch::x86_64::_rdtsc() };
        let end = now() + (1 << 30);
        let mut good = false;
        // SAFETY: nothing interrupts this guest; an emulator's CPU may want it to be open.
        unsafe { asm!("sti", options(nomem, nostack)) };
        while !good && now() < end {
            good = load(0) == 0x600d;
        }
        // SAFETY: as it was before.
        unsafe { asm!("cli", options(nomem, nostack)) };
        value("good", good.into());
    }
}
