//! Reads a journal back, however its run ended.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{About, Header, Line};
use crate::outcome::Outcome;

/// What a journal tells to a run that goes on with it.
#[derive(Debug)]
pub struct Recovered {
    /// Its first line.
    pub header: Header,
    /// The final verdicts.
    pub finished: BTreeMap<String, Outcome>,
    /// The cases that were started and have no verdict: they were running when the run died.
    pub unfinished: Vec<String>,
    /// Whether the last line is cut off.
    pub torn: bool,
}

/// Everything that a journal tells.
#[derive(Debug)]
pub struct Record {
    /// Its first line.
    pub header: Header,
    /// The final verdicts.
    pub finished: BTreeMap<String, Finished>,
    /// When each case was started, as RFC 3339; the last time, if it was more than once.
    pub started: BTreeMap<String, String>,
    /// The cases that were started and have no verdict: they were running when the run died.
    pub unfinished: Vec<String>,
    /// The ends of the run: none if it was killed, several if it was resumed.
    pub ended: Vec<Ended>,
    /// Whether the last line is cut off.
    pub torn: bool,
    /// How many whole lines could not be read.
    pub unread: usize,
}

/// A final verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The verdict and why.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// What the case is; absent for a pass and a skip, and in journals of runners that did not say.
    pub about: Option<Box<About>>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ended {
    /// When, as RFC 3339.
    pub at: String,
    /// What the kernel reported between cases: the run deviates although no case does.
    pub stray: Vec<Vec<String>>,
    /// What else is to be said of the run.
    pub remarks: Vec<String>,
}

impl Record {
    /// Reads the journal. A line that is cut off is passed over: such a case has no verdict.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read(path)?;
        let mut lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<Line>(line).ok());
        let Some(Some(Line::Header(header))) = lines.next() else {
            return Err(io::Error::other("it does not begin with a header; it is no journal or a torn one"));
        };
        let torn = !text.ends_with(b"\n");
        let mut record = Self {
            header: *header,
            finished: BTreeMap::new(),
            started: BTreeMap::new(),
            unfinished: Vec::new(),
            ended: Vec::new(),
            torn,
            unread: 0,
        };
        let mut last_is_read = true;
        for line in lines {
            last_is_read = line.is_some();
            match line {
                Some(line) => record.take(line),
                None => record.unread += 1,
            }
        }
        if torn && !last_is_read {
            record.unread -= 1;
        }
        record.unfinished.retain(|case| !record.finished.contains_key(case));
        Ok(record)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Header(_) => {}
            Line::Started { case, at, .. } => {
                if self.started.insert(case.clone(), at).is_none() {
                    self.unfinished.push(case);
                }
            }
            Line::Finished { case, outcome, duration_us, about } => {
                let duration = Duration::from_micros(duration_us);
                let finished = Finished { outcome: *outcome, duration, about };
                // The first verdict is the final one, but a good one hides no other.
                let kept = self.finished.entry(case).or_insert_with(|| finished.clone());
                if kept.outcome.verdict.is_good() && !finished.outcome.verdict.is_good() {
                    *kept = finished;
                }
            }
            Line::Ended(ended) => self.ended.push(ended),
        }
    }
}

impl Recovered {
    /// Reads the journal; see [`Record::read`].
    pub fn read(path: &Path) -> io::Result<Self> {
        let Record { header, finished, unfinished, torn, .. } = Record::read(path)?;
        let finished = finished.into_iter().map(|(case, finished)| (case, finished.outcome)).collect();
        Ok(Self { header, finished, unfinished, torn })
    }
}
