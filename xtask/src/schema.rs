//! `cargo xtask schema`: writes the JSON Schema with which editors check manifests.

use anyhow::Context;

use crate::{build, test};

/// Writes `test-manifests/schema.json`.
pub(crate) fn run() -> anyhow::Result<()> {
    let path = build::workspace().join("test-manifests").join("schema.json");
    let schema = test::ask_runner("schema")?;
    std::fs::write(&path, schema).with_context(|| format!("cannot write {}", path.display()))
}
