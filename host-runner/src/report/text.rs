//! What the formats share: a test's failure as lines, and places in the repository.
//!
//! Every text of a journal may be a guest's, and a journal may come from anywhere: what is made here has no control
//! characters but newlines.

use serde::Serialize;

use super::results::{Run, Test};
use super::{Paint, failure, paint};
use crate::case::Place;

/// A text as one line.
pub(super) fn line(text: &str) -> String {
    paint::safe(text)
}

/// What there is to say of a test besides its reason: empty for a pass and a skip.
pub(super) fn details(test: &Test) -> String {
    match test.finished() {
        Some(finished) if finished.about.is_some() || finished.outcome.evidence.is_some() => {
            failure(&test.name, finished.about.as_deref(), &finished.outcome, Paint::new(false))
        }
        _ => String::new(),
    }
}

/// Where the step that decided is written, or else the case, if its journal says so.
pub(super) fn place(test: &Test) -> Option<&Place> {
    let finished = test.finished()?;
    let evidence = finished.outcome.evidence.as_deref();
    evidence
        .and_then(|evidence| evidence.place.as_ref())
        .or(finished.about.as_deref().map(|about| &about.place))
}

/// A manifest's path in the repository. The folder that a run had it from may have been anywhere, also in a bed.
pub(super) fn path(file: &str, sources: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let folder = sources.trim_end_matches('/');
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The host of a run, as names and values.
pub(super) fn host(run: &Run) -> Vec<(String, String)> {
    let (header, host) = (&run.header, &run.header.host);
    let mut list = vec![
        ("bed", host.bed.clone()),
        ("kernel", host.kernel.clone()),
        ("kernel.build", host.build.clone()),
        ("cpu", host.cpu.clone()),
        ("microcode", host.microcode.clone()),
        ("backend", host.backend.clone()),
        ("seed", header.seed.to_string()),
        ("exitspec", header.version.clone()),
        ("revision", header.revision.clone().unwrap_or_default()),
    ];
    list.retain(|(_, value)| !value.is_empty());
    let params = host.params.iter().map(|(name, value)| (name.clone(), value.clone()));
    list.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(params).collect()
}

/// A document as JSON, with a newline at its end. JSON allows control characters above U+007E as they are, and a terminal
/// obeys some of them.
pub(super) fn json(document: &impl Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(document).map_err(|error| error.to_string())?;
    let mut safe = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match c {
            c if c != '\n' && c.is_control() => safe.extend(["\\u", &format!("{:04x}", u32::from(c))]),
            c => safe.push(c),
        }
    }
    safe.push('\n');
    Ok(safe)
}
