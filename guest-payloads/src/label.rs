//! Names for single instructions, so that a manifest can say `rip = "at in_reset"`.
//!
//! A label is a global ELF symbol. It belongs into a naked function ([`label!`](crate::label!)) or
//! into code that starts outside 64-bit mode ([`real_mode!`](crate::real_mode!),
//! [`protected_mode!`](crate::protected_mode!)): these are emitted once, whatever the optimizer
//! does. A label in the `asm!` of an ordinary function could be duplicated by inlining; rustc
//! refuses it (`named_asm_labels`, deny by default). Two labels of one name in a payload do not
//! assemble.

/// Names the next instruction of a naked function, as a line of its `naked_asm!`.
/// ```ignore
/// #[unsafe(naked)]
/// extern "C" fn read_port() -> u64 {
///     naked_asm!("xor eax, eax", guest::label!("in_reset"), "in al, 0x61", "ret")
/// }
/// ```
#[macro_export]
macro_rules! label {
    ($name:literal) => {
        concat!(".globl ", $name, "\n", $name, ":")
    };
}

/// Where the host can make KVM emulate the next instruction: a NOP of five bytes, in every mode, that the linker lists
/// and that the host replaces by KVM's forced-emulation prefix. With a name, which is that of the instruction behind it.
///
/// A line of any `asm!`, but for one that must not be moved away from the instruction before it, such as the one in
/// the shadow of an STI. [`exitspec_protocol::EMULABLE_NOP`] has the same bytes.
/// ```ignore
/// naked_asm!("xor eax, eax", guest::emulable!("in_reset"), "in al, 0x61", "ret")
/// ```
#[macro_export]
macro_rules! emulable {
    () => {
        ".pushsection .exitspec.emulable, \"a\", @progbits\n.quad 909f\n.popsection\n909: .byte 0x66, 0x0f, 0x1f, 0x40, 0x00"
    };
    ($name:literal) => {
        concat!($crate::emulable!(), "\n", $crate::label!($name))
    };
}

/// Naked functions of few lines, side by side: each with its `ret`, if it returns.
/// ```ignore
/// guest::code! {
///     /// HLT, whose address has a name.
///     halts: guest::label!("hlt_here"), "hlt", "ret";
/// }
/// ```
#[macro_export]
macro_rules! code {
    ($($(#[doc = $doc:literal])* $name:ident: $($line:expr),+;)+) => {
        $(
            $(#[doc = $doc])*
            #[unsafe(naked)]
            extern "C" fn $name() {
                ::core::arch::naked_asm!($($line),+)
            }
        )+
    };
}

/// A scenario that starts in real mode: its name is the symbol at which the host starts the vCPU,
/// with CS base 0 and RIP = the symbol. Further lines may hold [`label!`](crate::label!)s.
/// ```ignore
/// guest::real_mode! {
///     /// Halts at once.
///     real_hlt: "hlt", "jmp real_hlt"
/// }
/// ```
#[macro_export]
macro_rules! real_mode {
    ($(#[doc = $doc:literal])* $name:ident: $($line:expr),+ $(,)?) => {
        $crate::low_code!(".code16", $name: $($line),+);
    };
}

/// A scenario that starts in 32-bit protected mode with flat segments, without paging; else as
/// [`real_mode!`](crate::real_mode!).
#[macro_export]
macro_rules! protected_mode {
    ($(#[doc = $doc:literal])* $name:ident: $($line:expr),+ $(,)?) => {
        $crate::low_code!(".code32", $name: $($line),+);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! low_code {
    ($mode:literal, $name:ident: $($line:expr),+) => {
        ::core::arch::global_asm!(
            ".pushsection .low.text, \"ax\", @progbits",
            $mode,
            concat!(".globl ", stringify!($name)),
            concat!(".type ", stringify!($name), ", @function"),
            concat!(stringify!($name), ":"),
            $($line,)+
            concat!(".size ", stringify!($name), ", . - ", stringify!($name)),
            ".code64", // The whole payload is one assembly file.
            ".popsection",
        );
    };
}
