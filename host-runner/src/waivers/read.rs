//! Files of waivers, read and checked against the suite that they are for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::release::Release;
use super::{Scope, Waiver, Waivers};
use crate::case::Vary;
use crate::host::{HostFacts, other_setting};
use crate::outcome::Verdict;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    waiver: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    case: Option<Spanned<String>>,
    /// Several cases that deviate for one reason.
    #[serde(default)]
    cases: Vec<Spanned<String>>,
    reason: String,
    link: Option<String>,
    #[serde(default)]
    expect: Deviation,
    observed: Option<Observed>,
    #[serde(default)]
    vary: Vec<Vary>,
    #[serde(default)]
    sometimes: bool,
    /// Module parameters without which the waiver does not apply: `"kvm_amd.npt" = "0"`.
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// The first release of Linux that has the deviation.
    since: Option<Spanned<Release>>,
    /// The first release of Linux that does not have it any more.
    before: Option<Spanned<Release>>,
}

impl Entry {
    /// Whether this host is one that it is about.
    fn applies(&self, host: &HostFacts) -> bool {
        let here = Release::of(&host.kernel);
        other_setting(&self.params, host).is_none()
            && self.since.as_ref().is_none_or(|since| here >= *since.get_ref())
            && self.before.as_ref().is_none_or(|before| here < *before.get_ref())
    }

    /// Where it begins, if no release is meant by it.
    fn in_no_release(&self) -> Option<usize> {
        let (since, before) = (self.since.as_ref()?, self.before.as_ref()?);
        (since.get_ref() >= before.get_ref()).then_some(before.span().start)
    }
}

/// What is seen; several texts if it is not the same each time.
#[derive(Deserialize)]
#[serde(untagged)]
enum Observed {
    Always(String),
    OneOf(Vec<String>),
}

impl Observed {
    fn texts(self) -> Vec<String> {
        match self {
            Observed::Always(text) => vec![text],
            Observed::OneOf(texts) => texts,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Deviation {
    #[default]
    Fail,
    Timeout,
    Crash,
    Error,
}

impl Deviation {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Fail => Verdict::Fail,
            Self::Timeout => Verdict::Timeout,
            Self::Crash => Verdict::Crash,
            Self::Error => Verdict::Error,
        }
    }
}

impl Waivers {
    /// Adds a file of waivers for a suite that has these `cases`, as far as they apply to `host`. A file that does
    /// not exist is a mistake only if it is `wanted`. The error is for the user, with file, line and column.
    pub fn add<'a>(
        &mut self,
        path: &Path,
        wanted: bool,
        cases: impl Iterator<Item = &'a str>,
        host: &HostFacts,
    ) -> Result<(), String> {
        match fs::read_to_string(path) {
            Ok(text) => self.parse(&text, &path.display().to_string(), cases, host),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !wanted => Ok(()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Adds a file's text.
    pub(super) fn parse<'a>(
        &mut self,
        text: &str,
        file: &str,
        cases: impl Iterator<Item = &'a str>,
        host: &HostFacts,
    ) -> Result<(), String> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let place =
                error.span().map_or_else(|| file.to_owned(), |span| place(text, file, span.start, true));
            format!("{place}: {}", error.message())
        })?;
        let cases: Vec<&str> = cases.collect();
        for entry in document.waiver {
            let applies = entry.applies(host);
            if let Some(start) = entry.in_no_release() {
                let place = place(text, file, start, true);
                return Err(format!("{place}: `before` must name a later release than `since`"));
            }
            let ids: Vec<Spanned<String>> = entry.case.into_iter().chain(entry.cases).collect();
            let observed = entry.observed.map(Observed::texts).unwrap_or_default();
            if ids.is_empty() {
                return Err(format!("{file}: a waiver names no case (\"{}\")", entry.reason));
            }
            for id in ids {
                let (start, case) = (id.span().start, id.into_inner());
                let mistake = |what: &str| Err(format!("{}: {what}", place(text, file, start, true)));
                let scope = scope(&case);
                if let Some(scope) = &scope {
                    if entry.vary.is_empty() || !entry.sometimes || observed.is_empty() {
                        return mistake(
                            "a waiver for more than single cases must say under which variations (`vary`) and what is \
                             seen (`observed`), and that it does not always show (`sometimes = true`)",
                        );
                    }
                    if !cases.iter().any(|case| scope.has(case)) {
                        return mistake(&format!("a waiver for `{case}`, but there is no such family"));
                    }
                } else if !cases.contains(&case.as_str()) {
                    return mistake(&format!("a waiver for `{case}`, but there is no such case"));
                }
                if entry.reason.trim().is_empty() {
                    return mistake(&format!("the waiver for `{case}` gives no reason"));
                }
                if !applies {
                    continue;
                }
                let waiver = Waiver {
                    reason: entry.reason.clone(),
                    link: entry.link.clone(),
                    expect: entry.expect.verdict(),
                    vary: entry.vary.clone(),
                    sometimes: entry.sometimes,
                    observed: observed.clone(),
                    place: place(text, file, start, false),
                };
                if let Some(scope) = scope {
                    self.wide.push((scope, waiver));
                    continue;
                }
                let others = self.by_case.entry(case.clone()).or_default();
                let same = |other: &&Waiver| {
                    other.vary == waiver.vary || other.vary.iter().any(|vary| waiver.vary.contains(vary))
                };
                if let Some(first) = others.iter().find(same) {
                    return mistake(&format!("a second waiver for `{case}`; {} has the first", first.place));
                }
                others.push(waiver);
            }
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// What a pattern stands for; `None` if it is a case's id.
fn scope(pattern: &str) -> Option<Scope> {
    let family = pattern.strip_suffix('*')?;
    match family {
        "" => Some(Scope::Any),
        family if family.ends_with('.') => Some(Scope::Family(family.to_owned())),
        _ => None,
    }
}

fn place(text: &str, file: &str, offset: usize, with_column: bool) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    if with_column { format!("{file}:{line}:{column}") } else { format!("{file}:{line}") }
}
