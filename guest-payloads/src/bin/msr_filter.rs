//! Accesses of MSRs that the host filters: in this guest, or with the argument `l2` in a guest of its own.
//!
//! Most scenarios take `msr`, by default KERNEL_GS_BASE, which KVM passes through to the guest when nobody filters it.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "named instructions")]
guest::payload!();

use core::arch::x86_64::__cpuid;
use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use guest::fault::Frame;
use guest::report::value;
use guest::{apic, arg, control, handle, pio, ring3, smp, svm, vmx};

/// IA32_KERNEL_GS_BASE.
const KERNEL_GS_BASE: u64 = 0xc000_0102;
/// IA32_TIME_STAMP_COUNTER.
const TSC: u64 = 0x10;
/// General protection.
const GP: u8 = 13;
/// Bytes of RDMSR and WRMSR.
const LENGTH: u64 = 2;

/// How many faults there were, and what was in RIP, error code, RAX and RDX at the last.
static FAULTS: AtomicU64 = AtomicU64::new(0);
static LAST: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn note_fault(frame: &mut Frame) {
    FAULTS.fetch_add(1, Relaxed);
    for (to, from) in LAST.iter().zip([frame.rip, frame.error, frame.rax, frame.rdx]) {
        to.store(from, Relaxed);
    }
    frame.rip += LENGTH;
}

/// RDMSR of `msr` with RAX and RDX full of ones before; both afterwards.
#[unsafe(naked)]
extern "C" fn rdmsr_into(msr: u64, registers: *mut [u64; 2]) {
    naked_asm!(
        "mov rcx, rdi",
        "mov rax, -1",
        "mov rdx, -1",
        guest::emulable!("rdmsr_here"),
        "rdmsr",
        guest::label!("rdmsr_behind"),
        "mov [rsi], rax",
        "mov [rsi + 8], rdx",
        "ret"
    )
}

/// RAX and RDX behind RDMSR.
fn rdmsr(msr: u64) -> [u64; 2] {
    let mut registers = [0; 2];
    rdmsr_into(msr, &raw mut registers);
    registers
}

/// WRMSR of `number` to `msr`.
#[unsafe(naked)]
extern "C" fn wrmsr(msr: u64, number: u64) {
    naked_asm!(
        "mov rcx, rdi",
        "mov rax, rsi",
        "mov rdx, rsi",
        "shr rdx, 32",
        guest::emulable!("wrmsr_here"),
        "wrmsr",
        guest::label!("wrmsr_behind"),
        "ret"
    )
}

/// RDMSR at CPL 3.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn rdmsr_in_ring3() {
    naked_asm!("mov ecx, 0xc0000102", guest::emulable!("ring3_rdmsr_here"), "rdmsr", "2:", "jmp 2b")
}

/// SWAPGS twice, which leaves all as it was.
#[unsafe(naked)]
extern "C" fn swapgs_twice() {
    naked_asm!("swapgs", "swapgs", "ret")
}

fn msr() -> u64 {
    arg("msr").unwrap_or(KERNEL_GS_BASE)
}

fn tell_fault() {
    value("gp at", LAST[0].load(Relaxed));
    value("error code", LAST[1].load(Relaxed));
}

/// RDMSR, and what came of it.
fn read() -> u64 {
    let before = FAULTS.load(Relaxed);
    let registers = rdmsr(msr());
    if FAULTS.load(Relaxed) != before {
        tell_fault();
    }
    value("rax", registers[0]);
    value("rdx", registers[1]);
    registers[0]
}

/// WRMSR, and what came of it.
fn write() {
    let before = FAULTS.load(Relaxed);
    wrmsr(msr(), arg("value").unwrap_or(0x1234_5678));
    if FAULTS.load(Relaxed) != before {
        tell_fault();
    }
    value("faults", FAULTS.load(Relaxed) - before);
}

extern "C" fn read_once() {
    read();
}

extern "C" fn write_once() {
    write();
}

/// Reads behind each of `rounds` OUTs to port 0x80.
extern "C" fn read_at_gates() {
    for _ in 0..arg("rounds").unwrap_or(2) {
        pio::out8(0x80, 0);
        read();
    }
}

/// Exits, so that the host knows that it runs here, and reads until there is 0x600d in it, or for a while: some tenths
/// of a second.
extern "C" fn read_until_good() {
    pio::out8(0x80, 0);
    // SAFETY: RDTSC reads a counter.
    let now = || unsafe { core::arch::x86_64::_rdtsc() };
    let end = now() + (1 << 30);
    let mut good = false;
    // Nothing interrupts this guest. An emulator that takes interrupts only where its CPU does must be let to.
    // SAFETY: the vectors that can arrive have handlers.
    unsafe { asm!("sti", options(nomem, nostack)) };
    while !good && now() < end {
        good = rdmsr(msr())[0] == 0x600d;
    }
    // SAFETY: as it was before.
    unsafe { asm!("cli", options(nomem, nostack)) };
    value("good", good.into());
}

/// Reads `rounds` times, and tells the sum of what came and how many faults there were.
extern "C" fn read_often() {
    let mut sum = 0;
    for _ in 0..arg("rounds").unwrap_or(100) {
        sum += rdmsr(msr())[0];
    }
    value("sum", sum);
    value("faults", FAULTS.load(Relaxed));
}

/// Runs `body`: here, or with the argument `l2` in L2, whose exit is told.
fn play(body: extern "C" fn()) {
    handle(GP, Some(note_fault));
    if arg("l2").is_none() {
        return body();
    }
    let intercept = arg("intercept").is_some();
    let msr = msr() as u32;
    // CPUID leaf 0x8000_0001, ECX bit 2: SVM.
    if __cpuid(0x8000_0001).ecx >> 2 & 1 == 1 {
        let mut l2 = svm::L2::new(body);
        l2.intercept_msr(msr, intercept, intercept);
        l2.run().tell();
    } else {
        let mut l2 = vmx::L2::new(body);
        l2.intercept_msr(msr, intercept, intercept);
        let exit = l2.run();
        value("exit", exit.reason);
        value("rip", exit.rip);
    }
}

guest::scenario! {
    /// Reads `msr`.
    fn read_msr() {
        play(read_once);
    }

    /// Writes `value` to `msr`.
    fn write_msr() {
        play(write_once);
    }

    /// Writes `value` to `msr` and reads it, behind an OUT each.
    fn write_and_read() {
        handle(GP, Some(note_fault));
        pio::out8(0x80, 0);
        write();
        pio::out8(0x80, 0);
        read();
    }

    /// Reads `msr` behind each of `rounds` OUTs to port 0x80.
    fn gated() {
        play(read_at_gates);
    }

    /// Reads `msr` until the host answers with 0x600d.
    fn until_good() {
        play(read_until_good);
    }

    /// Reads `msr` `rounds` times, behind an OUT.
    fn often() {
        pio::out8(0x80, 0);
        play(read_often);
    }

    /// Reads the `count` MSRs from `msr` on, and tells which of them faulted, a bit each.
    fn row() {
        handle(GP, Some(note_fault));
        let mut faults = 0;
        for at in 0..arg("count").unwrap_or(8) {
            let before = FAULTS.load(Relaxed);
            rdmsr(msr() + at);
            faults |= (FAULTS.load(Relaxed) - before) << at;
        }
        value("faulted", faults);
    }

    /// Ring 3 reads KERNEL_GS_BASE.
    fn in_ring3() {
        match ring3::run(rdmsr_in_ring3) {
            Some(fault) => {
                value("vector", fault.vector);
                value("rip", fault.rip);
            }
            None => panic!("ring 3 cannot run"),
        }
    }

    /// What uses KERNEL_GS_BASE and the time stamp without naming their MSRs.
    fn side_effects() {
        handle(GP, Some(note_fault));
        if arg("swapgs").is_some() {
            swapgs_twice();
        } else {
            // SAFETY: RDTSC reads a counter.
            unsafe { core::arch::x86_64::_rdtsc() };
        }
        value("faults", FAULTS.load(Relaxed));
        rdmsr(if arg("swapgs").is_some() { KERNEL_GS_BASE } else { TSC });
        value("faults of rdmsr", FAULTS.load(Relaxed));
    }

    /// The x2APIC's ID, by its MSR.
    fn x2apic_id() {
        handle(GP, Some(note_fault));
        let base = control::read_msr(0x1b).unwrap_or(0);
        guest::check!(control::write_msr(0x1b, base | 3 << 10).is_ok());
        pio::out8(0x80, 0);
        read();
        rdmsr(0x1b);
        value("faults", FAULTS.load(Relaxed));
    }

    /// The second CPU reads the MSR, too.
    fn on_both() {
        handle(GP, Some(note_fault));
        read();
        apic::enable();
        smp::start(1, || { read(); });
        while !smp::finished(1) {
            core::hint::spin_loop();
        }
    }
}
