//! The boot information, read back through the crate's own types as the guest reads it.
#![expect(unsafe_code, reason = "a guest takes BootInfo from raw memory; this is that one step")]

use std::ptr;

use bootloader_api::BootInfo;
use bootloader_api::config::{ApiVersion, Mapping};
use bootloader_api::info::{MemoryRegion, Optional};
use exitspec_protocol::Params;

use super::ram::Ram;
use super::{MEMORY, parse, sample, sample_with_physical_memory};
use crate::payload::Image;

/// Reads a `T` from guest memory.
///
/// # Safety
/// The bytes at `at` must be a valid `T`.
unsafe fn read<T>(ram: &Ram, at: u64) -> T {
    let bytes = ram.bytes(at, size_of::<T>());
    // SAFETY: `bytes` is as long as a `T`; the caller vouches for its content.
    unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) }
}

/// The guest's BootInfo, and its memory regions with the addresses that lead to them checked.
fn boot_info(image: &Image) -> (BootInfo, Vec<MemoryRegion>) {
    let ram = Ram::with(image);
    let at = image.start.rdi;
    // Tags first, from the raw bytes: an enum with a wrong tag must not come to life.
    let tag = |field: usize| u32::from_le_bytes(ram.bytes(at + field as u64, 4).try_into().unwrap());
    for field in [
        std::mem::offset_of!(BootInfo, framebuffer),
        std::mem::offset_of!(BootInfo, physical_memory_offset),
        std::mem::offset_of!(BootInfo, recursive_index),
        std::mem::offset_of!(BootInfo, rsdp_addr),
        std::mem::offset_of!(BootInfo, tls_template),
        std::mem::offset_of!(BootInfo, ramdisk_addr),
    ] {
        assert!(tag(field) < 2, "no such variant at {field:#x}");
    }
    // SAFETY: the tags are valid, the pre-release flag is 0 or 1 in what the loader wrote from a bool, and
    // every other field is an integer or a raw pointer, which is not followed.
    let info: BootInfo = unsafe { read(&ram, at) };
    let place = std::mem::offset_of!(BootInfo, memory_regions) as u64;
    let (first, count) = (ram.u64(at + place), ram.u64(at + place + 8));
    assert_eq!(first % align_of::<MemoryRegion>() as u64, 0);
    let regions = (0..count).map(|index| {
        let row = first + index * size_of::<MemoryRegion>() as u64;
        assert!(ram.u64(row + 16) < 2, "no such kind of region");
        // SAFETY: two integers and a tag that was just checked.
        unsafe { read(&ram, row) }
    });
    (info, regions.collect())
}

#[test]
fn guest_reads_what_the_loader_knows() {
    let image = parse(&sample()).image(MEMORY).unwrap();
    let (info, regions) = boot_info(&image);
    assert_eq!(info.api_version, ApiVersion::default());
    assert_eq!(regions, image.regions);
    assert_eq!(info.ramdisk_addr, Optional::Some(image.params_gpa));
    assert_eq!(info.ramdisk_len, Params::SIZE as u64);
    assert_eq!(info.physical_memory_offset, Optional::None);
    assert_eq!(info.recursive_index, Optional::None);
    assert_eq!(info.rsdp_addr, Optional::None);
    assert_eq!(info.tls_template, Optional::None);
    assert!(info.framebuffer.as_ref().is_none());
    assert_eq!((info.kernel_addr, info.kernel_image_offset), (0x20_0000, 0x20_0000));
    assert_eq!(info.kernel_len, 0x5345);
    assert_eq!((info.kernel_stack_bottom, info.kernel_stack_len), (0x20_a000, 0x4000));
    assert_eq!(info._test_sentinel, 0);
}

#[test]
fn guest_learns_where_physical_memory_is_mapped() {
    let wish = Mapping::FixedAddress(0xffff_9000_0000_0000);
    let image = parse(&sample_with_physical_memory(wish)).image(MEMORY).unwrap();
    assert_eq!(boot_info(&image).0.physical_memory_offset, Optional::Some(0xffff_9000_0000_0000));
}
