//! Which modules a bed loads, and in which order.
//!
//! The order comes from `modules.dep` where depmod has been, and from the modules' own `depends=`
//! elsewhere. A module that is built into the kernel needs no file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};

use crate::bed::unpack::unpack;

/// No module is larger, even with debug information.
const LARGEST: u64 = 1 << 30;

/// A module, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// The module itself.
    pub(crate) content: Vec<u8>,
    /// The names of its parameters.
    pub(crate) params: Vec<String>,
}

/// What a folder of modules holds.
#[derive(Debug)]
pub(crate) struct Modules {
    folder: PathBuf,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    /// From `modules.dep`, if it is there.
    listed: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Looks through a folder: `/lib/modules/RELEASE`, a root that has one such, or a kernel's build tree.
    pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let folder = release_folder(folder)?;
        let mut files = BTreeMap::new();
        collect(&folder, &mut files).with_context(|| format!("cannot read {}", folder.display()))?;
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let builtin = read("modules.builtin").lines().filter_map(name_of).collect();
        let listed = read("modules.dep").lines().filter_map(dependencies).collect();
        Ok(Self { folder, files, builtin, listed })
    }

    /// The modules to load for one of them, in order; empty if it is built in.
    pub(crate) fn to_load(&self, wanted: &str) -> anyhow::Result<Vec<Module>> {
        let mut order = Vec::new();
        self.visit(wanted, None, &mut Vec::new(), &mut order)?;
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        by: Option<&str>,
        path: &mut Vec<String>,
        order: &mut Vec<Module>,
    ) -> anyhow::Result<()> {
        if order.iter().any(|module| module.name == name) || self.builtin.contains(name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            let folder = self.folder.display();
            match by {
                Some(by) => bail!("module {by} needs {name}, which is neither in {folder} nor built in"),
                None => {
                    bail!("there is no module {name} in {folder}, and its modules.builtin does not name it")
                }
            }
        };
        if path.iter().any(|above| above == name) {
            bail!("modules depend on each other: {} and {name}", path.join(", "));
        }
        let named = || format!("{}", file.display());
        let packed = fs::read(file).with_context(named)?;
        let content = unpack(&packed, LARGEST).with_context(named)?;
        let info = Info::of(&content).with_context(named)?;
        let needs = self.listed.get(name).unwrap_or(&info.depends);
        path.push(name.to_owned());
        for need in needs {
            self.visit(need, Some(name), path, order)?;
        }
        path.pop();
        order.push(Module { name: name.to_owned(), content, params: info.params });
        Ok(())
    }
}

/// The folder itself, or the one release below its `lib/modules`.
fn release_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    let below = folder.join("lib/modules");
    if !below.is_dir() {
        if !folder.is_dir() {
            bail!("{}: there is no such folder of modules", folder.display());
        }
        return Ok(folder.to_owned());
    }
    let entries = fs::read_dir(&below).with_context(|| format!("cannot read {}", below.display()))?;
    let releases: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match releases.as_slice() {
        [one] => Ok(one.clone()),
        _ => bail!("{} has {} releases, name one of them", below.display(), releases.len()),
    }
}

/// Finds `*.ko` and its compressed forms; follows no links, since `build` and `source` lead far away.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = path.to_str().and_then(name_of).filter(|_| kind.is_file()) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `kvm_amd` for `kernel/arch/x86/kvm/kvm-amd.ko.xz`; `None` for what is no module.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, ending) = file.split_once(".ko")?;
    matches!(ending, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

/// A line of `modules.dep`: a module, and what it needs, the last loaded first.
fn dependencies(line: &str) -> Option<(String, Vec<String>)> {
    let (module, needs) = line.split_once(':')?;
    let needs = needs.split_whitespace().rev().filter_map(name_of).collect();
    Some((name_of(module)?, needs))
}

/// What a module's `.modinfo` tells.
#[derive(Debug, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    params: Vec<String>,
}

impl Info {
    fn of(module: &[u8]) -> anyhow::Result<Self> {
        let file: ElfFile64 = ElfFile64::parse(module).context("it is no module")?;
        let section = file.section_by_name(".modinfo").context("it has no .modinfo")?;
        let data = section.data().context("its .modinfo cannot be read")?;
        let entries = || data.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
        let lists = entries().filter_map(|entry| entry.strip_prefix("depends="));
        let names = lists.flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
        let depends = names.map(|name| name.replace('-', "_")).collect();
        let types = entries().filter_map(|entry| entry.strip_prefix("parmtype="));
        let params = types.filter_map(|text| Some(text.split_once(':')?.0.to_owned())).collect();
        Ok(Self { depends, params })
    }
}

#[cfg(test)]
mod tests;
