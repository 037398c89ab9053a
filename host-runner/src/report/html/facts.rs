//! Where the runs were: the verdict on each in a sentence, the hosts, the columns of the matrix.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::mark::Mark;
use super::model::Model;
use super::sentence::sentence;
use super::text::{Shown, cut};
use crate::report::Run;

/// The top of the page: what the runs come to.
pub(super) fn verdicts(model: &Model<'_>) -> Markup {
    html! {
        header {
            p.product { "ExitSpec" }
            @for (index, run) in model.runs.iter().enumerate() {
                @if let Some(said) = sentence(model, index) {
                    div.verdict.(said.tone.word()) {
                        @if index == 0 {
                            h1 { (Shown(&said.host)) " " strong { (said.verdict) } }
                        } @else {
                            p.h1 { (Shown(&said.host)) " " strong { (said.verdict) } }
                        }
                        @if model.runs.len() > 1 { p.run { "Run " (Shown(&run.name)) } }
                        @for remark in run.remarks() { p.remark { (Shown(&remark)) } }
                        @if !said.more.is_empty() { p { (said.more.join(" ")) } }
                    }
                }
            }
        }
    }
}

/// The hosts and how the suite was started.
pub(super) fn runs(model: &Model<'_>) -> Markup {
    let several = model.runs.len() > 1;
    html! {
        section #runs aria-labelledby="runs-title" {
            h2 #runs-title { @if several { "Runs" } @else { "Host and run" } }
            div.runs {
                @for (index, run) in model.runs.iter().enumerate() {
                    div.facts {
                        @if several { h3 { (Shown(&run.name)) } }
                        (facts(model, run, index))
                    }
                }
            }
        }
    }
}

fn facts(model: &Model<'_>, run: &Run, index: usize) -> Markup {
    let header = &run.header;
    let host = &header.host;
    let differing = differing(model);
    let differs = |name: &str| model.runs.len() > 1 && differing.contains(name);
    let setting = |name: &str, value: &str| {
        html! { li.differs[differs(name)] { code { (Shown(name)) "=" (Shown(value)) } } }
    };
    html! {
        dl {
            div { dt { "Kernel" } dd { "Linux " (Shown(&host.kernel)) (more(&host.build)) } }
            div {
                dt { "CPU" }
                dd { (Shown(&host.cpu)) (more(&format!("microcode {}, {} usable", host.microcode, host.cpus))) }
            }
            div { dt { "Backend" } dd { (Shown(&host.backend)) (more(&format!("in the bed {}", host.bed))) } }
            div {
                dt { "Suite" }
                dd {
                    "ExitSpec " (Shown(&header.version)) ", seed " (header.seed)
                    @if let Some(revision) = &header.revision { (more(&format!("revision {}", cut(revision, 12)))) }
                }
            }
            @if let Some((begin, end)) = run.begin.zip(run.end) {
                div {
                    dt { "Played" }
                    dd { (humantime::format_rfc3339_seconds(begin)) (more(&format!("to {}", humantime::format_rfc3339_seconds(end)))) }
                }
            }
            @if header.forced { div { dt { "Forced" } dd { "cases are played although the host lacks what they need" } } }
        }
        @if !host.params.is_empty() {
            details {
                summary { "Module parameters" }
                ul.params { @for (name, value) in &host.params { (setting(name, value)) } }
            }
        }
        details {
            summary { "Command" }
            pre.command { code { (Shown(&header.command.join(" "))) } }
        }
        @if model.runs.len() > 1 {
            @let own = model.columns.iter().enumerate().filter(|(_, column)| column.run == index);
            @let numbers = own.map(|(column, _)| (column + 1).to_string()).collect::<Vec<_>>();
            p.quiet { (if numbers.len() > 1 { "Columns " } else { "Column " }) (numbers.join(", ")) }
        }
    }
}

/// A second line, if there is something to say in it.
fn more(text: &str) -> Markup {
    html! { @if !text.is_empty() { br; span.quiet { (Shown(text)) } } }
}

/// The module parameters that are not the same in all runs.
fn differing<'a>(model: &Model<'a>) -> BTreeSet<&'a str> {
    fn params(run: &Run) -> &BTreeMap<String, String> {
        &run.header.host.params
    }
    let names = model.runs.iter().flat_map(|run| params(run).keys());
    let differs = |name: &&String| {
        model.runs.windows(2).any(|pair| params(&pair[0]).get(*name) != params(&pair[1]).get(*name))
    };
    names.filter(differs).map(String::as_str).collect()
}

/// The columns of the matrix, with their numbers.
pub(super) fn columns(model: &Model<'_>) -> Markup {
    const COUNTED: [(&str, &[Mark]); 6] = [
        ("Hold", &[Mark::Pass]),
        ("Deviate", &[Mark::Fail, Mark::Timeout, Mark::Crash]),
        ("Waived", &[Mark::Xfail]),
        ("Faults of ours", &[Mark::Error, Mark::Xpass]),
        ("Skipped", &[Mark::Skip]),
        ("No verdict", &[Mark::Lost, Mark::Unplayed]),
    ];
    let differing = differing(model);
    let backends: BTreeSet<&str> = model.runs.iter().map(|run| run.header.host.backend.as_str()).collect();
    // Parameters of different backends have nothing in common.
    let settings = |run: &Run| {
        let own = run.header.host.params.iter().filter(|(name, _)| differing.contains(name.as_str()));
        let words = own.map(|(name, value)| format!("{name}={value}"));
        if backends.len() > 1 { String::new() } else { words.collect::<Vec<_>>().join(" ") }
    };
    html! {
        div.scroll tabindex="0" role="group" aria-label="Columns" {
            table.columns {
                caption { "Columns" }
                thead {
                    tr {
                        th scope="col" { "No." }
                        @if model.runs.len() > 1 { th scope="col" { "Run" } }
                        th scope="col" { "Cases" }
                        @for (what, _) in COUNTED { th.number scope="col" { (what) } }
                    }
                }
                @for (index, run) in model.runs.iter().enumerate() {
                    tbody {
                        @for (number, column) in model.columns.iter().enumerate().filter(|(_, column)| column.run == index) {
                            tr {
                                th scope="row" { (number + 1) }
                                @if model.runs.len() > 1 {
                                    td { (Shown(&run.header.host.bed)) ", Linux " (Shown(&run.header.host.kernel)) ", "
                                        (Shown(&run.header.host.backend)) " " code { (Shown(&settings(run))) } }
                                }
                                td { (Shown(model.head(number))) }
                                @for (_, marks) in COUNTED {
                                    @let count = marks.iter().map(|mark| column.count(*mark)).sum::<usize>();
                                    td.number.zero[count == 0] { (count) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
