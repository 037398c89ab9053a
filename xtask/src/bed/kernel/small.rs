//! A small kernel, built from Debian's source with a configuration of ours.
//!
//! A distribution's kernel initializes hundreds of things that a bed does not have. This one has KVM and what the
//! suite needs, and so reaches the suite in a few seconds even where every instruction is emulated.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::debian::{self, Unpacked};
use super::make::{self, FRAGMENT, Make};
use crate::bed::apt::{self, Apt, Sources};

/// The series that is built if none is named.
pub(crate) const DEFAULT: &str = "6.12";

/// The file of a kernel that tells what it was made of.
const MADE_OF: &str = "bed.config";

/// The modules that are kept: KVM and what it needs.
const MODULES: &[&str] = &["irqbypass.ko", "kvm.ko", "kvm-amd.ko", "kvm-intel.ko"];

/// What the build starts, and Debian's packages that have it.
const TOOLS: &[&str] = &["make", "gcc", "ld", "flex", "bison", "bc", "tar"];
const HEADER: &str = "/usr/include/gelf.h";
const PACKAGES: &[&str] =
    &["make", "gcc", "libc6-dev", "binutils", "flex", "bison", "bc", "libelf-dev", "tar"];

/// Whether this kernel is built, from the configuration as it is now.
pub(crate) fn is_built(series: &str, folder: &Path) -> bool {
    fs::read_to_string(home(series, folder).join(MADE_OF)).is_ok_and(|text| text == FRAGMENT)
}

/// Whether this kernel can be built here without asking anybody.
pub(crate) fn can_be_built() -> bool {
    apt::is_here() && (missing_tools().is_empty() || nix::unistd::geteuid().is_root())
}

/// The kernel, built first if need be. `folder` keeps it.
pub(crate) fn find(series: &str, folder: &Path) -> anyhow::Result<Unpacked> {
    let home = home(series, folder);
    if !is_built(series, folder) {
        build(series, folder, &home)?;
    }
    Ok(Unpacked { image: home.join("vmlinux"), modules: home })
}

fn home(series: &str, folder: &Path) -> PathBuf {
    folder.join("kernels").join(format!("small-{series}"))
}

fn build(series: &str, folder: &Path, home: &Path) -> anyhow::Result<()> {
    let place = folder.join("build").join(format!("small-{series}"));
    let named = || format!("cannot build in {}", place.display());
    let tree = build_tree(series, folder, &place)?;
    let draft = place.join("kernel");
    let keep = || -> io::Result<()> {
        fs::create_dir_all(&draft)?;
        fs::rename(tree.join("vmlinux"), draft.join("vmlinux"))?;
        for name in MODULES {
            let from = ["arch/x86/kvm", "virt/lib"].map(|folder| tree.join(folder).join(name));
            fs::rename(from.iter().find(|path| path.is_file()).unwrap_or(&from[0]), draft.join(name))?;
        }
        fs::write(draft.join(MADE_OF), FRAGMENT)?;
        fs::create_dir_all(home.parent().unwrap_or(home))?;
        remove(home)?;
        // At once, so that a folder that is there is whole.
        fs::rename(&draft, home)
    };
    keep().with_context(|| format!("cannot make {}", home.display()))?;
    remove(&place).with_context(named)
}

/// Fetches the source into `place` and builds it there, whatever was there before; the tree. `folder` keeps apt's lists.
pub(crate) fn build_tree(series: &str, folder: &Path, place: &Path) -> anyhow::Result<PathBuf> {
    if !apt::is_here() {
        bail!(
            "the small kernel is built from Debian's source, which is fetched by apt, and that is not here; name a kernel of your own by --kernel PATH"
        );
    }
    install_tools(folder)?;
    let named = || format!("cannot build in {}", place.display());
    // What an interrupted build has left.
    remove(place).with_context(named)?;
    fs::create_dir_all(place).with_context(named)?;
    eprintln!("fetching the source of Debian's Linux {series}");
    let package = package(series);
    let deb = debian::from_anywhere(series, folder, |apt| apt.download(&package, place))?;
    let tree = unpack(&deb, place, &package, "")?;
    if !tree.join("Makefile").is_file() {
        bail!("{} holds no {package}", deb.display());
    }
    fs::remove_file(&deb).with_context(named)?;
    eprintln!("building a small Linux {series}: this takes some minutes, once");
    make(&tree, series, place)?;
    Ok(tree)
}

/// Whether a tree of [`build_tree`] in this place is whole, and of the configuration as it is now.
pub(crate) fn built_tree(series: &str, place: &Path) -> Option<PathBuf> {
    let made_of = fs::read_to_string(place.join(MADE_OF)).ok()?;
    let tree = place.join(package(series));
    (made_of == FRAGMENT && tree.join("vmlinux").is_file()).then_some(tree)
}

/// Makes what `targets` name in a tree of [`build_tree`] anew; the end of what the compiler said if it does not. Whatever
/// is started for that has `log` open for as long as it runs, also when this process is killed.
pub(crate) fn make_again(tree: &Path, log: (&Path, &File), targets: &[&str]) -> anyhow::Result<()> {
    make::run(tree, log, |command| {
        command.args(make::in_parallel()).args(targets);
    })
}

/// The package of a series' source, and the folder in it.
fn package(series: &str) -> String {
    format!("linux-source-{series}")
}

pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn missing_tools() -> Vec<&'static str> {
    let mut missing: Vec<_> =
        TOOLS.iter().copied().filter(|name| apt::find_program(name).is_none()).collect();
    if !Path::new(HEADER).is_file() {
        missing.push("libelf's headers");
    }
    missing
}

fn install_tools(folder: &Path) -> anyhow::Result<()> {
    let missing = missing_tools();
    if missing.is_empty() {
        return Ok(());
    }
    let (names, packages) = (missing.join(", "), PACKAGES.join(" "));
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "to build a kernel there lack {names}; install them: sudo apt-get install --no-install-recommends {packages}"
        );
    }
    eprintln!("installing what it takes to build a kernel: {names}");
    let apt = Apt::open(&Sources::HostAnd(None), &folder.join("apt"))?;
    apt.install(PACKAGES, None).with_context(|| {
        format!("{names} cannot be installed; try: apt-get update && apt-get install {packages}")
    })
}

/// A folder of the kernel's source, such as `tools/testing/kunit`, unpacked below `place`. `folder` keeps lists.
pub(crate) fn part_of_source(
    series: &str,
    part: &str,
    folder: &Path,
    place: &Path,
) -> anyhow::Result<PathBuf> {
    eprintln!("fetching the source of Debian's Linux {series}");
    let package = package(series);
    let deb = debian::from_anywhere(series, folder, |apt| apt.download(&package, place))?;
    Ok(unpack(&deb, place, &package, part)?.join(part))
}

/// Unpacks the source that is in a package, or the part of it; the tree.
fn unpack(deb: &Path, place: &Path, package: &str, part: &str) -> anyhow::Result<PathBuf> {
    let status = Command::new("dpkg-deb").arg("-x").args([deb, place]).status();
    if !status.context("cannot start dpkg-deb")?.success() {
        bail!("dpkg-deb cannot unpack {}", deb.display());
    }
    let archive = place.join("usr/src").join(format!("{package}.tar.xz"));
    let packed = File::open(&archive).with_context(|| archive.display().to_string())?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "-C"]).arg(place);
    if !part.is_empty() {
        tar.arg(Path::new(package).join(part));
    }
    let mut tar = tar.stdin(Stdio::piped()).spawn().context("cannot start tar")?;
    let mut to = tar.stdin.take().context("tar has no standard input")?;
    let copied = io::copy(&mut lzma_rust2::XzReader::new(BufReader::new(packed), true), &mut to);
    drop(to);
    let status = tar.wait().context("cannot wait for tar")?;
    if !status.success() {
        bail!("tar cannot unpack {}", archive.display());
    }
    copied.with_context(|| format!("cannot unpack {}", archive.display()))?;
    Ok(place.join(package))
}

fn make(tree: &Path, series: &str, place: &Path) -> anyhow::Result<()> {
    let make = Make { tree, output: None, place };
    let lost = make.configure(series)?;
    if !lost.is_empty() {
        bail!("Linux {series} does not take what bed.config says of {}", lost.join(", "));
    }
    make.build(&["vmlinux", "modules"])?;
    // It gets its name in the end, so that it tells a whole build.
    let made_of = place.join(MADE_OF);
    fs::rename(make.fragment(), &made_of).with_context(|| made_of.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fragment_is_well_formed_and_has_what_a_bed_needs() {
        let mut symbols = std::collections::BTreeSet::new();
        for line in FRAGMENT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let setting = line.split('#').next().unwrap_or_default().trim();
            let (symbol, value) = setting.split_once('=').expect(line);
            assert!(symbol.starts_with("CONFIG_"), "{line}");
            assert!(["y", "m", "n"].contains(&value) || value.parse::<u32>().is_ok(), "{line}");
            assert!(symbols.insert(symbol), "{symbol} is there twice");
        }
        for module in ["KVM", "KVM_AMD", "KVM_INTEL"] {
            assert!(FRAGMENT.contains(&format!("\nCONFIG_{module}=m\n")), "{module}");
        }
    }

    #[test]
    fn a_kernel_of_another_configuration_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_built("6.12", folder.path()));
        let home = home("6.12", folder.path());
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join(MADE_OF), "CONFIG_KVM=y\n").unwrap();
        assert!(!is_built("6.12", folder.path()));
        fs::write(home.join(MADE_OF), FRAGMENT).unwrap();
        assert!(is_built("6.12", folder.path()));
        assert_eq!(find("6.12", folder.path()).unwrap().image, home.join("vmlinux"));
    }
}
