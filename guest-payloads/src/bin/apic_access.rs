//! The xAPIC's page while the host frees and moves what lies behind it. What is read is compared at once, and the first
//! wrong value is told; every wait is bounded, so that a lost interrupt shows as a count that is too small.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the interrupt flag")]
guest::payload!();

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use guest::apic::{self, reg};
use guest::fault::Frame;
use guest::report::value;
use guest::{arg, check, check_eq, control, handle, smp};

/// Bit 1 of the third word of ISR and IRR.
const LOW: u8 = 0x41;
/// Bit 1 of the fourth.
const HIGH: u8 = 0x61;
/// Distance of the words of ISR and IRR.
const WORD: u32 = 0x10;
/// Looks at a counter before an interrupt counts as lost.
const PATIENCE: u64 = 20_000;

static COUNT: AtomicU64 = AtomicU64::new(0);
static REPLIES: AtomicU64 = AtomicU64::new(0);
static IN_SERVICE: AtomicU64 = AtomicU64::new(0);
static READY: AtomicBool = AtomicBool::new(false);
static VERSION: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

/// Compares a register with what it must be; the first that is wrong is told by its name.
fn expect(name: &str, register: u32, wanted: u32) {
    let read = apic::xapic_read(register);
    if read != wanted && WRONG.fetch_add(1, Relaxed) == 0 {
        value(name, read.into());
    }
}

/// Tells how many values were wrong since it was last asked.
fn tell_wrong() {
    value("wrong", WRONG.swap(0, Relaxed));
}

/// What the host, or the guest, has put into an APIC.
#[derive(Clone, Copy)]
struct Set {
    tpr: u32,
    ldr: u32,
    svr: u32,
}

const OURS: Set = Set { tpr: 0x35, ldr: 0xa500_0000, svr: 0x1ff };

/// Enables the APIC and fills it. Interrupts are let in, though none comes: an emulated machine may give its kernel no
/// chance to disturb a guest that keeps them off.
fn prepare() {
    interrupts_on();
    apic::enable();
    apic::xapic_write(reg::TPR, OURS.tpr);
    apic::xapic_write(reg::LDR, OURS.ldr);
    apic::xapic_write(reg::DFR, 0x0fff_ffff);
    VERSION.store(apic::xapic_read(reg::VERSION).into(), Relaxed);
}

/// Reads what must not change, over and over.
fn watch(set: Set, rounds: u64) {
    let version = VERSION.load(Relaxed) as u32;
    for _ in 0..rounds {
        expect("id", reg::ID, 0);
        expect("version", reg::VERSION, version);
        expect("tpr", reg::TPR, set.tpr);
        expect("ppr", reg::PPR, set.tpr);
        expect("ldr", reg::LDR, set.ldr);
        expect("dfr", reg::DFR, 0x0fff_ffff);
        expect("svr", reg::SVR, set.svr);
        expect("isr", reg::ISR + 2 * WORD, 0);
        expect("irr", reg::IRR + 2 * WORD, 0);
    }
}

fn rounds() -> u64 {
    arg("rounds").unwrap_or(0)
}

fn laps() -> u64 {
    arg("laps").unwrap_or(1)
}

fn number(name: &str) -> u32 {
    arg(name).unwrap_or(0) as u32
}

/// EXTD and EN of IA32_APIC_BASE: 0 disabled, 2 xAPIC, 3 x2APIC.
fn set_mode(mode: u64) {
    let base = control::read_msr(apic::APIC_BASE_MSR).unwrap_or(0) & !(apic::ENABLED | apic::X2APIC);
    check!(control::write_msr(apic::APIC_BASE_MSR, base | mode << 10).is_ok(), "the mode may change so");
}

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
    if apic::xapic_read(reg::ISR + 2 * WORD) == 2 {
        IN_SERVICE.fetch_add(1, Relaxed);
    }
    apic::eoi();
}

fn reply(_: &mut Frame) {
    REPLIES.fetch_add(1, Relaxed);
    apic::eoi();
}

/// Answers an interrupt of CPU 0 with one to CPU 0.
fn answer(_: &mut Frame) {
    COUNT.fetch_add(1, Relaxed);
    apic::eoi();
    apic::send(0, 0x4000 | u32::from(HIGH));
}

/// Waits until `counter` comes to `wanted`, while the id of this CPU must be `id`.
fn comes_to(counter: &AtomicU64, wanted: u64, id: u32) -> bool {
    (0..PATIENCE).any(|_| {
        expect("id", reg::ID, id << 24);
        counter.load(Relaxed) >= wanted
    })
}

fn answering() {
    apic::enable();
    interrupts_on();
    value("started", 1);
    READY.store(true, Relaxed);
    let all = laps() * rounds();
    let _ = (0..all).any(|_| comes_to(&COUNT, all, 1));
    interrupts_off();
    value("received", COUNT.load(Relaxed));
}

/// What CPU 0 does behind its INIT.
fn after_init() {
    expect("svr", reg::SVR, 0xff);
    expect("tpr", reg::TPR, 0);
    expect("ldr", reg::LDR, 0);
    expect("dfr", reg::DFR, 0xffff_ffff);
    tell_wrong();
    laps_of_constants();
    value("end", 1);
}

fn laps_of_constants() {
    prepare();
    value("version", VERSION.load(Relaxed));
    for _ in 0..laps() {
        watch(OURS, rounds());
        tell_wrong();
    }
}

guest::scenario! {
    /// Constants, lap after lap.
    fn constants() {
        laps_of_constants();
    }

    /// Registers that take any value are written and read back.
    fn written() {
        prepare();
        for _ in 0..laps() {
            value("ready", 1);
            for round in 0..rounds() as u32 {
                let byte = round.wrapping_mul(37) & 0xff;
                let writes = [
                    ("tpr", reg::TPR, byte),
                    ("ldr", reg::LDR, byte << 24),
                    ("icr-high", reg::ICR_HIGH, byte << 24),
                    // Masked, with a vector that may be.
                    ("lvt-timer", reg::LVT_TIMER, 0x1_0000 | byte | 0x10),
                    ("timer-initial", reg::TIMER_INITIAL, 0),
                ];
                for (_, register, number) in writes {
                    apic::xapic_write(register, number);
                }
                for (name, register, number) in writes {
                    expect(name, register, number);
                }
                expect("ppr", reg::PPR, byte);
            }
            tell_wrong();
        }
        apic::xapic_write(reg::TPR, 0x53);
        apic::xapic_write(reg::LDR, 0x0400_0000);
        apic::xapic_write(reg::ICR_HIGH, 0x0600_0000);
        apic::xapic_write(reg::LVT_TIMER, 0x1_0077);
        value("written", 1);
    }

    /// One self-IPI after the other, each seen in service.
    fn self_ipis() {
        apic::enable();
        handle(LOW, Some(count));
        let mut sent = 0;
        for _ in 0..laps() {
            value("ready", 1);
            interrupts_on();
            for _ in 0..rounds() {
                apic::send_self(LOW);
                sent += 1;
                if !comes_to(&COUNT, sent, 0) {
                    break;
                }
            }
            interrupts_off();
            tell_wrong();
            value("lost", sent.abs_diff(COUNT.load(Relaxed)));
        }
        value("arrived", COUNT.load(Relaxed));
        value("seen in service", IN_SERVICE.load(Relaxed));
    }

    /// Self-IPIs wait behind the TPR until it is lowered.
    fn held_back() {
        apic::enable();
        handle(LOW, Some(count));
        let mut early = 0;
        for _ in 0..laps() {
            value("ready", 1);
            interrupts_on();
            for round in 0..rounds() {
                let before = COUNT.load(Relaxed);
                apic::xapic_write(reg::TPR, 0x40 | round as u32 & 0xf);
                apic::send_self(LOW);
                expect("irr", reg::IRR + 2 * WORD, 2);
                early += COUNT.load(Relaxed) - before;
                apic::xapic_write(reg::TPR, 0x3f);
                comes_to(&COUNT, before + 1, 0);
                expect("irr", reg::IRR + 2 * WORD, 0);
            }
            interrupts_off();
            tell_wrong();
        }
        value("early", early);
        value("arrived", COUNT.load(Relaxed));
        value("seen in service", IN_SERVICE.load(Relaxed));
    }

    /// The host writes to the APIC by KVM_SET_LAPIC: what it says in turn is in the arguments.
    fn set_by_host() {
        prepare();
        value("version", VERSION.load(Relaxed));
        let sets = [("tpr-a", "ldr-a", "svr-a"), ("tpr-b", "ldr-b", "svr-b")];
        let sets = sets.map(|(tpr, ldr, svr)| Set { tpr: number(tpr), ldr: number(ldr), svr: number(svr) });
        for _ in 0..laps() {
            for set in sets {
                watch(set, rounds());
                tell_wrong();
            }
        }
    }

    /// Constants again behind an INIT, which the host sends when it has seen them the first time.
    fn init() {
        apic::enable();
        smp::prepare(0, after_init);
        laps_of_constants();
    }

    /// Through other modes of the APIC and back: `first`, then `second`, then xAPIC.
    fn modes() {
        for _ in 0..laps() {
            prepare();
            let version = VERSION.load(Relaxed);
            set_mode(arg("first").unwrap_or(3));
            if arg("first") == Some(3) {
                check_eq!(control::read_msr(apic::msr(reg::VERSION)).unwrap_or(0), version);
            }
            set_mode(arg("second").unwrap_or(0));
            set_mode(2);
            prepare();
            check_eq!(VERSION.load(Relaxed), version);
            watch(OURS, rounds());
            value("version", VERSION.load(Relaxed));
            watch(OURS, rounds());
            tell_wrong();
        }
    }

    /// Interrupts to another CPU, each answered, while both look at their ids.
    fn two_cpus() {
        apic::enable();
        handle(LOW, Some(answer));
        handle(HIGH, Some(reply));
        interrupts_on();
        smp::start(1, answering);
        // An interrupt to an APIC that is not enabled yet would be lost, and rightly so.
        while !READY.load(Relaxed) {
            expect("id", reg::ID, 0);
        }
        let mut sent = 0;
        for _ in 0..laps() {
            value("ready", 1);
            interrupts_on();
            for _ in 0..rounds() {
                apic::send(1, 0x4000 | u32::from(LOW));
                sent += 1;
                if !comes_to(&REPLIES, sent, 0) {
                    break;
                }
            }
            interrupts_off();
            tell_wrong();
        }
        value("replies", REPLIES.load(Relaxed));
    }
}
