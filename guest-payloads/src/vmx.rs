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
#![expect(unsafe_code, reason = "VM entries, and names for the host")]

mod entry;
mod instructions;
mod names;
mod pages;
mod setup;
mod vmcs;

use core::sync::atomic::{AtomicBool, Ordering};

use crate::page::{PAGE, Page, Pages};
use crate::registers::Registers;
use crate::{Fault, control, fault};
use entry::enter;
pub(crate) use entry::returned;
pub use instructions::{Fail, vmclear, vmptrld, vmptrst, vmread, vmwrite, vmxoff, vmxon};
pub use names::{Field, controls, event, exit, field};
pub use pages::{invept, invvpid};
pub use vmcs::{BASIC_MSR, EPT_VPID_MSR, MISC_MSR, Vmcs, offers};

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
        setup::set_controls(vmcs);
        setup::set_host_state(vmcs);
        setup::set_guest_state(vmcs);
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
        self.change_nested_by(2, gpa, with)
    }

    /// As [`Self::change_nested`]; the INVEPT is of type `kind`: 1 for this EPT pointer, 2 for all.
    pub fn change_nested_by(&mut self, kind: u64, gpa: u64, with: impl FnOnce(u64) -> u64) -> u64 {
        let entry = pages::change_nested(gpa, with);
        assert!(invept(kind, self.vmcs.get(field::EPT_POINTER)).is_ok(), "INVEPT of type {kind}");
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
