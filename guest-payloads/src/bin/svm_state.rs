//! This guest as a hypervisor: the state that goes back and forth between L1 and L2, and the host's own business with it.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "registers are read that only assembly reaches")]
guest::payload!();

use core::arch::{asm, naked_asm};

use guest::report::value;
use guest::svm::{self, L2, field, int_ctl};
use guest::{code, control, mmio};

code! {
    clgi: "clgi", "ret";
    stgi: "stgi", "ret";
    two_nops: guest::label!("first"), "nop", guest::label!("second"), "nop", "cli", "ret";

    /// Port 0x80, where the host does its part; then some instructions with names.
    out_then_nops: guest::label!("out_here"), "out 0x80, al", guest::label!("behind_out"), "nop",
        guest::label!("one_more"), "nop", guest::label!("two_more"), "nop", "ret";

    /// In L1.
    vmsave: "vmsave rax", "ret";
    vmload: "vmload rax", "ret";

    /// Reads CR2 and DR6, and gives them other numbers.
    cr2_and_dr6: "mov rbx, cr2", "mov rsi, dr6", "mov eax, 0x6789a000", "mov cr2, rax",
        "mov eax, 0xffff0ff2", "mov dr6, rax", "ret";

    /// Changes whatever it can, and leaves by VMMCALL: its stack is not sound any more.
    change_all: "mov rax, cr0", "xor rax, 0x10000", "mov cr0, rax", "mov rax, cr4", "xor rax, 8", "mov cr4, rax",
        "mov cr3, rbx",
        "mov ecx, 0xc0000080", "rdmsr", "xor eax, 1", "wrmsr",
        "mov eax, 0x2a0", "mov dr7, rax", "xor eax, eax", "mov ds, eax", "mov es, eax",
        "push 0", "push 0x7ff", "lidt [rsp]", "lgdt [rsp]",
        "push 0xad7", "popfq",
        "mov rax, 0x1111", "mov rbx, 0x2222", "mov rcx, 0x3333", "mov rdx, 0x4444", "mov rsi, 0x5555",
        "mov rdi, 0x6666", "mov rbp, 0x7777", "mov rsp, 0x8888", "mov r8, 0x9999", "mov r15, 0xffff",
        guest::label!("all_changed"), "vmmcall";
}

#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn cpuid_in_ring_3() {
    naked_asm!(guest::label!("cpuid_in_ring_3_here"), "cpuid", "ud2")
}

/// L2, which leaves ring 0; it only comes back if it takes an exception there, instead of the exit.
extern "C" fn goes_to_ring_3() {
    if let Some(fault) = guest::ring3::run(cpuid_in_ring_3) {
        value("vector in l2", fault.vector);
        value("at", fault.rip);
    }
}

/// GDTR and IDTR, ten bytes each.
fn descriptor_tables() -> [[u8; 10]; 2] {
    let mut tables = [[0; 10]; 2];
    // SAFETY: each instruction writes ten bytes.
    unsafe {
        asm!("sgdt [{}]", "sidt [{}]", in(reg) &raw mut tables[0], in(reg) &raw mut tables[1], options(nostack));
    }
    tables
}

guest::scenario! {
    /// L2 executes CLGI or, with `set`, STGI, with a GIF of its own that was not so before.
    fn virtual_gif() {
        let set = guest::arg("set").is_some();
        let mut l2 = L2::of_case(if set { stgi } else { clgi });
        l2.vmcb().set(field::INT_CTL, int_ctl::GIF_ENABLE | if set { 0 } else { int_ctl::GIF });
        l2.run().tell();
        value("v-gif", l2.vmcb().get(field::INT_CTL) >> 9 & 1);
    }

    /// L2 changes every register that it can.
    fn state() {
        let mut l2 = L2::of_case(change_all);
        l2.regs.rbx = guest::entry::page_tables() ^ 0x10;
        let efer = control::read_msr(svm::EFER_MSR);
        let l1 = [control::read_cr0(), guest::entry::page_tables(), control::read_cr4()];
        let tables = descriptor_tables();
        l2.run().tell();
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
        let rsp = vmcb.get(field::RSP);
        value("rax", l2.regs.rax);
        value("rsp", rsp);
        value("rbx", l2.regs.rbx);
        value("rdi", l2.regs.rdi);
        value("r15", l2.regs.r15);
    }

    /// CR2 and DR6 of the VMCB reach L2, and come back.
    fn cr2_and_dr6_of_l2() {
        let mut l2 = L2::of_case(cr2_and_dr6);
        l2.vmcb().set(field::CR2, 0x1234_5000);
        l2.vmcb().set(field::DR6, 0xffff_4ff1);
        l2.run().tell();
        value("cr2 in l2", l2.regs.rbx);
        value("dr6 in l2", l2.regs.rsi);
        value("cr2", l2.vmcb().get(field::CR2));
        value("dr6", l2.vmcb().get(field::DR6));
    }

    /// L2 begins at CPL 0 and exits at CPL 3.
    fn exit_from_ring_3() {
        let mut l2 = L2::of_case(goes_to_ring_3);
        l2.run().tell();
        value("cpl", l2.vmcb().get(field::CPL));
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
        let mut l2 = L2::of_case(out_then_nops);
        l2.run().tell();
        l2.go(out_then_nops);
        l2.run().tell();
    }

    /// L1 does OUT, with SVM off and then on.
    fn l1_stands_at_out() {
        guest::pio::out8(0x80, 0);
        guest::check!(svm::enable().is_ok());
        guest::pio::out8(0x80, 0);
        let mut sound = L2::new(two_nops);
        value("sound", sound.run().code);
    }
}
