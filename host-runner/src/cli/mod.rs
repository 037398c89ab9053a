//! The command line: reads arguments, calls the verb, turns the end into an exit status.

mod args;
mod begin;
mod certify;
mod compare;
mod diff;
mod ground;
mod interrupt;
mod lost;
mod partition;
mod places;
mod plan;
mod progress;
mod report;
mod run;
mod select;
mod shrink;
mod soak;
mod test;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::certificate;
use crate::host::{Cache, HostFacts, Unusable};
use crate::isolate;
use crate::manifest;
use crate::suite::Load;
use args::{CommandLine, PlaceArgs, SchemaOf, Verb};
use places::Places;

/// How a run ends, as the process's exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The host conforms.
    Conforming = 0,
    /// It deviates, or a case is broken.
    Deviations = 1,
    /// Wrong usage or manifest.
    Usage = 2,
    /// This host cannot run anything.
    Unusable = 3,
    /// Nothing ran.
    Nothing = 4,
    /// It was ended by SIGINT, as shells tell it.
    Interrupted = 130,
    /// By SIGTERM.
    Terminated = 143,
}

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Usage(String),
    #[error("this host cannot run anything: {0}")]
    Unusable(#[from] Unusable),
    #[error("this host is none for the profile {profile}: it {reason}")]
    Unfit { profile: String, reason: String },
    #[error("{0}")]
    Nothing(String),
}

/// The program. `load` reads the suite that it runs.
pub fn main(load: Load) -> ExitCode {
    let CommandLine { verb, test } = CommandLine::parse();
    let end = match verb {
        None => test::run(&test, load),
        Some(Verb::Test(test)) => test::run(&test, load),
        Some(Verb::Soak(args)) => soak::run(&args, load),
        Some(Verb::Host(places)) => host(&places, load),
        Some(Verb::Compare(args)) => compare::run(&args),
        Some(Verb::Diff(args)) => diff::run(&args),
        Some(Verb::Certify(args)) => certify::certify(&args, load),
        Some(Verb::Verify(args)) => certify::verify(&args, load),
        Some(Verb::Schema { of }) => {
            let schema = match of {
                SchemaOf::Manifest => manifest::schema(),
                SchemaOf::Certificate => certificate::schema(),
            };
            println!("{schema:#}");
            Ok(End::Conforming)
        }
        Some(Verb::Report(args)) => report::run(&args),
        Some(Verb::Worker(places)) => worker(&places, load),
    };
    let end = end.unwrap_or_else(|stop| {
        eprintln!("exitspec: {stop}");
        match stop {
            Stop::Usage(_) => End::Usage,
            Stop::Unusable(_) | Stop::Unfit { .. } => End::Unusable,
            Stop::Nothing(_) => End::Nothing,
        }
    });
    ExitCode::from(end as u8)
}

/// Whether the program takes these words, its own name first; an error is what it would say.
pub fn takes(words: impl IntoIterator<Item = OsString>) -> Result<(), clap::Error> {
    CommandLine::try_parse_from(words).map(drop)
}

fn host(args: &PlaceArgs, load: Load) -> Result<End, Stop> {
    let places = Places::of(args, true);
    let suite = load(&places.sources).map_err(Stop::Usage)?;
    let mut host = HostFacts::read();
    let device = suite.device(&places.device, &host)?;
    println!("{host}");
    println!("CPUs          {}", host.cpus);
    let words = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    println!("capabilities  {}", words(&device.caps));
    println!("CPU features  {}", words(&device.cpuid));
    host.device = Some(device);
    Cache::in_folder(&places.runs)
        .store(&host)
        .map_err(|error| Stop::Usage(format!("{}: {error}", places.runs.display())))?;
    Ok(End::Conforming)
}

fn worker(args: &PlaceArgs, load: Load) -> Result<End, Stop> {
    let suite = load(&Places::of(args, false).sources).map_err(Stop::Usage)?;
    // The supervisor hanging up in the middle of a case is how a worker usually dies.
    Ok(if isolate::serve(&*suite).is_ok() { End::Conforming } else { End::Deviations })
}
