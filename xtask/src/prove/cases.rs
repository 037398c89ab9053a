//! The ids of the suite's cases, from the manifests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
}

/// The family of a case or a bug: what its id begins with, which is also the name of its file.
pub(crate) fn family(id: &str) -> &str {
    id.split_once('.').map_or(id, |(family, _)| family)
}

/// All of them. Whether the manifests are right otherwise is the runner's business.
pub(crate) fn ids(manifests: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(manifests).with_context(|| manifests.display().to_string())? {
        let path = entry.with_context(|| manifests.display().to_string())?.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let manifest: Manifest = toml::from_str(&text).with_context(|| path.display().to_string())?;
            ids.extend(manifest.case.into_iter().map(|case| case.id));
        }
    }
    Ok(ids)
}
