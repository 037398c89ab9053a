//! Perturbed tests, as the runner plans, plays, names and repeats them.

use std::fs;

use exitspec::outcome::Verdict;

use crate::lab::Lab;

pub(crate) fn tests_are_named_and_counted() {
    let lab = Lab::new("t.pass1,t.needs-cap");
    let ran = lab.run(&["--vary=kick,threads", "--test-threads=1"]);
    ran.ends(0).says("3 passed, 0 failed, 1 skipped").says("as it is").says("threads");
    assert_eq!(lab.runs(), ["t.pass1", "t.pass1~kick", "t.pass1~threads"]);
    assert_eq!(lab.verdict("t.pass1~kick"), Verdict::Pass);
    // With two together, and by name alone.
    lab.run(&["--vary=kick,coalesce", "--vary-depth=2", "~kick+"]).ends(0).says("1 passed");
    lab.run(&["--exact", "t.pass1~threads"]).ends(0).says("1 passed");
    assert_eq!(lab.runs()[3..], ["t.pass1~kick+coalesce", "t.pass1~threads"]);
    lab.run(&["--vary=kicks"]).ends(2).says("there is no variation `kicks`").says("save-restore");
}

pub(crate) fn a_failure_is_shrunk_and_can_be_repeated() {
    let lab = Lab::new("t.at-five");
    let ran = lab.run(&["--vary=kick", "--seed=7", "--test-threads=1"]);
    ran.ends(1).says("1 passed, 1 failed").says("at 1 of 8 points").says("before run 5 of a vCPU");
    ran.says("cargo xtask test --seed 7 --exact t.at-five~kick");
    // All of it once, without any, with all again, and then with ever fewer.
    assert!(lab.runs().len() > 4 && lab.runs().len() < 50, "{:?}", lab.runs());
    lab.run(&["--seed=7", "--exact", "t.at-five~kick"]).ends(1).says("0 passed, 1 failed");
}

pub(crate) fn what_is_left_out_says_why() {
    let lab = Lab::new("t.excepts-kick");
    lab.run(&["--vary=kick,threads"])
        .ends(0)
        .says("2 passed, 0 failed, 1 skipped")
        .says("not under kick: it says so");
    assert_eq!(lab.verdict("t.excepts-kick~kick"), Verdict::Skip);
    let listed = lab.run(&["--vary=kick,threads", "--list"]);
    assert!(listed.err.contains("t.excepts-kick~kick: not under kick: it says so"), "{}", listed.err);
    assert!(listed.out.contains("t.excepts-kick~threads: test"), "{}", listed.out);
    // The suite knows of payloads, and is asked, too.
    let lab = Lab::new("t.unfit");
    lab.run(&["--vary=kick,threads"])
        .ends(0)
        .says("2 passed")
        .says("not under threads: its payload is unfit");
    assert_eq!(lab.verdict("t.unfit~threads"), Verdict::Skip);
}

pub(crate) fn waivers_know_variations() {
    let lab = Lab::new("t.at-five,t.pass1");
    let waivers = lab
        .waivers("[[waiver]]\ncases = [\"t.at-five\", \"t.pass1\"]\nvary = [\"kick\"]\nreason = \"known\"\n");
    let ran = lab.run(&[&waivers, "--vary=kick"]);
    ran.ends(1).says("xfail    t.at-five~kick: known").says("xpass    t.pass1~kick");
    assert_eq!(lab.verdict("t.pass1"), Verdict::Pass);
}

pub(crate) fn a_killed_run_goes_on_with_its_variations() {
    let lab = Lab::new("t.pass1,t.pass2");
    lab.run(&["--vary=kick", "--test-threads=1"]).ends(0);
    // As if it had been killed before the last test.
    let journal = lab.journal();
    let text = fs::read_to_string(&journal).unwrap();
    let kept: Vec<&str> =
        text.lines().filter(|line| !line.contains("\"t.pass2~kick\"") || line.contains("header")).collect();
    fs::write(&journal, kept.join("\n") + "\n").unwrap();
    // It is as it was begun, or it is refused.
    lab.run(&["--resume", "--vary=threads"]).ends(2).says("its --vary is kick\n");
    lab.run(&["--resume", "--vary-depth=2"]).ends(2).says("its --vary-depth is 1\n");
    lab.run(&["--resume", "--forget=tsc"]).ends(2).says("it has no --forget\n");
    assert_eq!(lab.runs().len(), 4);
    lab.run(&["--resume", "--vary=kick", "--vary-depth=1"]).ends(0).says("4 passed");
    assert_eq!(lab.runs().last().unwrap(), "t.pass2~kick");
    assert_eq!(lab.runs().len(), 5);
}

pub(crate) fn a_resumed_run_forgets_what_it_was_begun_with() {
    let lab = Lab::new("t.pass1,t.forgetting");
    lab.run(&["--forget=tsc", "--test-threads=1"]).ends(1);
    let journal = lab.journal();
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, text.lines().next().unwrap().to_owned() + "\n").unwrap();
    lab.run(&["--resume"]).ends(1).says("forgets tsc");
    lab.run(&["--resume", "--forget=pit"]).ends(2).says("its --forget is tsc\n");
}

pub(crate) fn a_seed_decides_everything() {
    // The same tests, in the same order, at the same points, with the same outcomes.
    let played = |seed: &str| {
        let lab = Lab::new("t.pass1,t.diced1,t.diced2,t.diced3,t.at-five");
        lab.run(&["--vary=kick,threads", "--test-threads=1", seed]).ends(1);
        let outcomes = lab.outcomes();
        let points = |name: &str| outcomes[name].evidence.as_ref().map(|evidence| evidence.perturbed.clone());
        assert!(points("t.diced1~kick").unwrap().len() > 2, "{outcomes:?}");
        assert_ne!(points("t.diced1~kick"), points("t.diced2~kick"));
        (lab.runs(), outcomes)
    };
    let first = played("--seed=11");
    assert_eq!(first, played("--seed=11"));
    assert_ne!(first.1, played("--seed=12").1);
}

pub(crate) fn a_soak_refuses_what_it_would_ignore() {
    let lab = Lab::new("t.pass1");
    for option in
        ["--list", "--format=terse", "--ignored", "--include-ignored", "--quiet", "--color=never", "--resume"]
    {
        let name = option.split('=').next().unwrap();
        let ran = lab.run(&["soak", "--for=1s", option]);
        ran.ends(2).says(&format!("{name} has no meaning here"));
    }
    for option in
        [format!("--logfile={}", lab.path("l").display()), format!("--mirror={}", lab.path("m").display())]
    {
        lab.run(&["soak", "--for=1s", &option]).ends(2).says("has no meaning here");
    }
    assert!(lab.runs().is_empty());
}

pub(crate) fn a_soak_tells_a_deviation_once_and_counts_it() {
    let lab = Lab::new("t.pass1,t.at-five");
    let ran = lab.run(&["soak", "--for=2s", "--vary=kick", "--seed=3"]);
    ran.ends(1).says("soaking 4 tests").says("t.at-five~kick").says("a second; 1 deviations");
    let told = ran.out.lines().filter(|line| line.starts_with("fail     t.at-five~kick: rax")).count();
    assert_eq!(told, 1, "{}", ran.out);
    assert!(ran.out.contains("times of"), "{}", ran.out);
    Lab::finish(&mut lab.command(&["soak", "--for=1s", "pass1"])).ends(0).says("0 deviations");
}
