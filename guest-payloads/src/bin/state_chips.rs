//! Interrupt controllers, timers and application processors in the middle of something, an exit, and what becomes
//! of it.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "device registers")]
guest::payload!();

use core::arch::asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use guest::apic::reg;
use guest::arrivals::{count_and_eoi, counted};
use guest::fault::Frame;
use guest::report::value;
use guest::{apic, arg, control, handle, mmio, physical, pio, smp};

/// The exit across which everything must be as it was.
fn pause() {
    pio::out8(0x5e, 0);
}

fn interrupts_on() {
    // SAFETY: the vectors that can arrive have handlers.
    unsafe { asm!("sti", options(nostack)) };
}

fn interrupts_off() {
    // SAFETY: as it was before.
    unsafe { asm!("cli", options(nostack)) };
}

fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// An interrupt's vector.
const VECTOR: u8 = 0x51;

/// Waits with interrupts on: for an arrival, or until it has been overdue for long.
fn wait(overdue: impl Fn() -> bool) {
    interrupts_on();
    let mut patience = 100_000;
    while counted() == 0 && patience > 0 {
        patience -= u64::from(overdue());
    }
    // For a second one, which must not come.
    (0..5000).for_each(|_| spin_loop());
    interrupts_off();
}

/// `counted` of what is served with an exit before its EOI, up to 2.
static SERVED: AtomicU64 = AtomicU64::new(0);

/// An exit in the handler, then EOI.
fn serve(_: &mut Frame) {
    SERVED.store(SERVED.load(Relaxed) + 1, Relaxed);
    pause();
    apic::eoi();
}

/// Tells whether the vector is in service, before and after an exit.
fn in_service(_: &mut Frame) {
    let bits = || u64::from(apic::read(reg::ISR + 0x10 * u32::from(VECTOR >> 5)));
    value("in service", bits());
    pause();
    value("still in service", bits());
    apic::eoi();
    value("after the EOI", bits());
    SERVED.store(1, Relaxed);
}

/// The I/O APIC's registers (82093AA, 3.1): the index, then the data.
const IOAPIC: u64 = 0xfec0_0000;

fn ioapic_read(register: u32) -> u32 {
    let base = physical::<u8>(IOAPIC) as u64;
    // SAFETY: the page is mapped with the rest of physical memory; no register read touches Rust's memory.
    unsafe {
        mmio::write32(base, register);
        mmio::read32(base + 0x10)
    }
}

fn ioapic_write(register: u32, value: u32) {
    let base = physical::<u8>(IOAPIC) as u64;
    // SAFETY: as for reading.
    unsafe {
        mmio::write32(base, register);
        mmio::write32(base + 0x10, value);
    }
}

/// A level-triggered, active-high redirection of pin 20 to CPU 0.
fn redirect_pin_20() {
    ioapic_write(0x10 + 41, 0);
    ioapic_write(0x10 + 40, 1 << 15 | u32::from(VECTOR));
}

/// ICW1 to ICW4 of both controllers: vectors from `base`, cascaded, 8086 mode; then all is masked but `open`.
fn program_pics(base: u8, open: u8) {
    for (port, vectors, cascade) in [(0x20, base, 4), (0xa0, base + 8, 2)] {
        pio::out8(port, 0x11);
        pio::out8(port + 1, vectors);
        pio::out8(port + 1, cascade);
        pio::out8(port + 1, 1);
    }
    pio::out8(0x21, !open);
    pio::out8(0xa1, 0xff);
}

fn ap_work() {
    value("first", guest::tables::cpu() as u64);
    pause();
    value("second", guest::tables::cpu() as u64);
}

guest::scenario! {
    /// The local APIC's registers that hold what software writes.
    fn lapic_registers() {
        apic::enable();
        let registers = [
            (reg::TPR, 0x20),
            (reg::LDR, 0x4000_0000),
            (reg::DFR, 0x0fff_ffff),
            (reg::SVR, 0x1ef),
            (0x340, 0x1_0061), // LVT of the performance counters
            (reg::LVT_LINT0, 0x1_0062),
            (reg::LVT_LINT1, 0x1_0463),
            (0x370, 0x1_0064), // LVT of errors
            (reg::LVT_TIMER, 0x3_0065),
            (reg::TIMER_DIVIDE, 0x9),
            (reg::ICR_HIGH, 0x0300_0000),
        ];
        for (register, value) in registers {
            apic::write(register, value);
        }
        pause();
        let wrong = registers.iter().find(|&&(register, value)| apic::read(register) != value);
        value("first that differs", wrong.map_or(0, |&(register, _)| register.into()));
        value("read as", wrong.map_or(0, |&(register, _)| apic::read(register).into()));
    }

    /// x2APIC mode and a task priority.
    fn x2apic() {
        value("fault", apic::enable_x2apic().map_or_else(|fault| fault.vector, |()| 0));
        apic::write(reg::TPR, 0x30);
        pause();
        value("tpr", control::read_msr(apic::msr(reg::TPR)).unwrap_or(!0));
        value("mode", control::read_msr(apic::APIC_BASE_MSR).unwrap_or(0) >> 10 & 3);
    }

    /// An interrupt that is requested while interrupts are off.
    fn requested() {
        handle(VECTOR, Some(count_and_eoi));
        apic::enable();
        apic::send_self(VECTOR);
        pause();
        value("request", apic::read(reg::IRR + 0x10 * u32::from(VECTOR >> 5)).into());
        wait(|| true);
        value("interrupts", counted());
    }

    /// An interrupt in service.
    fn serving() {
        handle(VECTOR, Some(in_service));
        apic::enable();
        apic::send_self(VECTOR);
        interrupts_on();
        let _ = (0..2000).any(|_| {
            spin_loop();
            SERVED.load(Relaxed) != 0
        });
        interrupts_off();
    }

    /// The timer, once, after `count` ticks of the bus.
    fn one_shot() {
        handle(VECTOR, Some(count_and_eoi));
        apic::enable();
        apic::write(reg::TIMER_DIVIDE, 0xb);
        apic::write(reg::LVT_TIMER, VECTOR.into());
        apic::write(reg::TIMER_INITIAL, arg("count").unwrap_or(0) as u32);
        pause();
        wait(|| apic::read(reg::TIMER_CURRENT) == 0);
        value("interrupts", counted());
    }

    /// The timer stands for longer than this guest runs, and is looked at when `ticks` are gone.
    fn counts_on() {
        apic::enable();
        apic::write(reg::TIMER_DIVIDE, 0xb);
        apic::write(reg::TIMER_INITIAL, u32::MAX);
        let gone = arg("ticks").unwrap_or(0) as u32;
        while apic::read(reg::TIMER_CURRENT) >= u32::MAX - gone {}
        let before = apic::read(reg::TIMER_CURRENT);
        pause();
        value("goes on", (apic::read(reg::TIMER_CURRENT) <= before).into());
    }

    /// The timer's deadline, `ticks` of the TSC ahead.
    fn tsc_deadline() {
        handle(VECTOR, Some(count_and_eoi));
        apic::enable();
        apic::write(reg::LVT_TIMER, 2 << 17 | u32::from(VECTOR));
        let ticks = arg("ticks").unwrap_or(0);
        let deadline = tsc() + ticks;
        let fault = control::write_msr(0x6e0, deadline);
        value("fault", fault.map_or_else(|fault| fault.vector, |()| 0));
        pause();
        // The host's timer may be late, by what a busy machine makes of it.
        wait(|| tsc() > deadline + 20 * ticks);
        value("interrupts", counted());
        pause();
        value("disarmed", (control::read_msr(0x6e0).unwrap_or(1) == 0).into());
    }

    /// Redirection entries, masked, and the I/O APIC's ID.
    fn ioapic_entries() {
        ioapic_write(0, 0x0500_0000);
        for pin in 0..24 {
            ioapic_write(0x11 + 2 * pin, (0x10 + pin) << 24);
            ioapic_write(0x10 + 2 * pin, 1 << 16 | (pin & 1) << 15 | (0x60 + pin));
        }
        pause();
        let right = |pin: &u32| {
            ioapic_read(0x11 + 2 * pin) == (0x10 + pin) << 24
                && ioapic_read(0x10 + 2 * pin) == 1 << 16 | (pin & 1) << 15 | (0x60 + pin)
        };
        value("id", ioapic_read(0).into());
        value("entries", (0..24).filter(right).count() as u64);
    }

    /// A level-triggered interrupt, whose line the host holds up to the second service.
    fn level() {
        handle(VECTOR, Some(serve));
        apic::enable();
        redirect_pin_20();
        pause();
        interrupts_on();
        let _ = (0..arg("rounds").unwrap_or(0)).any(|_| {
            spin_loop();
            SERVED.load(Relaxed) >= 2
        });
        (0..2000).for_each(|_| spin_loop());
        interrupts_off();
        value("served", SERVED.load(Relaxed));
    }

    /// The PICs: masks, ELCR and what a read of port 0x20 gives.
    fn pic_registers() {
        program_pics(0x50, 0x18);
        pio::out8(0x4d0, 0x20);
        pio::out8(0x4d1, 0x0e);
        pause();
        value("masks", u64::from(pio::in8(0x21)) | u64::from(pio::in8(0xa1)) << 8);
        value("levels", u64::from(pio::in8(0x4d0)) | u64::from(pio::in8(0x4d1)) << 8);
    }

    /// A request that the PIC holds while interrupts are off.
    fn pic_request() {
        handle(0x54, Some(pic_arrival));
        // LINT0 is open to the PIC.
        apic::enable();
        apic::write(reg::LVT_LINT0, 0x700);
        program_pics(0x50, 0x10);
        pause();
        // The host has raised the line.
        pio::out8(0x20, 0x0a);
        value("requests", pio::in8(0x20).into());
        pause();
        wait_for_pic();
        value("interrupts", SERVED.load(Relaxed));
    }

    /// Channel 2 of the PIT.
    fn pit_channel() {
        // Both bytes, mode 3, binary; its gate is open and the speaker off.
        pio::out8(0x43, 0xb6);
        pio::out8(0x42, 0x34);
        pio::out8(0x42, 0x12);
        pio::out8(0x61, 1);
        pause();
        // Read-back of its status.
        pio::out8(0x43, 0xe8);
        value("mode", u64::from(pio::in8(0x42) & 0x3f));
        value("gate", u64::from(pio::in8(0x61) & 1));
        // Counts down by two from 0x1234, and never beyond.
        pio::out8(0x43, 0x80);
        let left = u64::from(pio::in8(0x42)) | u64::from(pio::in8(0x42)) << 8;
        value("within its period", (left <= 0x1234).into());
    }

    /// An application processor that is at work.
    fn application_processor() {
        apic::enable();
        smp::start(1, ap_work);
        pause();
    }

    /// An application processor between INIT and SIPI.
    fn between_init_and_sipi() {
        apic::enable();
        smp::prepare(1, ap_work);
        apic::send_init(1);
        pause();
        apic::send_startup(1, guest::protocol::AP_START_VECTOR);
        pause();
    }
}

/// Counts, and tells the PIC.
fn pic_arrival(_: &mut Frame) {
    SERVED.store(SERVED.load(Relaxed) + 1, Relaxed);
    pio::out8(0x20, 0x20);
}

fn wait_for_pic() {
    interrupts_on();
    let _ = (0..2000).any(|_| {
        spin_loop();
        SERVED.load(Relaxed) != 0
    });
    (0..2000).for_each(|_| spin_loop());
    interrupts_off();
}
