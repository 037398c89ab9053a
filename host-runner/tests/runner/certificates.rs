//! Certificates of runs, and what becomes of them when something changes.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::lab::{Lab, Ran};
use crate::shards::with_profile;

const WAIVER: &str = "[[waiver]]\ncase = \"t.fail\"\nreason = \"the emulator's\"\nlink = \"L\"\n";

fn journal(lab: &Lab) -> String {
    lab.journal().display().to_string()
}

fn certify(lab: &Lab, status: i32) -> Ran {
    lab.run(&["certify", &journal(lab), "--profile=p", &format!("--status={status}")])
}

fn certificate(lab: &Lab) -> (PathBuf, Value) {
    let path = lab.journal().with_file_name("certificate.json");
    let text = fs::read_to_string(&path).unwrap();
    (path, serde_json::from_str(&text).unwrap())
}

/// A host that conforms but for a waiver, certified.
fn certified() -> (Lab, PathBuf, Value) {
    let lab = with_profile(
        "t.pass1,t.fail,t.excepts-kick,t.pass2",
        "vary = [\"kick\"]\nfamilies = [\"t\"]\nwithout = { \"t.pass2\" = \"why not\" }",
    );
    // What a backend is called depends on the machine, and what a bed is called does not.
    fs::write(lab.path("manifests/waivers/bed-amd.toml"), WAIVER).unwrap();
    lab.run(&["--profile=p", "--bed=amd"]).ends(0);
    certify(&lab, 0).ends(0).says("conforms-with-waivers: 5 tests, 2 waived");
    let (path, document) = certificate(&lab);
    (lab, path, document)
}

pub(crate) fn a_run_of_a_profile_is_certified() {
    let (lab, path, document) = certified();
    assert_eq!(document["verdict"], "conforms-with-waivers");
    let waiver = json!({"reason": "the emulator's", "link": "L", "place": "waivers/bed-amd.toml:2"});
    let fail = document["tests"].as_array().unwrap().iter().find(|test| test["case"] == "t.fail").unwrap();
    assert_eq!(fail["waiver"], waiver);
    let left: Vec<_> =
        document["left_out"].as_array().unwrap().iter().map(|left| left["test"].clone()).collect();
    assert_eq!(left, ["t.pass2", "t.excepts-kick~kick"]);
    assert!(fs::read_to_string(path.with_extension("html")).unwrap().contains("conforms-with-waivers"));
    lab.run(&["verify", path.to_str().unwrap()]).ends(0).says("\nverified");
}

pub(crate) fn skips_stale_waivers_and_deviations_are_no_certificate() {
    let refused = |cases: &str, waivers: &str, status: i32, why: &str| {
        let lab = with_profile(cases, "families = [\"t\"]");
        fs::write(lab.path("manifests/waivers/bed-amd.toml"), waivers).unwrap();
        lab.run(&["--profile=p", "--bed=amd"]).ends(status);
        certify(&lab, status).ends(1).says("does-not-conform").says(why);
        // It is true all the same.
        let (path, _) = certificate(&lab);
        lab.run(&["verify", path.to_str().unwrap()]).ends(0).says("does-not-conform");
    };
    refused("t.pass1,t.needs-cap", "", 0, "skipped, and a certification skips nothing: t.needs-cap");
    refused("t.pass1,t.fail", "", 1, "failed: t.fail");
    let stale = WAIVER.replace("t.fail", "t.pass1");
    refused("t.pass1,t.pass2", &stale, 1, "held although waived, so a waiver is stale: t.pass1");
    let lab = with_profile("t.pass1", "families = [\"t\"]");
    lab.run(&["--profile=p"]).ends(0);
    certify(&lab, 1).ends(1).says("the kernel reported something between tests");
}

pub(crate) fn only_a_whole_run_of_this_suite_is_certified() {
    let lab = with_profile("t.pass1,t.pass2", "families = [\"t\"]");
    lab.run(&["--profile=p", "pass1"]).ends(0);
    certify(&lab, 0).ends(2).says("not of the whole profile p");
    lab.run(&["--profile=p", "--partition=count:1/2"]).ends(0);
    certify(&lab, 0).ends(2).says("the shard count:1/2 alone");
    lab.run(&["--include-ignored"]).ends(0);
    certify(&lab, 0).ends(2).says("cannot play");
    lab.run(&["--profile=p"]).ends(0);
    lab.run(&["certify", &journal(&lab), "--profile=none"]).ends(2).says("no profile `none`");
    fs::write(lab.path("manifests/new.toml"), "x").unwrap();
    certify(&lab, 0).ends(2).says("the manifests have changed since this run");
    lab.run(&["certify", "yesterday", "--profile=p"]).ends(2).says("no such run");
}

pub(crate) fn an_edit_of_a_certificate_shows() {
    let (lab, path, document) = certified();
    let verify = |document: &Value| {
        fs::write(&path, document.to_string()).unwrap();
        lab.run(&["verify", path.to_str().unwrap()])
    };
    // Another form of the same document is no edit.
    verify(&document).ends(0);
    let mut edited = document.clone();
    edited["verdict"] = json!("conforms");
    verify(&edited).ends(1).says("it has been edited").says("from its tests follows conforms-with-waivers");
    let mut edited = document.clone();
    edited["tests"].as_array_mut().unwrap().pop();
    verify(&edited).ends(1).says("it has been edited").says("not those that the profile needs");
    let mut edited = document.clone();
    edited["host"]["kernel"] = json!("7.0");
    verify(&edited).ends(1).says("it has been edited");
    let mut edited = document.clone();
    edited["more"] = json!(1);
    verify(&edited).ends(2).says("it is no certificate").says("unknown field `more`");
    verify(&json!({})).ends(2).says("it is no certificate");
    lab.run(&["verify", "/nonexistent"]).ends(2).says("/nonexistent");
}

pub(crate) fn a_certificate_is_of_one_suite() {
    let (lab, path, _) = certified();
    let verify = || lab.run(&["verify", path.to_str().unwrap()]);
    let changes = [
        ("manifests/t.toml", "x", "the manifests have changed"),
        ("payloads/none", "x", "the guest payloads have changed"),
        ("manifests/waivers/bed-amd.toml", "# other\n", "the waivers have changed"),
    ];
    for (name, text, what) in changes {
        let file = lab.path(name);
        let before = fs::read(&file).ok();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        verify().ends(1).says(what).says("not verified");
        match before {
            Some(before) => fs::write(&file, before).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        verify().ends(0);
    }
    let profile = lab.path("manifests/profiles/p.toml");
    let text = fs::read_to_string(&profile).unwrap();
    fs::write(&profile, text.replace("vary = [\"kick\"]\n", "")).unwrap();
    verify().ends(1).says("the profile p has changed").says("not those that the profile needs");
}

pub(crate) fn two_runs_must_say_the_same() {
    let (lab, path, mut document) = certified();
    let other = lab.path("again.json");
    let against =
        |lab: &Lab| lab.run(&["verify", path.to_str().unwrap(), &format!("--against={}", other.display())]);
    lab.run(&["--profile=p", "--bed=amd"]).ends(0);
    let out = format!("--out={}", other.display());
    lab.run(&["certify", &journal(&lab), "--profile=p", &out, "--", "--bed", "amd"]).ends(0);
    let again: Value = serde_json::from_str(&fs::read_to_string(&other).unwrap()).unwrap();
    assert_eq!(again["run"]["words"], json!(["--bed", "amd"]));
    against(&lab).ends(0).says("\nverified");
    document["tests"][0]["verdict"] = json!("fail");
    fs::write(&other, document.to_string()).unwrap();
    against(&lab).ends(1).says("t.pass1: pass then, fail now").says("again.json: it has been edited");
}
