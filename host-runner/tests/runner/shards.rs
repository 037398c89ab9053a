//! Parts of a run, and runs of what a profile needs.

use std::collections::BTreeSet;
use std::fs;

use exitspec::journal::Recovered;
use exitspec::outcome::Verdict;

use crate::lab::Lab;

pub(crate) fn every_test_is_in_one_shard_and_the_journal_says_which() {
    let lab = Lab::new("t.pass1,t.pass2,t.pass3,t.excepts-kick,u.pass1,u.pass2");
    lab.run(&["--vary=kick"]).ends(0);
    let all: Vec<String> = lab.outcomes().into_keys().collect();
    assert_eq!(all.len(), 12);
    for by in ["count", "hash"] {
        let mut seen = Vec::new();
        for shard in 1..=3 {
            let text = format!("{by}:{shard}/3");
            lab.run(&["--vary=kick", "--partition", &text]).ends(0);
            let found = Recovered::read(&lab.journal()).unwrap();
            assert_eq!(found.header.partition.as_deref(), Some(text.as_str()));
            assert_eq!(BTreeSet::from_iter(&found.header.selected), found.finished.keys().collect());
            seen.extend(found.finished.into_keys());
        }
        seen.sort();
        assert_eq!(seen, all, "{by}");
    }
}

pub(crate) fn a_shard_is_listed_and_resumed_as_it_is() {
    let lab = Lab::new("t.pass1,t.pass2,t.pass3");
    let list = lab.run(&["--list", "--partition=count:2/2"]);
    list.ends(0);
    assert!(list.out.contains("t.pass2") && !list.out.contains("t.pass1"), "{}", list.out);
    lab.run(&["--partition=count:2/2"]).ends(0).says("1 passed");
    lab.run(&["--resume"]).ends(0).says("1 passed");
    lab.run(&["--resume", "--partition=count:1/2"]).ends(2).says("cannot be used with");
    lab.run(&["--partition=count:2/5", "pass1"])
        .ends(4)
        .says("nothing that is selected is in the shard count:2/5");
    lab.run(&["--partition=slice:1/2"]).ends(2).says("expected count:M/N or hash:M/N");
    lab.run(&["--partition=hash:3/2"]).ends(2).says("counted from 1 to 2");
}

/// A lab with a profile `p`.
pub(crate) fn with_profile(cases: &str, rest: &str) -> Lab {
    let lab = Lab::new(cases);
    fs::create_dir_all(lab.path("manifests/profiles")).unwrap();
    let text = format!("[profile]\nname = \"p\"\nsummary = \"What is needed\"\n{rest}\n");
    fs::write(lab.path("manifests/profiles/p.toml"), text).unwrap();
    lab
}

pub(crate) fn a_profile_selects_its_cases_and_variations() {
    let lab = with_profile(
        "t.pass1,t.pass2,t.excepts-kick,u.pass1,u.pass2",
        "vary = [\"kick\"]\nfamilies = [\"t\"]\nids = [\"u.pass2\"]\nwithout = { \"t.pass2\" = \"not needed\" }",
    );
    lab.run(&["--profile=p"]).ends(0);
    let names: Vec<String> = lab.outcomes().into_keys().collect();
    // What a case rules out itself is no part of it, instead of skipped.
    assert_eq!(names, ["t.excepts-kick", "t.pass1", "t.pass1~kick", "u.pass2", "u.pass2~kick"]);
    assert!(lab.outcomes().values().all(|outcome| outcome.verdict == Verdict::Pass));
    lab.run(&["--profile=p", "u."]).ends(0).says("2 passed");
    lab.run(&["--profile=p", "--vary=all"]).ends(2).says("cannot be used with");
}

pub(crate) fn a_profile_names_only_what_is_there() {
    let lab = with_profile("t.pass1,t.pass2", "");
    let wrong = |rest: &str, place: &str, what: &str| {
        let text = format!("[profile]\nname = \"p\"\nsummary = \"s\"\n{rest}\n");
        fs::write(lab.path("manifests/profiles/p.toml"), text).unwrap();
        lab.run(&["--profile=p"]).ends(2).says(&format!("p.toml:{place}")).says(what);
    };
    wrong("ids = [\"t.pass1\", \"t.pas2\"]", "4:19", "there is no case `t.pas2`");
    wrong("ids = [\"t.pas2\"]", "4:8", "did you mean `t.pass");
    wrong("families = [\"x\"]", "4:13", "there is no family `x`");
    wrong("filters = [\"nothing-\"]", "4:12", "no case's id contains `nothing-`");
    wrong("filters = [\"\"]", "4:12", "no case's id contains");
    wrong("families = [\"t\"]\nwithout = { \"t.x\" = \"y\" }", "5:13", "`t.x` is no case of this profile");
    wrong("families = [\"t\"]\nwithout = { \"t.pass1\" = \"\" }", "5:13", "gives no reason");
    wrong("families = [\"t\"]\nvary = [\"kicks\"]", "5:9", "kicks");
    wrong(
        "families = [\"t\"]\nrequires = { caps = [\"no-such\"] }",
        "5:22",
        "there is no capability `no-such`",
    );
    wrong("familys = [\"t\"]", "4:1", "unknown key `familys`");
    wrong("", "1:1", "has no case");
    wrong("ids = [", "", "this is not TOML");
    lab.run(&["--profile=q"]).ends(2).says("there is no profile `q`").says("the profiles are: p");
    lab.run(&["--profile=../p"]).ends(2).says("lower-case letters");
}

pub(crate) fn a_host_that_a_profile_is_not_for_is_told_so() {
    let lab = with_profile("t.pass1", "families = [\"t\"]\nrequires = { caps = [\"x86-smm\"] }");
    lab.run(&["--profile=p"]).ends(3).says("none for the profile p").says("needs KVM_CAP_X86_SMM");
    assert!(lab.runs().is_empty());
}
