//! Guests that are interrupted from outside: they count what they do, so that anything lost or done twice shows.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "named instructions and the interrupt flag")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use guest::fault::Frame;
use guest::report::value;
use guest::{apic, arg, handle, pio, smp};

const VECTOR: u8 = 0x41;
const NMI: u8 = 2;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The host sets it to let a spinning guest go on.
#[unsafe(no_mangle)]
static KICK_GO: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    #[link_name = "kick_nmi_check"]
    static NMI_CHECK: u8;
    #[link_name = "kick_nmi_out"]
    static NMI_OUT: u8;
}

fn count(frame: &mut Frame) {
    COUNT.fetch_add(1, Relaxed);
    if frame.vector != u64::from(NMI) {
        apic::eoi();
    } else if (&raw const NMI_CHECK as u64..&raw const NMI_OUT as u64).contains(&frame.rip) {
        // Nothing shields HLT from an NMI: one that came behind the check must not be slept through.
        frame.rip = &raw const NMI_OUT as u64;
    }
}

/// HLT, unless `*count` is no longer `seen`.
#[unsafe(naked)]
extern "C" fn halt_while(count: *const u64, seen: u64) {
    naked_asm!(
        guest::label!("kick_nmi_check"),
        "cmp qword ptr [rdi], rsi",
        "jne 2f",
        "hlt",
        guest::label!("kick_nmi_out"),
        "2:",
        "ret"
    )
}

fn interrupts_on() {
    // SAFETY: the vectors that can arrive have handlers.
    unsafe { asm!("sti", "nop", options(nostack)) };
}

/// OUT, then one INC, then OUT: what ran between the two is in RBX.
#[unsafe(naked)]
extern "C" fn out_inc_out() -> u64 {
    naked_asm!(
        "push rbx",
        "xor ebx, ebx",
        guest::emulable!("kick_out"),
        "out 0x80, al",
        "inc ebx",
        guest::emulable!("kick_second_out"),
        "out 0x81, al",
        "mov eax, ebx",
        "pop rbx",
        "ret"
    )
}

/// IN, then OUT of what came.
#[unsafe(naked)]
extern "C" fn in_out() -> u64 {
    naked_asm!(
        "mov eax, 0x11223344",
        guest::emulable!("kick_in"),
        "in al, 0x61",
        guest::label!("kick_in_out"),
        "out 0x80, al",
        "ret"
    )
}

/// Counts in RAX until the host says go; then how often it found the two counters apart.
#[unsafe(naked)]
extern "C" fn spin() -> u64 {
    naked_asm!(
        "xor eax, eax",
        "xor ecx, ecx",
        "xor edx, edx",
        // Bochs never leaves a guest that spins with interrupts off, whatever waits outside.
        "sti",
        "cmp qword ptr [{go}], 0",
        guest::label!("kick_spin"),
        "2:",
        "inc rax",
        "inc rcx",
        "cmp rax, rcx",
        "je 3f",
        "inc rdx",
        "3:",
        "cmp qword ptr [{go}], 0",
        "je 2b",
        guest::label!("kick_spin_end"),
        "cli",
        "mov rax, rdx",
        "ret",
        go = sym KICK_GO,
    )
}

/// Loads every general register that the host may show, and stops at an OUT.
#[unsafe(naked)]
extern "C" fn registers() -> u64 {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "mov rbx, 0x0b0b0b0b0b0b0b0b",
        "mov rcx, 0x0c0c0c0c0c0c0c0c",
        "mov rsi, 0x0606060606060606",
        "mov rdi, 0x0707070707070707",
        "mov rbp, 0x0505050505050505",
        "mov r8, 0x0808080808080808",
        "mov r9, 0x0909090909090909",
        "mov r15, 0x1515151515151515",
        guest::emulable!("kick_save"),
        "out 0x80, al",
        guest::label!("kick_after_save"),
        "mov rax, rbx",
        "xor rax, rcx",
        "xor rax, rsi",
        "xor rax, rdi",
        "xor rax, rbp",
        "xor rax, r8",
        "xor rax, r9",
        "xor rax, r15",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret"
    )
}

/// Spins until one interrupt more has come, and says so.
fn await_interrupts() {
    // A message to an APIC that is not enabled yet would be lost, and rightly so.
    value("ready", 1);
    for seen in 0..arg("rounds").unwrap_or(0) {
        while COUNT.load(Relaxed) == seen {
            spin_loop();
        }
        value("more", COUNT.load(Relaxed) - seen);
    }
}

/// Halts until one interrupt more has come, and says so. `enable`: with interrupts on while halted.
fn await_halted(enable: bool) {
    // A message to an APIC that is not enabled yet would be lost, and rightly so.
    value("ready", 1);
    for seen in 0..arg("rounds").unwrap_or(0) {
        while COUNT.load(Relaxed) == seen {
            if enable {
                // SAFETY: the handler only counts. STI's shadow covers HLT: an interrupt cannot come between them.
                unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
            } else {
                // With interrupts off only an NMI ends it.
                halt_while(COUNT.as_ptr(), seen);
            }
        }
        value("more", COUNT.load(Relaxed) - seen);
    }
}

fn application_processor() {
    value("cpu", guest::tables::cpu() as u64);
}

guest::scenario! {
    /// Two OUTs with an instruction between them.
    fn two_outs() {
        value("between", out_inc_out());
    }

    /// An IN whose data is sent back.
    fn echo() {
        value("rax", in_out());
    }

    /// Spins until the host lets it go.
    fn spins() {
        value("spinning", 1);
        value("torn", spin());
    }

    /// Writes numbers to a port, and adds them up.
    fn counts() {
        let mut sum = 0;
        for number in 0..arg("rounds").unwrap_or(0) {
            for _ in 0..20 {
                sum += number;
            }
            pio::out8(0x80, 0x5a);
            sum += u64::from(pio::in8(0x61));
        }
        value("sum", sum);
    }

    /// Interrupts find it spinning.
    fn interrupted() {
        apic::enable();
        handle(VECTOR, Some(count));
        interrupts_on();
        await_interrupts();
    }

    /// NMIs find it spinning with interrupts off.
    fn nmi_interrupted() {
        apic::enable();
        handle(NMI, Some(count));
        await_interrupts();
    }

    /// Interrupts find it halted.
    fn halted() {
        apic::enable();
        handle(VECTOR, Some(count));
        await_halted(true);
    }

    /// NMIs find it halted with interrupts off.
    fn nmi_halted() {
        apic::enable();
        handle(NMI, Some(count));
        await_halted(false);
    }

    /// A port write each round.
    fn rounds() {
        let mut count = 0;
        for _ in 0..arg("rounds").unwrap_or(0) {
            pio::out8(0x80, 0x5a);
            count += 1;
        }
        value("count", count);
    }

    /// Starts CPU 1, when the host has had its way with it.
    fn starts_cpu_1() {
        apic::enable();
        pio::out8(0x80, 1);
        smp::start(1, application_processor);
        while !smp::finished(1) {
            spin_loop();
        }
    }

    /// Stops with registers full and an interrupt waiting for the interrupt flag.
    fn saved() {
        apic::enable();
        handle(VECTOR, Some(count));
        apic::send_self(VECTOR);
        value("xor", registers());
        value("before", COUNT.load(Relaxed));
        interrupts_on();
        // Bounded, and the same whether it has come or not: a second delivery has time to show.
        for _ in 0..2000 {
            spin_loop();
        }
        value("after", COUNT.load(Relaxed));
    }
}
