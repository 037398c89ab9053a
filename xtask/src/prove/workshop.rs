//! Modules with a bug in them, built once and kept.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::bugs::Edit;
use super::source::Tree;

/// Where modules with some edits come from.
pub(crate) trait Workshop {
    /// The folder of the modules if they are there already.
    fn kept(&self, edits: &[Edit]) -> Option<PathBuf>;

    /// Builds them; an error says what the compiler said.
    fn build(&self, edits: &[Edit]) -> anyhow::Result<PathBuf>;
}

/// The workshop of a tree, which keeps what it has built below a folder.
#[derive(Debug)]
pub(crate) struct TreeShop<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) folder: &'a Path,
}

/// What edits are called wherever results are kept: the same edits, the same name.
pub(crate) fn name_of(edits: &[Edit]) -> String {
    let mut hash = DefaultHasher::new();
    edits.hash(&mut hash);
    format!("{:016x}", hash.finish())
}

impl TreeShop<'_> {
    fn place(&self, edits: &[Edit]) -> PathBuf {
        let mut hash = DefaultHasher::new();
        (self.tree.id(), edits).hash(&mut hash);
        self.folder.join(format!("{:016x}", hash.finish()))
    }
}

impl Workshop for TreeShop<'_> {
    fn kept(&self, edits: &[Edit]) -> Option<PathBuf> {
        Some(self.place(edits)).filter(|place| place.is_dir())
    }

    fn build(&self, edits: &[Edit]) -> anyhow::Result<PathBuf> {
        self.tree.build(edits)?;
        let place = self.place(edits);
        let draft = tempfile::tempdir_in(self.folder).context("cannot make a folder for modules")?;
        self.tree.give(draft.path())?;
        // At once, so that a folder that is there is whole.
        fs::rename(draft.keep(), &place).with_context(|| place.display().to_string())?;
        Ok(place)
    }
}
