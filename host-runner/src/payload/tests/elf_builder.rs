//! Writes ELF files for tests, valid or not. It shares no code with the parser under test.

use bootloader_api::BootloaderConfig;

pub(super) const PF_X: u32 = 1;
pub(super) const PF_W: u32 = 2;
pub(super) const PF_R: u32 = 4;
pub(super) const PT_LOAD: u32 = 1;
pub(super) const STT_NOTYPE: u8 = 0;
pub(super) const STT_FUNC: u8 = 2;
pub(super) const SHN_ABS: u16 = 0xfff1;

/// Offsets of fields in the file header, and of the first program header and its fields.
pub(super) const E_CLASS: usize = 4;
pub(super) const E_DATA: usize = 5;
pub(super) const E_TYPE: usize = 16;
pub(super) const E_MACHINE: usize = 18;
pub(super) const E_PHOFF: usize = 32;
pub(super) const E_SHOFF: usize = 40;
pub(super) const E_SHSTRNDX: usize = 62;
pub(super) const PHDR: usize = 64;
pub(super) const PHDR_SIZE: usize = 56;
pub(super) const P_OFFSET: usize = 8;
pub(super) const P_FILESZ: usize = 32;

/// One program header and its content.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) vaddr: u64,
    pub(super) paddr: u64,
    pub(super) memsz: u64,
    pub(super) content: Vec<u8>,
}

impl Load {
    pub(super) fn new(at: u64, flags: u32, content: &[u8]) -> Self {
        let memsz = content.len() as u64;
        Self { kind: PT_LOAD, flags, vaddr: at, paddr: at, memsz, content: content.to_vec() }
    }
}

/// A symbol; `section` is 1 for anything that is defined in the image.
#[derive(Clone)]
pub(super) struct Symbol {
    pub(super) name: &'static str,
    pub(super) address: u64,
    pub(super) kind: u8,
    pub(super) section: u16,
}

/// A section's name, type, link, info, size of entries, and content.
type Section<'a> = (&'a str, u32, u32, u32, u64, &'a [u8]);

/// An ELF file to be.
#[derive(Clone, Default)]
pub(super) struct Elf {
    pub(super) entry: u64,
    pub(super) loads: Vec<Load>,
    pub(super) symbols: Vec<Symbol>,
    pub(super) config: Option<Vec<u8>>,
    pub(super) scenarios: Vec<u8>,
    pub(super) emulable: Vec<u8>,
}

impl Elf {
    pub(super) fn set_config(&mut self, config: &BootloaderConfig) {
        self.config = Some(config.serialize().to_vec());
    }

    pub(super) fn add_scenario(&mut self, name: &str, run: u64) {
        let mut row = name.as_bytes().to_vec();
        row.resize(48, 0);
        self.scenarios.extend(row);
        self.scenarios.extend(run.to_le_bytes());
    }

    pub(super) fn add_symbol(&mut self, name: &'static str, address: u64, kind: u8) {
        self.symbols.push(Symbol { name, address, kind, section: 1 });
    }

    /// Header, program headers, contents, sections, section headers.
    pub(super) fn build(&self) -> Vec<u8> {
        let mut out = vec![0; PHDR + self.loads.len() * PHDR_SIZE];
        for (index, load) in self.loads.iter().enumerate() {
            let offset = out.len() as u64;
            out.extend(&load.content);
            let mut row = Vec::new();
            row.extend(load.kind.to_le_bytes());
            row.extend(load.flags.to_le_bytes());
            let filesz = load.content.len() as u64;
            for word in [offset, load.vaddr, load.paddr, filesz, load.memsz, 0x1000] {
                row.extend(word.to_le_bytes());
            }
            put(&mut out, PHDR + index * PHDR_SIZE, &row);
        }
        let (symtab, strtab) = self.symbol_sections();
        let config = self.config.clone().unwrap_or_default();
        let config_name = if self.config.is_some() { ".bootloader-config" } else { ".comment" };
        let sections: [Section<'_>; 7] = [
            ("", 0, 0, 0, 0, &[]),
            (config_name, 1, 0, 0, 0, &config),
            (".exitspec.scenarios", 1, 0, 0, 0, &self.scenarios),
            (".exitspec.emulable", 1, 0, 0, 0, &self.emulable),
            (".symtab", 2, 5, 1, 24, &symtab),
            (".strtab", 3, 0, 0, 0, &strtab),
            (".shstrtab", 3, 0, 0, 0, &[]),
        ];
        let names: Vec<u8> =
            sections.iter().flat_map(|section| [section.0.as_bytes(), b"\0"].concat()).collect();
        let (mut headers, mut name_at) = (Vec::new(), 0_u32);
        for (name, kind, link, info, entsize, content) in sections {
            let content = if name == ".shstrtab" { &names } else { content };
            let (offset, size) = (out.len() as u64, content.len() as u64);
            out.extend(content);
            headers.extend([name_at, kind].iter().flat_map(|word| word.to_le_bytes()));
            headers.extend([0, 0, offset, size].iter().flat_map(|word: &u64| word.to_le_bytes()));
            headers.extend([link, info].iter().flat_map(|word| word.to_le_bytes()));
            headers.extend([1, entsize].iter().flat_map(|word: &u64| word.to_le_bytes()));
            name_at += name.len() as u32 + 1;
        }
        let shoff = out.len() as u64;
        out.extend(headers);

        put(&mut out, 0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        put(&mut out, E_TYPE, &2_u16.to_le_bytes());
        put(&mut out, E_MACHINE, &62_u16.to_le_bytes());
        put(&mut out, 20, &1_u32.to_le_bytes());
        put(&mut out, 24, &self.entry.to_le_bytes());
        put(&mut out, E_PHOFF, &(PHDR as u64).to_le_bytes());
        put(&mut out, E_SHOFF, &shoff.to_le_bytes());
        for (index, field) in [64, PHDR_SIZE as u16, self.loads.len() as u16, 64, 7, 6].iter().enumerate() {
            put(&mut out, 52 + 2 * index, &field.to_le_bytes());
        }
        out
    }

    fn symbol_sections(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut symtab, mut strtab) = (vec![0; 24], vec![0]);
        for symbol in &self.symbols {
            symtab.extend((strtab.len() as u32).to_le_bytes());
            symtab.extend([0x10 | symbol.kind, 0]); // STB_GLOBAL
            symtab.extend(symbol.section.to_le_bytes());
            symtab.extend(symbol.address.to_le_bytes());
            symtab.extend([0; 8]);
            strtab.extend(symbol.name.as_bytes());
            strtab.push(0);
        }
        (symtab, strtab)
    }
}

/// Overwrites bytes of a file.
pub(super) fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}
