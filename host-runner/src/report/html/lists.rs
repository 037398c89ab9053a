//! Cases in lists: why they were skipped, which have no verdict, which took longest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maud::{Markup, html};

use super::mark::Mark;
use super::model::Model;
use super::text::{Shown, count};

/// Tests in the list of the slowest.
const SLOWEST: usize = 15;
/// Names in the list of those without a verdict; after a run that was cut short, that is most of the suite.
const OPEN: usize = 50;

/// Skipped cases by reason, those that touch most cases first.
pub(super) fn skips(model: &Model<'_>) -> Markup {
    let mut by_reason: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (index, column) in model.columns.iter().enumerate() {
        for (case, cell) in column.cells.iter().filter(|(_, cell)| cell.mark == Mark::Skip) {
            let reason = cell.test.map_or("", |(_, test)| test.outcome.reason.as_str());
            let vary = if column.vary.is_empty() { String::new() } else { format!("~{}", column.vary) };
            let run = if model.runs.len() > 1 { format!(" ({})", index + 1) } else { String::new() };
            by_reason.entry(reason).or_default().insert(format!("{case}{vary}{run}"));
        }
    }
    let mut reasons: Vec<_> = by_reason.into_iter().collect();
    reasons.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
    html! {
        @if !reasons.is_empty() {
            section #skipped aria-labelledby="skipped-title" {
                h2 #skipped-title { "Skipped" }
                @for (reason, cases) in reasons {
                    details.skip {
                        summary { span.number { (cases.len()) } " " (Shown(reason)) }
                        ul.names { @for case in cases { li data-case=(Shown(&case)) { (Shown(&case)) } } }
                    }
                }
            }
        }
    }
}

/// Cases that an interrupted run owes.
pub(super) fn open(model: &Model<'_>) -> Markup {
    let owed = |mark: Mark| {
        let cells = model.columns.iter().flat_map(move |column| {
            let cells = column.cells.iter().filter(move |(_, cell)| cell.mark == mark);
            cells.map(|(case, _)| (*case, column.vary))
        });
        cells.collect::<BTreeSet<_>>()
    };
    let lists = [("Running when the run ended", owed(Mark::Lost)), ("Not played", owed(Mark::Unplayed))];
    html! {
        @if lists.iter().any(|(_, names)| !names.is_empty()) {
            section #open aria-labelledby="open-title" {
                h2 #open-title { "Without a verdict" }
                @for (title, names) in lists.iter().filter(|(_, names)| !names.is_empty()) {
                    h3 { (title) ": " (count(names.len(), "test", "tests")) }
                    ul.names {
                        @for (case, vary) in names.iter().take(OPEN) {
                            li data-case=(Shown(case)) { (Shown(case)) @if !vary.is_empty() { "~" (Shown(vary)) } }
                        }
                        @if names.len() > OPEN { li { "and " (names.len() - OPEN) " more" } }
                    }
                }
            }
        }
    }
}

/// The tests that took longest.
pub(super) fn slowest(model: &Model<'_>) -> Markup {
    let tests = model.slowest(SLOWEST);
    let total: Duration = model
        .columns
        .iter()
        .flat_map(|column| column.cells.values().filter_map(|cell| cell.test))
        .map(|(_, test)| test.duration)
        .sum();
    html! {
        @if !tests.is_empty() {
            section #slowest aria-labelledby="slowest-title" {
                h2 #slowest-title { "Slowest" }
                p { "All tests together took " (seconds(total)) " of a CPU's or machine's time." }
                table.slowest {
                    thead { tr { th scope="col" { "Test" } th scope="col" { "Column" } th.number scope="col" { "Time" } } }
                    tbody {
                        @for (column, name, took) in tests {
                            tr {
                                th scope="row" { (Shown(name)) }
                                td { (column + 1) " " (Shown(model.head(column))) }
                                td.number { (seconds(took)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `12.345 s`, to be compared in a column.
fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
