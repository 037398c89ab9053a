//! A run with a workshop and a bed of paper.

use std::sync::Arc;

use super::*;
use crate::prove::bugs::{Edit, Proof};
use crate::prove::report;
use crate::prove::verdict::Verdict;

/// Its modules' folder is the text that the first edit looks for.
#[derive(Default)]
struct Shop {
    kept: Vec<&'static str>,
    built: Mutex<Vec<String>>,
}

impl Workshop for Shop {
    fn kept(&self, edits: &[Edit]) -> Option<PathBuf> {
        let name = edits.first().map_or("unmodified", |edit| &edit.find);
        self.kept.contains(&name).then(|| name.into())
    }

    fn build(&self, edits: &[Edit]) -> anyhow::Result<PathBuf> {
        let name = edits.first().map_or("unmodified", |edit| &edit.find);
        self.built.lock().unwrap().push(name.to_owned());
        if name == "refused" {
            bail!("x86.c:1: error: expected `;`");
        }
        Ok(name.into())
    }
}

/// Every case holds, but under a bug whose modules have the case's name. `dead` is a bed that cannot be used. Notes what
/// runs in each machine.
#[derive(Default)]
struct Paper(Arc<Mutex<Vec<String>>>);

impl Bench for Paper {
    fn run(
        &mut self,
        bed: Kind,
        tasks: &[Task<'_>],
        told: &mut dyn FnMut(usize, Ran) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let line = |task: &Task<'_>| {
            format!("{bed} {} {}: {}", task.params, task.modules.display(), task.cases.join(" "))
        };
        self.0.lock().unwrap().push(tasks.iter().map(line).collect::<Vec<_>>().join(" | "));
        for (number, task) in tasks.iter().enumerate() {
            let modules = task.modules.display().to_string();
            if modules == "dead" {
                bail!("there is no emulator");
            }
            let verdict = |case: &String| if *case == modules { "fail" } else { "pass" };
            let seen = |case: &String| Seen { verdict: verdict(case).into(), reason: String::new() };
            let cases = task.cases.iter().map(|case| (case.clone(), seen(case))).collect();
            let trouble = (modules == "panic").then(|| "the kernel died before the first case".to_owned());
            let cases = if trouble.is_some() { BTreeMap::new() } else { cases };
            if !told(number, Ran { cases, trouble, seconds: 1.0 })? {
                break;
            }
        }
        Ok(())
    }
}

fn bug(edit: &str, cases: &[&str]) -> Bug {
    Bug {
        edits: vec![Edit { file: "virt/kvm/a.c".into(), find: edit.into(), replace: "x".into() }],
        beds: vec![Kind::Amd],
        ..Bug::of_test(&format!("f.{edit}"), Proof::by(cases))
    }
}

struct Lab {
    folder: tempfile::TempDir,
    bugs: Vec<Bug>,
    boots: Arc<Mutex<Vec<String>>>,
    batch: usize,
}

impl Lab {
    fn of(bugs: Vec<Bug>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), bugs, boots: Arc::default(), batch: 3 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("journal.jsonl")
    }

    fn jobs(&self) -> Vec<Job> {
        let job = |bug: usize, of: &Bug, bed: Kind| {
            let params = of.params.get(&bed).cloned().unwrap_or_default();
            let (kernel, suite) = ("k".into(), "s".into());
            let setting = Setting { bed, params: params.to_string(), kernel, suite };
            Job { bug, setting, params, cases: of.expected(bed).to_vec() }
        };
        let beds =
            |(bug, of): (usize, &'_ Bug)| of.beds.iter().map(|bed| job(bug, of, *bed)).collect::<Vec<_>>();
        self.bugs.iter().enumerate().flat_map(beds).collect()
    }

    fn run(&self, shop: &Shop, machines: u8) -> anyhow::Result<()> {
        let (journal, records) = Journal::open(&self.path()).unwrap();
        let jobs = self.jobs();
        let work = Work {
            bugs: &self.bugs,
            jobs: &jobs,
            baselines: Baselines::of(&jobs, &records),
            journal: &journal,
            release: "6.12.117",
            progress: Mutex::new(Progress::of(jobs.len(), jobs.len(), machines)),
            batch: self.batch,
        };
        let bench = || -> Box<dyn Bench> { Box::new(Paper(Arc::clone(&self.boots))) };
        work.run(shop, (0..machines).map(|_| bench()).collect())
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let records = Journal::read(&self.path());
        report::found(&self.bugs, &records).into_iter().map(|(_, judged)| judged.verdict).collect()
    }
}

#[test]
fn each_bug_gets_its_verdict_and_one_cannot_spoil_another() {
    let lab = Lab::of(vec![
        bug("a", &["a"]),
        bug("refused", &["b"]),
        bug("panic", &["b"]),
        bug("b", &["a"]),
        bug("c", &["b", "c"]),
    ]);
    for machines in [1, 3] {
        std::fs::remove_file(lab.path()).ok();
        lab.run(&Shop::default(), machines).unwrap();
        let all =
            [Verdict::Caught, Verdict::Unbuildable, Verdict::WrongReason, Verdict::Missed, Verdict::Partly];
        assert_eq!(lab.verdicts(), all);
    }
}

#[test]
fn the_unmodified_modules_run_once_with_all_cases_and_again_only_for_new_ones() {
    let mut lab = Lab::of(vec![bug("a", &["a"]), bug("b", &["b", "a"])]);
    lab.run(&Shop::default(), 1).unwrap();
    lab.bugs.push(bug("c", &["c"]));
    lab.run(&Shop::default(), 2).unwrap();
    let boots = lab.boots.lock().unwrap().clone();
    let unmodified: Vec<_> = boots.iter().filter(|boot| boot.contains("unmodified")).collect();
    assert_eq!(unmodified, ["amd default unmodified: a b", "amd default unmodified: c"]);
}

#[test]
fn what_is_kept_is_not_built() {
    let lab = Lab::of(vec![bug("a", &["a"]), bug("b", &["b"])]);
    let shop = Shop { kept: vec!["unmodified", "a"], ..Shop::default() };
    lab.run(&shop, 1).unwrap();
    assert_eq!(*shop.built.lock().unwrap(), ["b"]);
    assert_eq!(lab.verdicts(), [Verdict::Caught, Verdict::Caught]);
}

#[test]
fn a_bed_that_cannot_be_used_ends_the_run() {
    let lab = Lab::of(vec![bug("dead", &["a"]), bug("a", &["a"])]);
    for machines in [1, 2] {
        let error = lab.run(&Shop::default(), machines).unwrap_err();
        assert!(error.to_string().contains("no emulator"), "{error}");
    }
}

#[test]
fn a_bug_that_is_written_anew_has_not_run() {
    let mut lab = Lab::of(vec![bug("a", &["a"])]);
    lab.run(&Shop::default(), 1).unwrap();
    assert_eq!(lab.verdicts(), [Verdict::Caught]);
    lab.bugs[0].edits[0].replace = "y".into();
    assert_eq!(lab.verdicts(), [Verdict::Open]);
    lab.bugs[0].edits[0].replace = "x".into();
    lab.bugs[0].proof = Proof::Anywhere(vec!["a".into(), "other".into()]);
    assert_eq!(lab.verdicts(), [Verdict::Open]);

    let mut lab = Lab::of(vec![bug("refused", &["a"])]);
    lab.run(&Shop::default(), 1).unwrap();
    assert_eq!(lab.verdicts(), [Verdict::Unbuildable]);
    lab.bugs[0].edits[0].replace = "y".into();
    assert_eq!(lab.verdicts(), [Verdict::Open]);
}

#[test]
fn what_is_committed_says_the_same_as_the_journal() {
    let lab = Lab::of(vec![bug("a", &["a"]), bug("refused", &["b"]), bug("b", &["a"])]);
    lab.run(&Shop::default(), 1).unwrap();
    lab.run(&Shop::default(), 1).unwrap();
    let records = Journal::read(&lab.path());
    let settled = report::settled(&lab.bugs, &records);
    assert_eq!(settled.len(), 3);
    let verdicts = |records: &[Record]| {
        report::found(&lab.bugs, records).into_iter().map(|(_, judged)| judged).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&settled), verdicts(&records));
    assert!(
        !format!("{settled:?}").contains("x86.c:1: error"),
        "a compiler's words name places of the machine"
    );
    assert_eq!(report::settled(&lab.bugs, &settled), settled);
    // A bug of which nothing new was found keeps what is committed.
    let mut later = settled.clone();
    later.extend(
        records.iter().filter(|record| matches!(record, Record::Trial(trial) if trial.bug == "f.b")).cloned(),
    );
    assert_eq!(report::settled(&lab.bugs, &later), settled);
}

/// The boots of a run with one machine, without those for the unmodified modules.
fn boots(lab: &Lab) -> Vec<String> {
    lab.run(&Shop::default(), 1).unwrap();
    let boots = lab.boots.lock().unwrap();
    boots.iter().filter(|boot| !boot.contains("unmodified")).cloned().collect()
}

#[test]
fn bugs_of_a_bed_share_a_machine_and_one_that_kills_it_has_its_own() {
    let mut bugs: Vec<Bug> = ["a", "b", "c", "d", "e", "f"].map(|name| bug(name, &[name])).into();
    bugs[1].beds = Kind::ALL.to_vec();
    bugs[2].crash = true;
    bugs[3].beds = vec![Kind::Intel];
    bugs[4].params = [(Kind::Amd, "kvm_amd.npt=0".parse().unwrap())].into();
    let mut lab = Lab::of(bugs);
    let together = [
        "amd default a: a | amd default b: b | amd npt=0 e: e",
        "intel default b: b | intel default d: d",
        "amd default c: c",
        "amd default f: f",
    ];
    assert_eq!(boots(&lab), together);
    assert_eq!(lab.verdicts()[..2], [Verdict::Caught; 2]);
    assert_eq!(lab.verdicts()[3..], [Verdict::Caught; 3]);
    let trials =
        |record: &Record| matches!(record, Record::Trial(trial) if (trial.seconds - 1.0).abs() < 0.001);
    assert_eq!(Journal::read(&lab.path()).iter().filter(|record| trials(record)).count(), 7);

    lab.batch = 1;
    lab.boots.lock().unwrap().clear();
    assert_eq!(boots(&lab).len(), 7);
}

#[test]
fn what_was_found_before_a_bed_failed_is_kept() {
    let lab = Lab::of(vec![bug("a", &["a"]), bug("dead", &["b"]), bug("c", &["c"])]);
    assert!(lab.run(&Shop::default(), 1).is_err());
    assert_eq!(lab.verdicts(), [Verdict::Caught, Verdict::Open, Verdict::Open]);
}
