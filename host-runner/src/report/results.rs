//! What one or several runs came to, read from their journals: the ground of every report that is made of files.
//!
//! Runs are kept apart, each a column: the same case in two of them is two verdicts, and a good one never hides
//! another. Knows no output format.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::journal::{Ended, Finished, Header, Record};
use crate::manifest::Mistake;
use crate::outcome::{Evidence, Outcome, Verdict};

/// The name under which stands what the kernel reported while no case ran. It makes a run deviate, so that it must be
/// seen in every report.
pub const STRAY: &str = "kernel-log.between-cases";

/// Runs, and mistakes of the manifests if those were looked for.
#[derive(Debug, Default)]
pub struct Results {
    /// The runs, in the order in which they were named; each has a name of its own.
    pub runs: Vec<Run>,
    /// What is wrong with the manifests.
    pub mistakes: Vec<Mistake>,
}

/// One run.
#[derive(Debug)]
pub struct Run {
    /// The name of its folder, with `#2` and so on if there are several of that name.
    pub name: String,
    /// Its journal.
    pub journal: PathBuf,
    /// What was run, where, and with what.
    pub header: Header,
    /// When it began, as far as its journal says.
    pub begin: Option<SystemTime>,
    /// When the last thing happened that its journal tells.
    pub end: Option<SystemTime>,
    /// Every test of the run, in its order; then any that nobody had selected, as a soak's. If the kernel reported
    /// something between cases, [`STRAY`] is there, and has failed.
    pub tests: Vec<Test>,
    /// The ends of the run; none if it was killed.
    pub ended: Vec<Ended>,
    /// Whether the journal's last line is cut off.
    pub torn: bool,
    /// How many of its whole lines could not be read.
    pub unread: usize,
}

/// A test of a run: a case, maybe under perturbations.
#[derive(Debug)]
pub struct Test {
    /// `port-io.in~kick`; the part before the first dot is its family.
    pub name: String,
    /// When it was started; `None` if it never was, as what is skipped.
    pub begin: Option<SystemTime>,
    /// What became of it.
    pub state: State,
}

/// What became of a test.
#[derive(Debug)]
pub enum State {
    /// It has its verdict.
    Finished(Finished),
    /// It was started and has no verdict: the run ended in the middle of it.
    Unfinished,
    /// It was selected and never started.
    Unplayed,
}

impl Results {
    /// Reads journals; the same one twice is one run. The error names the file.
    pub fn read(journals: &[PathBuf]) -> io::Result<Self> {
        let mut results = Self::default();
        let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
        for path in journals {
            let place =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            if !seen.insert(path.canonicalize().map_err(place)?) {
                continue;
            }
            let mut run = Run::of(path, Record::read(path).map_err(place)?);
            let first = run.name.clone();
            let mut more = (2..).map(|n: u32| format!("{first}#{n}"));
            while !names.insert(run.name.clone()) {
                run.name = more.next().unwrap_or_default();
            }
            results.runs.push(run);
        }
        Ok(results)
    }

    /// The names of all tests of all runs.
    pub fn names(&self) -> BTreeSet<&str> {
        self.runs.iter().flat_map(|run| run.tests.iter().map(|test| test.name.as_str())).collect()
    }
}

impl Run {
    fn of(path: &Path, record: Record) -> Self {
        let Record { header, mut finished, started, ended, torn, unread, .. } = record;
        let folder = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name =
            folder.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let mut known = BTreeSet::new();
        let mut names: Vec<String> = Vec::new();
        let unselected: Vec<String> = finished.keys().chain(started.keys()).cloned().collect();
        for test in header.selected.iter().cloned().chain(unselected) {
            if known.insert(test.clone()) {
                names.push(test);
            }
        }
        let moment = |text: &String| humantime::parse_rfc3339(text).ok();
        let mut tests: Vec<Test> = names
            .into_iter()
            .map(|name| {
                let begin = started.get(&name).and_then(moment);
                let state = match finished.remove(&name) {
                    Some(finished) => State::Finished(finished),
                    None if started.contains_key(&name) => State::Unfinished,
                    None => State::Unplayed,
                };
                Test { name, begin, state }
            })
            .collect();
        tests.extend(stray(&ended));
        let over = |test: &Test| test.begin?.checked_add(test.duration());
        let begin = moment(&header.begun).or_else(|| tests.iter().filter_map(|test| test.begin).min());
        let end = tests.iter().filter_map(over).chain(ended.iter().filter_map(|end| moment(&end.at))).max();
        Self { name, journal: path.to_owned(), header, begin, end: end.or(begin), tests, ended, torn, unread }
    }

    /// Whether it was interrupted: tests have no verdict, or its last line is cut off.
    pub fn is_interrupted(&self) -> bool {
        self.torn || self.tests.iter().any(|test| test.verdict().is_none())
    }

    /// What is to be said of the run itself: what it lacks, and what went wrong without a verdict for it.
    pub fn remarks(&self) -> Vec<String> {
        let count = |is: fn(&State) -> bool| self.tests.iter().filter(|test| is(&test.state)).count();
        let mut remarks = Vec::new();
        let unfinished = count(|state| matches!(state, State::Unfinished));
        let unplayed = count(|state| matches!(state, State::Unplayed));
        if unfinished + unplayed > 0 {
            remarks.push(format!(
                "the run was interrupted: {unfinished} tests were started and have no verdict, {unplayed} were not started"
            ));
        }
        if self.torn {
            remarks.push("the last line of its journal is cut off".to_owned());
        }
        if self.unread > 0 {
            remarks.push(format!("{} lines of its journal could not be read", self.unread));
        }
        for ended in &self.ended {
            // A run that was resumed says the same again.
            remarks.extend(
                ended.remarks.iter().filter(|remark| !remarks.contains(remark)).cloned().collect::<Vec<_>>(),
            );
        }
        remarks
    }
}

impl Test {
    /// The part of the name before the first dot.
    pub fn family(&self) -> &str {
        self.name.split('.').next().unwrap_or(&self.name)
    }

    /// The case's id: the name without perturbations and seed.
    pub fn case(&self) -> &str {
        self.name.split(['~', '@']).next().unwrap_or(&self.name)
    }

    /// Its verdict, if it has one.
    pub fn verdict(&self) -> Option<Verdict> {
        self.finished().map(|finished| finished.outcome.verdict)
    }

    /// Its verdict with the evidence, if it has one.
    pub fn finished(&self) -> Option<&Finished> {
        match &self.state {
            State::Finished(finished) => Some(finished),
            State::Unfinished | State::Unplayed => None,
        }
    }

    /// How long it took; nothing if that is not known.
    pub fn duration(&self) -> Duration {
        self.finished().map(|finished| finished.duration).unwrap_or_default()
    }

    /// Why it has its verdict, or none.
    pub fn reason(&self) -> &str {
        match &self.state {
            State::Finished(finished) => &finished.outcome.reason,
            State::Unfinished => "it was started and has no verdict: the run ended in the middle of it",
            State::Unplayed => "it was selected and not started: the run ended before",
        }
    }
}

fn stray(ended: &[Ended]) -> Option<Test> {
    let lines: Vec<String> = ended.iter().flat_map(|ended| &ended.stray).flatten().cloned().collect();
    let title = lines.first()?;
    let reason = format!("the kernel reported between cases: {title}");
    let evidence = Evidence { kernel_log: lines, ..Evidence::default() };
    let outcome = Outcome { evidence: Some(Box::new(evidence)), ..Outcome::new(Verdict::Fail, reason) };
    let state = State::Finished(Finished { outcome, duration: Duration::ZERO, about: None });
    Some(Test { name: STRAY.to_owned(), begin: None, state })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    use crate::journal::Journal;

    fn journal(folder: &Path, selected: &[&str], verdicts: &[(&str, Verdict)]) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let header = Header {
            selected: selected.iter().map(|name| (*name).to_owned()).collect(),
            begun: "2026-01-01T00:00:00.000Z".into(),
            ..Header::of_nothing()
        };
        let path = folder.join("results.jsonl");
        let journal = Journal::create(&path, &header, None).unwrap();
        for (name, verdict) in verdicts {
            journal.started(name, Duration::from_secs(1)).unwrap();
            let outcome = Outcome::new(*verdict, "r");
            journal.finished(name, &outcome, Duration::from_millis(3), super::super::tests::about).unwrap();
        }
        path
    }

    fn verdicts(run: &Run) -> Vec<(&str, Option<Verdict>)> {
        run.tests.iter().map(|test| (test.name.as_str(), test.verdict())).collect()
    }

    #[test]
    fn runs_stay_apart_and_no_failure_is_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let one = journal(&folder.path().join("x/run"), &["a.b"], &[("a.b", Verdict::Fail)]);
        let two = journal(&folder.path().join("y/run"), &["a.b"], &[("a.b", Verdict::Pass)]);
        for order in [[one.clone(), two.clone(), one.clone()], [two.clone(), one.clone(), two.clone()]] {
            let results = Results::read(&order).unwrap();
            let mut all: Vec<_> = results.runs.iter().flat_map(verdicts).collect();
            all.sort_by_key(|(_, verdict)| verdict.map(Verdict::word));
            assert_eq!(all, [("a.b", Some(Verdict::Fail)), ("a.b", Some(Verdict::Pass))]);
            let names: Vec<&str> = results.runs.iter().map(|run| run.name.as_str()).collect();
            assert_eq!(names, ["run", "run#2"]);
            assert_eq!(results.names().len(), 1);
        }
        let twice = journal(
            &folder.path().join("z"),
            &["a.b"],
            &[("a.b", Verdict::Pass), ("a.b", Verdict::Crash), ("a.b", Verdict::Pass)],
        );
        let results = Results::read(&[twice]).unwrap();
        assert_eq!(verdicts(&results.runs[0]), [("a.b", Some(Verdict::Crash))]);
    }

    #[test]
    fn what_an_interrupted_run_lacks_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path =
            journal(folder.path(), &["a.z", "a.b", "a.c"], &[("a.z", Verdict::Pass), ("a.b", Verdict::Fail)]);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [b"{\"event\":\"other\"}\n", &whole[..]].concat()).unwrap();
        assert!(
            Results::read(std::slice::from_ref(&path)).unwrap_err().to_string().contains("results.jsonl")
        );
        fs::write(&path, [&whole[..whole.len() - 30], b"\n{\"event\":\"other\"}\n{\"ev"].concat()).unwrap();
        let run = Results::read(&[path]).unwrap().runs.remove(0);
        assert_eq!(verdicts(&run), [("a.z", Some(Verdict::Pass)), ("a.b", None), ("a.c", None)]);
        assert!(
            matches!(run.tests[1].state, State::Unfinished) && matches!(run.tests[2].state, State::Unplayed)
        );
        assert!(run.is_interrupted() && run.torn);
        assert_eq!(run.unread, 2);
        let remarks = run.remarks().join("\n");
        assert!(
            remarks.contains("1 tests were started and have no verdict, 1 were not started"),
            "{remarks}"
        );
        assert!(remarks.contains("cut off") && remarks.contains("2 lines"), "{remarks}");
    }

    #[test]
    fn what_the_kernel_said_between_cases_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = journal(folder.path(), &["a.b"], &[("a.b", Verdict::Pass)]);
        let (reopened, _) = Journal::reopen(&path, None).unwrap();
        let ended = Ended {
            at: "2026-01-01T00:00:09Z".into(),
            stray: vec![vec!["WARNING: x".into(), "end".into()]],
            remarks: vec!["slow".into()],
        };
        for _ in 0..2 {
            reopened.ended(ended.clone()).unwrap();
        }
        let run = Results::read(&[path]).unwrap().runs.remove(0);
        assert_eq!(verdicts(&run), [("a.b", Some(Verdict::Pass)), (STRAY, Some(Verdict::Fail))]);
        assert!(run.tests[1].reason().contains("WARNING: x"));
        assert_eq!(run.remarks(), ["slow"], "once, though it was resumed");
        assert!(!run.is_interrupted());
    }

    #[test]
    fn a_failure_says_what_its_case_is_and_a_pass_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = journal(folder.path(), &[], &[("a.b", Verdict::Xfail), ("a.c", Verdict::Pass)]);
        let run = Results::read(&[path]).unwrap().runs.remove(0);
        let about = |index: usize| run.tests[index].finished().unwrap().about.as_deref();
        assert_eq!(about(0), Some(&super::super::tests::about()));
        assert_eq!(about(1), None);
        assert!(!run.is_interrupted());
        assert_eq!(run.begin, humantime::parse_rfc3339("2026-01-01T00:00:00Z").ok());
        assert!(run.end > run.begin);
    }
}
