//! SMIs that find the vCPU in L2: SMM lies outside of the guest's own virtualization, and RSM goes back into it.
//!
//! Most scenarios take `intercept`, the exit code of one intercept of L1, and `nested-paging`.
#![no_std]
#![no_main]
guest::payload!();

use guest::report::value;
use guest::svm::{self, L2, exit, field, int_ctl};
use guest::{apic, arg, code, control, handle, smi_handler, smi_label, smm};

smi_handler! {
    /// Writes to port 0x81, which exits, and goes back.
    tell: "mov al, 1", "mov dx, 0x81", smi_label!("smi_out"), "out dx, al", smi_label!("smi_rsm"), "rsm"
}

smi_handler! {
    /// Dies: the IDT of SMM has no gate.
    die: "mov al, 1", "mov dx, 0x81", "out dx, al", smi_label!("smi_dies"), "ud2"
}

code! {
    /// L2 exits once, for the host to act, and returns. Its registers are full of what must come back.
    knock: "mov rbx, 0x1111111111111111", "mov rcx, 0x2222222222222222", "mov rsi, 0x3333333333333333",
        "mov rdi, 0x4444444444444444", "mov rbp, 0x5555555555555555", "mov r8, 0x6666666666666666",
        "mov r15, 0x7777777777777777", "mov rax, 0x1234567880", "mov edx, 0x80",
        guest::label!("l2_out"), "out dx, al", guest::label!("l2_behind"), "nop", "ret",
        // Where RSM may be told to go.
        guest::label!("l2_elsewhere"), "mov rax, 0x99", "vmmcall", "ret";
    /// Halts, and returns.
    halt: "mov edx, 0x80", "out dx, al", guest::label!("l2_hlt"), "hlt", guest::label!("l2_behind_hlt"), "ret";
    /// Interrupts on for a while.
    open: "sti", "nop", "mov edx, 0x80", guest::label!("l2_open_out"), "out dx, al",
        guest::label!("l2_open_nop"), "nop", "cli", "ret";
    /// L1 lets a waiting interrupt in.
    let_in: "sti", guest::label!("l1_lets_in"), "nop", "cli", "ret";
    /// Sends itself an SMI, by the local APIC whose page is at RBX.
    send: "mov dword ptr [rbx + 0x310], 0", "mov dword ptr [rbx + 0x300], 0x4200", "nop", guest::label!("l2_sent"), "ret";
}

fn prepared(code: extern "C" fn()) -> L2 {
    let mut l2 = L2::new(code);
    if let Some(code) = arg("intercept") {
        l2.vmcb().intercept(code);
    }
    if arg("nested-paging").is_some() {
        l2.nest_pages();
    }
    l2
}

/// Runs L2 and tells how it ended.
fn run(l2: &mut L2) {
    let exit = l2.run();
    value("exit", exit.code);
    value("rip", exit.rip);
}

guest::scenario! {
    /// L2 exits; the handler exits; L2 goes on and returns.
    fn smi_in_l2() {
        smm::install(&tell);
        let mut l2 = prepared(knock);
        run(&mut l2);
        value("rax", l2.regs.rax);
        let regs = [l2.regs.rbx, l2.regs.rcx, l2.regs.rdx, l2.regs.rsi, l2.regs.rdi, l2.regs.rbp, l2.regs.r8];
        for (name, register) in ["rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8"].into_iter().zip(regs) {
            value(name, register);
        }
    }

    /// As `smi_in_l2`, and L2 runs once more afterwards.
    fn smi_in_l2_and_again() {
        smm::install(&tell);
        let mut l2 = prepared(knock);
        run(&mut l2);
        l2.go(knock);
        run(&mut l2);
    }

    /// As `smi_in_l2`, with debug registers that are not those of L1.
    fn smi_in_l2_debug() {
        smm::install(&tell);
        let mut l2 = prepared(knock);
        l2.vmcb().set(field::DR7, 0x700);
        l2.vmcb().set(field::DR6, 0xffff_0ff1);
        run(&mut l2);
        value("dr7", l2.vmcb().get(field::DR7));
        value("dr6", l2.vmcb().get(field::DR6));
    }

    /// The handler takes an exception.
    fn smi_handler_dies() {
        smm::install(&die);
        run(&mut prepared(knock));
    }

    /// A handler in Rust, on page tables of its own right.
    fn smi_handler_in_rust() {
        smm::handle(|| value("in the handler", control::read_cr4() & 0x20));
        run(&mut prepared(knock));
    }

    /// L2 halts.
    fn smi_in_l2_hlt() {
        smm::install(&tell);
        run(&mut prepared(halt));
    }

    /// L2 exits with interrupts on. L1's interrupts are on too, if it virtualizes those of L2.
    fn smi_in_l2_open() {
        handle(0x41, Some(|frame| {
            value("interrupt at", frame.rip);
            apic::eoi();
        }));
        handle(2, Some(|_| value("NMI of L1", 2)));
        smm::install(&tell);
        apic::enable();
        let mut l2 = prepared(open);
        if arg("masking").is_some() {
            l2.vmcb().set(field::INT_CTL, int_ctl::MASKING);
            l2.host_interrupts = true;
        }
        run(&mut l2);
        let_in();
    }

    /// L1 closes GIF, exits, and opens it again.
    fn smi_waits_for_gif() {
        smm::install(&tell);
        assert!(svm::enable().is_ok());
        svm::clgi();
        guest::pio::out8(0x80, 1);
        value("closed", 1);
        svm::stgi();
        value("open", 1);
    }

    /// L1 looks at itself before L2, and after it.
    fn l1_after_smi_in_l2() {
        smm::install(&tell);
        assert!(svm::enable().is_ok());
        let before = [control::read_cr0(), control::read_cr3(), control::read_cr4(), efer()];
        let mut l2 = prepared(knock);
        // L2's own differ.
        l2.vmcb().set(field::CR4, before[2] | 4);
        run(&mut l2);
        let after = [control::read_cr0(), control::read_cr3(), control::read_cr4(), efer()];
        for (name, (before, after)) in ["cr0", "cr3", "cr4", "efer"].into_iter().zip(before.into_iter().zip(after)) {
            value(name, before ^ after);
        }
        value("l2 cr4", l2.vmcb().get(field::CR4) ^ before[2]);
    }

    /// L2 sends itself an SMI, which L1 intercepts, or not.
    fn l2_sends_smi() {
        apic::enable();
        smm::install(&tell);
        let mut l2 = prepared(send);
        l2.regs.rbx = guest::physical::<u8>(apic::BASE) as u64;
        let exit = l2.run_and_stay_closed();
        value("exit", exit.code);
        svm::stgi();
        value("open", 1);
        if exit.code == exit::SMI {
            run(&mut l2);
        }
    }
}

fn efer() -> u64 {
    control::read_msr(svm::EFER_MSR).unwrap_or(0)
}
