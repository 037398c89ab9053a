//! Journals that were torn, locked, or followed by a change.

use std::fs;

use super::*;
use crate::outcome::Verdict;

fn header() -> Header {
    Header {
        version: "1".into(),
        revision: None,
        host: HostFacts::read_under(Path::new("/nonexistent")),
        command: vec!["exitspec".into()],
        seed: 7,
        fingerprint: Fingerprint::default(),
        selected: vec!["a.one".into(), "a.two".into()],
    }
}

#[test]
fn a_torn_line_loses_only_itself_and_is_ended_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = Runs::in_folder(folder.path()).create().unwrap();
    let journal = Journal::create(&path, &header(), None).unwrap();
    for case in ["a.one", "a.two"] {
        journal.started(case).unwrap();
        journal.finished(case, &Outcome::pass(), Duration::from_micros(5)).unwrap();
    }
    drop(journal);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();

    let (journal, recovered) = Journal::reopen(&path, None).unwrap();
    assert!(recovered.torn);
    assert_eq!(recovered.header, header());
    assert_eq!(recovered.finished.keys().collect::<Vec<_>>(), ["a.one"]);
    assert_eq!(recovered.unfinished, ["a.two"]);
    let fail = Outcome::new(Verdict::Fail, "again");
    journal.finished("a.two", &fail, Duration::ZERO).unwrap();
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
    journal.finished("a.one", &Outcome::pass(), Duration::ZERO).unwrap();
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
fn a_fingerprint_tells_which_files_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, payload) = (folder.path().join("a.toml"), folder.path().join("payload"));
    fs::write(&manifest, "1").unwrap();
    fs::write(&payload, "2").unwrap();
    let take = |waivers| Fingerprint::take(folder.path(), std::slice::from_ref(&payload), waivers).unwrap();
    let before = take("");
    assert!(before.differences(&take("")).is_empty());
    assert_eq!(before.differences(&take("w")), ["the waivers have changed"]);
    fs::write(&payload, "3").unwrap();
    assert_eq!(before.differences(&take("")), ["the guest payloads have changed"]);
    fs::write(&manifest, "4").unwrap();
    assert_eq!(before.differences(&take("")).len(), 2);
}
