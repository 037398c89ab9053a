//! This guest as a hypervisor with VMX: VMX instructions in L1, VM entries that fail, and the state that goes back and
//! forth.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "spare RAM, and registers")]
guest::payload!();

use core::arch::{asm, naked_asm};

use guest::report::value;
use guest::vmx::{self, Exit, Fail, Field, L2, controls, exit, field};
use guest::{Fault, arg, catch, code, control, mmio, pio, ring3};

code! {
    /// For L2.
    nothing: guest::label!("nothing_here"), "nop", "ret";
    out_then_nops: guest::label!("out_here"), "out 0x80, al", guest::label!("behind_out"), "nop", "nop", "ret";
    rdmsr: "rdmsr", "shl rdx, 32", "or rax, rdx", "ret";

    /// In L1, for their faults.
    vmcall: guest::label!("l1_vmcall_here"), "vmcall", "ret";
    vmlaunch: guest::label!("l1_vmlaunch_here"), "vmlaunch", "ret";
    vmresume: "vmresume", "ret";

    /// Error number of a VMLAUNCH in the shadow of MOV to SS.
    launch_in_shadow: "mov eax, ss", "mov ss, eax", "vmlaunch", "mov ecx, 0x4400", "vmread rax, rcx", "ret";

    /// Changes whatever it can, and leaves by VMCALL: its stack is not sound any more.
    change_all: "mov rax, cr0", "xor rax, 0x10000", "mov cr0, rax", "mov rax, cr4", "xor rax, 8", "mov cr4, rax",
        "mov rax, cr3", "xor rax, 0x10", "mov cr3, rax",
        "mov eax, 0x2a0", "mov dr7, rax", "xor eax, eax", "mov ds, eax", "mov es, eax",
        "mov ecx, 0x175", "mov eax, 0x2222", "xor edx, edx", "wrmsr",
        "push 0", "push 0x7ff", "lidt [rsp]", "lgdt [rsp]",
        "push 0xad7", "popfq",
        "mov rax, 0x1111", "mov rbx, 0x2222", "mov rcx, 0x3333", "mov rdx, 0x4444", "mov rsi, 0x5555",
        "mov rdi, 0x6666", "mov rbp, 0x7777", "mov rsp, 0x8888", "mov r8, 0x9999", "mov r15, 0xffff",
        guest::label!("all_changed"), "vmcall";
}

/// VMX instructions for ring 3.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn vmptrst_in_ring_3() {
    naked_asm!("sub rsp, 8", guest::label!("ring_3_here"), "vmptrst qword ptr [rsp]", "ud2")
}

/// As above.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn vmlaunch_in_ring_3() {
    naked_asm!("vmlaunch", "ud2")
}

/// A page of RAM that nothing else uses.
const SPARE: u64 = 0x10_0000;
const LSTAR: u32 = 0xc000_0082;

/// Tells how a VMX instruction ended: the vector of its fault, or its error number, 0 for none.
fn tell_outcome(outcome: Result<Result<(), Fail>, Fault>) {
    match outcome {
        Ok(Ok(())) => value("error", 0),
        Ok(Err(fail)) => value("error", fail.number()),
        Err(fault) => {
            value("fault", fault.vector);
            value("error code", fault.error);
        }
    }
}

fn tell_entry(entry: Result<Exit, Fail>) {
    match entry {
        Ok(exit) => {
            value("exit", exit.reason);
            if exit.reason & exit::FAILED_ENTRY != 0 {
                value("qualification", exit.qualification);
            }
        }
        Err(fail) => value("error", fail.number()),
    }
}

/// Writes 64 bits of spare RAM.
fn write(gpa: u64, number: u64) {
    // SAFETY: spare RAM.
    unsafe { mmio::write64(guest::physical::<u8>(gpa) as u64, number) };
}

/// OUT to port 0x80, where the host does its part.
fn host_acts() {
    pio::out8(0x80, 0);
}

/// Forces VMLAUNCH or VMRESUME; there is no VMfail without `Err`.
fn enter(l2: &mut L2, resume: bool) -> Result<(), Fail> {
    l2.launched = resume;
    l2.try_run().map(|_| ())
}

/// Instruction `instruction` of [`in_l1`], in VMX operation or not, with or without a current VMCS.
fn execute(instruction: u64, address: u64) -> Result<(), Fail> {
    let field = Field(arg("field").unwrap_or(0) as u32);
    match instruction {
        0 => vmx::vmclear(address),
        1 => vmx::vmptrld(address),
        2 => {
            vmlaunch();
            Ok(())
        }
        3 => {
            vmresume();
            Ok(())
        }
        4 => vmx::vmread(field).map(|_| ()),
        5 => vmx::vmwrite(field, 0),
        6 => {
            vmx::vmptrst();
            Ok(())
        }
        7 => vmx::vmxoff(),
        8 => {
            vmcall();
            Ok(())
        }
        9 => vmx::invept(arg("kind").unwrap_or(0), 0),
        10 => vmx::invvpid(arg("kind").unwrap_or(0), arg("vpid").unwrap_or(1), address),
        _ => vmx::vmxon(address),
    }
}

/// GDTR's and IDTR's limits.
fn table_limits() -> [u64; 2] {
    let mut tables = [[0_u8; 10]; 2];
    // SAFETY: each instruction writes ten bytes.
    unsafe {
        asm!("sgdt [{}]", "sidt [{}]", in(reg) &raw mut tables[0], in(reg) &raw mut tables[1], options(nostack));
    };
    tables.map(|table| u16::from_le_bytes([table[0], table[1]]).into())
}

guest::scenario! {
    /// VMXON: `vmxe-off`, with `offset` bytes added to the region's address and `revision` bits of the revision flipped; or
    /// after the host's part, with `host`.
    fn vmxon() {
        let region = vmx::prepare().unwrap_or(0);
        if arg("vmxe-off").is_some() {
            guest::check!(control::write_cr4(control::read_cr4() & !vmx::VMXE).is_ok());
        }
        write(region, vmx::revision() ^ arg("revision").unwrap_or(0));
        if arg("host").is_some() {
            host_acts();
        }
        tell_outcome(catch(|| vmx::vmxon(region + arg("offset").unwrap_or(0))));
    }

    /// The instruction `instruction` in L1: with CR4.VMXE clear (`state` 0), without VMXON (1), without a current VMCS (2)
    /// or with one (3). Its address is `address`, or that of the VMXON region with `own-region`, or spare RAM with
    /// `revision` bits of the revision flipped.
    fn in_l1() {
        let region = vmx::prepare().unwrap_or(0);
        let state = arg("state").unwrap_or(3);
        if state == 0 {
            guest::check!(vmx::disable().is_ok());
        }
        if state >= 2 {
            let l2 = L2::new(nothing).vmcs().address();
            if state == 2 {
                guest::check!(vmx::vmclear(l2).is_ok());
            }
        }
        write(SPARE, vmx::revision() ^ arg("revision").unwrap_or(0));
        let address = if arg("own-region").is_some() { region } else { arg("address").unwrap_or(SPARE) };
        let instruction = arg("instruction").unwrap_or(0);
        tell_outcome(catch(|| execute(instruction, address)));
    }

    /// VMWRITE of a read-only field: IA32_VMX_MISC says whether that is an error.
    fn read_only_field() {
        let mut l2 = L2::new(nothing);
        let may = control::read_msr(vmx::MISC_MSR).unwrap_or(0) >> 29 & 1 != 0;
        let error = vmx::vmwrite(field::QUALIFICATION, 0x55).map_or_else(Fail::number, |()| 0);
        guest::check_eq!(error, if may { 0 } else { 13 });
        if may {
            value("kept", l2.vmcs().get(field::QUALIFICATION) ^ 0x55);
        } else {
            value("kept", 0);
        }
    }

    /// VMX instructions at CPL 3 in VMX operation.
    fn in_ring_3() {
        let _l2 = L2::new(nothing);
        for code in [vmptrst_in_ring_3 as extern "C" fn(), vmlaunch_in_ring_3] {
            let fault = ring3::run(code).unwrap_or_default();
            value("fault", fault.vector);
            value("error code", fault.error);
        }
    }

    /// Clears a bit of CR0 or CR4 that VMX operation needs, in it and after it.
    fn fixed_bits() {
        guest::check!(vmx::enable().is_ok());
        value("vmxe", control::write_cr4(control::read_cr4() & !vmx::VMXE).map_or_else(|fault| fault.vector, |()| 0));
        value("ne", control::write_cr0(control::read_cr0() & !(1 << 5)).map_or_else(|fault| fault.vector, |()| 0));
        guest::check!(vmx::disable().is_ok());
        value("after", control::read_cr4() >> 13 & 1);
        value("ne after", control::write_cr0(control::read_cr0() & !(1 << 5)).map_or_else(|fault| fault.vector, |()| 0));
    }

    /// WRMSR of a capability MSR, `msr`.
    fn capability_msr() {
        let msr = arg("msr").unwrap_or(0) as u32;
        let old = control::read_msr(msr);
        guest::check!(old.is_ok());
        value("fault", control::write_msr(msr, 0).map_or_else(|fault| fault.vector, |()| 0));
        guest::check!(control::read_msr(msr) == old);
    }

    /// VMLAUNCH and VMRESUME against the launch state.
    fn launch_state() {
        let mut l2 = L2::new(nothing);
        value("resume of clear", enter(&mut l2, true).map_or_else(Fail::number, |()| 0));
        value("launch of clear", enter(&mut l2, false).map_or_else(Fail::number, |()| 0));
        l2.go(nothing);
        value("launch of launched", enter(&mut l2, false).map_or_else(Fail::number, |()| 0));
        value("resume of launched", enter(&mut l2, true).map_or_else(Fail::number, |()| 0));
        l2.go(nothing);
        l2.make_current();
        value("resume after vmclear", enter(&mut l2, true).map_or_else(Fail::number, |()| 0));
        value("launch after vmclear", enter(&mut l2, false).map_or_else(Fail::number, |()| 0));
    }

    /// VM entry without a current VMCS, and VMPTRST.
    fn no_current_vmcs() {
        let mut l2 = L2::new(nothing);
        guest::check_eq!(vmx::vmptrst(), l2.vmcs().address());
        guest::check!(vmx::vmclear(l2.vmcs().address()).is_ok());
        value("vmptrst", vmx::vmptrst());
        value("vmlaunch", enter(&mut l2, false).map_or_else(Fail::number, |()| 0));
    }

    /// Two VMCSs, one current after the other.
    fn two_vmcss() {
        let mut l2 = L2::new(nothing);
        l2.vmcs().set(field::RSP, 0x1111);
        write(SPARE, vmx::revision());
        guest::check!(vmx::vmclear(SPARE).is_ok());
        guest::check!(vmx::vmptrld(SPARE).is_ok());
        l2.vmcs().set(field::RSP, 0x2222);
        guest::check!(vmx::vmptrld(l2.vmcs().address()).is_ok());
        value("first", l2.vmcs().get(field::RSP));
        guest::check!(vmx::vmptrld(SPARE).is_ok());
        value("second", l2.vmcs().get(field::RSP));
    }

    /// VMLAUNCH in the shadow of MOV to SS.
    fn entry_in_shadow() {
        let _l2 = L2::new(nothing);
        let error: u64;
        // SAFETY: the VM entry fails, and the function keeps the C calling convention.
        unsafe { asm!("call {}", in(reg) launch_in_shadow, out("rax") error, clobber_abi("C")) };
        value("error", error);
    }

    /// VM entry with bits of fields flipped, and again with all as it was: `field` and `flip`, to `field-3` and `flip-3`;
    /// and a VMCS link pointer, `link`.
    fn refused() {
        let mut l2 = L2::new(nothing);
        let pairs = [("field", "flip"), ("field-2", "flip-2"), ("field-3", "flip-3")];
        let flip = |l2: &mut L2| {
            for (field, bits) in pairs {
                if let (Some(field), Some(bits)) = (arg(field), arg(bits)) {
                    let field = Field(field as u32);
                    let old = l2.vmcs().get(field);
                    l2.vmcs().set(field, old ^ bits);
                }
            }
        };
        flip(&mut l2);
        l2.vmcs().set(field::LINK_POINTER, arg("link").unwrap_or(u64::MAX));
        let entry = l2.try_run();
        tell_entry(entry);
        flip(&mut l2);
        l2.vmcs().set(field::LINK_POINTER, u64::MAX);
        tell_entry(l2.try_run());
    }

    /// One CR3-target value more than IA32_VMX_MISC allows, and as many as it does.
    fn cr3_targets() {
        const COUNT: Field = Field(0x400a);
        let most = control::read_msr(vmx::MISC_MSR).unwrap_or(0) >> 16 & 0x1ff;
        let mut l2 = L2::new(nothing);
        l2.vmcs().set(COUNT, most + 1);
        tell_entry(l2.try_run());
        l2.vmcs().set(COUNT, most);
        tell_entry(l2.try_run());
    }

    /// MSRs that a VM entry loads and a VM exit stores and loads.
    fn msr_lists() {
        let mut l2 = L2::new(rdmsr);
        guest::check!(control::write_msr(LSTAR, 0x1111).is_ok());
        l2.load_at_entry(&[(0x175, 0x5555), (LSTAR, 0x2222)]);
        l2.store_at_exit(&[(LSTAR, 0)]);
        l2.load_at_exit(&[(LSTAR, 0x3333)]);
        l2.regs.rcx = LSTAR.into();
        value("exit", l2.run().reason);
        value("in l2", l2.regs.rax);
        value("stored", l2.stored(0));
        value("in l1", control::read_msr(LSTAR).unwrap_or(0));
    }

    /// An MSR that cannot be loaded, `msr` with `value`, behind one that can; at the exit with `at-exit`.
    fn bad_msr_list() {
        let mut l2 = L2::new(nothing);
        guest::check!(control::write_msr(LSTAR, 0x1111).is_ok());
        let list = [(LSTAR, 0x2222), (arg("msr").unwrap_or(0) as u32, arg("value").unwrap_or(0))];
        if arg("at-exit").is_some() {
            l2.load_at_exit(&list);
        } else {
            l2.load_at_entry(&list);
        }
        tell_entry(l2.try_run());
        l2.load_at_entry(&[]);
        l2.load_at_exit(&[]);
        tell_entry(l2.try_run());
    }

    /// L2 changes every register that it can; of what KVM reads back only if it is asked, `field` is the first.
    fn changed_field() {
        let mut l2 = L2::new(change_all);
        l2.run();
        value("field", l2.vmcs().get(Field(arg("field").unwrap_or(0) as u32)));
    }

    /// L2 changes every register that it can.
    fn state() {
        let mut l2 = L2::new(change_all);
        let l1 = [control::read_cr0(), control::read_cr3(), control::read_cr4()];
        l2.vmcs().set(field::HOST_SYSENTER_ESP, 0x1111);
        l2.vmcs().set(field::HOST_GS_BASE, 0x3333);
        guest::check!(control::write_dr7(0x701).is_ok());
        let exit = l2.run();
        value("exit", exit.reason);
        value("rip", exit.rip);
        guest::check_eq!(control::read_cr0(), l1[0]);
        guest::check_eq!(control::read_cr3(), l1[1]);
        guest::check_eq!(control::read_cr4(), l1[2]);
        value("dr7 of l1", control::read_dr7());
        value("sysenter esp of l1", control::read_msr(0x175).unwrap_or(0));
        value("gs base of l1", control::read_msr(0xc000_0101).unwrap_or(0));
        let [gdt, idt] = table_limits();
        value("gdt limit of l1", gdt);
        value("idt limit of l1", idt);
        let vmcs = l2.vmcs();
        value("cr0 changed", vmcs.get(field::CR0) ^ l1[0]);
        value("cr3 changed", vmcs.get(field::CR3) ^ l1[1]);
        value("cr4 changed", vmcs.get(field::CR4) ^ l1[2]);
        value("dr7", vmcs.get(field::DR7));
        value("sysenter esp", vmcs.get(field::SYSENTER_ESP));
        value("ds", vmcs.get(field::selector(field::DS)));
        value("ds unusable", vmcs.get(field::rights(field::DS)) >> 16);
        value("idt limit", vmcs.get(field::limit(field::IDTR)));
        value("gdt limit", vmcs.get(field::limit(field::GDTR)));
        value("rflags", vmcs.get(field::RFLAGS));
        value("rsp", vmcs.get(field::RSP));
        value("rax", l2.regs.rax);
        value("rbx", l2.regs.rbx);
        value("rdi", l2.regs.rdi);
        value("r15", l2.regs.r15);
    }

    /// A VM exit to another place, with other selectors, than L1 was at.
    fn host_selectors() {
        let mut l2 = L2::new(nothing);
        l2.vmcs().set(field::host_selector(field::DS), 0);
        l2.vmcs().set(field::host_selector(field::ES), 0x18);
        value("exit", l2.run().reason);
        let (ds, es): (u64, u64);
        // SAFETY: copies selectors; 64-bit code does not use these segments otherwise.
        unsafe { asm!("mov {:r}, ds", "mov {:r}, es", out(reg) ds, out(reg) es, options(nomem, nostack)) };
        value("ds", ds & 0xffff);
        value("es", es & 0xffff);
    }

    /// PAT that entries and exits load and save.
    fn pat() {
        let mut l2 = L2::new(rdmsr);
        guest::check!(vmx::offers(controls::LOAD_PAT) && vmx::offers(controls::SAVE_PAT));
        for control in [controls::LOAD_PAT, controls::SAVE_PAT, controls::LOAD_HOST_PAT] {
            l2.vmcs().control(control, true);
        }
        l2.vmcs().set(field::PAT, 0x0606_0606_0606_0606);
        l2.vmcs().set(field::HOST_PAT, 0x0007_0406_0007_0406);
        l2.regs.rcx = 0x277;
        value("exit", l2.run().reason);
        value("in l2", l2.regs.rax);
        value("saved", l2.vmcs().get(field::PAT));
        value("in l1", control::read_msr(0x277).unwrap_or(0));
    }

    /// L2 does OUT, twice.
    fn l2_stands_at_out() {
        let mut l2 = L2::new(out_then_nops);
        let exit = l2.run();
        value("exit", exit.reason);
        value("vectoring", exit.vectoring);
        let mut again = L2::new(out_then_nops);
        value("exit", again.run().reason);
    }

    /// L1 does OUT: without VMX, in VMX operation, and with a VMCS that is not run yet.
    fn l1_stands_at_out() {
        host_acts();
        guest::check!(vmx::enable().is_ok());
        host_acts();
        let mut l2 = L2::new(nothing);
        host_acts();
        value("exit", l2.run().reason);
    }
}
