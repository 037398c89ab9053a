//! The words that guest and host share.
//!
//! Both sides compile this one file, so a layout cannot drift. It knows nothing of KVM, of TOML or
//! of hardware. Guest memory is hostile input: everything here that reads bytes checks them.
#![no_std]
#![forbid(unsafe_code)]

/// The port of every report: `OUT dx, eax` with the physical address of a [`Report`] in EAX.
///
/// No PC device lives here, and an in-kernel irqchip or PIT does not claim it.
pub const REPORT_PORT: u16 = 0xE5E0;

/// First physical and virtual address of a payload's 64-bit image.
pub const IMAGE_BASE: u64 = 0x20_0000;

/// Where real-mode code is linked, below 64 KiB so that CS base 0 reaches it, page-aligned so that
/// a SIPI vector ([`AP_START_VECTOR`]) can name it.
pub const LOW_IMAGE_BASE: u64 = 0x8000;

/// The SIPI vector of the application processors' trampoline: physical address 0x8000.
pub const AP_START_VECTOR: u8 = (LOW_IMAGE_BASE >> 12) as u8;

/// ELF section in which a payload lists its scenarios: an array of [`ScenarioEntry`].
pub const SCENARIO_SECTION: &str = ".exitspec.scenarios";

/// ELF section in which a payload lists where KVM can be made to emulate an instruction: an array of addresses, each of
/// an [`EMULABLE_NOP`].
pub const EMULABLE_SECTION: &str = ".exitspec.emulable";

/// What stands before such an instruction: `nopw 0(rax)`, five bytes long in 16-, 32- and 64-bit code.
pub const EMULABLE_NOP: [u8; 5] = [0x66, 0x0f, 0x1f, 0x40, 0x00];

/// Largest text, in bytes, that the host takes from one report; the rest is cut.
pub const MAX_TEXT: usize = 1024;

/// First word of every [`Report`] ("XSRP").
pub const REPORT_MAGIC: u32 = 0x5052_5358;

/// First word of [`Params`] ("XSPM").
pub const PARAMS_MAGIC: u32 = 0x4D50_5358;

/// What a [`Report`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ReportKind {
    /// A note for whoever reads a failure; never matched. `text` is the note.
    Progress = 1,
    /// A value that the manifest states. `text` names it, `values[0]` is it.
    Value = 2,
    /// An in-guest assertion did not hold. `text` says which; `file` and `line` say where.
    /// `values[0]` is what was observed and `values[1]` what was expected, when `values[2]` is 1.
    CheckFailed = 3,
    /// The guest panicked: the payload is at fault. `text` is the message.
    Panic = 4,
    /// An exception that no scenario asked for: `values` = vector, error code, RIP, CR2.
    Fault = 5,
    /// The scenario ran to its end.
    Done = 6,
}

impl ReportKind {
    /// The kind with this number, if there is one.
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Progress,
            2 => Self::Value,
            3 => Self::CheckFailed,
            4 => Self::Panic,
            5 => Self::Fault,
            6 => Self::Done,
            _ => return None,
        })
    }
}

/// A piece of guest memory: physical address and length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Span {
    /// Guest-physical address. The image and the stacks are identity-mapped, so a guest's pointer is it.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
}

/// One report, in guest memory below 4 GiB, while the `OUT` that announces it exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Report {
    /// [`REPORT_MAGIC`].
    pub magic: u32,
    /// A [`ReportKind`] as number.
    pub kind: u32,
    /// Index of the reporting vCPU.
    pub cpu: u32,
    /// Source line, or 0.
    pub line: u32,
    /// Source file, UTF-8, or empty.
    pub file: Span,
    /// UTF-8 text; see [`ReportKind`].
    pub text: Span,
    /// Numbers; see [`ReportKind`].
    pub values: [u64; 4],
}

impl Report {
    /// Size in guest memory, bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads a report as a little-endian guest laid it out; `None` unless magic and kind are known.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let word = |at: usize| u32_at(bytes, at);
        let long = |at: usize| u64_at(bytes, at);
        ReportKind::from_u32(word(4)).filter(|_| word(0) == REPORT_MAGIC)?;
        Some(Self {
            magic: word(0),
            kind: word(4),
            cpu: word(8),
            line: word(12),
            file: Span { addr: long(16), len: long(24) },
            text: Span { addr: long(32), len: long(40) },
            values: [long(48), long(56), long(64), long(72)],
        })
    }
}

/// Most arguments that a case can pass to its scenario.
pub const MAX_ARGS: usize = 8;

/// A short name, zero-padded UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Name {
    /// The bytes; zero from the end of the name on.
    pub bytes: [u8; Self::MAX],
}

impl Name {
    /// Longest name, in bytes.
    pub const MAX: usize = 48;

    /// The name as stored, or `None` if `text` is empty or longer than [`Name::MAX`] bytes.
    pub const fn new(text: &str) -> Option<Self> {
        let source = text.as_bytes();
        if source.is_empty() || source.len() > Self::MAX {
            return None;
        }
        let mut bytes = [0; Self::MAX];
        let mut at = 0;
        while at < source.len() {
            bytes[at] = source[at];
            at += 1;
        }
        Some(Self { bytes })
    }

    /// The bytes of the name without its padding.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.bytes.iter().position(|&b| b == 0).unwrap_or(Self::MAX);
        &self.bytes[..len]
    }
}

/// A named number that a case passes to its scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Arg {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub value: u64,
}

/// What the host asks a payload to do: the content of the boot protocol's ramdisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Params {
    /// [`PARAMS_MAGIC`].
    pub magic: u32,
    /// How many of `args` are used.
    pub arg_count: u32,
    /// Which scenario to run.
    pub scenario: Name,
    /// Its arguments.
    pub args: [Arg; MAX_ARGS],
    /// Guest-physical address of the loader's top-level page table: CR3 at the start, so that the runtime need not
    /// read CR3, which is a thing to test.
    pub page_tables: u64,
}

impl Params {
    /// Size in guest memory, bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Parameters for a scenario without arguments.
    pub const fn new(scenario: Name) -> Self {
        let none = Arg { name: Name { bytes: [0; Name::MAX] }, value: 0 };
        Self { magic: PARAMS_MAGIC, arg_count: 0, scenario, args: [none; MAX_ARGS], page_tables: 0 }
    }

    /// The bytes as the guest reads them.
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0..4].copy_from_slice(&self.magic.to_le_bytes());
        out[4..8].copy_from_slice(&self.arg_count.to_le_bytes());
        out[8..8 + Name::MAX].copy_from_slice(&self.scenario.bytes);
        for (slot, arg) in out[8 + Name::MAX..].chunks_exact_mut(size_of::<Arg>()).zip(&self.args) {
            slot[..Name::MAX].copy_from_slice(&arg.name.bytes);
            slot[Name::MAX..].copy_from_slice(&arg.value.to_le_bytes());
        }
        out[Self::SIZE - 8..].copy_from_slice(&self.page_tables.to_le_bytes());
        out
    }
}

/// One row of [`SCENARIO_SECTION`], read by the guest to run it and by the host to list it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ScenarioEntry {
    /// The scenario's name.
    pub name: Name,
    /// What runs.
    pub run: fn(),
}

const _: () = assert!(Report::SIZE == 80);
const _: () = assert!(Params::SIZE == 8 + Name::MAX + MAX_ARGS * (Name::MAX + 8) + 8);
const _: () = assert!(size_of::<ScenarioEntry>() == Name::MAX + 8);

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn report_needs_magic_and_known_kind() {
        let mut bytes = [0; Report::SIZE];
        assert_eq!(Report::from_bytes(&bytes), None);
        bytes[0..4].copy_from_slice(&REPORT_MAGIC.to_le_bytes());
        bytes[4] = 99;
        assert_eq!(Report::from_bytes(&bytes), None);
        bytes[4] = ReportKind::Value as u8;
        bytes[48..56].copy_from_slice(&0x1234_5678_9abc_def0_u64.to_le_bytes());
        let report = Report::from_bytes(&bytes).unwrap();
        assert_eq!(report.values[0], 0x1234_5678_9abc_def0);
    }

    #[test]
    fn names_are_bounded_and_unpadded() {
        assert_eq!(Name::new(""), None);
        assert_eq!(Name::new(&"x".repeat(Name::MAX + 1)), None);
        assert_eq!(Name::new("in_byte").unwrap().as_bytes(), b"in_byte");
        assert_eq!(Name::new(&"x".repeat(Name::MAX)).unwrap().as_bytes().len(), Name::MAX);
    }

    #[test]
    fn params_bytes_hold_scenario_and_args_where_the_guest_reads_them() {
        let mut params = Params::new(Name::new("abc").unwrap());
        params.arg_count = 1;
        params.args[0] = Arg { name: Name::new("n").unwrap(), value: 7 };
        params.page_tables = 0x1_2000;
        let bytes = params.to_bytes();
        assert_eq!(&bytes[8..12], b"abc\0");
        let args = core::mem::offset_of!(Params, args);
        assert_eq!(bytes[args], b'n');
        assert_eq!(bytes[args + Name::MAX], 7);
        let tables = core::mem::offset_of!(Params, page_tables);
        assert_eq!(bytes[tables..tables + 8], 0x1_2000_u64.to_le_bytes());
    }
}
