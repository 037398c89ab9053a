//! Where a run begins: with a new journal, or with what an interrupted one left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::args::TestArgs;
use super::places::Places;
use super::test::under_nextest;
use super::{Stop, select};
use crate::host::{HostFacts, missing};
use crate::journal::{Fingerprint, Header, Journal, Mirror, Recovered, Runs};
use crate::outcome::{Evidence, Outcome};
use crate::suite::Suite;
use crate::waivers::Waivers;

/// The same command line gives the same run, so the default is a constant.
const DEFAULT_SEED: u64 = 1;
/// Most lines of a dead machine's console that are kept as evidence, and most bytes of one.
const CONSOLE_LINES: usize = 100;
const CONSOLE_LINE: usize = 400;

/// What a run starts with.
pub(super) struct Begun {
    pub(super) journal: Option<Journal>,
    pub(super) seed: u64,
    pub(super) done: BTreeMap<String, Outcome>,
    pub(super) lost: Vec<Lost>,
    pub(super) todo: Vec<usize>,
}

/// A case that was running when its machine died.
pub(super) struct Lost {
    pub(super) index: usize,
    pub(super) outcome: Outcome,
}

/// Opens the journal and decides what is to do.
pub(super) fn begin(
    args: &TestArgs,
    places: &Places,
    suite: &dyn Suite,
    waivers: &Waivers,
    host: &HostFacts,
) -> Result<Begun, Stop> {
    let cases = suite.cases();
    let payloads: BTreeSet<PathBuf> =
        cases.iter().map(|case| places.sources.payloads.join(&case.payload)).collect();
    let manifests = &places.sources.manifests;
    let fingerprint = Fingerprint::take(manifests, &Vec::from_iter(payloads), waivers.text())
        .map_err(|error| usage(manifests, &error))?;
    let mirror = match &args.mirror {
        Some(path) => Some(Mirror::open(path).map_err(|error| usage(path, &error))?),
        None => None,
    };
    match &args.resume {
        Some(wanted) => {
            let path = Runs::in_folder(&places.runs).find(wanted.as_deref());
            let path = path.map_err(|error| Stop::Usage(error.to_string()))?;
            let (journal, found) = Journal::reopen(&path, mirror).map_err(|error| usage(&path, &error))?;
            may_resume(args, &path, &found, host, &fingerprint)?;
            let lost = lost(args)?;
            Ok(resume(suite, journal, found, lost.as_ref()))
        }
        None => start(args, places, suite, host, fingerprint, mirror),
    }
}

fn start(
    args: &TestArgs,
    places: &Places,
    suite: &dyn Suite,
    host: &HostFacts,
    fingerprint: Fingerprint,
    mirror: Option<Mirror>,
) -> Result<Begun, Stop> {
    let cases = suite.cases();
    let takes = |index: &usize| {
        let case = &cases[*index];
        select::takes(args, &case.id) && (!args.ignored || missing(&case.requires, host).is_some())
    };
    let todo: Vec<usize> = (0..cases.len()).filter(takes).collect();
    if todo.is_empty() {
        let count = cases.len();
        return Err(Stop::Nothing(format!("no case matches; there are {count}, and --list names them")));
    }
    let seed = args.seed.unwrap_or(DEFAULT_SEED);
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
            fingerprint,
            selected: todo.iter().map(|&index| cases[index].id.clone()).collect(),
        };
        let path = Runs::in_folder(&places.runs).create().map_err(|error| usage(&places.runs, &error))?;
        Some(Journal::create(&path, &header, mirror).map_err(|error| usage(&path, &error))?)
    };
    Ok(Begun { journal, seed, done: BTreeMap::new(), lost: Vec::new(), todo })
}

/// Refuses to mix results that do not mean the same.
fn may_resume(
    args: &TestArgs,
    path: &Path,
    found: &Recovered,
    host: &HostFacts,
    fingerprint: &Fingerprint,
) -> Result<(), Stop> {
    let mut differences = found.header.host.differences(host);
    differences.extend(found.header.fingerprint.differences(fingerprint));
    if args.seed.is_some_and(|seed| seed != found.header.seed) {
        differences.push(format!("its seed is {}", found.header.seed));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let path = path.display();
    Err(Stop::Usage(format!("cannot resume {path}: {}\nstart a new run", differences.join(", "))))
}

fn resume(suite: &dyn Suite, journal: Journal, found: Recovered, lost: Option<&Outcome>) -> Begun {
    let cases = suite.cases();
    let open = (0..cases.len()).filter(|&index| {
        let id = &cases[index].id;
        found.header.selected.contains(id) && !found.finished.contains_key(id)
    });
    // Without a word on what became of them, cases that were running are played again.
    let (gone, todo): (Vec<usize>, Vec<usize>) =
        open.partition(|&index| lost.is_some() && found.unfinished.contains(&cases[index].id));
    let lost = lost
        .into_iter()
        .flat_map(|outcome| gone.iter().map(|&index| Lost { index, outcome: outcome.clone() }));
    Begun {
        journal: Some(journal),
        seed: found.header.seed,
        lost: lost.collect(),
        done: found.finished,
        todo,
    }
}

/// The outcome of cases that were running when the machine died, if the command line says that it did.
fn lost(args: &TestArgs) -> Result<Option<Outcome>, Stop> {
    let Some(how) = args.lost else { return Ok(None) };
    let mut lines = Vec::new();
    if let Some(path) = &args.console {
        let text = fs::read(path).map_err(|error| usage(path, &error))?;
        let text = String::from_utf8_lossy(&text);
        let cut = |line: &str| line.chars().take(CONSOLE_LINE).collect::<String>();
        lines.extend(text.lines().map(cut).take(CONSOLE_LINES));
    }
    let verdict = how.verdict();
    let mut reason = match how {
        super::args::Lost::Crash => "the machine died while this case ran".to_owned(),
        super::args::Lost::Timeout => "the machine hung while this case ran".to_owned(),
    };
    if let Some(title) = lines.first() {
        reason.push_str(": ");
        reason.push_str(title.trim());
    }
    let evidence = Evidence { kernel_log: lines, ..Evidence::default() };
    Ok(Some(Outcome { verdict, reason, evidence: Some(Box::new(evidence)) }))
}

fn usage(what: &Path, error: &std::io::Error) -> Stop {
    Stop::Usage(format!("{}: {error}", what.display()))
}

/// The commit that the manifests are at, if they are in a repository and git is there.
fn revision(manifests: &Path) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(manifests).args(["rev-parse", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
