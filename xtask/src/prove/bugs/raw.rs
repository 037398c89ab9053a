//! The bugs' files as serde reads them, and what makes a [`Bug`] of an entry.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::{Bug, EDITABLE, Edit, Place, Proof};
use crate::bed::kernel::series;
use crate::bed::kind::Kind;
use crate::bed::params::Params;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    bug: Vec<Spanned<RawBug>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBug {
    id: Spanned<String>,
    breaks: Spanned<String>,
    edits: Spanned<Vec<Spanned<RawEdit>>>,
    undoes: Option<Spanned<String>>,
    #[serde(default)]
    source: Vec<Spanned<String>>,
    beds: Spanned<Vec<Spanned<String>>>,
    params: Option<Spanned<String>>,
    caught_by: Option<Spanned<Value>>,
    #[serde(default)]
    crash: bool,
    unobservable: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEdit {
    file: String,
    find: String,
    replace: String,
}

/// Reads a file; what is wrong with it is added to `mistakes`.
pub(super) fn parse(path: &Path, text: &str, bugs: &mut Vec<Bug>, mistakes: &mut Vec<String>) {
    let line_of = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
    let file: File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            let at = error.span().map_or(text.len(), |span| span.start);
            mistakes.push(format!("{}:{}: {}", path.display(), line_of(at), error.message()));
            return;
        }
    };
    let family = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for raw in file.bug {
        let raw = raw.into_inner();
        let id = raw.id.get_ref().clone();
        let place = Place { file: path.to_owned(), line: line_of(raw.id.span().start) };
        let mut found = Vec::new();
        let bug = Reader { family: &family, mistakes: &mut found }.bug(raw, place);
        let named = |(span, what): (Range<usize>, String)| {
            format!("{}:{}: {id}: {what}", path.display(), line_of(span.start))
        };
        if found.is_empty() {
            bugs.push(bug);
        }
        mistakes.extend(found.into_iter().map(named));
    }
}

/// Makes a bug, and notes what is wrong with it.
struct Reader<'a> {
    family: &'a str,
    mistakes: &'a mut Vec<(Range<usize>, String)>,
}

impl Reader<'_> {
    fn bug(&mut self, raw: RawBug, place: Place) -> Bug {
        self.id(&raw.id);
        self.sentence("breaks", &raw.breaks);
        for (name, text) in [("undoes", &raw.undoes), ("unobservable", &raw.unobservable)] {
            if let Some(text) = text {
                self.sentence(name, text);
            }
        }
        let source = raw.source.into_iter().filter_map(|one| {
            let span = one.span();
            series(one.get_ref()).map_err(|error| self.wrong(span, error)).ok()
        });
        let source = source.collect();
        let beds = self.beds(&raw.beds);
        let edits = self.edits(raw.edits);
        let params = raw.params.map(|text| self.params(&text, &beds)).unwrap_or_default();
        let proof = match (raw.caught_by, raw.unobservable) {
            (Some(cases), None) => self.caught_by(&cases, &beds),
            (None, Some(argument)) => Proof::Unobservable(argument.into_inner()),
            _ => {
                self.wrong(raw.id.span(), "there must be either `caught-by` or `unobservable`");
                Proof::Unobservable(String::new())
            }
        };
        Bug {
            id: raw.id.into_inner(),
            breaks: raw.breaks.into_inner(),
            edits,
            undoes: raw.undoes.map(Spanned::into_inner),
            source,
            beds,
            params,
            proof,
            crash: raw.crash,
            place,
        }
    }

    fn wrong(&mut self, at: Range<usize>, what: impl Into<String>) {
        self.mistakes.push((at, what.into()));
    }

    fn id(&mut self, id: &Spanned<String>) {
        let name = id.get_ref().strip_prefix(self.family).and_then(|rest| rest.strip_prefix('.'));
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-".contains(&byte);
        if !name.is_some_and(|name| !name.is_empty() && name.bytes().all(fits)) {
            let what =
                format!("an id in this file is `{}.` and lower-case letters, digits and `-`", self.family);
            self.wrong(id.span(), what);
        }
    }

    fn sentence(&mut self, name: &str, text: &Spanned<String>) {
        if text.get_ref().trim().is_empty() {
            self.wrong(text.span(), format!("`{name}` is empty"));
        }
    }

    fn beds(&mut self, names: &Spanned<Vec<Spanned<String>>>) -> Vec<Kind> {
        let mut beds = Vec::new();
        for name in names.get_ref() {
            match bed(name.get_ref()) {
                Ok(bed) if beds.contains(&bed) => self.wrong(name.span(), "a bed is there twice"),
                Ok(bed) => beds.push(bed),
                Err(error) => self.wrong(name.span(), error),
            }
        }
        if names.get_ref().is_empty() {
            self.wrong(names.span(), "`beds` is empty");
        }
        beds
    }

    fn edits(&mut self, edits: Spanned<Vec<Spanned<RawEdit>>>) -> Vec<Edit> {
        if edits.get_ref().is_empty() {
            self.wrong(edits.span(), "`edits` is empty");
        }
        let mut made = Vec::new();
        for edit in edits.into_inner() {
            let span = edit.span();
            let RawEdit { file, find, replace } = edit.into_inner();
            if file.split('/').any(|part| ["", ".", ".."].contains(&part))
                || !EDITABLE.iter().any(|place| file.starts_with(place))
            {
                let what =
                    format!("`{file}`: only KVM's modules are built anew, from {}", EDITABLE.join(", "));
                self.wrong(span.clone(), what);
            }
            if find.trim().is_empty() {
                self.wrong(span, "`find` is empty");
            } else if find == replace {
                self.wrong(span, "`replace` is what is there already");
            }
            made.push(Edit { file, find, replace });
        }
        made
    }

    fn params(&mut self, text: &Spanned<String>, beds: &[Kind]) -> BTreeMap<Kind, Params> {
        let params: Params = match text.get_ref().parse() {
            Ok(params) => params,
            Err(error) => {
                self.wrong(text.span(), error);
                return BTreeMap::new();
            }
        };
        let mut all = BTreeMap::new();
        for bed in beds {
            match params.clone().of_bed(*bed) {
                Ok(params) => drop(all.insert(*bed, params)),
                Err(error) => self.wrong(text.span(), format!("{error:#}")),
            }
        }
        all
    }

    fn caught_by(&mut self, value: &Spanned<Value>, beds: &[Kind]) -> Proof {
        if let Value::Table(table) = value.get_ref() {
            let mut each = BTreeMap::new();
            for (name, list) in table {
                match bed(name) {
                    Ok(bed) if !beds.contains(&bed) => {
                        self.wrong(value.span(), format!("caught-by: {name} is not one of its beds"));
                    }
                    Ok(bed) => drop(each.insert(bed, self.cases(list, value.span()))),
                    Err(error) => self.wrong(value.span(), format!("caught-by: {error}")),
                }
            }
            for bed in beds.iter().filter(|bed| !each.contains_key(*bed)) {
                self.wrong(value.span(), format!("caught-by says nothing of the bed {bed}"));
            }
            return Proof::Each(each);
        }
        Proof::Anywhere(self.cases(value.get_ref(), value.span()))
    }

    fn cases(&mut self, list: &Value, at: Range<usize>) -> Vec<String> {
        let cases: Option<Vec<String>> = list
            .as_array()
            .and_then(|list| list.iter().map(|case| case.as_str().map(str::to_owned)).collect());
        match cases {
            Some(cases) if !cases.is_empty() => cases,
            _ => {
                self.wrong(
                    at,
                    "caught-by: expected case ids, [\"family.case\", ...], or a table of such by bed",
                );
                Vec::new()
            }
        }
    }
}

fn bed(name: &str) -> Result<Kind, String> {
    let bed = Kind::ALL.into_iter().find(|bed| bed.name() == name);
    bed.ok_or_else(|| format!("there is no bed `{name}`, expected amd or intel"))
}
