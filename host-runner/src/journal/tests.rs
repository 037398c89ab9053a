//! Journals that were torn, locked, or followed by a change.

use std::fs;

use super::*;
use crate::outcome::Verdict;

fn header() -> Header {
    Header {
        command: vec!["exitspec".into()],
        seed: 7,
        selected: vec!["a.one".into(), "a.two".into()],
        forced: true,
        begun: "2026-11-21T06:41:31.660Z".into(),
        vary: vec![Vary::Kick],
        ..Header::of_nothing()
    }
}

fn about() -> About {
    About {
        summary: "It holds".into(),
        basis: crate::case::Basis::Arch,
        detects: "it does not".into(),
        reference: Vec::new(),
        place: crate::case::Place { file: "m.toml".into(), line: 1, column: 1, text: String::new() },
        again: "cargo xtask test".into(),
    }
}

#[test]
fn a_torn_line_loses_only_itself_and_is_ended_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = Runs::in_folder(folder.path()).create().unwrap();
    let journal = Journal::create(&path, &header(), None).unwrap();
    for case in ["a.one", "a.two"] {
        journal.started(case, Duration::from_secs(7)).unwrap();
        journal.finished(case, &Outcome::pass(), Duration::from_micros(5), about).unwrap();
    }
    drop(journal);
    let whole = fs::read(&path).unwrap();
    assert!(String::from_utf8_lossy(&whole).contains("\"limit_ms\":7000}"));
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();

    let (journal, recovered) = Journal::reopen(&path, None).unwrap();
    assert!(recovered.torn);
    assert_eq!(recovered.header, header());
    assert_eq!(recovered.finished.keys().collect::<Vec<_>>(), ["a.one"]);
    assert_eq!(recovered.unfinished, ["a.two"]);
    let fail = Outcome::new(Verdict::Fail, "again");
    journal.finished("a.two", &fail, Duration::ZERO, about).unwrap();
    drop(journal);

    let again = Recovered::read(&path).unwrap();
    assert!(!again.torn && again.unfinished.is_empty());
    assert_eq!(again.finished["a.two"], fail);
    assert_eq!(again.finished["a.one"], Outcome::pass());
}

#[test]
fn cut_anywhere_it_can_still_be_read_or_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let journal = Journal::create(&path, &header(), None).unwrap();
    let first_line = fs::metadata(&path).unwrap().len() as usize;
    journal.finished("a.one", &Outcome::pass(), Duration::ZERO, about).unwrap();
    drop(journal);
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        match Recovered::read(&path) {
            // Without its newline the header is whole, too.
            Ok(recovered) => assert!(cut >= first_line - 1 && recovered.finished.len() <= 1, "{cut}"),
            Err(error) => assert!(cut < first_line - 1 && error.to_string().contains("header"), "{cut}"),
        }
    }
}

#[test]
fn two_processes_cannot_write_one_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let _journal = Journal::create(&path, &header(), None).unwrap();
    assert!(Journal::reopen(&path, None).unwrap_err().to_string().contains("another process"));
}

#[test]
fn the_newest_run_is_found_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::in_folder(folder.path());
    assert!(runs.find(None).unwrap_err().to_string().contains("no run"));
    let first = runs.create().unwrap();
    let second = runs.create().unwrap();
    for path in [&first, &second] {
        drop(Journal::create(path, &header(), None).unwrap());
    }
    // A run in a bed is no run to go on with here, however new it is.
    fs::create_dir(folder.path().join("2999-01-01T00-00-00.000Z-amd")).unwrap();
    fs::write(folder.path().join("2999-01-01T00-00-00.000Z-amd/results.jsonl"), "").unwrap();
    assert_eq!(runs.find(None).unwrap(), second.clone().max(first.clone()));
    let name = first.parent().unwrap().file_name().unwrap().to_str().unwrap();
    assert_eq!(runs.find(Some(name)).unwrap(), first);
    assert_eq!(
        fs::canonicalize(folder.path().join("latest")).unwrap(),
        fs::canonicalize(second.parent().unwrap()).unwrap()
    );
    assert!(runs.find(Some("yesterday")).unwrap_err().to_string().contains("yesterday"));
}

#[test]
fn journals_of_earlier_runners_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    drop(Journal::create(&path, &header(), None).unwrap());
    let text = fs::read_to_string(&path).unwrap();
    let build = format!(",\"build\":{}", serde_json::to_string(&header().host.build).unwrap());
    let older = text.replace(",\"forced\":true", "").replace(",\"runner\":\"\"", "").replace(&build, "");
    assert!(older.len() < text.len() - 30, "{older}");
    fs::write(&path, older + "{\"event\":\"started\",\"case\":\"a.one\",\"at\":\"then\"}\n").unwrap();
    let found = Recovered::read(&path).unwrap();
    assert!(!found.header.forced);
    assert_eq!(found.unfinished, ["a.one"]);
}

#[test]
fn a_fingerprint_tells_which_files_changed() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let (payload, runner) = (put("payload", "2"), put("runner", "a program\0"));
    put("a.toml", "1");
    let take =
        |waivers| Fingerprint::take(folder.path(), std::slice::from_ref(&payload), waivers, &runner).unwrap();
    let before = take("");
    assert!(before.differences(&take("")).is_empty());
    assert_eq!(before.differences(&take("w")), ["the waivers have changed"]);
    // In a whole word, in the rest, by length.
    for program in ["a Program\0", "a program\x01", "a program", "a program\0\0"] {
        put("runner", program);
        assert_eq!(before.differences(&take("")), ["the runner has changed"], "{program:?}");
    }
    put("runner", "a program\0");
    put("payload", "3");
    assert_eq!(before.differences(&take("")), ["the guest payloads have changed"]);
    put("a.toml", "4");
    assert_eq!(before.differences(&take("")).len(), 2);
}

#[test]
fn a_large_runner_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let runner = folder.path().join("runner");
    let take = |program: &[u8]| {
        fs::write(&runner, program).unwrap();
        Fingerprint::take(Path::new("/nonexistent"), &[], "", &runner).unwrap().runner
    };
    let mut program = vec![0; (1 << 17) + 8];
    let before = take(&program);
    for at in [0, (1 << 16) - 1, 1 << 16, program.len() - 1] {
        program[at] = 0x80;
        assert_ne!(take(&program), before, "{at:#x}");
        program[at] = 0;
    }
}

#[test]
fn a_journal_of_a_runner_that_said_less_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let journal = Journal::create(&path, &header(), None).unwrap();
    drop(journal);
    let whole = fs::read_to_string(&path).unwrap();
    let old = whole.replace(&format!(",\"begun\":\"{}\"", header().begun), "");
    let lines = "{\"event\":\"started\",\"case\":\"a.one\",\"at\":\"then\"}\n\
        {\"event\":\"finished\",\"case\":\"a.one\",\"outcome\":{\"verdict\":\"fail\",\"reason\":\"r\",\"evidence\":null},\"duration_us\":5}\n";
    fs::write(&path, old + lines).unwrap();
    let record = Record::read(&path).unwrap();
    assert_eq!(record.finished["a.one"].about, None);
    assert_eq!(record.finished["a.one"].outcome, Outcome::new(Verdict::Fail, "r"));
    assert_eq!((record.header.begun.as_str(), record.unread), ("", 0));
}
