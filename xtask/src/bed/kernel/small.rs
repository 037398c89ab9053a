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
use crate::bed::apt::{self, Apt, Sources};

/// The series that is built if none is named.
pub(crate) const DEFAULT: &str = "6.12";

/// What the kernel is made of.
const FRAGMENT: &str = include_str!("../../../kernel/bed.config");

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
    if !apt::is_here() {
        bail!(
            "the small kernel is built from Debian's source, which is fetched by apt, and that is not here; name a kernel of your own by --kernel PATH"
        );
    }
    install_tools(folder)?;
    let place = folder.join("build").join(format!("small-{series}"));
    let named = || format!("cannot build in {}", place.display());
    // What an interrupted build has left.
    remove(&place).with_context(named)?;
    fs::create_dir_all(&place).with_context(named)?;
    eprintln!("fetching the source of Debian's Linux {series}");
    let package = format!("linux-source-{series}");
    let deb = debian::from_anywhere(series, folder, |apt| apt.download(&package, &place))?;
    let tree = unpack(&deb, &place, &package, "")?;
    if !tree.join("Makefile").is_file() {
        bail!("{} holds no {package}", deb.display());
    }
    eprintln!("building a small Linux {series}: this takes some minutes, once");
    make(&tree, series, &place)?;
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

fn remove(folder: &Path) -> io::Result<()> {
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
    let package = format!("linux-source-{series}");
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
    let fragment = place.join(MADE_OF);
    fs::write(&fragment, FRAGMENT).with_context(|| fragment.display().to_string())?;
    let log = place.join("build.log");
    let run = |arguments: &[&str]| -> anyhow::Result<()> {
        let log_file = File::options().create(true).append(true).open(&log);
        let log_file = log_file.with_context(|| log.display().to_string())?;
        let mut command = Command::new("make");
        command.current_dir(tree).arg("ARCH=x86_64").args(arguments).env("KCONFIG_ALLCONFIG", &fragment);
        // The same source gives the same kernel, whoever builds it.
        command.env("KBUILD_BUILD_USER", "exitspec").env("KBUILD_BUILD_HOST", "bed");
        command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
        if !command.status().context("cannot start make")?.success() {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n    ");
            bail!("the kernel does not build; {} ends with\n    {last}", log.display());
        }
        Ok(())
    };
    run(&["-s", "allnoconfig"])?;
    let config = tree.join(".config");
    let config = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
    let lost = not_taken(FRAGMENT, &config, series);
    if !lost.is_empty() {
        bail!("Linux {series} does not take what bed.config says of {}", lost.join(", "));
    }
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    run(&["-s", &format!("-j{jobs}"), "vmlinux", "modules"])
}

/// The symbols of the fragment that a configuration has otherwise.
fn not_taken<'a>(fragment: &'a str, config: &str, series: &str) -> Vec<&'a str> {
    let numbers = |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    let taken = |line: &&str| {
        let (setting, remark) = line.split_once('#').unwrap_or((line, ""));
        let setting = setting.trim();
        let Some((symbol, value)) = setting.split_once('=') else { return true };
        let since = remark.trim().strip_prefix("from ").and_then(|rest| rest.split(' ').next());
        if since.is_some_and(|since| numbers(series) < numbers(since)) {
            return true;
        }
        let mut lines = config.lines();
        if value == "n" {
            let set = format!("{symbol}=");
            !lines.any(|line| line.starts_with(&set))
        } else {
            lines.any(|line| line == setting)
        }
    };
    let lost = fragment.lines().filter(|line| line.starts_with("CONFIG_")).filter(|line| !taken(line));
    lost.filter_map(|line| line.split('=').next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_that_is_not_taken_is_named() {
        let fragment =
            "# text\nCONFIG_A=y\nCONFIG_B=m   # why\nCONFIG_C=n\nCONFIG_D=4\nCONFIG_E=y # from 6.3 on; x\n";
        let good = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=4\nCONFIG_E=y\n";
        assert!(not_taken(fragment, good, "6.12").is_empty());
        let without = good.replace("CONFIG_E=y\n", "");
        assert!(not_taken(fragment, &without, "5.10").is_empty());
        assert!(not_taken(fragment, &without, "6.2").is_empty());
        assert_eq!(not_taken(fragment, &without, "6.12"), ["CONFIG_E"]);
        let bad = "CONFIG_A=m\nCONFIG_BB=m\nCONFIG_C=y\nCONFIG_D=44\nCONFIG_E=y\n";
        assert_eq!(not_taken(fragment, bad, "6.12"), ["CONFIG_A", "CONFIG_B", "CONFIG_C", "CONFIG_D"]);
    }

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
