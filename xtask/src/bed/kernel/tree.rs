//! A kernel's source as a developer has it, built as it is now.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::make::Make;

/// Builds the kernel of a tree; the folder with its bzImage. A tree that has a configuration is built by it and in its
/// place; one that has none, by the small kernel's and below `folder`, so that the tree stays as it is.
pub(crate) fn build(tree: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let tree = &source(tree)?;
    let place = &place(tree, folder);
    fs::create_dir_all(place).with_context(|| place.display().to_string())?;
    let log = place.join("build.log");
    // The last build's alone.
    fs::write(&log, "").with_context(|| log.display().to_string())?;
    let targets = ["bzImage", "modules"];
    if tree.join(".config").is_file() {
        let make = Make { tree, output: None, place };
        make.run(&["-s", "olddefconfig"])?;
        make.build(&targets)?;
        return Ok(tree.clone());
    }
    let output = place.join("output");
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let make = Make { tree, output: Some(&output), place };
    let lost = make.configure(&version(tree)?)?;
    if !lost.is_empty() {
        bail!("this kernel does not take what bed.config says of {}", lost.join(", "));
    }
    make.build(&targets)?;
    Ok(output)
}

/// The tree's absolute path, if it is one.
pub(crate) fn source(tree: &Path) -> anyhow::Result<PathBuf> {
    let found = fs::canonicalize(tree).with_context(|| tree.display().to_string())?;
    if !found.join("Makefile").is_file() {
        bail!("{} is no kernel's source: there is no Makefile in it", tree.display());
    }
    Ok(found)
}

/// Where a tree's build keeps its things: the same from step to step, so that little is built anew.
fn place(tree: &Path, folder: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    tree.hash(&mut hasher);
    let name = tree.file_name().unwrap_or(OsStr::new("tree")).display();
    folder.join("trees").join(format!("{name}-{:016x}", hasher.finish()))
}

/// `6.12.5`, as the tree itself says.
fn version(tree: &Path) -> anyhow::Result<String> {
    let output = Command::new("make").current_dir(tree).args(["-s", "kernelversion"]).output();
    let output = output.context("cannot start make")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree whose Makefile knows the words of a kernel's, and writes down what it is asked for.
    fn tree(bzimage: &str) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let text = format!(
            "O ?= .\nkernelversion:\n\t@echo 6.12.5\n\
             allnoconfig:\n\tcp $(KCONFIG_ALLCONFIG) $(O)/.config\n\techo $@ >> asked\n\
             olddefconfig:\n\techo $@ >> asked\nbzImage:\n\techo $@ >> asked\n\t{bzimage}\n\
             modules:\n\techo $@ >> asked\n"
        );
        fs::write(tree.path().join("Makefile"), text).unwrap();
        tree
    }

    fn asked(tree: &Path) -> Vec<String> {
        let text = fs::read_to_string(tree.join("asked")).unwrap_or_default();
        let mut asked: Vec<String> = text.lines().map(str::to_owned).collect();
        asked.sort();
        asked
    }

    #[test]
    fn a_tree_with_a_configuration_is_built_by_it() {
        let (tree, folder) = (tree("true"), tempfile::tempdir().unwrap());
        fs::write(tree.path().join(".config"), "CONFIG_KVM=y\n").unwrap();
        let built = build(tree.path(), folder.path()).unwrap();
        assert_eq!(built, fs::canonicalize(tree.path()).unwrap());
        assert_eq!(asked(tree.path()), ["bzImage", "modules", "olddefconfig"]);
        assert_eq!(fs::read_to_string(tree.path().join(".config")).unwrap(), "CONFIG_KVM=y\n");
    }

    #[test]
    fn a_tree_without_one_is_left_as_it_is() {
        let (tree, folder) = (tree("true"), tempfile::tempdir().unwrap());
        // What is left of bed.config in this tree's configuration has remarks behind it, as no real one has.
        let error = format!("{:#}", build(tree.path(), folder.path()).unwrap_err());
        assert!(error.contains("does not take what bed.config says of"), "{error}");
        assert_eq!(asked(tree.path()), ["allnoconfig"]);
        assert!(!tree.path().join(".config").exists());
    }

    #[test]
    fn a_kernel_that_does_not_build_says_what_make_said() {
        let (tree, folder) = (tree("echo no such register; false"), tempfile::tempdir().unwrap());
        fs::write(tree.path().join(".config"), "").unwrap();
        let error = format!("{:#}", build(tree.path(), folder.path()).unwrap_err());
        assert!(error.contains("does not build") && error.contains("no such register"), "{error}");
        assert!(
            format!("{:#}", build(folder.path(), folder.path()).unwrap_err()).contains("no kernel's source")
        );
    }
}
