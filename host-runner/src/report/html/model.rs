//! From runs to what the page is made of: columns, families of cases, and cases that deviate. Knows no markup.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::mark::Mark;
use crate::case::Combo;
use crate::journal::Finished;
use crate::outcome::{Evidence, Outcome};
use crate::report::{Run, State};

/// A test's name in its parts.
fn parts(name: &str) -> (&str, &str) {
    // A soak's tests end in their seed, and may be there more than once.
    let name = name.split('@').next().unwrap_or(name);
    name.split_once('~').unwrap_or((name, ""))
}

/// The case of a test's name.
pub(super) fn case_of(name: &str) -> &str {
    parts(name).0
}

/// A run, or one variation of it.
#[derive(Debug)]
pub(super) struct Column<'a> {
    /// The run's place among the runs.
    pub(super) run: usize,
    /// What is done to the cases; empty for the cases as they are.
    pub(super) vary: &'a str,
    /// What became of each case.
    pub(super) cells: BTreeMap<&'a str, Cell<'a>>,
}

impl Column<'_> {
    /// How many of its cases have this mark.
    pub(super) fn count(&self, mark: Mark) -> usize {
        self.cells.values().filter(|cell| cell.mark == mark).count()
    }
}

/// A case in a column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) mark: Mark,
    /// The test's name and verdict, if it has one.
    pub(super) test: Option<(&'a str, &'a Finished)>,
}

/// Everything that the page shows.
#[derive(Debug)]
pub(super) struct Model<'a> {
    pub(super) runs: &'a [Run],
    pub(super) columns: Vec<Column<'a>>,
    /// The cases by family, each in alphabetical order.
    pub(super) families: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Model<'a> {
    pub(super) fn of(runs: &'a [Run]) -> Self {
        let mut columns = Vec::new();
        for (run, told) in runs.iter().enumerate() {
            let mut by_vary: BTreeMap<(Option<Combo>, &str), BTreeMap<&str, Cell<'_>>> = BTreeMap::new();
            let mut put = |name: &'a str, cell: Cell<'a>| {
                let (case, vary) = parts(name);
                let order = Combo::of_test(name.split('@').next().unwrap_or(name)).map(|(_, combo)| combo);
                let old = by_vary.entry((order, vary)).or_default().entry(case).or_insert(cell);
                if cell.mark > old.mark {
                    *old = cell;
                }
            };
            for test in &told.tests {
                let cell = match &test.state {
                    State::Finished(finished) => {
                        let mark = Mark::of(finished.outcome.verdict);
                        Cell { mark, test: Some((&test.name, finished)) }
                    }
                    State::Unfinished => Cell { mark: Mark::Lost, test: None },
                    State::Unplayed => Cell { mark: Mark::Unplayed, test: None },
                };
                put(&test.name, cell);
            }
            let found = by_vary.into_iter().map(|((_, vary), cells)| Column { run, vary, cells });
            columns.extend(found);
        }
        let mut families: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for case in columns.iter().flat_map(|column| column.cells.keys()) {
            families.entry(case.split('.').next().unwrap_or(case)).or_default().insert(case);
        }
        Self { runs, columns, families }
    }

    /// What the column's cases go through, in words: `kick`, or `as it is`.
    pub(super) fn head(&self, column: usize) -> &'a str {
        match self.columns.get(column).map_or("", |column| column.vary) {
            "" => "as it is",
            vary => vary,
        }
    }

    /// The cases with one of these marks somewhere, with what was seen there.
    pub(super) fn seen(&self, marks: &[Mark]) -> BTreeMap<&'a str, Vec<Seen<'a>>> {
        let mut found: BTreeMap<&str, Vec<Seen<'_>>> = BTreeMap::new();
        for (index, column) in self.columns.iter().enumerate() {
            for (case, cell) in column.cells.iter().filter(|(_, cell)| marks.contains(&cell.mark)) {
                let Some((name, test)) = cell.test else { continue };
                let ways = found.entry(case).or_default();
                let same = |way: &&mut Seen<'_>| {
                    way.mark == cell.mark && way.outcome().reason == test.outcome.reason
                };
                match ways.iter_mut().find(same) {
                    Some(way) => way.at.push((index, name)),
                    None => ways.push(Seen { mark: cell.mark, test, at: vec![(index, name)] }),
                }
            }
        }
        // What is worst first, and then what was seen first.
        for ways in found.values_mut() {
            ways.sort_by_key(|way| Reverse(way.mark));
        }
        found
    }

    /// The tests that took longest, as column, name and duration.
    pub(super) fn slowest(&self, most: usize) -> Vec<(usize, &'a str, Duration)> {
        let played = self.columns.iter().enumerate().flat_map(|(index, column)| {
            column
                .cells
                .values()
                .filter_map(move |cell| cell.test.map(|(name, test)| (index, name, test.duration)))
        });
        let mut all: Vec<_> = played.filter(|(_, _, took)| !took.is_zero()).collect();
        all.sort_by_key(|(index, name, took)| (Reverse(*took), *name, *index));
        all.truncate(most);
        all
    }
}

/// One way in which a case went, wherever it went so.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) mark: Mark,
    /// The first test that did.
    pub(super) test: &'a Finished,
    /// The columns, and the tests' names there.
    pub(super) at: Vec<(usize, &'a str)>,
}

impl<'a> Seen<'a> {
    pub(super) fn outcome(&self) -> &'a Outcome {
        &self.test.outcome
    }

    pub(super) fn evidence(&self) -> Option<&'a Evidence> {
        self.test.outcome.evidence.as_deref()
    }
}
