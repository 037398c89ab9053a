//! Files that no loader should accept: each is refused with a message that says why and what to do.

use bootloader_api::BootloaderConfig;
use bootloader_api::config::Mapping;

use super::elf_builder::{
    E_CLASS, E_DATA, E_MACHINE, E_PHOFF, E_SHOFF, E_SHSTRNDX, E_TYPE, Elf, Load, P_FILESZ, P_OFFSET, PF_R,
    PF_W, PF_X, PHDR, STT_FUNC, put,
};
use super::{config, sample};
use crate::payload::Payload;

/// One bad file, and words that its error must contain.
type Bad = (&'static str, Vec<u8>, &'static [&'static str]);

/// The sample after a change to its description.
fn changed(change: impl FnOnce(&mut Elf)) -> Vec<u8> {
    let mut elf = sample();
    change(&mut elf);
    elf.build()
}

/// The sample with some bytes of the file overwritten.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = sample().build();
    put(&mut file, at, bytes);
    file
}

/// The sample with another configuration.
fn configured(change: impl FnOnce(&mut BootloaderConfig)) -> Vec<u8> {
    let mut config = config();
    change(&mut config);
    changed(|elf| elf.set_config(&config))
}

/// The sample with one more segment.
fn with_load(load: Load) -> Vec<u8> {
    changed(|elf| elf.loads.push(load))
}

fn headers() -> Vec<Bad> {
    let valid = sample().build();
    vec![
        ("empty", Vec::new(), &["not an ELF file", "cargo xtask build"]),
        ("text", b"#!/bin/sh\n".to_vec(), &["not an ELF file"]),
        ("magic only", valid[..4].to_vec(), &["not an ELF file"]),
        ("half a header", valid[..40].to_vec(), &["damaged"]),
        ("headers only", valid[..64].to_vec(), &["damaged"]),
        ("one byte short", valid[..valid.len() - 1].to_vec(), &["damaged"]),
        ("32-bit", patched(E_CLASS, &[1]), &["class is 0x1, not 0x2 (64-bit)"]),
        ("big-endian", patched(E_DATA, &[2]), &["byte order", "little-endian"]),
        ("arm64", patched(E_MACHINE, &[183]), &["machine is 0xb7, not 0x3e (x86-64)"]),
        ("object file", patched(E_TYPE, &[1]), &["type is 0x1, not 0x2"]),
        ("position-independent", patched(E_TYPE, &[3]), &["type is 0x3", "non-relocatable"]),
        ("program headers far away", patched(E_PHOFF, &[0xff; 8]), &["damaged"]),
        ("section headers far away", patched(E_SHOFF, &[0xff; 8]), &["damaged"]),
        ("no names of sections", patched(E_SHSTRNDX, &[0xfe, 0]), &["damaged"]),
    ]
}

fn segments() -> Vec<Bad> {
    let rw = |at, memsz| Load { memsz, ..Load::new(at, PF_R | PF_W, &[]) };
    let beyond = with_load(Load { memsz: 2, ..Load::new(0x40_0000, PF_R, &[1, 2, 3]) });
    let copies = |elf: &mut Elf| {
        elf.loads = (0..33).map(|i| Load::new(0x20_0000 + i * 0x2000, PF_R | PF_X, &[0x90])).collect();
    };
    vec![
        ("none", changed(|elf| elf.loads.clear()), &["no loadable segment"]),
        ("too many", changed(copies), &["33 loadable segments, more than 32"]),
        ("content outside the file", patched(PHDR + P_OFFSET, &[0xf0; 8]), &["0x8000", "outside the file"]),
        ("content wraps", patched(PHDR + P_OFFSET, &[0xff; 8]), &["outside the file"]),
        ("more content than file", patched(PHDR + P_FILESZ, &[0xff; 8]), &["more bytes than the file"]),
        ("filesz > memsz", beyond, &["0x400000", "0x3 bytes of the file but only 0x2"]),
        (
            "not identity",
            changed(|elf| elf.loads[1].paddr = 0x30_0000),
            &["virtual 0x200000", "physical 0x300000"],
        ),
        ("in device memory", with_load(rw(0xfee0_0000, 0x1000)), &["0xfee00000", "beyond 0xc0000000"]),
        ("reaches device memory", with_load(rw(0x40_0000, 0xc000_0000)), &["beyond 0xc0000000"]),
        ("end overflows", with_load(rw(u64::MAX - 0xfff, 0x2000)), &["beyond 0xc0000000"]),
        ("huge", with_load(rw(0x40_0000, u64::MAX)), &["beyond 0xc0000000"]),
        ("null page", with_load(rw(0, 0x1000)), &["first page", "null pointers"]),
        ("W+X", with_load(Load::new(0x40_0000, PF_R | PF_W | PF_X, &[1])), &["writable and executable"]),
        ("not readable", with_load(Load::new(0x40_0000, PF_X, &[1])), &["not readable"]),
        ("shared page", with_load(rw(0x20_1900, 0x10)), &["0x200000", "0x201900", "ALIGN(4096)"]),
        ("overlap", with_load(rw(0x20_1000, 0x10)), &["0x200000", "0x201000", "overlap"]),
        ("same place", with_load(rw(0x20_3000, 0x10)), &["0x203000", "overlap"]),
        ("dynamic", with_load(Load { kind: 2, ..rw(0, 16) }), &["a dynamic linker"]),
        ("interpreter", with_load(Load { kind: 3, ..rw(0, 16) }), &["a dynamic linker"]),
        ("thread-local", with_load(Load { kind: 7, ..rw(0, 16) }), &["thread-local storage"]),
        ("entry in data", changed(|elf| elf.entry = 0x20_3000), &["entry point 0x203000", "executable"]),
        ("entry nowhere", changed(|elf| elf.entry = 0), &["entry point 0x0"]),
    ]
}

fn configs() -> Vec<Bad> {
    let raw = |change: fn(&mut Vec<u8>)| changed(|elf| change(elf.config.as_mut().unwrap()));
    let at = Mapping::FixedAddress;
    let physical = |address| configured(|config| config.mappings.physical_memory = Some(at(address)));
    #[expect(deprecated, reason = "the old setting is refused like the others")]
    let frame_buffer =
        |config: &mut BootloaderConfig| config.frame_buffer.minimum_framebuffer_width = Some(1);
    vec![
        ("missing", changed(|elf| elf.config = None), &[".bootloader-config is missing", "entry_point!"]),
        ("short", raw(|config| config.truncate(132)), &["cannot be read (invalid len)"]),
        ("long", raw(|config| config.push(0)), &["invalid len"]),
        ("empty", raw(Vec::clear), &["invalid len"]),
        ("UUID", raw(|config| config[0] ^= 1), &["invalid UUID"]),
        ("version", raw(|config| config[20] ^= 1), &["with bootloader_api 0.11.16", "the host with 0.11.17"]),
        ("pre-release", raw(|config| config[22] = 1), &["0.11.17 (pre-release)"]),
        ("not a bool", raw(|config| config[87] = 7), &["invalid aslr value"]),
        ("no stack", configured(|config| config.kernel_stack_size = 0), &["kernel_stack_size to 0x0"]),
        ("big stack", configured(|config| config.kernel_stack_size = u64::MAX), &["0xffffffffffffffff"]),
        ("unaligned", physical(0xffff_8000_0010_0000), &["mappings.physical_memory", "multiple of 2 MiB"]),
        ("on the image", physical(0), &["physical_memory to 0x0", "0x100000000 or higher"]),
        ("not canonical", physical(0x8000_0000_0000), &["canonical"]),
        ("into the hole", physical(0x7fff_8000_0000), &["canonical"]),
        ("wraps", physical(0xffff_ffff_8000_0000), &["canonical"]),
        ("stack", configured(|c| c.mappings.kernel_stack = at(0)), &["mappings.kernel_stack,"]),
        ("base", configured(|c| c.mappings.kernel_base = at(0)), &["mappings.kernel_base,"]),
        ("boot info", configured(|c| c.mappings.boot_info = at(0)), &["mappings.boot_info,"]),
        ("screen", configured(|c| c.mappings.framebuffer = at(0)), &["mappings.framebuffer,"]),
        (
            "recursive",
            configured(|c| c.mappings.page_table_recursive = Some(at(0))),
            &["page_table_recursive"],
        ),
        (
            "aslr",
            configured(|c| c.mappings.aslr = true),
            &["mappings.aslr, which this loader does not support"],
        ),
        ("from", configured(|c| c.mappings.dynamic_range_start = Some(0)), &["dynamic_range_start"]),
        ("to", configured(|c| c.mappings.dynamic_range_end = Some(0)), &["dynamic_range_end"]),
        ("ramdisk", configured(|c| c.mappings.ramdisk_memory = at(0)), &["mappings.ramdisk_memory,"]),
        ("width", configured(frame_buffer), &["frame_buffer.minimum_framebuffer_width"]),
    ]
}

fn tables() -> Vec<Bad> {
    let scenario = |name: &'static str, run| changed(|elf| elf.add_scenario(name, run));
    let long: &'static str = "a name that goes on for longer than the file has bytes to hold it, all in all";
    let many = |elf: &mut Elf| (0..0x1_0000).for_each(|_| elf.add_symbol("x", 0x20_0000, STT_FUNC));
    let mut shared = changed(|elf| (0..0x400).for_each(|_| elf.add_symbol(long, 0x20_0000, STT_FUNC)));
    let first = shared.windows(long.len()).position(|bytes| bytes == long.as_bytes()).unwrap();
    // The names' terminators are gone: every name now runs on to the end of the table.
    let end = first + 0x400 * (long.len() + 1) - 1;
    shared[first..end].fill(b'x');
    vec![
        ("row cut", changed(|elf| elf.scenarios.truncate(100)), &["0x64 bytes, not a multiple of 0x38"]),
        ("no name", scenario("", 0x20_0000), &["name of scenario 2"]),
        ("control character", scenario("a\u{1b}b", 0x20_0000), &["name of scenario 2"]),
        ("behind padding", scenario("a\0b", 0x20_0000), &["name of scenario 2"]),
        ("not UTF-8", changed(|elf| elf.scenarios[0] = 0xff), &["name of scenario 0"]),
        ("twice", scenario("first", 0x20_0000), &["two scenarios called \"first\""]),
        ("runs data", scenario("third", 0x20_3000), &["scenario's function 0x203000"]),
        ("symbols without end", changed(many), &["65537 symbols, more than 65536"]),
        ("names without end", shared, &["a symbol's name does not end"]),
    ]
}

/// Every bad file: what the property tests start from, besides a valid one.
pub(super) fn all() -> Vec<Bad> {
    [headers(), segments(), configs(), tables()].concat()
}

#[test]
fn each_is_refused_with_name_reason_and_remedy() {
    for (what, bytes, words) in all() {
        let Err(error) = Payload::parse("broken", &bytes) else { panic!("{what}: accepted") };
        let text = error.to_string();
        assert!(text.starts_with("payload broken: "), "{what}: {text}");
        for word in words {
            assert!(text.contains(word), "{what}: {word:?} is not in {text:?}");
        }
        assert!(text.len() < 500 && !text.contains('\n'), "{what}: {text}");
    }
}
