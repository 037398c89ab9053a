//! Why some cases catch no bug: `test-manifests/seeded-bugs/unproved.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    unproved: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    cases: Vec<Spanned<String>>,
    reason: String,
}

/// A reason, and the cases that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unproved {
    /// As the file names them.
    pub(crate) patterns: Vec<String>,
    pub(crate) reason: String,
}

impl Unproved {
    /// Whether it speaks of a case.
    pub(crate) fn names(&self, case: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, case))
    }
}

/// A case's id, or the beginning of some with `*` behind it.
fn matches(pattern: &str, case: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == case, |start| case.starts_with(start))
}

/// The reasons in a folder; none if it has no such file. A pattern that no case has is a mistake.
pub(crate) fn load(folder: &Path, cases: &BTreeSet<String>) -> anyhow::Result<Vec<Unproved>> {
    let path = folder.join(super::UNPROVED);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let shown = path.strip_prefix(crate::build::workspace()).unwrap_or(&path).display().to_string();
    parse(&shown, &text, cases)
}

fn parse(path: &str, text: &str, cases: &BTreeSet<String>) -> anyhow::Result<Vec<Unproved>> {
    let line_of = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
    let file: File = toml::from_str(text).map_err(|error| {
        let line = line_of(error.span().map_or(text.len(), |span| span.start));
        anyhow::anyhow!("{path}:{line}: {}", error.message())
    })?;
    for pattern in file.unproved.iter().flat_map(|raw| &raw.cases) {
        if !cases.iter().any(|case| matches(pattern.get_ref(), case)) {
            bail!("{path}:{}: there is no case `{}`", line_of(pattern.span().start), pattern.get_ref());
        }
    }
    let all = file.unproved.into_iter().map(|Raw { cases, reason }| Unproved {
        patterns: cases.into_iter().map(Spanned::into_inner).collect(),
        reason,
    });
    Ok(all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_ids_or_beginnings_of_some_that_are_there() {
        let cases: BTreeSet<String> = ["a.one", "a.two", "b.one"].map(str::to_owned).into();
        let text = "[[unproved]]\ncases = [\"a.*\"]\nreason = \"hardware\"\n";
        let all = parse("u.toml", text, &cases).unwrap();
        let named: Vec<&str> = cases.iter().filter(|case| all[0].names(case)).map(String::as_str).collect();
        assert_eq!(named, ["a.one", "a.two"]);
        let error = parse("u.toml", &text.replace("a.*", "c.*"), &cases).unwrap_err().to_string();
        assert_eq!(error, "u.toml:2: there is no case `c.*`");
        let error = parse("u.toml", &text.replace("reason", "resaon"), &cases).unwrap_err().to_string();
        assert!(error.starts_with("u.toml:3: unknown field"), "{error}");
    }
}
