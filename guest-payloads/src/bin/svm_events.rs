//! This guest as a hypervisor: exceptions, interrupts and what else comes from outside while L2 runs, and the state that
//! goes back and forth.
//!
//! Most scenarios take `intercept` and `intercept-too`, exit codes of intercepts to turn on.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "gates are broken on purpose, and registers read")]
guest::payload!();

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest::fault::Frame;
use guest::report::value;
use guest::svm::{self, Exit, L2, event, exit, field, int_ctl};
use guest::tables::IDT_POINTER;
use guest::{apic, arg, catch, code, control, handle, mmio};

code! {
    /// One exception each.
    undefined: guest::label!("ud_here"), "ud2", "ret";
    not_canonical: "mov rax, 1", "shl rax, 63", guest::label!("gp_here"), "mov byte ptr [rax], 1", "ret";
    bad_msr: "mov ecx, 0xffffffff", "xor eax, eax", "xor edx, edx", guest::label!("bad_msr_here"), "wrmsr", "ret";
    not_mapped: "mov eax, 0xdead0000", guest::label!("pf_here"), "mov byte ptr [rax], 1", "ret";
    divide: "xor ecx, ecx", "xor edx, edx", guest::label!("de_here"), "div ecx", "ret";
    breakpoint: guest::label!("bp_here"), "int3", guest::label!("behind_bp"), "ret";
    no_fpu: "mov rax, cr0", "or rax, 8", "mov cr0, rax", guest::label!("nm_here"), "fninit", "ret";
    step: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", guest::label!("stepped"), "nop", "ret";

    /// #UD without any IDT.
    shutdown: "push 0", "push 0", "lidt [rsp]", guest::label!("fatal"), "ud2",
        guest::label!("second_life"), guest::label!("second_hlt"), "hlt";

    /// Port 0x80, where the host does its part; then some instructions with names.
    out_then_nops: guest::label!("out_here"), "out 0x80, al", guest::label!("behind_out"), "nop",
        guest::label!("one_more"), "nop", guest::label!("two_more"), "nop", "ret";
    out_then_open: "out 0x80, al", "nop", "sti", guest::label!("shielded"), "nop", guest::label!("open"), "nop", "cli",
        "ret";
    out_then_halt: "out 0x80, al", "sti", "hlt", guest::label!("behind_hlt"), "nop", "cli", "ret";
    open_then_out: "sti", "nop", "out 0x80, al", guest::label!("behind_open_out"), "nop", "cli", "ret";
    halt_open: "sti", "hlt", guest::label!("woken"), "nop", "cli", "ret";
    open_window: "sti", guest::label!("window_shielded"), "nop", guest::label!("window"), "nop", "cli", "ret";
    raise_cr8: "mov eax, 5", "mov cr8, rax", "ret";
    shielded_cpuid: "sti", guest::label!("cpuid_here"), "cpuid", "cli", "ret";
    two_nops: guest::label!("first"), "nop", guest::label!("second"), "nop", "cli", "ret";

    /// In L1.
    vmsave: "vmsave rax", "ret";
    vmload: "vmload rax", "ret";

    /// Changes whatever it can, and leaves by VMMCALL: its stack is not sound any more.
    change_all: "mov rax, cr0", "xor rax, 0x10000", "mov cr0, rax", "mov rax, cr4", "xor rax, 8", "mov cr4, rax",
        "mov rax, cr3", "xor rax, 0x10", "mov cr3, rax",
        "mov ecx, 0xc0000080", "rdmsr", "xor eax, 1", "wrmsr",
        "mov eax, 0x2a0", "mov dr7, rax", "xor eax, eax", "mov ds, eax", "mov es, eax",
        "push 0", "push 0x7ff", "lidt [rsp]", "lgdt [rsp]",
        "push 0xad7", "popfq",
        "mov rax, 0x1111", "mov rbx, 0x2222", "mov rcx, 0x3333", "mov rdx, 0x4444", "mov rsi, 0x5555",
        "mov rdi, 0x6666", "mov rbp, 0x7777", "mov rsp, 0x8888", "mov r8, 0x9999", "mov r15, 0xffff",
        guest::label!("all_changed"), "vmmcall";
}

static COUNT: AtomicU64 = AtomicU64::new(0);
static ERROR: AtomicU64 = AtomicU64::new(0);
static RETURN: AtomicU64 = AtomicU64::new(0);

/// Counts what arrives, in L1 or L2: they share the IDT. `return` says where it came.
fn count(frame: &mut Frame) {
    ERROR.store(frame.error, Ordering::Relaxed);
    RETURN.store(frame.rip, Ordering::Relaxed);
    COUNT.fetch_add(1, Ordering::Relaxed);
    if arg("apic").is_some() && frame.vector >= 32 {
        apic::eoi();
    }
}

fn counted() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

fn tell_count() {
    value("count", counted());
    value("return", RETURN.load(Ordering::Relaxed));
}

/// L2 with what the case's arguments ask for.
fn prepared(code: extern "C" fn()) -> L2 {
    let mut l2 = L2::new(code);
    for name in ["intercept", "intercept-too"] {
        if let Some(code) = arg(name) {
            l2.vmcb().intercept(code);
        }
    }
    l2
}

/// Lets L2 take an interrupt that L1 injects, so that all that a delivery touches is mapped in the host. Vectoring that
/// the host interrupts to map a page is a case of its own.
fn warm_up(l2: &mut L2) {
    handle(0x41, Some(count));
    let code = l2.vmcb().get(field::RIP);
    l2.go(two_nops);
    l2.vmcb().set(field::EVENTINJ, event::interrupt(0x41));
    l2.run();
    l2.go(two_nops);
    l2.vmcb().set(field::RIP, code);
    COUNT.store(0, Ordering::Relaxed);
    RETURN.store(0, Ordering::Relaxed);
}

fn tell(exit: Exit) {
    value("exit", exit.code);
    value("rip", exit.rip);
}

/// The exception `vector`, or the way to it.
fn raise() {
    match arg("vector") {
        Some(0) => divide(),
        Some(1) => step(),
        Some(3) => breakpoint(),
        Some(6) => undefined(),
        Some(7) => no_fpu(),
        Some(13) if arg("msr").is_some() => bad_msr(),
        Some(13) => not_canonical(),
        _ => not_mapped(),
    }
}

/// In L2: tells the exception as its IDT delivers it.
extern "C" fn raise_and_tell() {
    match catch(raise) {
        Ok(()) => value("no fault", 0),
        Err(fault) => {
            value("vector", fault.vector);
            value("error", fault.error);
            value("fault rip", fault.rip);
        }
    }
}

/// Clears the present bit of a vector's gate.
fn remove_gate(vector: u64) {
    let high = IDT_POINTER.base + 16 * vector + 4;
    // SAFETY: the IDT is writable; the gate's second word holds its present bit, bit 15 (APM vol. 2, 4.8.4).
    unsafe { mmio::write32(high, mmio::read32(high) & !(1 << 15)) };
}

/// Gives a vector's gate an interrupt stack: 1 is that of most exceptions.
fn move_gate(vector: u64, ist: u32) {
    let high = IDT_POINTER.base + 16 * vector + 4;
    // SAFETY: as above; IST is bits 2:0.
    unsafe { mmio::write32(high, mmio::read32(high) & !7 | ist) };
}

/// OUT to port 0x80, where the host does its part.
fn host_acts() {
    guest::pio::out8(0x80, 0);
}

/// Lets L1's interrupts in for two instructions.
fn open_in_l1() {
    // SAFETY: what arrives has a handler.
    unsafe { asm!("sti", "nop", "nop", "cli", options(nostack)) };
}

/// GDTR and IDTR, ten bytes each.
fn descriptor_tables() -> [[u8; 10]; 2] {
    let mut tables = [[0; 10]; 2];
    // SAFETY: each instruction writes ten bytes.
    unsafe {
        asm!("sgdt [{}]", "sidt [{}]", in(reg) &raw mut tables[0], in(reg) &raw mut tables[1], options(nostack))
    };
    tables
}

fn int_ctl_of(l2: &mut L2) -> u64 {
    l2.vmcb().get(field::INT_CTL)
}

guest::scenario! {
    /// An exception in L2, which L1 intercepts or not.
    fn exception() {
        let mut l2 = prepared(raise_and_tell);
        l2.vmcb().set(field::CR2, 0x5555);
        let exit = l2.run();
        tell(exit);
        if exit.code == exit::EXCEPTION + 14 {
            value("info1", exit.info1);
            value("info2", exit.info2);
            value("cr2", l2.vmcb().get(field::CR2));
        }
        if exit.code == exit::EXCEPTION + 13 {
            value("info1", exit.info1);
        }
        value("interrupted", exit.int_info >> 31 & 1);
    }

    /// An exception in L2, whose delivery finds no stack: #PF, then, has a stack of its own. Or, with `no-gate`, no gate.
    fn fault_in_delivery() {
        let mut l2 = prepared(raise_and_tell);
        if arg("no-gate").is_some() {
            remove_gate(arg("vector").unwrap_or(13));
        } else {
            move_gate(14, 4);
            let stack = guest::tables::stack_top(0) - 0x8000;
            // SAFETY: the only users of that page are exceptions.
            let done = unsafe { guest::paging::change(stack, |flags| flags & !guest::paging::Flags::PRESENT) };
            guest::check!(done.is_some());
        }
        let exit = l2.run();
        tell(exit);
        value("info1", exit.info1);
        value("page", exit.info2 & !0xfff);
        value("interrupted", exit.int_info);
    }

    /// L2 shuts down.
    fn shutdown_in_l2() {
        tell(prepared(shutdown).run());
        let mut sound = L2::new(two_nops);
        value("sound", sound.run().code);
    }

    /// L1 injects `event` into L2, and handles `vector` there.
    fn inject() {
        let mut l2 = prepared(two_nops);
        let event = arg("event").unwrap_or(0);
        if arg("warm").is_some() {
            warm_up(&mut l2);
        }
        handle(event as u8, Some(count));
        l2.vmcb().set(field::EVENTINJ, event);
        let first = l2.vmcb().get(field::RIP);
        l2.vmcb().set(field::NRIP, first);
        tell(l2.run());
        tell_count();
        value("error", ERROR.load(Ordering::Relaxed));
        value("still valid", l2.vmcb().get(field::EVENTINJ) >> 31 & 1);
    }

    /// L1 injects an interrupt whose gate is not present.
    fn inject_without_gate() {
        let mut l2 = prepared(two_nops);
        remove_gate(0x41);
        l2.vmcb().set(field::EVENTINJ, event::interrupt(0x41));
        let exit = l2.run();
        tell(exit);
        value("info1", exit.info1);
        value("interrupted", exit.int_info);
    }

    /// L1 injects an interrupt while its nested tables miss the IDT, repairs that, and injects again what was interrupted.
    fn inject_without_idt() {
        let mut l2 = prepared(two_nops);
        l2.nest_pages();
        handle(0x41, Some(count));
        let idt = IDT_POINTER.base & !0xfff;
        l2.change_nested(idt, |entry| entry & !1);
        l2.vmcb().set(field::EVENTINJ, event::interrupt(0x41));
        let exit = l2.run();
        tell(exit);
        value("interrupted", exit.int_info);
        l2.change_nested(idt, |entry| entry | 1);
        l2.vmcb().set(field::EVENTINJ, exit.int_info);
        tell(l2.run());
        tell_count();
    }

    /// The host acts while L2 stands at an OUT; L2's code is `code`. `masking`: V_INTR_MASKING; `host-if`: L1's IF.
    /// Then L1 opens its interrupt window.
    fn host_event() {
        let mut l2 = prepared(match arg("code") {
            Some(1) => out_then_open,
            Some(2) => out_then_halt,
            Some(3) => open_then_out,
            _ => out_then_nops,
        });
        handle(0x41, Some(count));
        handle(2, Some(count));
        if arg("apic").is_some() {
            apic::enable();
        }
        if arg("masking").is_some() {
            l2.vmcb().set(field::INT_CTL, int_ctl::MASKING);
        }
        l2.host_interrupts = arg("host-if").is_some();
        let exit = l2.run_and_stay_closed();
        value("count in l2", counted());
        tell(exit);
        svm::stgi();
        open_in_l1();
        tell_count();
    }

    /// The host acts between CLGI and STGI, with L1's IF set.
    fn gif() {
        guest::check!(svm::enable().is_ok());
        handle(0x41, Some(count));
        handle(2, Some(count));
        if arg("apic").is_some() {
            apic::enable();
        }
        svm::clgi();
        // SAFETY: what arrives has a handler.
        unsafe { asm!("sti", options(nostack)) };
        host_acts();
        host_acts();
        value("closed", counted());
        svm::stgi();
        // SAFETY: no effect but time for what is pending to arrive.
        unsafe { asm!("nop", "nop", "cli", options(nostack)) };
        value("open", counted());
    }

    /// #VMEXIT, with nothing done about GIF.
    fn gif_after_exit() {
        let mut l2 = prepared(two_nops);
        handle(2, Some(count));
        host_acts();
        let exit = l2.run_and_stay_closed();
        host_acts();
        value("closed", counted());
        svm::stgi();
        value("open", counted());
        tell(exit);
    }

    /// A virtual interrupt waits from the start.
    fn virtual_interrupt() {
        let mut l2 = prepared(match arg("code") {
            Some(1) => halt_open,
            Some(2) => two_nops,
            _ => open_window,
        });
        warm_up(&mut l2);
        l2.vmcb().set(field::INT_CTL, int_ctl::interrupt(0x41) | int_ctl::MASKING);
        if arg("shadow").is_some() {
            l2.vmcb().set(field::INT_SHADOW, 1);
            l2.vmcb().set(field::RFLAGS, 0x202);
        }
        tell(l2.run());
        tell_count();
        value("still pending", int_ctl_of(&mut l2) >> 8 & 1);
    }

    /// A virtual interrupt of priority 4 waits; V_TPR is 5, then 3.
    fn virtual_priority() {
        let mut l2 = prepared(open_window);
        warm_up(&mut l2);
        let interrupt = int_ctl::interrupt(0x41) & !int_ctl::IGNORE_TPR | int_ctl::MASKING | 4 << 16;
        for v_tpr in [5, 3] {
            l2.vmcb().set(field::INT_CTL, interrupt | v_tpr);
            l2.go(open_window);
            tell(l2.run());
            value("count", counted());
            value("still pending", int_ctl_of(&mut l2) >> 8 & 1);
        }
    }

    /// L2 raises CR8, with virtual interrupt masking if `masking`.
    fn cr8() {
        let mut l2 = prepared(raise_cr8);
        if arg("masking").is_some() {
            l2.vmcb().set(field::INT_CTL, int_ctl::MASKING);
        }
        tell(l2.run());
        value("cr8 of l1", control::read_cr8());
        if arg("masking").is_some() {
            value("v-tpr", int_ctl_of(&mut l2) & 0xff);
        }
    }

    /// L2 exits in the shadow of STI.
    fn shadow_at_exit() {
        let mut l2 = prepared(shielded_cpuid);
        tell(l2.run());
        value("shadow", l2.vmcb().get(field::INT_SHADOW) & 1);
        value("if", l2.vmcb().get(field::RFLAGS) >> 9 & 1);
    }

    /// L2 changes every register that it can.
    fn state() {
        let mut l2 = prepared(change_all);
        let efer = control::read_msr(svm::EFER_MSR);
        let l1 = [control::read_cr0(), control::read_cr3(), control::read_cr4()];
        let tables = descriptor_tables();
        tell(l2.run());
        guest::check_eq!(control::read_cr0(), l1[0]);
        guest::check_eq!(control::read_cr3(), l1[1]);
        guest::check_eq!(control::read_cr4(), l1[2]);
        guest::check!(control::read_msr(svm::EFER_MSR) == efer, "EFER is L1's again");
        guest::check!(descriptor_tables() == tables, "GDTR and IDTR are L1's again");
        value("dr7 of l1", control::read_dr7());
        let vmcb = l2.vmcb();
        value("cr0 changed", vmcb.get(field::CR0) ^ l1[0]);
        value("cr3 changed", vmcb.get(field::CR3) ^ l1[1]);
        value("cr4 changed", vmcb.get(field::CR4) ^ l1[2]);
        value("efer changed", vmcb.get(field::EFER) ^ efer.unwrap_or(0));
        value("dr7", vmcb.get(field::DR7));
        value("ds", vmcb.get(field::selector(field::DS)));
        value("idt limit", vmcb.get(field::limit(field::IDTR)));
        value("gdt limit", vmcb.get(field::limit(field::GDTR)));
        value("rflags", vmcb.get(field::RFLAGS));
        value("rax", vmcb.get(field::RAX));
        value("rsp", vmcb.get(field::RSP));
        value("rbx", l2.regs.rbx);
        value("rdi", l2.regs.rdi);
        value("r15", l2.regs.r15);
    }

    /// VMSAVE, then VMLOAD of the same page with other values in it.
    fn load_and_save() {
        const PAGE: u64 = 0x10_0000;
        guest::check!(svm::enable().is_ok());
        let at = |offset: u64| guest::physical::<u8>(PAGE + offset) as u64;
        // FS base, GS base, KernelGSBase, STAR, LSTAR, CSTAR, SFMASK, SYSENTER_CS, _ESP, _EIP (APM vol. 2, table B-2).
        let saved = [
            (0x448, 0xc000_0100, 0x1000_0000),
            (0x458, 0xc000_0101, 0x2000_0000),
            (0x620, 0xc000_0102, 0x3000_0000),
            (0x600, 0xc000_0081, 0x0010_0008_0000_0000),
            (0x608, 0xc000_0082, 0x4000_0000),
            (0x610, 0xc000_0083, 0x5000_0000),
            (0x618, 0xc000_0084, 0x200),
            (0x628, 0x174, 0x8),
            (0x630, 0x175, 0x6000_0000),
            (0x638, 0x176, 0x7000_0000),
        ];
        for (_, msr, number) in saved {
            guest::check!(control::write_msr(msr, number).is_ok());
        }
        svm::call_with_rax(vmsave, PAGE);
        for (offset, _, number) in saved {
            // SAFETY: spare RAM.
            guest::check_eq!(unsafe { mmio::read64(at(offset)) }, number, "VMSAVE");
            // SAFETY: as above.
            unsafe { mmio::write64(at(offset), number + 0x10) };
        }
        svm::call_with_rax(vmload, PAGE);
        for (_, msr, number) in saved {
            guest::check_eq!(control::read_msr(msr).unwrap_or(0), number + 0x10, "VMLOAD");
        }
    }

    /// L2 does OUT, twice.
    fn l2_stands_at_out() {
        let mut l2 = prepared(out_then_nops);
        tell(l2.run());
        l2.go(out_then_nops);
        tell(l2.run());
    }

    /// L1 does OUT, with SVM off and then on.
    fn l1_stands_at_out() {
        host_acts();
        guest::check!(svm::enable().is_ok());
        host_acts();
        let mut sound = L2::new(two_nops);
        value("sound", sound.run().code);
    }
}
