//! Bochs: found, or installed where that is possible without asking anybody.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::apt::{self, Apt, Sources};

/// The program behind the wrapper of Debian's package, which adds nothing.
const PROGRAMS: &[&str] = &["bochs-bin", "bochs"];
/// Where Debian's packages have the firmware, and the firmware's files.
const SHARE: &str = "/usr/share/bochs";
const BIOS: &str = "BIOS-bochs-latest";
const VGA_BIOS: &str = "VGABIOS-lgpl-latest";
/// What it takes on Debian.
const PACKAGES: &[&str] = &["bochs", "bochs-term", "bochsbios", "vgabios"];

/// An installed Bochs.
#[derive(Debug, Clone)]
pub(crate) struct Bochs {
    pub(super) program: PathBuf,
    pub(super) bios: PathBuf,
    pub(super) vga_bios: PathBuf,
}

impl Bochs {
    /// Finds Bochs, installing it if need be. `folder` keeps apt's lists.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Self> {
        if let Some(found) = Self::here() {
            return Ok(found);
        }
        let packages = PACKAGES.join(" ");
        if !apt::is_here() {
            bail!(
                "Bochs with its BIOS and its `term` display is not here; install it by your system's package manager (Debian's names: {packages})"
            );
        }
        if !nix::unistd::geteuid().is_root() {
            bail!("Bochs is not here; install it: sudo apt-get install --no-install-recommends {packages}");
        }
        eprintln!("installing Bochs");
        Apt::open(&Sources::HostAnd(None), &folder.join("apt"))
            .and_then(|apt| apt.install(PACKAGES, None))
            .with_context(|| {
            format!("Bochs cannot be installed; try: apt-get update && apt-get install {packages}")
        })?;
        Self::here().context("Bochs is installed, but not all of it is where it should be")
    }

    fn here() -> Option<Self> {
        let program = PROGRAMS.iter().find_map(|name| apt::find_program(name))?;
        let share = Path::new(SHARE);
        let found = Self { program, bios: share.join(BIOS), vga_bios: share.join(VGA_BIOS) };
        (found.bios.is_file() && found.vga_bios.is_file() && has_display()).then_some(found)
    }
}

/// Whether the display that needs no screen is among the plugins.
fn has_display() -> bool {
    let folders = ["/usr/lib/x86_64-linux-gnu/bochs/plugins", "/usr/lib/bochs/plugins"];
    folders.iter().any(|folder| Path::new(folder).join("libbx_term_gui.so").is_file())
}

/// Whether [`Bochs::find`] can succeed.
pub(crate) fn is_to_be_had() -> bool {
    Bochs::here().is_some() || (apt::is_here() && nix::unistd::geteuid().is_root())
}
