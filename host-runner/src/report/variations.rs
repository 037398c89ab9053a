//! Verdicts by case and variation: a row for each case, a column for the case as it is and for each variation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::paint::safe;
use super::summary::Tally;
use crate::case::Combo;
use crate::outcome::{Outcome, Verdict};

/// The verdicts of one run.
#[derive(Debug)]
pub struct Variations<'a> {
    /// By perturbations, then by case.
    columns: BTreeMap<Combo, BTreeMap<&'a str, &'a Outcome>>,
    rows: Rows,
}

/// Which cases have a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Every one.
    All,
    /// Those that deviate somewhere.
    Deviating,
    /// The same without deviations that are waived.
    Bad,
}

impl<'a> Variations<'a> {
    /// The table of these tests, by name.
    pub fn new(outcomes: &'a BTreeMap<String, Outcome>, rows: Rows) -> Self {
        let mut columns: BTreeMap<Combo, BTreeMap<&str, &Outcome>> = BTreeMap::new();
        for (name, outcome) in outcomes {
            // A soak's tests end in their seed, and may be there more than once.
            let name = name.split('@').next().unwrap_or(name);
            if let Some((case, combo)) = Combo::of_test(name) {
                let cell = columns.entry(combo).or_default().entry(case).or_insert(outcome);
                if cell.verdict.is_good() {
                    *cell = outcome;
                }
            }
        }
        Self { columns, rows }
    }

    /// Whether anything but cases as they are was played.
    pub fn has_any(&self) -> bool {
        self.columns.keys().any(|combo| !combo.is_plain())
    }
}

fn head(combo: &Combo) -> String {
    if combo.is_plain() { "as it is".to_owned() } else { combo.to_string() }
}

/// A verdict in a cell: short, and nothing where nothing is to be seen.
fn word(outcome: Option<&&Outcome>) -> &'static str {
    match outcome.map(|outcome| outcome.verdict) {
        None => "",
        Some(Verdict::Pass) => ".",
        Some(Verdict::Skip) => "-",
        Some(verdict) => verdict.word(),
    }
}

impl fmt::Display for Variations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads: Vec<String> = self.columns.keys().map(head).collect();
        let wide = heads.iter().map(String::len).max().unwrap_or(0);
        writeln!(
            f,
            "{:>3}  {:<wide$}  {:>6}  {:>8}  {:>7}  {:>6}",
            "", "", "held", "deviated", "skipped", "waived"
        )?;
        for (index, (head, column)) in heads.iter().zip(self.columns.values()).enumerate() {
            let Tally { held, xfail, skipped, bad } = Tally::of(column.values().copied());
            writeln!(f, "{:>3}  {head:<wide$}  {held:>6}  {bad:>8}  {skipped:>7}  {xfail:>6}", index + 1)?;
        }
        let cases: BTreeSet<&str> = self.columns.values().flat_map(|column| column.keys().copied()).collect();
        let wanted = |outcome: &&Outcome| match self.rows {
            Rows::All => true,
            Rows::Deviating => !matches!(outcome.verdict, Verdict::Pass | Verdict::Skip),
            Rows::Bad => !outcome.verdict.is_good(),
        };
        let is_shown = |case: &&str| self.columns.values().filter_map(|column| column.get(case)).any(wanted);
        let rows: Vec<&str> = cases.into_iter().filter(is_shown).collect();
        let Some(longest) = rows.iter().map(|case| safe(case).len()).max() else { return Ok(()) };
        let numbers: String = (1..=heads.len()).map(|number| format!(" {number:>7}")).collect();
        writeln!(f, "{:longest$}{numbers}", "")?;
        for case in rows {
            let cells: String =
                self.columns.values().map(|column| format!(" {:>7}", word(column.get(case)))).collect();
            writeln!(f, "{}", format!("{:<longest$}{cells}", safe(case)).trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(list: &[(&str, Verdict)]) -> BTreeMap<String, Outcome> {
        list.iter().map(|(name, verdict)| ((*name).to_owned(), Outcome::new(*verdict, ""))).collect()
    }

    #[test]
    fn rows_are_cases_and_columns_are_variations() {
        let outcomes = outcomes(&[
            ("a.one", Verdict::Pass),
            ("a.one~kick", Verdict::Fail),
            ("a.two", Verdict::Xfail),
            ("a.two~kick", Verdict::Skip),
            ("a.three", Verdict::Pass),
            ("a.three~kick", Verdict::Skip),
        ]);
        let table = Variations::new(&outcomes, Rows::Deviating);
        assert!(table.has_any());
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "                 held  deviated  skipped  waived",
                "  1  as it is       2         0        0       1",
                "  2  kick           0         1        2       0",
                "            1       2",
                "a.one       .    fail",
                "a.two   xfail       -",
            ]
        );
        assert!(Variations::new(&outcomes, Rows::All).to_string().contains("a.three"));
        let bad = Variations::new(&outcomes, Rows::Bad).to_string();
        assert!(bad.contains("a.one") && !bad.contains("a.two"), "{bad}");
    }

    #[test]
    fn a_run_without_variations_has_no_table() {
        assert!(!Variations::new(&outcomes(&[("a.one", Verdict::Pass)]), Rows::All).has_any());
    }
}
