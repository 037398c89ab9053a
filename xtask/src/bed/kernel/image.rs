//! A kernel image as it boots fastest: the ELF inside a bzImage, entered by PVH.
//!
//! A bzImage unpacks itself, which takes an emulated CPU seconds; the ELF inside is unpacked here, once,
//! and kept. A kernel without an entry for PVH is booted as it is.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::bed::unpack::{Form, unpack};

/// No kernel is larger; a build with debug information and sanitizers comes near it.
const LARGEST: u64 = 4 << 30;

/// The note that holds a kernel's 32-bit entry for PVH: `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: elf::NoteType = elf::NoteType(18);

/// The image to boot for the one that was given; unpacked ones are kept in `cache`.
pub(crate) fn bootable(image: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
    let named = || format!("{}", image.display());
    let path = fs::canonicalize(image).with_context(named)?;
    let bytes = fs::read(&path).with_context(named)?;
    if bytes.starts_with(&elf::ELFMAG) {
        if pvh_entry(&bytes).is_some() {
            return Ok(path);
        }
        bail!("{} is an ELF file without an entry for PVH (CONFIG_PVH); give the bzImage", named());
    }
    // By what it holds: copies and reproducible builds keep or forge its time.
    let place = format!("vmlinux-{:016x}", hash(&path));
    let kept = cache.join(format!("{place}-{:016x}", hash(&bytes)));
    if kept.is_file() {
        return Ok(kept);
    }
    let payload = payload(&bytes).with_context(named)?;
    let Ok(vmlinux) = unpack(payload, LARGEST) else { return Ok(path) };
    if pvh_entry(&vmlinux).is_none() {
        return Ok(path);
    }
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let keep = || -> std::io::Result<()> {
        let draft = tempfile::NamedTempFile::new_in(cache)?;
        fs::write(draft.path(), &vmlinux)?;
        draft.persist(&kept)?;
        Ok(())
    };
    keep().with_context(|| format!("cannot write {}", kept.display()))?;
    forget(cache, &place, &kept).with_context(|| format!("cannot tidy {}", cache.display()))?;
    Ok(kept)
}

/// Removes what was kept of the same place before: it was built anew, and kernels are large.
fn forget(cache: &Path, place: &str, kept: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(place) && path != kept {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// The compressed kernel in a bzImage (Documentation/arch/x86/boot.rst: `payload_offset`, `payload_length`).
fn payload(image: &[u8]) -> anyhow::Result<&[u8]> {
    let field = |at: usize| -> Option<u32> {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("it is no bzImage: there is no `HdrS` at 0x202");
    }
    let version = field(0x206).unwrap_or_default() & 0xffff;
    if version < 0x208 {
        bail!("its boot protocol {version:#x} is older than 2.08 (Linux 2.6.26)");
    }
    let sectors = image.get(0x1f1).copied().unwrap_or_default();
    // Zero means four, for the sake of the oldest loaders.
    let setup = (usize::from(if sectors == 0 { 4 } else { sectors }) + 1) * 512;
    let offset = field(0x248).unwrap_or_default() as usize;
    let length = field(0x24c).unwrap_or_default() as usize;
    let start = setup + offset;
    let mut payload = image.get(start..start + length).with_context(|| {
        format!("it is cut off: its payload of {length} bytes should begin at {start:#x}, but there are only {} bytes", image.len())
    })?;
    // The build appends the unpacked size, except to gzip, which has it at its own end.
    if Form::of(payload) != Form::Gzip {
        payload = payload.get(..length.saturating_sub(4)).unwrap_or_default();
    }
    Ok(payload)
}

/// Where a 64-bit ELF is entered by PVH: a physical address. `None` if it has no such entry.
pub(crate) fn pvh_entry(bytes: &[u8]) -> Option<u32> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, bytes).unwrap_or_default();
    segments.iter().find_map(|segment| {
        let mut notes = segment.notes(endian, bytes).ok()??;
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                // Four bytes, or eight in kernels that say it in the ELF's own width.
                return Some(u32::from_le_bytes(note.desc().get(..4)?.try_into().ok()?));
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bz_image(payload: &[u8], setup_sectors: u8) -> Vec<u8> {
        let setup = (usize::from(if setup_sectors == 0 { 4 } else { setup_sectors }) + 1) * 512;
        let mut image = vec![0; setup + 16];
        image[0x1f1] = setup_sectors;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn the_payload_is_found_and_loses_the_size_that_the_build_appends() {
        for sectors in [0, 4, 31] {
            assert_eq!(payload(&bz_image(b"kernelSIZE", sectors)).unwrap(), b"kernel");
        }
        // gzip's own last four bytes are that size.
        assert_eq!(payload(&bz_image(b"\x1f\x8bkernelSIZE", 4)).unwrap(), b"\x1f\x8bkernelSIZE");
    }

    #[test]
    fn cut_anywhere_it_is_refused_and_never_read_beyond_its_end() {
        let image = bz_image(b"kernelSIZE", 4);
        for cut in 0..image.len() {
            assert!(payload(&image[..cut]).is_err(), "{cut}");
        }
        let mut huge = image.clone();
        huge[0x248..0x250].fill(0xff);
        assert!(payload(&huge).unwrap_err().to_string().contains("cut off"));
        let mut old = image;
        old[0x206..0x208].copy_from_slice(&0x207_u16.to_le_bytes());
        assert!(payload(&old).unwrap_err().to_string().contains("2.08"));
    }

    #[test]
    fn an_image_that_cannot_be_unpacked_is_booted_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("bzImage");
        fs::write(&image, bz_image(b"no known formSIZE", 4)).unwrap();
        let found = bootable(&image, &folder.path().join("cache")).unwrap();
        assert_eq!(found, fs::canonicalize(&image).unwrap());
    }

    /// An ELF file whose only note is the entry for PVH, and bytes that tell two of them apart.
    fn vmlinux(build: u8) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [0_u64, 64, 0] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        elf.extend([4, 0, 0, 0, 4, 0, 0, 0]);
        for word in [120_u64, 0, 0, 20, 20, 4] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend([4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
        elf.extend(b"Xen\0\0\0\x10\0");
        elf.extend([build; 16]);
        elf
    }

    fn built(build: u8) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &vmlinux(build)).unwrap();
        bz_image(&gzip.finish().unwrap(), 4)
    }

    #[test]
    fn an_image_is_unpacked_once_and_again_when_its_bytes_change() {
        let folder = tempfile::tempdir().unwrap();
        let (image, other, cache) =
            (folder.path().join("a"), folder.path().join("b"), folder.path().join("cache"));
        let time = std::time::SystemTime::UNIX_EPOCH;
        let build = |path: &Path, build: u8| {
            fs::write(path, built(build)).unwrap();
            // As reproducible builds do.
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
            bootable(path, &cache).unwrap()
        };
        let files = || fs::read_dir(&cache).unwrap().count();
        let first = build(&image, 1);
        assert_eq!(fs::read(&first).unwrap(), vmlinux(1));
        let elsewhere = build(&other, 1);
        assert_eq!(files(), 2);
        // A hit does not write.
        fs::write(&first, "kept").unwrap();
        assert_eq!(build(&image, 1), first);
        assert_eq!(fs::read(&first).unwrap(), b"kept");
        // Same place, same time, same size, another kernel.
        let second = build(&image, 2);
        assert_eq!(fs::read(&second).unwrap(), vmlinux(2));
        assert!(!first.exists() && elsewhere.exists());
        assert_eq!(files(), 2);
    }

    #[test]
    fn an_elf_file_without_an_entry_is_refused_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("vmlinux");
        fs::write(&image, b"\x7fELF and garbage").unwrap();
        let error = bootable(&image, folder.path()).unwrap_err().to_string();
        assert!(error.contains("give the bzImage"), "{error}");
    }
}
