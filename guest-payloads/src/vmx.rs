//! VMX: this guest as a hypervisor (L1), and a guest of its own (L2).
//!
//! L2 is a function that runs in L1's address space, with the same tables and a stack of its own, from VM entry
//! to VM exit. What L1 does not make exit ends at the host, as if L1 had done it.
//! ```ignore
//! let mut l2 = vmx::L2::new(halts);
//! l2.vmcs().intercept(exit::HLT);
//! value("exit", l2.run().reason);
//! ```
//! It knows the SDM, not what KVM makes of it. For the boot processor only.
#![expect(unsafe_code, reason = "VM entries, and descriptor tables")]

mod instructions;
mod pages;
mod vmcs;

use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::page::{PAGE, Page, Pages};
use crate::tables::{GDT_POINTER, IDT_POINTER, KERNEL_CS, KERNEL_DS};
use crate::{Fault, control, fault};
pub use instructions::{Fail, vmclear, vmptrld, vmptrst, vmread, vmwrite, vmxoff, vmxon};
pub use pages::{invept, invvpid};
pub use vmcs::{BASIC_MSR, EPT_VPID_MSR, Field, MISC_MSR, Vmcs, controls, event, exit, field, offers};

/// CR4.VMXE: VMX instructions exist.
pub const VMXE: u64 = 1 << 13;
/// IA32_FEATURE_CONTROL: bit 0 locks it, bit 2 admits VMXON.
pub const FEATURE_CONTROL_MSR: u32 = 0x3a;

/// For the host: `at vmx_vmcs`.
#[unsafe(export_name = "vmx_vmcs")]
static VMCS: Page = Page::new();
/// For the host: `at vmx_region`.
#[unsafe(export_name = "vmx_region")]
static REGION: Page = Page::new();
static STACK: Pages<{ 4 * PAGE }> = Pages::new();
static ON: AtomicBool = AtomicBool::new(false);

/// L2's general registers but RSP, which the VMCS holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "register names")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// A VM exit, from the VMCS. Which of the fields mean something depends on the reason (SDM vol. 3C, "Recording VM-Exit
/// Information and Updating VM-entry Control Fields").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit reason: see [`exit`]. Bit 31: the VM entry failed.
    pub reason: u64,
    /// Exit qualification.
    pub qualification: u64,
    /// VM-exit interruption information: see [`event`].
    pub event: u64,
    /// VM-exit interruption error code.
    pub error: u64,
    /// IDT-vectoring information: the event whose delivery the exit interrupted.
    pub vectoring: u64,
    /// IDT-vectoring error code.
    pub vectoring_error: u64,
    /// VM-exit instruction length.
    pub length: u64,
    /// VM-exit instruction information.
    pub instruction: u64,
    /// Guest-linear address.
    pub linear: u64,
    /// Guest-physical address; 0 on a CPU without EPT.
    pub physical: u64,
    /// L2's RIP.
    pub rip: u64,
}

/// Turns VMX operation on: IA32_FEATURE_CONTROL if it is not locked, CR0 and CR4 as it wants them, VMXON. The fault of
/// a CPU that has none comes back. Panics if VMXON fails otherwise. Once it is on, nothing happens.
pub fn enable() -> Result<(), Fault> {
    if ON.load(Ordering::Relaxed) {
        return Ok(());
    }
    let region = prepare()?;
    fault::catch(|| {
        if let Err(fail) = vmxon(region) {
            panic!("VMXON fails with error {}", fail.number());
        }
    })?;
    ON.store(true, Ordering::Relaxed);
    Ok(())
}

/// All but VMXON itself: the address of a region for it.
pub fn prepare() -> Result<u64, Fault> {
    let feature_control = control::read_msr(FEATURE_CONTROL_MSR)?;
    if feature_control & 1 == 0 {
        control::write_msr(FEATURE_CONTROL_MSR, feature_control | 0b101)?;
    }
    // Bits that are 1 in the first MSR must be 1, those that are 0 in the second must be 0 (SDM vol. 3D, A.7, A.8).
    let fixed = |value, first| (value | vmcs::msr(first)) & vmcs::msr(first + 1);
    control::write_cr0(fixed(control::read_cr0(), 0x486))?;
    control::write_cr4(fixed(control::read_cr4() | VMXE, 0x488))?;
    REGION.set_word(0, revision());
    Ok(REGION.address())
}

/// The VMCS revision identifier.
pub fn revision() -> u64 {
    vmcs::msr(BASIC_MSR) & 0x7fff_ffff
}

/// Turns VMX operation off, and CR4.VMXE.
pub fn disable() -> Result<(), Fault> {
    if ON.swap(false, Ordering::Relaxed) {
        fault::catch(|| vmxoff().ok())?;
    }
    control::write_cr4(control::read_cr4() & !VMXE)
}

/// L2, ready to run. There is one: making another starts over with the same pages.
#[derive(Debug)]
pub struct L2 {
    vmcs: Vmcs,
    /// L2's general registers, in and out.
    pub regs: Registers,
    /// Whether the VMCS's launch state is "launched": VMRESUME comes next, not VMLAUNCH.
    pub launched: bool,
    /// Where a fault in L2 returns to: its own [`catch`](crate::catch), not L1's.
    catching: u64,
}

impl L2 {
    /// Turns VMX on and prepares `code` to run with L1's control registers and segments, interrupts off, and no exits but
    /// those that always come: VMCALL is where L2 ends when `code` returns. Panics without VMX.
    pub fn new(code: extern "C" fn()) -> Self {
        assert!(enable().is_ok(), "this CPU refuses CR4.VMXE or VMXON: the case must require cpuid vmx");
        for page in [&VMCS, &pages::MSR_BITMAPS, &pages::VIRTUAL_APIC] {
            page.clear();
        }
        pages::IO_BITMAPS.clear();
        VMCS.set_word(0, revision());
        let mut l2 =
            Self { vmcs: Vmcs::new(&VMCS), regs: Registers::default(), launched: false, catching: 0 };
        l2.make_current();
        let vmcs = &mut l2.vmcs;
        set_controls(vmcs);
        set_host_state(vmcs);
        set_guest_state(vmcs);
        l2.go(code);
        l2
    }

    /// VMCLEAR and VMPTRLD: the VMCS is current, and its launch state clear.
    pub fn make_current(&mut self) {
        let address = self.vmcs.address();
        if let Err(fail) = vmclear(address).and_then(|()| vmptrld(address)) {
            panic!("VMCLEAR or VMPTRLD fails with error {}", fail.number());
        }
        self.launched = false;
    }

    /// Makes L2 go on at `code`, on an empty stack, with interrupts off.
    pub fn go(&mut self, code: extern "C" fn()) {
        let return_address = STACK.address() + (4 * PAGE - 16) as u64;
        // SAFETY: L2 does not run, and nobody else uses its stack; the address is aligned and inside.
        unsafe { (return_address as *mut u64).write_volatile(returned as *const () as u64) };
        self.catching = 0;
        self.vmcs.set(field::RIP, code as *const () as u64);
        self.vmcs.set(field::RSP, return_address);
        self.vmcs.set(field::RFLAGS, 2); // bit 1 is always 1
    }

    /// The VMCS.
    pub fn vmcs(&mut self) -> &mut Vmcs {
        &mut self.vmcs
    }

    /// Makes accesses of a port exit, or lets them pass; all others pass.
    pub fn intercept_port(&mut self, port: u16, on: bool) {
        self.vmcs.control(controls::IO_BITMAPS, true);
        pages::set_port(port, on);
    }

    /// Makes reads and writes of an MSR exit, or lets them pass.
    pub fn intercept_msr(&mut self, msr: u32, read: bool, write: bool) {
        pages::set_msr(msr, read, write);
    }

    /// Turns EPT on, with everything below 4 GiB where it is.
    pub fn nest_pages(&mut self) {
        self.vmcs.set(field::EPT_POINTER, pages::build_nested());
        self.vmcs.control(controls::EPT, true);
    }

    /// Changes the EPT entry of the page at `gpa`: of 4 KiB below 4 MiB, of 2 MiB above; INVEPT follows. The new entry
    /// comes back.
    pub fn change_nested(&mut self, gpa: u64, with: impl FnOnce(u64) -> u64) -> u64 {
        let entry = pages::change_nested(gpa, with);
        assert!(invept(2, 0).is_ok(), "INVEPT of all contexts");
        entry
    }

    /// Turns the TPR shadow on: CR8 is the virtual-APIC page's TPR. A CR8 below `threshold` exits.
    pub fn shadow_tpr(&mut self, threshold: u64) {
        self.vmcs.set(field::VIRTUAL_APIC, pages::VIRTUAL_APIC.address());
        self.vmcs.set(field::TPR_THRESHOLD, threshold);
        self.vmcs.control(controls::TPR_SHADOW, true);
    }

    /// The virtual-APIC page's TPR.
    pub fn virtual_tpr(&self) -> u64 {
        pages::VIRTUAL_APIC.word(0x80 / 8) & 0xff
    }

    /// Writes the virtual-APIC page's TPR.
    pub fn set_virtual_tpr(&mut self, tpr: u64) {
        pages::VIRTUAL_APIC.set_word(0x80 / 8, tpr);
    }

    /// Makes accesses of a page exit as accesses of the APIC; its guest-physical address.
    pub fn virtualize_apic_accesses(&mut self) -> u64 {
        let address = pages::APIC_ACCESS.address();
        self.vmcs.set(field::APIC_ACCESS, address);
        self.vmcs.control(controls::APIC_ACCESSES, true);
        address
    }

    /// Makes VM entries load these MSRs.
    pub fn load_at_entry(&mut self, msrs: &[(u32, u64)]) {
        self.fill_list(0, msrs, field::ENTRY_LOAD_LIST, field::ENTRY_LOAD_COUNT);
    }

    /// Makes VM exits store these MSRs; [`stored`](L2::stored) reads them.
    pub fn store_at_exit(&mut self, msrs: &[(u32, u64)]) {
        self.fill_list(1, msrs, field::EXIT_STORE_LIST, field::EXIT_STORE_COUNT);
    }

    /// Makes VM exits load these MSRs.
    pub fn load_at_exit(&mut self, msrs: &[(u32, u64)]) {
        self.fill_list(2, msrs, field::EXIT_LOAD_LIST, field::EXIT_LOAD_COUNT);
    }

    /// What the last VM exit stored in an entry of the list of [`store_at_exit`](L2::store_at_exit).
    pub fn stored(&self, entry: usize) -> u64 {
        pages::MSR_LISTS[1].word(2 * entry + 1)
    }

    fn fill_list(&mut self, list: usize, msrs: &[(u32, u64)], address: Field, count: Field) {
        let page = &pages::MSR_LISTS[list];
        for (at, (msr, value)) in msrs.iter().enumerate() {
            page.set_word(2 * at, u64::from(*msr));
            page.set_word(2 * at + 1, *value);
        }
        self.vmcs.set(address, page.address());
        self.vmcs.set(count, msrs.len() as u64);
    }

    /// Runs L2 until it exits. Panics if the VM entry fails with an error of the instruction.
    pub fn run(&mut self) -> Exit {
        match self.try_run() {
            Ok(exit) => exit,
            Err(fail) => panic!("VM entry fails with error {}", fail.number()),
        }
    }

    /// As [`run`](L2::run), with VMfail as a value. An entry that fails later is an exit with bit 31 of its reason set.
    pub fn try_run(&mut self) -> Result<Exit, Fail> {
        let catching = fault::swap_catching(self.catching);
        // SAFETY: the VMCS is current; L2 does what its code does, which the scenario answers for.
        let how = unsafe { enter(&raw mut self.regs, self.launched) };
        self.catching = fault::swap_catching(catching);
        match how {
            0 => {}
            1 => return Err(Fail::Invalid),
            _ => return Err(Fail::Valid(self.vmcs.get(field::INSTRUCTION_ERROR))),
        }
        let get = |field| self.vmcs.get(field);
        let exit = Exit {
            reason: get(field::EXIT_REASON),
            qualification: get(field::QUALIFICATION),
            event: get(field::EXIT_EVENT),
            error: get(field::EXIT_ERROR),
            vectoring: get(field::VECTORING_EVENT),
            vectoring_error: get(field::VECTORING_ERROR),
            length: get(field::INSTRUCTION_LENGTH),
            instruction: get(field::INSTRUCTION_INFO),
            linear: get(field::GUEST_LINEAR),
            physical: vmread(field::GUEST_PHYSICAL).unwrap_or(0),
            rip: get(field::RIP),
        };
        // A failed entry leaves the launch state as it was (SDM vol. 3C, "VM-Entry Failures During or After Loading
        // Guest State").
        self.launched |= exit.reason & exit::FAILED_ENTRY == 0;
        Ok(exit)
    }

    /// Moves L2 behind an instruction of `bytes` bytes that exited before it was done.
    pub fn skip(&mut self, bytes: u64) {
        let rip = self.vmcs.get(field::RIP);
        self.vmcs.set(field::RIP, rip + bytes);
    }
}

/// 64-bit L1 and L2, no exits that are not asked for.
fn set_controls(vmcs: &mut Vmcs) {
    for controls in
        [field::PIN_CONTROLS, field::PROCESSOR_CONTROLS, field::EXIT_CONTROLS, field::ENTRY_CONTROLS]
    {
        vmcs.set(controls, vmcs::required(controls));
    }
    for control in [
        controls::HOST_64_BIT,
        controls::GUEST_64_BIT,
        controls::LOAD_DEBUG,
        controls::SAVE_DEBUG,
        controls::MSR_BITMAPS,
    ] {
        vmcs.control(control, true);
    }
    vmcs.set(field::MSR_BITMAPS, pages::MSR_BITMAPS.address());
    vmcs.set(field::IO_BITMAP_A, pages::IO_BITMAPS.address());
    vmcs.set(field::IO_BITMAP_B, pages::IO_BITMAPS.address() + PAGE as u64);
    if offers(controls::SECONDARY) {
        vmcs.set(field::PROCESSOR_CONTROLS_2, 0);
    }
    for zero in [
        field::EXCEPTIONS,
        field::PF_MASK,
        field::PF_MATCH,
        field::CR3_TARGETS,
        field::EXIT_STORE_COUNT,
        field::EXIT_LOAD_COUNT,
        field::ENTRY_LOAD_COUNT,
        field::ENTRY_EVENT,
        field::CR0_MASK,
        field::CR4_MASK,
        field::TSC_OFFSET,
    ] {
        vmcs.set(zero, 0);
    }
}

/// What a VM exit loads: L1 as it is.
fn set_host_state(vmcs: &mut Vmcs) {
    vmcs.set(field::HOST_CR0, control::read_cr0());
    vmcs.set(field::HOST_CR3, control::read_cr3());
    vmcs.set(field::HOST_CR4, control::read_cr4());
    for (segment, selector) in [
        (field::CS, KERNEL_CS),
        (field::SS, KERNEL_DS),
        (field::DS, KERNEL_DS),
        (field::ES, KERNEL_DS),
        (field::FS, 0),
        (field::GS, 0),
        (field::TR, task_register()),
    ] {
        vmcs.set(field::host_selector(segment), selector.into());
    }
    vmcs.set(field::HOST_FS_BASE, vmcs::msr(0xc000_0100));
    vmcs.set(field::HOST_GS_BASE, vmcs::msr(0xc000_0101));
    vmcs.set(field::HOST_TR_BASE, task_state().0);
    vmcs.set(field::HOST_GDTR_BASE, GDT_POINTER.base);
    vmcs.set(field::HOST_IDTR_BASE, IDT_POINTER.base);
    vmcs.set(field::HOST_SYSENTER_CS, vmcs::msr(0x174));
    vmcs.set(field::HOST_SYSENTER_ESP, vmcs::msr(0x175));
    vmcs.set(field::HOST_SYSENTER_EIP, vmcs::msr(0x176));
    unsafe extern "C" {
        static vmx_exit_here: u8;
    }
    vmcs.set(field::HOST_RIP, &raw const vmx_exit_here as u64);
}

/// What a VM entry loads: as L1, but for what [`L2::go`] sets.
fn set_guest_state(vmcs: &mut Vmcs) {
    let cr0 = control::read_cr0();
    let cr4 = control::read_cr4();
    for (field, value) in [
        (field::CR0, cr0),
        (field::CR0_SHADOW, cr0),
        (field::CR3, control::read_cr3()),
        (field::CR4, cr4),
        (field::CR4_SHADOW, cr4),
        (field::DR7, 0x400), // at reset (SDM vol. 3A, table 11-1)
        (field::DEBUGCTL, 0),
        (field::LINK_POINTER, u64::MAX),
        (field::INTERRUPTIBILITY, 0),
        (field::ACTIVITY, 0),
        (field::PENDING_DEBUG, 0),
        (field::SYSENTER_CS, vmcs::msr(0x174)),
        (field::SYSENTER_ESP, vmcs::msr(0x175)),
        (field::SYSENTER_EIP, vmcs::msr(0x176)),
    ] {
        vmcs.set(field, value);
    }
    const UNUSABLE: u64 = 1 << 16;
    let (task, task_limit) = task_state();
    for (segment, selector, rights, base, limit) in [
        // 64-bit code, data, and a busy TSS: bits 55:52 and 47:40 of the runtime's descriptors.
        (field::CS, KERNEL_CS, 0xa09b, 0, 0xffff_ffff),
        (field::SS, KERNEL_DS, 0xc093, 0, 0xffff_ffff),
        (field::DS, KERNEL_DS, 0xc093, 0, 0xffff_ffff),
        (field::ES, KERNEL_DS, 0xc093, 0, 0xffff_ffff),
        (field::FS, 0, UNUSABLE, 0, 0),
        (field::GS, 0, UNUSABLE, 0, 0),
        (field::LDTR, 0, UNUSABLE, 0, 0),
        (field::TR, task_register(), 0x8b, task, task_limit),
    ] {
        vmcs.set(field::selector(segment), selector.into());
        vmcs.set(field::rights(segment), rights);
        vmcs.set(field::base(segment), base);
        vmcs.set(field::limit(segment), limit);
    }
    for (table, pointer) in [(field::GDTR, &GDT_POINTER), (field::IDTR, &IDT_POINTER)] {
        vmcs.set(field::base(table), pointer.base);
        vmcs.set(field::limit(table), pointer.limit.into());
    }
}

/// TR's selector.
fn task_register() -> u16 {
    let selector: u16;
    // SAFETY: stores a register.
    unsafe { asm!("str {:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector
}

/// Base and limit of the TSS, from its descriptor.
fn task_state() -> (u64, u64) {
    let at = (GDT_POINTER.base + u64::from(task_register() & !7)) as *const u64;
    // SAFETY: the descriptor of 16 bytes lies in the runtime's GDT.
    let (low, high) = unsafe { (at.read_volatile(), at.add(1).read_volatile()) };
    (low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32, low & 0xffff)
}

/// Where L2's function returns to.
#[unsafe(naked)]
extern "C" fn returned() {
    naked_asm!(crate::label!("vmx_returned"), "2:", "vmcall", "jmp 2b")
}

/// One round trip: registers of L2 loaded, VMLAUNCH or VMRESUME, registers stored. 0: L2 exited; 1: VMfailInvalid; 2:
/// VMfailValid.
#[unsafe(naked)]
unsafe extern "C" fn enter(registers: *mut Registers, resume: bool) -> u64 {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "pushfq",
        "push rdi",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp", // without a current VMCS it fails as the entry will
        "test sil, sil",
        "mov rax, [rdi + {rax}]", // moves leave ZF alone
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
        "jnz 2f",
        crate::label!("vmlaunch_here"),
        "vmlaunch",
        "jmp 3f",
        "2:",
        crate::label!("vmresume_here"),
        "vmresume",
        "3:",
        "mov eax, 1",
        "jc 4f",
        "mov eax, 2",
        "4:",
        "pop rdi",
        "popfq",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
        crate::label!("vmx_exit_here"),
        "push rdi",
        "mov rdi, [rsp + 8]",
        "mov [rdi + {rax}], rax",
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
        "xor eax, eax",
        "jmp 4b",
        host_rsp = const field::HOST_RSP.0,
        rax = const offset_of!(Registers, rax),
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
