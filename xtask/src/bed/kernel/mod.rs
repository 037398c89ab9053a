//! Which kernel a bed boots, and where its modules are.

pub(crate) mod debian;
mod image;
mod make;
pub(crate) mod modules;
pub(crate) mod small;
pub(crate) mod tree;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};

pub(crate) use image::{bootable, pvh_entry};
use modules::Modules;

use super::apt;

/// A kernel as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spec {
    /// Debian's newest of a series: `debian:6.12`.
    Debian(String),
    /// The one that `cargo xtask kernel build` builds from Debian's source of a series: `small`, `small:6.12`.
    Small(String),
    /// The one that runs here.
    Host,
    /// An image, or a kernel's build tree.
    Path(PathBuf),
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "host" {
            return Ok(Self::Host);
        }
        if text == "small" {
            return Ok(Self::Small(small::DEFAULT.to_owned()));
        }
        if let Some(name) = text.strip_prefix("small:") {
            return series(name).map(Self::Small);
        }
        let Some(name) = text.strip_prefix("debian:") else {
            let what =
                "expected debian:SERIES (debian:6.12), small, host, or the path of an image or a build tree";
            return if text.is_empty() { Err(what.into()) } else { Ok(Self::Path(text.into())) };
        };
        series(name).map(Self::Debian)
    }
}

/// A series of kernels: two numbers.
pub(crate) fn series(text: &str) -> Result<String, String> {
    let numbers: Vec<_> = text.split('.').collect();
    let number = |text: &&str| !text.is_empty() && text.len() < 4 && text.bytes().all(|b| b.is_ascii_digit());
    if numbers.len() == 2 && numbers.iter().all(number) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no series of kernels; expected two numbers, as in 6.12"))
    }
}

/// Whether [`Kernel::find`] can succeed.
pub(crate) fn is_to_be_had(spec: &Spec, folder: &Path) -> bool {
    match spec {
        Spec::Debian(series) => debian::home(series, folder).is_dir() || apt::is_here(),
        Spec::Small(series) => small::is_built(series, folder) || small::can_be_built(),
        Spec::Host | Spec::Path(_) => true,
    }
}

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// What the user called it.
    pub(crate) name: String,
    /// The image to boot: an ELF file with an entry for PVH, or a bzImage.
    pub(crate) image: PathBuf,
    /// Where its modules are; `None` if everything is built in.
    modules: Option<PathBuf>,
    /// The folder of modules that the user named.
    pub(crate) given: Option<PathBuf>,
}

impl Kernel {
    /// Finds the kernel, fetching and unpacking it if need be. `folder` keeps what was made.
    pub(crate) fn find(spec: &Spec, modules: Option<&Path>, folder: &Path) -> anyhow::Result<Self> {
        let (name, image, found) = match spec {
            Spec::Debian(series) => {
                let unpacked = debian::fetch(series, folder)?;
                (format!("debian:{series}"), unpacked.image, Some(unpacked.modules))
            }
            Spec::Small(series) => {
                let built = small::find(series, folder)?;
                (format!("small:{series}"), built.image, Some(built.modules))
            }
            Spec::Host => {
                let release = release()?;
                let image = PathBuf::from(format!("/boot/vmlinuz-{release}"));
                if !image.is_file() {
                    bail!(
                        "{} is not there, so this machine's own kernel cannot be booted; name another by --kernel",
                        image.display()
                    );
                }
                ("host".to_owned(), image, Some(PathBuf::from(format!("/lib/modules/{release}"))))
            }
            Spec::Path(path) => {
                let image = path.join("arch/x86/boot/bzImage");
                if path.is_dir() && !image.is_file() {
                    bail!(
                        "{} is not there: build the kernel first, or name the image itself",
                        image.display()
                    );
                }
                if !path.exists() {
                    bail!("{}: there is no such kernel", path.display());
                }
                let tree = path.is_dir();
                (
                    path.display().to_string(),
                    if tree { image } else { path.clone() },
                    tree.then(|| path.clone()),
                )
            }
        };
        let image = bootable(&image, &folder.join("kernels"))?;
        let given = modules.map(Path::to_owned);
        Ok(Self { name, image, modules: given.clone().or(found), given })
    }

    /// The modules to load for one of them, in order; empty if it is built in.
    pub(crate) fn to_load(&self, wanted: &str) -> anyhow::Result<Vec<modules::Module>> {
        match &self.modules {
            None => Ok(Vec::new()),
            Some(folder) => Modules::in_folder(folder)?.to_load(wanted),
        }
    }
}

fn release() -> anyhow::Result<String> {
    let facts = nix::sys::utsname::uname().context("cannot ask for this machine's kernel")?;
    Ok(facts.release().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernels() {
        assert_eq!("debian:6.12".parse(), Ok(Spec::Debian("6.12".into())));
        assert_eq!("small".parse(), Ok(Spec::Small("6.12".into())));
        assert_eq!("small:6.1".parse(), Ok(Spec::Small("6.1".into())));
        assert_eq!("host".parse(), Ok(Spec::Host));
        assert_eq!("./host".parse(), Ok(Spec::Path("./host".into())));
        for wrong in [
            "",
            "small:x",
            "debian:",
            "debian:6",
            "debian:6.",
            "debian:6.x",
            "debian:../..",
            "debian:6.12; rm",
        ] {
            assert!(wrong.parse::<Spec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let find = |path: &Path| {
            let error = Kernel::find(&Spec::Path(path.into()), None, folder.path()).unwrap_err();
            format!("{error:#}")
        };
        assert!(find(&folder.path().join("none")).contains("no such kernel"));
        assert!(find(folder.path()).contains("build the kernel first"));
    }
}
