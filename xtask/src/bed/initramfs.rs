//! The initial file system of a bed, as a cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Not compressed: an emulated CPU would spend longer on unpacking it than on copying it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use cpio::newc::{Builder, ModeFileType, trailer};

/// An archive that grows by what is put into it.
pub(crate) struct Initramfs<W: Write> {
    to: W,
    entries: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Initramfs<W> {
    /// An archive with the folders and the console that the kernel and the first program expect.
    pub(crate) fn begin(to: W) -> io::Result<Self> {
        let mut archive = Self { to, entries: 0, folders: BTreeSet::new() };
        for folder in ["dev", "proc", "sys", "tmp"] {
            archive.folder(folder)?;
        }
        // The kernel opens it for the first program before anything is mounted.
        let console = Builder::new("dev/console").mode(0o600).set_mode_file_type(ModeFileType::Char);
        archive.entry(console.rdev_major(5).rdev_minor(1), &[])?;
        Ok(archive)
    }

    /// A file with these permissions; folders above it are made.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.folder(&path[..end])?;
        }
        let file = Builder::new(path).mode(mode).set_mode_file_type(ModeFileType::Regular);
        self.entry(file, content)
    }

    /// A copy of the file at `from`.
    pub(crate) fn copy(&mut self, path: &str, mode: u32, from: &Path) -> anyhow::Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, mode, &content).context("cannot write the initramfs")
    }

    /// Copies of the files directly in `from` with these names.
    pub(crate) fn copy_folder(
        &mut self,
        path: &str,
        from: &Path,
        wanted: impl Fn(&Path) -> bool,
    ) -> anyhow::Result<()> {
        let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        // The same files give the same archive.
        names.sort();
        for name in names.iter().filter(|name| wanted(Path::new(name)) && from.join(name).is_file()) {
            self.copy(&format!("{path}/{name}"), 0o644, &from.join(name))?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn end(self) -> io::Result<W> {
        trailer(self.to)
    }

    fn folder(&mut self, path: &str) -> io::Result<()> {
        if !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.entry(Builder::new(path).mode(0o755).nlink(2).set_mode_file_type(ModeFileType::Directory), &[])
    }

    fn entry(&mut self, entry: Builder, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::Error::other("a file has 4 GiB or more"))?;
        self.entries += 1;
        let mut writer = entry.ino(self.entries).write(&mut self.to, size);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Every entry's name, mode and content.
    fn entries(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(bytes).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            found.push((name, mode, content));
            bytes = reader.finish().unwrap();
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Initramfs::begin(Vec::new()).unwrap();
        archive.file("/init", 0o755, b"program").unwrap();
        archive.file("bed/modules/kvm.ko", 0o644, b"").unwrap();
        archive.file("bed/modules/kvm_amd.ko", 0o644, b"odd").unwrap();
        let entries = entries(&archive.end().unwrap());
        let names: Vec<_> = entries.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        assert_eq!(
            names,
            [
                ("dev", 0o040_755),
                ("proc", 0o040_755),
                ("sys", 0o040_755),
                ("tmp", 0o040_755),
                ("dev/console", 0o020_600),
                ("init", 0o100_755),
                ("bed", 0o040_755),
                ("bed/modules", 0o040_755),
                ("bed/modules/kvm.ko", 0o100_644),
                ("bed/modules/kvm_amd.ko", 0o100_644),
            ]
        );
        assert_eq!(entries[5].2, b"program");
        assert_eq!(entries[9].2, b"odd");
    }

    #[test]
    fn a_folder_is_copied_by_its_files_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", "schema"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("c.toml")).unwrap();
        let mut archive = Initramfs::begin(Vec::new()).unwrap();
        archive.copy_folder("m", folder.path(), |name| name.extension().is_some()).unwrap();
        let names: Vec<_> = entries(&archive.end().unwrap()).into_iter().map(|entry| entry.0).collect();
        assert_eq!(names[5..], ["m", "m/a.toml", "m/b.toml"]);
    }
}
