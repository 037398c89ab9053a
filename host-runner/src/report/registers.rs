//! Registers with the names of their bits. Source: SDM vol. 3, "System Flags and Fields in the
//! EFLAGS Register", "Control Registers", vol. 4 IA32_EFER; APM vol. 2 for EFER.SVME.

const RFLAGS: &[(u8, &str)] = &[
    (0, "CF"),
    (2, "PF"),
    (4, "AF"),
    (6, "ZF"),
    (7, "SF"),
    (8, "TF"),
    (9, "IF"),
    (10, "DF"),
    (11, "OF"),
    (14, "NT"),
    (16, "RF"),
    (17, "VM"),
    (18, "AC"),
    (19, "VIF"),
    (20, "VIP"),
    (21, "ID"),
];
#[rustfmt::skip]
const CR0: &[(u8, &str)] = &[
    (0, "PE"), (1, "MP"), (2, "EM"), (3, "TS"), (4, "ET"), (5, "NE"), (16, "WP"), (18, "AM"), (29, "NW"), (30, "CD"),
    (31, "PG"),
];
#[rustfmt::skip]
const CR4: &[(u8, &str)] = &[
    (0, "VME"), (1, "PVI"), (2, "TSD"), (3, "DE"), (4, "PSE"), (5, "PAE"), (6, "MCE"), (7, "PGE"), (8, "PCE"),
    (9, "OSFXSR"), (10, "OSXMMEXCPT"), (11, "UMIP"), (12, "LA57"), (13, "VMXE"), (14, "SMXE"), (16, "FSGSBASE"),
    (17, "PCIDE"), (18, "OSXSAVE"), (20, "SMEP"), (21, "SMAP"), (22, "PKE"), (23, "CET"), (24, "PKS"),
];
const EFER: &[(u8, &str)] =
    &[(0, "SCE"), (8, "LME"), (10, "LMA"), (11, "NXE"), (12, "SVME"), (13, "LMSLE"), (14, "FFXSR")];

/// `rflags  0x0000000000010202  IF RF`; bits without a name are given as a number.
pub(super) fn line(name: &str, value: u64) -> String {
    let text = format!("{name:<8} {value:#018x}");
    // Bit 1 of RFLAGS is always set, and IOPL is a number.
    let (bits, known, iopl) = match name {
        "rflags" => (RFLAGS, 0x3002, Some(value >> 12 & 3).filter(|iopl| *iopl != 0)),
        "cr0" => (CR0, 0, None),
        "cr4" => (CR4, 0, None),
        "efer" => (EFER, 0, None),
        _ => return text,
    };
    let set = bits.iter().filter(|(bit, _)| value >> bit & 1 == 1);
    let mut words: Vec<String> = set.map(|(_, word)| (*word).to_owned()).collect();
    words.extend(iopl.map(|iopl| format!("IOPL={iopl}")));
    let rest = bits.iter().fold(value & !known, |rest, (bit, _)| rest & !(1 << bit));
    words.extend((rest != 0).then(|| format!("and {rest:#x}")));
    format!("{text}  {}", words.join(" ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn bits_have_their_names() {
        assert_eq!(line("rflags", 0x1_0202), "rflags   0x0000000000010202  IF RF");
        assert_eq!(line("rflags", 0x3002), "rflags   0x0000000000003002  IOPL=3");
        assert_eq!(line("cr0", 0x8001_0033), "cr0      0x0000000080010033  PE MP ET NE WP PG");
        assert_eq!(
            line("efer", 0xd00 | 1 << 40),
            "efer     0x0000010000000d00  LME LMA NXE and 0x10000000000"
        );
        assert_eq!(line("rax", 7), "rax      0x0000000000000007");
    }
}
