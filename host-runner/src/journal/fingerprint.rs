//! Hashes of the files that decide verdicts, to tell whether two runs mean the same.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One hash per kind of file, in hexadecimal. They detect change, not malice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Fingerprint {
    /// The manifests.
    pub manifests: String,
    /// The guest payloads.
    pub payloads: String,
    /// The waivers.
    pub waivers: String,
    /// The runner's executable; empty in journals of runners that did not say.
    #[serde(default)]
    pub runner: String,
}

impl Fingerprint {
    /// Hashes the manifests (`*.toml`) in one folder, the named payloads in another, waivers, and the runner.
    pub fn take(manifests: &Path, payloads: &[PathBuf], waivers: &str, runner: &Path) -> io::Result<Self> {
        let mut files: Vec<PathBuf> = match fs::read_dir(manifests) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        let hash = |files: &[PathBuf]| -> io::Result<String> {
            let mut hash = Fnv::default();
            for file in files {
                hash.add(file.file_name().unwrap_or_default().as_encoded_bytes());
                match fs::read(file) {
                    Ok(content) => hash.add(&content),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => hash.add(b"absent"),
                    Err(error) => return Err(error),
                }
            }
            Ok(hash.text())
        };
        let mut text = Fnv::default();
        text.add(waivers.as_bytes());
        let mut program = Fnv::default();
        program.stream(File::open(runner)?)?;
        let runner = program.text();
        Ok(Self { manifests: hash(&files)?, payloads: hash(payloads)?, waivers: text.text(), runner })
    }

    /// What differs, for a person.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let pairs = [
            ("the manifests", &self.manifests, &now.manifests),
            ("the guest payloads", &self.payloads, &now.payloads),
            ("the waivers", &self.waivers, &now.waivers),
        ];
        pairs
            .iter()
            .filter(|(_, was, is)| was != is)
            .map(|(what, ..)| format!("{what} have changed"))
            .chain((self.runner != now.runner).then(|| "the runner has changed".to_owned()))
            .collect()
    }
}

/// 64-bit FNV-1a: the same in every version of every library.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds bytes and their number, so that moving a byte to the next file is a change.
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().chain(&(bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// Adds what is read, in words of eight bytes: a program is large, and emulated CPUs are slow.
    fn stream(&mut self, mut from: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let mut filled = 0;
            while filled < buffer.len() {
                match from.read(&mut buffer[filled..])? {
                    0 => break,
                    count => filled += count,
                }
            }
            let (words, rest) = buffer[..filled].as_chunks::<8>();
            for word in words {
                self.0 = (self.0 ^ u64::from_le_bytes(*word)).wrapping_mul(0x100_0000_01b3);
                // A product's upper bits hear of every bit below them, its lower ones of none above.
                self.0 ^= self.0 >> 32;
            }
            self.add(rest);
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }

    fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}
