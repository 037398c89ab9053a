//! Every case against every column: a picture of each family, and behind it a table with a row for each case.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use super::facts;
use super::mark::Mark;
use super::model::{Cell, Column, Model};
use super::text::{Shown, cut};

/// Cells beside each other in the picture.
const WIDE: usize = 64;
/// From one cell of the picture to the next; a shape takes 8 of it.
const PITCH: usize = 9;
/// Left of the first cell, for the column's number, if there are several.
const LABEL: usize = 14;
/// Characters of a reason in a cell's title.
const TITLE: usize = 90;

/// Where in the page a test's evidence is.
pub(super) type Anchors<'a> = BTreeMap<(usize, &'a str), String>;

/// All families.
pub(super) fn matrix(model: &Model<'_>, anchors: &Anchors<'_>) -> Markup {
    html! {
        section #matrix aria-labelledby="matrix-title" {
            h2 #matrix-title { "All cases" }
            p.lead {
                "Each family of cases is a picture: its cases stand from left to right"
                @if model.columns.len() > 1 { ", the columns numbered below from top to bottom" }
                ". The more ink, the more there is to look at. Open a family to see its cases by name."
            }
            (legend(model))
            @if model.columns.len() > 1 { (facts::columns(model)) }
            div.families {
                @for (family, cases) in &model.families {
                    details.family data-family=(Shown(family)) {
                        summary {
                            span.name { (Shown(family)) } " " span.size { (cases.len()) }
                            (picture(model, cases))
                        }
                        p.tally { (tally(model, cases)) }
                        div.scroll tabindex="0" role="group" aria-label={ "Cases of " (Shown(family)) } {
                            (table(model, family, cases, anchors))
                        }
                    }
                }
            }
        }
    }
}

/// Explains the marks that occur.
fn legend(model: &Model<'_>) -> Markup {
    let occurs = |mark: &&Mark| model.columns.iter().any(|column| column.count(**mark) > 0);
    html! {
        ul.legend aria-label="Marks" {
            @for mark in Mark::ALL.iter().filter(occurs) {
                li {
                    svg.icon viewBox="0 0 8 8" aria-hidden="true" {
                        path class=(mark.word()) d={ "M0 0" (mark.shape()) } {}
                    }
                    b class=(mark.word()) { (mark.letter()) }
                    " " (mark.meaning())
                }
            }
        }
    }
}

/// `38 cases: 2 fail, 36 pass`, by the worst of each case.
fn tally<'a>(model: &Model<'a>, cases: impl IntoIterator<Item = &'a &'a str>) -> String {
    let mut counts: BTreeMap<Mark, usize> = BTreeMap::new();
    for case in cases {
        let marks = model.columns.iter().filter_map(|column| column.cells.get(case)).map(|cell| cell.mark);
        if let Some(mark) = marks.max() {
            *counts.entry(mark).or_default() += 1;
        }
    }
    let words = Mark::ALL.iter().filter_map(|mark| counts.get(mark).map(|n| format!("{n} {}", mark.word())));
    words.collect::<Vec<_>>().join(", ")
}

/// One path for each mark and column: a cell is some twenty bytes.
fn picture<'a>(
    model: &Model<'a>,
    cases: impl IntoIterator<Item = &'a &'a str, IntoIter: ExactSizeIterator> + Copy,
) -> Markup {
    let number = cases.into_iter().len();
    // A family that is not played has a line of skips, and nothing below.
    let is_empty = |column: &Column<'_>| !cases.into_iter().any(|case| column.cells.contains_key(case));
    let lines = model.columns.iter().rposition(|column| !is_empty(column)).map_or(1, |last| last + 1);
    let strips = number.div_ceil(WIDE);
    let left = if lines > 1 { LABEL } else { 0 };
    // Runs, and strips of a family that is wider than the picture, stand apart.
    let top = |strip: usize, column: usize| {
        let run = model.columns.get(column).map_or(0, |column| column.run);
        let height = lines * PITCH + model.runs.len() * 4;
        strip * (height + PITCH) + column * PITCH + run * 4
    };
    let wide = left + number.min(WIDE) * PITCH;
    let high = top(strips.saturating_sub(1), lines.saturating_sub(1)) + PITCH;
    let mut paths: BTreeMap<(usize, Mark), String> = BTreeMap::new();
    for (index, column) in model.columns.iter().enumerate() {
        for (place, case) in cases.into_iter().enumerate() {
            let Some(Cell { mark, .. }) = column.cells.get(case) else { continue };
            let (x, y) = (left + place % WIDE * PITCH, top(place / WIDE, index));
            let path = paths.entry((index, *mark)).or_default();
            let _ = write!(path, "M{x} {y}{}", mark.shape());
        }
    }
    html! {
        svg.picture viewBox={ "0 0 " (wide) " " (high) } width=(wide) height=(high) role="img"
            aria-label={ (tally(model, cases)) } {
            @if lines > 1 {
                @for index in 0..lines {
                    @for strip in 0..strips {
                        text x=(left - 4) y=(top(strip, index) + 7) { (index + 1) }
                    }
                }
            }
            @for ((_, mark), path) in &paths {
                path class=(mark.word()) d=(PreEscaped(path)) {}
            }
        }
    }
}

fn table<'a>(
    model: &Model<'a>,
    family: &str,
    cases: impl IntoIterator<Item = &'a &'a str>,
    anchors: &Anchors<'a>,
) -> Markup {
    html! {
        table.cases {
            caption { "Cases of " (Shown(family)) }
            thead {
                tr {
                    th scope="col" { "Case" }
                    @for index in 0..model.columns.len() {
                        th.turned scope="col" { span { (index + 1) " " (Shown(model.head(index))) } }
                    }
                }
            }
            tbody {
                @for case in cases {
                    tr {
                        th scope="row" { (Shown(case)) }
                        @for (index, column) in model.columns.iter().enumerate() {
                            (cell(column.cells.get(case), anchors.get(&(index, *case))))
                        }
                    }
                }
            }
        }
    }
}

/// A cell; a pass has no title, as there is nothing to say, and there are thousands.
fn cell(cell: Option<&Cell<'_>>, anchor: Option<&String>) -> Markup {
    let Some(Cell { mark, test }) = cell else { return html! { td {} } };
    let reason = test.map_or("", |(_, test)| test.outcome.reason.as_str());
    if *mark == Mark::Pass {
        return html! { td.pass { (mark.letter()) } };
    }
    let title = html! { (mark.meaning()) @if !reason.is_empty() { ": " (Shown(&cut(reason, TITLE))) } };
    html! {
        td class=(mark.word()) title=(title) {
            @match anchor {
                Some(anchor) => a href={ "#" (anchor) } { (mark.letter()) },
                None => (mark.letter()),
            }
        }
    }
}

/// Gives each case with evidence its place in the page.
pub(super) fn anchor<'a>(
    anchors: &mut Anchors<'a>,
    name: &str,
    at: impl IntoIterator<Item = (usize, &'a str)>,
) {
    for key in at {
        if let Entry::Vacant(free) = anchors.entry(key) {
            free.insert(name.to_owned());
        }
    }
}
