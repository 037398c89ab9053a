//! The boot protocol's loader: reads a payload and prepares what guest memory holds when it starts.
//!
//! A payload is a static x86-64 ELF kernel that speaks [`bootloader_api`]. [`Payload::parse`] checks
//! it once; [`Payload::image`] lays out guest memory and the registers of the first instruction.
//! Bytes in, bytes out: this module must not know of KVM, of manifests or of verdicts.

mod boot_info;
mod config;
mod elf;
mod emulable;
mod error;
mod image;
mod paging;
mod segment;
mod start;
mod symbols;

use std::fs::File;
use std::io::Read;
use std::mem::offset_of;
use std::path::Path;

use exitspec_protocol::{EMULABLE_SECTION, Name, SCENARIO_SECTION, ScenarioEntry};

use config::BootRequest;
use elf::Elf;
use segment::Segment;

pub use error::{Fault, PayloadError};
pub use image::{Chunk, Image, MAX_MEMORY};
pub use start::{Descriptor, LongModeStart, Table};
pub use symbols::{SymbolError, Symbols};

/// Largest payload file, in bytes. Real ones are a few hundred KiB.
pub const MAX_FILE: u64 = 16 << 20;

/// Longest x86 instruction, in bytes (SDM Vol. 2A, 2.3.11).
const MAX_INSTRUCTION: u64 = 15;

/// A payload that passed every check that needs no RAM size.
#[derive(Debug)]
pub struct Payload {
    name: String,
    segments: Vec<Segment>,
    entry: u64,
    request: BootRequest,
    scenarios: Vec<String>,
    symbols: Symbols,
    emulable: Vec<u64>,
}

impl Payload {
    /// Reads and checks the ELF file at `path`; its file name becomes the payload's name.
    ///
    /// Fails if the file cannot be read, is larger than [`MAX_FILE`], or for [`Payload::parse`]'s reasons.
    pub fn load(path: &Path) -> Result<Self, PayloadError> {
        let shown = path.display().to_string();
        let bytes = read_bounded(path).map_err(|fault| PayloadError::new(&shown, fault))?;
        let mut payload = Self::parse(&shown, &bytes)?;
        if let Some(file_name) = path.file_name() {
            payload.name = file_name.to_string_lossy().into_owned();
        }
        Ok(payload)
    }

    /// Checks the ELF file in `bytes`; `name` is what errors call it.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, PayloadError> {
        Self::from_elf(name, bytes).map_err(|fault| PayloadError::new(name, fault))
    }

    fn from_elf(name: &str, bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() as u64 > MAX_FILE {
            return Err(Fault::FileTooLarge { limit: MAX_FILE });
        }
        let elf = Elf::parse(bytes)?;
        let segments = elf.segments()?;
        let entry = elf.entry();
        segment::require_code("entry point", entry, &segments)?;
        let request = config::read(elf.section(config::SECTION)?)?;
        let scenarios = read_scenarios(elf.section(SCENARIO_SECTION)?.unwrap_or_default(), &segments)?;
        let symbols = elf.symbols(&segments)?;
        let emulable = emulable::read(elf.section(EMULABLE_SECTION)?.unwrap_or_default(), &segments)?;
        Ok(Self { name: name.to_owned(), segments, entry, request, scenarios, symbols, emulable })
    }

    /// The payload's name: its file name, or what [`Payload::parse`] was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The scenarios it offers, in the order of the file.
    pub fn scenarios(&self) -> impl Iterator<Item = &str> {
        self.scenarios.iter().map(String::as_str)
    }

    /// Its symbols.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Addresses of the NOPs that can become KVM's forced-emulation prefix, sorted.
    pub fn emulable(&self) -> &[u64] {
        &self.emulable
    }

    /// The `len` bytes at `addr` as the file holds them; `None` unless all of them come from one segment's
    /// file content (memory that merely starts as zero, such as `.bss`, does not count).
    pub fn bytes_at(&self, addr: u64, len: usize) -> Option<&[u8]> {
        self.segments.iter().find_map(|segment| segment.file_bytes(addr, len))
    }

    /// The address after the instruction at `addr`, decoded as 16-, 32- or 64-bit code.
    ///
    /// `None` if `bitness` is something else, or if no valid instruction of the image is there.
    pub fn instruction_after(&self, addr: u64, bitness: u32) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.file_bytes(addr, 1).is_some())?;
        let left = segment.file_end() - addr;
        let code = segment.file_bytes(addr, left.min(MAX_INSTRUCTION) as usize)?;
        let options = iced_x86::DecoderOptions::NONE;
        let instruction = iced_x86::Decoder::try_with_ip(bitness, code, addr, options).ok()?.decode();
        (!instruction.is_invalid()).then(|| addr + instruction.len() as u64)
    }

    /// Lays out `memory` bytes of RAM from guest-physical address 0: what to write where, and how to start.
    ///
    /// The result depends on nothing else, so one image serves every boot with this much RAM.
    /// Fails if `memory` is not a multiple of 4 KiB, exceeds [`MAX_MEMORY`], or is too small.
    pub fn image(&self, memory: u64) -> Result<Image, PayloadError> {
        image::build(&self.segments, self.entry, &self.request, memory)
            .map(|image| Image { emulable: self.emulable.clone(), ..image })
            .map_err(|fault| PayloadError::new(&self.name, fault))
    }
}

/// A regular file's content, if it is not larger than [`MAX_FILE`].
fn read_bounded(path: &Path) -> Result<Vec<u8>, Fault> {
    // Asked by path before the open: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(Fault::Unreadable)?.is_file() {
        return Err(Fault::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Fault::Unreadable)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Fault::Unreadable)?;
    Ok(bytes)
}

/// The names in an array of [`ScenarioEntry`], each checked as the guest relies on it.
fn read_scenarios(section: &[u8], segments: &[Segment]) -> Result<Vec<String>, Fault> {
    let rows = section.chunks_exact(size_of::<ScenarioEntry>());
    if !rows.remainder().is_empty() {
        return Err(Fault::ScenarioSize { size: section.len(), row: size_of::<ScenarioEntry>() });
    }
    let mut names: Vec<String> = Vec::with_capacity(rows.len());
    for (index, row) in rows.enumerate() {
        let (name, run) = row.split_at(offset_of!(ScenarioEntry, run));
        let run = run.first_chunk().map_or(0, |address| u64::from_le_bytes(*address));
        let unpadded = name.iter().position(|&byte| byte == 0).unwrap_or(Name::MAX);
        let (name, padding) = name.split_at(unpadded);
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| !name.is_empty() && !name.chars().any(char::is_control))
            .filter(|_| padding.iter().all(|&byte| byte == 0))
            .ok_or(Fault::ScenarioName { index })?;
        if names.iter().any(|known| known == name) {
            return Err(Fault::ScenarioTwice { name: name.to_owned() });
        }
        segment::require_code("scenario's function", run, segments)?;
        names.push(name.to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
