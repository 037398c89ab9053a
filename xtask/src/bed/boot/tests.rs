//! What is on the disk, and where it goes.

use super::*;

const MEMORY: Memory = Memory { size: 512 << 20 };

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// An ELF file with an entry for PVH: two segments that touch, and a note.
fn vmlinux() -> Vec<u8> {
    let mut elf = vec![0; 0x1000];
    let mut set = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, b"\x7fELF\x02\x01\x01");
    set(16, &[2, 0, 62, 0, 1]);
    set(32, &64_u64.to_le_bytes());
    set(52, &[64, 0, 56, 0, 3, 0]);
    let segment = |kind: u32, offset: u64, address: u64, size: u64, memory: u64| {
        let mut bytes = [kind.to_le_bytes(), 7_u32.to_le_bytes()].concat();
        for value in [offset, 0, address, size, memory, 4] {
            bytes.extend(value.to_le_bytes());
        }
        bytes
    };
    // In the file the upper one comes first.
    set(64, &segment(1, 0x800, 0x100_0100, 0x300, 0x5000));
    set(64 + 56, &segment(1, 0x400, 0x100_0000, 0x100, 0x100));
    set(64 + 112, &segment(4, 0x300, 0, 20, 20));
    set(0x300, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    set(0x30c, b"Xen\0");
    set(0x310, &0x100_0010_u32.to_le_bytes());
    set(0x400, &[0x11; 0x100]);
    set(0x800, &[0x22; 0x300]);
    elf
}

/// Memory as the ROM makes it: a function from address to byte.
fn load(boot: &BootDisk) -> impl Fn(u64) -> u8 {
    let table = boot.rom.len();
    let start = (0..table - 8).step_by(8).find(|&at| half(&boot.rom, at + 4) == INFO).unwrap() + 8;
    let mut loaded = Vec::new();
    let mut sector = 0;
    for at in (start..).step_by(8) {
        let (to, count) = (half(&boot.rom, at), half(&boot.rom, at + 4) as usize);
        if count == 0 {
            break;
        }
        assert!(count <= MOST_SECTORS);
        let bytes = boot.disk[sector * SECTOR..(sector + count) * SECTOR].to_vec();
        loaded.push((u64::from(to), bytes));
        sector += count;
    }
    move |address| {
        let last = loaded.iter().rev().find(|(to, bytes)| (*to..*to + bytes.len() as u64).contains(&address));
        last.map_or(0, |(to, bytes)| bytes[(address - to) as usize])
    }
}

fn read(memory: &impl Fn(u64) -> u8, at: u64, size: usize) -> Vec<u8> {
    (at..at + size as u64).map(memory).collect()
}

#[test]
fn a_kernel_with_an_entry_for_pvh_finds_everything() {
    let initramfs: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let boot = BootDisk::new(&vmlinux(), &initramfs, "console=ttyS0 quiet", MEMORY).unwrap();
    assert_eq!(boot.disk.len() % (CYLINDER * SECTOR), 0);
    let memory = load(&boot);
    // The lower segment's last sector reaches into the upper one and must not win.
    assert_eq!(read(&memory, 0x100_0000, 0x400), [vec![0x11; 0x100], vec![0x22; 0x300]].concat());
    let info = read(&memory, INFO.into(), 56);
    assert_eq!((half(&info, 0), half(&info, 4), half(&info, 12)), (0x336e_c578, 1, 1));
    let line = read(&memory, word(&info, 24), 20);
    assert_eq!(line, b"console=ttyS0 quiet\0");
    let module = read(&memory, word(&info, 16), 32);
    assert_eq!(word(&module, 8), 300_000);
    assert_eq!(read(&memory, word(&module, 0), initramfs.len()), initramfs);
    assert!(word(&module, 0) + 300_032 <= u64::from(MEMORY.size - TABLES), "the BIOS' tables stay");
    let map = read(&memory, word(&info, 40), half(&info, 48) as usize * 24);
    let regions: Vec<_> = map.chunks(24).map(|e| (word(e, 0), word(e, 8), half(e, 16))).collect();
    assert!(regions.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    let ram: u64 = regions.iter().filter(|region| region.2 == 1).map(|region| region.1).sum();
    assert_eq!(ram, (512 << 20) - 0x10000 - (0x10_0000 - 0x9f000));
}

#[test]
fn a_bz_image_is_entered_by_the_boot_protocol() {
    let mut image = vec![0; 0x600];
    let mut set = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    set(0x1f1, &[1]);
    set(0x201, &[0x66]);
    set(0x202, b"HdrS\x0f\x02");
    set(0x258, &0x100_0000_u64.to_le_bytes());
    set(0x260, &0x20_0000_u32.to_le_bytes());
    set(0x400, b"protected mode");
    let boot = BootDisk::new(&image, b"archive", "quiet", MEMORY).unwrap();
    let memory = load(&boot);
    assert_eq!(read(&memory, 0x100_0000, 14), b"protected mode");
    let page = read(&memory, INFO.into(), 0x1000);
    assert_eq!(&page[0x202..0x206], b"HdrS");
    assert_eq!((page[0x210], page[0x1e8]), (0xff, 6));
    assert_eq!(read(&memory, half(&page, 0x228).into(), 6), b"quiet\0");
    assert_eq!(half(&page, 0x21c), 7);
    assert_eq!(read(&memory, half(&page, 0x218).into(), 7), b"archive");
    assert_eq!(word(&page, 0x2d0 + 3 * 20), 0x10_0000);
    for cut in 0..0x400 {
        assert!(BootDisk::new(&image[..cut], b"", "", MEMORY).is_err(), "{cut:#x}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let small = Memory { size: 17 << 20 };
    let error = BootDisk::new(&vmlinux(), &vec![0; 2 << 20], "", small).unwrap_err().to_string();
    assert!(error.contains("do not fit"), "{error}");
    let error = BootDisk::new(&vmlinux(), &vec![0; 18 << 20], "", small).unwrap_err().to_string();
    assert!(error.contains("larger than memory"), "{error}");
    assert!(BootDisk::new(b"no kernel", b"", "", MEMORY).is_err());
    for cut in 0..0xb00 {
        assert!(BootDisk::new(&vmlinux()[..cut], b"", "", MEMORY).is_err(), "{cut:#x}");
    }
}
