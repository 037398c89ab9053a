//! Mistakes of manifests, told to people: what, where with a caret, what to do.
//!
//! Knows texts and positions; nothing of TOML, and nothing of what a case means.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::case::Place;

/// A range of bytes in a manifest's text.
pub(super) type Span = Range<usize>;

/// Mistakes kept for one file; the rest is only counted, so that a broken file cannot flood a terminal.
pub(super) const MAX_KEPT: usize = 100;
/// Longest line, in bytes, that is shown under a mistake.
const MAX_SHOWN_LINE: usize = 4096;

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// The manifest's path as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, in characters, from 1.
    pub column: u32,
    /// The text at fault: bytes of the file.
    pub span: Range<usize>,
    /// What to do.
    pub help: Option<String>,
    /// Another place that has to do with it, such as the first of two equal ids.
    pub also: Option<Also>,
}

/// A second place of a mistake, in the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Also {
    /// What it has to do with the mistake.
    pub note: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, in characters, from 1.
    pub column: u32,
    /// Bytes of the file.
    pub span: Range<usize>,
}

impl Mistake {
    /// Says what to do.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Points at a second place; its line is filled in at the end.
    pub(super) fn also(&mut self, span: &Span, note: impl Into<String>) -> &mut Self {
        self.also = Some(Also { note: note.into(), line: 0, column: 0, span: span.clone() });
        self
    }
}

/// Everything that is wrong with one or more manifests. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mistakes {
    list: Vec<Mistake>,
    left_out: usize,
    sources: BTreeMap<String, Arc<str>>,
}

impl Mistakes {
    /// The mistakes, in the order of the files and of their text.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.list.iter()
    }

    /// How many there are, with those that are too many to show.
    pub fn len(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the mistakes of another file along.
    pub(super) fn merge(&mut self, other: Self) {
        self.list.extend(other.list);
        self.left_out += other.left_out;
        self.sources.extend(other.sources);
    }

    /// A mistake that no text shows, such as a file that cannot be read.
    pub(super) fn of_file(file: &str, message: String, help: &str) -> Self {
        let help = (!help.is_empty()).then(|| help.to_owned());
        let file = file.to_owned();
        let mistake = Mistake { message, file, line: 1, column: 1, span: 0..0, help, also: None };
        Self { list: vec![mistake], ..Self::default() }
    }

    /// The text for a terminal, with the lines at fault and carets under them.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for mistake in &self.list {
            out += &renderer.render(&[self.group(mistake)]);
            out += "\n\n";
        }
        let files =
            if self.sources.len() > 1 { format!(" in {} files", self.sources.len()) } else { String::new() };
        let (count, plural) = (self.len(), if self.len() == 1 { "" } else { "s" });
        let _ = write!(out, "{count} mistake{plural}{files}");
        if self.left_out > 0 {
            let _ = write!(out, "; {} not shown", self.left_out);
        }
        out.push('\n');
        out
    }

    fn group<'a>(&'a self, mistake: &'a Mistake) -> Group<'a> {
        let title = Level::ERROR.primary_title(mistake.message.as_str());
        let source = self.sources.get(&mistake.file);
        let shown = source.and_then(|text| snippet(text, mistake, &mistake.span, mistake.line, None));
        let mut group = if let Some(snippet) = shown {
            title.element(snippet)
        } else {
            let origin = Origin::path(mistake.file.as_str()).line(mistake.line as usize);
            title.element(origin.char_column(mistake.column as usize))
        };
        if let Some(also) = &mistake.also {
            let shown =
                source.and_then(|text| snippet(text, mistake, &also.span, also.line, Some(&also.note)));
            group = group.elements(shown);
        }
        match &mistake.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

/// The line of `span` alone: what surrounds it does not explain a mistake. `None` if it is too long to show.
fn snippet<'a>(
    text: &'a str,
    mistake: &'a Mistake,
    span: &Span,
    line: u32,
    note: Option<&'a str>,
) -> Option<Snippet<'a, Annotation<'a>>> {
    let start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let shown = text.get(start..)?.lines().next().unwrap_or("");
    if shown.len() > MAX_SHOWN_LINE {
        return None;
    }
    let from = (span.start - start).min(shown.len());
    let to = span.end.saturating_sub(start).clamp(from, shown.len());
    let kind = if note.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
    let snippet = Snippet::source(shown).path(mistake.file.as_str()).line_start(line as usize);
    Some(snippet.annotation(kind.span(from..to).label(note)))
}

impl<'a> IntoIterator for &'a Mistakes {
    type Item = &'a Mistake;
    type IntoIter = std::slice::Iter<'a, Mistake>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Mistakes {}

/// A manifest's text.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) text: Arc<str>,
    line_starts: Vec<usize>,
}

impl Source {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Self { file: file.to_owned(), text: text.into(), line_starts }
    }

    /// Line and column, from 1, of a byte.
    pub(super) fn position(&self, at: usize) -> (u32, u32) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let start = self.line_starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..at.min(self.text.len())).unwrap_or("");
        (line as u32, before.chars().count() as u32 + 1)
    }

    /// A place for people: `shown` is the text that stands for it, its first line.
    pub(super) fn place(&self, at: usize, shown: &Span) -> Place {
        let (line, column) = self.position(at);
        let text = self.text.get(shown.clone()).unwrap_or("");
        let text = text.lines().next().unwrap_or("").trim().chars().take(160).collect();
        Place { file: self.file.clone(), line, column, text }
    }
}

/// Collects the mistakes of one file.
#[derive(Debug)]
pub(super) struct Notes<'s> {
    pub(super) source: &'s Source,
    list: Vec<Mistake>,
    left_out: usize,
    spare: Mistake,
}

impl<'s> Notes<'s> {
    pub(super) fn new(source: &'s Source) -> Self {
        let spare = Mistake {
            message: String::new(),
            file: String::new(),
            line: 1,
            column: 1,
            span: 0..0,
            help: None,
            also: None,
        };
        Self { source, list: Vec::new(), left_out: 0, spare }
    }

    /// How many mistakes there are so far: a table is sound if reading it added none.
    pub(super) fn count(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// Whether further mistakes are only counted, so that nobody need look for good advice.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_KEPT
    }

    /// Notes a mistake, once.
    pub(super) fn add(&mut self, span: &Span, message: impl Into<String>) -> &mut Mistake {
        let message = message.into();
        let span = self.inside(span);
        if let Some(known) = self.list.iter().position(|one| one.span == span && one.message == message) {
            return &mut self.list[known];
        }
        if self.is_full() {
            self.left_out += 1;
            return &mut self.spare;
        }
        let (line, column) = self.source.position(span.start);
        let file = self.source.file.clone();
        self.list.push(Mistake { message, file, line, column, span, help: None, also: None });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// A span cut to the text, on character boundaries.
    fn inside(&self, span: &Span) -> Span {
        let text = &self.source.text;
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let end = text.floor_char_boundary(span.end.clamp(start, text.len())).max(start);
        start..end
    }

    /// The mistakes, in the order of the text; `None` if there are none.
    pub(super) fn finish(mut self) -> Option<Mistakes> {
        if self.list.is_empty() {
            return None;
        }
        self.list.sort_by_key(|mistake| mistake.span.start);
        for also in self.list.iter_mut().filter_map(|mistake| mistake.also.as_mut()) {
            (also.line, also.column) = self.source.position(also.span.start);
        }
        let sources = BTreeMap::from([(self.source.file.clone(), Arc::clone(&self.source.text))]);
        Some(Mistakes { list: self.list, left_out: self.left_out, sources })
    }
}
