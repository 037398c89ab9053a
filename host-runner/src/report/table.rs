//! Verdicts of several runs, a row for each case and a column for each run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::paint::safe;
use super::summary::Tally;
use crate::host::HostFacts;
use crate::outcome::{Outcome, Verdict};

/// The longest head of a line below the cases.
const WAIVED: &str = "deviated as waived";
/// The longest name of a case or host that is shown, in characters; a journal may come from anywhere.
const LONGEST: usize = 200;

/// A run.
#[derive(Debug)]
pub struct Column {
    /// The run's name.
    pub name: String,
    /// Where it ran.
    pub host: HostFacts,
    /// The cases that it was to play.
    pub selected: Vec<String>,
    /// The verdicts that it has.
    pub outcomes: BTreeMap<String, Outcome>,
}

impl Column {
    /// The case's verdict in this run, as a word: `-` if the run was not to play it, `lost` if it has none.
    fn word(&self, case: &str) -> &'static str {
        match self.outcomes.get(case) {
            Some(outcome) => outcome.verdict.word(),
            None if self.selected.iter().any(|id| id == case) => "lost",
            None => "-",
        }
    }

    fn conforms(&self) -> bool {
        let good = |id: &String| self.outcomes.get(id).is_some_and(|outcome| outcome.verdict.is_good());
        let tally = Tally::of(self.outcomes.values());
        self.selected.iter().all(good) && tally.bad == 0 && tally.ran()
    }
}

/// All runs.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    all: bool,
}

impl Table {
    /// A table of these runs; with `all`, of every case and not only of those that are not a pass everywhere.
    pub fn new(columns: Vec<Column>, all: bool) -> Self {
        Self { columns, all }
    }

    /// Whether every run does.
    pub fn conforms(&self) -> bool {
        self.columns.iter().all(Column::conforms)
    }

    /// What sets each run apart: the backend, or the module parameters that are not the same in all.
    fn settings(&self) -> Vec<String> {
        if self.columns.windows(2).any(|pair| pair[0].host.backend != pair[1].host.backend) {
            // Their parameters have nothing in common.
            return self.columns.iter().map(|column| column.host.backend.clone()).collect();
        }
        let names: BTreeSet<&String> =
            self.columns.iter().flat_map(|column| column.host.params.keys()).collect();
        let value = |column: &Column, name: &String| column.host.params.get(name).cloned();
        let differs = |name: &&String| {
            self.columns.windows(2).any(|pair| value(&pair[0], name) != value(&pair[1], name))
        };
        let differing: Vec<&String> = names.into_iter().filter(differs).collect();
        let line = |column: &Column| {
            let setting = |name: &&String| {
                value(column, name).map_or(format!("no {name}"), |value| format!("{name}={value}"))
            };
            differing.iter().map(setting).collect::<Vec<_>>().join(" ")
        };
        self.columns.iter().map(line).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (column, settings)) in self.columns.iter().zip(self.settings()).enumerate() {
            let Column { name, host, .. } = column;
            let line = format!("{:>2}  {}, Linux {}, {name}  {settings}", index + 1, host.bed, host.kernel);
            writeln!(f, "{}", shown(&line).trim_end())?;
        }
        let cases: BTreeSet<&String> = self
            .columns
            .iter()
            .flat_map(|column| column.selected.iter().chain(column.outcomes.keys()))
            .collect();
        let width = cases.iter().map(|case| shown(case).len()).max().unwrap_or(0).max(WAIVED.len());
        let mut row = |head: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("  {cell:<7}")).collect();
            writeln!(f, "{}", format!("{head:<width$}{cells}").trim_end())
        };
        row("", &(1..=self.columns.len()).map(|n| n.to_string()).collect::<Vec<_>>())?;
        for case in &cases {
            let words: Vec<String> = self.columns.iter().map(|column| column.word(case).to_owned()).collect();
            if self.all || words.iter().any(|word| word != Verdict::Pass.word()) {
                row(&shown(case), &words)?;
            }
        }
        let tallies: Vec<Tally> =
            self.columns.iter().map(|column| Tally::of(column.outcomes.values())).collect();
        let mut count = |what: &str, of: fn(&Tally) -> usize| {
            row(what, &tallies.iter().map(|tally| of(tally).to_string()).collect::<Vec<_>>())
        };
        count("held", |tally| tally.held)?;
        count("deviated", |tally| tally.bad)?;
        count("skipped", |tally| tally.skipped)?;
        count(WAIVED, |tally| tally.xfail)
    }
}

/// Text of a journal, as a terminal may have it.
fn shown(text: &str) -> String {
    safe(&text.chars().take(LONGEST).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn column(npt: &str, verdicts: &[(&str, Verdict)]) -> Column {
        let mut host = HostFacts::read_under(Path::new("/nonexistent"));
        host.bed = "amd".into();
        host.kernel = "6.12".into();
        host.params.insert("kvm_amd.npt".into(), npt.into());
        host.params.insert("kvm.same".into(), "1".into());
        Column {
            name: "run".into(),
            host,
            selected: vec!["a.one".into(), "a.three".into(), "a.two".into()],
            outcomes: verdicts
                .iter()
                .map(|(id, verdict)| ((*id).into(), Outcome::new(*verdict, "")))
                .collect(),
        }
    }

    #[test]
    fn rows_are_cases_and_columns_are_runs() {
        let one =
            column("1", &[("a.one", Verdict::Pass), ("a.two", Verdict::Pass), ("a.three", Verdict::Skip)]);
        let two = column("0", &[("a.one", Verdict::Pass), ("a.two", Verdict::Fail)]);
        let table = Table::new(vec![one, two], false);
        assert!(!table.conforms());
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], " 1  amd, Linux 6.12, run  kvm_amd.npt=1");
        assert_eq!(lines[1], " 2  amd, Linux 6.12, run  kvm_amd.npt=0");
        let row = |head: &str, one: &str, two: &str| format!("{head:<18}  {one:<7}  {two}");
        assert_eq!(lines[3], row("a.three", "skip", "lost"));
        assert_eq!(lines[4], row("a.two", "pass", "fail"));
        assert_eq!(lines[5], row("held", "2", "1"));
        assert!(!text.contains("a.one"), "it is a pass everywhere");
    }

    #[test]
    fn a_journal_cannot_steer_the_terminal() {
        let mut run = column("\x1b[2J", &[("a.one", Verdict::Pass)]);
        run.selected = vec!["a.\x1b[31mred\n".into(), "x".repeat(100_000)];
        run.host.kernel = "6\r".into();
        let text = Table::new(vec![run, column("0", &[])], true).to_string();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains("a.\\u{1b}[31mred\\n") && text.lines().all(|line| line.len() < 300), "{text}");
    }

    #[test]
    fn runs_on_different_backends_are_told_apart_by_them() {
        let mut columns = ["1", "0"].map(|npt| column(npt, &[("a.one", Verdict::Pass)]));
        for (column, backend) in columns.iter_mut().zip(["kvm_amd", "kvm_intel"]) {
            column.host.backend = backend.into();
        }
        let text = Table::new(columns.into(), false).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], " 1  amd, Linux 6.12, run  kvm_amd");
        assert_eq!(lines[1], " 2  amd, Linux 6.12, run  kvm_intel");
    }

    #[test]
    fn a_run_without_a_verdict_for_each_case_does_not_conform() {
        let whole = |verdict| {
            column("1", &[("a.one", Verdict::Pass), ("a.two", verdict), ("a.three", Verdict::Skip)])
        };
        assert!(Table::new(vec![whole(Verdict::Xfail)], true).conforms());
        assert!(!Table::new(vec![whole(Verdict::Xpass)], true).conforms());
        assert!(!Table::new(vec![column("1", &[("a.one", Verdict::Pass)])], true).conforms());
    }
}
