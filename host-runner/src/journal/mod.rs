//! Results on disk as they happen: one JSON document per line, each a single write.
//!
//! Whatever kills the run, the lines before are there, at most the last one is torn, and a later run
//! can go on from them. This module knows nothing of how cases are run.

mod about;
mod fingerprint;
mod mirror;
mod read;
mod revision;
mod runs;

pub use about::About;
pub use fingerprint::Fingerprint;
pub use mirror::Mirror;
pub use read::{Ended, Finished, Record, Recovered};
pub use revision::{dirty, revision};
pub use runs::Runs;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::case::Vary;
use crate::host::HostFacts;
use crate::machine::Piece;
use crate::outcome::{Outcome, Verdict};

/// The first line: what was run, where, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the runner.
    pub version: String,
    /// `git rev-parse HEAD` of the suite, if it is in a repository.
    pub revision: Option<String>,
    /// The host.
    pub host: HostFacts,
    /// The command line.
    pub command: Vec<String>,
    /// The seed.
    pub seed: u64,
    /// Hashes of what decides the verdicts.
    pub fingerprint: Fingerprint,
    /// The cases of the run, in their order.
    pub selected: Vec<String>,
    /// Whether cases are played although the host lacks what they need.
    #[serde(default)]
    pub forced: bool,
    /// Which shard of what was asked for this is, such as `count:2/5`; `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// When the run began, as RFC 3339; empty in journals of runners that did not say.
    #[serde(default)]
    pub begun: String,
    /// The perturbations that were asked for besides those in the tests' names.
    #[serde(default)]
    pub vary: Vec<Vary>,
    /// How many of them together at most.
    #[serde(default)]
    pub vary_depth: u8,
    /// What saving and restoring a VM leaves out.
    #[serde(default)]
    pub forget: Option<Piece>,
}

#[cfg(test)]
impl Header {
    /// A run of nothing on no host: what a test does not say.
    pub(crate) fn of_nothing() -> Self {
        Self {
            version: "1".into(),
            revision: None,
            host: HostFacts::read_under(std::path::Path::new("/nonexistent")),
            command: Vec::new(),
            seed: 1,
            fingerprint: Fingerprint::default(),
            selected: Vec::new(),
            forced: false,
            partition: None,
            begun: String::new(),
            vary: Vec::new(),
            vary_depth: 1,
            forget: None,
        }
    }
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Header(Box<Header>),
    Started {
        case: String,
        at: String,
        /// How long the case's process may live, in ms; whoever waits for the machine must wait longer.
        #[serde(default)]
        limit_ms: Option<u64>,
    },
    Finished {
        case: String,
        outcome: Box<Outcome>,
        duration_us: u64,
        /// For a report made without the suite; absent for a pass and a skip.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<Box<About>>,
    },
    Ended(Ended),
}

/// A journal that is being written. Locked against a second run on the same file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    mirror: Option<Mirror>,
}

impl Journal {
    /// Begins a journal in a new file.
    pub fn create(path: &Path, header: &Header, mirror: Option<Mirror>) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        file.try_lock()?;
        let journal = Self { path: path.to_owned(), file, mirror };
        journal.line(&Line::Header(Box::new(header.clone())))?;
        Ok(journal)
    }

    /// Goes on with a journal that was read; a torn last line is ended first. The mirror gets what is new.
    pub fn reopen(path: &Path, mirror: Option<Mirror>) -> io::Result<(Self, Recovered)> {
        let file = OpenOptions::new().append(true).open(path)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => io::Error::other("another process is writing to it"),
            std::fs::TryLockError::Error(error) => error,
        })?;
        let journal = Self { path: path.to_owned(), file, mirror };
        let recovered = Recovered::read(path)?;
        if recovered.torn {
            (&journal.file).write_all(b"\n")?;
        }
        Ok((journal, recovered))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A case is about to boot, and is ended after `limit`.
    pub fn started(&self, case: &str, limit: Duration) -> io::Result<()> {
        let at = now();
        let limit_ms = Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self.line(&Line::Started { case: case.to_owned(), at, limit_ms })?;
        // The case may take the whole machine with it.
        self.mirror.as_ref().map_or(Ok(()), Mirror::drain)
    }

    /// A case has its final verdict; `about` tells what the case is, and is kept unless it passed or was skipped.
    pub fn finished(
        &self,
        case: &str,
        outcome: &Outcome,
        duration: Duration,
        about: impl FnOnce() -> About,
    ) -> io::Result<()> {
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let told = !matches!(outcome.verdict, Verdict::Pass | Verdict::Skip);
        let about = told.then(|| Box::new(about()));
        self.line(&Line::Finished {
            case: case.to_owned(),
            outcome: Box::new(outcome.clone()),
            duration_us,
            about,
        })
    }

    /// The run has come to its end.
    pub fn ended(&self, ended: Ended) -> io::Result<()> {
        self.line(&Line::Ended(ended))
    }

    /// Appends a whole line with one write(2), so that threads and a kill cannot mix lines.
    fn line(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&self.file).write_all(&text)?;
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.write(&text))
    }
}

/// This moment, as lines have it.
pub fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests;
