//! A built tree of Linux in which one bug at a time is made.
//!
//! Beside the tree lies an untouched copy of what may be edited, objects included. Every build begins by putting that
//! copy in place, with its times, so that it matters neither what an earlier build has edited nor how it ended, and
//! `make` compiles what the bug's files touch and nothing else.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::bugs::{Bug, EDITABLE, Edit};
use crate::bed::kernel::small;
use crate::bed::lock;

/// The modules, where the tree has them.
pub(super) const MODULES: &[&str] =
    &["virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-amd.ko", "arch/x86/kvm/kvm-intel.ko"];

/// The file of the untouched copy that says where its tree was then.
const PLACE: &str = "place";

/// The tree, while nobody else has it.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    untouched: PathBuf,
    log: PathBuf,
    id: String,
    _lock: File,
}

impl Tree {
    /// The tree of a series, built first if need be. `folder` keeps it, and apt's lists.
    pub(crate) fn open(series: &str, folder: &Path) -> anyhow::Result<Self> {
        let place = folder.join("seeded").join(format!("linux-{series}"));
        // Beside the place, which a build begins by removing.
        let lock = lock::lock(&folder.join("seeded"))?;
        let untouched = place.join("untouched");
        let log = place.join("prove.log");
        let root = match small::built_tree(series, &place) {
            Some(root) => root,
            None => small::build_tree(series, folder, &place)?,
        };
        let mut tree = Self { root, untouched, log, id: String::new(), _lock: lock };
        if !tree.is_kept() {
            // What the first build of single modules, or of a tree that was moved, makes anew is not to be made for
            // every bug.
            let log = tree.begin()?;
            if tree.untouched.is_dir() {
                tree.restore()?;
            }
            tree.make(&log, MODULES)?;
            tree.keep()?;
        }
        tree.id = tree.identity()?;
        Ok(tree)
    }

    /// A tree of a test's own.
    #[cfg(test)]
    pub(super) fn of(place: &Path) -> Self {
        let lock = lock::lock(place).unwrap();
        let (root, untouched) = (place.join("tree"), place.join("untouched"));
        let mut tree = Self { root, untouched, log: place.join("log"), id: String::new(), _lock: lock };
        if !tree.is_kept() {
            tree.keep().unwrap();
        }
        tree.id = tree.identity().unwrap();
        tree
    }

    /// What the unmodified modules hold: two trees of the same source, configuration and compiler have the same.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The source's root.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of everything that belongs to it.
    pub(super) fn place(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// Makes something else in it.
    pub(super) fn make_other(&self, targets: &[&str]) -> anyhow::Result<()> {
        self.make(&self.begin()?, targets)
    }

    /// The kernel to boot.
    pub(crate) fn image(&self) -> PathBuf {
        self.root.join("vmlinux")
    }

    /// Its release: `6.12.117`.
    pub(crate) fn release(&self) -> String {
        let path = self.root.join("include/config/kernel.release");
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    /// What is wrong with these edits, without making them.
    pub(crate) fn mistakes(&self, bug: &Bug) -> Option<String> {
        let edited = edited(&bug.edits, |file| self.original(file));
        edited.err().map(|error| format!("{}: {}: {error:#}", bug.place, bug.id))
    }

    /// Builds the modules with these edits.
    pub(super) fn build(&self, edits: &[Edit]) -> anyhow::Result<()> {
        let log = self.begin()?;
        self.restore()?;
        for (file, text) in edited(edits, |file| self.original(file))? {
            let path = self.root.join(&file);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        self.make(&log, MODULES)
    }

    /// Copies the modules into a folder.
    pub(super) fn give(&self, to: &Path) -> anyhow::Result<()> {
        for module in MODULES {
            let (from, name) = (self.root.join(module), module.rsplit('/').next().unwrap_or(module));
            fs::copy(&from, to.join(name)).with_context(|| from.display().to_string())?;
        }
        Ok(())
    }

    /// Puts everything back that a bug may have changed.
    pub(super) fn restore(&self) -> anyhow::Result<()> {
        for place in places() {
            let at = self.root.join(place);
            if at.is_dir() {
                small::remove(&at).with_context(|| at.display().to_string())?;
            }
            copy(&self.untouched.join(place), &at)?;
        }
        Ok(())
    }

    fn original(&self, file: &str) -> anyhow::Result<String> {
        let path = self.untouched.join(file);
        fs::read_to_string(path).with_context(|| format!("{file}: this Linux has no such file"))
    }

    /// The log of a build, once no other build writes to it: one whose starter was killed may still go on.
    fn begin(&self) -> anyhow::Result<File> {
        let named = || self.log.display().to_string();
        let log = File::options().create(true).append(true).open(&self.log).with_context(named)?;
        log.lock().with_context(named)?;
        // Only what this build says is of interest when it fails.
        log.set_len(0).with_context(named)?;
        Ok(log)
    }

    fn make(&self, log: &File, targets: &[&str]) -> anyhow::Result<()> {
        small::make_again(&self.root, (&self.log, log), targets)
    }

    /// Whether the untouched copy is there, and of a tree in this place: `make` goes by paths, too.
    fn is_kept(&self) -> bool {
        let place = fs::read(self.untouched.join(PLACE));
        place.is_ok_and(|place| place == self.root.as_os_str().as_encoded_bytes())
    }

    fn keep(&self) -> anyhow::Result<()> {
        let draft = self.untouched.with_extension("draft");
        small::remove(&draft).with_context(|| draft.display().to_string())?;
        for place in places() {
            copy(&self.root.join(place), &draft.join(place))?;
        }
        let place = draft.join(PLACE);
        fs::write(&place, self.root.as_os_str().as_encoded_bytes())
            .with_context(|| place.display().to_string())?;
        small::remove(&self.untouched).with_context(|| self.untouched.display().to_string())?;
        // At once, so that a copy that is there is whole.
        fs::rename(&draft, &self.untouched).with_context(|| self.untouched.display().to_string())
    }

    fn identity(&self) -> anyhow::Result<String> {
        let mut hash = DefaultHasher::new();
        for module in MODULES.iter().filter(|module| EDITABLE.iter().any(|place| module.starts_with(place))) {
            let path = self.untouched.join(module);
            fs::read(&path).with_context(|| path.display().to_string())?.hash(&mut hash);
        }
        Ok(format!("{:016x}", hash.finish()))
    }
}

fn places() -> impl Iterator<Item = &'static str> {
    EDITABLE.iter().map(|place| place.trim_end_matches('/'))
}

/// Copies a file or a folder with its times, which `make` goes by.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let named = || format!("cannot copy {} to {}", from.display(), to.display());
    if let Some(above) = to.parent() {
        fs::create_dir_all(above).with_context(named)?;
    }
    let status = Command::new("cp").args(["-a", "-T"]).args([from, to]).status().with_context(named)?;
    if !status.success() {
        bail!("{}", named());
    }
    Ok(())
}

/// The files that these edits change, and what they hold then.
fn edited(
    edits: &[Edit],
    original: impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut files: Vec<(String, String)> = Vec::new();
    for Edit { file, find, replace } in edits {
        let at = files.iter().position(|(name, _)| name == file);
        let at = if let Some(at) = at {
            at
        } else {
            files.push((file.clone(), original(file)?));
            files.len() - 1
        };
        let text = &mut files[at].1;
        match text.matches(find.as_str()).count() {
            1 => *text = text.replacen(find.as_str(), replace, 1),
            count => bail!("{file}: this text is there {count} times, not once:\n{}", indented(find)),
        }
    }
    Ok(files)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("        {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::prove::bugs::{Place, Proof};

    const NESTED: &str = "arch/x86/kvm/svm/nested.c";

    fn edit(file: &str, find: &str, replace: &str) -> Edit {
        Edit { file: file.into(), find: find.into(), replace: replace.into() }
    }

    /// A tree with little in it.
    fn tree() -> (tempfile::TempDir, Tree) {
        let place = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - Duration::from_secs(1000);
        for (file, text) in [
            (NESTED, "one();\ntwo();\ntwo();\n"),
            ("arch/x86/kvm/kvm.ko", "kvm"),
            ("arch/x86/kvm/kvm-amd.ko", "amd"),
            ("arch/x86/kvm/kvm-intel.ko", "intel"),
            ("virt/kvm/kvm_main.c", "main"),
            // Whatever is to be made, the build is killed.
            ("Makefile", ".PHONY: $(MAKECMDGOALS)\n$(MAKECMDGOALS):\n\t@kill -9 $$PPID\n"),
            ("virt/lib/irqbypass.ko", "bypass"),
            ("include/linux/kvm_host.h", "header"),
            ("arch/x86/include/asm/kvm_host.h", "header"),
        ] {
            let path = place.path().join("tree").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
        }
        let tree = Tree::of(place.path());
        (place, tree)
    }

    #[test]
    fn a_pattern_must_be_there_exactly_once() {
        let original = |_: &str| Ok("one two two".to_owned());
        let changed = edited(&[edit("f", "one", "1"), edit("f", "1 two", "2")], original).unwrap();
        assert_eq!(changed, [("f".to_owned(), "2 two".to_owned())]);
        for (find, count) in [("two", "2 times"), ("three", "0 times")] {
            let error = edited(&[edit("f", find, "x")], original).unwrap_err().to_string();
            assert!(error.contains("f: ") && error.contains(count) && error.contains(find), "{error}");
        }
    }

    #[test]
    fn a_bug_that_does_not_fit_is_named_with_its_place_and_file() {
        let (_place, tree) = tree();
        let bug = |find: &str| Bug {
            id: "nested.b".into(),
            breaks: "x".into(),
            edits: vec![edit(NESTED, find, "x")],
            undoes: None,
            source: Vec::new(),
            beds: Vec::new(),
            params: std::collections::BTreeMap::new(),
            proof: Proof::Anywhere(Vec::new()),
            crash: false,
            place: Place { file: "nested.toml".into(), line: 7 },
        };
        assert_eq!(tree.mistakes(&bug("one();")), None);
        let mistake = tree.mistakes(&bug("two();")).unwrap();
        let expected = "nested.toml:7: nested.b: arch/x86/kvm/svm/nested.c: this text is there 2 times";
        assert!(mistake.starts_with(expected), "{mistake}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let (_place, tree) = tree();
        let error = edited(&[edit("virt/kvm/none.c", "x", "y")], |file| tree.original(file));
        assert!(error.unwrap_err().to_string().starts_with("virt/kvm/none.c: "));
    }

    #[test]
    fn after_a_kill_in_the_middle_the_source_is_as_it_was() {
        let (place, tree) = tree();
        let path = place.path().join("tree").join(NESTED);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(tree.build(&[edit(NESTED, "one();", "bug();")]).is_err());
        assert!(fs::read_to_string(&path).unwrap().starts_with("bug();"));
        fs::write(place.path().join("tree/virt/kvm/left.o"), "by a build").unwrap();
        drop(tree);
        let tree = Tree::of(place.path());
        assert!(tree.build(&[edit("virt/kvm/kvm_main.c", "main", "niam")]).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one();\ntwo();\ntwo();\n");
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert_eq!(fs::read_to_string(place.path().join("tree/virt/kvm/kvm_main.c")).unwrap(), "niam");
        assert!(!place.path().join("tree/virt/kvm/left.o").exists());
        tree.restore().unwrap();
        assert_eq!(fs::read_to_string(place.path().join("tree/virt/kvm/kvm_main.c")).unwrap(), "main");
    }

    #[test]
    fn a_build_that_goes_on_behind_its_killer_is_waited_for() {
        let (place, tree) = tree();
        let (pipe, gone) = (place.path().join("pipe"), place.path().join("gone"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // What make has started outlives it, until somebody writes to the pipe.
        let text = format!(
            "all:\n\t@(read x <{}; touch {}) & kill -9 $$PPID\n%.ko: all;\n",
            pipe.display(),
            gone.display()
        );
        fs::write(place.path().join("tree/Makefile"), text).unwrap();
        assert!(tree.make_other(&["all"]).is_err());
        let other = File::options().append(true).open(place.path().join("log")).unwrap();
        assert!(other.try_lock().is_err());
        fs::write(&pipe, "x\n").unwrap();
        drop(tree.begin().unwrap());
        assert!(gone.exists());
    }

    #[test]
    fn two_do_not_edit_at_once() {
        let (place, tree) = tree();
        let other = File::options().append(true).open(place.path().join("lock")).unwrap();
        assert!(other.try_lock().is_err());
        drop(tree);
        // Another test's child may have it open until it starts its program.
        other.lock().unwrap();
    }
}
