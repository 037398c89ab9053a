//! What can be wrong with a payload, in words for the person who built it.

use std::fmt;
use std::io;
use std::path::Path;

use super::segment::Segment;

/// Why a payload cannot be used: which one, what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("payload {payload}: {fault}")]
pub struct PayloadError {
    payload: String,
    fault: Fault,
}

impl PayloadError {
    pub(super) fn new(payload: &str, fault: Fault) -> Self {
        Self { payload: payload.to_owned(), fault }
    }

    /// The directory of payloads cannot be read.
    pub fn unreadable(dir: &Path, error: io::Error) -> Self {
        Self::new(&dir.display().to_string(), Fault::Unreadable(error))
    }

    /// What is wrong, without the payload's name.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

/// What is wrong with a payload. Addresses are guest-physical, sizes in bytes.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum Fault {
    #[error("cannot read it: {0}; build the payloads with `cargo xtask build`")]
    Unreadable(io::Error),
    #[error("it is not a regular file; name the ELF file that `cargo xtask build` made")]
    NotAFile,
    #[error("it is larger than {limit:#x} bytes, which no payload needs; is this the right file?")]
    FileTooLarge { limit: u64 },

    #[error("it is not an ELF file; build the payloads with `cargo xtask build`")]
    NotElf,
    #[error(
        "its ELF {field} is {found:#x}, not {expected:#x} ({meaning}); build it with `cargo xtask build`"
    )]
    Header { field: &'static str, found: u64, expected: u64, meaning: &'static str },
    #[error("its ELF structure is damaged ({what}); run `cargo xtask build` again")]
    Damaged { what: String },
    #[error("it has {found} loadable segments, more than {limit}; merge sections in its linker script")]
    TooManySegments { found: usize, limit: usize },
    #[error("it has no loadable segment; check that its linker script keeps the code")]
    NoSegment,
    #[error(
        "it needs {what}, which this loader does not provide; link it statically with `cargo xtask build`"
    )]
    Dynamic { what: &'static str },

    #[error(
        "segment {segment} is linked at virtual {virt:#x} but placed at physical {phys:#x}; \
         they must be equal (reports pass pointers as physical addresses), so drop AT() from its linker script"
    )]
    NotIdentity { segment: Place, virt: u64, phys: u64 },
    #[error(
        "segment {segment} holds {file:#x} bytes of the file but only {memory:#x} of memory; run `cargo xtask build` again"
    )]
    FileBeyondMemory { segment: Place, file: u64, memory: u64 },
    #[error("segment {segment} ends beyond {limit:#x}, where RAM may end at most; link it lower")]
    SegmentTooHigh { segment: Place, limit: u64 },
    #[error(
        "segment {segment} lies in the first page, which stays unmapped so that null pointers fault; link it higher"
    )]
    SegmentInFirstPage { segment: Place },
    #[error("segment {segment} is writable and executable; split code and data in its linker script")]
    WritableCode { segment: Place },
    #[error("segment {segment} is not readable, and x86 pages always are; check PHDRS in its linker script")]
    NotReadable { segment: Place },
    #[error(
        "segments {first} and {second} overlap or share a 4 KiB page; put `. = ALIGN(4096);` between them in its linker script"
    )]
    SharedPage { first: Place, second: Place },
    #[error(
        "the {what} {address:#x} is outside the executable segments; check the linker script and run `cargo xtask build`"
    )]
    NotCode { what: &'static str, address: u64 },

    #[error(
        "section {section} is missing: its main must be given to bootloader_api's `entry_point!`, and the linker script must KEEP the section"
    )]
    NoConfig { section: &'static str },
    #[error(
        "section {section} cannot be read ({reason}); guest and host must use one version of bootloader_api, so run `cargo xtask build`"
    )]
    Config { section: &'static str, reason: &'static str },
    #[error("it was built with bootloader_api {found}, the host with {ours}; run `cargo xtask build`")]
    ConfigVersion { found: String, ours: String },
    #[error("its BootloaderConfig sets {setting}, which this loader does not support; remove that setting")]
    Unsupported { setting: &'static str },
    #[error(
        "its BootloaderConfig sets mappings.physical_memory to {address:#x}, but the address must be {rule}"
    )]
    PhysicalMemory { address: u64, rule: &'static str },
    #[error("its BootloaderConfig sets kernel_stack_size to {size:#x}, but it must be 1 to {limit:#x}")]
    StackSize { size: u64, limit: u64 },

    #[error(
        "its scenario table has {size:#x} bytes, not a multiple of {row:#x}; run `cargo xtask build`, guest and host differ"
    )]
    ScenarioSize { size: usize, row: usize },
    #[error(
        "the name of scenario {index} (from 0) is empty or not printable, zero-padded UTF-8; run `cargo xtask build`, guest and host differ"
    )]
    ScenarioName { index: usize },
    #[error("it has two scenarios called {name:?}; rename one")]
    ScenarioTwice { name: String },

    #[error(
        "its list of emulable instructions has {size:#x} bytes, not a multiple of 8; run `cargo xtask build`, guest and host differ"
    )]
    EmulableSize { size: usize },
    #[error(
        "it lists {address:#x} as a place for KVM's forced-emulation prefix, where the NOP for it is not; run `cargo xtask build`, guest and host differ"
    )]
    NotEmulable { address: u64 },

    #[error("{memory:#x} bytes of RAM cannot be laid out: {rule}")]
    Memory { memory: u64, rule: &'static str },
    #[error(
        "it needs at least {needed:#x} bytes of RAM but has {memory:#x}; give the case more memory or make the payload's image or stack smaller"
    )]
    TooLittleMemory { needed: u64, memory: u64 },
}

/// Where a segment lies, as errors show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First byte, guest-physical.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} (+{:#x} bytes)", self.start, self.size)
    }
}

impl From<&Segment> for Place {
    fn from(segment: &Segment) -> Self {
        Self { start: segment.start, size: segment.size }
    }
}
