//! What certificates say, and that edits of them show.

use std::path::Path;

use serde_json::json;

use super::*;

fn test(case: &str, verdict: Option<Verdict>) -> OfTest {
    OfTest { case: case.to_owned(), variation: None, verdict, reason: String::new(), waiver: None }
}

fn certificate() -> Certificate {
    let waiver =
        OfWaiver { reason: "known & <b>bad</b>".into(), link: None, place: "waivers/kvm_amd.toml:3".into() };
    let waived = OfTest {
        variation: Some("kick".into()),
        waiver: Some(waiver),
        reason: "known (observed: \x1b[2J)".into(),
        ..test("a.two", Some(Verdict::Xfail))
    };
    let certificate = Certificate {
        format: Format::One,
        issued: "2026-01-01T00:00:00Z".into(),
        verdict: Overall::ConformsWithWaivers,
        because: Vec::new(),
        profile: OfProfile { name: "p".into(), summary: "s".into(), digest: text_digest("text") },
        suite: OfSuite {
            version: "1".into(),
            revision: None,
            dirty: Some(true),
            hashes: Fingerprint::default(),
        },
        host: HostFacts::read_under(Path::new("/nonexistent")),
        run: OfRun { seed: 1, words: vec!["--bed".into(), "amd".into()], status: 0, waivers: true },
        tests: vec![test("a.one", Some(Verdict::Pass)), waived],
        left_out: vec![LeftOut { test: "a.one~kick".into(), reason: "not under kick".into() }],
        digest: String::new(),
    };
    sealed(certificate).unwrap()
}

#[test]
fn a_verdict_follows_from_its_tests() {
    let one = |verdict| judge(&[test("a.one", Some(Verdict::Pass)), test("a.two", verdict)], 0);
    assert_eq!(one(Some(Verdict::Pass)), (Overall::Conforms, Vec::new()));
    assert_eq!(one(Some(Verdict::Xfail)), (Overall::ConformsWithWaivers, Vec::new()));
    for verdict in
        [Verdict::Fail, Verdict::Skip, Verdict::Error, Verdict::Timeout, Verdict::Crash, Verdict::Xpass]
    {
        let (overall, because) = one(Some(verdict));
        assert_eq!(overall, Overall::DoesNotConform, "{verdict:?}");
        assert!(because.len() == 1 && because[0].ends_with(": a.two"), "{because:?}");
    }
    assert_eq!(one(None).1, ["without a verdict: a.two"]);
    assert_eq!(judge(&[], 0).0, Overall::DoesNotConform);
    let (overall, because) = judge(&[test("a.one", Some(Verdict::Pass))], 1);
    assert!(overall == Overall::DoesNotConform && because[0].contains("the kernel reported"), "{because:?}");
}

#[test]
fn any_edit_changes_the_digest_and_white_space_does_not() {
    // SHA-256 of the empty text and of `abc`, as FIPS 180 has them.
    assert!(text_digest("").ends_with(":e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    assert!(
        text_digest("abc").ends_with(":ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    );
    let certificate = certificate();
    let document = serde_json::to_value(&certificate).unwrap();
    assert_eq!(digest::of(&document), certificate.digest);
    let again: Value = serde_json::from_str(&serde_json::to_string_pretty(&document).unwrap()).unwrap();
    assert_eq!(digest::of(&again), certificate.digest);
    let edits: [(&str, Value); 6] = [
        ("/verdict", json!("conforms")),
        ("/tests/1/verdict", json!("pass")),
        ("/host/kernel", json!("7.0")),
        ("/suite/dirty", json!(false)),
        ("/left_out", json!([])),
        ("/run/seed", json!(2)),
    ];
    for (place, value) in edits {
        let mut edited = document.clone();
        *edited.pointer_mut(place).unwrap() = value;
        assert_ne!(digest::of(&edited), certificate.digest, "{place}");
    }
    let mut more = document.clone();
    more["host"]["more"] = json!(1);
    assert_ne!(digest::of(&more), certificate.digest);
    assert_eq!(
        digest::of(&json!({"b": [1, {"d": 2, "c": "\""}], "a": null, "digest": 7})),
        text_digest(r#"{"a":null,"b":[1,{"c":"\"","d":2}]}"#)
    );
}

#[test]
fn the_published_schema_is_of_these_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/certificate.schema.json");
    let published: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(published, schema(), "run `cargo xtask schema`");
    let validator = jsonschema::validator_for(&published).unwrap();
    let mut document = serde_json::to_value(certificate()).unwrap();
    assert!(validator.is_valid(&document));
    document["verdict"] = json!("fine");
    assert!(!validator.is_valid(&document));
}

#[test]
fn what_comes_from_a_host_cannot_steer_the_page() {
    let mut certificate = certificate();
    certificate.host.cpu = "<script>alert(1)</script>".into();
    let page = page(&certificate);
    assert!(!page.contains("<script") && !page.contains('\x1b'), "{page}");
    assert!(page.contains("known &amp; &lt;b&gt;bad&lt;/b&gt;") && page.contains("\\u{1b}[2J"), "{page}");
    for part in [
        "p: <span class=\"waived\">conforms-with-waivers",
        "a.two~kick",
        "waivers/kvm_amd.toml:3",
        "not under kick",
        "not committed",
        &certificate.digest,
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    // Nothing is fetched.
    assert!(!page.contains("http") && !page.contains("src="), "{page}");
}

#[test]
fn two_certificates_are_compared_by_host_and_test() {
    let was = certificate();
    assert!(against(&was, &was).is_empty());
    let mut is = was.clone();
    is.host.kernel = "7.0".into();
    is.tests[0].verdict = Some(Verdict::Fail);
    is.tests[1].variation = None;
    let found = against(&was, &is).join("\n");
    for part in [
        "the kernel is `7.0` now",
        "a.one: pass then, fail now",
        "a.two~kick: xfail then, not needed now",
        "a.two: xfail now, not needed then",
    ] {
        assert!(found.contains(part), "{part}\n{found}");
    }
}
