//! Reads tables of the spanned TOML document key by key, noting every mistake with its place.
//!
//! Knows TOML and serde; nothing of cases.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::mistake::{Notes, Span};
use super::wording::{reword, suggestion};

/// A value and where it is written.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Where the entries of a table are written, by path: `rip`, `memory[0].at`, `cs.base`.
#[derive(Debug, Clone, Default)]
pub(super) struct Spans {
    /// The table itself; its header if it has one.
    pub(super) whole: Span,
    entries: BTreeMap<String, (Span, Span)>,
}

impl Spans {
    pub(super) fn of(value: &Value) -> Self {
        let mut spans = Self { whole: value.span(), entries: BTreeMap::new() };
        spans.collect("", value);
        spans
    }

    fn collect(&mut self, path: &str, value: &Value) {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", key.get_ref());
                    self.entries.insert(path.clone(), (key.span(), value.span()));
                    // Steps have spans of their own.
                    if path != "steps" {
                        self.collect(&path, value);
                    }
                }
            }
            DeValue::Array(array) => {
                for (index, value) in array.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.entries.insert(path.clone(), (value.span(), value.span()));
                    self.collect(&path, value);
                }
            }
            _ => {}
        }
    }

    /// Where the value at `path` is written; the whole table if it is not.
    pub(super) fn value(&self, path: &str) -> &Span {
        self.entries.get(path).map_or(&self.whole, |(_, value)| value)
    }

    /// Where the key at `path` is written; the whole table if it is not.
    pub(super) fn key(&self, path: &str) -> &Span {
        self.entries.get(path).map_or(&self.whole, |(key, _)| key)
    }

    /// Whether `path` is written.
    pub(super) fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }
}

/// A table that is being read: what was taken is gone.
#[derive(Debug)]
pub(super) struct Table<'t> {
    pub(super) span: Span,
    entries: DeTable<'t>,
}

impl<'t> Table<'t> {
    /// The table in `value`; anything else is a mistake.
    pub(super) fn new(value: Value<'t>, what: &str, notes: &mut Notes) -> Option<Self> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(entries) => Some(Self { span, entries }),
            other => {
                let found = other.type_str();
                notes.add(&span, format!("{what} must be a table, but this is of type {found}"));
                None
            }
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The keys that are left, in the order of the text.
    pub(super) fn keys(&self) -> Vec<(String, Span)> {
        let mut keys: Vec<_> =
            self.entries.keys().map(|key| (key.get_ref().to_string(), key.span())).collect();
        keys.sort_by_key(|(_, span)| span.start);
        keys
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value<'t>> {
        self.entries.remove(key)
    }

    /// Reads the value of `key`, if it is there.
    pub(super) fn read<T: for<'de> Deserialize<'de>>(&mut self, key: &str, notes: &mut Notes) -> Option<T> {
        let value = self.take(key)?;
        read(value, notes, |value| T::deserialize(value))
    }

    /// Reads the value of a key that must be there.
    pub(super) fn require<T: for<'de> Deserialize<'de>>(
        &mut self,
        key: &str,
        help: &str,
        notes: &mut Notes,
    ) -> Option<T> {
        if !self.has(key) {
            let mistake = notes.add(&self.span, format!("missing key `{key}`"));
            if !help.is_empty() {
                mistake.help(help);
            }
        }
        self.read(key, notes)
    }

    /// Takes the elements of a list.
    pub(super) fn list(&mut self, key: &str, notes: &mut Notes) -> Option<Vec<Value<'t>>> {
        let value = self.take(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(array) => Some(array.into_iter().collect()),
            other => {
                let found = other.type_str();
                notes.add(&span, format!("`{key}` must be a list, but this is of type {found}"));
                None
            }
        }
    }

    /// What is left, as a value for serde.
    pub(super) fn rest(self) -> Value<'t> {
        Spanned::new(self.span, DeValue::Table(self.entries))
    }

    /// Every key that is left is a mistake.
    pub(super) fn finish(self, what: &str, allowed: &[&str], notes: &mut Notes) {
        for (key, span) in self.keys() {
            unknown_key(&key, &span, what, allowed, notes);
        }
    }
}

/// Notes a key that `what` does not have.
pub(super) fn unknown_key(key: &str, span: &Span, what: &str, allowed: &[&str], notes: &mut Notes) {
    let help = if notes.is_full() { String::new() } else { suggestion(key, allowed) };
    notes.add(span, format!("unknown key `{key}` in {what}")).help(help);
}

/// Deserializes `value`. At each error the entry at fault is taken out and the rest is tried again,
/// so that all mistakes in it are found; if there was one, there is no result.
pub(super) fn read<'t, T>(
    mut value: Value<'t>,
    notes: &mut Notes,
    deserialize: impl Fn(ValueDeserializer<'t>) -> Result<T, toml::de::Error>,
) -> Option<T> {
    let mut removed: Vec<Span> = Vec::new();
    loop {
        let error = match deserialize(ValueDeserializer::from(value.clone())) {
            Ok(result) => return removed.is_empty().then_some(result),
            Err(error) => error,
        };
        let mut span = error.span().unwrap_or_else(|| value.span());
        let missing = error.message().starts_with("missing field");
        if !missing && span == value.span() {
            span = culprit(&value, error.message(), &deserialize).unwrap_or(span);
        }
        let follows = missing && removed.iter().any(|gone| holds(&value, &span, gone));
        if !follows {
            let (message, help) = reword(error.message());
            let mistake = notes.add(&span, message);
            if let Some(help) = help {
                mistake.help(help);
            }
        }
        if span == value.span() || removed.len() > 64 || !remove(&mut value, &span) {
            return None;
        }
        removed.push(span);
    }
}

/// Serde buffers tagged tables and forgets where their entries are. The one at fault is the one that
/// gives the same error without the others.
fn culprit<'t, T>(
    value: &Value<'t>,
    message: &str,
    deserialize: &impl Fn(ValueDeserializer<'t>) -> Result<T, toml::de::Error>,
) -> Option<Span> {
    let DeValue::Table(table) = value.get_ref() else { return None };
    let (tag, kind) = table.get_key_value("do")?;
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    for (key, entry) in table {
        if unknown == Some(key.get_ref()) {
            return Some(key.span());
        }
        let mut alone = DeTable::new();
        alone.insert(tag.clone(), kind.clone());
        alone.insert(key.clone(), entry.clone());
        let alone = Spanned::new(value.span(), DeValue::Table(alone));
        if deserialize(ValueDeserializer::from(alone)).is_err_and(|error| error.message() == message) {
            return Some(entry.span());
        }
    }
    None
}

fn covers(outer: &Span, inner: &Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// The text of a value with all its entries. A table's own span may be its header alone.
fn extent(value: &Value) -> Span {
    let mut span = value.span();
    let mut grow = |other: Span| span = span.start.min(other.start)..span.end.max(other.end);
    match value.get_ref() {
        DeValue::Table(table) => table.iter().for_each(|(key, value)| {
            grow(key.span());
            grow(extent(value));
        }),
        DeValue::Array(array) => array.iter().for_each(|value| grow(extent(value))),
        _ => {}
    }
    span
}

/// Whether the part of `value` that is written at `span` had an entry at `gone`.
fn holds(value: &Value, span: &Span, gone: &Span) -> bool {
    if value.span() == *span || covers(span, gone) {
        return true;
    }
    match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().any(|(_, value)| value.span() == *span && covers(&extent(value), gone))
        }
        _ => false,
    }
}

/// Takes the smallest entry that is written at `span` out of `value`.
fn remove(value: &mut Value<'_>, span: &Span) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => {
            let found =
                table.iter().find(|(key, value)| covers(&key.span(), span) || covers(&extent(value), span));
            let Some(key) = found.map(|(key, _)| key.clone()) else { return false };
            let deeper = table.get_mut(key.get_ref().as_ref()).is_some_and(|value| {
                value.span() != *span && !covers(&key.span(), span) && remove(value, span)
            });
            deeper || table.remove(key.get_ref().as_ref()).is_some()
        }
        DeValue::Array(array) => {
            let Some(at) = array.iter().position(|value| covers(&extent(value), span)) else { return false };
            let deeper = array.get_mut(at).is_some_and(|value| value.span() != *span && remove(value, span));
            if !deeper {
                let kept = array.clone().into_iter().enumerate().filter(|(index, _)| *index != at);
                *array = kept.map(|(_, value)| value).collect();
            }
            true
        }
        _ => false,
    }
}
