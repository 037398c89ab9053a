//! What a kernel is told when it is entered: by PVH (include/xen/interface/hvm/start_info.h) for an ELF file, by
//! the 32-bit boot protocol (Documentation/arch/x86/boot.rst) for a bzImage.

use anyhow::{Context, bail};
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use super::{Chunk, Memory};
use crate::bed::kernel::pvh_entry;

/// What is handed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// Where the kernel finds it.
    pub(super) info: u32,
    /// Where the initramfs is, and its size.
    pub(super) initramfs: (u32, u32),
    pub(super) command_line: &'a str,
    pub(super) memory: Memory,
}

/// How a kernel is entered.
#[derive(Debug)]
pub(super) struct Handover<'a> {
    /// The address of its first instruction.
    pub(super) entry: u32,
    /// What is at [`Facts::info`].
    pub(super) info: Vec<u8>,
    /// The kernel itself.
    pub(super) chunks: Vec<Chunk<'a>>,
    /// Where the memory ends that it needs at first.
    pub(super) end: u32,
}

/// For an ELF file or a bzImage.
pub(super) fn prepare<'a>(kernel: &'a [u8], facts: &Facts<'_>) -> anyhow::Result<Handover<'a>> {
    if kernel.starts_with(&elf::ELFMAG) { pvh(kernel, facts) } else { boot_protocol(kernel, facts) }
}

fn pvh<'a>(kernel: &'a [u8], facts: &Facts<'_>) -> anyhow::Result<Handover<'a>> {
    let entry = pvh_entry(kernel).context("the kernel has no entry for PVH")?;
    let header = FileHeader64::<Endianness>::parse(kernel).context("the kernel is no ELF file")?;
    let endian = header.endian().context("the kernel is no ELF file")?;
    let segments = header.program_headers(endian, kernel).context("the kernel has no segments")?;
    let (mut chunks, mut end) = (Vec::new(), 0);
    for segment in segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD) {
        let content = segment.data(endian, kernel).ok().context("a segment of the kernel is cut off")?;
        let (to, size) = (segment.p_paddr(endian), segment.p_memsz(endian));
        let last = to.checked_add(size).and_then(|last| u32::try_from(last).ok());
        end = last.context("a segment of the kernel is beyond 4 GiB")?.max(end);
        chunks.push(Chunk { to: u32::try_from(to)?, content });
    }
    Ok(Handover { entry, info: start_info(facts), chunks, end })
}

/// `hvm_start_info`, and behind it what it points to.
fn start_info(facts: &Facts<'_>) -> Vec<u8> {
    const MAGIC: u32 = 0x336e_c578;
    const VERSION: u32 = 1;
    const MODULES: u32 = 64;
    const MEMORY: u32 = MODULES + 32;
    const COMMAND_LINE: u32 = 256;
    let map = facts.memory.map();
    let at = |offset: u32| u64::from(facts.info + offset);
    let mut info = Bytes::default();
    info.half(MAGIC).half(VERSION).half(0).half(1);
    info.word(at(MODULES)).word(at(COMMAND_LINE)).word(0);
    info.word(at(MEMORY)).half(u32::try_from(map.len()).unwrap_or_default()).half(0);
    info.pad_to(MODULES).word(facts.initramfs.0.into()).word(facts.initramfs.1.into()).word(0).word(0);
    info.pad_to(MEMORY);
    for (start, end, kind) in map {
        info.word(start).word(end - start).half(kind).half(0);
    }
    info.pad_to(COMMAND_LINE);
    info.0.extend(facts.command_line.bytes());
    info.0.push(0);
    info.0
}

fn boot_protocol<'a>(kernel: &'a [u8], facts: &Facts<'_>) -> anyhow::Result<Handover<'a>> {
    const ZERO_PAGE: u32 = 0x1000;
    let cut = "the kernel is cut off";
    let half =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(kernel.get(at..at + 4)?.try_into().ok()?)) };
    if kernel.get(0x202..0x206) != Some(b"HdrS") {
        bail!("the kernel is neither an ELF file nor a bzImage: there is no `HdrS` at 0x202");
    }
    let version = half(0x206).context(cut)? & 0xffff;
    if version < 0x20a {
        bail!("the kernel's boot protocol {version:#x} is older than 2.10 (Linux 2.6.31)");
    }
    let sectors = kernel[0x1f1];
    // Zero means four, for the sake of the oldest loaders.
    let setup = (usize::from(if sectors == 0 { 4 } else { sectors }) + 1) * 512;
    let content = kernel.get(setup..).context(cut)?;
    let to = half(0x258).context(cut)?;
    let end = to.checked_add(half(0x260).context(cut)?).context("the kernel is beyond 4 GiB")?;

    let mut info = vec![0; ZERO_PAGE as usize];
    let header = 0x1f1..0x202 + usize::from(kernel[0x201]);
    let fits = kernel.get(header.clone()).zip(info.get_mut(header));
    let (from, page) = fits.context(cut)?;
    page.copy_from_slice(from);
    let mut set = |at: usize, bytes: &[u8]| info[at..at + bytes.len()].copy_from_slice(bytes);
    // A loader without a number of its own.
    set(0x210, &[0xff]);
    set(0x214, &to.to_le_bytes());
    set(0x218, &facts.initramfs.0.to_le_bytes());
    set(0x21c, &facts.initramfs.1.to_le_bytes());
    set(0x228, &(facts.info + ZERO_PAGE).to_le_bytes());
    let map = facts.memory.map();
    set(0x1e8, &[u8::try_from(map.len())?]);
    for (number, (start, end, kind)) in map.into_iter().enumerate() {
        let mut entry = Bytes::default();
        entry.word(start).word(end - start).half(kind);
        set(0x2d0 + number * 20, &entry.0);
    }
    info.extend(facts.command_line.bytes());
    info.push(0);
    Ok(Handover { entry: to, info, chunks: vec![Chunk { to, content }], end })
}

/// Little-endian fields, one behind the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn half(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn word(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn pad_to(&mut self, offset: u32) -> &mut Self {
        self.0.resize(offset as usize, 0);
        self
    }
}
