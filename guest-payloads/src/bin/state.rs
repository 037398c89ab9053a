//! State with distinctive values, an exit, and what is left of them: registers, MSRs, descriptors and time.
//! Interrupt controllers, timers and application processors are `state_chips`.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "privileged registers are changed on purpose")]
guest::payload!();

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

use guest::report::value;
use guest::tables::GDT_POINTER;
use guest::{Fault, arg, control, mmio, paging, pio, ring3};

/// The exit across which everything must be as it was.
fn pause() {
    pio::out8(0x5e, 0);
}

/// A page that ring 3 may write to: what registers are loaded from, and behind it what they are stored to.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: one scenario at a time uses it, by volatile access or from assembly.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; 4096]));

/// Where ring 3 stores to, in the page.
const STORED: usize = 1024;

fn put(at: usize, byte: u8) {
    // SAFETY: `Page` is shared for that; the index is checked.
    unsafe { (&raw mut (*PAGE.0.get())[at]).write_volatile(byte) }
}

fn got(at: usize) -> u8 {
    // SAFETY: as above.
    unsafe { (&raw const (*PAGE.0.get())[at]).read_volatile() }
}

/// Bytes from `from` to `to` that were not stored as they were loaded.
fn differing(from: usize, to: usize) -> u64 {
    (from..to).filter(|&at| got(at) != got(STORED + at)).count() as u64
}

/// Ring 3 loads registers, there is an exit, ring 3 stores them. Each ends with UD2, vector 6. Vector instructions run
/// there since software backends emulate ring 0, and few of them.
fn across(load: extern "C" fn(), store: extern "C" fn()) {
    // SAFETY: ring 3 may do with the page what it likes.
    let open = unsafe { paging::open_to_user(PAGE.0.get() as u64, true) };
    value("open", open.is_some().into());
    value("loaded", ring3::run(load).map_or(0, |fault| fault.vector));
    pause();
    value("stored", ring3::run(store).map_or(0, |fault| fault.vector));
}

/// FXRSTOR64.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn load_legacy() {
    naked_asm!("lea rax, [rip + {page}]", "fxrstor64 [rax]", "ud2", page = sym PAGE)
}

/// FXSAVE64.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn store_legacy() {
    naked_asm!("lea rax, [rip + {page}]", "fxsave64 [rax + {to}]", "ud2", page = sym PAGE, to = const STORED)
}

/// Four of the 256-bit registers.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn load_avx() {
    naked_asm!(
        "lea rax, [rip + {page}]",
        "vmovdqu ymm0, [rax]",
        "vmovdqu ymm7, [rax + 32]",
        "vmovdqu ymm8, [rax + 64]",
        "vmovdqu ymm15, [rax + 96]",
        "ud2",
        page = sym PAGE,
    )
}

/// The same four.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn store_avx() {
    naked_asm!(
        "lea rax, [rip + {page} + {to}]",
        "vmovdqu [rax], ymm0",
        "vmovdqu [rax + 32], ymm7",
        "vmovdqu [rax + 64], ymm8",
        "vmovdqu [rax + 96], ymm15",
        "ud2",
        page = sym PAGE,
        to = const STORED,
    )
}

/// XGETBV of XCR0.
#[unsafe(naked)]
#[unsafe(link_section = ".user.text")]
extern "C" fn read_xcr0() {
    naked_asm!(
        "xor ecx, ecx",
        "xgetbv",
        "lea rcx, [rip + {page}]",
        "mov [rcx], eax",
        "mov [rcx + 4], edx",
        "ud2",
        page = sym PAGE,
    )
}

/// The flags in RDI across an OUT. They are read before anything else can change them.
#[unsafe(naked)]
extern "C" fn flags_across(_flags: u64) -> u64 {
    naked_asm!("pushfq", "push rdi", "popfq", "out 0x5e, al", "pushfq", "pop rax", "popfq", "ret")
}

/// 0, or the vector of the fault.
fn vector<T>(result: Result<T, Fault>) -> u64 {
    result.map_or_else(|fault| fault.vector, |_| 0)
}

/// Sets CR4.OSXSAVE and XCR0.
fn enable_xsave(features: u64) {
    value("cr4", vector(control::write_cr4(control::read_cr4() | 1 << 18)));
    value("xcr0", vector(control::write_xcr(0, features)));
}

fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

macro_rules! debug_register {
    ($read:ident $write:ident $name:literal) => {
        fn $read() -> u64 {
            let value;
            // SAFETY: reading a debug register changes nothing.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }

        fn $write(value: u64) {
            // SAFETY: no breakpoint is enabled.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    };
}

debug_register!(dr1 set_dr1 "dr1");
debug_register!(dr2 set_dr2 "dr2");
debug_register!(dr3 set_dr3 "dr3");

/// The `pvclock_vcpu_time_info` of this CPU (KVM's msr.rst).
static CLOCK: Page = Page(UnsafeCell::new([0; 4096]));

/// MSR_KVM_SYSTEM_TIME_NEW.
const KVM_SYSTEM_TIME: u32 = 0x4b56_4d01;

/// kvmclock's time, in nanoseconds.
fn clock() -> u64 {
    let base = CLOCK.0.get() as u64;
    // SAFETY: KVM writes the page, the guest reads it by volatile access.
    let word = |at: u64| unsafe { mmio::read32(base + at) };
    let long = |at: u64| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    loop {
        // Odd while KVM writes.
        let version = word(0);
        let (stamp, time, scale) = (long(8), long(16), word(24));
        let shift = (word(28) as u8).cast_signed();
        let ticks = tsc().wrapping_sub(stamp);
        if version & 1 == 0 && version == word(0) {
            let ticks = if shift < 0 { ticks >> -shift } else { ticks << shift };
            return time.wrapping_add(((u128::from(ticks) * u128::from(scale)) >> 32) as u64);
        }
    }
}

/// A descriptor for GDT entry 5, which the runtime needs in 32-bit code only.
const SPARE: u64 = 5 * 8;

fn write_spare(descriptor: u64) {
    // SAFETY: the spare entry of the GDT.
    unsafe {
        mmio::write32(GDT_POINTER.base + SPARE, descriptor as u32);
        mmio::write32(GDT_POINTER.base + SPARE + 4, (descriptor >> 32) as u32);
    }
}

/// A descriptor's base, bits 31:0.
fn based(descriptor: u64, base: u64) -> u64 {
    descriptor | (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56
}

guest::scenario! {
    /// x87, MMX and SSE state, bytes `from` to `to` of FXSAVE's image.
    fn legacy() {
        // FCW: double precision; FSW: TOP 3, condition codes; FTW: half of the registers in use.
        for (at, byte) in [0x7f, 0x02, 0x00, 0x5d, 0xa5].into_iter().enumerate() {
            put(at, byte);
        }
        // MXCSR: round to zero, masks, two flags.
        put(24, 0x85);
        put(25, 0x7f);
        for register in 0..8 {
            (0..10).for_each(|byte| put(32 + 16 * register + byte, (0x11 * register + byte + 1) as u8));
        }
        (160..416).for_each(|at| put(at, (at * 7 + 3) as u8));
        across(load_legacy, store_legacy);
        value("bytes that differ", differing(arg("from").unwrap_or(0) as usize, arg("to").unwrap_or(0) as usize));
    }

    /// Both halves of 256-bit registers.
    fn avx() {
        enable_xsave(7);
        (0..128).for_each(|at| put(at, (at * 5 + 1) as u8));
        across(load_avx, store_avx);
        value("bytes that differ", differing(0, 128));
    }

    /// XCR0 with SSE.
    fn xcr0() {
        enable_xsave(3);
        across(read_xcr0, read_xcr0);
        value("features", (0..8).fold(0, |all, at| all | u64::from(got(at)) << (8 * at)));
    }

    /// `count` MSRs from `first`: `value` (all ones if there is none), and `step` more for each.
    fn msrs() {
        let (first, count) = (arg("first").unwrap_or(0) as u32, arg("count").unwrap_or(1) as u32);
        let wanted = |index| arg("value").unwrap_or(!0) + arg("step").unwrap_or(0) * u64::from(index);
        for index in 0..count {
            value("fault", vector(control::write_msr(first + index, wanted(index))));
        }
        pause();
        for index in 0..count {
            value("msr", control::read_msr(first + index).unwrap_or(!0));
        }
    }

    /// One MSR, of which the bits of `bits` are inverted.
    fn msr_bits() {
        let index = arg("msr").unwrap_or(0) as u32;
        let before = control::read_msr(index).unwrap_or(0);
        value("fault", vector(control::write_msr(index, before ^ arg("bits").unwrap_or(0))));
        pause();
        value("changed", control::read_msr(index).unwrap_or(0) ^ before);
    }

    /// CR0, CR2, CR4 or CR8, of which the bits of `bits` are inverted.
    fn control_register() {
        type Register = (fn() -> u64, fn(u64) -> Result<(), Fault>);
        let (read, write): Register = match arg("register") {
            Some(0) => (control::read_cr0, control::write_cr0),
            Some(2) => (control::read_cr2, control::write_cr2),
            Some(4) => (control::read_cr4, control::write_cr4),
            _ => (control::read_cr8, control::write_cr8),
        };
        let before = read();
        value("fault", vector(write(before ^ arg("bits").unwrap_or(0))));
        pause();
        value("changed", read() ^ before);
    }

    /// DR0 to DR3, DR6 and DR7; no breakpoint is enabled.
    fn debug_registers() {
        // SAFETY: no breakpoint is enabled.
        unsafe { asm!("mov dr0, {}", in(reg) 0x1111_0000_u64, options(nostack, preserves_flags)) };
        set_dr1(0x2222_1111);
        set_dr2(0x3333_2222);
        set_dr3(0x4444_3333);
        value("dr7", vector(control::write_dr7(0x9d51_0400)));
        value("dr6", vector(control::write_dr6(0xffff_0ff5)));
        pause();
        for address in [control::read_dr0(), dr1(), dr2(), dr3(), control::read_dr6(), control::read_dr7()] {
            value("register", address);
        }
    }

    /// RFLAGS that no instruction here looks at.
    fn flags() {
        value("rflags", flags_across(arg("flags").unwrap_or(2)));
    }

    /// GDTR and IDTR with limits that no table needs.
    fn descriptor_tables() {
        let table = |limit: u16, base: u64| guest::tables::Pointer { limit, base };
        let gdt = table(0x3ffd, GDT_POINTER.base);
        let idt = table(0x0e3c, guest::tables::IDT_POINTER.base);
        // SAFETY: longer, and shorter by vectors that nothing uses.
        unsafe { asm!("lgdt [{}]", "lidt [{}]", in(reg) &raw const gdt, in(reg) &raw const idt, options(nostack)) };
        pause();
        let (mut gdt, mut idt) = (table(0, 0), table(0, 0));
        // SAFETY: stores ten bytes into each.
        unsafe { asm!("sgdt [{}]", "sidt [{}]", in(reg) &raw mut gdt, in(reg) &raw mut idt, options(nostack)) };
        value("gdt limit", gdt.limit.into());
        value("gdt base moved", (gdt.base != GDT_POINTER.base).into());
        value("idt limit", idt.limit.into());
        value("idt base moved", (idt.base != guest::tables::IDT_POINTER.base).into());
    }

    /// FS and the LDT of descriptors that are overwritten once they are loaded.
    fn hidden_descriptors() {
        let page = PAGE.0.get() as u64;
        put(0x40, 0x5a);
        // Data, writable, 32 bits, in pages.
        write_spare(based(0x00cf_9300_0000_ffff, page));
        // SAFETY: FS is nobody's here.
        unsafe { asm!("mov fs, {:x}", in(reg) SPARE as u32, options(nostack, preserves_flags)) };
        // In the LDT the same with another base, as entry 1.
        let inner = based(0x00cf_9300_0000_ffff, page + 0x30);
        (0..8).for_each(|byte| put(0x108 + byte, (inner >> (8 * byte)) as u8));
        // An LDT's descriptor takes two entries; the second is the null upper half of the base, which lies over the
        // first TSS's descriptor: that one has been loaded and is put back.
        // SAFETY: reads and writes the GDT.
        let next = unsafe { [mmio::read32(GDT_POINTER.base + 48), mmio::read32(GDT_POINTER.base + 52)] };
        write_spare(based(0x0000_8200_0000_00ff, page + 0x100));
        // SAFETY: as above; the LDT is nobody's.
        unsafe {
            mmio::write32(GDT_POINTER.base + 48, 0);
            mmio::write32(GDT_POINTER.base + 52, 0);
            asm!("lldt {:x}", in(reg) SPARE as u32, options(nostack, preserves_flags));
            mmio::write32(GDT_POINTER.base + 48, next[0]);
            mmio::write32(GDT_POINTER.base + 52, next[1]);
        }
        write_spare(0);
        pause();
        let (fs, gs): (u64, u64);
        // SAFETY: reads bytes of the page through both segments.
        unsafe {
            asm!(
                "movzx {fs:e}, byte ptr fs:[0x40]",
                "mov gs, {selector:x}",
                "movzx {gs:e}, byte ptr gs:[0x10]",
                fs = out(reg) fs,
                gs = out(reg) gs,
                selector = in(reg) 8 | 4, // Entry 1 of the LDT.
                options(nostack, readonly, preserves_flags),
            );
        }
        value("through fs", fs);
        value("through the ldt", gs);
    }

    /// The TSC, set far ahead by `ahead`, which no new VM comes to by itself.
    fn tsc_forward() {
        if let Some(ahead) = arg("ahead") {
            value("fault", vector(control::write_msr(0x10, ahead)));
        }
        let mut last = tsc();
        let mut backward = 0;
        for _ in 0..arg("rounds").unwrap_or(1) {
            pause();
            let now = tsc();
            backward += u64::from(now < last);
            last = now;
        }
        value("times it went back", backward);
        value("fell behind", (last < arg("ahead").unwrap_or(0)).into());
    }

    /// IA32_TIME_STAMP_COUNTER, set far ahead, as RDMSR sees it.
    fn tsc_msr() {
        let ahead = arg("ahead").unwrap_or(0);
        value("fault", vector(control::write_msr(0x10, ahead)));
        pause();
        value("fell behind", control::read_msr(0x10).is_ok_and(|now| now < ahead).into());
    }

    /// kvmclock, once it is older than any VM that is only just made.
    fn kvm_clock() {
        value("fault", vector(control::write_msr(KVM_SYSTEM_TIME, CLOCK.0.get() as u64 | 1)));
        let start = clock();
        while clock() - start < arg("ns").unwrap_or(0) {}
        let before = clock();
        pause();
        value("went back", (clock() < before).into());
    }
}

guest::protected_mode! {
    /// PAE paging whose PDPT is gone once it is loaded: SDM vol. 3, 5.4.1.
    keeps_pdptrs:
    "mov edi, 0x100000", // A page directory, with 2 MiB that map themselves, used and dirty; behind it the PDPT.
    "mov dword ptr [edi], 0xe3",
    "mov dword ptr [edi + 4], 0",
    "mov dword ptr [edi + 0x1000], 0x100001",
    "xor eax, eax",
    "mov ecx, 7",
    "2: mov [edi + 0x1000 + ecx * 4], eax",
    "loop 2b",
    "mov eax, 0x20",
    "mov cr4, eax",
    "mov eax, 0x101000",
    "mov cr3, eax",
    "mov eax, cr0",
    "or eax, 0x80000000",
    "mov cr0, eax",
    "mov dword ptr [edi + 0x1000], 0",
    "mov eax, 0",
    "out 0x5e, al",
    // Nothing of the translation is left in a TLB of the vCPU that goes on elsewhere.
    "mov eax, [edi]",
    "hlt",
    "3: jmp 3b"
}
