//! The verb `soak`: tests at random, for a time, each with a seed of its own.
//!
//! What deviates is told once, when it is seen first, and at the end with how often: a verdict that comes and goes is
//! a deviation, and is never played again until it is green.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::args::{Color, SoakArgs, TestArgs};
use super::begin::usage;
use super::ground::{Ground, Survey};
use super::interrupt::Interrupt;
use super::plan::{self, Test};
use super::run::played;
use super::{End, Stop};
use crate::journal::{About, Header, Journal, Runs, now, revision};
use crate::suite::Load;

/// What has been seen so far.
#[derive(Default)]
struct Tally {
    plays: BTreeMap<String, u64>,
    deviations: BTreeMap<(String, String), Seen>,
}

/// One deviation.
struct Seen {
    times: u64,
    first_seed: u64,
}

pub(super) fn run(args: &SoakArgs, load: Load) -> Result<End, Stop> {
    let test = &args.test;
    if let Some(option) = meaningless(test) {
        return Err(Stop::Usage(format!("soak: {option} has no meaning here; it is an option of `test`")));
    }
    let mut remarks = Vec::new();
    let mut survey = Survey::take(test, load)?;
    survey.ask_device(&mut remarks)?;
    let cases = survey.suite.cases();
    let varied = TestArgs {
        vary: if test.vary.is_empty() { vec![plan::Varies::All] } else { test.vary.clone() },
        ..test.clone()
    };
    let mut tests = plan::tests(&varied, survey.profile.as_ref(), cases, &survey.host);
    tests.retain(|test| plan::skip(&*survey.suite, test, &survey.host, false).is_none());
    if tests.is_empty() {
        return Err(Stop::Nothing("nothing to play: no case matches, or this host can play none".to_owned()));
    }
    let seed = test.seed.unwrap_or_else(|| fastrand::u64(..));
    let interrupt = Interrupt::catch()?;
    let caught = interrupt.flag();
    let journal = journal(&varied, &survey, seed)?;
    let ground = Ground::prepare(test, &survey, test.forget, &mut remarks);
    let threads = test
        .test_threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    println!("soaking {} tests for {}, seed {seed}", tests.len(), humantime::format_duration(args.time));
    let soak = Soak {
        survey: &survey,
        ground: &ground,
        journal,
        tests: &tests,
        seed,
        next: AtomicU64::new(0),
        broken: AtomicBool::new(false),
        tally: Mutex::default(),
    };
    let stopper = ground.pool.stopper();
    interrupt.then(move || stopper.stop());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| soak.play_until(start + args.time, &test.again));
        }
    });
    let stray = ground.kernel_log.stray();
    remarks.extend(stray.iter().map(|report| report.lines.join("\n    ")));
    if ground.kernel_log.overrun() {
        remarks.push("the kernel logged faster than it could be read; reports may be lost".to_owned());
    }
    let caught = caught.caught();
    if let Some(caught) = caught {
        println!("ended    by {}", caught.name());
    }
    let end = soak.conclude(start.elapsed(), &remarks, !stray.is_empty());
    caught.map_or(end, |caught| Ok(caught.end()))
}

/// An option on the command line that changes nothing here.
fn meaningless(args: &TestArgs) -> Option<&'static str> {
    let given = [
        ("--list", args.list),
        ("--format", args.format.is_some()),
        ("--ignored", args.ignored),
        ("--include-ignored", args.include_ignored),
        ("--quiet", args.quiet),
        ("--verbose", args.verbose),
        ("--color", args.color != Color::Auto),
        ("--logfile", args.logfile.is_some()),
        ("--resume", args.resume.is_some()),
        ("--mirror", args.mirror.is_some()),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
}

fn journal(args: &TestArgs, survey: &Survey, seed: u64) -> Result<Journal, Stop> {
    let Survey { places, suite, host, waivers, .. } = survey;
    let header = Header {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: revision(&places.sources.manifests),
        host: host.clone(),
        command: std::env::args().collect(),
        seed,
        fingerprint: super::begin::fingerprint(places, &**suite, waivers)?,
        // Whatever comes: nothing is left to do when it is interrupted.
        selected: Vec::new(),
        partition: args.partition.map(|shard| shard.to_string()),
        begun: now(),
        forced: false,
        vary: plan::varies(args),
        vary_depth: args.vary_depth,
        forget: args.forget,
    };
    let path = Runs::in_folder(&places.runs).create().map_err(|error| usage(&places.runs, &error))?;
    Journal::create(&path, &header, None).map_err(|error| usage(&path, &error))
}

struct Soak<'s> {
    survey: &'s Survey,
    ground: &'s Ground,
    journal: Journal,
    tests: &'s [Test],
    seed: u64,
    /// How many plays have begun.
    next: AtomicU64,
    /// The journal cannot be written any more.
    broken: AtomicBool,
    tally: Mutex<Tally>,
}

impl Soak<'_> {
    fn play_until(&self, end: Instant, again: &str) {
        let pool = &self.ground.pool;
        while Instant::now() < end && !self.broken.load(Ordering::Relaxed) && !pool.is_stopped() {
            // The same seed makes the same plays, in whatever order the threads take them.
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let mut rng = fastrand::Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let Some(test) = rng.choice(self.tests) else { return };
            self.play(test, u64::from(rng.u32(..)), again);
        }
    }

    fn play(&self, test: &Test, seed: u64, again: &str) {
        let Survey { suite, waivers, .. } = self.survey;
        let Some(case) = suite.cases().get(test.index) else { return };
        // Plays of one test may overlap, and a journal has one line for each name.
        let name = format!("{}@{seed}", test.name);
        let limit = self.ground.limit(case, &test.combo);
        let begun = self.journal.started(&name, limit);
        let start = Instant::now();
        let Some(outcome) = self.ground.play(&name, &played(test, seed, None), limit) else { return };
        let outcome = waivers.apply(&case.id, &test.combo, outcome);
        let command = format!("{again} --seed {seed} --exact {}", test.name);
        let about = || About::of(case, command.clone());
        if let Err(error) =
            begun.and_then(|()| self.journal.finished(&name, &outcome, start.elapsed(), about))
        {
            eprintln!("cannot write {}: {error}", self.journal.path().display());
            self.broken.store(true, Ordering::Relaxed);
        }
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        *tally.plays.entry(test.name.clone()).or_default() += 1;
        if outcome.verdict.is_good() {
            return;
        }
        let key = (test.name.clone(), outcome.verdict.word().to_owned());
        let seen = tally.deviations.entry(key).or_insert_with(|| {
            println!(
                "{:<8} {}: {}",
                outcome.verdict.word(),
                test.name,
                crate::report::shown(&outcome.reason)
            );
            println!("         {command}");
            Seen { times: 0, first_seed: seed }
        });
        seen.times += 1;
    }

    fn conclude(&self, time: Duration, remarks: &[String], stray: bool) -> Result<End, Stop> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let plays: u64 = tally.plays.values().sum();
        for ((test, verdict), seen) in &tally.deviations {
            let of = tally.plays.get(test).copied().unwrap_or_default();
            println!(
                "{verdict:<8} {test}: {} times of {of}, first with seed {}",
                seen.times, seen.first_seed
            );
        }
        for remark in remarks {
            println!("note     {}", crate::report::shown(remark));
        }
        let rate = f64::from(u32::try_from(plays).unwrap_or(u32::MAX)) / time.as_secs_f64().max(0.001);
        println!("host     {}", self.survey.host);
        println!("results  {}", self.journal.path().display());
        println!(
            "{plays} plays of {} tests in {:.0?}, {rate:.1} a second; {} deviations",
            tally.plays.len(),
            time,
            tally.deviations.len()
        );
        if self.broken.load(Ordering::Relaxed) || !tally.deviations.is_empty() || stray {
            return Ok(End::Deviations);
        }
        if plays == 0 {
            Err(Stop::Nothing("the time was over before anything was played".to_owned()))
        } else {
            Ok(End::Conforming)
        }
    }
}
