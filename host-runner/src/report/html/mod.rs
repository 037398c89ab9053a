//! Runs as a page: one file that needs no network and no script, for people.
//!
//! The page is a function of the journals alone, so the same journals give the same bytes. Everything that comes
//! from a journal goes through [`text::Shown`]; if something did not, the page's own policy would still let no
//! script run but [`SCRIPT`], nothing be loaded, and nothing be sent.

mod evidence;
mod facts;
mod lists;
mod mark;
mod matrix;
mod model;
mod reference;
mod sentence;
mod text;
mod timeline;

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use mark::Mark;
use matrix::Anchors;
use model::{Model, Seen};
use text::{Shown, count, cut};

use super::Results;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// SHA-256 of [`SCRIPT`], for the policy.
const SCRIPT_HASH: &str = "DLQO/xQdrpJuh56ebb8IvNu19JHMdKsj3h415GGbPkg=";
/// Cases of a section that are shown with all that was seen. On a host where everything deviates the rest is told
/// in a line each: the journal has it.
const IN_FULL: usize = 150;
/// Cases in the list at the top.
const INDEX: usize = 20;
/// Characters of a reason in that list.
const LINE: usize = 160;

/// The page of these runs.
pub fn page(results: &Results) -> String {
    let model = Model::of(&results.runs);
    let mut anchors = Anchors::new();
    let sections = [
        section(&model, &mut anchors, "deviations", "Deviations", &[Mark::Fail, Mark::Timeout, Mark::Crash]),
        section(&model, &mut anchors, "faults", "Faults of the suite", &[Mark::Error]),
        section(&model, &mut anchors, "stale", "Stale waivers", &[Mark::Xpass]),
        section(&model, &mut anchors, "waived", "Deviations that are waived", &[Mark::Xfail]),
    ];
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{SCRIPT_HASH}'; base-uri 'none'; \
         form-action 'none'"
    );
    let title = sentence::sentence(&model, 0)
        .map_or_else(String::new, |said| format!("{} {}", said.host, said.verdict));
    let index = index(&model, &anchors);
    let [deviations, faults, stale, waived] = sections;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "ExitSpec: " (Shown(&title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip-to href="#content" { "To the results" }
                (facts::verdicts(&model))
                (facts::runs(&model))
                (index)
                main #content tabindex="-1" {
                    (filter(&model))
                    (matrix::matrix(&model, &anchors))
                    (deviations) (faults) (stale) (waived)
                    (lists::open(&model))
                    (lists::skips(&model))
                    (lists::slowest(&model))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// What is not as it should be, a line each with a link to what was seen.
fn index(model: &Model<'_>, anchors: &Anchors<'_>) -> Markup {
    const BAD: [Mark; 5] = [Mark::Fail, Mark::Timeout, Mark::Crash, Mark::Error, Mark::Xpass];
    let cases = model.seen(&BAD);
    let line = |way: &Seen<'_>, case: &str| {
        let anchor = way.at.first().and_then(|(column, _)| anchors.get(&(*column, case)));
        html! {
            td { span.badge.(way.mark.word()) { (way.mark.word()) } }
            th scope="row" {
                @match anchor {
                    Some(anchor) => a href={ "#" (anchor) } { (Shown(case)) },
                    None => (Shown(case)),
                }
            }
            td { (Shown(&cut(&way.outcome().reason, LINE))) }
        }
    };
    html! {
        @if !cases.is_empty() {
            nav.index aria-labelledby="index-title" {
                h2 #index-title { "What to look at" }
                table.index {
                    thead { tr { th scope="col" { "Verdict" } th scope="col" { "Case" } th scope="col" { "What was seen" } } }
                    tbody {
                        @for (case, ways) in cases.iter().take(INDEX) {
                            @if let Some(way) = ways.first() { tr { (line(way, case)) } }
                        }
                    }
                }
                @if cases.len() > INDEX { p { "and " (count(cases.len() - INDEX, "case", "cases")) " more, below" } }
            }
        }
    }
}

/// The cases that went one of these ways somewhere, an article each.
fn section<'a>(
    model: &Model<'a>,
    anchors: &mut Anchors<'a>,
    id: &str,
    title: &str,
    marks: &[Mark],
) -> Markup {
    let cases: BTreeMap<&str, Vec<Seen<'_>>> = model.seen(marks);
    let named: Vec<(String, &str, &Vec<Seen<'_>>)> = cases
        .iter()
        .enumerate()
        .map(|(index, (case, ways))| (format!("{id}-{}", index + 1), *case, ways))
        .collect();
    for (name, case, ways) in &named {
        let at = ways.iter().flat_map(|way| &way.at).map(|(column, _)| (*column, *case));
        matrix::anchor(anchors, name, at);
    }
    let is_open = id != "waived";
    let about = match id {
        "faults" => "A case or the harness is at fault here, not the host.",
        "stale" => {
            "These cases hold although a waiver says that they do not. Remove the waiver, and the run is green."
        }
        "waived" => "Known deviations of this host, each with the reason that its waiver gives.",
        _ => "",
    };
    html! {
        @if !named.is_empty() {
            section id=(id) aria-labelledby={ (id) "-title" } {
                h2 id={ (id) "-title" } { (title) " " span.count { (named.len()) } }
                @if !about.is_empty() { p.lead { (about) } }
                @for (index, (name, case, ways)) in named.iter().enumerate() {
                    @let article = evidence::article(model, case, name, ways, index < IN_FULL);
                    @if is_open {
                        (article)
                    } @else {
                        details.waived data-case=(Shown(case)) {
                            summary {
                                code { (Shown(case)) } " "
                                span { (Shown(ways.first().map_or("", |way| &way.outcome().reason))) }
                            }
                            (article)
                        }
                    }
                }
            }
        }
    }
}

/// What a script can filter by; without one it is not there.
fn filter(model: &Model<'_>) -> Markup {
    let occurs = |mark: &&Mark| model.columns.iter().any(|column| column.count(**mark) > 0);
    html! {
        form #filter hidden role="search" aria-label="Filter" {
            label { "Text " input #f-text type="search" autocomplete="off" placeholder="part of a case's name"; }
            label { "Verdict "
                select #f-mark {
                    option value="" { "any" }
                    @for mark in Mark::ALL.iter().filter(occurs) { option value=(mark.word()) { (mark.word()) } }
                }
            }
            label { "Family "
                select #f-family {
                    option value="" { "any" }
                    @for family in model.families.keys() { option value=(Shown(family)) { (Shown(family)) } }
                }
            }
            @if model.columns.len() > 1 {
                label { "Column "
                    select #f-column {
                        option value="" { "any" }
                        @for index in 0..model.columns.len() {
                            option value=(index + 1) { (index + 1) " " (Shown(model.head(index))) }
                        }
                    }
                }
            }
            button type="reset" { "Clear" }
            output #f-count for="f-text f-mark f-family f-column" {}
        }
    }
}

#[cfg(test)]
mod tests;
