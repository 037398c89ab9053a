//! SVM: this guest as a hypervisor (L1), and a guest of its own (L2).
//!
//! L2 is a function that runs in L1's address space, with the same tables and a stack of its own, from VMRUN
//! to an intercept. What L1 does not intercept ends at the host, as if L1 had done it.
//! ```ignore
//! let mut l2 = svm::L2::new(halts);
//! l2.vmcb().intercept(exit::HLT);
//! value("exit", l2.run().code);
//! ```
//! It knows the APM, not what KVM makes of it. For the boot processor only.
#![expect(unsafe_code, reason = "VMRUN and its neighbours")]

mod pages;
mod vmcb;

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use crate::page::{PAGE, Page, Pages};
use crate::registers::Registers;
use crate::tables::{GDT_POINTER, IDT_POINTER, KERNEL_CS, KERNEL_DS};
use crate::{Fault, arg, control, entry, fault, report};
use pages::{IOPM, MSRPM};
pub use vmcb::{Field, Vmcb, event, exit, field, int_ctl};

/// EFER.
pub const EFER_MSR: u32 = 0xc000_0080;
/// EFER.SVME: SVM is on.
pub const SVME: u64 = 1 << 12;
/// VM_HSAVE_PA: where VMRUN keeps the host's state.
pub const HSAVE_MSR: u32 = 0xc001_0117;

/// For the host: `at svm_vmcb`.
#[unsafe(export_name = "svm_vmcb")]
static VMCB: Page = Page::new();
static HSAVE: Page = Page::new();
/// What VMSAVE keeps of L1.
static HOST: Page = Page::new();
static STACK: Pages<{ 4 * PAGE }> = Pages::new();

/// A #VMEXIT, from the VMCB. Which of the fields mean something depends on the code (APM vol. 2, appendix C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// EXITCODE: see [`exit`].
    pub code: u64,
    /// EXITINFO1.
    pub info1: u64,
    /// EXITINFO2.
    pub info2: u64,
    /// EXITINTINFO: the event whose delivery the exit interrupted; see [`event`].
    pub int_info: u64,
    /// nRIP; 0 on a CPU without it.
    pub next_rip: u64,
    /// L2's RIP.
    pub rip: u64,
}

impl Exit {
    /// Reports the values `exit` and `rip`.
    pub fn tell(&self) {
        report::value("exit", self.code);
        report::value("rip", self.rip);
    }
}

/// Turns SVM on: EFER.SVME, and a host save area. The fault of a CPU that has none comes back.
pub fn enable() -> Result<(), Fault> {
    control::write_msr(EFER_MSR, control::read_msr(EFER_MSR)? | SVME)?;
    control::write_msr(HSAVE_MSR, HSAVE.address())
}

/// Turns SVM off.
pub fn disable() -> Result<(), Fault> {
    control::write_msr(EFER_MSR, control::read_msr(EFER_MSR)? & !SVME)
}

/// L2, ready to run. There is one: making another starts over with the same pages.
#[derive(Debug)]
pub struct L2 {
    vmcb: Vmcb,
    /// L2's general registers, in and out; RAX goes by the VMCB.
    pub regs: Registers,
    /// L1's IF while L2 runs: what admits interrupts with virtual interrupt masking.
    pub host_interrupts: bool,
    /// Whether VMRUN finds GIF set, which it need not: events that wait come between STGI and VMRUN then.
    pub open: bool,
    /// Where a fault in L2 returns to: its own [`catch`](crate::catch), not L1's.
    catching: u64,
}

impl L2 {
    /// Turns SVM on and prepares `code` to run with L1's control registers and segments, interrupts off and
    /// nothing intercepted but VMRUN, as the APM demands, and VMMCALL: which is where L2 ends when `code`
    /// returns. Panics without SVM.
    pub fn new(code: extern "C" fn()) -> Self {
        assert!(
            enable().is_ok(),
            "this CPU refuses EFER.SVME or VM_HSAVE_PA: the case must require cpuid svm"
        );
        VMCB.clear();
        IOPM.clear();
        MSRPM.clear();
        let mut l2 = Self {
            vmcb: Vmcb::new(&VMCB),
            regs: Registers::default(),
            host_interrupts: false,
            open: false,
            catching: 0,
        };
        let vmcb = &mut l2.vmcb;
        vmcb.intercept(exit::VMRUN);
        vmcb.intercept(exit::VMMCALL);
        vmcb.set(field::IOPM_BASE_PA, IOPM.address());
        vmcb.set(field::MSRPM_BASE_PA, MSRPM.address());
        vmcb.set(field::ASID, 1);
        vmcb.set(field::TLB_CONTROL, 1); // an L2 before this one had the same ASID
        save_segments(vmcb.address());
        flat_segments(vmcb);
        vmcb.set(field::CR0, control::read_cr0());
        vmcb.set(field::CR3, entry::page_tables());
        vmcb.set(field::CR4, control::read_cr4());
        vmcb.set(field::EFER, control::read_msr(EFER_MSR).unwrap_or(0));
        vmcb.set(field::DR6, 0xffff_0ff0); // at reset (APM vol. 2, table 14-1), as is DR7
        vmcb.set(field::DR7, 0x400);
        vmcb.set(field::G_PAT, 0x0007_0406_0007_0406); // at reset (APM vol. 2, 7.8.2)
        l2.go(code);
        l2
    }

    /// As [`new`](L2::new), with what the case's arguments ask for: the intercepts whose exit codes are `intercept` and
    /// `intercept-too`, that of the port `intercept-port`, and `nested-paging`.
    pub fn of_case(code: extern "C" fn()) -> Self {
        let mut l2 = Self::new(code);
        for code in ["intercept", "intercept-too"].into_iter().filter_map(arg) {
            l2.vmcb.intercept(code);
        }
        if let Some(port) = arg("intercept-port") {
            l2.intercept_port(port as u16, true);
        }
        if arg("nested-paging").is_some() {
            l2.nest_pages();
        }
        l2
    }

    /// Makes L2 go on at `code`, on an empty stack, with interrupts off.
    pub fn go(&mut self, code: extern "C" fn()) {
        let return_address = STACK.address() + (4 * PAGE - 16) as u64;
        // SAFETY: L2 does not run, and nobody else uses its stack; the address is aligned and inside.
        unsafe { (return_address as *mut u64).write_volatile(returned as *const () as u64) };
        self.catching = 0;
        self.vmcb.set(field::RIP, code as *const () as u64);
        self.vmcb.set(field::RSP, return_address);
        self.vmcb.set(field::RFLAGS, 2); // bit 1 is always 1
    }

    /// The VMCB.
    pub fn vmcb(&mut self) -> &mut Vmcb {
        &mut self.vmcb
    }

    /// Intercepts a port, or lets it pass.
    pub fn intercept_port(&mut self, port: u16, on: bool) {
        self.vmcb.intercept(exit::IOIO);
        pages::set_port(port, on);
    }

    /// Intercepts reads and writes of an MSR, or lets them pass.
    pub fn intercept_msr(&mut self, msr: u32, read: bool, write: bool) {
        self.vmcb.intercept(exit::MSR);
        pages::set_msr(msr, read, write);
    }

    /// Turns nested paging on, with everything below 4 GiB where it is.
    pub fn nest_pages(&mut self) {
        let root = pages::build_nested();
        self.vmcb.set(field::NP_ENABLE, 1);
        self.vmcb.set(field::N_CR3, root);
    }

    /// Changes the nested page-table entry of the page at `gpa`: of 4 KiB below 4 MiB, of 2 MiB above. The next
    /// [`run`](L2::run) starts with an empty TLB.
    pub fn change_nested(&mut self, gpa: u64, with: impl FnOnce(u64) -> u64) {
        pages::change_nested(gpa, with);
        self.vmcb.set(field::TLB_CONTROL, 1);
    }

    /// Runs L2 until #VMEXIT, between CLGI and STGI.
    pub fn run(&mut self) -> Exit {
        let exit = self.run_and_stay_closed();
        stgi();
        exit
    }

    /// As [`run`](L2::run), but GIF is left as #VMEXIT leaves it.
    pub fn run_and_stay_closed(&mut self) -> Exit {
        let catching = fault::swap_catching(self.catching);
        self.vmcb.set(field::RAX, self.regs.rax);
        // SAFETY: the pages exist; L2 does what its code does, which the scenario answers for.
        unsafe {
            enter(&raw mut self.regs, self.vmcb.address(), HOST.address(), self.host_interrupts, self.open);
        }
        self.catching = fault::swap_catching(catching);
        self.regs.rax = self.vmcb.get(field::RAX);
        self.vmcb.set(field::TLB_CONTROL, 0);
        Exit {
            code: self.vmcb.get(field::EXITCODE),
            info1: self.vmcb.get(field::EXITINFO1),
            info2: self.vmcb.get(field::EXITINFO2),
            int_info: self.vmcb.get(field::EXITINTINFO),
            next_rip: self.vmcb.get(field::NRIP),
            rip: self.vmcb.get(field::RIP),
        }
    }

    /// Moves L2 behind an instruction of `bytes` bytes that exited before it was done.
    pub fn skip(&mut self, bytes: u64) {
        self.vmcb.set(field::RIP, self.vmcb.get(field::RIP) + bytes);
    }
}

/// L1's segments, which are flat, and its descriptor tables.
fn flat_segments(vmcb: &mut Vmcb) {
    // Descriptor bits 55:52 and 47:40 of the runtime's GDT: 64-bit code, and data.
    for (segment, selector, attributes) in [
        (field::CS, KERNEL_CS, 0xa9b),
        (field::SS, KERNEL_DS, 0xc93),
        (field::DS, KERNEL_DS, 0xc93),
        (field::ES, KERNEL_DS, 0xc93),
    ] {
        vmcb.set(field::selector(segment), selector.into());
        vmcb.set(field::attributes(segment), attributes);
        vmcb.set(field::limit(segment), 0xffff_ffff);
    }
    for (table, pointer) in [(field::GDTR, &GDT_POINTER), (field::IDTR, &IDT_POINTER)] {
        vmcb.set(field::limit(table), pointer.limit.into());
        vmcb.set(field::base(table), pointer.base);
    }
}

/// VMSAVE of L1's state into the VMCB at `address`: FS, GS, TR, LDTR and the MSRs of system calls.
fn save_segments(address: u64) {
    // SAFETY: `address` is that of a page of this module; VMSAVE changes nothing else.
    unsafe { asm!("vmsave rax", in("rax") address, options(nostack, preserves_flags)) };
}

/// STGI: interrupts, NMIs and the like arrive again.
pub fn stgi() {
    // SAFETY: what arrives has a handler, or is reported.
    unsafe { asm!("stgi", options(nostack, preserves_flags)) };
}

/// CLGI: interrupts, NMIs and the like wait.
pub fn clgi() {
    // SAFETY: as if nothing arrived.
    unsafe { asm!("clgi", options(nostack, preserves_flags)) };
}

/// Calls a function of assembly with RAX = `rax`: where SVM's instructions take the address of a VMCB.
pub fn call_with_rax(code: extern "C" fn(), rax: u64) {
    // SAFETY: `code` keeps the C calling convention.
    unsafe { asm!("call {}", in(reg) code, inout("rax") rax => _, clobber_abi("C")) };
}

/// Where L2's function returns to.
#[unsafe(naked)]
pub(crate) extern "C" fn returned() {
    naked_asm!(crate::label!("l2_returned"), "2:", "vmmcall", "jmp 2b")
}

/// One round trip: registers of L2 loaded, VMRUN, registers stored. GIF is clear afterwards.
#[unsafe(naked)]
unsafe extern "C" fn enter(registers: *mut Registers, vmcb: u64, host: u64, interrupts: bool, open: bool) {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "pushfq",
        "push rdx",
        "push rdi",
        "clgi",
        "mov rax, rdx",
        "vmsave rax",
        "mov rax, rsi",
        "vmload rax",
        "test cl, cl",
        "jz 2f",
        "sti",
        "2:",
        "test r8b, r8b",
        "jz 3f",
        "stgi",
        "3:",
        "mov rbx, [rdi + {rbx}]",
        "mov rcx, [rdi + {rcx}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rsi, [rdi + {rsi}]",
        "mov rbp, [rdi + {rbp}]",
        "mov r8, [rdi + {r8}]",
        "mov r9, [rdi + {r9}]",
        "mov r10, [rdi + {r10}]",
        "mov r11, [rdi + {r11}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "mov rdi, [rdi + {rdi}]",
        crate::label!("vmrun_here"),
        "vmrun rax",
        crate::label!("vmexit_here"),
        // RSP and RAX are L1's again; GIF is clear, so IF does not matter yet.
        "push rdi",
        "mov rdi, [rsp + 8]",
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rcx}], rcx",
        "mov [rdi + {rdx}], rdx",
        "mov [rdi + {rsi}], rsi",
        "pop qword ptr [rdi + {rdi}]",
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r8}], r8",
        "mov [rdi + {r9}], r9",
        "mov [rdi + {r10}], r10",
        "mov [rdi + {r11}], r11",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "vmsave rax",
        "pop rdi",
        "pop rax",
        "vmload rax",
        "popfq",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
        rbx = const offset_of!(Registers, rbx),
        rcx = const offset_of!(Registers, rcx),
        rdx = const offset_of!(Registers, rdx),
        rsi = const offset_of!(Registers, rsi),
        rdi = const offset_of!(Registers, rdi),
        rbp = const offset_of!(Registers, rbp),
        r8 = const offset_of!(Registers, r8),
        r9 = const offset_of!(Registers, r9),
        r10 = const offset_of!(Registers, r10),
        r11 = const offset_of!(Registers, r11),
        r12 = const offset_of!(Registers, r12),
        r13 = const offset_of!(Registers, r13),
        r14 = const offset_of!(Registers, r14),
        r15 = const offset_of!(Registers, r15),
    )
}
