//! Device facts remembered between processes, so that listing can tell skips without a device.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DeviceFacts, HostFacts};

/// The file that remembers; valid for one boot of one kernel with the same module parameters.
#[derive(Debug, Clone)]
pub struct Cache {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    boot_id: String,
    host: HostFacts,
}

impl Cache {
    /// The cache `host.json` in this folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("host.json") }
    }

    /// What was remembered for this very host; `None` if nothing, or if the host has changed since.
    pub fn load(&self, host: &HostFacts) -> Option<DeviceFacts> {
        let text = fs::read(&self.path).ok()?;
        let remembered: Remembered = serde_json::from_slice(&text).ok()?;
        let same = remembered.boot_id == boot_id() && host.differences(&remembered.host).is_empty();
        same.then_some(remembered.host.device).flatten()
    }

    /// Remembers. Several processes may do so at once: the file appears whole or not at all.
    pub fn store(&self, host: &HostFacts) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let text = serde_json::to_vec(&Remembered { boot_id: boot_id(), host: host.clone() })?;
        let draft = folder.join(format!("host.json.{}", std::process::id()));
        fs::write(&draft, text)?;
        fs::rename(&draft, &self.path)
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_the_same_host_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path());
        let mut host = HostFacts::read_under(Path::new("/nonexistent"));
        assert_eq!(cache.load(&host), None);
        let facts = DeviceFacts { caps: ["x86-smm".to_owned()].into(), ..DeviceFacts::default() };
        host.device = Some(facts.clone());
        cache.store(&host).unwrap();
        host.device = None;
        assert_eq!(cache.load(&host), Some(facts));
        host.params.insert("kvm.halt_poll_ns".into(), "1".into());
        assert_eq!(cache.load(&host), None);
        fs::write(folder.path().join("host.json"), "{ torn").unwrap();
        assert_eq!(cache.load(&host), None);
    }
}
