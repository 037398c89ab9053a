//! The ELF side: headers, segments, sections and symbols of a file that may be damaged or hostile.
//!
//! `object` parses; this module decides what a payload may contain and bounds what is copied from it.
//! It knows nothing of boot protocols.

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};

use super::error::{Fault, Place};
use super::segment::{self, Segment};
use super::symbols::{Symbol, Symbols};

/// Most loadable segments: a linker script for payloads makes about six.
pub(super) const MAX_SEGMENTS: usize = 32;

/// Most symbols, and longest symbol name in bytes. With [`super::MAX_FILE`] they bound the work that a
/// damaged symbol table can cause.
const MAX_SYMBOLS: usize = 1 << 16;
const MAX_SYMBOL_NAME: usize = 4096;

/// A static x86-64 executable whose tables lie inside the file.
pub(super) struct Elf<'data> {
    bytes: &'data [u8],
    header: &'data FileHeader64<LE>,
    programs: &'data [ProgramHeader64<LE>],
    sections: SectionTable<'data, FileHeader64<LE>>,
}

impl<'data> Elf<'data> {
    /// Checks the ELF header and finds the tables.
    pub(super) fn parse(bytes: &'data [u8]) -> Result<Self, Fault> {
        check_ident(bytes)?;
        let header = FileHeader64::<LE>::parse(bytes).map_err(damaged)?;
        let machine = header.e_machine(LE);
        require("machine", machine.0.into(), elf::EM_X86_64.0.into(), "x86-64")?;
        let kind = header.e_type(LE);
        require("type", kind.0.into(), elf::ET_EXEC.0.into(), "a static, non-relocatable executable")?;
        let programs = header.program_headers(LE, bytes).map_err(damaged)?;
        let sections = header.sections(LE, bytes).map_err(damaged)?;
        Ok(Self { bytes, header, programs, sections })
    }

    /// The address at which the payload wants to start.
    pub(super) fn entry(&self) -> u64 {
        self.header.e_entry(LE)
    }

    /// The loadable segments, sorted by address.
    pub(super) fn segments(&self) -> Result<Vec<Segment>, Fault> {
        for program in self.programs {
            let what = match program.p_type(LE) {
                elf::PT_DYNAMIC | elf::PT_INTERP => "a dynamic linker",
                elf::PT_TLS if program.p_memsz(LE) > 0 => "thread-local storage",
                _ => continue,
            };
            return Err(Fault::Dynamic { what });
        }
        let loads = self.programs.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD && p.p_memsz(LE) > 0);
        let found = loads.clone().count();
        if found > MAX_SEGMENTS {
            return Err(Fault::TooManySegments { found, limit: MAX_SEGMENTS });
        }
        // Segments that name the same bytes of the file would multiply its size in memory.
        let content = loads.clone().fold(0, |sum: u64, program| sum.saturating_add(program.p_filesz(LE)));
        if content > self.bytes.len() as u64 {
            return Err(damage("its segments hold more bytes than the file"));
        }
        segment::sort(loads.map(|program| self.segment(program)).collect::<Result<_, _>>()?)
    }

    fn segment(&self, program: &ProgramHeader64<LE>) -> Result<Segment, Fault> {
        let (virt, phys) = (program.p_vaddr(LE), program.p_paddr(LE));
        let place = Place { start: phys, size: program.p_memsz(LE) };
        if virt != phys {
            return Err(Fault::NotIdentity { segment: place, virt, phys });
        }
        let content = program
            .data(LE, self.bytes)
            .map_err(|()| damage(&format!("the content of segment {place} lies outside the file")))?;
        let flags = program.p_flags(LE);
        Segment::new(
            place,
            content,
            flags.contains(elf::PF_R),
            flags.contains(elf::PF_W),
            flags.contains(elf::PF_X),
        )
    }

    /// The content of the section with this name, if there is one.
    pub(super) fn section(&self, name: &str) -> Result<Option<&'data [u8]>, Fault> {
        let Some((_, section)) = self.sections.section_by_name(LE, name.as_bytes()) else {
            return Ok(None);
        };
        section.data(LE, self.bytes).map(Some).map_err(damaged)
    }

    /// The named symbols that the payload defines.
    pub(super) fn symbols(&self, segments: &[Segment]) -> Result<Symbols, Fault> {
        let table = self.sections.symbols(LE, self.bytes, elf::SHT_SYMTAB).map_err(damaged)?;
        if table.len() > MAX_SYMBOLS {
            return Err(damage(&format!("{} symbols, more than {MAX_SYMBOLS}", table.len())));
        }
        let mut symbols = Vec::new();
        let mut names = 0;
        for symbol in table.iter() {
            if symbol.is_undefined(LE)
                || matches!(symbol.st_type(), elf::STT_SECTION | elf::STT_FILE | elf::STT_TLS)
            {
                continue;
            }
            let name = table.symbol_name(LE, symbol).map_err(damaged)?;
            names += name.len();
            // A linker writes each name once; names that share bytes would multiply the file's size.
            if name.len() > MAX_SYMBOL_NAME || names > self.bytes.len() {
                return Err(damage("a symbol's name does not end"));
            }
            let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_printable(name)) else {
                continue;
            };
            symbols.push(Symbol {
                name: name.to_owned(),
                address: symbol.st_value(LE),
                is_function: symbol.st_type() == elf::STT_FUNC,
                is_absolute: symbol.is_absolute(LE),
            });
        }
        Ok(Symbols::new(symbols, segments))
    }
}

/// Whether a name is something that people can read and type.
fn is_printable(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_control)
}

/// Checks magic, class and byte order before anything is read as a 64-bit header.
fn check_ident(bytes: &[u8]) -> Result<(), Fault> {
    let Some((&[0x7f, b'E', b'L', b'F', class, order], _)) = bytes.split_first_chunk() else {
        return Err(Fault::NotElf);
    };
    require("class", class.into(), elf::ELFCLASS64.0.into(), "64-bit")?;
    require("byte order", order.into(), elf::ELFDATA2LSB.0.into(), "little-endian")
}

fn require(field: &'static str, found: u64, expected: u64, meaning: &'static str) -> Result<(), Fault> {
    if found == expected { Ok(()) } else { Err(Fault::Header { field, found, expected, meaning }) }
}

fn damaged(error: object::read::Error) -> Fault {
    damage(&error.to_string())
}

fn damage(what: &str) -> Fault {
    Fault::Damaged { what: what.to_owned() }
}
