//! What was found, for a terminal and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::bugs::{Bug, Proof};
use super::journal::{Record, Trial};
use super::verdict::{InBed, Judged, Sight, Verdict, judge};
use super::workshop;
use crate::bed::kind::Kind;

/// Every bug with what became of it.
pub(crate) type Found<'a> = Vec<(&'a Bug, Judged)>;

/// What a journal says of these bugs.
pub(crate) fn found<'a>(bugs: impl IntoIterator<Item = &'a Bug>, records: &[Record]) -> Found<'a> {
    let judged = bugs.into_iter().map(|bug| {
        let newest = newest(bug, records);
        let trials: Vec<&Trial> = newest.iter().filter_map(|record| trial(record)).collect();
        (bug, judge(bug, newest.len() > trials.len(), &trials))
    });
    judged.collect()
}

/// The same of all bugs as few and short records, in the order of the bugs: what is worth committing.
pub(crate) fn settled(bugs: &[Bug], records: &[Record]) -> Vec<Record> {
    let all = bugs.iter().flat_map(|bug| newest(bug, records).into_iter().map(move |record| (bug, record)));
    let short = all.map(|(bug, record)| {
        let mut record = record.clone();
        match &mut record {
            Record::Trial(trial) => {
                let expected = bug.expected(trial.setting.bed);
                // What differs from run to run, and the many cases that said nothing.
                trial.seconds = 0.0;
                trial.asked.retain(|case| expected.contains(case) || trial.cases.contains_key(case));
                // What emulators and compilers say names places of this machine.
                trial.trouble = trial.trouble.take().map(|_| "as its run's folder tells".to_owned());
            }
            Record::Unbuildable { log, .. } => log.clear(),
            Record::Baseline { .. } => {}
        }
        record
    });
    short.collect()
}

/// The newest word on a bug in each bed, or that it does not build; of a bug that was written otherwise then, nothing.
fn newest<'a>(bug: &Bug, records: &'a [Record]) -> Vec<&'a Record> {
    let edits = workshop::name_of(&bug.edits);
    let mut trials: BTreeMap<Kind, &Record> = BTreeMap::new();
    let mut unbuildable = None;
    for record in records {
        match record {
            Record::Unbuildable { bug: id, edits: those, .. } if *id == bug.id && *those == edits => {
                unbuildable = Some(record);
            }
            Record::Trial(new) if new.bug == bug.id && new.edits == edits && fits(bug, new) => {
                unbuildable = None;
                let best = trials.entry(new.setting.bed).or_insert(record);
                // Of the same suite the run of more cases says more.
                let old = trial(best).filter(|old| old.setting == new.setting);
                if old.is_none_or(|old| new.asked.len() >= old.asked.len()) {
                    *best = record;
                }
            }
            _ => {}
        }
    }
    unbuildable.map_or_else(|| trials.into_values().collect(), |record| vec![record])
}

fn trial(record: &Record) -> Option<&Trial> {
    match record {
        Record::Trial(trial) => Some(trial),
        _ => None,
    }
}

/// The releases of Linux that runs of these bugs were of: `Linux 6.12.117`.
pub(crate) fn releases(bugs: &[Bug], records: &[Record]) -> BTreeSet<String> {
    let of = |record: &Record| match record {
        Record::Trial(trial) if bugs.iter().any(|bug| bug.id == trial.bug && fits(bug, trial)) => {
            Some(format!("Linux {}", trial.release))
        }
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

/// Whether a run still says what is asked of the bug.
fn fits(bug: &Bug, trial: &Trial) -> bool {
    let bed = trial.setting.bed;
    let params = bug.params.get(&bed).cloned().unwrap_or_default().to_string();
    bug.beds.contains(&bed)
        && params == trial.setting.params
        && bug.expected(bed).iter().all(|case| trial.asked.contains(case))
}

/// A bug in one bed, as it is told while the run goes on.
pub(super) fn line(bug: &Bug, bed: Kind, found: &InBed) -> String {
    let mut caught = Vec::new();
    let mut rest = Vec::new();
    for (case, sight) in &found.expected {
        match sight {
            Sight::Fails | Sight::Crash => caught.push(case.as_str()),
            Sight::Holds => rest.push(format!("{case} holds")),
            Sight::Skipped => rest.push(format!("{case} is skipped")),
            Sight::Void => rest.push(format!("{case} says nothing")),
        }
    }
    let others: Vec<&str> = found.others.iter().map(String::as_str).collect();
    let by = |cases: &[&str]| format!("caught by {}", cases.join(", "));
    let (caught, others) = match (caught.as_slice(), others.as_slice()) {
        ([], []) => ("nothing".to_owned(), String::new()),
        // Of a peer's tests none is expected to fail.
        ([], others) if found.expected.is_empty() => (by(others), String::new()),
        ([], others) => ("nothing".to_owned(), format!("; {}", by(others))),
        (caught, []) => (by(caught), String::new()),
        (caught, others) => (by(caught), format!("; and by {}", others.join(", "))),
    };
    let parts = [
        (true, format!("{}  {bed}  {caught}", bug.id)),
        (!rest.is_empty(), format!("; {}", rest.join(", "))),
        (true, others),
        (true, found.remarks.iter().map(|remark| format!("\n    {remark}")).collect()),
    ];
    parts.into_iter().filter_map(|(there, part)| there.then_some(part)).collect()
}

/// How many bugs there are of each verdict.
pub(crate) fn counts(found: &Found<'_>) -> BTreeMap<Verdict, usize> {
    let mut counts = BTreeMap::new();
    for (_, judged) in found {
        *counts.entry(judged.verdict).or_default() += 1;
    }
    counts
}

/// How many of them could show and have run; the rest says nothing, neither for the suite nor against it.
pub(crate) fn ran(found: &Found<'_>) -> usize {
    found
        .iter()
        .filter(|(_, judged)| !matches!(judged.verdict, Verdict::Unobservable | Verdict::Open))
        .count()
}

/// The same by the bugs' families.
pub(crate) fn families<'f, 'b>(found: &'f Found<'b>) -> BTreeMap<&'b str, Vec<&'f (&'b Bug, Judged)>> {
    let mut families: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for one in found {
        families.entry(one.0.family()).or_default().push(one);
    }
    families
}

/// The end of a run for people.
pub(crate) fn text(found: &Found<'_>) -> String {
    let bad = found.iter().filter(|(_, judged)| !judged.verdict.is_good());
    let bad: String = bad
        .map(|(bug, judged)| format!("{}: {} ({})\n", bug.id, judged.verdict.words(), bug.place))
        .collect();
    let counts = counts(found);
    let counts: Vec<_> = counts.iter().map(|(verdict, n)| format!("{n} {}", verdict.words())).collect();
    let bugs = if found.len() == 1 { "bug" } else { "bugs" };
    format!("{bad}{} {bugs}: {}\n", found.len(), counts.join(", "))
}

#[derive(Serialize)]
struct Json<'a> {
    version: u32,
    bugs: Vec<JsonBug<'a>>,
}

#[derive(Serialize)]
struct JsonBug<'a> {
    id: &'a str,
    family: &'a str,
    breaks: &'a str,
    undoes: Option<&'a str>,
    unobservable: Option<&'a str>,
    verdict: Verdict,
    beds: BTreeMap<Kind, JsonBed<'a>>,
}

#[derive(Serialize)]
struct JsonBed<'a> {
    caught_by: Vec<&'a str>,
    expected: &'a BTreeMap<String, Sight>,
    remarks: &'a [String],
}

/// The matrix of bugs and cases, for other programs.
pub(crate) fn json(found: &Found<'_>) -> serde_json::Result<String> {
    let bugs = found.iter().map(|(bug, judged)| JsonBug {
        id: &bug.id,
        family: bug.family(),
        breaks: &bug.breaks,
        undoes: bug.undoes.as_deref(),
        unobservable: match &bug.proof {
            Proof::Unobservable(argument) => Some(argument),
            _ => None,
        },
        verdict: judged.verdict,
        beds: judged
            .beds
            .iter()
            .map(|(bed, found)| {
                let caught_by = judged.caught_by(*bed);
                (*bed, JsonBed { caught_by, expected: &found.expected, remarks: &found.remarks })
            })
            .collect(),
    });
    serde_json::to_string_pretty(&Json { version: 1, bugs: bugs.collect() })
}
