//! How Linux gets into a machine without a boot loader: a disk, and the ROM that reads it.
//!
//! What a kernel expects of the one who enters it is all here; how the machine is emulated is not.

mod handover;
pub(crate) mod rom;

use anyhow::{Context, bail};

use handover::Handover;
use rom::{MOST_SECTORS, Piece, SECTOR};

/// The sectors of a disk are counted in cylinders of this many.
pub(crate) const CYLINDER: usize = 16 * 63;

/// Where the kernel is told what it needs to know.
const INFO: u32 = 0x10000;

/// What the BIOS keeps for its tables at the end of memory, in bytes (`ACPI_DATA_SIZE` in Bochs' rombios.h).
const TABLES: u32 = 0x10000;

/// A machine's memory in which nothing is yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// In bytes; below the hole for devices.
    pub(crate) size: u32,
}

impl Memory {
    /// What is where, as the BIOS says (INT 15h, E820h): start, end, type.
    fn map(self) -> [(u64, u64, u32); 6] {
        const RAM: u32 = 1;
        const RESERVED: u32 = 2;
        const ACPI: u32 = 3;
        let top = u64::from(self.size);
        [
            (0, 0x9f000, RAM),
            (0x9f000, 0xa0000, RESERVED),
            (0xe8000, 0x10_0000, RESERVED),
            (0x10_0000, top - u64::from(TABLES), RAM),
            (top - u64::from(TABLES), top, ACPI),
            (0xfffc_0000, 0x1_0000_0000, RESERVED),
        ]
    }
}

/// What a machine is started with.
#[derive(Debug)]
pub(crate) struct BootDisk {
    /// The option ROM.
    pub(crate) rom: Vec<u8>,
    /// The disk, whole cylinders of [`CYLINDER`] sectors.
    pub(crate) disk: Vec<u8>,
}

/// Something that is to be in memory.
#[derive(Debug)]
struct Chunk<'a> {
    to: u32,
    content: &'a [u8],
}

impl BootDisk {
    /// For a kernel, which is an ELF file with an entry for PVH or a bzImage, its initramfs and its command line.
    pub(crate) fn new(
        kernel: &[u8],
        initramfs: &[u8],
        command_line: &str,
        memory: Memory,
    ) -> anyhow::Result<Self> {
        let size = u32::try_from(initramfs.len()).context("the initramfs is larger than 4 GiB")?;
        // Whole pages, as high as it goes.
        let place =
            size.checked_next_multiple_of(0x1000).and_then(|size| (memory.size - TABLES).checked_sub(size));
        let place = place.context("the initramfs is larger than memory")?;
        let Handover { entry, info, mut chunks, end } = handover::prepare(
            kernel,
            &handover::Facts { info: INFO, initramfs: (place, size), command_line, memory },
        )?;
        if end > place {
            bail!("the kernel and its initramfs do not fit into {} MiB of memory", memory.size >> 20);
        }
        // What pads a chunk's last sector is overwritten by the next.
        chunks.sort_by_key(|chunk| chunk.to);
        chunks.push(Chunk { to: place, content: initramfs });
        chunks.push(Chunk { to: INFO, content: &info });
        let (mut disk, mut pieces) = (Vec::new(), Vec::new());
        for Chunk { to, content } in &chunks {
            for (number, part) in content.chunks(MOST_SECTORS * SECTOR).enumerate() {
                let sectors = part.len().div_ceil(SECTOR);
                disk.extend_from_slice(part);
                disk.resize(disk.len().next_multiple_of(SECTOR), 0);
                let offset = u32::try_from(number * MOST_SECTORS * SECTOR)?;
                pieces.push(Piece { to: to + offset, sectors: u32::try_from(sectors)? });
            }
        }
        disk.resize(disk.len().next_multiple_of(CYLINDER * SECTOR), 0);
        Ok(Self { rom: rom::rom(entry, INFO, &pieces)?, disk })
    }
}

#[cfg(test)]
mod tests;
