//! Reads a journal back, however its run ended.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::{Header, Line};
use crate::outcome::Outcome;

/// What a journal tells.
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

impl Recovered {
    /// Reads the journal. Lines that are cut off are passed over: such a case has no verdict.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read(path)?;
        let mut lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .filter_map(|line| serde_json::from_slice(line).ok());
        let Some(Line::Header(header)) = lines.next() else {
            return Err(io::Error::other("it does not begin with a header; it is no journal or a torn one"));
        };
        let (mut finished, mut started) = (BTreeMap::new(), Vec::new());
        for line in lines {
            match line {
                Line::Header(_) => {}
                Line::Started { case, .. } => started.push(case),
                Line::Finished { case, outcome, .. } => {
                    finished.entry(case).or_insert(*outcome);
                }
            }
        }
        started.retain(|case| !finished.contains_key(case));
        started.dedup();
        Ok(Self { header: *header, finished, unfinished: started, torn: !text.ends_with(b"\n") })
    }
}
