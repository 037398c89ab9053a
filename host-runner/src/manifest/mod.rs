//! Manifests: TOML text becomes valid [`Case`]s, or mistakes that say where, what and how to mend it.
//!
//! [`header`] and [`step`] read, [`check`] judges what was read, [`mistake`] tells people. A manifest
//! boots nothing and opens no device; of a payload it asks only names and labels. The language is
//! described in `docs/manifest.md` and, for editors, by [`schema()`].

mod check;
mod header;
mod mistake;
mod profile;
mod schema;
mod step;
mod table;
mod wording;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::{DeTable, DeValue};

pub use check::ERRNOS;
pub use mistake::{Also, Mistake, Mistakes};
pub use profile::{load_profile, parse_profile};
pub use schema::schema;

use crate::case::{Case, Places};
use mistake::{Notes, Source};
use table::Table;

/// Largest manifest, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Most cases of one family.
const MAX_CASES: usize = 4096;
/// Most manifests in a directory.
const MAX_FILES: usize = 1024;

/// What a manifest must know of a payload to be checked against it.
pub trait PayloadInfo: Places {
    /// Whether the payload has a scenario called `name`.
    fn has_scenario(&self, name: &str) -> bool;
    /// The scenarios' names, to suggest one.
    fn scenarios(&self) -> Vec<String>;
    /// The labels' names, to suggest one.
    fn label_names(&self) -> Vec<String>;
}

/// The payloads that cases can name.
pub trait Payloads {
    /// The payload called `name`, or why it cannot be used, for people.
    fn payload(&self, name: &str) -> Result<&dyn PayloadInfo, String>;
    /// Every payload's name, to suggest one.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Reads every `*.toml` directly in `dir`, in the order of the files' names.
///
/// Without `payloads`, scenarios and labels are taken on trust.
pub fn load_dir(dir: &Path, payloads: Option<&dyn Payloads>) -> Result<Vec<Case>, Mistakes> {
    let shown = dir.display().to_string();
    let unreadable = |error: std::io::Error| {
        Mistakes::of_file(
            &shown,
            format!("cannot read this directory: {error}"),
            "name a directory of manifests",
        )
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() || paths.len() > MAX_FILES {
        let found = if paths.is_empty() {
            "no manifest".to_owned()
        } else {
            format!("more than {MAX_FILES} manifests")
        };
        return Err(Mistakes::of_file(
            &shown,
            format!("{found} in this directory"),
            "manifests are files called FAMILY.toml",
        ));
    }

    let mut cases = Vec::new();
    let mut mistakes = Mistakes::default();
    for path in paths {
        let file = path.display().to_string();
        let parsed = match read_file(&path) {
            Ok(text) => parse(&file, &text, payloads),
            Err(message) => Err(Mistakes::of_file(&file, message, "")),
        };
        match parsed {
            Ok(more) => cases.extend(more),
            Err(more) => mistakes.merge(more),
        }
    }
    // Ids are unique across files: each starts with its file's name, and a file refuses doubles.
    if mistakes.is_empty() { Ok(cases) } else { Err(mistakes) }
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| format!("cannot read this file: {error}"))?;
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read this file: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = String::from_utf8_lossy(before).matches('\n').count();
        format!("line {} is not UTF-8", line + 1)
    })
}

/// Reads one manifest; `file_name` is shown to people, and its stem is the family.
pub fn parse(file_name: &str, text: &str, payloads: Option<&dyn Payloads>) -> Result<Vec<Case>, Mistakes> {
    if text.len() > MAX_BYTES {
        let message = format!("this file has more than {MAX_BYTES} bytes");
        return Err(Mistakes::of_file(file_name, message, "split the family"));
    }
    let source = Source::new(file_name, text);
    let mut notes = Notes::new(&source);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        notes.add(&span, format!("this is not TOML: {}", error.message()));
    }
    let mut cases = Vec::new();
    // After a syntax error the rest of the document is a guess; judging it would blame the innocent.
    if errors.is_empty() {
        let root = toml::Spanned::new(0..0, DeValue::Table(document.into_inner()));
        if let Some(root) = Table::new(root, "a manifest", &mut notes) {
            cases = read_cases(root, payloads, &mut notes);
        }
    }
    match notes.finish() {
        None => Ok(cases),
        Some(mistakes) => Err(mistakes),
    }
}

fn read_cases(mut root: Table, payloads: Option<&dyn Payloads>, notes: &mut Notes) -> Vec<Case> {
    let path = Path::new(&notes.source.file);
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if !check::is_name(&stem) {
        let message = format!("`{stem}` cannot be the name of a family");
        notes
            .add(&(0..0), message)
            .help("call the file by lower-case letters, digits and dashes: port-io.toml");
    }
    let family = header::family(root.take("family"), &stem, notes);
    if !root.has("case") {
        notes.add(&(0..0), "this manifest has no case").help("write [[case]] and describe one");
    }
    let mut values = root.list("case", notes).unwrap_or_default();
    root.finish("a manifest", &["family", "case"], notes);
    if let Some(first_too_many) = values.get(MAX_CASES) {
        notes.add(&first_too_many.span(), format!("more than {MAX_CASES} cases")).help("split the family");
        values.truncate(MAX_CASES);
    }

    let mut first: BTreeMap<String, mistake::Span> = BTreeMap::new();
    let mut cases = Vec::new();
    for value in values {
        let Some(draft) = header::case(value, &family, notes) else { continue };
        let span = draft.spans.value("id").clone();
        match first.get(&draft.case.id) {
            Some(known) if !draft.case.id.is_empty() => {
                let message = format!("there are two cases `{}`", draft.case.id);
                notes.add(&span, message).help("an id names one case for good").also(known, "the other one");
            }
            _ => drop(first.insert(draft.case.id.clone(), span)),
        }
        check::case(&draft, &family, payloads, notes);
        cases.push(draft.case);
    }
    cases
}
