//! This guest as a hypervisor with VMX: what L2 does, and whether L1 or the host sees it.
//!
//! Most scenarios take `intercept`, the exit reason whose control to turn on, and `ept`.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "moves a page of code")]
guest::payload!();

use guest::report::value;
use guest::vmx::{Exit, L2, controls, exit, field};
use guest::{arg, code, control};

code! {
    /// What one exit reason is about, each.
    invlpg: guest::label!("invlpg_here"), "invlpg [rsp]", "ret";
    rdrand: guest::label!("rdrand_here"), "rdrand rax", "ret";
    rdseed: guest::label!("rdseed_here"), "rdseed rax", "ret";
    xsetbv: "xor ecx, ecx", "xor edx, edx", "mov eax, 1", guest::label!("xsetbv_here"), "xsetbv", "ret";
    sgdt: guest::label!("sgdt_here"), "sgdt [rsp - 64]", "ret";
    sldt: guest::label!("sldt_here"), "sldt eax", "ret";
    vmclear: guest::label!("l2_vmclear_here"), "vmclear qword ptr [rsp]", "ret";
    vmlaunch: guest::label!("l2_vmlaunch_here"), "vmlaunch", "ret";
    vmptrld: "mov rbx, rsp", guest::label!("l2_vmptrld_here"), "vmptrld qword ptr [rbx + 0x18]", "ret";
    vmptrst: guest::label!("l2_vmptrst_here"), "vmptrst qword ptr [rsp]", "ret";
    vmread: guest::label!("l2_vmread_here"), "vmread rdx, rcx", "ret";
    vmresume: guest::label!("l2_vmresume_here"), "vmresume", "ret";
    vmwrite: guest::label!("l2_vmwrite_here"), "vmwrite rcx, rdx", "ret";
    vmxoff: guest::label!("l2_vmxoff_here"), "vmxoff", "ret";
    vmxon: guest::label!("l2_vmxon_here"), "vmxon qword ptr [rsp]", "ret";
    invept: guest::label!("l2_invept_here"), "invept rax, [rsp]", "ret";
    invvpid: guest::label!("l2_invvpid_here"), "invvpid rax, [rsp]", "ret";
    ud2: guest::label!("ud2_here"), "ud2";

    /// Accesses of control and debug registers.
    to_cr0: "mov rcx, cr0", "xor rcx, rbx", guest::label!("to_cr0_here"), "mov cr0, rcx", "ret";
    from_cr0: guest::label!("from_cr0_here"), "mov rax, cr0", "ret";
    clts: guest::label!("clts_here"), "clts", "ret";
    lmsw: "mov rax, cr0", "xor rax, rbx", guest::label!("lmsw_here"), "lmsw ax", "ret";
    to_cr3: "mov rbx, cr3", guest::label!("to_cr3_here"), "mov cr3, rbx", "ret";
    from_cr3: guest::label!("from_cr3_here"), "mov rdx, cr3", "ret";
    to_cr4: "mov rcx, cr4", "xor rcx, rbx", guest::label!("to_cr4_here"), "mov cr4, rcx", "ret";
    from_cr4: guest::label!("from_cr4_here"), "mov rax, cr4", "ret";
    to_cr8: "mov eax, 5", guest::label!("to_cr8_here"), "mov cr8, rax", "ret";
    from_cr8: guest::label!("from_cr8_here"), "mov r9, cr8", "ret";
    to_dr7: "mov esi, 0x400", guest::label!("to_dr7_here"), "mov dr7, rsi", "ret";
    from_dr6: guest::label!("from_dr6_here"), "mov r10, dr6", "ret";

    /// Single accesses of ports.
    out_byte: "mov eax, 0xabcdef5a", "mov edx, 0x80", guest::label!("out_here"), "out dx, al", "ret";
    out_high: "mov edx, 0xabcd", guest::label!("out_high_here"), "out dx, eax", "ret";
    out_word: "mov eax, 0x1234", "mov edx, 0x7f", guest::label!("out_word_here"), "out dx, ax", "ret";
    out_last: "mov edx, 0xffff", guest::label!("out_last_here"), "out dx, ax", "ret";
    in_byte: "mov rax, -1", guest::label!("in_here"), "in al, 0x61", "ret";
    ins_byte: "mov edx, 0x61", "lea rdi, [rsp - 64]", "mov qword ptr [rdi], 0", guest::label!("ins_here"), "insb",
        "mov rax, [rsp - 64]", "ret";
    outs_byte: "mov edx, 0x80", "mov rsi, rsp", "mov ecx, 2", guest::label!("outs_here"), "rep outsb", "ret";

    /// Single accesses of memory at RBX.
    load: guest::label!("load_here"), "mov eax, [rbx]", "ret";
    store: "mov eax, 0x12345678", guest::label!("store_here"), "mov [rbx], eax", "ret";
    jump: "jmp rbx";

    /// Runs the code at RBX, which loads from RDI; makes the page-table entry at RCX hold RDX, and runs it again with
    /// RSI for RDI, while the TLB still has the old page.
    run_twice: "mov rax, [rcx]", "mov [rcx], rax", "call rbx", "mov [rcx], rdx", "mov rdi, rsi", "call rbx", "ret";

    /// Single accesses of the MSR in ECX.
    rdmsr: guest::label!("rdmsr_here"), "rdmsr", "shl rdx, 32", "or rax, rdx", "ret";
    wrmsr: "mov eax, 0x1000", "xor edx, edx", guest::label!("wrmsr_here"), "wrmsr", "ret";
}

/// The instruction of an exit reason.
fn instruction(reason: u64) -> extern "C" fn() {
    match reason {
        exit::RDRAND => rdrand,
        exit::RDSEED => rdseed,
        exit::XSETBV => xsetbv,
        exit::GDTR_OR_IDTR => sgdt,
        exit::LDTR_OR_TR => sldt,
        exit::VMCLEAR => vmclear,
        exit::VMLAUNCH => vmlaunch,
        exit::VMPTRLD => vmptrld,
        exit::VMPTRST => vmptrst,
        exit::VMREAD => vmread,
        exit::VMRESUME => vmresume,
        exit::VMWRITE => vmwrite,
        exit::VMXOFF => vmxoff,
        exit::VMXON => vmxon,
        exit::INVEPT => invept,
        exit::INVVPID => invvpid,
        _ => ud2,
    }
}

/// An access of a control or debug register: by its number, + 16 to read it; 32: CLTS, 33: LMSW.
fn register_access(number: u64) -> extern "C" fn() {
    match number {
        0 => to_cr0,
        3 => to_cr3,
        4 => to_cr4,
        8 => to_cr8,
        16 => from_cr0,
        19 => from_cr3,
        20 => from_cr4,
        24 => from_cr8,
        32 => clts,
        33 => lmsw,
        7 => to_dr7,
        22 => from_dr6,
        _ => ud2,
    }
}

/// L2 with what the case's arguments ask for.
fn prepared(code: extern "C" fn()) -> L2 {
    let mut l2 = L2::new(code);
    if let Some(reason) = arg("intercept") {
        l2.vmcs().intercept(reason);
    }
    if let Some(port) = arg("intercept-port") {
        l2.intercept_port(port as u16, true);
    }
    if arg("ept").is_some() {
        l2.nest_pages();
    }
    l2
}

fn tell(exit: Exit) {
    value("exit", exit.reason);
    value("rip", exit.rip);
}

fn tell_with_length(exit: Exit) {
    tell(exit);
    if exit.reason != exit::VMCALL {
        value("length", exit.length);
    }
}

fn tell_with_qualification(exit: Exit) {
    tell(exit);
    if exit.reason != exit::VMCALL {
        value("qualification", exit.qualification);
        value("length", exit.length);
    }
}

/// The virtual address of guest-physical `gpa`.
fn at(gpa: u64) -> u64 {
    guest::physical::<u8>(gpa) as u64
}

/// A page of RAM that nothing else uses.
const SPARE: u64 = 0x10_0000;
/// A device that nobody backs with memory.
const DEVICE: u64 = 0xfe00_0000;
/// Read, write, execute, write-back.
const OPEN: u64 = 0x37;

guest::scenario! {
    /// Executes the instruction of the exit reason `instruction`, whether it is intercepted or not.
    fn one_instruction() {
        if arg("osxsave").is_some() {
            guest::check!(control::write_cr4(control::read_cr4() | 1 << 18).is_ok());
        }
        let mut l2 = prepared(instruction(arg("instruction").or(arg("intercept")).unwrap_or(0)));
        tell_with_length(l2.run());
    }

    /// Executes the instruction of the exit reason `intercept`, lets it pass and goes on.
    fn intercept_and_go_on() {
        let intercept = arg("intercept").unwrap_or(0);
        let mut l2 = prepared(instruction(intercept));
        if intercept == exit::RDTSCP {
            l2.vmcs().control(controls::ENABLE_RDTSCP, true);
        }
        let exit = l2.run();
        tell_with_length(exit);
        l2.vmcs().pass(intercept);
        tell(l2.run());
    }

    /// INVLPG, whose address the qualification holds.
    fn invlpg_address() {
        let mut l2 = prepared(invlpg);
        let exit = l2.run();
        tell(exit);
        let rsp = l2.vmcs().get(field::RSP);
        guest::check_eq!(exit.qualification, rsp);
    }

    /// A VMX instruction with an operand in memory.
    fn memory_operand() {
        let mut l2 = prepared(vmptrld);
        let exit = l2.run();
        tell(exit);
        value("displacement", exit.qualification);
        value("information", exit.instruction);
    }

    /// VMREAD and VMWRITE of registers.
    fn register_operands() {
        for code in [vmread, vmwrite] {
            let exit = prepared(code).run();
            tell(exit);
            value("information", exit.instruction);
        }
    }

    /// An access of a control register. `mask`, `shadow-flip`: the guest/host masks of CR0 and CR4, and which bits of the
    /// read shadows differ from the registers; `bits`: what L2 flips. `load`, `store`: CR3 or CR8 exiting.
    fn register() {
        let access = arg("register").unwrap_or(0);
        let mut l2 = prepared(register_access(access));
        let (cr0, cr4) = (control::read_cr0(), control::read_cr4());
        let flip = arg("shadow-flip").unwrap_or(0);
        let (register, mask, shadow, real) = if access & 15 == 4 {
            (field::CR4, field::CR4_MASK, field::CR4_SHADOW, cr4)
        } else {
            (field::CR0, field::CR0_MASK, field::CR0_SHADOW, cr0)
        };
        l2.vmcs().set(mask, arg("mask").unwrap_or(0));
        l2.vmcs().set(shadow, real ^ flip);
        for (name, control) in [
            ("cr3-load", controls::CR3_LOAD_EXITING),
            ("cr3-store", controls::CR3_STORE_EXITING),
            ("cr8-load", controls::CR8_LOAD_EXITING),
            ("cr8-store", controls::CR8_STORE_EXITING),
        ] {
            l2.vmcs().control(control, arg(name).is_some());
        }
        if arg("set-ts").is_some() {
            l2.vmcs().set(field::CR0, cr0 | 8);
        }
        l2.regs.rbx = arg("bits").unwrap_or(0);
        tell_with_qualification(l2.run());
        value("changed", l2.vmcs().get(register) ^ real);
        value("seen", l2.regs.rax ^ real);
    }

    /// An access of a port: `access` 0 OUT of a byte to 0x80, 1 of a word to 0x7f, 2 of a dword to 0xabcd, 3 of a word to
    /// 0xffff, 4 REP OUTSB to 0x80, 5 IN from 0x61, 6 INSB from 0x61.
    fn port() {
        let code = match arg("access") {
            Some(1) => out_word,
            Some(2) => out_high,
            Some(3) => out_last,
            Some(4) => outs_byte,
            Some(5) => in_byte,
            Some(6) => ins_byte,
            _ => out_byte,
        };
        let mut l2 = prepared(code);
        let exit = l2.run();
        tell_with_qualification(exit);
        if arg("access") == Some(4) && exit.reason == exit::IO {
            guest::check_eq!(exit.linear, l2.regs.rsi);
        }
        value("rax", l2.regs.rax);
    }

    /// Loads from (or, with `write`, stores to) a page whose EPT entry is `entry` more than its address; then L1 repairs
    /// the entry, and L2 goes on.
    fn ept_fault() {
        let mut l2 = prepared(if arg("write").is_some() { store } else { load });
        l2.nest_pages();
        let linear = at(SPARE + 0x123);
        l2.regs.rbx = linear;
        l2.change_nested(SPARE, |_| SPARE | arg("entry").unwrap_or(0));
        let exit = l2.run();
        tell(exit);
        if exit.reason != exit::VMCALL {
            value("physical", exit.physical);
        }
        if exit.reason == exit::EPT_VIOLATION {
            value("qualification", exit.qualification);
            guest::check_eq!(exit.linear, linear);
        }
        l2.change_nested(SPARE, |_| SPARE | OPEN);
        tell(l2.run());
    }

    /// Leads a page elsewhere and back, each time with an INVEPT of type `kind`.
    fn ept_remapped() {
        let probe = PROBE.0.get() as u64;
        let mut l2 = prepared(load);
        l2.nest_pages();
        for (frame, number) in [(probe, 0x1111), (SPARE, 0x2222)] {
            // SAFETY: spare RAM, and a page that is there for this.
            unsafe { guest::mmio::write32(at(frame), number) };
        }
        l2.regs.rbx = probe;
        for frame in [probe, SPARE, probe, SPARE] {
            l2.change_nested_by(arg("kind").unwrap_or(2), probe, |_| frame | 0x37);
            l2.go(load);
            l2.run();
            value("read", l2.regs.rax);
        }
    }

    /// Executes, and reads, a page whose EPT entry allows execution only.
    fn ept_execute_only() {
        let mut l2 = prepared(jump);
        l2.nest_pages();
        // SAFETY: spare RAM: VMCALL.
        unsafe { guest::mmio::write32(at(SPARE), 0x00c1_010f) };
        l2.regs.rbx = SPARE;
        // SAFETY: the spare page becomes executable, which it was not; no Rust value is in it.
        let mapped = unsafe { guest::paging::redirect(PROBE.0.get() as u64, SPARE) };
        guest::check!(mapped.is_some());
        // SAFETY: as above.
        let opened = unsafe { guest::paging::change(PROBE.0.get() as u64, |flags| flags - guest::paging::Flags::NO_EXECUTE) };
        guest::check!(opened.is_some());
        l2.regs.rbx = PROBE.0.get() as u64;
        l2.change_nested(SPARE, |_| SPARE | 0x34);
        value("exit", l2.run().reason);
        l2.go(load);
        let exit = l2.run();
        tell(exit);
        value("qualification", exit.qualification);
    }

    /// Makes KVM emulate a load from a device, whose bytes in memory are OUT to port 0x80 by then: the TLB has another page.
    fn emulated_out() {
        let mut l2 = prepared(run_twice);
        l2.intercept_port(0x80, true);
        let probe = PROBE.0.get() as u64;
        for (frame, bytes) in [(SPARE, 0x00c3_078b_u32), (SPARE + 0x1000, 0x00c3_80e6)] {
            // SAFETY: spare RAM: `mov eax, [rdi]; ret`, and `out 0x80, al; ret`.
            unsafe { guest::mmio::write32(at(frame), bytes) };
        }
        // SAFETY: no Rust value is in that page.
        let done = unsafe {
            guest::paging::change(probe, |flags| flags - guest::paging::Flags::NO_EXECUTE)
                .and_then(|()| guest::paging::redirect(probe, SPARE))
        };
        guest::check!(done.is_some());
        // SAFETY: the entry of the page, which stays mapped.
        let entry = unsafe { guest::paging::entry(probe) }.unwrap_or_default();
        // SAFETY: the loader's tables are mapped with the rest of physical memory.
        let old = unsafe { guest::mmio::read64(entry) };
        l2.regs.rbx = probe;
        l2.regs.rcx = entry;
        l2.regs.rdx = old + 0x1000;
        l2.regs.rdi = at(SPARE);
        l2.regs.rsi = at(DEVICE);
        value("exit", l2.run().reason);
    }

    /// Loads from, then stores to, a page whose EPT entry records that.
    fn ept_accessed_and_dirty() {
        let mut l2 = prepared(load);
        l2.nest_pages();
        let pointer = l2.vmcs().get(field::EPT_POINTER);
        l2.vmcs().set(field::EPT_POINTER, pointer | 1 << 6);
        for (name, code) in [("after a load", load as extern "C" fn()), ("after a store", store)] {
            l2.go(code);
            l2.regs.rbx = at(SPARE + 0x40);
            value("exit", l2.run().reason);
            value(name, l2.change_nested(SPARE, |entry| entry) >> 8 & 3);
        }
    }

    /// Loads from an address whose translation L1's tables change, with VPID `vpid`; INVVPID of type `kind` between.
    fn vpid() {
        let mut l2 = prepared(load);
        l2.vmcs().control(controls::ENABLE_VPID, true);
        l2.vmcs().set(field::VPID, 1);
        let page = PROBE.0.get() as u64;
        for (frame, number) in [(SPARE, 0x1111), (SPARE + 0x1000, 0x2222)] {
            // SAFETY: spare RAM, and a page that holds no Rust value.
            let mapped = unsafe {
                guest::mmio::write32(at(frame), number);
                guest::paging::redirect(page, frame)
            };
            guest::check!(mapped.is_some());
            guest::check!(guest::vmx::invvpid(arg("kind").unwrap_or(1), 1, page).is_ok());
            l2.go(load);
            l2.regs.rbx = page;
            value("exit", l2.run().reason);
            value("rax", l2.regs.rax);
        }
    }

    /// Reads the MSR `msr`, then writes it; `read` and `write` say which of it L1 intercepts; `no-bitmaps`: all.
    fn msr() {
        let msr = arg("msr").unwrap_or(0) as u32;
        let mut l2 = prepared(rdmsr);
        l2.intercept_msr(msr, arg("read").is_some(), arg("write").is_some());
        l2.vmcs().control(controls::MSR_BITMAPS, arg("no-bitmaps").is_none());
        for code in [rdmsr, wrmsr] {
            l2.go(code);
            l2.regs.rcx = u64::from(msr) | 0xdead << 32;
            tell_with_length(l2.run());
        }
        value("lstar", control::read_msr(0xc000_0082).unwrap_or(0));
    }

}

/// A page whose mapping scenarios change.
#[repr(C, align(4096))]
struct Probe(core::cell::UnsafeCell<[u8; 4096]>);

// SAFETY: only its address is used.
unsafe impl Sync for Probe {}

static PROBE: Probe = Probe(core::cell::UnsafeCell::new([0; 4096]));
