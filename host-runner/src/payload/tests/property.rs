//! Damaged files in great number: whatever the bytes, the loader neither panics nor writes outside RAM
//! nor grows beyond what file and RAM explain.

use std::sync::LazyLock;

use bootloader_api::config::Mapping;
use proptest::prelude::*;
use proptest::sample::Index;

use super::elf_builder::STT_FUNC;
use super::{MEMORY, malformed, sample, sample_with_physical_memory};
use crate::payload::{Image, Payload};

/// Files to damage: valid ones of different shapes, and those of [`malformed`] up to a handy size.
static BASES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut with_symbols = sample_with_physical_memory(Mapping::Dynamic);
    with_symbols.add_symbol("here", 0x20_0010, STT_FUNC);
    let mut bases = vec![sample().build(), with_symbols.build()];
    bases.extend(malformed::all().into_iter().map(|(_, bytes, _)| bytes).filter(|b| b.len() < 1 << 16));
    bases
});

/// Damage to a file.
#[derive(Debug, Clone)]
enum Edit {
    Byte(Index, u8),
    /// A number where it hurts: in the first bytes, where the headers are, at a multiple of 4.
    Header(Index, u64),
    /// The same anywhere, such as in section headers and symbols.
    Word(Index, u64),
    Truncate(Index),
}

impl Edit {
    fn apply(&self, file: &mut Vec<u8>) {
        if file.len() < 8 {
            return;
        }
        match self {
            Self::Byte(at, byte) => {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            Self::Header(at, word) => put_word(file, at.index(320), *word),
            Self::Word(at, word) => {
                let at = at.index(file.len());
                put_word(file, at, *word);
            }
            Self::Truncate(at) => file.truncate(at.index(file.len())),
        }
    }
}

fn put_word(file: &mut [u8], at: usize, word: u64) {
    let at = (at & !3).min(file.len() - 8);
    file[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(1 << 63),
        Just(0xc000_0000),
        Just(MEMORY),
        Just(0x1000),
        (0_u32..64).prop_map(|bit| (1_u64 << bit).wrapping_sub(1)),
        0_u64..0x40_0000,
        any::<u64>(),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
        8 => (any::<Index>(), word()).prop_map(|(at, word)| Edit::Header(at, word)),
        4 => (any::<Index>(), word()).prop_map(|(at, word)| Edit::Word(at, word)),
        1 => any::<Index>().prop_map(Edit::Truncate),
    ]
}

/// Every promise that holds for any image of a file with `file` bytes.
fn check(image: &Image, file: usize) {
    let (mut free, mut total) = (0, 0);
    for chunk in &image.chunks {
        assert!(chunk.gpa >= free, "chunks overlap at {:#x}", chunk.gpa);
        free = chunk.gpa + chunk.bytes.len() as u64;
        total += chunk.bytes.len();
    }
    assert!(free <= image.memory, "a chunk ends at {free:#x}");
    // Page tables: one per 2 MiB of RAM, 6 for physical memory, 6 above them; two pages of other tables.
    let tables = (image.memory >> 21) as usize + 6 + 6;
    assert!(total <= file + (tables + 2) * 4096, "{total:#x} bytes from {file:#x}");
    assert!(image.params_gpa + 4096 <= image.memory && image.stack.end <= image.memory);
    let mut end = 0;
    for region in &image.regions {
        assert!(region.start == end && region.end > region.start, "{region:x?} after {end:#x}");
        end = region.end;
    }
    assert_eq!(end, image.memory);
}

proptest! {
    // Failing inputs become cases of `malformed`, not files of seeds.
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_refused_or_harmless(
        base in any::<Index>(),
        is_valid in any::<bool>(),
        edits in prop::collection::vec(edit(), 0..6),
        address in word(),
    ) {
        let mut file = BASES[if is_valid { base.index(2) } else { base.index(BASES.len()) }].clone();
        for edit in &edits {
            edit.apply(&mut file);
        }
        match Payload::parse("damaged", &file) {
            Err(error) => prop_assert!(error.to_string().len() < 500),
            Ok(payload) => {
                for memory in [MEMORY, 64 << 20, address] {
                    if memory <= 64 << 20 && let Ok(image) = payload.image(memory) {
                        check(&image, file.len());
                    }
                }
                for name in payload.symbols().names() {
                    let _ = payload.symbols().lookup(name);
                }
                payload.symbols().nearest(address);
                payload.bytes_at(address, address as usize);
                payload.instruction_after(address, 64);
                payload.instruction_after(0x20_0010, address as u32);
            }
        }
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(Payload::parse("noise", &bytes).is_err());
    }
}

#[test]
fn the_valid_bases_are_valid() {
    for file in &BASES[..2] {
        check(&Payload::parse("base", file).unwrap().image(MEMORY).unwrap(), file.len());
    }
}
