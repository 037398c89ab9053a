//! Port I/O: each scenario is a few instructions around one form of IN or OUT, with names for the places at
//! which the host must see the vCPU. RAX is full of ones before each IN, so that what IN writes shows.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "port instructions with names, and buffers that they fill")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

use guest::report::value;
use guest::{Fault, arg, catch, ring3};

/// Two pages for string instructions, so that one can cross from the first into the second.
#[repr(C, align(4096))]
struct Pages(UnsafeCell<[u8; 8192]>);

// SAFETY: only string instructions in assembly use it, on one vCPU.
unsafe impl Sync for Pages {}

/// Filled with ascending bytes, from 0 again after 255.
#[unsafe(no_mangle)]
static port_buffer: Pages = Pages(UnsafeCell::new({
    let mut bytes = [0; 8192];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
}));

fn buffer(offset: u64) -> u64 {
    port_buffer.0.get() as u64 + offset
}

/// The registers that a string instruction moves.
struct Moved {
    rsi: u64,
    rdi: u64,
    rcx: u64,
}

/// `string!("rep insb" => moved)`: one string instruction on port 0x310; DF is clear behind it, and before it unless
/// `down` is the first word.
macro_rules! string {
    (down $line:literal => $moved:expr) => {
        string!(@ "std", $line, $moved)
    };
    ($line:literal => $moved:expr) => {
        string!(@ "cld", $line, $moved)
    };
    (@ $direction:literal, $line:literal, $moved:expr) => {{
        let moved: &mut Moved = $moved;
        // SAFETY: scenarios pass addresses in `port_buffer`, or want the fault.
        unsafe {
            asm!($direction, guest::emulable!(), $line, "cld", in("dx") 0x310_u16, inout("rsi") moved.rsi, inout("rdi") moved.rdi, inout("rcx") moved.rcx);
        }
    }};
}

fn report_moved(moved: &Moved) {
    value("rsi", moved.rsi);
    value("rdi", moved.rdi);
    value("rcx", moved.rcx);
}

fn report_fault(fault: Option<Fault>) {
    match fault {
        None => value("no fault", 0),
        Some(fault) => {
            value("vector", fault.vector);
            value("error", fault.error);
            value("rip", fault.rip);
        }
    }
}

#[unsafe(naked)]
extern "C" fn read_byte() -> u64 {
    naked_asm!(
        "mov rax, -1",
        "mov dx, 0x61",
        guest::emulable!("in_byte_here"),
        "in al, dx",
        guest::label!("in_byte_next"),
        "ret"
    )
}

#[unsafe(naked)]
extern "C" fn read_word() -> u64 {
    naked_asm!("mov rax, -1", "mov dx, 0x61", guest::emulable!(), "in ax, dx", "ret")
}

#[unsafe(naked)]
extern "C" fn read_dword() -> u64 {
    naked_asm!("mov rax, -1", "mov dx, 0x61", guest::emulable!(), "in eax, dx", "ret")
}

#[unsafe(naked)]
extern "C" fn write_all_widths() -> u64 {
    naked_asm!(
        "mov rax, 0x1122334455667788",
        "mov dx, 0x3f8",
        guest::emulable!(),
        "out dx, al",
        guest::emulable!(),
        "out dx, ax",
        guest::emulable!(),
        "out dx, eax",
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn immediate_ports() -> u64 {
    naked_asm!(
        "mov dx, 0x1234",
        "mov rax, -1",
        guest::emulable!(),
        "in al, 0xff",
        guest::emulable!(),
        "in ax, 0x70",
        guest::emulable!(),
        "in eax, 0x0",
        guest::emulable!(),
        "out 0xff, al",
        guest::emulable!(),
        "out 0x70, ax",
        guest::emulable!(),
        "out 0x0, eax",
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn wide_rdx() -> u64 {
    naked_asm!("mov rdx, -0xff9f", guest::emulable!(), "in al, dx", guest::emulable!(), "out dx, al", "ret") // RDX = 0xffff_ffff_ffff_0061
}

#[unsafe(naked)]
extern "C" fn odd_ports() -> u64 {
    naked_asm!(
        "mov rax, -1",
        "mov dx, 0xffff",
        guest::emulable!(),
        "in eax, dx",
        guest::emulable!(),
        "out dx, eax",
        "mov dx, 0xfffd",
        guest::emulable!(),
        "in ax, dx",
        "mov dx, 0x1003",
        guest::emulable!(),
        "out dx, eax",
        "ret",
    )
}

/// `OUT` with a name; returns the accumulator, which the host may change at the exit.
#[unsafe(naked)]
extern "C" fn write_byte() -> u64 {
    naked_asm!(
        "mov eax, 0x5a",
        "mov dx, 0x80",
        guest::emulable!("out_byte_here"),
        "out dx, al",
        guest::label!("out_byte_next"),
        "ret",
    )
}

/// An IN that the host ends by a reset to `in_reset_vector`; what follows the IN must not run.
#[unsafe(naked)]
extern "C" fn read_until_reset() -> u64 {
    naked_asm!(
        "mov rax, -1",
        "mov dx, 0x61",
        guest::emulable!("in_reset_here"),
        "in eax, dx",
        "ud2",
        "nop",
        "nop",
        guest::label!("in_reset_vector"),
        "nop", // What a stale completion would skip, or start at.
        guest::label!("in_reset_halt"),
        "hlt",
        "ret",
    )
}

/// `OUT value` to `port`, which the host answers with a reset to `out_reset_vector`.
#[unsafe(naked)]
extern "C" fn write_until_reset(port: u64, value: u64) -> u64 {
    naked_asm!(
        "mov edx, edi",
        "mov eax, esi",
        guest::emulable!("out_reset_here"),
        "out dx, al",
        "ud2",
        "nop",
        "nop",
        guest::label!("out_reset_vector"),
        "nop",
        guest::label!("out_reset_halt"),
        "hlt",
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn write_7e() {
    naked_asm!(
        "mov eax, 1",
        guest::emulable!("out_7e_here"),
        "out 0x7e, al",
        guest::label!("out_7e_next"),
        "nop",
        "ret"
    )
}

/// HLT first: at its exit the host starts to step.
#[unsafe(naked)]
extern "C" fn step_over_in() -> u64 {
    naked_asm!(
        "mov rax, -1",
        "hlt",
        "nop",
        guest::label!("step_in_here"),
        "in al, 0x61",
        guest::label!("step_in_next"),
        "nop",
        guest::label!("step_in_end"),
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn step_over_out() {
    naked_asm!(
        "mov eax, 0x5a",
        "hlt",
        "nop",
        guest::label!("step_out_here"),
        "out 0x80, al",
        guest::label!("step_out_next"),
        "nop",
        guest::label!("step_out_end"),
        "ret",
    )
}

/// `count` INs; the sum of what they read. An IN that is done twice or not at all changes the sum.
#[unsafe(naked)]
extern "C" fn sum_reads(count: u64) -> u64 {
    naked_asm!(
        "mov rcx, rdi",
        "xor esi, esi",
        "mov dx, 0x61",
        "2: xor eax, eax",
        guest::emulable!(),
        "in al, dx",
        "add rsi, rax",
        "dec rcx",
        "jnz 2b",
        "mov rax, rsi",
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn many_writes(count: u64) -> u64 {
    naked_asm!(
        "mov rcx, rdi",
        "mov eax, 0x5a",
        "xor esi, esi",
        "2:",
        guest::emulable!(),
        "out 0x80, al",
        "inc rsi",
        "dec rcx",
        "jnz 2b",
        "mov rax, rsi",
        "ret",
    )
}

#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_in() {
    naked_asm!(guest::emulable!("user_in_here"), "in al, 0x61", "ud2")
}

#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_out() {
    naked_asm!("mov dx, 0x3f8", guest::emulable!("user_out_here"), "out dx, al", "ud2")
}

/// IN and OUT by the privilege that IOPL 3 gives, and UD2 as the way back.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_privileged() {
    naked_asm!(
        "mov rax, -1",
        guest::emulable!("user_iopl_in"),
        "in al, 0x61",
        guest::emulable!(),
        "out 0x80, al",
        guest::label!("user_iopl_end"),
        "ud2"
    )
}

guest::scenario! {
    /// IN of one byte into a register full of ones.
    fn in_byte() { value("rax", read_byte()); }

    /// IN of two bytes into a register full of ones.
    fn in_word() { value("rax", read_word()); }

    /// IN of four bytes into a register full of ones.
    fn in_dword() { value("rax", read_dword()); }

    /// OUT of one, two and four bytes of the same RAX.
    fn out_widths() { value("rax", write_all_widths()); }

    /// Every form whose port is in the instruction, with another port in DX.
    fn immediate() { value("rax", immediate_ports()); }

    /// IN and OUT while the upper 48 bits of RDX are ones.
    fn upper_rdx() { wide_rdx(); }

    /// Ports that are not aligned, and accesses that reach past the last port.
    fn odd() { value("rax", odd_ports()); }

    /// OUT of one byte.
    fn out_byte() { value("rax", write_byte()); }

    /// IN of four bytes, never completed.
    fn in_then_reset() { value("rax", read_until_reset()); }

    /// OUT to the port `port` of the byte `value`, never completed.
    fn out_then_reset() {
        value("rax", write_until_reset(arg("port").unwrap_or(0), arg("value").unwrap_or(0)));
    }

    /// OUT to port 0x7e.
    fn out_7e() { write_7e(); }

    /// HLT, then IN among NOPs.
    fn in_stepped() { value("rax", step_over_in()); }

    /// HLT, then OUT among NOPs.
    fn out_stepped() { step_over_out(); }

    /// `count` INs in a loop.
    fn in_many() { value("sum", sum_reads(arg("count").unwrap_or(0))); }

    /// `count` OUTs in a loop.
    fn out_many() { value("count", many_writes(arg("count").unwrap_or(0))); }

    /// IN at CPL 3 with IOPL 0 and no I/O permission bitmap.
    fn in_user() { report_fault(ring3::run(user_in)); }

    /// OUT at CPL 3 with IOPL 0 and no I/O permission bitmap.
    fn out_user() { report_fault(ring3::run(user_out)); }

    /// IN and OUT at CPL 3 with IOPL 3.
    fn iopl_user() {
        let fault = ring3::run_with(user_privileged, 0x3002);
        value("iopl", fault.unwrap_or_default().rflags >> 12 & 3);
        report_fault(fault);
    }

    /// INS once, of each width.
    fn ins_once() {
        let mut moved = Moved { rsi: 7, rdi: buffer(0), rcx: 5 };
        string!("insb" => &mut moved);
        string!("insw" => &mut moved);
        string!("insd" => &mut moved);
        report_moved(&moved);
    }

    /// OUTS once, of each width.
    fn outs_once() {
        let mut moved = Moved { rsi: buffer(0x10), rdi: 7, rcx: 5 };
        string!("outsb" => &mut moved);
        string!("outsw" => &mut moved);
        string!("outsd" => &mut moved);
        report_moved(&moved);
    }

    /// REP INS of four words, inside of one page.
    fn rep_ins() {
        let mut moved = Moved { rsi: 7, rdi: buffer(0x100), rcx: 4 };
        string!("rep insw" => &mut moved);
        report_moved(&moved);
    }

    /// REP INS of three bytes, backwards.
    fn rep_ins_down() {
        let mut moved = Moved { rsi: 7, rdi: buffer(0x102), rcx: 3 };
        string!(down "rep insb" => &mut moved);
        report_moved(&moved);
    }

    /// REP INS of eight bytes, four in each page.
    fn rep_ins_pages() {
        let mut moved = Moved { rsi: 7, rdi: buffer(0xffc), rcx: 8 };
        string!("rep insb" => &mut moved);
        report_moved(&moved);
    }

    /// REP INS of two doublewords, the second of which has two bytes in each page.
    fn rep_ins_straddling() {
        let mut moved = Moved { rsi: 7, rdi: buffer(0xffa), rcx: 2 };
        string!("rep insd" => &mut moved);
        report_moved(&moved);
    }

    /// REP OUTS of three words.
    fn rep_outs() {
        let mut moved = Moved { rsi: buffer(0x20), rdi: 7, rcx: 3 };
        string!("rep outsw" => &mut moved);
        report_moved(&moved);
    }

    /// REP OUTS of three doublewords, backwards.
    fn rep_outs_down() {
        let mut moved = Moved { rsi: buffer(0x28), rdi: 7, rcx: 3 };
        string!(down "rep outsd" => &mut moved);
        report_moved(&moved);
    }

    /// REP INS and REP OUTS of nothing.
    fn rep_none() {
        let mut moved = Moved { rsi: buffer(0), rdi: buffer(0x100), rcx: 0 };
        string!("rep insb" => &mut moved);
        string!("rep outsb" => &mut moved);
        report_moved(&moved);
    }

    /// OUTS from where nothing is mapped.
    fn outs_unmapped() {
        let fault = catch(|| {
            let mut moved = Moved { rsi: 0xdead_0000, rdi: 7, rcx: 1 };
            string!("outsb" => &mut moved);
        });
        let fault = fault.err().unwrap_or_default();
        value("vector", fault.vector);
        value("cr2", fault.cr2);
    }
}

guest::real_mode! {
    /// IN and OUT of all widths in real mode, then HLT.
    real_ports:
        "mov eax, 0xffffffff",
        "mov dx, 0x61",
        guest::emulable!("real_in_byte"),
        "in al, dx",
        guest::emulable!("real_in_word"),
        "in ax, 0x70",
        guest::emulable!("real_in_dword"),
        "in eax, dx",
        guest::emulable!(),
        "out 0x80, al",
        guest::emulable!(),
        "out dx, ax",
        guest::emulable!(),
        "out dx, eax",
        guest::label!("real_ports_halt"),
        "hlt",
        guest::label!("real_ports_end"),
        "jmp real_ports_end"
}

guest::protected_mode! {
    /// The same in 32-bit protected mode at CPL 0.
    protected_ports:
        "mov eax, 0xffffffff",
        "mov edx, 0xffff0061",
        guest::emulable!("protected_in_byte"),
        "in al, dx",
        guest::emulable!(),
        "in ax, 0x70",
        guest::emulable!(),
        "in eax, dx",
        guest::emulable!(),
        "out 0x80, al",
        guest::emulable!(),
        "out dx, ax",
        guest::emulable!(),
        "out dx, eax",
        guest::label!("protected_ports_halt"),
        "hlt",
        guest::label!("protected_ports_end"),
        "jmp protected_ports_end"
}
