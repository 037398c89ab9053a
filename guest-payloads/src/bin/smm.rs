//! SMIs: what they interrupt, what their handlers find, and what RSM brings back.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "naked functions, and code that must fault")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use guest::arrivals::{self, count, count_and_eoi, counted};
use guest::fault::{Frame, unblock_nmis};
use guest::report::value;
use guest::smm::{SMBASE_AFTER_RESET, field};
use guest::{
    Fault, apic, arg, catch, control, entry, handle, mmio, protected_mode, real_mode, ring3, smi_handler,
    smi_label, smm, smp, tables,
};

smi_handler! {
    /// Halts, which exits without an in-kernel local APIC, and goes back.
    knock: "hlt", smi_label!("knocked"), "rsm"
}

smi_handler! {
    /// Halts twice.
    knock_twice: "hlt", smi_label!("knocked_first"), "hlt", smi_label!("knocked_again"), "rsm"
}

smi_handler! {
    /// Exits, whatever the interrupt controllers.
    tell: "out 0x80, al", "rsm"
}

smi_handler! {
    /// As `tell`, on another port.
    tell_apart: "out 0x8f, al", "rsm"
}

smi_handler! {
    /// Halts, then reads a port and halts again.
    read_port: "mov dx, 0x61", "xor eax, eax", "in al, dx", "hlt", smi_label!("has_read_port"), "rsm"
}

smi_handler! {
    /// Reads device memory, and writes it back one higher.
    read_device: "mov ebx, 0xfe000000", "mov eax, [ebx]", "inc eax", "mov [ebx + 4], eax", "hlt", smi_label!("has_read_device"), "rsm"
}

smi_handler! {
    /// Halts, then divides by zero.
    knock_and_fault: "hlt", smi_label!("knocked_before_fault"), "xor ax, ax", "div al"
}

smi_handler! {
    /// Changes what 16-bit code can change, without an exit.
    clobber:
        "mov eax, cr0", "or eax, 0x1000c", "mov cr0, eax",
        "mov eax, 0x6a0", "mov cr4, eax",
        "mov eax, 0x1000", "mov cr3, eax",
        "mov ecx, 0xc0000080", "xor edx, edx", "mov eax, 0x801", "wrmsr",
        "mov eax, 0xffff0ff5", "mov dr6, eax",
        "mov eax, 0x401", "mov dr7, eax",
        "mov eax, 0x7777", "mov dr0, eax", "mov cr2, eax",
        "lgdtd [0]", "lidtd [0]",
        "mov ax, 0x1234", "mov ds, ax", "mov es, ax", "mov fs, ax", "mov gs, ax", "mov ss, ax",
        "mov eax, 0xdeadbeef", "mov ebx, eax", "mov ecx, eax", "mov edx, eax", "mov esi, eax", "mov edi, eax",
        "mov ebp, eax", "mov esp, eax",
        "rsm"
}

/// Exits, for the host to send an SMI.
#[unsafe(naked)]
extern "C" fn stop() {
    naked_asm!("out 0x81, al", guest::label!("behind_stop"), "ret")
}

/// As [`stop`], and exits again at the next instruction.
#[unsafe(naked)]
extern "C" fn stop_twice() {
    naked_asm!(
        "out 0x81, al",
        guest::label!("between_stops"),
        "hlt",
        guest::label!("second_stop"),
        "ret",
        guest::label!("elsewhere"),
        "hlt",
        guest::label!("went_elsewhere"),
        "ret",
    )
}

/// As [`stop_twice`], with a number of its own in each register, and with many flags set.
#[unsafe(naked)]
extern "C" fn stop_with_numbers() {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "mov rax, 0xa0a1a2a3a4a5a681",
        "mov rbx, 0xb0b1b2b3b4b5b6b7",
        "mov rcx, 0xc0c1c2c3c4c5c6c7",
        "mov rdx, 0xd0d1d2d3d4d5d6d7",
        "mov rsi, 0x1011121314151617",
        "mov rdi, 0x2021222324252627",
        "mov rbp, 0x3031323334353637",
        "mov r8, 0x8081828384858687",
        "mov r9, 0x9091929394959697",
        "mov r10, 0x1012131415161718",
        "mov r11, 0x1112131415161718",
        "mov r12, 0x1212131415161718",
        "mov r13, 0x1312131415161718",
        "mov r14, 0x1412131415161718",
        "mov r15, 0x1512131415161718",
        "push 0xcd7", // All flags that mean nothing to OUT and HLT.
        "popfq",
        "out 0x81, al",
        guest::label!("behind_numbers"),
        "hlt",
        guest::label!("numbers_restored"),
        "cld",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
    )
}

/// Changes all general registers but RSP.
#[unsafe(naked)]
extern "C" fn clobber_all() {
    naked_asm!(
        "mov rax, -1",
        "mov rbx, rax; mov rcx, rax; mov rdx, rax; mov rsi, rax; mov rdi, rax; mov rbp, rax",
        "mov r8, rax; mov r9, rax; mov r10, rax; mov r11, rax; mov r12, rax; mov r13, rax; mov r14, rax; mov r15, rax",
        "ret",
    )
}

#[unsafe(naked)]
extern "C" fn halt() {
    naked_asm!("hlt", guest::label!("behind_halt"), "ret")
}

/// HLT right behind STI, with single instructions behind it.
#[unsafe(naked)]
extern "C" fn halt_shielded() {
    naked_asm!(
        "sti",
        "hlt",
        guest::label!("woken"),
        "nop",
        guest::label!("woken_and_one"),
        "nop",
        "cli",
        "ret"
    )
}

/// IN whose data the host owes.
#[unsafe(naked)]
extern "C" fn read_byte() -> u64 {
    naked_asm!("mov rax, -1", "in al, 0x61", guest::label!("behind_in"), "ret")
}

#[unsafe(naked)]
extern "C" fn rsm() {
    naked_asm!(guest::label!("rsm_here"), "rsm", "ret")
}

/// At CPL 3: exits, then halts, which ring 3 may not.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_stop() {
    naked_asm!("out 0x81, al", guest::label!("user_behind_stop"), "hlt")
}

/// At CPL 3.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_rsm() {
    naked_asm!(guest::label!("user_rsm_here"), "rsm")
}

/// Where a second life starts, with the machine's start state.
#[unsafe(naked)]
extern "C" fn second_life() {
    naked_asm!(guest::label!("second_life"), "jmp {reborn}", reborn = sym reborn)
}

extern "C" fn reborn() -> ! {
    stop();
    value("reborn", 1);
    guest::report::done();
    entry::stop()
}

real_mode! {
    /// Exits, and halts.
    real_stop: "mov esi, 0x12345678", "out 0x81, al", ".globl real_behind", "real_behind: hlt", ".globl real_end", "real_end: jmp real_behind"
}

protected_mode! {
    /// Copies the handler `knock` to where an SMI begins, exits, and halts.
    protected_stop:
        "lea esi, [knock + 8]", "mov edi, 0x38000", "mov ecx, 16", "rep movsb",
        "mov eax, 0xa0a1a2a3", "mov ebx, 0xb0b1b2b3", "mov ecx, 0xc0c1c2c3", "mov edx, 0xd0d1d2d3",
        "mov esi, 0x51525354", "mov edi, 0xd1d2d3d4", "mov ebp, 0xb1b2b3b4", "stc",
        "out 0x81, al", ".globl protected_behind", "protected_behind: hlt", ".globl protected_end",
        "protected_end: jmp protected_behind"
}

protected_mode! {
    /// Turns on PAE paging with the tables that the host has made, exits, and reads from the third page of 2 MiB.
    pae_stop:
        "lea esi, [knock + 8]", "mov edi, 0x38000", "mov ecx, 16", "rep movsb",
        "mov eax, 0xb000", "mov cr3, eax", "mov eax, 0x20", "mov cr4, eax", "mov eax, 0x80000011", "mov cr0, eax",
        "mov eax, [0x5d0000]", "out 0x81, al", ".globl pae_behind", "pae_behind: mov eax, [0x5d0000]", "hlt",
        ".globl pae_end", "pae_end: jmp pae_behind"
}

/// CPU 1 has been here.
static SECOND: AtomicU64 = AtomicU64::new(0);
static DURING: AtomicU64 = AtomicU64::new(0);

/// Counts, and halts in the first one: the host does its part there.
fn count_and_halt(frame: &mut Frame) {
    arrivals::count(frame);
    if counted() == 1 {
        halt();
        halt();
        DURING.store(counted(), Ordering::Relaxed);
    }
}

fn tell_fault(fault: Option<Fault>) {
    match fault {
        None => value("no fault", 0),
        Some(fault) => {
            value("vector", fault.vector);
            value("rip", fault.rip);
        }
    }
}

/// Memory that the case declares, outside RAM.
const SLOT: u64 = 0x1000_0000;

fn read_slot() -> u64 {
    // SAFETY: all physical memory is mapped, and what is there is for the case to say.
    unsafe { mmio::read32(entry::physical::<u8>(SLOT) as u64) }.into()
}

guest::scenario! {
    /// Exits, for the host to send an SMI.
    fn knock_once() {
        smm::install(&knock);
        stop();
        value("behind", 1);
    }

    /// The handler halts twice; so does the guest, behind the SMI for the second time.
    fn two_halts() {
        smm::install(&knock_twice);
        handle(2, Some(count));
        stop();
        arrivals::tell();
    }

    /// The handler is in Rust.
    fn in_rust() {
        smm::handle(|| value("in the handler", 1));
        stop();
        value("behind", 1);
    }

    /// An SMI meets numbers in all registers.
    fn numbers() {
        smm::handle(|| clobber_all());
        stop_with_numbers();
    }

    /// As `numbers`, with a handler that halts.
    fn numbers_to_see() {
        smm::install(&knock);
        stop_with_numbers();
    }

    /// The handler changes segments, control and debug registers.
    fn clobbered() {
        smm::install(&clobber);
        stop_twice();
    }

    /// The host changes the save area.
    fn edited() {
        smm::install(&knock);
        stop_twice();
    }

    /// Halts behind STI.
    fn shielded() {
        smm::install(&knock);
        handle(0x41, Some(count));
        halt_shielded();
        arrivals::tell();
    }

    /// Halts twice in an NMI's handler.
    fn in_nmi() {
        smm::install(&knock);
        handle(2, Some(count_and_halt));
        stop();
        value("during the first", DURING.load(Ordering::Relaxed));
        value("after both", counted());
    }

    /// The handler unblocks NMIs.
    fn iret_in_handler() {
        handle(2, Some(count));
        smm::handle(|| {
            halt();
            value("blocked", counted());
            unblock_nmis();
            value("unblocked", counted());
        });
        stop();
        value("behind", counted());
    }

    /// The handlers, at SMBASE after reset and elsewhere, exit by OUT: for machines with an in-kernel local APIC.
    fn with_apic() {
        smm::install(&tell);
        smm::install_at(0x4_0000, &tell_apart);
        handle(0x41, Some(count_and_eoi));
        apic::enable();
        if arg("pending").is_some() {
            apic::send_self(0x41);
        }
        stop();
        arrivals::tell();
    }

    /// Two processors, each with a handler of its own.
    fn two_cpus() {
        smm::install(&tell);
        smm::install_at(0x4_0000, &tell_apart);
        apic::enable();
        smp::start(1, || {
            stop();
            SECOND.store(1, Ordering::Release);
            value("second", 1);
        });
        // No interrupt comes, but a hypervisor below this one may preempt only those who would take one.
        // SAFETY: nothing in this VM raises an interrupt.
        unsafe { asm!("sti", options(nomem, nostack)) };
        while SECOND.load(Ordering::Acquire) == 0 {
            core::hint::spin_loop();
        }
        // SAFETY: as it was before.
        unsafe { asm!("cli", options(nomem, nostack)) };
        stop();
        value("first", 1);
    }

    /// Sends itself an SMI.
    fn self_smi() {
        smm::install(&tell);
        apic::enable();
        // Physical destination 0, delivery mode SMI, asserted.
        apic::send(0, 0x4200);
        value("behind", 1);
    }

    /// The handler turns interrupts on.
    fn interrupts_in_handler() {
        handle(0x41, Some(count_and_eoi));
        apic::enable();
        apic::send_self(0x41);
        smm::handle(|| {
            value("off", counted());
            arrivals::let_in();
            value("on", counted());
        });
        stop();
        value("behind", counted());
    }

    /// The first SMI's handler moves SMBASE.
    fn relocate() {
        let to = arg("to").unwrap_or(SMBASE_AFTER_RESET);
        if arg("empty").is_none() {
            smm::install_at(to, &knock);
        }
        smm::handle(|| {
            smm::write(SMBASE_AFTER_RESET, field::SMBASE, arg("to").unwrap_or_default());
            value("moved", 1);
        });
        stop();
        stop();
        value("behind", 1);
    }

    /// Installs a handler where the host says that SMBASE is.
    fn handler_elsewhere() {
        smm::install_at(0x4_0000, &knock);
        tell_fault(control::read_msr(0x9e).err());
        stop();
        value("behind", 1);
    }

    /// RSM outside of SMM, at CPL 0 and at CPL 3.
    fn rsm_outside() {
        tell_fault(catch(|| rsm()).err());
        tell_fault(ring3::run(user_rsm));
    }

    /// The handler shuts the vCPU down.
    fn fault_in_handler() {
        smm::install(&knock_and_fault);
        stop();
        second_life();
    }

    /// As `knock_once`; the host may start a second life.
    fn two_lives() {
        smm::install(&knock);
        stop();
        second_life();
    }

    /// A fault inside the handler is caught there.
    fn caught_in_handler() {
        smm::handle(|| {
            // SAFETY: nothing is mapped there; the fault is the point.
            tell_fault(catch(|| unsafe { mmio::write8(0xdead_0000, 1) }).err());
            value("page", control::read_cr2());
        });
        stop();
        value("behind", 1);
    }

    /// The handler reads a port.
    fn port_in_handler() {
        smm::install(&read_port);
        stop();
        value("behind", 1);
    }

    /// The handler reads and writes device memory.
    fn device_in_handler() {
        smm::install(&read_device);
        stop();
        value("behind", 1);
    }

    /// Reads memory that exists in SMM only, outside, inside and outside.
    fn smram() {
        smm::handle(|| {
            value("inside", read_slot());
            // SAFETY: as for reading.
            unsafe { mmio::write32(entry::physical::<u8>(SLOT) as u64, 0x600d) };
            value("written", read_slot());
        });
        value("before", read_slot());
        stop();
        value("after", read_slot());
    }

    /// An SMI while IN waits for its data.
    fn pending_in() {
        smm::install(&knock);
        value("byte", read_byte());
    }

    /// An SMI meets an event that the host injects.
    fn injected() {
        smm::install(&knock);
        if arg("count").is_some() {
            handle(2, Some(count));
            handle(0x41, Some(count));
            stop();
            arrivals::tell();
            return;
        }
        tell_fault(catch(|| stop()).err());
    }

    /// An SMI interrupts ring 3.
    fn in_ring3() {
        smm::install(&knock);
        // IOPL 3, for the OUT.
        let fault = ring3::run_with(user_stop, 0x3002);
        value("cs", fault.map_or(0, |fault| fault.cs));
        tell_fault(fault);
        value("kernel", tables::KERNEL_CS.into());
    }
}
