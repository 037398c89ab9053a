//! Debugging: by the host (KVM_SET_GUEST_DEBUG) and by the guest itself (TF, DR0 to DR7).
//!
//! What is stepped over or watched is a naked function with a label on each instruction. A host takes
//! control by an execution breakpoint on the first one: no other exit comes before.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "debug registers and labelled instructions")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use guest::control::{read_dr0, read_dr6, read_dr7, write_dr0, write_dr6, write_dr7};
use guest::fault::Frame;
use guest::report::value;
use guest::{Fault, apic, catch, handle, paging, ring3};

/// #DB.
const DEBUG: u8 = 1;
/// RFLAGS.RF: the next instruction does not hit an execution breakpoint (SDM vol. 3, "Resume Flag").
const RF: u64 = 1 << 16;
/// DR7: bit 10 is always 1.
const DR7_NONE: u64 = 0x400;
/// The vector of the interrupt that waits while the host steps.
const IRQ: u8 = 0x40;

/// What host and guest watch.
#[unsafe(export_name = "watched")]
static WATCHED: AtomicU64 = AtomicU64::new(0);

/// What the host watches at CPL 3.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: scenarios are single-threaded and reach the page only from assembly.
unsafe impl Sync for Page {}

#[unsafe(export_name = "user_watched")]
static USER_PAGE: Page = Page(UnsafeCell::new([0; 4096]));

/// How many times the handler of a scenario ran.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// RIP, RFLAGS and DR6 of its first time.
static FIRST: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Counts #DB, and takes notes of the first.
fn note(frame: &mut Frame) {
    if COUNT.fetch_add(1, Ordering::Relaxed) == 0 {
        for (slot, number) in FIRST.iter().zip([frame.rip, frame.rflags, read_dr6()]) {
            slot.store(number, Ordering::Relaxed);
        }
    }
}

/// As [`note`], and lets the guest pass the breakpoint it is at.
fn note_and_resume(frame: &mut Frame) {
    note(frame);
    frame.rflags |= RF;
}

fn tell_notes() {
    value("count", COUNT.load(Ordering::Relaxed));
    value("rip", FIRST[0].load(Ordering::Relaxed));
    value("rflags", FIRST[1].load(Ordering::Relaxed));
    value("dr6", FIRST[2].load(Ordering::Relaxed));
}

#[unsafe(naked)]
extern "C" fn plain() -> u64 {
    naked_asm!(
        guest::label!("plain_0"),
        "mov eax, 1",
        guest::label!("plain_1"),
        "add eax, 2",
        guest::label!("plain_2"),
        "jmp 2f",
        "ud2",
        "2:",
        guest::label!("plain_3"),
        "push rax",
        guest::label!("plain_4"),
        "pop rax",
        guest::label!("plain_5"),
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn intercepted() {
    naked_asm!(
        "push rbx",
        guest::label!("intercepted_0"),
        "xor eax, eax",
        guest::label!("intercepted_cpuid"),
        "cpuid",
        guest::label!("intercepted_1"),
        "mov ecx, 0x1b", // IA32_APIC_BASE: no vendor's KVM lets it through
        guest::label!("intercepted_rdmsr"),
        "rdmsr",
        guest::label!("intercepted_wrmsr"),
        "wrmsr",
        guest::label!("intercepted_2"),
        "pop rbx",
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn send_ipi() {
    naked_asm!(
        "mov ecx, 0x830",
        "xor edx, edx",
        "mov eax, 0x40",
        guest::label!("icr_write"),
        "wrmsr",
        guest::label!("icr_after"),
        "nop",
        guest::label!("icr_end"),
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn allow_interrupts() {
    naked_asm!(
        guest::label!("sti_0"),
        "sti",
        guest::label!("sti_1"),
        "nop",
        guest::label!("sti_2"),
        "cli",
        guest::label!("sti_3"),
        "ret",
    )
}

/// With a request pending and interrupts on: the host steps the NOPs.
#[unsafe(naked)]
extern "C" fn interruptible() {
    naked_asm!(
        "sti",
        "nop",
        guest::label!("irq_0"),
        "nop",
        guest::label!("irq_1"),
        "nop",
        guest::label!("irq_2"),
        "nop",
        guest::label!("irq_3"),
        "cli",
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn four_places() {
    naked_asm!(
        guest::label!("place_0"),
        "nop",
        guest::label!("place_1"),
        "nop",
        guest::label!("place_2"),
        "nop",
        guest::label!("place_3"),
        "nop",
        "ret",
    )
}

/// Writes, then reads what is watched.
#[unsafe(naked)]
extern "C" fn touch(watched: *const AtomicU64) -> u64 {
    naked_asm!(
        "mov eax, 0x55",
        guest::label!("watch_write"),
        "mov [rdi], eax",
        guest::label!("watch_written"),
        "nop",
        guest::label!("watch_read"),
        "mov eax, [rdi]",
        guest::label!("watch_done"),
        "nop",
        "ret",
    )
}

/// As [`touch`], at CPL 3; returns by #UD.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_touch() {
    naked_asm!(
        "lea rdi, [rip + {page}]",
        "mov eax, 0x55",
        "mov [rdi], eax",
        guest::label!("user_written"),
        "nop",
        "mov eax, [rdi]",
        guest::label!("user_read"),
        "nop",
        "ud2",
        page = sym USER_PAGE,
    )
}

/// Two NOPs with TF set, and what takes it away again.
#[unsafe(naked)]
extern "C" fn trapped() {
    naked_asm!(
        "pushfq",
        "or dword ptr [rsp], 0x100",
        "popfq",
        "nop",
        guest::label!("trapped_first"),
        "nop",
        "pushfq",
        "and dword ptr [rsp], 0xfffffeff",
        "popfq",
        guest::label!("trapped_end"),
        "ret",
    )
}

/// What the guest's own breakpoint is at.
#[unsafe(naked)]
extern "C" fn own_place() {
    naked_asm!("nop", guest::label!("own_place"), "nop", "ret")
}

/// Reads RFLAGS by PUSHFQ.
#[unsafe(naked)]
extern "C" fn flags() -> u64 {
    naked_asm!(guest::label!("flags_0"), "nop", guest::label!("flags_1"), "pushfq", "pop rax", "ret")
}

/// Stops once for the host: HLT exits without an in-kernel local APIC.
fn stop_for_host() {
    // SAFETY: the host lets the guest go on behind the HLT.
    unsafe { asm!("hlt", options(nomem, nostack)) };
}

fn load_dr123(values: [u64; 3]) {
    // SAFETY: DR7 enables none of them.
    unsafe {
        asm!("mov dr1, {}", "mov dr2, {}", "mov dr3, {}", in(reg) values[0], in(reg) values[1], in(reg) values[2], options(nomem, nostack));
    }
}

fn read_dr123() -> [u64; 3] {
    let (one, two, three);
    // SAFETY: reading changes nothing.
    unsafe {
        asm!("mov {}, dr1", "mov {}, dr2", "mov {}, dr3", out(reg) one, out(reg) two, out(reg) three, options(nomem, nostack));
    }
    [one, two, three]
}

fn tell_debug_registers() {
    value("dr0", read_dr0());
    for (name, number) in ["dr1", "dr2", "dr3"].iter().zip(read_dr123()) {
        value(name, number);
    }
    value("dr7", read_dr7());
}

/// A write to DR0 to DR7 that is not meant to fault.
fn expect(result: Result<(), Fault>) {
    guest::check!(result == Ok(()), "a debug register can be written");
}

guest::scenario! {
    /// Instructions that no hypervisor intercepts.
    fn step_plain() {
        value("rax", plain());
    }

    /// CPUID, RDMSR, WRMSR.
    fn step_intercepted() {
        intercepted();
    }

    /// WRMSR to the x2APIC's ICR, to itself, with interrupts off.
    fn step_icr() {
        expect(apic::enable_x2apic());
        send_ipi();
    }

    /// STI and what follows it.
    fn step_sti() {
        allow_interrupts();
    }

    /// Takes a note of an interrupt that came while the host stepped.
    fn blocked_irq() {
        apic::enable();
        handle(IRQ, Some(|_| {
            COUNT.fetch_add(1, Ordering::Relaxed);
            apic::eoi();
        }));
        interruptible();
        value("interrupts", COUNT.load(Ordering::Relaxed));
    }

    /// Four places to break at.
    fn four_breakpoints() {
        four_places();
    }

    /// The same four places, twice.
    fn same_place_twice() {
        four_places();
        value("pass", 1);
        four_places();
        value("pass", 2);
    }

    /// A write and a read.
    fn watched_access() {
        value("rax", touch(&raw const WATCHED));
    }

    /// A write and a read at CPL 3.
    fn watched_in_ring3() {
        // SAFETY: nothing of Rust's is in that page.
        let opened = unsafe { paging::open_to_user(USER_PAGE.0.get() as u64, true) };
        guest::check!(opened.is_some(), "the page is one of 4 KiB");
        value("vector", ring3::run(user_touch).map_or(0, |fault| fault.vector));
    }

    /// PUSHFQ while and after the host steps.
    fn pushed_flags() {
        value("rflags", flags());
        value("rflags", flags());
    }

    /// TF by POPF.
    fn own_trap_flag() {
        handle(DEBUG, Some(note));
        trapped();
        tell_notes();
    }

    /// An execution breakpoint of the guest's own.
    fn own_breakpoint() {
        handle(DEBUG, Some(note_and_resume));
        expect(write_dr0(own_place_address()));
        expect(write_dr7(DR7_NONE | 1));
        own_place();
        expect(write_dr7(DR7_NONE));
        own_place();
        tell_notes();
    }

    /// A watchpoint of the guest's own, on writes of four bytes.
    fn own_watchpoint() {
        handle(DEBUG, Some(note));
        expect(write_dr0(WATCHED.as_ptr() as u64));
        expect(write_dr7(DR7_NONE | 1 | 0xd << 16));
        touch(&raw const WATCHED);
        expect(write_dr7(DR7_NONE));
        tell_notes();
    }

    /// DR6 is sticky: #DB sets bits, only software clears them.
    fn sticky_dr6() {
        handle(DEBUG, Some(note));
        expect(write_dr6(0xffff_0ff0));
        value("cleared", read_dr6());
        trapped();
        value("stepped", read_dr6());
        expect(write_dr6(0xffff_0ff0));
        value("cleared", read_dr6());
    }

    /// DR7.GD: any access to a debug register is a #DB before it happens.
    fn general_detect() {
        expect(write_dr7(DR7_NONE | 1 << 13));
        let fault = catch(read_dr0).err().unwrap_or_default();
        value("vector", fault.vector);
        // Delivery has cleared GD, or these would fault.
        value("dr6", read_dr6());
        value("dr7", read_dr7());
    }

    /// Debug registers, written by the guest, then by the host.
    fn registers() {
        expect(write_dr0(0x1000));
        load_dr123([0x2000, 0x3000, 0x4000]);
        expect(write_dr7(DR7_NONE));
        stop_for_host();
        tell_debug_registers();
    }

    /// The guest's debug registers while the host uses the hardware's.
    fn own_registers_kept() {
        expect(write_dr0(0x1000));
        load_dr123([0x2000, 0x3000, 0x4000]);
        four_places();
        tell_debug_registers();
    }
}

fn own_place_address() -> u64 {
    // The labelled instruction is behind the NOP.
    own_place as *const () as u64 + 1
}
