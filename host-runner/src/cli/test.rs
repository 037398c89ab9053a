//! The verb `test`: selects, lists, decides skips, runs, sums up.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, ColorSetting, FormatSetting, Trial};

use super::args::{Color, Format, TestArgs};
use super::begin::begin;
use super::ground::{Ground, Survey};
use super::interrupt::{Caught, Hush, Interrupt};
use super::lost::Lost;
use super::plan::{self, Test};
use super::progress::Progress;
use super::report::{About, ORIGIN, SOURCES, write_all};
use super::run::Run;
use super::{End, Stop};
use crate::case::Case;
use crate::host::HostFacts;
use crate::journal::{Ended, Journal, now};
use crate::outcome::{Outcome, Verdict};
use crate::report::{Paint, Results, Rows, Summary, Tally, Variations};
use crate::suite::Load;
use crate::waivers::Waivers;

pub(super) fn run(args: &TestArgs, load: Load) -> Result<End, Stop> {
    let mut survey = Survey::take(args, load)?;
    if args.list {
        survey.remember_device();
        list(args, &survey);
        return Ok(End::Conforming);
    }
    let mut remarks = Vec::new();
    survey.ask_device(&mut remarks)?;
    let interrupt = Interrupt::catch()?;
    let begun = begin(args, &survey)?;
    let ground = Ground::prepare(args, &survey, begun.forget, &mut remarks);
    let Survey { suite, host, waivers, .. } = survey;
    let paint = match args.color {
        Color::Always => Paint::new(true),
        Color::Never => Paint::new(false),
        // Failures are told in the log file, unless a terminal shows them.
        Color::Auto => Paint::new(Paint::automatic(&std::io::stdout()).is_on() && args.logfile.is_none()),
    };
    let paint = if args.format == Some(Format::Json) { Paint::new(false) } else { paint };
    let run = Arc::new(Run {
        ground,
        suite,
        journal: begun.journal,
        waivers,
        paint,
        again: args.again.clone(),
        progress: Progress::new(args, begun.todo.iter().map(|test| test.name.as_str())),
        interrupt: interrupt.flag(),
        seed: begun.seed,
        outcomes: Mutex::new(begun.done),
    });
    let lost = begun.lost.into_iter().map(|lost| lost_trial(&run, lost));
    let selected = begun.selected;
    let forced = begun.forced;
    let trials = lost.chain(begun.todo.iter().map(|test| trial(&run, test, forced, &host))).collect();
    // The threads end before this returns, and the worker processes with the pool.
    let hush = Arc::new(Hush::default());
    let (stopper, hushed) = (run.ground.pool.stopper(), Arc::clone(&hush));
    interrupt.then(move || {
        hushed.begin();
        stopper.stop();
    });
    let mut arguments = libtest_arguments(args);
    if run.progress.tells_all() {
        arguments.logfile = Some("/dev/null".to_owned());
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    run.progress.end();
    hush.end();
    conclude(args, &run, selected, &host, remarks, conclusion.has_failed())
}

fn trial(run: &Arc<Run>, test: &Test, forced: bool, host: &HostFacts) -> Trial {
    let reason = plan::skip(&*run.suite, test, host, forced);
    let unplayed = |verdict, reason| run.settle_unplayed(test, Outcome::new(verdict, reason));
    match reason {
        // nextest asks only for what the list did not mark; "ignored" would show as a pass there.
        Some(reason) if under_nextest() => {
            let text = format!(
                "{reason}; the list could not know: run `exitspec host` once to tell it (cargo run -p host-runner -- host)"
            );
            let result = unplayed(Verdict::Error, text);
            Trial::test(&test.name, || result)
        }
        Some(reason) => {
            let result = unplayed(Verdict::Skip, reason);
            // Fails only if the journal cannot be written; then it must be seen.
            let seen = result.is_err();
            Trial::test(&test.name, || result).with_ignored_flag(!seen)
        }
        None => {
            let (shared, test) = (Arc::clone(run), test.clone());
            let kind = kind(&run.waivers, run.suite.cases(), &test);
            Trial::ignorable_test(test.name.clone(), move || shared.play(&test)).with_kind(kind)
        }
    }
}

/// A case that has its verdict already: its machine died.
fn lost_trial(run: &Run, Lost { test, outcome }: Lost) -> Trial {
    let case = &run.suite.cases()[test.index].id;
    let result = run.settle_unplayed(&test, run.waivers.apply(case, &test.combo, outcome));
    Trial::test(&test.name, || result)
}

fn kind(waivers: &Waivers, cases: &[Case], test: &Test) -> &'static str {
    if waivers.expects_deviation(&cases[test.index].id, &test.combo) { "xfail" } else { "" }
}

/// Prints what would run. Knows of the device only what an earlier run remembered.
fn list(args: &TestArgs, survey: &Survey) {
    let Survey { suite, host, waivers, profile, .. } = survey;
    let cases = suite.cases();
    // Here the filters choose whether what would be skipped is listed.
    let all = TestArgs { ignored: false, ..args.clone() };
    let trials = plan::tests(&all, profile.as_ref(), cases, host).into_iter().map(|test| {
        let reason = plan::skip(&**suite, &test, host, false);
        if let Some(reason) = reason.as_ref().filter(|_| !test.combo.is_plain()) {
            // Where no reader of lists looks for tests.
            eprintln!("{}: {reason}", test.name);
        }
        let kind = kind(waivers, cases, &test);
        Trial::test(test.name, || Ok(())).with_kind(kind).with_ignored_flag(reason.is_some())
    });
    let _ = libtest_mimic::run(&libtest_arguments(args), trials.collect());
}

/// The selection is made already, so no filter is passed on.
fn libtest_arguments(args: &TestArgs) -> Arguments {
    let threads = args.test_threads.map(usize::from);
    Arguments {
        list: args.list,
        ignored: args.list && args.ignored,
        include_ignored: args.include_ignored,
        quiet: args.quiet,
        test_threads: threads,
        logfile: args.logfile.as_ref().map(|path| path.display().to_string()),
        format: args.format.map(|format| match format {
            Format::Pretty => FormatSetting::Pretty,
            Format::Terse => FormatSetting::Terse,
            Format::Json => FormatSetting::Json,
        }),
        color: Some(match args.color {
            Color::Auto => ColorSetting::Auto,
            Color::Always => ColorSetting::Always,
            Color::Never => ColorSetting::Never,
        }),
        ..Arguments::default()
    }
}

fn conclude(
    args: &TestArgs,
    run: &Run,
    selected: usize,
    host: &HostFacts,
    mut remarks: Vec<String>,
    any_failed: bool,
) -> Result<End, Stop> {
    let caught = run.interrupt.caught();
    let stray = run.ground.kernel_log.stray();
    if run.ground.kernel_log.overrun() {
        remarks.push("the kernel logged faster than it could be read; reports may be lost".to_owned());
    }
    if let Some(journal) = &run.journal {
        let stray = stray.iter().map(|report| report.lines.clone()).collect();
        let ended = Ended { at: now(), stray, remarks: remarks.clone() };
        if let Err(error) = journal.ended(ended) {
            remarks.push(format!("cannot write {}: {error}", journal.path().display()));
        }
    }
    remarks.extend(stray.iter().map(|report| {
        format!("the kernel reported between cases, so this run deviates: {}", report.lines.join("\n    "))
    }));
    // A report that cannot be written must not take the summary with it.
    let reported = args.report_dir.as_ref().map(|folder| report(args, run.journal.as_ref(), folder));
    remarks.extend(reported.iter().flatten().cloned());
    let outcomes = run.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
    let open = selected.saturating_sub(outcomes.len());
    let summary = Summary {
        outcomes: &outcomes,
        host,
        // This machine's files go with it; where the mirror's lines are is known outside alone.
        journal: run
            .journal
            .as_ref()
            .filter(|_| args.mirror.is_none())
            .map(|journal| journal.path().to_owned()),
        remarks: &remarks,
        all: args.verbose,
        interrupted: caught.map(|caught| interrupted(caught, run, open, selected)),
    };
    let table = Variations::new(&outcomes, if args.verbose { Rows::Deviating } else { Rows::Bad });
    let table = if table.has_any() { format!("{table}\n") } else { String::new() };
    if args.format == Some(Format::Json) {
        eprint!("{table}{summary}");
    } else {
        // libtest-mimic may have named a test, and nothing come of it.
        let begin = if caught.is_some() && !run.progress.tells_all() { "\n" } else { "" };
        print!("{begin}{table}{summary}");
    }
    reported.transpose()?;
    if let Some(caught) = caught {
        return Ok(caught.end());
    }
    let tally = Tally::of(outcomes.values());
    // A result that could not be kept has failed without an outcome.
    if tally.bad > 0 || any_failed || !stray.is_empty() {
        Ok(End::Deviations)
    } else if tally.ran() {
        Ok(End::Conforming)
    } else {
        Err(Stop::Nothing("nothing ran: every case was skipped".to_owned()))
    }
}

/// That the run was ended, and how it goes on.
fn interrupted(caught: Caught, run: &Run, open: usize, selected: usize) -> String {
    let signal = caught.name();
    if open == 0 {
        return format!("by {signal}");
    }
    let name = run.journal.as_ref().and_then(|journal| journal.path().parent()?.file_name());
    let again = name.map(|name| format!("; go on with: {} --resume={}", run.again, name.display()));
    format!("by {signal}: {open} of {selected} tests have no verdict{}", again.unwrap_or_default())
}

/// Writes the reports that were asked for; a remark.
fn report(args: &TestArgs, journal: Option<&Journal>, folder: &Path) -> Result<String, Stop> {
    let Some(journal) = journal else {
        return Ok("no reports: cargo nextest keeps the results itself".to_owned());
    };
    let path = journal.path().to_owned();
    let results = Results::read(&[path]).map_err(|error| Stop::Usage(error.to_string()))?;
    let manifests = args.places.manifests.as_deref().and_then(Path::file_name);
    let about = About {
        sources: manifests.map_or_else(|| SOURCES.to_owned(), |name| name.to_string_lossy().into_owned()),
        origin: ORIGIN.to_owned(),
    };
    write_all(&[], &results, &about, folder)?;
    Ok(format!("reports are in {}", folder.display()))
}

pub(super) fn under_nextest() -> bool {
    std::env::var_os("NEXTEST").is_some()
}
