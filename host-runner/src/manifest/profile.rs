//! Profiles: `profiles/NAME.toml` beside the manifests becomes a valid [`Profile`], or mistakes with their places.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::check::is_name;
use super::mistake::{Mistakes, Notes, Source};
use super::read_file;
use super::table::{Spans, Table};
use super::wording::nearest;
use crate::case::{Case, Requires, Vary};
use crate::host::{caps, cpuid};
use crate::profile::Profile;

const KEYS: &[&str] = &["name", "summary", "requires", "vary", "families", "ids", "filters", "without"];

/// Reads the profile `name` of a folder of manifests for a suite with these cases.
pub fn load_profile(manifests: &Path, name: &str, cases: &[Case]) -> Result<Profile, Mistakes> {
    let folder = manifests.join("profiles");
    let path = folder.join(format!("{name}.toml"));
    let file = path.display().to_string();
    if !path.is_file() {
        let known = names(&folder);
        let help = match nearest(name, known.iter().map(String::as_str)) {
            Some(close) => format!("did you mean `{close}`?"),
            None if known.is_empty() => {
                "profiles are files called profiles/NAME.toml beside the manifests".into()
            }
            None => format!("the profiles are: {}", known.join(", ")),
        };
        return Err(Mistakes::of_file(&file, format!("there is no profile `{name}`"), &help));
    }
    let text = read_file(&path).map_err(|message| Mistakes::of_file(&file, message, ""))?;
    parse_profile(&file, &text, cases)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let stems = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".toml").map(str::to_owned)
    });
    let mut names: Vec<String> = stems.collect();
    names.sort();
    names
}

/// Reads a profile's text; `file` is shown to people, and its stem is the name.
pub fn parse_profile(file: &str, text: &str, cases: &[Case]) -> Result<Profile, Mistakes> {
    let source = Source::new(file, text);
    let mut notes = Notes::new(&source);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        notes.add(&span, format!("this is not TOML: {}", error.message()));
    }
    let mut profile = None;
    if errors.is_empty() {
        let root = toml::Spanned::new(0..0, DeValue::Table(document.into_inner()));
        if let Some(mut root) = Table::new(root, "a profile's file", &mut notes) {
            let value = root.take("profile");
            root.finish("a profile's file", &["profile"], &mut notes);
            match value {
                Some(value) => profile = read(value, file, cases, &mut notes),
                None => drop(
                    notes
                        .add(&(0..0), "this file has no `[profile]`")
                        .help("write [profile] and describe it"),
                ),
            }
        }
    }
    match (notes.finish(), profile) {
        (None, Some(profile)) => Ok(Profile { text: text.to_owned(), ..profile }),
        (Some(mistakes), _) => Err(mistakes),
        (None, None) => Err(Mistakes::of_file(file, "there is no profile in this file".to_owned(), "")),
    }
}

fn read(value: super::table::Value, file: &str, cases: &[Case], notes: &mut Notes) -> Option<Profile> {
    let spans = Spans::of(&value);
    let mut table = Table::new(value, "`profile`", notes)?;
    let stem =
        Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = table.require::<String>("name", &format!("name = \"{stem}\""), notes);
    if !is_name(&stem) {
        notes
            .add(&(0..0), format!("`{stem}` cannot be the name of a profile"))
            .help("call the file by lower-case letters, digits and dashes: x86-core.toml");
    }
    if name.as_ref().is_some_and(|name| *name != stem) {
        notes
            .add(spans.value("name"), "the name of this profile is not the file's")
            .help(format!("write name = \"{stem}\" or rename the file"));
    }
    let summary = table.require::<String>(
        "summary",
        "say in one sentence what a host that conforms can be relied on for",
        notes,
    );
    if summary.as_ref().is_some_and(|summary| summary.trim().is_empty()) {
        notes.add(spans.value("summary"), "`summary` is empty");
    }
    let requires = table.read::<Requires>("requires", notes).unwrap_or_default();
    unknown_names(&requires, &spans, notes);
    let mut vary = table.read::<Vec<Vary>>("vary", notes).unwrap_or_default();
    vary.sort_unstable();
    vary.dedup();
    let mut list = |key: &str, notes: &mut Notes| table.read::<Vec<String>>(key, notes).unwrap_or_default();
    let (families, ids) = (list("families", notes), list("ids", notes));
    let filters = list("filters", notes);
    let without = table.read::<BTreeMap<String, String>>("without", notes).unwrap_or_default();
    table.finish("`[profile]`", KEYS, notes);

    let mut found = BTreeSet::new();
    let family_of = |case: &Case| case.id.split('.').next().unwrap_or_default().to_owned();
    let known: BTreeSet<String> = cases.iter().map(family_of).collect();
    let all: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    let close = |word: &str, known: &mut dyn Iterator<Item = &str>, otherwise: &str| {
        nearest(word, known).map_or_else(|| otherwise.to_owned(), |close| format!("did you mean `{close}`?"))
    };
    for (n, family) in families.iter().enumerate() {
        if !known.contains(family) {
            let help = close(family, &mut known.iter().map(String::as_str), "a family is a manifest's name");
            notes
                .add(spans.value(&format!("families[{n}]")), format!("there is no family `{family}`"))
                .help(help);
        }
        found.extend(cases.iter().filter(|case| family_of(case) == *family).map(|case| case.id.clone()));
    }
    for (n, id) in ids.iter().enumerate() {
        if !all.contains(&id.as_str()) {
            let help = close(id, &mut all.iter().copied(), "`cargo xtask test --list` names them");
            notes.add(spans.value(&format!("ids[{n}]")), format!("there is no case `{id}`")).help(help);
        }
        found.insert(id.clone());
    }
    for (n, filter) in filters.iter().enumerate() {
        let of_filter = all.iter().filter(|id| !filter.is_empty() && id.contains(filter.as_str()));
        let matched: Vec<String> = of_filter.map(|id| (*id).to_owned()).collect();
        if matched.is_empty() {
            notes
                .add(spans.value(&format!("filters[{n}]")), format!("no case's id contains `{filter}`"))
                .help("a profile is a promise: it names nothing that is not there");
        }
        found.extend(matched);
    }
    for (id, why) in &without {
        // Ids have dots, so they are quoted keys.
        let span = spans.key(&format!("without.{id}"));
        if !found.remove(id) {
            let help = close(
                id,
                &mut found.iter().map(String::as_str),
                "`without` takes cases out of what the rest names",
            );
            notes.add(span, format!("`{id}` is no case of this profile")).help(help);
        }
        if why.trim().is_empty() {
            notes.add(span, format!("`without` gives no reason for `{id}`")).help("say why it is not needed");
        }
    }
    if found.is_empty() && notes.count() == 0 {
        notes
            .add(&spans.whole, "this profile has no case")
            .help("name some by `families`, `ids` or `filters`");
    }
    Some(Profile {
        name: name?,
        summary: summary?,
        requires,
        vary,
        cases: found,
        without: without.into_iter().collect(),
        text: String::new(),
    })
}

fn unknown_names(requires: &Requires, spans: &Spans, notes: &mut Notes) {
    let caps_known: Vec<String> = caps::names().collect();
    let cpuid_known: Vec<String> = cpuid::names().map(str::to_owned).collect();
    let lists = [
        ("caps", "capability", &requires.caps, caps_known),
        ("cpuid", "CPUID feature", &requires.cpuid, cpuid_known),
    ];
    for (key, what, used, known) in lists {
        for (n, name) in used.iter().enumerate().filter(|(_, name)| !known.contains(name)) {
            let help = nearest(name, known.iter().map(String::as_str));
            let help = help
                .map_or("docs/manifest.md lists them".to_owned(), |close| format!("did you mean `{close}`?"));
            notes
                .add(spans.value(&format!("requires.{key}[{n}]")), format!("there is no {what} `{name}`"))
                .help(help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::load_dir;

    #[test]
    fn the_profiles_of_the_suite_are_valid() {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-manifests");
        let cases = load_dir(&manifests, None).unwrap();
        let names = names(&manifests.join("profiles"));
        assert!(names.contains(&"x86-core".to_owned()), "{names:?}");
        for name in names {
            let profile =
                load_profile(&manifests, &name, &cases).unwrap_or_else(|mistakes| panic!("{mistakes}"));
            assert!(!profile.summary.is_empty());
        }
    }
}
