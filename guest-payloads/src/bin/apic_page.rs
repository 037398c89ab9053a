//! The local APIC, through its page and through its MSRs. Every wait is bounded: a lost interrupt shows as a
//! count that is too small, and not as a hang.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the interrupt flag")]
guest::payload!();

use core::arch::asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use guest::apic::{self, reg};
use guest::fault::Frame;
use guest::report::value;
use guest::{Fault, arg, check, check_eq, control, handle, smp};

/// Bit 1 of the third word of ISR and IRR.
const LOW: u8 = 0x41;
/// Bit 1 of the fourth.
const HIGH: u8 = 0x61;
/// Distance of the words of ISR and IRR.
const WORD: u32 = 0x10;
/// Looks at a counter before an interrupt counts as lost.
const PATIENCE: u32 = 2000;

static COUNT: AtomicU64 = AtomicU64::new(0);
static REPLIES: AtomicU64 = AtomicU64::new(0);
static ORDER: AtomicU64 = AtomicU64::new(0);
static READY: AtomicBool = AtomicBool::new(false);
static SERVED: AtomicU64 = AtomicU64::new(0);
static PRIORITY: AtomicU64 = AtomicU64::new(0);

fn interrupts_on() {
    // SAFETY: the vectors that can arrive have handlers.
    unsafe { asm!("sti", "nop", options(nostack)) };
}

fn interrupts_off() {
    // SAFETY: nothing that waits for an interrupt follows.
    unsafe { asm!("cli", options(nostack)) };
}

fn count(_: &mut Frame) {
    COUNT.fetch_add(1, Relaxed);
    apic::eoi();
}

fn reply(_: &mut Frame) {
    REPLIES.fetch_add(1, Relaxed);
    apic::eoi();
}

/// Notes the order of arrival, the last one in the lowest byte, and the priority while the first is served.
fn note_order(frame: &mut Frame) {
    if ORDER.load(Relaxed) == 0 {
        SERVED.store(apic::read(reg::ISR + 3 * WORD).into(), Relaxed);
        PRIORITY.store(apic::read(reg::PPR).into(), Relaxed);
    }
    ORDER.store(ORDER.load(Relaxed) << 8 | frame.vector, Relaxed);
    apic::eoi();
}

/// Stops in the handler for the host to rearrange what is in service.
fn serve(frame: &mut Frame) {
    value("vector", frame.vector);
    value("low", apic::read(reg::ISR + 2 * WORD).into());
    value("high", apic::read(reg::ISR + 3 * WORD).into());
    apic::eoi();
    value("high after EOI", apic::read(reg::ISR + 3 * WORD).into());
    COUNT.fetch_add(1, Relaxed);
}

/// Whether `counter` comes to `wanted` in time.
fn comes_to(counter: &AtomicU64, wanted: u64) -> bool {
    (0..PATIENCE).any(|_| {
        spin_loop();
        counter.load(Relaxed) >= wanted
    })
}

/// 0, or the vector of the fault.
fn vector<T>(result: Result<T, Fault>) -> u64 {
    result.map_or_else(|fault| fault.vector, |_| 0)
}

fn apic_base() -> u64 {
    control::read_msr(apic::APIC_BASE_MSR).unwrap_or(0)
}

/// EXTD and EN of IA32_APIC_BASE: 0 disabled, 2 xAPIC, 3 x2APIC.
fn mode() -> u64 {
    apic_base() >> 10 & 3
}

fn set_mode(mode: u64) -> Result<(), Fault> {
    let base = apic_base() & !(apic::ENABLED | apic::X2APIC);
    control::write_msr(apic::APIC_BASE_MSR, base | mode << 10)
}

/// Answers every interrupt of CPU 0 with one to CPU 0.
fn answer(_: &mut Frame) {
    COUNT.fetch_add(1, Relaxed);
    apic::eoi();
    apic::send(0, 0x4000 | u32::from(HIGH));
}

fn answering() {
    apic::enable();
    interrupts_on();
    let rounds = arg("rounds").unwrap_or(0);
    READY.store(true, Relaxed);
    let _ = (0..5000 * rounds).any(|_| comes_to(&COUNT, rounds));
    interrupts_off();
    value("received", COUNT.load(Relaxed));
}

guest::scenario! {
    /// What never changes.
    fn identity() {
        apic::enable();
        value("id", apic::xapic_read(reg::ID).into());
        value("version", apic::xapic_read(reg::VERSION).into());
        apic::xapic_write(reg::VERSION, 0);
        value("version after a write", apic::xapic_read(reg::VERSION).into());
    }

    /// The bits of the logical destination that software owns.
    fn logical_destination() {
        apic::enable();
        apic::xapic_write(reg::LDR, 0xa5ff_ffff);
        value("ldr", apic::xapic_read(reg::LDR).into());
        apic::xapic_write(reg::DFR, 0);
        value("dfr", apic::xapic_read(reg::DFR).into());
    }

    /// Reads constants over and over.
    fn constants() {
        const REGISTERS: [u32; 6] = [reg::ID, reg::VERSION, reg::TPR, reg::LDR, reg::DFR, reg::SVR];
        apic::enable();
        apic::xapic_write(reg::TPR, 0x30);
        apic::xapic_write(reg::LDR, 0x0200_0000);
        let before = REGISTERS.map(apic::xapic_read);
        value("tpr", before[2].into());
        value("svr", before[5].into());
        let mut wrong = 0;
        for _ in 0..arg("rounds").unwrap_or(0) {
            let now = REGISTERS.map(apic::xapic_read);
            wrong += now.iter().zip(before).filter(|(now, before)| **now != *before).count() as u64;
        }
        value("wrong", wrong);
    }

    /// The TPR's sub-class, before and behind an exit.
    fn tpr_subclass() {
        apic::enable();
        apic::xapic_write(reg::TPR, 0x35);
        guest::pio::out8(0x80, 1);
        value("tpr", apic::xapic_read(reg::TPR).into());
    }

    /// TPR written and read back over and over.
    fn written_back() {
        apic::enable();
        let mut wrong = 0;
        for round in 0..arg("rounds").unwrap_or(0) as u32 {
            // The class alone: its own case tells what becomes of the sub-class.
            let class = round << 4 & 0xf0;
            apic::xapic_write(reg::TPR, class);
            wrong += u64::from(apic::xapic_read(reg::TPR) != class);
        }
        value("wrong", wrong);
    }

    /// One self-IPI after the other.
    fn self_ipis() {
        apic::enable();
        handle(LOW, Some(count));
        interrupts_on();
        let rounds = arg("rounds").unwrap_or(0);
        let mut sent = 0;
        while sent < rounds {
            apic::send_self(LOW);
            sent += 1;
            if !comes_to(&COUNT, sent) {
                break;
            }
        }
        interrupts_off();
        value("sent", sent);
        value("arrived", COUNT.load(Relaxed));
    }

    /// An interrupt waits behind the TPR.
    fn task_priority() {
        apic::enable();
        handle(LOW, Some(count));
        apic::xapic_write(reg::TPR, 0x40);
        interrupts_on();
        apic::send_self(LOW);
        // As long as the wait for one that may come: a software backend may take its time.
        comes_to(&COUNT, 1);
        value("arrived early", COUNT.load(Relaxed));
        value("requested", apic::xapic_read(reg::IRR + 2 * WORD).into());
        apic::xapic_write(reg::TPR, 0x3f);
        check!(comes_to(&COUNT, 1), "the interrupt arrives once the priority is low");
        interrupts_off();
        value("arrived", COUNT.load(Relaxed));
        value("requested after", apic::xapic_read(reg::IRR + 2 * WORD).into());
    }

    /// Two interrupts wait for the interrupt flag, the lower one sent first.
    fn two_vectors() {
        apic::enable();
        handle(LOW, Some(note_order));
        handle(HIGH, Some(note_order));
        apic::send_self(LOW);
        apic::send_self(HIGH);
        value("low requested", apic::xapic_read(reg::IRR + 2 * WORD).into());
        value("high requested", apic::xapic_read(reg::IRR + 3 * WORD).into());
        interrupts_on();
        check!(comes_to(&ORDER, 0x100), "both arrive");
        interrupts_off();
        value("order", ORDER.load(Relaxed));
        value("served", SERVED.load(Relaxed));
        value("priority", PRIORITY.load(Relaxed));
        value("priority after", apic::xapic_read(reg::PPR).into());
    }

    /// CR8 and TPR show the same four bits.
    fn cr8() {
        apic::enable();
        check!(control::write_cr8(5).is_ok());
        value("tpr", apic::xapic_read(reg::TPR).into());
        apic::xapic_write(reg::TPR, 0x9c);
        value("cr8", control::read_cr8());
        value("vector", vector(control::write_cr8(0x10)));
    }

    /// CR8 without a local APIC in the kernel.
    fn cr8_to_host() {
        check!(control::write_cr8(9).is_ok());
        value("raised", control::read_cr8());
        check!(control::write_cr8(5).is_ok());
        value("lowered", control::read_cr8());
    }

    /// From one mode of the APIC to another.
    fn transition() {
        let from = arg("from").unwrap_or(2);
        if from == 0 || from == 3 {
            check!(set_mode(from).is_ok());
        }
        check_eq!(mode(), from);
        value("vector", vector(set_mode(arg("to").unwrap_or(2))));
        value("mode", mode());
    }

    /// The page while it is not the APIC's.
    fn page_without_apic() {
        check!(set_mode(arg("mode").unwrap_or(0)).is_ok());
        value("read", apic::xapic_read(reg::VERSION).into());
        apic::xapic_write(reg::TPR, 0x77);
    }

    /// WRMSR in x2APIC mode.
    fn x2apic_write() {
        check!(apic::enable_x2apic().is_ok());
        let (msr, number) = (arg("msr").unwrap_or(0) as u32, arg("value").unwrap_or(0));
        value("sound", vector(control::write_msr(apic::msr(reg::TPR), 0x20)));
        value("vector", vector(control::write_msr(msr, number)));
    }

    /// RDMSR in x2APIC mode.
    fn x2apic_read() {
        check!(apic::enable_x2apic().is_ok());
        value("sound", vector(control::read_msr(apic::msr(reg::VERSION))));
        value("vector", vector(control::read_msr(arg("msr").unwrap_or(0) as u32)));
    }

    /// An interrupt command to nobody, in xAPIC mode.
    fn icr_xapic() {
        apic::enable();
        apic::send(5, 0x4000 | u32::from(LOW));
        value("low", (apic::xapic_read(reg::ICR) & !0x1000).into());
        value("high", apic::xapic_read(reg::ICR_HIGH).into());
    }

    /// An interrupt command to nobody, in x2APIC mode.
    fn icr_x2apic() {
        check!(apic::enable_x2apic().is_ok());
        apic::send(5, 0x4000 | u32::from(LOW));
        value("icr", control::read_msr(apic::msr(reg::ICR)).unwrap_or(0));
        value("icr again", control::read_msr(apic::msr(reg::ICR)).unwrap_or(0));
    }

    /// The x2APIC's id, twice.
    fn x2apic_id() {
        check!(apic::enable_x2apic().is_ok());
        value("id", apic::read(reg::ID).into());
        value("id again", apic::read(reg::ID).into());
    }

    /// An interrupt is in service while the host changes the APIC.
    fn in_service() {
        apic::enable();
        handle(LOW, Some(serve));
        interrupts_on();
        apic::send_self(LOW);
        comes_to(&COUNT, 1);
        interrupts_off();
    }

    /// Interrupts to another CPU, each answered.
    fn ping_pong() {
        apic::enable();
        handle(LOW, Some(answer));
        handle(HIGH, Some(reply));
        smp::start(1, answering);
        // An interrupt to an APIC that is not enabled yet would be lost, and rightly so.
        while !READY.load(Relaxed) {
            spin_loop();
        }
        interrupts_on();
        let rounds = arg("rounds").unwrap_or(0);
        let mut sent = 0;
        while sent < rounds {
            apic::send(1, 0x4000 | u32::from(LOW));
            sent += 1;
            if !(0..5000).any(|_| comes_to(&REPLIES, sent)) {
                break;
            }
        }
        interrupts_off();
        value("sent", sent);
        value("replies", REPLIES.load(Relaxed));
    }
}
