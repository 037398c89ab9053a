//! Which modules a bed loads, and in which order.
//!
//! Files and order come from `modules.dep` where depmod has been. Elsewhere the build's `modules.order` names the
//! files, and only without both they are looked for; the order comes from the modules' own `depends=`. A module that
//! is built into the kernel needs no file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};

use crate::bed::unpack::unpack;

/// No module is larger, even with debug information.
const LARGEST: u64 = 1 << 30;

/// How the files of packed modules end.
const ENDINGS: &[&str] = &["", ".xz", ".zst", ".gz"];

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
    /// By name. One that was looked for may be there twice.
    files: BTreeMap<String, BTreeSet<PathBuf>>,
    builtin: BTreeSet<String>,
    /// From `modules.dep`, if it is there.
    listed: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Looks through a folder: `/lib/modules/RELEASE`, a root that has one such, or a kernel's build tree.
    pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let folder = release_folder(folder)?;
        let read = |name: &str| -> anyhow::Result<Option<String>> {
            let path = folder.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
            }
        };
        let builtin = read("modules.builtin")?.unwrap_or_default();
        let dep = read("modules.dep")?;
        // What is left in the folder of an earlier build is in no list.
        let files = match (&dep, read("modules.order")?) {
            (Some(dep), _) => list(&folder, dep.split_whitespace().map(|path| path.trim_end_matches(':'))),
            (None, Some(order)) => list(&folder, order.lines()),
            (None, None) => {
                let mut files = BTreeMap::new();
                collect(&folder, &mut files).with_context(|| format!("cannot read {}", folder.display()))?;
                files
            }
        };
        let builtin = builtin.lines().filter_map(name_of).collect();
        let listed = dep.unwrap_or_default().lines().filter_map(dependencies).collect();
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
        let mut files = self.files.get(name).into_iter().flatten();
        let Some(file) = files.next() else {
            let folder = self.folder.display();
            match by {
                Some(by) => bail!("module {by} needs {name}, which is neither in {folder} nor built in"),
                None => {
                    bail!("there is no module {name} in {folder}, and its modules.builtin does not name it")
                }
            }
        };
        if let Some(second) = files.next() {
            let (first, second) = (file.display(), second.display());
            bail!(
                "there are two modules {name}, {first} and {second}; give a folder with one of them by --modules"
            );
        }
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

/// The files that a list names, as far as they are there. Newer builds list objects (`kvm.o`), older ones put
/// `kernel/` before each path, and an installation may have packed the files.
fn list<'a>(folder: &Path, paths: impl Iterator<Item = &'a str>) -> BTreeMap<String, BTreeSet<PathBuf>> {
    let mut files: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for path in paths {
        let path = path.strip_suffix(".o").map_or_else(|| path.to_owned(), |stem| format!("{stem}.ko"));
        let Some(name) = name_of(&path) else { continue };
        let places = [path.as_str(), path.strip_prefix("kernel/").unwrap_or(&path)];
        let candidates = places
            .iter()
            .flat_map(|place| ENDINGS.iter().map(move |ending| folder.join(format!("{place}{ending}"))));
        files.entry(name).or_default().extend(candidates.into_iter().find(|file| file.is_file()));
    }
    files
}

/// Finds `*.ko` and its compressed forms; follows no links, since `build` and `source` lead far away.
fn collect(folder: &Path, files: &mut BTreeMap<String, BTreeSet<PathBuf>>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = path.to_str().and_then(name_of).filter(|_| kind.is_file()) {
            files.entry(name).or_default().insert(path);
        }
    }
    Ok(())
}

/// `kvm_amd` for `kernel/arch/x86/kvm/kvm-amd.ko.xz`; `None` for what is no module.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, ending) = file.split_once(".ko")?;
    ENDINGS.contains(&ending).then(|| name.replace('-', "_"))
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
