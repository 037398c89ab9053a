//! The course of a run: one thread builds bug after bug, others boot machines for what is built, each for some bugs.
//!
//! Knows neither `make` nor emulators: a [`Workshop`] gives modules, a [`Bench`] gives verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use super::bugs::Bug;
use super::journal::{Journal, Record, Seen, Setting, Trial};
use super::progress::Progress;
use super::queue::{Giver, Queue};
use super::verdict;
use super::workshop::{self, Workshop};
use crate::bed::kind::Kind;
use crate::bed::params::Params;
use crate::bed::trial::Task;

/// A run of cases to be done.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Which of the bugs.
    pub(crate) bug: usize,
    pub(crate) setting: Setting,
    pub(crate) params: Params,
    pub(crate) cases: Vec<String>,
}

/// What came of a run of cases.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ran {
    pub(crate) cases: BTreeMap<String, Seen>,
    /// Why it did not come to its end.
    pub(crate) trouble: Option<String>,
    /// How long it took, with its part of the machine's boot.
    pub(crate) seconds: f64,
}

/// Where cases run, one machine at a time.
pub(crate) trait Bench: Send {
    /// Runs these tasks in turn, and tells what came of each when it has ended, until the answer is that the others are
    /// not wanted any more.
    fn run(
        &mut self,
        bed: Kind,
        tasks: &[Task<'_>],
        told: &mut dyn FnMut(usize, Ran) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()>;

    /// Runs one.
    fn run_one(&mut self, bed: Kind, task: &Task<'_>) -> anyhow::Result<Ran> {
        let mut only = None;
        self.run(bed, &[*task], &mut |_, ran| {
            only = Some(ran);
            Ok(true)
        })?;
        only.ok_or_else(|| anyhow!("nothing came of {} in the bed {bed}", task.name))
    }
}

/// The verdicts without a bug, by setting; a setting's lock is held while they are being found.
#[derive(Debug, Default)]
pub(crate) struct Baselines(Vec<(Setting, Baseline)>);

#[derive(Debug, Default)]
struct Baseline {
    params: Params,
    wanted: BTreeSet<String>,
    known: Mutex<BTreeMap<String, Seen>>,
}

impl Baselines {
    /// What these jobs need, and what a journal knows of it.
    pub(crate) fn of(jobs: &[Job], records: &[Record]) -> Self {
        let mut all: Vec<(Setting, Baseline)> = Vec::new();
        for job in jobs {
            let at = all.iter().position(|(setting, _)| *setting == job.setting).unwrap_or_else(|| {
                let baseline = Baseline { params: job.params.clone(), ..Baseline::default() };
                all.push((job.setting.clone(), baseline));
                all.len() - 1
            });
            all[at].1.wanted.extend(job.cases.iter().cloned());
        }
        for (setting, baseline) in &mut all {
            let known = baseline.known.get_mut().unwrap_or_else(PoisonError::into_inner);
            for record in records {
                match record {
                    Record::Baseline { setting: those, cases } if those == setting => {
                        known.extend(cases.clone());
                    }
                    _ => {}
                }
            }
        }
        Self(all)
    }

    /// The verdicts of a setting, found first if need be.
    fn get(
        &self,
        setting: &Setting,
        unmodified: &Path,
        bench: &mut dyn Bench,
        journal: &Journal,
    ) -> anyhow::Result<BTreeMap<String, Seen>> {
        let found = self.0.iter().find(|(those, _)| those == setting);
        let (_, baseline) = found.ok_or_else(|| anyhow!("a job without its setting"))?;
        let mut known = baseline.known.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<String> =
            baseline.wanted.iter().filter(|case| !known.contains_key(*case)).cloned().collect();
        if !missing.is_empty() {
            eprintln!("unmodified, {} ({}): {} cases", setting.bed, setting.params, missing.len());
            let params = &baseline.params;
            let task = Task { name: "unmodified", modules: unmodified, params, cases: &missing };
            let ran = bench.run_one(setting.bed, &task)?;
            if let Some(trouble) = ran.trouble {
                bail!("the unmodified modules do not come through in the bed {}: {trouble}", setting.bed);
            }
            journal.add(&Record::Baseline { setting: setting.clone(), cases: ran.cases.clone() })?;
            known.extend(ran.cases);
        }
        Ok(known.clone())
    }
}

/// Everything that a run shares.
pub(crate) struct Work<'a> {
    pub(crate) bugs: &'a [Bug],
    /// In the order of the bugs.
    pub(crate) jobs: &'a [Job],
    pub(crate) baselines: Baselines,
    pub(crate) journal: &'a Journal,
    pub(crate) release: &'a str,
    pub(crate) progress: Mutex<Progress>,
    /// How many bugs may share a machine.
    pub(crate) batch: usize,
}

/// How long is waited for more bugs to be built before a machine boots for those that are: less than that takes.
const LINGER: Duration = Duration::from_secs(20);

/// A job whose modules are built.
struct Ready<'a> {
    job: &'a Job,
    modules: PathBuf,
}

impl Work<'_> {
    /// Does all of it; fails if that cannot go on, and not for what a bug does.
    pub(crate) fn run(&self, shop: &dyn Workshop, benches: Vec<Box<dyn Bench>>) -> anyhow::Result<()> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let unmodified = match shop.kept(&[]) {
            Some(modules) => modules,
            None => shop.build(&[])?,
        };
        let stop = AtomicBool::new(false);
        let queue = Queue::new();
        thread::scope(|scope| {
            // Whatever happens here, the threads are told that nothing comes any more.
            let giver = queue.giver();
            let each = benches.into_iter().map(|mut bench| {
                let (queue, stop, unmodified) = (&queue, &stop, &unmodified);
                scope.spawn(move || {
                    let done = self.test(queue, stop, unmodified, &mut *bench);
                    // Nobody goes on when one cannot.
                    stop.fetch_or(done.is_err(), Ordering::Relaxed);
                    done
                })
            });
            let threads: Vec<_> = each.collect();
            let built = self.build(shop, &stop, &giver);
            drop(giver);
            stop.fetch_or(built.is_err(), Ordering::Relaxed);
            let ends = threads.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(_) => Err(anyhow!("a bed's thread panicked")),
            });
            ends.fold(built, Result::and)
        })
    }

    /// Builds bug after bug.
    fn build<'j>(
        &'j self,
        shop: &dyn Workshop,
        stop: &AtomicBool,
        giver: &Giver<'_, Ready<'j>>,
    ) -> anyhow::Result<()> {
        let mut done = BTreeSet::new();
        for bug in self.jobs.iter().map(|job| job.bug).filter(|bug| done.insert(*bug)) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let edits = &self.bugs[bug].edits;
            let began = Instant::now();
            let modules = shop.kept(edits).map_or_else(|| shop.build(edits), Ok);
            match modules {
                Ok(modules) => {
                    self.progress().built(began.elapsed());
                    for job in self.jobs.iter().filter(|job| job.bug == bug) {
                        giver.give(Ready { job, modules: modules.clone() });
                    }
                }
                Err(error) => self.unbuildable(bug, &format!("{error:#}"))?,
            }
        }
        Ok(())
    }

    fn unbuildable(&self, bug: usize, log: &str) -> anyhow::Result<()> {
        let jobs: Vec<&Job> = self.jobs.iter().filter(|job| job.bug == bug).collect();
        let (bug, runs) = (&self.bugs[bug], jobs.len());
        self.progress().say(runs, &format!("{}: unbuildable\n    {log}", bug.id));
        let kernel = jobs.first().map(|job| job.setting.kernel.clone()).unwrap_or_default();
        let edits = workshop::name_of(&bug.edits);
        self.journal.add(&Record::Unbuildable { bug: bug.id.clone(), edits, kernel, log: log.to_owned() })
    }

    /// Runs the cases of what is built, until nothing comes any more.
    fn test(
        &self,
        queue: &Queue<Ready<'_>>,
        stop: &AtomicBool,
        unmodified: &Path,
        bench: &mut dyn Bench,
    ) -> anyhow::Result<()> {
        // A bug that kills the kernel would only have the others boot again.
        let kind = |ready: &Ready<'_>| {
            let together = !self.bugs[ready.job.bug].crash;
            together.then_some(ready.job.setting.bed)
        };
        loop {
            let batch = queue.take(self.batch, LINGER, kind);
            if batch.is_empty() || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.trials(&batch, stop, unmodified, bench)?;
        }
    }

    /// Runs the cases of several bugs in the same bed.
    fn trials(
        &self,
        batch: &[Ready<'_>],
        stop: &AtomicBool,
        unmodified: &Path,
        bench: &mut dyn Bench,
    ) -> anyhow::Result<()> {
        let Some(bed) = batch.first().map(|ready| ready.job.setting.bed) else { return Ok(()) };
        let known = batch
            .iter()
            .map(|Ready { job, .. }| self.baselines.get(&job.setting, unmodified, bench, self.journal))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let task = |ready| {
            let Ready { job: Job { bug, params, cases, .. }, modules }: &Ready<'_> = ready;
            Task { name: &self.bugs[*bug].id, modules, params, cases }
        };
        let tasks: Vec<Task<'_>> = batch.iter().map(task).collect();
        bench.run(bed, &tasks, &mut |number, ran| {
            self.ran(batch[number].job, &known[number], ran)?;
            Ok(!stop.load(Ordering::Relaxed))
        })
    }

    /// Says and writes down what came of a bug in a bed.
    fn ran(&self, job: &Job, known: &BTreeMap<String, Seen>, ran: Ran) -> anyhow::Result<()> {
        let bug = &self.bugs[job.bug];
        let expected = bug.expected(job.setting.bed);
        let keep = |case: &String, seen: &Seen| {
            expected.contains(case) || known.get(case).is_none_or(|before| before.verdict != seen.verdict)
        };
        let cases: BTreeMap<String, Seen> =
            ran.cases.into_iter().filter(|(case, seen)| keep(case, seen)).collect();
        let asked = |case: &&String| cases.contains_key(*case) || expected.contains(case);
        let before = job.cases.iter().filter(asked);
        let before = before.filter_map(|case| Some((case.clone(), known.get(case)?.clone()))).collect();
        let trial = Trial {
            bug: bug.id.clone(),
            edits: workshop::name_of(&bug.edits),
            release: self.release.to_owned(),
            setting: job.setting.clone(),
            asked: job.cases.clone(),
            cases,
            before,
            trouble: ran.trouble,
            seconds: ran.seconds,
        };
        let found = verdict::in_bed(bug, &trial);
        let took = Duration::try_from_secs_f64(ran.seconds).unwrap_or_default();
        self.progress().ran(took, &super::report::line(bug, job.setting.bed, &found));
        self.journal.add(&Record::Trial(trial))
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
