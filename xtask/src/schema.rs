//! `cargo xtask schema`: writes the JSON Schemas: the one with which editors check manifests, and that of certificates.

use anyhow::Context;

use crate::{build, test};

/// Writes `test-manifests/schema.json` and `docs/certificate.schema.json`.
pub(crate) fn run() -> anyhow::Result<()> {
    let schemas =
        [("manifest", "test-manifests/schema.json"), ("certificate", "docs/certificate.schema.json")];
    for (of, path) in schemas {
        let path = build::workspace().join(path);
        let schema = test::ask_runner(&["schema", "--of", of])?;
        std::fs::write(&path, schema).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
