//! Memory and registers of a valid payload, against numbers worked out by hand.

use bootloader_api::config::Mapping as Wish;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use x86_64::structures::gdt::DescriptorFlags;

use super::ram::{Mapping, Ram};
use super::{MEMORY, parse, sample, sample_with_physical_memory};
use crate::payload::tests::elf_builder::{Load, PF_R, PF_W, PF_X};
use crate::payload::{Image, MAX_MEMORY};

// The sample's last segment ends at 0x20_5345. Behind it, page by page:
const DESCRIPTORS: u64 = 0x20_6000;
const BOOT_INFO: u64 = 0x20_7000;
const PARAMS: u64 = 0x20_8000;
const GUARD: u64 = 0x20_9000;
const STACK: u64 = 0x20_a000;
const TABLES: u64 = 0x20_e000; // a stack of 0x3001 bytes takes four pages

fn identity(virt: u64, end: u64, writable: bool, executable: bool) -> Mapping {
    Mapping { virt, phys: virt, size: end - virt, writable, executable, user: false, uncached: false }
}

/// What the sample maps below 4 GiB: low code, text, constants, data up to the parameters, stack.
fn sample_mappings() -> Vec<Mapping> {
    vec![
        identity(0x8000, 0x9000, false, true),
        identity(0x20_0000, 0x20_2000, false, true),
        identity(0x20_2000, 0x20_3000, false, false),
        identity(0x20_3000, GUARD, true, false),
        identity(STACK, TABLES, true, false),
    ]
}

fn image() -> Image {
    parse(&sample()).image(MEMORY).unwrap()
}

#[test]
fn tables_map_segments_and_stack_with_their_permissions_and_nothing_else() {
    let image = image();
    assert_eq!(Ram::with(&image).mappings(image.start.cr3), sample_mappings());
}

#[test]
fn physical_memory_is_mapped_uncached_where_devices_are() {
    for (wish, offset) in [
        (Wish::Dynamic, 0xffff_8000_0000_0000),
        (Wish::FixedAddress(0xffff_ff00_0000_0000), 0xffff_ff00_0000_0000),
        (Wish::FixedAddress(0xffff_ffff_0000_0000), 0xffff_ffff_0000_0000), // ends with the address space
        (Wish::FixedAddress(0x1_0000_0000), 0x1_0000_0000),                 // right behind identity
        (Wish::FixedAddress(0x7ff_fe20_0000), 0x7ff_fe20_0000),             // not a multiple of 1 GiB
    ] {
        let image = parse(&sample_with_physical_memory(wish)).image(MEMORY).unwrap();
        let ram = identity(0, 0xc000_0000, true, false);
        let devices = Mapping { uncached: true, ..identity(0xc000_0000, 0x1_0000_0000, true, false) };
        let mut expected = sample_mappings();
        expected.extend([ram, devices].map(|at| Mapping { virt: offset + at.virt, ..at }));
        assert_eq!(Ram::with(&image).mappings(image.start.cr3), expected, "{wish:?}");
    }
}

#[test]
fn memory_holds_the_file_and_zeros_behind_it() {
    let ram = Ram::with(&image());
    assert_eq!(ram.bytes(0x8000, 4), [0xe4, 0x61, 0xf4, 0]);
    assert!(ram.bytes(0x20_0000, 0x1800).iter().all(|&byte| byte == 0x90));
    assert!(ram.bytes(0x20_1800, 0x800).iter().all(|&byte| byte == 0));
    assert!(ram.bytes(0x20_3000, 0x10).iter().all(|&byte| byte == 0x44));
    assert!(ram.bytes(0x20_3010, 0x2ff0).iter().all(|&byte| byte == 0));
    assert!(ram.bytes(PARAMS, (TABLES - PARAMS) as usize).iter().all(|&byte| byte == 0));
}

#[test]
fn zero_pages_inside_a_segment_are_not_written() {
    let mut elf = sample();
    let mut data = vec![0; 0x6000];
    data[0x1ff0] = 1;
    data[0x2010] = 2;
    data[0x5000] = 3;
    elf.loads[3] = Load::new(0x20_3000, PF_R | PF_W, &data);
    let image = parse(&elf).image(MEMORY).unwrap();
    let data: Vec<_> = image
        .chunks
        .iter()
        .filter(|chunk| (0x20_3000..0x20_9000).contains(&chunk.gpa))
        .map(|chunk| (chunk.gpa, chunk.bytes.len()))
        .collect();
    assert_eq!(data, [(0x20_4ff0, 0x21), (0x20_8000, 1)]);
    let ram = Ram::with(&image);
    assert_eq!([ram.0[0x20_4ff0], ram.0[0x20_5010], ram.0[0x20_8000]], [1, 2, 3]);
}

#[test]
fn chunks_are_sorted_disjoint_and_in_ram() {
    let image = parse(&sample_with_physical_memory(Wish::Dynamic)).image(MEMORY).unwrap();
    let mut free = 0;
    for chunk in &image.chunks {
        assert!(chunk.gpa >= free, "{:#x} overlaps", chunk.gpa);
        assert!(chunk.bytes.first() != Some(&0) && chunk.bytes.last() != Some(&0) && !chunk.bytes.is_empty());
        free = chunk.gpa + chunk.bytes.len() as u64;
    }
    assert!(free <= MEMORY);
}

#[test]
fn regions_tell_what_is_occupied() {
    use MemoryRegionKind::{Bootloader, Usable};
    let end = TABLES + 5 * 0x1000; // level 4, 3, 2, and level 1 for the first two 2 MiB
    let expected = [
        (0, 0x8000, Usable),
        (0x8000, 0x9000, Bootloader),
        (0x9000, 0x20_0000, Usable),
        (0x20_0000, end, Bootloader),
        (end, MEMORY, Usable),
    ];
    assert_eq!(image().regions, expected.map(|(start, end, kind)| MemoryRegion { start, end, kind }));
}

#[test]
fn no_usable_region_is_left_when_ram_is_exactly_full() {
    let full = TABLES + 5 * 0x1000;
    let image = parse(&sample()).image(full).unwrap();
    assert_eq!(
        image.regions.last().map(|last| (last.end, last.kind)),
        Some((full, MemoryRegionKind::Bootloader))
    );
    let error = parse(&sample()).image(full - 0x1000).unwrap_err().to_string();
    assert!(error.contains("needs at least 0x213000 bytes of RAM but has 0x212000"), "{error}");
}

#[test]
fn ram_sizes_that_cannot_be_are_refused() {
    for (memory, why) in [
        (0, "needs at least"),
        (0x1000, "needs at least"),
        (MEMORY + 1, "multiple of 4 KiB"),
        (MAX_MEMORY + 0x1000, "devices begin"),
        (u64::MAX, "devices begin"),
    ] {
        let error = parse(&sample()).image(memory).unwrap_err().to_string();
        assert!(error.starts_with("payload sample: ") && error.contains(why), "{memory:#x}: {error}");
    }
    assert!(parse(&sample()).image(MAX_MEMORY).is_ok());
}

#[test]
fn largest_segment_fills_ram_without_its_bytes_in_host_memory() {
    let mut elf = sample();
    elf.loads[3].memsz = (1 << 30) - 0x20_3000;
    let error = parse(&elf).image(1 << 30).unwrap_err().to_string();
    assert!(error.contains("needs at least 0x40008000 bytes"), "{error}");
    let image = parse(&elf).image((1 << 30) + (8 << 20)).unwrap();
    let written: usize = image.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    assert!(written < 3 << 20, "page tables only: {written:#x}");
}

#[test]
fn start_state_is_that_of_the_boot_protocol() {
    let image = image();
    let start = image.start;
    assert_eq!((start.rip, start.rsp, start.rdi), (0x20_0100, TABLES - 8, BOOT_INFO));
    assert_eq!((start.cr0, start.cr3, start.cr4), (0x8001_0033, TABLES, 0x620));
    assert_eq!((start.efer, start.rflags), (0xd00, 2));
    assert_eq!((start.idt.base, start.idt.limit), (0, 0));
    assert_eq!((image.params_gpa, image.stack.clone()), (PARAMS, STACK..TABLES));
    assert_eq!((start.code.access, start.data.access, start.task.access), (0xa09b, 0xc093, 0x8b));
}

#[test]
fn descriptor_tables_hold_what_the_registers_say() {
    let image = image();
    let (start, ram) = (image.start, Ram::with(&image));
    assert_eq!((start.gdt.base, start.gdt.limit), (DESCRIPTORS, 0x27));
    let entry = |selector: u16| ram.u64(start.gdt.base + u64::from(selector));
    assert_eq!(entry(0), 0);
    assert_eq!(entry(start.code.selector), DescriptorFlags::KERNEL_CODE64.bits());
    assert_eq!(entry(start.data.selector), DescriptorFlags::KERNEL_DATA.bits());
    // Limit 0x67, base 0x206080, present busy 64-bit TSS; then the base's upper half.
    assert_eq!(entry(start.task.selector), 0x0000_8b20_6080_0067);
    assert_eq!(entry(start.task.selector + 8), 0);
    assert_eq!((start.task.base, start.task.limit), (DESCRIPTORS + 0x80, 0x67));
    let tss = ram.bytes(start.task.base, 0x68);
    assert!(tss[..0x66].iter().all(|&byte| byte == 0));
    assert_eq!(tss[0x66..], [0x68, 0]); // I/O permission bitmap behind the limit: none
}

#[test]
fn low_code_alone_is_a_payload() {
    let mut elf = sample();
    elf.loads.truncate(1);
    elf.entry = 0x8000;
    elf.scenarios.clear();
    let image = parse(&elf).image(1 << 20).unwrap();
    let expected = [
        identity(0x8000, 0x9000, false, true),
        identity(0x9000, 0xc000, true, false),
        identity(0xd000, 0x1_1000, true, false),
    ];
    assert_eq!(Ram::with(&image).mappings(image.start.cr3), expected);
}

#[test]
fn unordered_and_empty_program_headers_are_fine() {
    let mut elf = sample();
    elf.loads.reverse();
    elf.loads.push(Load::new(0x20_3800, PF_R | PF_W | PF_X, &[]));
    assert_eq!(parse(&elf).image(MEMORY).unwrap(), image());
}
