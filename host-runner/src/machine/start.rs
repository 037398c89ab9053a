//! The registers with which a vCPU starts.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

use crate::payload::{Descriptor, LongModeStart};

/// A flat 4 GiB segment (SDM vol. 3, 3.4.5 "Segment Descriptors").
const FLAT: kvm_segment = kvm_segment {
    base: 0,
    limit: u32::MAX,
    selector: 0x10,
    type_: 3,
    present: 1,
    dpl: 0,
    db: 1,
    s: 1,
    l: 0,
    g: 1,
    avl: 0,
    unusable: 0,
    padding: 0,
};

fn segment(from: &Descriptor) -> kvm_segment {
    let bit = |at: u32| (from.access >> at & 1) as u8;
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: (from.access & 0xf) as u8,
        s: bit(4),
        dpl: (from.access >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: 0,
        padding: 0,
    }
}

/// 64-bit mode, as the boot protocol promises. `sregs` is the vCPU's reset state, of which
/// IA32_APIC_BASE and what is not named stay.
pub fn long(start: &LongModeStart, sregs: &mut kvm_sregs) -> kvm_regs {
    let data = segment(&start.data);
    sregs.cs = segment(&start.code);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(&start.task);
    sregs.ldt = kvm_segment { unusable: 1, ..kvm_segment::default() };
    sregs.gdt = kvm_dtable { base: start.gdt.base, limit: start.gdt.limit, ..kvm_dtable::default() };
    sregs.idt = kvm_dtable { base: start.idt.base, limit: start.idt.limit, ..kvm_dtable::default() };
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (start.cr0, start.cr3, start.cr4, start.efer);
    kvm_regs { rip: start.rip, rsp: start.rsp, rdi: start.rdi, rflags: start.rflags, ..kvm_regs::default() }
}

/// 32-bit protected mode: flat segments, no paging, an IDT of limit 0, the stack below `stack`.
pub fn protected(rip: u64, stack: u64, sregs: &mut kvm_sregs) -> kvm_regs {
    sregs.cs = kvm_segment { selector: 0x08, type_: 0xb, ..FLAT };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (FLAT, FLAT, FLAT, FLAT, FLAT);
    // A busy 32-bit TSS: VM entry wants one (SDM vol. 3, "Checks on Guest Segment Registers").
    sregs.tr = kvm_segment { selector: 0x18, type_: 0xb, limit: 0x67, s: 0, db: 0, g: 0, ..FLAT };
    sregs.ldt = kvm_segment { unusable: 1, ..kvm_segment::default() };
    sregs.gdt = kvm_dtable::default();
    sregs.idt = kvm_dtable::default();
    // PE and ET.
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x11, 0, 0, 0);
    kvm_regs { rip, rsp: stack, rflags: 2, ..kvm_regs::default() }
}

/// Real mode: the reset state (SDM vol. 3, table "Processor States Following Power-up, Reset, or INIT"), but CS
/// with base 0. All of it is set, since a restart finds what the guest and the host left.
pub fn real(ip: u64, sregs: &mut kvm_sregs) -> kvm_regs {
    let data = kvm_segment { limit: 0xffff, selector: 0, db: 0, g: 0, ..FLAT };
    let system = kvm_segment { s: 0, ..data };
    sregs.cs = kvm_segment { type_: 0xb, ..data };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment { type_: 0xb, ..system };
    sregs.ldt = kvm_segment { type_: 2, ..system };
    sregs.gdt = kvm_dtable { limit: 0xffff, ..kvm_dtable::default() };
    sregs.idt = sregs.gdt;
    // CD, NW and ET.
    (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer) = (0x6000_0010, 0, 0, 0, 0);
    kvm_regs { rip: ip, rsp: REAL_STACK, rflags: 2, ..kvm_regs::default() }
}

/// Top of a real-mode guest's stack: below the low image.
const REAL_STACK: u64 = 0x7000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_in_real_mode_keeps_nothing_of_what_was_there() {
        let mut fresh = kvm_sregs { apic_base: 0xfee0_0900, ..kvm_sregs::default() };
        real(0x8000, &mut fresh);
        let mut left = kvm_sregs { cr0: 0x11, cr3: 0x1000, cr4: 0x20, efer: 0x500, ..fresh };
        left.ss.base = 0x1000_0000;
        left.idt.base = 0x1000_2000;
        left.cs = kvm_segment { selector: 8, ..FLAT };
        left.tr.limit = 0x67;
        real(0x8000, &mut left);
        assert_eq!(left, fresh);
        assert_eq!(left.apic_base, 0xfee0_0900);
    }
}
