//! What was seen of a case that did not hold: one article for the case, a part for each way in which it went.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::mark::Mark;
use super::model::{Model, Seen, case_of};
use super::reference;
use super::text::{Shown, count};
use super::timeline::{mismatches, timeline};
use crate::case::Basis;
use crate::outcome::{CodeLine, Evidence};
use crate::report::registers;

/// Ways of one case that are shown with all that was seen; of the others the reason is told.
const WAYS: usize = 4;

/// A case: what it is, and each way in which it went.
pub(super) fn article(
    model: &Model<'_>,
    case: &str,
    anchor: &str,
    ways: &[Seen<'_>],
    in_full: bool,
) -> Markup {
    let about = ways.iter().find_map(|way| way.test.about.as_deref());
    let marks: BTreeSet<Mark> = ways.iter().map(|way| way.mark).collect();
    let words =
        |marks: &BTreeSet<Mark>| marks.iter().rev().map(|mark| mark.word()).collect::<Vec<_>>().join(" ");
    let columns: BTreeSet<usize> =
        ways.iter().flat_map(|way| &way.at).map(|(column, _)| column + 1).collect();
    let columns = columns.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    html! {
        article.case id=(anchor) data-case=(Shown(case)) data-marks=(words(&marks)) data-columns=(columns) {
            h3 {
                @for mark in marks.iter().rev() { span.badge.(mark.word()) { (mark.word()) } " " }
                span.id { (Shown(case)) }
            }
            @if let Some(about) = about {
                p.summary { (Shown(&about.summary)) }
            }
            @for (index, way) in ways.iter().enumerate() {
                @if index == 0 && in_full {
                    (one_way(model, way, ways.len() > 1 || model.columns.len() > 1))
                } @else if in_full && index < WAYS {
                    details.way {
                        summary { (way.mark.word()) " " (place(model, way)) ": " (Shown(&way.outcome().reason)) }
                        (one_way(model, way, true))
                    }
                } @else {
                    p.way { b { (way.mark.word()) " " (place(model, way)) } ": " (Shown(&way.outcome().reason)) }
                }
            }
            @if let Some(about) = about {
                dl.about {
                    @if marks.iter().any(|mark| matches!(mark, Mark::Fail | Mark::Timeout | Mark::Crash | Mark::Xfail)) {
                        dt { "What it means" } dd { (Shown(&about.detects)) }
                    }
                    dt { "Who promises it" } dd { (promised(about.basis)) }
                    @if !about.reference.is_empty() {
                        dt { "Where" }
                        dd { ul { @for text in &about.reference { li { (reference::link(text)) } } } }
                    }
                    @if !about.again.is_empty() {
                        dt { "To repeat it" } dd { pre.command { code { (Shown(&about.again)) } } }
                    }
                }
            }
        }
    }
}

/// A basis, in words.
const fn promised(basis: Basis) -> &'static str {
    match basis {
        Basis::Arch => "the architecture",
        Basis::KvmAbi => "KVM's interface to userspace",
        Basis::Impl => "nobody: it is what KVM does, and a change should be known",
    }
}

/// `in 1 as it is, 3 kick`.
fn place(model: &Model<'_>, way: &Seen<'_>) -> Markup {
    let name = |column: usize| {
        html! { (column + 1) " " (Shown(model.head(column))) }
    };
    let played = |case| model.columns.iter().filter(|column| column.cells.contains_key(case)).count();
    let everywhere = way.at.first().is_some_and(|(_, name)| way.at.len() == played(case_of(name)));
    html! {
        @if everywhere && way.at.len() > 1 {
            "in each of " (way.at.len()) " columns"
        } @else {
            "in "
            @for (index, (column, _)) in way.at.iter().enumerate().take(8) {
                @if index > 0 { ", " }
                (name(*column))
            }
            @if way.at.len() > 8 { " and " (count(way.at.len() - 8, "column", "columns")) " more" }
        }
    }
}

fn one_way(model: &Model<'_>, way: &Seen<'_>, of_several: bool) -> Markup {
    let outcome = way.outcome();
    html! {
        div.seen {
            @if of_several { p.where { "Seen " (place(model, way)) } }
            // The table of what differs says it better.
            @if way.mark != Mark::Fail || way.evidence().is_none_or(|evidence| evidence.mismatches.is_empty()) {
                p.reason { (Shown(&outcome.reason)) }
            }
            @if let Some(evidence) = way.evidence() { (seen(evidence)) }
        }
    }
}

fn seen(evidence: &Evidence) -> Markup {
    html! {
        (mismatches(&evidence.mismatches))
        @if let Some(why) = &evidence.why { p.why { "Because: " (Shown(why)) } }
        (timeline(evidence))
        @if let Some(place) = &evidence.place {
            // Where the manifests lay when they were played is of no interest, in a bed least of all.
            @let file = place.file.rsplit('/').next().unwrap_or(&place.file);
            p.place { "Written in " code { (Shown(file)) ":" (place.line) } }
        }
        @if let Some(shrunk) = &evidence.shrunk {
            p.shrunk { b { "Perturbed " } (Shown(shrunk)) }
        }
        (code(&evidence.code))
        @if !evidence.registers.is_empty() {
            details.registers {
                summary { "Registers" }
                ul.registers {
                    @for (name, value) in &evidence.registers {
                        li { code { (Shown(&register(name, *value))) } }
                    }
                }
            }
        }
        (lines("The guest says", &evidence.guest))
        (lines("Its process wrote", &evidence.stderr))
        (lines("Kernel log", &evidence.kernel_log))
    }
}

/// `rflags      0x0000000000000202  IF`: names as long as `cs.selector` leave the values in a column.
fn register(name: &str, value: u64) -> String {
    let line = registers::line(name, value);
    let rest = line.strip_prefix(name).unwrap_or_default().trim_start();
    format!("{name:<12}{rest}")
}

fn code(lines: &[CodeLine]) -> Markup {
    if lines.is_empty() {
        return html! {};
    }
    html! {
        table.code {
            caption { "Code at RIP" }
            thead { tr { th scope="col" { "Address" } th scope="col" { "Symbol" } th scope="col" { "Instruction" } } }
            tbody {
                @for line in lines {
                    tr.here[line.here] aria-current=[line.here.then_some("location")] {
                        th scope="row" { code { (format!("{:#x}", line.address)) } }
                        td { code { (Shown(&line.symbol)) } }
                        td { code { (Shown(&line.text)) } @if line.here { " " span.rip { "RIP" } } }
                    }
                }
            }
        }
    }
}

fn lines(title: &str, lines: &[String]) -> Markup {
    if lines.is_empty() {
        return html! {};
    }
    html! {
        figure.log {
            figcaption { (title) }
            ol { @for line in lines { li { code { (Shown(line)) } } } }
        }
    }
}
