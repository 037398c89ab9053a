//! The bugs that are seeded into KVM, as `test-manifests/seeded-bugs/<family>.toml` describe them.
//!
//! A [`Bug`] that exists is well formed: whatever can be wrong with it without KVM's source is found here, all mistakes
//! of all files at once, each with file and line. Knows nothing of kernels and machines.

mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, bail};

use super::cases::family;
use crate::bed::kind::Kind;
use crate::bed::params::Params;

/// What of the source may be edited: only KVM's modules are built anew.
pub(crate) const EDITABLE: &[&str] =
    &["arch/x86/kvm/", "virt/kvm/", "include/linux/kvm_host.h", "arch/x86/include/asm/kvm_host.h"];

/// A bug.
#[derive(Debug, Clone)]
pub(crate) struct Bug {
    /// `family.what-is-broken`
    pub(crate) id: String,
    /// What such a KVM does wrong, in a sentence.
    pub(crate) breaks: String,
    /// How it is made.
    pub(crate) edits: Vec<Edit>,
    /// The fix that this undoes.
    pub(crate) undoes: Option<String>,
    /// The series of Linux that have the code; all if empty.
    pub(crate) source: Vec<String>,
    /// Where it can show.
    pub(crate) beds: Vec<Kind>,
    /// Parameters of KVM's modules with which it shows, by bed.
    pub(crate) params: BTreeMap<Kind, Params>,
    /// How it shows.
    pub(crate) proof: Proof,
    /// Whether the kernel dies of it.
    pub(crate) crash: bool,
    /// Where it is written.
    pub(crate) place: Place,
}

/// A replacement in a file of the source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Edit {
    /// The file, from the source's root.
    pub(crate) file: String,
    /// What is there, exactly once.
    pub(crate) find: String,
    /// What comes there instead.
    pub(crate) replace: String,
}

/// How a bug shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Each of these cases fails in at least one of the beds.
    Anywhere(Vec<String>),
    /// In each bed these cases fail.
    Each(BTreeMap<Kind, Vec<String>>),
    /// Neither guest nor VMM can see it, for this reason.
    Unobservable(String),
}

/// Where something is written, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Bug {
    /// The part of the id before the dot.
    pub(crate) fn family(&self) -> &str {
        family(&self.id)
    }

    /// The cases that are expected to fail in a bed, or in one of the beds.
    pub(crate) fn expected(&self, bed: Kind) -> &[String] {
        match &self.proof {
            Proof::Anywhere(cases) => cases,
            Proof::Each(beds) => beds.get(&bed).map_or(&[], Vec::as_slice),
            Proof::Unobservable(_) => &[],
        }
    }

    /// Whether this word selects it: a part of its id, or of one of its cases' ids.
    pub(crate) fn is_meant_by(&self, word: &str) -> bool {
        let cases = Kind::ALL.into_iter().flat_map(|bed| self.expected(bed));
        self.id.contains(word) || cases.into_iter().any(|case| case.contains(word))
    }

    /// Whether a series of Linux has the code.
    pub(crate) fn is_for(&self, series: &str) -> bool {
        self.source.is_empty() || self.source.iter().any(|one| one == series)
    }
}

/// All bugs of a folder, in the order of files and lines. `cases` are the ids that there are.
pub(crate) fn load(folder: &Path, cases: &BTreeSet<String>) -> anyhow::Result<Vec<Bug>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.extension().is_some_and(|ending| ending == "toml") && !path.ends_with(super::UNPROVED) {
            files.push(path);
        }
    }
    files.sort();
    let (mut bugs, mut mistakes) = (Vec::new(), Vec::new());
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // As the reader finds it from the workspace, in which messages are read.
        let shown = path.strip_prefix(crate::build::workspace()).unwrap_or(&path).to_owned();
        raw::parse(&shown, &text, &mut bugs, &mut mistakes);
    }
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for bug in &bugs {
        if let Some(first) = seen.insert(&bug.id, &bug.place) {
            mistakes.push(format!("{}: {}: there is one of this id at {first}", bug.place, bug.id));
        }
        for case in Kind::ALL.into_iter().flat_map(|bed| bug.expected(bed)).collect::<BTreeSet<_>>() {
            if !cases.contains(case.split('~').next().unwrap_or_default()) {
                mistakes.push(format!("{}: {}: caught-by: there is no case `{case}`", bug.place, bug.id));
            }
        }
    }
    if !mistakes.is_empty() {
        bail!("mistakes in the seeded bugs:\n    {}", mistakes.join("\n    "));
    }
    Ok(bugs)
}

#[cfg(test)]
impl Bug {
    /// A bug in both beds, of which nothing but its id and its proof matters to a test.
    pub(crate) fn of_test(id: &str, proof: Proof) -> Self {
        Self {
            id: id.into(),
            breaks: "x".into(),
            edits: Vec::new(),
            undoes: None,
            source: Vec::new(),
            beds: Kind::ALL.to_vec(),
            params: BTreeMap::new(),
            proof,
            crash: false,
            place: Place { file: "f.toml".into(), line: 1 },
        }
    }
}

#[cfg(test)]
impl Proof {
    /// Any bed will do, and these cases.
    pub(crate) fn by(cases: &[&str]) -> Self {
        Self::Anywhere(cases.iter().map(|case| (*case).to_owned()).collect())
    }
}

#[cfg(test)]
mod tests;
