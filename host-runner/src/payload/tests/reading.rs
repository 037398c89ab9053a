//! What a payload tells without being booted: scenarios, symbols, bytes, instructions.

use super::elf_builder::{Elf, SHN_ABS, STT_FUNC, STT_NOTYPE, Symbol};
use super::{MEMORY, parse, sample};
use crate::payload::{MAX_FILE, Payload, SymbolError};

fn with_symbols() -> Elf {
    let mut elf = sample();
    elf.add_symbol("in_reset", 0x20_0010, STT_NOTYPE);
    elf.add_symbol("out_reset", 0x20_0020, STT_NOTYPE);
    elf.add_symbol("a", 0x20_0030, STT_NOTYPE);
    elf.add_symbol("run_longer", 0x20_0030, STT_FUNC);
    elf.add_symbol("twin", 0x20_0040, STT_FUNC);
    elf.add_symbol("twin", 0x20_0050, STT_FUNC);
    elf.add_symbol("alias", 0x20_0060, STT_FUNC);
    elf.add_symbol("alias", 0x20_0060, STT_FUNC);
    elf.add_symbol("text_end", 0x20_1800, STT_NOTYPE);
    elf.symbols.push(Symbol { name: "absolute", address: 0x20_0070, kind: STT_NOTYPE, section: SHN_ABS });
    elf.symbols.push(Symbol { name: "undefined", address: 0, kind: STT_FUNC, section: 0 });
    elf.symbols.push(Symbol { name: "a_file.rs", address: 0, kind: 4, section: SHN_ABS });
    elf
}

#[test]
fn scenarios_come_in_the_order_of_the_file() {
    let payload = parse(&sample());
    assert_eq!(payload.scenarios().collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(payload.name(), "sample");
}

#[test]
fn places_for_a_prefix_are_nops_in_code() {
    let nop = [0x66, 0x0f, 0x1f, 0x40, 0];
    let mut elf = sample();
    assert!(parse(&elf).emulable().is_empty());
    elf.loads[1].content[0x100..0x105].copy_from_slice(&nop);
    elf.loads[1].content[0x17fb..].copy_from_slice(&nop);
    elf.loads[3].content[..5].copy_from_slice(&nop);
    let listed = |places: &[u64]| places.iter().flat_map(|place| place.to_le_bytes()).collect::<Vec<_>>();
    elf.emulable = listed(&[0x20_17fb, 0x20_0100]);
    let payload = parse(&elf);
    assert_eq!(payload.emulable(), [0x20_0100, 0x20_17fb]);
    assert_eq!(payload.image(MEMORY).unwrap().emulable, payload.emulable());
    // Not quite there, behind the code, in data, nowhere.
    for place in [0x20_0101, 0x20_17fc, 0x20_3000, u64::MAX] {
        elf.emulable = listed(&[0x20_0100, place]);
        let error = Payload::parse("sample", &elf.build()).unwrap_err().to_string();
        assert!(error.contains(&format!("lists {place:#x} as a place")), "{error}");
    }
    elf.emulable.pop();
    let error = Payload::parse("sample", &elf.build()).unwrap_err().to_string();
    assert!(error.contains("has 0xf bytes, not a multiple of 8"), "{error}");
}

#[test]
fn lookup_finds_one_address_or_says_why_not() {
    let payload = parse(&with_symbols());
    let symbols = payload.symbols();
    assert_eq!(symbols.lookup("in_reset"), Ok(0x20_0010));
    assert_eq!(symbols.lookup("alias"), Ok(0x20_0060));
    assert_eq!(symbols.lookup("absolute"), Ok(0x20_0070));
    let twin = SymbolError::Ambiguous { name: "twin".into(), addresses: vec![0x20_0040, 0x20_0050] };
    assert_eq!(symbols.lookup("twin"), Err(twin.clone()));
    assert_eq!(
        twin.to_string(),
        "the payload has 2 symbols \"twin\", the first two at 0x200040 and 0x200050; give the label a unique name"
    );
    let unknown = symbols.lookup("in_rset").unwrap_err();
    assert!(
        matches!(&unknown, SymbolError::Unknown { nearest, .. } if nearest.first().is_some_and(|n| n == "in_reset"))
    );
    let text = unknown.to_string();
    assert!(text.starts_with("the payload has no symbol \"in_rset\"; did you mean in_reset"), "{text}");
    for absent in ["undefined", "a_file.rs", "nothing_like_it", ""] {
        assert!(symbols.lookup(absent).is_err(), "{absent}");
    }
    assert!(symbols.lookup(&"é".repeat(100_000)).unwrap_err().to_string().len() < 1000);
    assert_eq!(symbols.names().next(), Some("a"));
    assert_eq!(symbols.names().count(), 8);
}

#[test]
fn nearest_is_the_last_symbol_before_in_the_same_segment() {
    let payload = parse(&with_symbols());
    let nearest = |address| payload.symbols().nearest(address);
    assert_eq!(nearest(0x20_0010), Some(("in_reset", 0)));
    assert_eq!(nearest(0x20_001f), Some(("in_reset", 0xf)));
    assert_eq!(nearest(0x20_0030), Some(("run_longer", 0))); // the function, not the shorter label
    assert_eq!(nearest(0x20_17ff), Some(("alias", 0x179f)));
    for outside in [0, 0x8000, 0x20_000f, 0x20_1800, 0x20_2000, u64::MAX] {
        assert_eq!(nearest(outside), None, "{outside:#x}");
    }
}

#[test]
fn bytes_are_those_of_the_file() {
    let payload = parse(&sample());
    assert_eq!(payload.bytes_at(0x8001, 2), Some(&[0x61, 0xf4][..]));
    assert_eq!(payload.bytes_at(0x8001, 3), None);
    assert_eq!(payload.bytes_at(0x20_37ff, 1), Some(&[0][..]));
    assert_eq!(payload.bytes_at(0x20_3800, 1), None); // .bss
    assert_eq!(payload.bytes_at(u64::MAX, 1), None);
    assert_eq!(payload.bytes_at(0x8000, usize::MAX), None);
}

#[test]
fn instructions_are_decoded_in_the_given_mode() {
    let mut elf = sample();
    elf.loads[1].content[..6].copy_from_slice(&[0x66, 0xb8, 1, 2, 3, 4]); // mov ax / mov eax
    elf.loads[1].content[0x10..0x12].copy_from_slice(&[0x06, 0x0f]); // push es: no such thing in 64-bit mode
    *elf.loads[1].content.last_mut().unwrap() = 0xb8; // cut short by the end of the segment
    let payload = parse(&elf);
    assert_eq!(payload.instruction_after(0x8000, 16), Some(0x8002)); // in al, 0x61
    assert_eq!(payload.instruction_after(0x8002, 16), Some(0x8003)); // hlt, the last byte
    assert_eq!(payload.instruction_after(0x20_0000, 16), Some(0x20_0006));
    assert_eq!(payload.instruction_after(0x20_0000, 64), Some(0x20_0004));
    assert_eq!(payload.instruction_after(0x20_0010, 32), Some(0x20_0011));
    assert_eq!(payload.instruction_after(0x20_0010, 64), None);
    assert_eq!(payload.instruction_after(0x20_17ff, 64), None);
    assert_eq!(payload.instruction_after(0x20_0000, 7), None);
    assert_eq!(payload.instruction_after(0x20_4000, 64), None); // .bss
    assert_eq!(payload.instruction_after(u64::MAX, 64), None);
}

#[test]
fn files_are_read_by_path_and_errors_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("port_io");
    std::fs::write(&file, sample().build()).unwrap();
    assert_eq!(Payload::load(&file).unwrap().name(), "port_io");

    let absent = folder.path().join("absent");
    for (path, why) in [(absent.as_path(), "cargo xtask build"), (folder.path(), "not a regular file")] {
        let error = Payload::load(path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains(why), "{error}");
    }

    std::fs::File::create(&file).unwrap().set_len(MAX_FILE + 1).unwrap();
    let error = Payload::load(&file).unwrap_err().to_string();
    assert!(error.contains("larger than 0x1000000 bytes"), "{error}");
}
