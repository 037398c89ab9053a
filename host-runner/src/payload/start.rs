//! The registers with which a payload starts in 64-bit mode, and the descriptor tables they refer to.
//!
//! What the boot protocol promises, as numbers of the SDM. Who sets them, and how, is the machine's
//! matter; real-mode and protected-mode starts take only addresses from here.

use x86_64::structures::gdt::DescriptorFlags;
use x86_64::structures::tss::TaskStateSegment;

/// A segment register: selector and hidden part (SDM Vol. 3A, "Segment Registers").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The visible part.
    pub selector: u16,
    /// Linear address of its first byte.
    pub base: u64,
    /// Offset of its last byte, in bytes whatever the granularity.
    pub limit: u32,
    /// Access rights in the format of VMCS fields (SDM Vol. 3C, "Guest Register State"): type in bits
    /// 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15.
    pub access: u16,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Linear address of the table.
    pub base: u64,
    /// Offset of its last byte.
    pub limit: u16,
}

/// Registers at the first instruction of a 64-bit payload. General registers that are not named here are 0,
/// RBP among them, so that a walk of frame pointers ends; LDTR is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongModeStart {
    /// The ELF entry point.
    pub rip: u64,
    /// The stack's top minus 8: as if called, so that RSP + 8 is a multiple of 16 (System V ABI for AMD64,
    /// 3.2.2). The return address it points to is 0.
    pub rsp: u64,
    /// Guest address of [`bootloader_api::BootInfo`]: the first argument (System V ABI for AMD64, 3.2.3).
    pub rdi: u64,
    /// Bit 1, which is always 1; interrupts are off (SDM Vol. 1, "EFLAGS Register").
    pub rflags: u64,
    /// PG, WP, NE, ET, MP, PE (SDM Vol. 3A, "Control Registers"). WP makes read-only pages bind ring 0.
    pub cr0: u64,
    /// Guest-physical address of the level-4 page table; PWT and PCD are 0, so it is cached.
    pub cr3: u64,
    /// PAE, which long mode needs; OSFXSR and OSXMMEXCPT, as a loader for SSE-capable kernels leaves them.
    pub cr4: u64,
    /// LME, LMA, and NXE for the no-execute pages (SDM Vol. 3A, "Extended Feature Enable Register").
    pub efer: u64,
    /// CS: 64-bit code, ring 0.
    pub code: Descriptor,
    /// DS, ES, FS, GS and SS: writable data, ring 0.
    pub data: Descriptor,
    /// TR: a busy 64-bit TSS. VM entry requires it (SDM Vol. 3C, "Checks on Guest Segment Registers").
    pub task: Descriptor,
    /// GDTR: a table that holds the three descriptors above, for `iretq` and far returns.
    pub gdt: Table,
    /// IDTR: limit 0, so that any exception before the guest has its own table is a triple fault.
    pub idt: Table,
}

const CR0: u64 = 0x8001_0033;
const CR4: u64 = 0x620;
const EFER: u64 = 0xd00;
const RFLAGS: u64 = 2;

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
const TASK_SELECTOR: u16 = 0x18;

/// Size of the GDT in bytes: null, code, data, and a TSS descriptor of two entries.
const GDT_SIZE: u16 = 5 * 8;

/// Where the TSS lies behind the GDT; both share one page, since a TSS should not cross pages.
const TSS_OFFSET: u64 = 0x80;

const TSS_SIZE: usize = size_of::<TaskStateSegment>();

impl LongModeStart {
    /// A start at `rip` on a stack that ends at `stack_end`, with the tables of [`LongModeStart::tables`] at
    /// guest address `tables`.
    pub(super) fn new(rip: u64, stack_end: u64, boot_info: u64, cr3: u64, tables: u64) -> Self {
        Self {
            rip,
            rsp: stack_end - 8,
            rdi: boot_info,
            rflags: RFLAGS,
            cr0: CR0,
            cr3,
            cr4: CR4,
            efer: EFER,
            code: flat(CODE_SELECTOR, DescriptorFlags::KERNEL_CODE64),
            data: flat(DATA_SELECTOR, DescriptorFlags::KERNEL_DATA),
            task: Descriptor {
                selector: TASK_SELECTOR,
                base: tables + TSS_OFFSET,
                limit: TSS_SIZE as u32 - 1,
                access: 0x8b, // present, 64-bit TSS (busy)
            },
            gdt: Table { base: tables, limit: GDT_SIZE - 1 },
            idt: Table { base: 0, limit: 0 },
        }
    }

    /// GDT and TSS as they lie in guest memory.
    ///
    /// The TSS has no stacks: whoever takes interrupts or enters ring 3 brings its own. It has no I/O
    /// permission bitmap either: the base lies behind the limit (SDM Vol. 1, "I/O Permission Bit Map").
    pub(super) fn tables(&self) -> Vec<u8> {
        let task = self.task.encode();
        let entries = [0, self.code.encode(), self.data.encode(), task, self.task.base >> 32];
        let mut bytes: Vec<u8> = entries.iter().flat_map(|entry: &u64| entry.to_le_bytes()).collect();
        bytes.resize(TSS_OFFSET as usize + std::mem::offset_of!(TaskStateSegment, iomap_base), 0);
        bytes.extend((TSS_SIZE as u16).to_le_bytes());
        bytes
    }
}

impl Descriptor {
    /// The descriptor table entry that loads this, without the upper half of a system descriptor.
    /// SDM Vol. 3A, "Segment Descriptors" and "TSS Descriptor in 64-bit mode".
    fn encode(&self) -> u64 {
        let access = u64::from(self.access);
        let limit = u64::from(if access & 1 << 15 == 0 { self.limit } else { self.limit >> 12 });
        limit & 0xffff
            | (self.base & 0xff_ffff) << 16
            | (access & 0xff) << 40
            | (limit >> 16 & 0xf) << 48
            | (access >> 12 & 0xf) << 52
            | (self.base >> 24 & 0xff) << 56
    }
}

/// The 4 GiB segment with these flags, which sit in a descriptor 40 bits above their access rights.
fn flat(selector: u16, flags: DescriptorFlags) -> Descriptor {
    Descriptor { selector, base: 0, limit: u32::MAX, access: (flags.bits() >> 40) as u16 & 0xf0ff }
}

const _: () = assert!(TSS_SIZE == 0x68);
