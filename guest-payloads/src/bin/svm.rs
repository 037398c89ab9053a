//! This guest as a hypervisor: what L2 does, and whether L1 or the host sees it.
//!
//! Most scenarios take `intercept`, the exit code of one intercept to turn on, and `nested-paging`.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "reads spare RAM")]
guest::payload!();

use core::arch::x86_64::__cpuid;

use guest::report::value;
use guest::svm::{self, Exit, L2, exit, field};
use guest::{arg, catch, code, control};

code! {
    /// What one intercept is about, each.
    hlt: guest::label!("hlt_here"), "hlt", "ret";
    invlpga: "xor ecx, ecx", "mov rax, rsp", guest::label!("invlpga_here"), "invlpga rax, ecx", "ret";
    pushf: guest::label!("pushf_here"), "pushfq", "pop rax", "ret";
    vmrun: guest::label!("l2_vmrun_here"), "vmrun rax", "ret";
    vmload: guest::label!("vmload_here"), "vmload rax", "ret";
    vmsave: guest::label!("vmsave_here"), "vmsave rax", "ret";
    stgi: guest::label!("stgi_here"), "stgi", "ret";
    clgi: guest::label!("clgi_here"), "clgi", "ret";
    write_cr4: "mov rax, cr4", guest::label!("write_cr4_here"), "mov cr4, rax", "ret";
    int_n: guest::label!("int_here"), "int 0x41", "ret";
    ud2: guest::label!("ud2_here"), "ud2";
    popf: "push 2", guest::label!("popf_here"), "popfq", "ret";
    lgdt: "sgdt [rsp - 16]", guest::label!("lgdt_here"), "lgdt [rsp - 16]", "ret";
    read_cr0: guest::label!("read_cr0_here"), "mov rax, cr0", "ret";
    iret: "mov rax, rsp", "push 0x10", "push rax", "pushfq", "push 8", "lea rax, [rip + behind_iret]", "push rax",
        guest::label!("iret_here"), "iretq", guest::label!("behind_iret"), "ret";

    /// Flips CR0.TS, then CR0.WP.
    write_cr0_twice: "mov rax, cr0", "xor rax, 8", guest::label!("write_ts_here"), "mov cr0, rax", "xor rax, 0x10000",
        guest::label!("write_cr0_here"), "mov cr0, rax", "ret";

    /// Single accesses of ports.
    out_byte: "mov eax, 0xabcdef5a", "mov edx, 0x80", guest::label!("out_here"), "out dx, al",
        guest::label!("behind_out"), "nop", "ret";
    outs_byte: "mov edx, 0x80", "mov rsi, rsp", guest::label!("outs_here"), "outsb", "ret";

    /// Single accesses of memory at RBX.
    load: guest::label!("load_here"), "mov eax, [rbx]", "ret";
    store: "mov eax, 0x12345678", guest::label!("store_here"), "mov [rbx], eax", "ret";
}

/// SVM's instructions at CPL 3; the #UD behind them says that they did nothing.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_vmrun() {
    core::arch::naked_asm!("mov eax, 0x100000", guest::label!("user_vmrun_here"), "vmrun rax", "ud2")
}

#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_vmload() {
    core::arch::naked_asm!("mov eax, 0x100000", guest::label!("user_vmload_here"), "vmload rax", "ud2")
}

#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn user_stgi() {
    core::arch::naked_asm!(guest::label!("user_stgi_here"), "stgi", "ud2")
}

/// The instruction of an intercept.
fn instruction(code: u64) -> extern "C" fn() {
    match code {
        exit::HLT => hlt,
        exit::INVLPGA => invlpga,
        exit::PUSHF => pushf,
        exit::VMRUN => vmrun,
        exit::VMLOAD => vmload,
        exit::VMSAVE => vmsave,
        exit::STGI => stgi,
        exit::CLGI => clgi,
        exit::WRITE_CR4 => write_cr4,
        exit::SOFTWARE_INTERRUPT => int_n,
        exit::IRET => iret,
        exit::POPF => popf,
        exit::GDTR_WRITE => lgdt,
        exit::READ_CR0 => read_cr0,
        _ => ud2,
    }
}

fn tell_with_info(exit: Exit) {
    exit.tell();
    value("info1", exit.info1);
    value("info2", exit.info2);
}

/// The virtual address of guest-physical `gpa`.
fn at(gpa: u64) -> u64 {
    guest::physical::<u8>(gpa) as u64
}

/// A page of RAM that nothing else uses.
const SPARE: u64 = 0x10_0000;

guest::scenario! {
    /// Executes the instruction of the intercept `instruction`, whether it is intercepted or not.
    fn one_instruction() {
        let mut l2 = L2::of_case(instruction(arg("instruction").or(arg("intercept")).unwrap_or(0)));
        l2.run().tell();
    }

    /// Executes the instruction of the intercept `intercept`, lets it pass and goes on.
    fn intercept_and_go_on() {
        let intercept = arg("intercept").unwrap_or(0);
        let mut l2 = L2::of_case(instruction(intercept));
        l2.regs.rbx = guest::entry::page_tables(); // for the write of CR3
        l2.run().tell();
        l2.vmcb().pass(intercept);
        l2.run().tell();
    }

    /// Flips CR0.TS and CR0.WP.
    fn cr0() {
        L2::of_case(write_cr0_twice).run().tell();
    }

    /// OUT of a byte to port 0x80.
    fn out_to_port() {
        tell_with_info(L2::of_case(out_byte).run());
    }

    /// OUTSB to port 0x80.
    fn outs_to_port() {
        tell_with_info(L2::of_case(outs_byte).run());
    }

    /// Loads from (or, with `write`, stores to) a page whose nested entry has the flags `flags`; then L1 repairs the
    /// entry, and L2 goes on.
    fn nested_fault() {
        let mut l2 = L2::of_case(if arg("write").is_some() { store } else { load });
        l2.nest_pages();
        l2.regs.rbx = at(SPARE + 0x123);
        l2.change_nested(SPARE, |_| SPARE | arg("flags").unwrap_or(0));
        tell_with_info(l2.run());
        l2.change_nested(SPARE, |_| SPARE | 7);
        l2.run().tell();
    }

    /// VMRUN with one field of the VMCB changed, then without: arguments by field names hold the bits to flip.
    fn illegal() {
        let fields = [
            ("cr0", field::CR0),
            ("cr3", field::CR3),
            ("cr4", field::CR4),
            ("efer", field::EFER),
            ("dr6", field::DR6),
            ("dr7", field::DR7),
            ("cs-attributes", field::attributes(field::CS)),
            ("asid", field::ASID),
            ("iopm", field::IOPM_BASE_PA),
            ("msrpm", field::MSRPM_BASE_PA),
            ("nested-cr3", field::N_CR3),
            ("eventinj", field::EVENTINJ),
        ];
        let mut l2 = L2::of_case(hlt);
        l2.vmcb().intercept(exit::HLT);
        if arg("no-vmrun").is_some() {
            l2.vmcb().pass(exit::VMRUN);
        }
        for (name, field) in fields {
            if let Some(bits) = arg(name) {
                let value = l2.vmcb().get(field);
                l2.vmcb().set(field, value ^ bits);
            }
        }
        l2.run().tell();
        let mut sound = L2::new(hlt);
        sound.vmcb().intercept(exit::HLT);
        value("sound", sound.run().code);
    }

    /// VMRUN with a permission map whose first page is the last of the physical address space: the I/O map, or the MSR
    /// map if `msr`. Then without.
    fn map_across_the_end() {
        let mut l2 = L2::of_case(hlt);
        l2.vmcb().intercept(exit::HLT);
        let last_page = (1 << (__cpuid(0x8000_0008).eax & 0xff)) - 0x1000;
        let map = if arg("msr").is_some() { field::MSRPM_BASE_PA } else { field::IOPM_BASE_PA };
        l2.vmcb().set(map, last_page);
        l2.run().tell();
        let mut sound = L2::new(hlt);
        sound.vmcb().intercept(exit::HLT);
        value("sound", sound.run().code);
    }

    /// Executes an SVM instruction in L1, with SVM turned off if `off`, and RAX = `rax`.
    fn in_l1() {
        guest::check!(svm::enable().is_ok());
        // What VMLOAD would load, should it not fault, is what is there already.
        svm::call_with_rax(vmsave, SPARE);
        if arg("off").is_some() {
            guest::check!(svm::disable().is_ok());
        }
        let code = instruction(arg("instruction").unwrap_or(0));
        let fault = catch(|| svm::call_with_rax(code, arg("rax").unwrap_or(SPARE)));
        match fault {
            Ok(()) => value("no fault", 0),
            Err(fault) => {
                value("vector", fault.vector);
                value("error", fault.error);
                value("rip", fault.rip);
            }
        }
    }

    /// Executes an SVM instruction at CPL 3.
    fn in_ring3() {
        guest::check!(svm::enable().is_ok());
        let fault = guest::ring3::run(match arg("instruction") {
            Some(exit::VMRUN) => user_vmrun,
            Some(exit::STGI) => user_stgi,
            _ => user_vmload,
        });
        match fault {
            None => value("no fault", 0),
            Some(fault) => {
                value("vector", fault.vector);
                value("error", fault.error);
                value("rip", fault.rip);
            }
        }
    }

    /// Executes an SVM instruction with RAX = `rax` in L2.
    fn in_l2_with_rax() {
        let mut l2 = L2::of_case(instruction(arg("instruction").unwrap_or(0)));
        l2.regs.rax = arg("rax").unwrap_or(SPARE);
        guest::check!(control::write_msr(0xc000_0082, 0x1111).is_ok());
        l2.vmcb().set(field::LSTAR, 0x2222);
        svm::call_with_rax(vmsave, SPARE);
        // SAFETY: spare RAM, in which VMSAVE keeps LSTAR at 0x608.
        unsafe { guest::mmio::write64(at(SPARE + 0x608), 0x3333) };
        l2.run().tell();
        // SAFETY: as above.
        value("saved lstar", unsafe { guest::mmio::read64(at(SPARE + 0x608)) });
        value("lstar in l2", l2.vmcb().get(field::LSTAR));
        value("lstar in l1", control::read_msr(0xc000_0082).unwrap_or(0));
    }

}
