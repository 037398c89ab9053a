//! This guest as a hypervisor, on AMD and Intel alike: what L2 executes, and whether L1 or the host sees it.
//!
//! Most scenarios take `intercept-port` and `nested-paging`.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "reads spare RAM")]
guest::payload!();

use guest::nested::{self, Exit, Intercept, L2, State};
use guest::report::value;
use guest::{arg, code, control};

code! {
    /// What one intercept is about, each.
    hlt_code: guest::label!("hlt_here"), "hlt", "ret";
    cpuid_code: guest::emulable!("cpuid_here"), "cpuid", "ret";
    rdtsc_code: guest::emulable!("rdtsc_here"), "rdtsc", "shl rdx, 32", "or rax, rdx", "ret";
    rdtscp_code: guest::emulable!("rdtscp_here"), "rdtscp", "ret";
    rdpmc_code: "xor ecx, ecx", guest::label!("rdpmc_here"), "rdpmc", "ret";
    invlpg_code: guest::emulable!("invlpg_here"), "invlpg [rsp]", "ret";
    pause_code: guest::emulable!("pause_here"), "pause", "ret";
    wbinvd_code: guest::emulable!("wbinvd_here"), "wbinvd", "ret";
    invd_code: guest::emulable!("invd_here"), "invd", "ret";
    read_cr3_code: guest::emulable!("read_cr3_here"), "mov rdx, cr3", "ret";
    write_cr3_code: "mov rbx, cr3", guest::emulable!("write_cr3_here"), "mov cr3, rbx", "ret";
    read_cr8_code: guest::emulable!("read_cr8_here"), "mov r9, cr8", "ret";
    write_cr8_code: "mov eax, 5", guest::emulable!("write_cr8_here"), "mov cr8, rax", "ret";
    read_dr_code: guest::emulable!("read_dr_here"), "mov r10, dr6", "ret";
    write_dr_code: "mov esi, 0x400", guest::emulable!("write_dr_here"), "mov dr7, rsi", "ret";
    sidt_code: guest::emulable!("sidt_here"), "sidt [rsp - 64]", "ret";
    lldt_code: "xor eax, eax", guest::emulable!("lldt_here"), "lldt ax", "ret";
    str_code: guest::emulable!("str_here"), "str eax", "ret";

    /// Single accesses of ports.
    out_byte: "mov eax, 0xabcdef5a", "mov edx, 0x80", guest::label!("out_here"), "out dx, al",
        guest::label!("behind_out"), "nop", "ret";
    out_word: "mov eax, 0x1234", "mov edx, 0x7f", guest::emulable!("out_word_here"), "out dx, ax", "ret";
    out_high: "mov edx, 0xabcd", guest::emulable!("out_high_here"), "out dx, eax", "ret";
    out_last: "mov edx, 0xffff", guest::emulable!("out_last_here"), "out dx, ax", "ret";
    outs_byte: "mov edx, 0x80", "mov rsi, rsp", "mov ecx, 2", guest::emulable!("outs_here"), "rep outsb", "ret";
    in_byte: "mov rax, -1", guest::emulable!("in_here"), "in al, 0x61", "ret";
    ins_byte: "mov edx, 0x61", "lea rdi, [rsp - 64]", "mov qword ptr [rdi], 0", guest::emulable!("ins_here"), "insb",
        "mov rax, [rsp - 64]", "ret";

    /// Single accesses of memory at RBX.
    load: guest::emulable!("load_here"), "mov eax, [rbx]", "ret";
    store: "mov eax, 0x12345678", guest::emulable!("store_here"), "mov [rbx], eax", "ret";
    jump: "jmp rbx";

    /// Single accesses of the MSR in ECX.
    rdmsr: guest::emulable!("rdmsr_here"), "rdmsr", "shl rdx, 32", "or rax, rdx", "ret";
    wrmsr: "mov eax, 0x1000", "xor edx, edx", guest::emulable!("wrmsr_here"), "wrmsr", "ret";

    /// Reset by port, with what a second life finds.
    reset: "mov eax, 6", "mov edx, 0xcf9", guest::label!("reset_here"), "out dx, al", "ret",
        guest::label!("second_life"), "mov eax, 1", "cpuid", guest::label!("second_hlt"), "hlt";
}

/// A scenario for each instruction that has an intercept: with `passes`, L1 does not turn it on; with `go-on`, it turns it
/// off after the exit, and L2 executes the instruction.
macro_rules! instructions {
    ($($name:ident: $code:ident, $intercept:expr;)+) => {
        guest::scenario! {
            $(fn $name() {
                one_instruction($code, $intercept);
            })+
        }
    };
}

instructions! {
    hlt: hlt_code, Intercept::Hlt;
    cpuid: cpuid_code, Intercept::Cpuid;
    rdtsc: rdtsc_code, Intercept::Rdtsc;
    rdtscp: rdtscp_code, Intercept::Rdtscp;
    rdpmc: rdpmc_code, Intercept::Rdpmc;
    invlpg: invlpg_code, Intercept::Invlpg;
    pause: pause_code, Intercept::Pause;
    wbinvd: wbinvd_code, Intercept::Wbinvd;
    invd: invd_code, Intercept::Invd;
    read_cr3: read_cr3_code, Intercept::ReadCr3;
    write_cr3: write_cr3_code, Intercept::WriteCr3;
    read_cr8: read_cr8_code, Intercept::ReadCr8;
    write_cr8: write_cr8_code, Intercept::WriteCr8;
    read_dr: read_dr_code, Intercept::Dr;
    write_dr: write_dr_code, Intercept::Dr;
    sidt: sidt_code, Intercept::DescriptorTable;
    lldt: lldt_code, Intercept::DescriptorTable;
    str: str_code, Intercept::DescriptorTable;
}

fn one_instruction(code: extern "C" fn(), intercept: Intercept) {
    let mut l2 = L2::of_case(code);
    if let Some(vmx) = l2.vmx() {
        let rdtscp = guest::vmx::controls::ENABLE_RDTSCP;
        if intercept == Intercept::Rdtscp {
            vmx.vmcs().control(rdtscp, true); // else it is #UD
        }
    }
    if arg("passes").is_none() {
        l2.intercept(intercept);
    }
    l2.run().tell();
    if arg("go-on").is_some() {
        l2.pass(intercept);
        l2.run().tell();
    }
}

fn tell_with_detail(exit: Exit) {
    exit.tell();
    value("detail", exit.detail);
}

/// Runs `code`; tells the exit and L2's RAX.
fn run_for_rax(code: extern "C" fn()) {
    let mut l2 = L2::of_case(code);
    l2.run().tell();
    value("rax", l2.regs().rax);
}

/// The virtual address of guest-physical `gpa`.
fn at(gpa: u64) -> u64 {
    guest::physical::<u8>(gpa) as u64
}

/// A page of RAM that nothing else uses.
const SPARE: u64 = 0x10_0000;
/// A device that nobody backs with memory.
const DEVICE: u64 = 0xfe00_0000;
/// IA32_LSTAR.
const LSTAR: u32 = 0xc000_0082;

guest::scenario! {
    /// CPUID, which L1 answers.
    fn cpuid_answered() {
        let mut l2 = L2::of_case(cpuid_code);
        l2.intercept(Intercept::Cpuid);
        l2.run().tell();
        l2.regs().rax = 0x1234;
        l2.regs().rbx = 0x5678;
        l2.skip(2);
        l2.run().tell();
        value("rax", l2.regs().rax);
        value("rbx", l2.regs().rbx);
    }

    /// Reads the TSC in L2, whose offset is far in the future.
    fn tsc_offset() {
        const FAR: u64 = 1 << 50;
        let mut l2 = L2::of_case(rdtsc_code);
        for (name, offset) in [("in l2", FAR), ("without", 0)] {
            l2.offset_tsc(offset);
            l2.go(rdtsc_code);
            l2.run().tell();
            value(name, (l2.regs().rax >= FAR).into());
        }
    }

    /// An access of a port that exits: told with the CPU's detail.
    fn out_to_port() {
        tell_with_detail(L2::of_case(out_byte).run());
    }

    fn out_to_two_ports() {
        tell_with_detail(L2::of_case(out_word).run());
    }

    fn out_to_high_port() {
        tell_with_detail(L2::of_case(out_high).run());
    }

    fn out_to_last_port() {
        tell_with_detail(L2::of_case(out_last).run());
    }

    fn outs_to_port() {
        tell_with_detail(L2::of_case(outs_byte).run());
    }

    /// An access of a port that passes.
    fn out_passes() {
        L2::of_case(out_byte).run().tell();
    }

    fn outs_passes() {
        L2::of_case(outs_byte).run().tell();
    }

    /// IN from port 0x61.
    fn in_from_port() {
        run_for_rax(in_byte);
    }

    /// INSB from port 0x61, with permission maps in force but empty.
    fn ins_from_port() {
        let mut l2 = L2::of_case(ins_byte);
        l2.intercept_port(0x61, false);
        l2.run().tell();
        value("rax", l2.regs().rax);
    }

    /// IN that exits, is made good by L1, and goes on.
    fn in_emulated() {
        let mut l2 = L2::of_case(in_byte);
        tell_with_detail(l2.run());
        l2.regs().rax = 0x77;
        l2.skip(2);
        l2.run().tell();
        value("rax", l2.regs().rax);
    }

    /// Asks for a reset by port 0xcf9.
    fn reset_by_port() {
        let mut l2 = L2::of_case(reset);
        l2.intercept(Intercept::Hlt);
        l2.run().tell();
    }

    /// Reads a device's memory.
    fn load_from_device() {
        let mut l2 = L2::of_case(load);
        l2.regs().rbx = at(DEVICE);
        l2.run().tell();
        value("rax", l2.regs().rax);
    }

    /// Writes a device's memory.
    fn store_to_device() {
        let mut l2 = L2::of_case(store);
        l2.regs().rbx = at(DEVICE);
        l2.run().tell();
    }

    /// Loads from (or, with `write`, stores to) a page whose rights are `rights`; then L1 opens it, and L2 goes on.
    fn nested_fault() {
        let mut l2 = L2::of_case(if arg("write").is_some() { store } else { load });
        l2.nest_pages();
        l2.regs().rbx = at(SPARE + 0x123);
        l2.map_nested(SPARE, SPARE, arg("rights").unwrap_or(0));
        let exit = l2.run();
        exit.tell();
        if exit.reason == nested::Reason::NestedFault {
            value("address", exit.address);
            value("detail", exit.detail);
        }
        l2.map_nested(SPARE, SPARE, nested::OPEN);
        l2.run().tell();
    }

    /// Jumps to a page that may not be executed.
    fn nested_no_execute() {
        let mut l2 = L2::of_case(jump);
        l2.nest_pages();
        let target = hlt_code as *const () as u64;
        l2.regs().rbx = target;
        l2.map_nested(target & !0xfff, target & !0xfff, nested::READ | nested::WRITE);
        let exit = l2.run();
        exit.tell();
        value("detail", exit.detail);
        guest::check_eq!(exit.address & !0xfff, target & !0xfff);
    }

    /// Runs with its root page table absent in the second-level tables.
    fn nested_table_absent() {
        let mut l2 = L2::of_case(hlt_code);
        l2.nest_pages();
        let root = guest::entry::page_tables();
        l2.map_nested(root, root, 0);
        let exit = l2.run();
        exit.tell();
        value("detail", exit.detail);
        guest::check_eq!(exit.address & !0xfff, root);
    }

    /// Loads from a page that the second-level tables lead to another: `to`.
    fn nested_elsewhere() {
        let mut l2 = L2::of_case(load);
        l2.nest_pages();
        l2.regs().rbx = at(SPARE + 0x40);
        l2.map_nested(SPARE, arg("to").unwrap_or(0), nested::OPEN);
        l2.run().tell();
        value("rax", l2.regs().rax);
    }

    /// Loads what L1 has stored right before, again and again, by turns from two pages that L1 puts in one place; `rounds`
    /// times.
    fn nested_churn() {
        let mut l2 = L2::of_case(load);
        l2.nest_pages();
        for round in 0..arg("rounds").unwrap_or(2) {
            let page = SPARE + (round & 1) * 0x1000;
            // SAFETY: spare RAM.
            unsafe { guest::mmio::write32(at(page), round as u32) };
            l2.map_nested(SPARE, page, nested::OPEN);
            l2.go(load);
            l2.regs().rbx = at(SPARE);
            guest::check!(l2.run().reason == nested::Reason::Returned, "L2 returned");
            guest::check_eq!(l2.regs().rax, round);
        }
    }

    /// Reads the MSR `msr`, then writes it; `read` and `write` say which of it L1 intercepts.
    fn msr() {
        let msr = arg("msr").unwrap_or(0) as u32;
        let mut l2 = L2::of_case(rdmsr);
        l2.intercept_msr(msr, arg("read").is_some(), arg("write").is_some());
        guest::check!(control::write_msr(LSTAR, 0).is_ok());
        for code in [rdmsr, wrmsr] {
            l2.go(code);
            l2.regs().rcx = msr.into();
            l2.run().tell();
        }
        // VMRUN changes LSTAR, and the code around it changes it back; a VM exit leaves it as it is.
        let in_l1 = control::read_msr(LSTAR).unwrap_or(0);
        let written = l2.svm().map_or(in_l1, |l2| l2.vmcb().get(guest::svm::field::LSTAR));
        value("written", written);
    }

    /// L2 with one register that cannot be (bits to flip), then without.
    fn refused() {
        let mut l2 = L2::of_case(hlt_code);
        l2.intercept(Intercept::Hlt);
        for (name, state) in [("cr0", State::Cr0), ("cr3", State::Cr3), ("cr4", State::Cr4), ("dr7", State::Dr7)] {
            if let Some(bits) = arg(name) {
                let old = l2.get(state);
                l2.set(state, old ^ bits);
            }
        }
        if arg("cs-l-and-d").is_some() {
            if let Some(svm) = l2.svm() {
                svm.vmcb().set(guest::svm::field::attributes(guest::svm::field::CS), 0xe9b);
            }
            if let Some(vmx) = l2.vmx() {
                vmx.vmcs().set(guest::vmx::field::rights(guest::vmx::field::CS), 0xe09b);
            }
        }
        let exit = l2.run();
        exit.tell();
        value("code", exit.code);
        let mut sound = L2::of_case(hlt_code);
        sound.intercept(Intercept::Hlt);
        sound.run().tell();
    }
}
