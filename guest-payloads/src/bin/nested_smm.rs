//! SMIs that find the vCPU in L2: SMM lies outside of the guest's own virtualization, and RSM goes back into it.
//!
//! Most scenarios take `shutdown`, `interrupt`, `nmi`, `smi` (AMD), which L1 intercepts, and `nested-paging`.
#![no_std]
#![no_main]
guest::payload!();

use guest::nested::{Intercept, L2, Reason, State};
use guest::report::value;
use guest::svm::{self, exit, field};
use guest::{apic, arg, catch, code, control, handle, pio, smi_handler, smi_label, smm, vmx};

smi_handler! {
    /// Writes to port 0x81, which exits, and goes back.
    tell: "mov al, 1", "mov dx, 0x81", smi_label!("smi_out"), "out dx, al", smi_label!("smi_rsm"), "rsm"
}

smi_handler! {
    /// Divides by zero, where there are no vectors.
    die: "mov al, 1", "mov dx, 0x81", "out dx, al", "xor ax, ax", "div al"
}

code! {
    /// L2 exits once, for the host to act, and returns. Its registers are full of what must come back.
    knock: "mov rbx, 0x1111111111111111", "mov rcx, 0x2222222222222222", "mov rsi, 0x3333333333333333",
        "mov rdi, 0x4444444444444444", "mov rbp, 0x5555555555555555", "mov r8, 0x6666666666666666",
        "mov r15, 0x7777777777777777", "mov rax, 0x1234567880", "mov edx, 0x80",
        guest::label!("l2_out"), "out dx, al", guest::label!("l2_behind"), "nop", "ret",
        // Where RSM may be told to go.
        guest::label!("l2_elsewhere"), "mov eax, 0x99", "ret";
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
    let mut l2 = L2::of_case(code);
    for (name, what) in
        [("shutdown", Intercept::Shutdown), ("interrupt", Intercept::Interrupt), ("nmi", Intercept::Nmi)]
    {
        if arg(name).is_some() {
            l2.intercept(what);
        }
    }
    if let (Some(svm), Some(_)) = (l2.svm(), arg("smi")) {
        svm.vmcb().intercept(exit::SMI);
    }
    l2
}

/// Turns SVM or VMX on in L1, with an L2 that has not run.
fn on() -> L2 {
    let mut l2 = prepared(knock);
    if let (Some(vmx), Some(_)) = (l2.vmx(), arg("no-vmcs")) {
        let address = vmx.vmcs().address();
        guest::check!(vmx::vmclear(address).is_ok());
    }
    l2
}

/// DR6 as L2 left it: SVM keeps it in the VMCB, VMX leaves it in the register.
fn dr6_of(l2: &mut L2) -> u64 {
    l2.svm().map_or_else(control::read_dr6, |svm| svm.vmcb().get(field::DR6))
}

guest::scenario! {
    /// L2 exits; the handler exits; L2 goes on and returns.
    fn smi_in_l2() {
        smm::install(&tell);
        let mut l2 = prepared(knock);
        l2.run().tell();
        let regs = *l2.regs();
        let regs = [regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.r8];
        for (name, register) in ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8"].into_iter().zip(regs) {
            value(name, register);
        }
    }

    /// As `smi_in_l2`, and L2 runs once more afterwards.
    fn smi_in_l2_and_again() {
        smm::install(&tell);
        let mut l2 = prepared(knock);
        l2.run().tell();
        l2.go(knock);
        l2.run().tell();
    }

    /// As `smi_in_l2`, with debug registers that are not those of L1.
    fn smi_in_l2_debug() {
        smm::install(&tell);
        let mut l2 = prepared(knock);
        l2.set(State::Dr7, 0x700);
        match l2.svm() {
            Some(svm) => svm.vmcb().set(field::DR6, 0xffff_0ff1),
            None => guest::check!(control::write_dr6(0xffff_0ff1).is_ok()),
        }
        l2.run().tell();
        value("dr7", l2.get(State::Dr7));
        value("dr6", dr6_of(&mut l2));
    }

    /// The handler takes an exception.
    fn smi_handler_dies() {
        smm::install(&die);
        prepared(knock).run().tell();
    }

    /// A handler in Rust, on page tables of its own right.
    fn smi_handler_in_rust() {
        smm::handle(|| value("in the handler", control::read_cr4() & 0x20));
        prepared(knock).run().tell();
    }

    /// A handler that tries to use VMX.
    fn smi_handler_uses_vmx() {
        smm::handle(|| {
            value("vmxe", control::read_cr4() & vmx::VMXE);
            let refused = control::write_cr4(control::read_cr4() | vmx::VMXE);
            value("setting vmxe", refused.map_or_else(|fault| fault.vector, |()| 0));
            let vmxoff = catch(vmx::vmxoff);
            value("vmxoff", vmxoff.map_or_else(|fault| fault.vector, |_| 0));
        });
        prepared(knock).run().tell();
    }

    /// L2 halts.
    fn smi_in_l2_hlt() {
        smm::install(&tell);
        prepared(halt).run().tell();
    }

    /// L2 exits with interrupts on.
    fn smi_in_l2_open() {
        handle(0x41, Some(|frame| {
            value("interrupt at", frame.rip);
            apic::eoi();
        }));
        handle(2, Some(|_| value("NMI of L1", 2)));
        smm::install(&tell);
        apic::enable();
        prepared(open).run().tell();
        let_in();
    }

    /// INIT comes while L2 is in SMM.
    fn init_in_handler() {
        smm::install(&tell);
        apic::enable();
        prepared(knock).run().tell();
    }

    /// L1 exits with SVM or VMX on, then runs L2. With `no-vmcs`, there is no current VMCS at the exit.
    fn smi_in_l1() {
        smm::install(&tell);
        let mut l2 = on();
        pio::out8(0x80, 1);
        if let Some(vmx) = l2.vmx() {
            vmx.make_current();
        }
        l2.run().tell();
    }

    /// L1 closes GIF, exits, and opens it again.
    fn smi_waits_for_gif() {
        smm::install(&tell);
        assert!(svm::enable().is_ok());
        svm::clgi();
        pio::out8(0x80, 1);
        value("closed", 1);
        svm::stgi();
        value("open", 1);
    }

    /// L1 looks at itself before L2, and after it.
    fn l1_after_smi_in_l2() {
        smm::install(&tell);
        let mut l2 = on();
        let before = [control::read_cr0(), control::read_cr3(), control::read_cr4(), efer()];
        // L2's own differ.
        l2.set(State::Cr4, before[2] | 4);
        l2.run().tell();
        let after = [control::read_cr0(), control::read_cr3(), control::read_cr4(), efer()];
        for (name, (before, after)) in ["cr0", "cr3", "cr4", "efer"].into_iter().zip(before.into_iter().zip(after)) {
            value(name, before ^ after);
        }
        value("l2 cr4", l2.get(State::Cr4) ^ before[2]);
    }

    /// L2 sends itself an SMI, which L1 intercepts, or not.
    fn l2_sends_smi() {
        apic::enable();
        smm::install(&tell);
        let mut l2 = prepared(send);
        l2.regs().rbx = guest::physical::<u8>(apic::BASE) as u64;
        let exit = match l2.svm() {
            Some(svm) => svm.run_and_stay_closed().into(),
            None => l2.run(),
        };
        exit.tell();
        if l2.svm().is_some() {
            svm::stgi();
        }
        value("open", 1);
        if exit.reason == Reason::Smi {
            l2.run().tell();
        }
    }
}

fn efer() -> u64 {
    control::read_msr(svm::EFER_MSR).unwrap_or(0)
}
