use super::*;

/// The bugs as they are committed.
fn bugs_and_ids() -> (BTreeSet<String>, Vec<Bug>) {
    let manifests = build::workspace().join("test-manifests");
    let ids = cases::ids(&manifests).unwrap();
    let bugs = bugs::load(&manifests.join("seeded-bugs"), &ids).unwrap();
    unproved::load(&manifests.join("seeded-bugs"), &ids).unwrap();
    (ids, bugs)
}

#[test]
fn the_committed_page_names_every_bug_and_no_other() {
    let (_, bugs) = bugs_and_ids();
    let page = fs::read_to_string(docs()).unwrap();
    let again = "run `cargo xtask prove --write-docs`";
    for bug in &bugs {
        assert!(
            page.contains(&format!("\n| `{}` | ", bug.id)),
            "docs/detection.md lacks {}: {again}",
            bug.id
        );
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, bugs.len(), "docs/detection.md has another number of bugs: {again}");
}

#[test]
fn every_case_has_a_bug_that_it_must_catch_or_a_reason_why_there_is_none() {
    let (ids, bugs) = bugs_and_ids();
    let reasons = unproved::load(&build::workspace().join("test-manifests/seeded-bugs"), &ids).unwrap();
    let must_catch: BTreeSet<&str> = Kind::ALL
        .iter()
        .flat_map(|bed| bugs.iter().flat_map(|bug| bug.expected(*bed)))
        .map(|test| test.split('~').next().unwrap_or(test))
        .collect();
    let without = ids
        .iter()
        .filter(|id| !must_catch.contains(id.as_str()) && !reasons.iter().any(|reason| reason.names(id)));
    let without: Vec<&String> = without.collect();
    assert!(
        without.is_empty(),
        "no bug in test-manifests/seeded-bugs names {without:?}: seed one (docs/detection.md), or say in unproved.toml \
         why none can show it"
    );
}

#[test]
fn what_decides_a_run_changes_its_hash_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    for (name, text) in [("kick", "payload"), ("port-io.toml", "cases"), ("kick.d", "/somewhere")] {
        fs::write(place(name), text).unwrap();
    }
    let hash = || fingerprint(&[folder.path().to_owned()]).unwrap();
    let before = hash();
    fs::write(place("kick.d"), "/elsewhere").unwrap();
    assert_eq!(hash(), before);
    fs::write(place("port-io.toml"), "other cases").unwrap();
    let other = hash();
    assert_ne!(other, before);
    fs::write(place("kick"), "other payload").unwrap();
    assert_ne!(hash(), other);
}

#[test]
fn a_bug_runs_with_what_catches_it_with_families_or_with_everything() {
    let expected = ["smm.rsm~kick".to_owned(), "events.nmi".to_owned()];
    let taken = |width: Width| {
        ["smm.halt", "events.nmis", "smm-rsm.flags", "kick.again"].map(|case| width.takes(case, &expected))
    };
    assert_eq!(taken(Width::Expected), [false; 4]);
    assert_eq!(taken(Width::Families), [true, true, false, false]);
    assert_eq!(taken(Width::All), [true; 4]);
}
