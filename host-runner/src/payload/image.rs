//! The layout of guest memory at the start: what lies where, who may do what with it, and the bytes.
//!
//! RAM begins at guest-physical address 0. The payload lies where it is linked; behind its last page come
//! descriptor tables, boot information, parameters, a guard page, the stack and the page tables.
//! Everything that is mapped has equal virtual and physical addresses.

use std::ops::Range;

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use exitspec_protocol::{IMAGE_BASE, Params};
use x86_64::structures::paging::PageTableFlags;

use super::boot_info::{self, Facts};
use super::config::BootRequest;
use super::error::Fault;
use super::paging::{self, PageTables};
use super::segment::{PAGE, Segment, page_up};
use super::start::LongModeStart;

/// Most RAM in bytes: from here to 4 GiB lie devices, and reports must lie below 4 GiB.
pub const MAX_MEMORY: u64 = paging::DEVICES;

/// Bytes to write to guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Guest-physical address.
    pub gpa: u64,
    /// The bytes; the first and the last are not zero.
    pub bytes: Vec<u8>,
}

/// What guest memory holds at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Size of RAM in bytes.
    pub memory: u64,
    /// What to write into zeroed RAM: sorted by address, without overlap, all below `memory`.
    pub chunks: Vec<Chunk>,
    /// Where [`Params`] belong ([`Params::SIZE`] bytes, page-aligned). They differ from boot to boot, so no
    /// chunk holds them.
    pub params_gpa: u64,
    /// The stack of the first vCPU. The page below it is not mapped.
    pub stack: Range<u64>,
    /// All of RAM as the guest is told of it: sorted, gapless, no two neighbours of one kind.
    pub regions: Vec<MemoryRegion>,
    /// Where KVM's forced-emulation prefix can be put, five bytes each: [`EMULABLE_NOP`](exitspec_protocol::EMULABLE_NOP)
    /// is there.
    pub emulable: Vec<u64>,
    /// The registers of the first vCPU.
    pub start: LongModeStart,
}

/// Addresses of what the loader adds, in the order of memory.
struct Layout {
    /// GDT and TSS.
    descriptors: u64,
    boot_info: u64,
    params: u64,
    stack: Range<u64>,
    page_tables: u64,
}

impl Layout {
    /// Places everything from page-aligned `end` on. Cannot overflow: `end` and the stack are at most
    /// [`MAX_MEMORY`] each.
    fn new(end: u64, request: &BootRequest) -> Self {
        let descriptors = end;
        let boot_info = descriptors + PAGE;
        let params = boot_info + PAGE;
        let guard = params + PAGE;
        let bottom = guard + PAGE;
        let top = bottom + page_up(request.stack_size);
        Self { descriptors, boot_info, params, stack: bottom..top, page_tables: top }
    }
}

const _: () = assert!(Params::SIZE <= PAGE as usize);

/// Lays out `memory` bytes of RAM; `segments` are sorted and not empty.
pub(super) fn build(
    segments: &[Segment],
    entry: u64,
    request: &BootRequest,
    memory: u64,
) -> Result<Image, Fault> {
    check_size(memory)?;
    let image_end = segments.iter().map(|segment| segment.pages().end).max().unwrap_or(IMAGE_BASE);
    let layout = Layout::new(image_end, request);
    check_fits(layout.page_tables, memory)?; // before tables for more than RAM are built

    let page_tables = map(segments, &layout, request);
    let area = layout.descriptors..page_tables.range().end;
    check_fits(area.end, memory)?;

    let regions = regions(segments.iter().map(Segment::pages).chain([area]), memory);
    let start = LongModeStart::new(
        entry,
        layout.stack.end,
        layout.boot_info,
        page_tables.range().start,
        layout.descriptors,
    );
    let facts = Facts {
        ramdisk: layout.params..layout.params + Params::SIZE as u64,
        physical_memory: request.physical_memory,
        image: kernel(segments),
        stack: layout.stack.clone(),
    };
    let mut chunks = Vec::new();
    for segment in segments {
        push(&mut chunks, segment.start, &segment.content);
    }
    push(&mut chunks, layout.descriptors, &start.tables());
    push(&mut chunks, layout.boot_info, &boot_info::to_bytes(layout.boot_info, &facts, &regions));
    push(&mut chunks, layout.page_tables, &page_tables.to_bytes());
    Ok(Image {
        memory,
        chunks,
        params_gpa: layout.params,
        stack: layout.stack,
        regions,
        emulable: Vec::new(),
        start,
    })
}

fn check_size(memory: u64) -> Result<(), Fault> {
    if memory > MAX_MEMORY {
        return Err(Fault::Memory { memory, rule: "it must end at 0xc0000000, where devices begin" });
    }
    if !memory.is_multiple_of(PAGE) {
        return Err(Fault::Memory { memory, rule: "it must be a multiple of 4 KiB (0x1000)" });
    }
    Ok(())
}

fn check_fits(needed: u64, memory: u64) -> Result<(), Fault> {
    if needed > memory { Err(Fault::TooLittleMemory { needed, memory }) } else { Ok(()) }
}

/// Page tables for all that the guest may touch. The guard page and the tables themselves are left out.
fn map(segments: &[Segment], layout: &Layout, request: &BootRequest) -> PageTables {
    let mut tables = PageTables::new(layout.page_tables);
    for segment in segments {
        tables.map_identity(segment.pages(), permissions(segment));
    }
    for page in [layout.descriptors, layout.boot_info, layout.params] {
        tables.map_identity(page..page + PAGE, paging::DATA);
    }
    tables.map_identity(layout.stack.clone(), paging::DATA);
    if let Some(offset) = request.physical_memory {
        tables.map_physical_memory(offset);
    }
    tables
}

fn permissions(segment: &Segment) -> PageTableFlags {
    let mut flags = PageTableFlags::PRESENT;
    flags.set(PageTableFlags::WRITABLE, segment.writable);
    flags.set(PageTableFlags::NO_EXECUTE, !segment.executable);
    flags
}

/// The 64-bit image; real-mode code below it is not the kernel, unless there is nothing else.
fn kernel(segments: &[Segment]) -> Range<u64> {
    let end = segments.last().map_or(IMAGE_BASE, |segment| segment.range().end);
    let main = segments.iter().find(|segment| segment.start >= IMAGE_BASE).or(segments.first());
    main.map_or(IMAGE_BASE, |segment| segment.start)..end
}

/// All of RAM, split into what is occupied (whole pages, sorted, disjoint) and what is not.
fn regions(occupied: impl Iterator<Item = Range<u64>>, memory: u64) -> Vec<MemoryRegion> {
    let mut regions: Vec<MemoryRegion> = Vec::new();
    let mut add = |start, end, kind| match regions.last_mut() {
        _ if start == end => {}
        Some(last) if last.kind == kind => last.end = end,
        _ => regions.push(MemoryRegion { start, end, kind }),
    };
    let mut free = 0;
    for range in occupied {
        add(free, range.start, MemoryRegionKind::Usable);
        add(range.start, range.end, MemoryRegionKind::Bootloader);
        free = range.end;
    }
    add(free, memory, MemoryRegionKind::Usable);
    regions
}

/// Adds `bytes` at `gpa` without the pages that are all zero, and without zeros at either end of a run.
fn push(chunks: &mut Vec<Chunk>, gpa: u64, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(first) = rest.iter().position(|&byte| byte != 0) {
        rest = &rest[first..];
        let at = gpa + (bytes.len() - rest.len()) as u64;
        let mut end = ((PAGE - at % PAGE) as usize).min(rest.len());
        while let Some(page) = rest.get(end..).filter(|left| !left.is_empty()) {
            let page = &page[..page.len().min(PAGE as usize)];
            if page.iter().all(|&byte| byte == 0) {
                break;
            }
            end += page.len();
        }
        let (run, left) = rest.split_at(end);
        let used = run.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        chunks.push(Chunk { gpa: at, bytes: run[..used].to_vec() });
        rest = left;
    }
}
