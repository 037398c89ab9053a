//! The option ROM that starts Linux in the machine that Bochs emulates.
//!
//! The BIOS calls it when the firmware's tables are made and before it looks for something to boot. It reads a
//! disk without a file system into memory and enters the kernel as a boot loader would. So there is no boot
//! loader to install and no image to unpack inside, and a kernel is entered at the ELF's own entry.
//! It knows nothing of kernels: the table behind its code says what goes where.

#![expect(unsafe_code, reason = "the ROM is assembled here, and its bytes are known by two symbols")]

use std::arch::global_asm;

use anyhow::{Context, bail};

/// Where the BIOS finds it (2 KiB steps from 0xC8000 on).
pub(crate) const ADDRESS: u32 = 0xd0000;

/// What a sector has, in bytes.
pub(super) const SECTOR: usize = 512;

/// How many sectors one command reads at most.
pub(super) const MOST_SECTORS: usize = 256;

/// What the BIOS counts an option ROM's length in, in bytes, and how many of them it counts.
const BLOCK: usize = 512;
const MOST_BLOCKS: usize = 0xff;

global_asm!(
    r#"
    .pushsection .rodata.exitspec_boot_rom, "a"
    .set rom, 0xd0000                       # ADDRESS
exitspec_boot_rom:
    .byte 0x55, 0xaa, 0                     # an option ROM, of as many blocks as are filled in
    .code16                                 # the BIOS calls offset 3
    cli
    cld
    .byte 0x2e, 0x66, 0x0f, 0x01, 0x16      # lgdtl %cs:
    .word exitspec_rom_gdtr - exitspec_boot_rom
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                        # ljmpl
    .long rom + (exitspec_rom_flat - exitspec_boot_rom)
    .word 0x10
    .balign 8
exitspec_rom_gdt:                           # the selectors are those of Linux' 32-bit boot protocol
    .quad 0, 0
    .quad 0x00cf9b000000ffff                # 0x10: code, flat
    .quad 0x00cf93000000ffff                # 0x18: data, flat
exitspec_rom_gdtr:
    .word 31
    .long rom + (exitspec_rom_gdt - exitspec_boot_rom)

    .code32
exitspec_rom_flat:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov esp, 0x7c00
    in al, 0x92                             # every address line, whatever the BIOS left
    or al, 2
    out 0x92, al
    mov dx, 0x3f6                           # the disk asks for no interrupts
    mov al, 2
    out dx, al
    .byte 0xbe                              # mov esi,
    .long rom + (exitspec_boot_rom_end - exitspec_boot_rom) + 8
    xor ebp, ebp                            # the next sector
exitspec_rom_piece:
    mov edi, [esi]                          # where to
    mov ebx, [esi + 4]                      # sectors, at most 256
    add esi, 8
    test ebx, ebx
    jz exitspec_rom_enter
    mov dx, 0x1f2                           # ATA READ SECTORS by 28-bit LBA; a count of 256 is written as 0
    mov al, bl
    out dx, al
    inc edx
    mov eax, ebp
    out dx, al
    inc edx
    shr eax, 8
    out dx, al
    inc edx
    shr eax, 8
    out dx, al
    inc edx
    shr eax, 8
    or al, 0xe0
    out dx, al
    inc edx
    mov al, 0x20
    out dx, al
    add ebp, ebx
exitspec_rom_sector:
    mov dx, 0x1f7
exitspec_rom_wait:
    in al, dx
    test al, 0x80                           # BSY
    jnz exitspec_rom_wait
    test al, 0x21                           # ERR, DF
    jnz exitspec_rom_fail
    test al, 8                              # DRQ
    jz exitspec_rom_wait
    mov dx, 0x1f0
    mov ecx, 128
    rep insd
    dec ebx
    jnz exitspec_rom_sector
    jmp exitspec_rom_piece
exitspec_rom_enter:
    .byte 0xa1                              # mov eax,
    .long rom + (exitspec_boot_rom_end - exitspec_boot_rom)
    .byte 0x8b, 0x1d                        # mov ebx,
    .long rom + (exitspec_boot_rom_end - exitspec_boot_rom) + 4
    mov esi, ebx                            # PVH reads ebx, the boot protocol esi
    xor ebp, ebp
    xor edi, edi
    jmp eax
exitspec_rom_fail:                          # Bochs' own power switch
    .byte 0xbe                              # mov esi,
    .long rom + (exitspec_rom_off - exitspec_boot_rom)
    mov dx, 0x8900
    mov ecx, 8
    rep outsb
exitspec_rom_halt:
    hlt
    jmp exitspec_rom_halt
exitspec_rom_off:
    .ascii "Shutdown"
    .balign 8
exitspec_boot_rom_end:
    .code64
    .popsection
    "#
);

/// Where something from the disk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// A physical address.
    pub(super) to: u32,
    /// How much, up to [`MOST_SECTORS`], from where the one before ended.
    pub(super) sectors: u32,
}

/// The ROM that reads these pieces and jumps to `entry` with `info` in EBX and ESI.
pub(super) fn rom(entry: u32, info: u32, pieces: &[Piece]) -> anyhow::Result<Vec<u8>> {
    let mut rom = code().to_vec();
    for word in [entry, info] {
        rom.extend(word.to_le_bytes());
    }
    for piece in pieces {
        rom.extend(piece.to.to_le_bytes());
        rom.extend(piece.sectors.to_le_bytes());
    }
    rom.extend([0; 8]);
    // And the byte for the sum.
    let blocks = (rom.len() + 1).div_ceil(BLOCK);
    if blocks > MOST_BLOCKS {
        bail!("the kernel and its initramfs are too large for the bed's boot ROM");
    }
    rom.resize(blocks * BLOCK, 0);
    rom[2] = u8::try_from(blocks).context("the boot ROM is too long")?;
    // The BIOS takes no ROM whose bytes do not add up to 0.
    let sum = rom.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    rom[blocks * BLOCK - 1] = sum.wrapping_neg();
    Ok(rom)
}

fn code() -> &'static [u8] {
    unsafe extern "C" {
        safe static exitspec_boot_rom: [u8; 0];
        safe static exitspec_boot_rom_end: [u8; 0];
    }
    let (start, end) = (exitspec_boot_rom.as_ptr(), exitspec_boot_rom_end.as_ptr());
    // SAFETY: both symbols are in one section of the assembly above, the end behind the start, and everything
    // between them is read-only data that lives as long as the program.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(rom: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(rom[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn the_bios_takes_it_for_an_option_rom() {
        for count in [0, 1, 40, 41, 500] {
            let pieces = vec![Piece { to: 0x1234_5678, sectors: 256 }; count];
            let rom = rom(0x100_0123, 0x10000, &pieces).unwrap();
            assert_eq!(rom[..2], [0x55, 0xaa]);
            assert_eq!(rom.len(), usize::from(rom[2]) * 512);
            assert_eq!(rom.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "{count}");
        }
        assert!(rom(0, 0, &vec![Piece { to: 0, sectors: 1 }; 0x4000]).is_err());
    }

    #[test]
    fn the_table_is_where_the_code_looks_for_it() {
        let pieces = [Piece { to: 0x10000, sectors: 3 }, Piece { to: 0x100_0000, sectors: 256 }];
        let rom = rom(0x100_0123, 0x10000, &pieces).unwrap();
        let end = code().len();
        let table: Vec<u32> = (0..8).map(|n| word(&rom, end + n * 4)).collect();
        assert_eq!(table, [0x100_0123, 0x10000, 0x10000, 3, 0x100_0000, 256, 0, 0]);
        // mov eax, [entry]; mov ebx, [info]; mov esi, the first piece
        let entry = (ADDRESS + end as u32).to_le_bytes();
        assert!(rom.windows(5).any(|bytes| bytes[0] == 0xa1 && bytes[1..] == entry));
        let table = (ADDRESS + end as u32 + 8).to_le_bytes();
        assert!(rom.windows(5).any(|bytes| bytes[0] == 0xbe && bytes[1..] == table));
    }
}
