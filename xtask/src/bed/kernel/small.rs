//! A small kernel, built here.
use std::path::{Path, PathBuf};

use super::debian::Unpacked;

/// The series that is built if none is named.
pub(crate) const DEFAULT: &str = "6.12";

pub(crate) fn built(series: &str, folder: &Path) -> anyhow::Result<Unpacked> {
    anyhow::bail!("{series} {}", folder.display())
}

pub(crate) fn home(series: &str, folder: &Path) -> PathBuf {
    folder.join("kernels").join(format!("small-{series}"))
}
