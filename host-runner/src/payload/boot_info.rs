//! [`BootInfo`] as bytes in guest memory.
//!
//! A `MemoryRegions` can be made only from a `&'static mut` slice, and there is none at a guest's
//! address. So the structure is laid out by its `repr(C)` shape, pinned to the crate's own type by
//! offsets and assertions; tests read it back as the guest does.

use std::mem::{align_of, offset_of};
use std::ops::Range;

use bootloader_api::BootInfo;
use bootloader_api::config::ApiVersion;
use bootloader_api::info::{
    FrameBuffer, MemoryRegion, MemoryRegionKind, MemoryRegions, Optional, TlsTemplate,
};

use super::elf::MAX_SEGMENTS;
use super::segment::PAGE;

/// Where the memory regions lie in the page of the boot information.
const REGIONS: usize = size_of::<BootInfo>().next_multiple_of(align_of::<MemoryRegion>());

/// Tags of the variants of [`Optional`] and [`MemoryRegionKind`]: a `repr(C)` enum numbers them in order.
const SOME: u32 = 0;
const NONE: u32 = 1;
const USABLE: u32 = 0;
const BOOTLOADER: u32 = 1;

/// Where an [`Optional`]'s tag and a `u64` value lie in it.
const OPTIONAL_TAG: usize = 0;
const OPTIONAL_VALUE: usize = align_of::<u64>();

/// Where the fields lie that the crate keeps private: `repr(C)` puts them in the order of declaration.
const REGIONS_PTR: usize = 0;
const REGIONS_LEN: usize = 8;
const KIND_TAG: usize = offset_of!(MemoryRegion, kind);

const _: () = {
    assert!(size_of::<ApiVersion>() == 8, "three u16 and a bool");
    assert!(size_of::<MemoryRegions>() == 16 && align_of::<MemoryRegions>() == 8, "pointer and length");
    assert!(size_of::<MemoryRegion>() == 24, "two u64, a tag and the largest payload of its variants");
    assert!(size_of::<MemoryRegionKind>() == 8 && align_of::<MemoryRegionKind>() == 4);
    assert!(size_of::<Optional<u64>>() == 16 && size_of::<Optional<u16>>() == 8);
    assert!(align_of::<Optional<FrameBuffer>>() == 8 && align_of::<Optional<TlsTemplate>>() == 8);
    assert!(align_of::<BootInfo>() == 8);
    // Segments and the loader's own area are occupied; usable memory lies before, between and behind.
    assert!(REGIONS + (2 * (MAX_SEGMENTS + 1) + 1) * size_of::<MemoryRegion>() <= PAGE as usize);
};

/// What the boot information says besides the memory regions.
pub(super) struct Facts {
    /// The parameters: the protocol's ramdisk. Virtual (identity-mapped).
    pub(super) ramdisk: Range<u64>,
    /// Where physical address 0 is mapped, if asked for.
    pub(super) physical_memory: Option<u64>,
    /// The loaded image. The ELF file itself is not in guest memory.
    pub(super) image: Range<u64>,
    /// The stack without its guard page.
    pub(super) stack: Range<u64>,
}

/// The content of the page at guest address `at` that RDI points to at the start.
pub(super) fn to_bytes(at: u64, facts: &Facts, regions: &[MemoryRegion]) -> Vec<u8> {
    let mut page = Page(vec![0; REGIONS + size_of_val(regions)]);
    page.put(offset_of!(BootInfo, api_version), &api_version());
    let field = offset_of!(BootInfo, memory_regions);
    page.put_u64(field + REGIONS_PTR, at + REGIONS as u64);
    page.put_u64(field + REGIONS_LEN, regions.len() as u64);
    page.put_u32(offset_of!(BootInfo, framebuffer) + OPTIONAL_TAG, NONE);
    page.put_optional(offset_of!(BootInfo, physical_memory_offset), facts.physical_memory);
    page.put_u32(offset_of!(BootInfo, recursive_index) + OPTIONAL_TAG, NONE);
    page.put_optional(offset_of!(BootInfo, rsdp_addr), None);
    page.put_u32(offset_of!(BootInfo, tls_template) + OPTIONAL_TAG, NONE);
    page.put_optional(offset_of!(BootInfo, ramdisk_addr), Some(facts.ramdisk.start));
    page.put_u64(offset_of!(BootInfo, ramdisk_len), length(&facts.ramdisk));
    page.put_u64(offset_of!(BootInfo, kernel_addr), facts.image.start);
    page.put_u64(offset_of!(BootInfo, kernel_len), length(&facts.image));
    page.put_u64(offset_of!(BootInfo, kernel_image_offset), facts.image.start);
    page.put_u64(offset_of!(BootInfo, kernel_stack_bottom), facts.stack.start);
    page.put_u64(offset_of!(BootInfo, kernel_stack_len), length(&facts.stack));
    for (index, region) in regions.iter().enumerate() {
        let row = REGIONS + index * size_of::<MemoryRegion>();
        page.put_u64(row + offset_of!(MemoryRegion, start), region.start);
        page.put_u64(row + offset_of!(MemoryRegion, end), region.end);
        let usable = region.kind == MemoryRegionKind::Usable;
        page.put_u32(row + KIND_TAG, if usable { USABLE } else { BOOTLOADER });
    }
    page.0
}

/// The crate's version as [`ApiVersion`] lays it out.
fn api_version() -> Vec<u8> {
    let version = ApiVersion::default();
    let numbers = [version.version_major(), version.version_minor(), version.version_patch()];
    numbers.iter().flat_map(|n| n.to_le_bytes()).chain([version.pre_release().into()]).collect()
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// Bytes with zeros wherever nothing was put, padding included.
struct Page(Vec<u8>);

impl Page {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    fn put_optional(&mut self, at: usize, value: Option<u64>) {
        self.put_u32(at + OPTIONAL_TAG, if value.is_some() { SOME } else { NONE });
        self.put_u64(at + OPTIONAL_VALUE, value.unwrap_or(0));
    }
}
