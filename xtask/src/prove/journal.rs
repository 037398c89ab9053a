//! What was found, one JSON document per line, each line a single write and whole in itself.
//!
//! Whatever kills a run, the lines before are there. Journals of several machines are put together by `cat`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::bed::kind::Kind;

/// What a case said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The runner's word.
    pub(crate) verdict: String,
    /// Why, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

/// What decides whether two runs mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) bed: Kind,
    /// As [`Params`](crate::bed::params::Params) shows them.
    pub(crate) params: String,
    /// [`Tree::id`](super::source::Tree::id)
    pub(crate) kernel: String,
    /// A hash of the suite.
    pub(crate) suite: String,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// Cases under the unmodified modules.
    Baseline { setting: Setting, cases: BTreeMap<String, Seen> },
    /// The compiler refuses a bug.
    Unbuildable { bug: String, edits: String, kernel: String, log: String },
    /// Cases under modules with a bug in them.
    Trial(Trial),
}

/// Cases under modules with a bug in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) bug: String,
    /// A hash of the bug's edits.
    pub(crate) edits: String,
    /// Of Linux.
    pub(crate) release: String,
    pub(crate) setting: Setting,
    /// The cases that were asked for.
    pub(crate) asked: Vec<String>,
    /// What they said; those that say the same as without the bug are left out unless they are expected to fail.
    pub(crate) cases: BTreeMap<String, Seen>,
    /// What those said without the bug.
    pub(crate) before: BTreeMap<String, Seen>,
    /// Why the run did not come to its end.
    pub(crate) trouble: Option<String>,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// A journal that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Mutex<File>,
}

impl Journal {
    /// Opens it and reads what is there; a torn line is ended and passed over.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Self, Vec<Record>)> {
        let named = || path.display().to_string();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(named)?;
        }
        let file = File::options().create(true).append(true).open(path).with_context(named)?;
        file.try_lock()
            .map_err(io::Error::from)
            .context("another process is writing to it")
            .with_context(named)?;
        let text = fs::read(path).with_context(named)?;
        if !text.is_empty() && !text.ends_with(b"\n") {
            (&file).write_all(b"\n").with_context(named)?;
        }
        Ok((Self { file: Mutex::new(file) }, records(&text)))
    }

    /// What a journal holds that nobody writes now; nothing if it is not there.
    pub(crate) fn read(path: &Path) -> Vec<Record> {
        records(&fs::read(path).unwrap_or_default())
    }

    /// Adds a line.
    pub(crate) fn add(&self, record: &Record) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(record).context("a record has no form in JSON")?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(&line).context("cannot write the journal")
    }
}

/// Records as a journal has them.
pub(crate) fn lines(records: &[Record]) -> anyhow::Result<String> {
    let lines = records.iter().map(|record| Ok(serde_json::to_string(record)? + "\n"));
    lines.collect::<serde_json::Result<String>>().context("a record has no form in JSON")
}

fn records(text: &[u8]) -> Vec<Record> {
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// The verdicts in the journal of a run of the suite, however it ended.
pub(crate) fn verdicts(path: &Path) -> BTreeMap<String, Seen> {
    #[derive(Deserialize)]
    struct Finished {
        event: String,
        case: String,
        outcome: Seen,
    }
    let text = fs::read(path).unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<Finished>(line).ok());
    let mut all = BTreeMap::new();
    for line in lines.filter(|line| line.event == "finished") {
        // As the runner reads it: the first word on a case is the last.
        all.entry(line.case).or_insert(line.outcome);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prove/journal.jsonl");
        let record = Record::Unbuildable {
            bug: "a.b".into(),
            edits: "1".into(),
            kernel: "2".into(),
            log: "error: x\n".into(),
        };
        let (journal, before) = Journal::open(&path).unwrap();
        assert!(before.is_empty());
        journal.add(&record).unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("journal.jsonl"));
        drop(journal);
        File::options().append(true).open(&path).unwrap().write_all(b"{\"event\":\"tri").unwrap();
        let (journal, before) = Journal::open(&path).unwrap();
        assert_eq!(before, std::slice::from_ref(&record));
        journal.add(&record).unwrap();
        assert_eq!(Journal::read(&path), [record.clone(), record]);
    }

    #[test]
    fn the_first_word_on_a_case_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let line = |case: &str, verdict: &str| {
            format!(
                "{{\"event\":\"finished\",\"case\":\"{case}\",\"outcome\":{{\"verdict\":\"{verdict}\",\"reason\":\"r\",\"evidence\":null}},\"duration_us\":1}}\n"
            )
        };
        let text = format!("{{\"event\":\"header\"}}\n{}{}{{torn", line("a.b", "fail"), line("a.b", "pass"));
        fs::write(&path, text).unwrap();
        let all = verdicts(&path);
        assert_eq!(all.len(), 1);
        assert_eq!(all["a.b"], Seen { verdict: "fail".into(), reason: "r".into() });
    }
}
