//! Where a run begins: with a new journal, or with what an interrupted one left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use super::Stop;
use super::args::TestArgs;
use super::ground::Survey;
use super::lost::{Lost, outcome};
use super::places::Places;
use super::plan::{self, Test};
use super::test::under_nextest;
use crate::host::HostFacts;
use crate::journal::{Fingerprint, Header, Journal, Mirror, Recovered, Runs, now, revision};
use crate::machine::Piece;
use crate::outcome::Outcome;
use crate::suite::Suite;
use crate::waivers::Waivers;

/// The same command line gives the same run, so the default is a constant.
const DEFAULT_SEED: u64 = 1;
/// This program, whatever became of its file since it was started.
const SELF: &str = "/proc/self/exe";

/// What a run starts with.
pub(super) struct Begun {
    pub(super) journal: Option<Journal>,
    pub(super) seed: u64,
    /// Whether cases are played although the host lacks what they need.
    pub(super) forced: bool,
    /// What saving and restoring a VM leaves out.
    pub(super) forget: Option<Piece>,
    /// How many tests the run has, those included that have their verdict already.
    pub(super) selected: usize,
    pub(super) done: BTreeMap<String, Outcome>,
    pub(super) lost: Vec<Lost>,
    pub(super) todo: Vec<Test>,
}

/// Opens the journal and decides what is to do.
pub(super) fn begin(args: &TestArgs, survey: &Survey) -> Result<Begun, Stop> {
    let Survey { places, suite, host, waivers, .. } = survey;
    let suite = &**suite;
    let mirror = match &args.mirror {
        Some(path) => Some(Mirror::open(path).map_err(|error| usage(path, &error))?),
        None => None,
    };
    match &args.resume {
        Some(wanted) => {
            let path = Runs::in_folder(&places.runs).find(wanted.as_deref());
            let path = path.map_err(|error| Stop::Usage(error.to_string()))?;
            let (journal, found) = Journal::reopen(&path, mirror).map_err(|error| usage(&path, &error))?;
            may_resume(args, &path, &found, host, &fingerprint(places, suite, waivers)?)?;
            let lost = outcome(args)?;
            Ok(resume(args, suite, journal, found, lost.as_ref()))
        }
        None => start(args, survey, mirror),
    }
}

pub(super) fn fingerprint(
    places: &Places,
    suite: &dyn Suite,
    waivers: &Waivers,
) -> Result<Fingerprint, Stop> {
    let payloads: BTreeSet<PathBuf> =
        suite.cases().iter().map(|case| places.sources.payloads.join(&case.payload)).collect();
    let manifests = &places.sources.manifests;
    Fingerprint::take(manifests, &Vec::from_iter(payloads), waivers.text(), Path::new(SELF))
        .map_err(|error| usage(manifests, &error))
}

fn start(args: &TestArgs, survey: &Survey, mirror: Option<Mirror>) -> Result<Begun, Stop> {
    let Survey { places, suite, host, waivers, profile } = survey;
    let suite = &**suite;
    let cases = suite.cases();
    let todo = plan::tests(args, profile.as_ref(), cases, host);
    if todo.is_empty() {
        let count = cases.len();
        if let Some(shard) = args.partition {
            return Err(Stop::Nothing(format!("nothing that is selected is in the shard {shard}")));
        }
        return Err(Stop::Nothing(format!("no case matches; there are {count}, and --list names them")));
    }
    let seed = args.seed.unwrap_or(DEFAULT_SEED);
    let forced = args.ignored || args.include_ignored;
    // cargo nextest starts a process per case and keeps the results itself.
    let journal = if under_nextest() && args.places.run_dir.is_none() {
        None
    } else {
        let header = Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision(&places.sources.manifests),
            host: host.clone(),
            command: std::env::args().collect(),
            seed,
            fingerprint: fingerprint(places, suite, waivers)?,
            selected: todo.iter().map(|test| test.name.clone()).collect(),
            forced,
            partition: args.partition.map(|shard| shard.to_string()),
            begun: now(),
            vary: plan::varies(args),
            vary_depth: args.vary_depth,
            forget: args.forget,
        };
        let path = Runs::in_folder(&places.runs).create().map_err(|error| usage(&places.runs, &error))?;
        Some(Journal::create(&path, &header, mirror).map_err(|error| usage(&path, &error))?)
    };
    let forget = args.forget;
    let selected = todo.len();
    Ok(Begun { journal, seed, forced, forget, selected, done: BTreeMap::new(), lost: Vec::new(), todo })
}

/// Refuses to mix results that do not mean the same.
fn may_resume(
    args: &TestArgs,
    path: &Path,
    found: &Recovered,
    host: &HostFacts,
    fingerprint: &Fingerprint,
) -> Result<(), Stop> {
    if found.header.selected.is_empty() {
        let path = path.display();
        return Err(Stop::Usage(format!(
            "{path} is a soak's, which has nothing left to do; name the run to resume"
        )));
    }
    let mut differences = found.header.host.differences(host);
    differences.extend(found.header.fingerprint.differences(fingerprint));
    differences.extend(asked_otherwise(args, &found.header));
    if differences.is_empty() {
        return Ok(());
    }
    let path = path.display();
    Err(Stop::Usage(format!("cannot resume {path}: {}\nstart a new run", differences.join(", "))))
}

/// What the command line asks for and the run was not begun with. What it does not say is as it was.
fn asked_otherwise(args: &TestArgs, header: &Header) -> Vec<String> {
    let mut differences = Vec::new();
    if args.seed.is_some_and(|seed| seed != header.seed) {
        differences.push(format!("its seed is {}", header.seed));
    }
    let vary = plan::varies(args);
    if !vary.is_empty() && vary != header.vary {
        let names = header.vary.iter().map(|vary| vary.name()).collect::<Vec<_>>().join(",");
        differences.push(if names.is_empty() {
            "it has no --vary".into()
        } else {
            format!("its --vary is {names}")
        });
    }
    if (args.vary_depth > 1 || !vary.is_empty()) && args.vary_depth != header.vary_depth {
        differences.push(format!("its --vary-depth is {}", header.vary_depth));
    }
    if args.forget.is_some() && args.forget != header.forget {
        let forgotten =
            header.forget.and_then(|piece| Some(piece.to_possible_value()?.get_name().to_owned()));
        let shown = forgotten.map_or("it has no --forget".into(), |piece| format!("its --forget is {piece}"));
        differences.push(shown);
    }
    differences
}

fn resume(
    args: &TestArgs,
    suite: &dyn Suite,
    journal: Journal,
    found: Recovered,
    lost: Option<&Outcome>,
) -> Begun {
    let cases = suite.cases();
    let open = found.header.selected.iter().filter(|name| !found.finished.contains_key(*name));
    let open = open.filter_map(|name| Test::of_name(cases, name));
    // Any other case that was started is played again: it was another end that it did not live to see.
    let was_running = |name: &String| args.running.contains(name) && found.unfinished.contains(name);
    let (gone, todo): (Vec<Test>, Vec<Test>) =
        open.partition(|test| lost.is_some() && was_running(&test.name));
    let lost = lost
        .into_iter()
        .flat_map(|outcome| gone.iter().map(|test| Lost { test: test.clone(), outcome: outcome.clone() }));
    Begun {
        selected: found.header.selected.len(),
        journal: Some(journal),
        seed: found.header.seed,
        forced: found.header.forced,
        forget: found.header.forget,
        lost: lost.collect(),
        done: found.finished,
        todo,
    }
}

/// A mistake about a file.
pub(super) fn usage(what: &Path, error: &std::io::Error) -> Stop {
    Stop::Usage(format!("{}: {error}", what.display()))
}
