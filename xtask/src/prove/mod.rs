//! `cargo xtask prove`: seeds bugs into KVM, one at a time, and shows which case catches each.
//!
//! The way of a run: bugs, edits of a built Linux, modules, beds, what the cases say with and without the bug, verdicts.

mod bench;
mod bugs;
mod cases;
mod html;
mod journal;
mod page;
mod part;
mod peer;
mod progress;
mod queue;
mod report;
mod source;
mod unproved;
mod verdict;
mod work;
mod workshop;

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, bail};

use crate::bed::kind::Kind;
use crate::{bed, build};
use bench::Beds;
use bugs::{Bug, Proof};
use journal::{Journal, Record, Setting};
use page::Page;
use peer::{Peer, PeerBeds, Peers};
use progress::Progress;
use source::Tree;
use work::{Baselines, Bench, Job, Work};
use workshop::{TreeShop, Workshop};

/// The file beside the bugs that says why some cases catch none.
const UNPROVED: &str = "unproved.toml";

/// What the suite found, and what others' tests did.
const JOURNALS: [&str; 2] = ["journal.jsonl", "selftests.jsonl"];

/// `cargo xtask prove`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Bugs whose id, or one of whose cases' ids, contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Only in this bed (repeatable) [default: in every bed that a bug names]
    #[arg(long, value_enum, value_name = "BED")]
    bed: Vec<Kind>,
    /// The series of Debian's Linux that gets the bugs
    #[arg(long, value_name = "SERIES", default_value = bed::kernel::small::DEFAULT, value_parser = bed::kernel::series)]
    release: String,
    /// Which cases run under each bug, beside those that should catch it
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Width::Expected)]
    cases: Width,
    /// Run somebody else's tests under each bug instead of the suite: those that pass without the bug
    #[arg(long, value_enum, value_name = "PEER", conflicts_with_all = ["cases", "write_docs", "report", "list"])]
    peer: Option<Peer>,
    /// Leave out what has run already, with the same bug, suite and kernel
    #[arg(long)]
    resume: bool,
    /// List the bugs; builds and boots nothing
    #[arg(long, conflicts_with_all = ["resume", "report", "write_docs"])]
    list: bool,
    /// Run nothing: tell what was found so far
    #[arg(long)]
    report: bool,
    /// Run nothing: write docs/detection.md from what was found so far
    #[arg(long, conflicts_with_all = ["filters", "bed", "resume", "report", "cases"])]
    write_docs: bool,
    /// Keep the folder of every run, not only of those that went wrong
    #[arg(long)]
    keep: bool,
    /// How many machines run at once, beside the build
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// How many bugs share a machine at most, one after the other
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=16))]
    batch: u8,
    /// The form of what is found, on standard output
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
}

/// Which cases run under a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Width {
    /// None but those
    Expected,
    /// The rest of their families
    Families,
    /// The whole suite: slow
    All,
}

impl Width {
    /// Whether a case runs that is not expected to fail, beside these that are.
    fn takes(self, case: &str, expected: &[String]) -> bool {
        match self {
            Self::Expected => false,
            Self::Families => expected.iter().any(|other| cases::family(other) == cases::family(case)),
            Self::All => true,
        }
    }
}

/// A form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Pretty,
    /// The matrix of bugs and cases
    Json,
    /// The same as a page for people
    Html,
}

/// Does what the arguments say; 0 if every bug is caught, 1 if not, 4 if there is none.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let manifests = build::workspace().join("test-manifests");
    let ids = cases::ids(&manifests)?;
    let all = bugs::load(&manifests.join("seeded-bugs"), &ids)?;
    let place = bed::runs().join("prove");
    let (path, of_peers) = (place.join(JOURNALS[0]), place.join(JOURNALS[1]));
    if args.write_docs {
        write_docs(&all, &ids, &place)?;
        return Ok(ExitCode::SUCCESS);
    }
    let meant = |bug: &&Bug| args.filters.is_empty() || args.filters.iter().any(|word| bug.is_meant_by(word));
    let here = |bug: &&Bug| args.bed.is_empty() || bug.beds.iter().any(|bed| args.bed.contains(bed));
    let chosen: Vec<Bug> = all.iter().filter(meant).filter(here).cloned().collect();
    if chosen.is_empty() {
        eprintln!("error: there is no such bug; `cargo xtask prove --list` shows all");
        return Ok(ExitCode::from(4));
    }
    if args.list {
        list(&chosen);
        return Ok(ExitCode::SUCCESS);
    }
    let ids: Vec<String> = ids.into_iter().collect();
    if args.peer.is_some() {
        prove(args, &chosen, &ids, &place, &of_peers)?;
        let (asked, caught) = Peers::of(&chosen, &known(&place, JOURNALS[1])).count();
        println!("{asked} bugs: {caught} caught by KVM's selftests");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.report {
        prove(args, &chosen, &ids, &place, &path)?;
    }
    let records = known(&place, JOURNALS[0]);
    let found = report::found(&chosen, &records);
    match args.format {
        Format::Pretty => print!("{}", report::text(&found)),
        Format::Json => println!("{}", report::json(&found).context("the matrix has no form in JSON")?),
        Format::Html => {
            let releases: Vec<String> = report::releases(&chosen, &records).into_iter().collect();
            let peers = Peers::of(&chosen, &known(&place, JOURNALS[1]));
            println!("{}", html::page(&found, &releases.join(", "), &peers));
        }
    }
    let good = found.iter().all(|(_, judged)| judged.verdict.is_good());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Writes docs/detection.md, and the records that it is made of, so that it can be written where others were found.
fn write_docs(bugs: &[Bug], ids: &BTreeSet<String>, place: &Path) -> anyhow::Result<()> {
    let unproved = unproved::load(&build::workspace().join("test-manifests/seeded-bugs"), ids)?;
    let write = |path: &Path, text: &str| -> anyhow::Result<()> {
        fs::write(path, text).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
        Ok(())
    };
    let quiet = peer::unexpecting(bugs);
    let [records, of_peers] = JOURNALS.map(|name| known(place, name));
    for (name, settled) in
        JOURNALS.iter().zip([report::settled(bugs, &records), report::settled(&quiet, &of_peers)])
    {
        write(&committed(name), &journal::lines(&settled)?)?;
    }
    let peers = Peers::of(bugs, &of_peers);
    let found = report::found(bugs, &records);
    let releases = report::releases(bugs, &records);
    write(&docs(), &Page { found: &found, releases, cases: ids, unproved: &unproved, peers: &peers }.text())
}

/// What is known: what is committed, and then what was found here.
fn known(place: &Path, journal: &str) -> Vec<Record> {
    let mut records = Journal::read(&committed(journal));
    records.extend(Journal::read(&place.join(journal)));
    records
}

/// Where the records of the page are.
fn committed(journal: &str) -> PathBuf {
    build::workspace().join("test-manifests/seeded-bugs/found").join(journal)
}

/// The page that tells what is caught.
fn docs() -> PathBuf {
    build::workspace().join("docs/detection.md")
}

fn list(bugs: &[Bug]) {
    for bug in bugs {
        let beds: Vec<&str> = bug.beds.iter().map(|bed| bed.name()).collect();
        println!("{}  [{}]\n    {}", bug.id, beds.join(", "), bug.breaks);
        match &bug.proof {
            Proof::Anywhere(cases) => println!("    caught by {}", cases.join(", ")),
            Proof::Each(each) => {
                for (bed, cases) in each {
                    println!("    caught in {bed} by {}", cases.join(", "));
                }
            }
            Proof::Unobservable(argument) => println!("    unobservable: {argument}"),
        }
    }
}

/// Builds and runs what is not known yet.
fn prove(args: &Args, bugs: &[Bug], ids: &[String], place: &Path, path: &Path) -> anyhow::Result<()> {
    let (journal, mut records) = Journal::open(path)?;
    let folder = bed::folder();
    let tree = Tree::open(&args.release, &folder)?;
    let mistakes: Vec<String> =
        bugs.iter().filter(|bug| bug.is_for(&args.release)).filter_map(|bug| tree.mistakes(bug)).collect();
    if !mistakes.is_empty() {
        bail!("bugs that do not fit Linux {}:\n    {}", tree.release(), mistakes.join("\n    "));
    }
    let runs = place.join("runs");
    fs::create_dir_all(&runs).with_context(|| runs.display().to_string())?;
    let shop = TreeShop { tree: &tree, folder: &folder.join("seeded") };
    let programs = bed::trial::build_programs()?;
    let done = match args.peer {
        None => {
            let suite = fingerprint(&programs)?;
            let manifests = build::workspace().join("test-manifests");
            let cases = |bug: &Bug, bed: Kind| {
                let expected = bug.expected(bed);
                let others = ids.iter().filter(|id| args.cases.takes(id, expected) && !expected.contains(id));
                expected.iter().chain(others).cloned().collect()
            };
            let mut jobs = wanted(args, bugs, &tree, &suite, &cases);
            jobs.retain(|job| !args.resume || !is_known(&bugs[job.bug], job, &records));
            let bench = || -> Box<dyn Bench> {
                Box::new(Beds::of(tree.image(), manifests.clone(), runs.clone(), args.keep))
            };
            let benches = (0..args.jobs).map(|_| bench()).collect();
            go(bugs, &jobs, &records, &journal, &shop, args.batch, benches)
        }
        Some(Peer::Selftests) => {
            let (folder, names) = peer::programs(&tree)?;
            let suite = fingerprint(&[folder.clone(), bed::trial::build_peer()?])?;
            let bench = || PeerBeds {
                image: tree.image(),
                programs: folder.clone(),
                runs: runs.clone(),
                keep: args.keep,
            };
            let jobs = wanted(args, bugs, &tree, &suite, &|_, _| names.clone());
            let unmodified = shop.kept(&[]).map_or_else(|| shop.build(&[]), Ok)?;
            let mut jobs = peer::jobs(jobs, &names, &unmodified, &mut bench(), &journal, &mut records)?;
            jobs.retain(|job| !args.resume || !is_known(&bugs[job.bug], job, &records));
            let benches = (0..args.jobs).map(|_| -> Box<dyn Bench> { Box::new(bench()) }).collect();
            go(&peer::unexpecting(bugs), &jobs, &records, &journal, &shop, args.batch, benches)
        }
    };
    tree.restore()?;
    done
}

/// What these bugs want to have run, with the cases that `cases` says.
fn wanted(
    args: &Args,
    bugs: &[Bug],
    tree: &Tree,
    suite: &str,
    cases: &dyn Fn(&Bug, Kind) -> Vec<String>,
) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (number, bug) in bugs.iter().enumerate().filter(|(_, bug)| bug.is_for(&args.release)) {
        for bed in bug.beds.iter().filter(|bed| args.bed.is_empty() || args.bed.contains(bed)) {
            let (cases, params) = (cases(bug, *bed), bug.params.get(bed).cloned().unwrap_or_default());
            let setting = Setting {
                bed: *bed,
                params: params.to_string(),
                kernel: tree.id().to_owned(),
                suite: suite.to_owned(),
            };
            if !cases.is_empty() {
                jobs.push(Job { bug: number, setting, params, cases });
            }
        }
    }
    jobs
}

/// Does these jobs.
fn go(
    bugs: &[Bug],
    jobs: &[Job],
    records: &[Record],
    journal: &Journal,
    shop: &TreeShop<'_>,
    batch: u8,
    benches: Vec<Box<dyn Bench>>,
) -> anyhow::Result<()> {
    let builds = jobs.iter().map(|job| job.bug).collect::<BTreeSet<_>>().len();
    let machines = u8::try_from(benches.len()).unwrap_or(u8::MAX);
    let progress = Mutex::new(Progress::of(builds, jobs.len(), machines));
    let baselines = Baselines::of(jobs, records);
    let (release, batch) = (&shop.tree.release(), batch.into());
    Work { bugs, jobs, baselines, journal, release, progress, batch }.run(shop, benches)
}

/// Whether a journal has the answer already.
fn is_known(bug: &Bug, job: &Job, records: &[Record]) -> bool {
    let edits = workshop::name_of(&bug.edits);
    records.iter().any(|record| match record {
        Record::Trial(trial) => {
            trial.bug == bug.id
                && trial.edits == edits
                && trial.setting == job.setting
                && job.cases.iter().all(|case| trial.asked.contains(case))
        }
        Record::Unbuildable { bug: id, edits: those, kernel, .. } => {
            *id == bug.id && *those == edits && *kernel == job.setting.kernel
        }
        Record::Baseline { .. } => false,
    })
}

/// A hash of files and of the files directly in folders.
fn fingerprint(places: &[PathBuf]) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for place in places {
        if place.is_dir() {
            let entries = fs::read_dir(place).with_context(|| place.display().to_string())?;
            files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
        } else {
            files.push(place.clone());
        }
    }
    // What cargo leaves beside the payloads has a dot in its name, and a path that differs from place to place.
    files.retain(|path| path.extension().is_none_or(|ending| ending == "toml"));
    files.sort();
    let mut hash = DefaultHasher::new();
    for path in files {
        path.file_name().hash(&mut hash);
        fs::read(&path).with_context(|| path.display().to_string())?.hash(&mut hash);
    }
    Ok(format!("{:016x}", hash.finish()))
}

#[cfg(test)]
mod tests;
