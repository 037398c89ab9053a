//! System-management mode: the handler that an SMI starts, and the save area that RSM loads.
//!
//! A scenario has one handler at a time. It is either raw 16-bit code ([`smi_handler!`](crate::smi_handler!)), which
//! runs in the state that the SMI leaves, or a function in Rust ([`handle`]), which a stub calls in 64-bit mode, with
//! the runtime's page tables and descriptor tables and on a stack of its own. Nothing here knows how an SMI comes.
//!
//! AMD64 Architecture Programmer's Manual vol. 2, "System-Management Mode"; SDM vol. 3C, "System Management Mode".
#![expect(unsafe_code, reason = "handler code and save area are raw memory")]

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::entry;

/// SMBASE after reset.
pub const SMBASE_AFTER_RESET: u64 = 0x3_0000;
/// Where an SMI begins, from SMBASE.
const ENTRY: u64 = 0x8000;
/// The SMM revision identifier in the save area, from SMBASE.
const REVISION: u64 = 0xfefc;

/// A field of the save area: offset from SMBASE and size in bytes, in each of KVM's layouts.
///
/// The AMD64 layout (APM vol. 2, "SMRAM State-Save Area", revision 0x2_0064) is that of a CPU with long mode, the legacy
/// one (SDM vol. 3C, "SMRAM State Save Map", revision 0x2_0000) that of a CPU without. The host knows all fields; here
/// are those that handlers use.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    amd64: (u64, usize),
    legacy: (u64, usize),
}

/// The fields.
#[expect(missing_docs, reason = "register names")]
pub mod field {
    use super::Field;

    pub const RAX: Field = Field { amd64: (0xfff8, 8), legacy: (0xffd0, 4) };
    pub const RSP: Field = Field { amd64: (0xffd8, 8), legacy: (0xffe0, 4) };
    pub const RIP: Field = Field { amd64: (0xff78, 8), legacy: (0xfff0, 4) };
    pub const RFLAGS: Field = Field { amd64: (0xff70, 8), legacy: (0xfff4, 4) };
    pub const CR0: Field = Field { amd64: (0xff58, 8), legacy: (0xfffc, 4) };
    pub const CR3: Field = Field { amd64: (0xff50, 8), legacy: (0xfff8, 4) };
    /// The legacy layout has it by KVM's own choice.
    pub const CR4: Field = Field { amd64: (0xff48, 8), legacy: (0xff14, 4) };
    /// What RSM loads here is where the next SMI begins.
    pub const SMBASE: Field = Field { amd64: (0xff00, 4), legacy: (0xfef8, 4) };
    pub const AUTO_HALT: Field = Field { amd64: (0xfec9, 1), legacy: (0xff02, 2) };
}

/// Code of a handler, made by [`smi_handler!`](crate::smi_handler!).
#[repr(C)]
#[derive(Debug)]
pub struct Code {
    /// Bytes of code, which follow.
    len: u64,
}

/// A handler in 16-bit code, as [`Code`] of this name: what [`install`] copies to where an SMI begins.
///
/// It may lie anywhere: jumps within it are relative. It starts with CS base = SMBASE and RIP = 0x8000, and with
/// flat data segments; it has no stack, and ends with `rsm`.
/// ```ignore
/// guest::smi_handler! {
///     /// Tells that it runs.
///     tell: "out 0x80, al", guest::smi_label!("at_rsm"), "rsm"
/// }
/// guest::smm::install(&tell);
/// ```
#[macro_export]
macro_rules! smi_handler {
    ($(#[doc = $doc:literal])* $name:ident: $($line:expr),+ $(,)?) => {
        ::core::arch::global_asm!(
            ".pushsection .rodata.smi_handlers, \"a\", @progbits",
            ".balign 8",
            concat!(".globl ", stringify!($name)),
            concat!(stringify!($name), ":"),
            ".quad 78f - 77f",
            "77:",
            ".code16",
            $($line,)+
            "78:",
            ".code64", // The whole payload is one assembly file.
            ".popsection",
        );
        unsafe extern "C" {
            $(#[doc = $doc])*
            safe static $name: $crate::smm::Code;
        }
    };
}

/// Names the next instruction of a [`smi_handler!`](crate::smi_handler!), as one of its lines.
///
/// The name's value is what RIP is there: the offset from SMBASE. `rip = "at NAME"` in a manifest is right wherever
/// SMBASE is; `"after NAME"` is not, since no instruction of the payload lies at that address.
#[macro_export]
macro_rules! smi_label {
    ($name:literal) => {
        concat!(".globl ", $name, "\n.set ", $name, ", . - 77b + 0x8000")
    };
}

// From the entry's far jump on. The interrupted state needs no saving; RSM loads it from the save area, in whatever mode it is executed.
global_asm!(
    ".pushsection .low.text.smm, \"ax\", @progbits",
    ".code16",
    "smi_long:",
    crate::into_long_mode!("smi_cr3", "smi_long_mode"),
    "lidt [{idt}]",
    "xor ebp, ebp",
    "lea rsp, [{stack} + {stack_size}]",
    "cld",
    "call {main}",
    ".globl smi_return",
    "smi_return:",
    "rsm",
    ".popsection",
    ".pushsection .low.data.smm, \"aw\", @progbits",
    ".balign 8",
    ".globl smi_cr3",
    "smi_cr3: .quad 0",
    ".popsection",
    // A far jump to CS base 0, where the code above is linked.
    ".pushsection .rodata.smi_handlers, \"a\", @progbits",
    ".balign 8",
    ".globl smi_enter_rust",
    "smi_enter_rust: .quad 5",
    ".byte 0xea",
    ".word smi_long, 0",
    ".popsection",
    idt = sym crate::tables::IDT_POINTER,
    stack = sym STACK,
    stack_size = const STACK_SIZE,
    main = sym main,
);

unsafe extern "C" {
    #[link_name = "smi_cr3"]
    static CR3: AtomicU64;
    #[link_name = "smi_enter_rust"]
    safe static ENTER_RUST: Code;
}

const STACK_SIZE: usize = 8192;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; STACK_SIZE]>);

// SAFETY: only the handler runs on it, and SMIs do not nest.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; STACK_SIZE]));

static HANDLER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

extern "C" fn main() {
    let handler = HANDLER.load(Ordering::Acquire);
    if !handler.is_null() {
        // SAFETY: only `handle` stores non-null values, which are functions of this type.
        let handler = unsafe { core::mem::transmute::<*mut (), fn()>(handler) };
        handler();
    }
}

/// Installs a handler where an SMI begins after reset.
pub fn install(code: &'static Code) {
    install_at(SMBASE_AFTER_RESET, code);
}

/// Installs a handler for another SMBASE. Sets no SMBASE: see [`write()`].
pub fn install_at(smbase: u64, code: &'static Code) {
    let from = (&raw const *code).wrapping_add(1).cast::<u8>();
    // SAFETY: `smi_handler!` puts that many bytes behind the length. SMRAM is RAM, which no Rust value lives in.
    unsafe { ptr::copy_nonoverlapping(from, entry::physical(smbase + ENTRY), code.len as usize) };
}

/// Makes `handler` run at each SMI of CPU 0, in 64-bit mode and with the interrupted state in the save area. It may
/// use all of the runtime: report, [`catch`](crate::catch) faults.
pub fn handle(handler: fn()) {
    handle_at(SMBASE_AFTER_RESET, handler);
}

/// As [`handle`], for another SMBASE.
pub fn handle_at(smbase: u64, handler: fn()) {
    // SAFETY: the mailbox is static; its only other reader is the stub, which runs at the next SMI.
    unsafe { CR3.store(entry::page_tables(), Ordering::Release) };
    HANDLER.store(handler as *mut (), Ordering::Release);
    install_at(smbase, &ENTER_RUST);
}

/// Reads a field of the save area: what was interrupted.
pub fn read(smbase: u64, field: Field) -> u64 {
    let (at, size) = place(smbase, field);
    let mut bytes = [0; 8];
    for (index, byte) in bytes.iter_mut().take(size).enumerate() {
        // SAFETY: the save area is RAM, which no Rust value lives in.
        *byte = unsafe { at.add(index).read_volatile() };
    }
    u64::from_le_bytes(bytes)
}

/// Writes a field of the save area, for RSM to load.
pub fn write(smbase: u64, field: Field, value: u64) {
    let (at, size) = place(smbase, field);
    for (index, byte) in value.to_le_bytes().into_iter().take(size).enumerate() {
        // SAFETY: as for reading.
        unsafe { at.add(index).write_volatile(byte) };
    }
}

/// Where a field lies, by the revision that the last SMI left there, and its size.
fn place(smbase: u64, field: Field) -> (*mut u8, usize) {
    // SAFETY: as for reading; the field is aligned.
    let revision = unsafe { entry::physical::<u32>(smbase + REVISION).read_volatile() };
    let (offset, size) = if revision & 0xffff == 0x64 { field.amd64 } else { field.legacy };
    (entry::physical(smbase + offset), size)
}
