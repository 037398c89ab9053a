//! `cargo xtask prove`: seeds bugs into KVM, one at a time, and shows which case catches each.
//!
//! The way of a run: bugs, edits of a built Linux, modules, beds, what the cases say with and without the bug, verdicts.

mod bench;
mod bugs;
mod cases;
mod journal;
mod page;
mod progress;
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
use crate::bed::params::Params;
use crate::{bed, build};
use bench::Beds;
use bugs::{Bug, Proof};
use journal::{Journal, Record, Setting};
use page::Page;
use progress::Progress;
use source::Tree;
use work::{Baselines, Bench, Job, Work};
use workshop::TreeShop;

/// The file beside the bugs that says why some cases catch none.
const UNPROVED: &str = "unproved.toml";

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
    /// Run every case under each bug, not only those that should catch it: slow
    #[arg(long)]
    all_cases: bool,
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
    #[arg(long, conflicts_with_all = ["filters", "bed", "resume", "report", "all_cases"])]
    write_docs: bool,
    /// Keep the folder of every run, not only of those that went wrong
    #[arg(long)]
    keep: bool,
    /// How many machines run at once, beside the build
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// The form of what is found, on standard output
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
}

/// A form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Pretty,
    /// The matrix of bugs and cases
    Json,
}

/// Does what the arguments say; 0 if every bug is caught, 1 if not, 4 if there is none.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let manifests = build::workspace().join("test-manifests");
    let ids = cases::ids(&manifests)?;
    let all = bugs::load(&manifests.join("seeded-bugs"), &ids)?;
    let place = bed::runs().join("prove");
    let path = place.join("journal.jsonl");
    if args.write_docs {
        write_docs(&all, &ids, &Journal::read(&path))?;
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
    if !args.report {
        prove(args, &chosen, &ids.into_iter().collect::<Vec<_>>(), &place, &path)?;
    }
    let records = Journal::read(&path);
    let found = report::found(&chosen, &records);
    match args.format {
        Format::Pretty => print!("{}", report::text(&found)),
        Format::Json => println!("{}", report::json(&found).context("the matrix has no form in JSON")?),
    }
    let good = found.iter().all(|(_, judged)| judged.verdict.is_good());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Writes docs/detection.md.
fn write_docs(bugs: &[Bug], ids: &BTreeSet<String>, records: &[Record]) -> anyhow::Result<()> {
    let unproved = unproved::load(&build::workspace().join("test-manifests/seeded-bugs"), ids)?;
    let found = report::found(bugs, records);
    let page =
        Page { found: &found, releases: report::releases(bugs, records), cases: ids, unproved: &unproved };
    let path = docs();
    fs::write(&path, page.text()).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
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
    let (journal, records) = Journal::open(path)?;
    let folder = bed::folder();
    let tree = Tree::open(&args.release, &folder)?;
    let mistakes: Vec<String> =
        bugs.iter().filter(|bug| bug.is_for(&args.release)).filter_map(|bug| tree.mistakes(bug)).collect();
    if !mistakes.is_empty() {
        bail!("bugs that do not fit Linux {}:\n    {}", tree.release(), mistakes.join("\n    "));
    }
    let suite = fingerprint(&bed::trial::build_programs()?)?;
    let mut jobs = Vec::new();
    for (number, bug) in bugs.iter().enumerate().filter(|(_, bug)| bug.is_for(&args.release)) {
        for bed in bug.beds.iter().filter(|bed| args.bed.is_empty() || args.bed.contains(bed)) {
            let mut cases = bug.expected(*bed).to_vec();
            if args.all_cases {
                cases.extend(ids.iter().filter(|id| !bug.expected(*bed).contains(id)).cloned());
            }
            let params = bug.params.get(bed).cloned().unwrap_or_default();
            let setting = setting(*bed, &params, &tree, &suite);
            if !cases.is_empty() && !(args.resume && is_known(bug, &setting, &cases, &records)) {
                jobs.push(Job { bug: number, setting, params, cases });
            }
        }
    }
    let builds = jobs.iter().map(|job| job.bug).collect::<BTreeSet<_>>().len();
    let work = Work {
        bugs,
        jobs: &jobs,
        baselines: Baselines::of(&jobs, &records),
        journal: &journal,
        release: &tree.release(),
        progress: Mutex::new(Progress::of(builds, jobs.len(), args.jobs)),
    };
    let shop = TreeShop { tree: &tree, folder: &folder.join("seeded") };
    let bench = || -> Box<dyn Bench> { Box::new(Beds::of(tree.image(), place.join("runs"), args.keep)) };
    let done = work.run(&shop, (0..args.jobs).map(|_| bench()).collect());
    tree.restore()?;
    done
}

fn setting(bed: Kind, params: &Params, tree: &Tree, suite: &str) -> Setting {
    Setting { bed, params: params.to_string(), kernel: tree.id().to_owned(), suite: suite.to_owned() }
}

/// Whether a journal has the answer already.
fn is_known(bug: &Bug, setting: &Setting, cases: &[String], records: &[Record]) -> bool {
    let edits = workshop::name_of(&bug.edits);
    records.iter().any(|record| match record {
        Record::Trial(trial) => {
            trial.bug == bug.id
                && trial.edits == edits
                && trial.setting == *setting
                && cases.iter().all(|case| trial.asked.contains(case))
        }
        Record::Unbuildable { bug: id, edits: those, kernel, .. } => {
            *id == bug.id && *those == edits && *kernel == setting.kernel
        }
        _ => false,
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
