//! The SMM state save area: where KVM's two layouts keep what an SMI interrupts.
//!
//! 512 bytes from SMBASE + 0xfe00 (APM vol. 2, "SMM State-Save Area"; KVM writes AMD's 64-bit layout for every
//! vCPU whose CPUID has long mode, Intel's too, and the P6 layout for the others). Pure data: the machine reads and
//! writes the memory.

/// Offset of the state save area from SMBASE.
pub const SAVE_AREA: u64 = 0xfe00;
/// Offset of the SMM revision identifier from SMBASE, in both layouts.
pub const REVISION: u64 = 0xfefc;

/// Which layout a state save area has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// AMD64.
    Long,
    /// P6.
    Legacy,
}

/// A field's place: offset from SMBASE and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Offset from SMBASE.
    pub offset: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
}

impl Layout {
    /// The layout that a revision identifier means; `None` if KVM writes no such area.
    pub const fn of_revision(revision: u32) -> Option<Self> {
        match revision & 0xffff {
            0x64 => Some(Self::Long),
            0 if revision != 0 => Some(Self::Legacy),
            _ => None,
        }
    }

    /// Where this layout keeps `name`; `None` if it does not.
    pub fn field(self, name: &str) -> Option<Field> {
        let &(_, long, legacy) = FIELDS.iter().find(|(known, ..)| *known == name)?;
        let (offset, size) = match self {
            Self::Long => long,
            Self::Legacy => legacy,
        };
        (size != 0).then_some(Field { offset, size })
    }
}

/// Every name of either layout.
pub fn names() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(name, ..)| *name)
}

/// Offset and size of a field in one layout.
type Spot = (u64, u8);

/// A layout's lack of a field.
const NONE: Spot = (0, 0);

/// Name; offset and size in the AMD64 layout; the same in the P6 layout.
#[rustfmt::skip]
const FIELDS: &[(&str, Spot, Spot)] = &[
    ("rax", (0xfff8, 8), (0xffd0, 4)), ("rcx", (0xfff0, 8), (0xffd4, 4)),
    ("rdx", (0xffe8, 8), (0xffd8, 4)), ("rbx", (0xffe0, 8), (0xffdc, 4)),
    ("rsp", (0xffd8, 8), (0xffe0, 4)), ("rbp", (0xffd0, 8), (0xffe4, 4)),
    ("rsi", (0xffc8, 8), (0xffe8, 4)), ("rdi", (0xffc0, 8), (0xffec, 4)),
    ("r8", (0xffb8, 8), NONE), ("r9", (0xffb0, 8), NONE), ("r10", (0xffa8, 8), NONE), ("r11", (0xffa0, 8), NONE),
    ("r12", (0xff98, 8), NONE), ("r13", (0xff90, 8), NONE), ("r14", (0xff88, 8), NONE), ("r15", (0xff80, 8), NONE),
    ("rip", (0xff78, 8), (0xfff0, 4)), ("rflags", (0xff70, 8), (0xfff4, 4)),
    ("dr6", (0xff68, 8), (0xffcc, 4)), ("dr7", (0xff60, 8), (0xffc8, 4)),
    ("cr0", (0xff58, 8), (0xfffc, 4)), ("cr3", (0xff50, 8), (0xfff8, 4)), ("cr4", (0xff48, 8), (0xff14, 4)),
    ("efer", (0xfed0, 8), NONE),
    ("revision", (0xfefc, 4), (0xfefc, 4)), ("smbase", (0xff00, 4), (0xfef8, 4)),
    ("io-restart", (0xfec8, 1), (0xff00, 2)), ("auto-halt", (0xfec9, 1), (0xff02, 2)),
    ("int-shadow", (0xfecb, 1), (0xff1a, 1)),
    ("svm.guest", (0xfed8, 8), NONE), ("svm.vmcb-pa", (0xfee0, 8), NONE),
    ("gdt.base", (0xfe68, 8), (0xff74, 4)), ("gdt.limit", (0xfe64, 4), (0xff70, 4)),
    ("idt.base", (0xfe88, 8), (0xff58, 4)), ("idt.limit", (0xfe84, 4), (0xff54, 4)),
    ("es.selector", (0xfe00, 2), (0xffa8, 4)), ("es.attributes", (0xfe02, 2), (0xff84, 4)),
    ("es.limit", (0xfe04, 4), (0xff88, 4)), ("es.base", (0xfe08, 8), (0xff8c, 4)),
    ("cs.selector", (0xfe10, 2), (0xffac, 4)), ("cs.attributes", (0xfe12, 2), (0xff90, 4)),
    ("cs.limit", (0xfe14, 4), (0xff94, 4)), ("cs.base", (0xfe18, 8), (0xff98, 4)),
    ("ss.selector", (0xfe20, 2), (0xffb0, 4)), ("ss.attributes", (0xfe22, 2), (0xff9c, 4)),
    ("ss.limit", (0xfe24, 4), (0xffa0, 4)), ("ss.base", (0xfe28, 8), (0xffa4, 4)),
    ("ds.selector", (0xfe30, 2), (0xffb4, 4)), ("ds.attributes", (0xfe32, 2), (0xff2c, 4)),
    ("ds.limit", (0xfe34, 4), (0xff30, 4)), ("ds.base", (0xfe38, 8), (0xff34, 4)),
    ("fs.selector", (0xfe40, 2), (0xffb8, 4)), ("fs.attributes", (0xfe42, 2), (0xff38, 4)),
    ("fs.limit", (0xfe44, 4), (0xff3c, 4)), ("fs.base", (0xfe48, 8), (0xff40, 4)),
    ("gs.selector", (0xfe50, 2), (0xffbc, 4)), ("gs.attributes", (0xfe52, 2), (0xff44, 4)),
    ("gs.limit", (0xfe54, 4), (0xff48, 4)), ("gs.base", (0xfe58, 8), (0xff4c, 4)),
    ("ldt.selector", (0xfe70, 2), (0xffc0, 4)), ("ldt.attributes", (0xfe72, 2), (0xff78, 4)),
    ("ldt.limit", (0xfe74, 4), (0xff7c, 4)), ("ldt.base", (0xfe78, 8), (0xff80, 4)),
    ("tr.selector", (0xfe90, 2), (0xffc4, 4)), ("tr.attributes", (0xfe92, 2), (0xff5c, 4)),
    ("tr.limit", (0xfe94, 4), (0xff60, 4)), ("tr.base", (0xfe98, 8), (0xff64, 4)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_fields_of_a_layout_overlap_and_all_lie_in_the_area() {
        for layout in [Layout::Long, Layout::Legacy] {
            let mut taken = std::collections::BTreeMap::new();
            for name in names() {
                let Some(field) = layout.field(name) else { continue };
                for byte in field.offset..field.offset + u64::from(field.size) {
                    assert!((SAVE_AREA..0x1_0000).contains(&byte), "{name} lies outside");
                    assert_eq!(taken.insert(byte, name), None, "{name} shares a byte");
                }
            }
        }
    }

    #[test]
    fn the_revision_tells_the_layout() {
        assert_eq!(Layout::of_revision(0x2_0064), Some(Layout::Long));
        assert_eq!(Layout::of_revision(0x2_0000), Some(Layout::Legacy));
        assert_eq!(Layout::of_revision(0), None, "untouched memory");
        assert_eq!(Layout::of_revision(0x1234), None);
    }
}
