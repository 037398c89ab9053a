//! What others catch: the kernel's own KVM selftests, of the same source, under the same modules.
//!
//! Their programs are played as cases are, by `bed-peer` instead of the runner. Only those count that pass on the
//! unmodified modules; the others have no verdict to lose.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::bugs::{Bug, Proof};
use super::journal::{self, Journal, Record, Seen, Setting};
use super::source::Tree;
use super::verdict;
use super::work::{Bench, Job, Ran};
use super::workshop;
use crate::bed::kernel::small;
use crate::bed::kind::Kind;
use crate::bed::trial::{Task, Trial};

/// Whose tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// tools/testing/selftests/kvm of the same source
    Selftests,
}

/// Programs that measure, or load the machine for as long as they are let, have no place in an emulated one.
const LEFT_OUT: &[&str] = &["perf", "stress", "max_guest_memory", "kvm_page_table", "hardware_disable"];

/// The programs, built first if need be: their folder, and their names.
pub(crate) fn programs(tree: &Tree) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let home = tree.place().join("peers");
    if !home.is_dir() {
        eprintln!("building KVM's selftests");
        let built = tree.place().join("selftests");
        let draft = tree.place().join("peers.draft");
        for folder in [&built, &draft] {
            small::remove(folder).with_context(|| folder.display().to_string())?;
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        tree.make_other(&["headers"])?;
        let mut make = Command::new("make");
        // Those that do not build here are no peers; the others go on.
        make.args(["-s", "-k", "ARCH=x86_64"])
            .env("LDFLAGS", "-static")
            .arg(format!("OUTPUT={}", built.display()));
        make.current_dir(tree.root().join("tools/testing/selftests/kvm"));
        make.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        make.status().context("cannot start make")?;
        for folder in [&built, &built.join("x86_64"), &built.join("x86")] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let program = path.extension().is_none()
                    && entry
                        .metadata()
                        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
                if program {
                    let strip = Command::new("strip")
                        .arg("-o")
                        .args([&draft.join(entry.file_name()), &path])
                        .status();
                    if !strip.context("cannot start strip")?.success() {
                        bail!("{} cannot be stripped", path.display());
                    }
                }
            }
        }
        fs::rename(&draft, &home).with_context(|| home.display().to_string())?;
    }
    let entries = fs::read_dir(&home).with_context(|| home.display().to_string())?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| !LEFT_OUT.iter().any(|word| name.contains(word))).collect();
    names.sort();
    if names.is_empty() {
        bail!("none of KVM's selftests builds here; remove {} to try again", home.display());
    }
    Ok((home, names))
}

/// Beds that run programs.
#[derive(Debug)]
pub(crate) struct PeerBeds {
    pub(crate) image: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) runs: PathBuf,
    pub(crate) keep: bool,
}

impl Bench for PeerBeds {
    fn run(
        &mut self,
        bed: Kind,
        tasks: &[Task<'_>],
        told: &mut dyn FnMut(usize, Ran) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        // Other programs are another initial file system, and with it another machine.
        let mut begin = 0;
        let mut wanted = true;
        for same in tasks.chunk_by(|one, next| one.cases == next.cases) {
            wanted = wanted && self.some(bed, same, &mut |number, ran| told(begin + number, ran))?;
            begin += same.len();
        }
        Ok(())
    }
}

impl PeerBeds {
    /// Tasks with the same programs; whether others are still wanted.
    fn some(
        &self,
        bed: Kind,
        tasks: &[Task<'_>],
        told: &mut dyn FnMut(usize, Ran) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let Some(first) = tasks.first() else { return Ok(true) };
        // Exactly these go into the machine.
        let chosen = tempfile::tempdir_in(&self.runs).context("cannot make a folder for programs")?;
        for case in first.cases {
            fs::hard_link(self.programs.join(case), chosen.path().join(case))
                .with_context(|| case.clone())?;
        }
        let mut trial = Trial::new(bed, &self.image, first.modules)?;
        let (mut wanted, mut dull) = (true, Vec::new());
        trial.run_programs(tasks, chosen.path(), &self.runs, &mut |task, ended| {
            let cases = journal::verdicts(&ended.journal);
            if ended.trouble.is_none() {
                dull.push(ended.folder);
            }
            wanted = told(task, Ran { cases, trouble: ended.trouble, seconds: ended.seconds })?;
            Ok(wanted)
        })?;
        if !self.keep {
            for folder in dull {
                // It only takes space.
                let _ = fs::remove_dir_all(folder);
            }
        }
        Ok(wanted)
    }
}

/// The bugs, as far as a peer is concerned: nothing in particular is expected of it.
pub(crate) fn unexpecting(bugs: &[Bug]) -> Vec<Bug> {
    bugs.iter().map(|bug| Bug { proof: Proof::Anywhere(Vec::new()), ..bug.clone() }).collect()
}

/// The jobs with only those programs that pass on the unmodified modules, which are run first where that is not known.
pub(crate) fn jobs(
    jobs: Vec<Job>,
    names: &[String],
    unmodified: &Path,
    bench: &mut dyn Bench,
    journal: &Journal,
    records: &mut Vec<Record>,
) -> anyhow::Result<Vec<Job>> {
    let mut chosen = Vec::new();
    for mut job in jobs {
        let known = records.iter().rev().find_map(|record| match record {
            Record::Baseline { setting, cases } if *setting == job.setting => Some(cases.clone()),
            _ => None,
        });
        let known = if let Some(known) = known {
            known
        } else {
            let Setting { bed, params, .. } = &job.setting;
            eprintln!("unmodified, {bed} ({params}): {} programs", names.len());
            let (name, params) = ("selftests-unmodified", &job.params);
            let task = Task { name, modules: unmodified, params, cases: names };
            let ran = bench.run_one(*bed, &task)?;
            if let Some(trouble) = ran.trouble {
                bail!(
                    "the selftests do not come through on the unmodified modules in the bed {bed}: {trouble}"
                );
            }
            let record = Record::Baseline { setting: job.setting.clone(), cases: ran.cases.clone() };
            journal.add(&record)?;
            records.push(record);
            ran.cases
        };
        let passes = |name: &&String| known.get(*name).is_some_and(|seen: &Seen| seen.verdict == "pass");
        job.cases = names.iter().filter(passes).cloned().collect();
        if job.cases.is_empty() {
            bail!("none of the selftests passes on the unmodified modules in the bed {}", job.setting.bed);
        }
        chosen.push(job);
    }
    Ok(chosen)
}

/// What peers say of bugs.
#[derive(Debug, Default)]
pub(crate) struct Peers(BTreeMap<String, BTreeMap<Kind, Said>>);

/// What they say in a bed.
#[derive(Debug, Default)]
struct Said {
    asked: usize,
    failing: BTreeSet<String>,
}

impl Peers {
    /// The newest words in a journal on bugs as they are now.
    pub(crate) fn of(bugs: &[Bug], records: &[Record]) -> Self {
        let mut all = Self::default();
        for bug in unexpecting(bugs) {
            let edits = workshop::name_of(&bug.edits);
            for record in records {
                if let Record::Trial(trial @ journal::Trial { setting: Setting { bed, .. }, .. }) = record
                    && trial.bug == bug.id
                    && trial.edits == edits
                {
                    // A time limit says more of the machine than of the bug.
                    let failed =
                        |name: &String| trial.cases.get(name).is_some_and(|seen| seen.verdict != "timeout");
                    let failing = verdict::in_bed(&bug, trial).others.into_iter().filter(failed).collect();
                    let said = Said { asked: trial.asked.len(), failing };
                    all.0.entry(bug.id.clone()).or_default().insert(*bed, said);
                }
            }
        }
        all
    }

    /// Whether nobody has been asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they say of a bug, within a table.
    pub(crate) fn cell(&self, bug: &Bug) -> String {
        let Some(beds) = self.0.get(&bug.id) else { return String::new() };
        let each = beds.iter().map(|(bed, said)| {
            let names: Vec<String> = said.failing.iter().map(|name| format!("`{name}`")).collect();
            let names = if names.is_empty() { format!("none of {}", said.asked) } else { names.join(", ") };
            format!("{bed}: {names}")
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// How many bugs they were shown, and how many they catch.
    pub(crate) fn count(&self) -> (usize, usize) {
        let caught =
            self.0.values().filter(|beds| beds.values().any(|said| !said.failing.is_empty())).count();
        (self.0.len(), caught)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bed::params::Params;

    /// Verdicts on every program that is asked for.
    struct Paper(&'static str);

    impl Bench for Paper {
        fn run(
            &mut self,
            _: Kind,
            tasks: &[Task<'_>],
            told: &mut dyn FnMut(usize, Ran) -> anyhow::Result<bool>,
        ) -> anyhow::Result<()> {
            let of = |case: &String| {
                let (_, verdict) = self
                    .0
                    .split(' ')
                    .filter_map(|word| word.split_once('='))
                    .find(|(name, _)| name == case)?;
                Some((case.clone(), Seen { verdict: verdict.to_owned(), reason: String::new() }))
            };
            for (number, task) in tasks.iter().enumerate() {
                told(number, Ran { cases: task.cases.iter().filter_map(of).collect(), ..Ran::default() })?;
            }
            Ok(())
        }
    }

    fn bug() -> Bug {
        Bug { beds: vec![Kind::Amd], ..Bug::of_test("f.b", Proof::by(&["f.case"])) }
    }

    fn setting() -> Setting {
        Setting { bed: Kind::Amd, params: "default".into(), kernel: "k".into(), suite: "s".into() }
    }

    fn names() -> Vec<String> {
        ["a", "b", "c", "d"].map(str::to_owned).into()
    }

    fn chosen(verdicts: &'static str, records: &mut Vec<Record>) -> anyhow::Result<Vec<Job>> {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&folder.path().join("j.jsonl")).unwrap();
        let job = Job { bug: 0, setting: setting(), params: Params::default(), cases: names() };
        jobs(vec![job], &names(), Path::new("unmodified"), &mut Paper(verdicts), &journal, records)
    }

    #[test]
    fn only_what_passes_without_the_bug_is_asked_and_that_is_found_out_once() {
        let mut records = Vec::new();
        assert_eq!(chosen("a=pass b=fail c=skip d=pass", &mut records).unwrap()[0].cases, ["a", "d"]);
        assert_eq!(chosen("", &mut records).unwrap()[0].cases, ["a", "d"]);
        assert!(
            chosen("a=fail b=skip", &mut Vec::new())
                .unwrap_err()
                .to_string()
                .contains("none of the selftests")
        );
    }

    #[test]
    fn a_peer_catches_what_makes_its_programs_fail() {
        let trial = |with: &str| {
            let seen = |verdict: &str| Seen { verdict: verdict.into(), reason: String::new() };
            Record::Trial(journal::Trial {
                bug: "f.b".into(),
                edits: workshop::name_of(&[]),
                release: "6.12.117".into(),
                setting: setting(),
                asked: vec!["a".into(), "d".into()],
                cases: [("a".to_owned(), seen(with))].into(),
                before: [("a".to_owned(), seen("pass"))].into(),
                trouble: None,
                seconds: 1.0,
            })
        };
        let peers = |records: &[Record]| Peers::of(&[bug()], records);
        assert!(peers(&[]).is_empty() && peers(&[]).cell(&bug()).is_empty());
        let missed = peers(&[trial("skip")]);
        assert_eq!((missed.cell(&bug()).as_str(), missed.count()), ("amd: none of 2", (1, 0)));
        assert_eq!(peers(&[trial("timeout")]).count(), (1, 0));
        let caught = peers(&[trial("skip"), trial("fail")]);
        assert_eq!((caught.cell(&bug()).as_str(), caught.count()), ("amd: `a`", (1, 1)));
    }
}
