//! Beds that really boot: a kernel that dies, a machine that goes silent, a bed that does not come up.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

const WHY: &str = "a bed that boots";

struct Lab {
    folder: TempDir,
    plan: Plan,
}

impl Lab {
    fn new(kind: Kind) -> Self {
        suite::build(&["--package=bed-fake", "--package=bed-init"]).expect(WHY);
        let folder = tempfile::tempdir().expect(WHY);
        for name in ["manifests", "payloads"] {
            fs::create_dir(folder.path().join(name)).expect(WHY);
        }
        let suite = Suite {
            init: suite::program("bed-init"),
            runner: suite::program("bed-fake"),
            manifests: folder.path().join("manifests"),
            payloads: folder.path().join("payloads"),
            waivers: Vec::new(),
        };
        let (args, _) = BedArgs::split(&[]);
        let mut plan =
            plan(kind, &args, RunnerArgs::default(), suite).unwrap_or_else(|trouble| panic!("{trouble:?}"));
        plan.shown = false;
        Self { folder, plan }
    }

    fn run(&self) -> (RunFolder, anyhow::Result<u8>) {
        let folder = RunFolder::create(&self.folder.path().join("runs"), self.plan.kind.name()).expect(WHY);
        let status = run::run(&self.plan, &Params::default(), &folder);
        (folder, status)
    }
}

/// The outcomes in a run's journal.
fn outcomes(folder: &RunFolder) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(folder.journal_path()).expect(WHY);
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let finished = lines.filter(|line| line["event"] == "finished");
    finished
        .map(|line| (line["case"].as_str().unwrap_or_default().to_owned(), line["outcome"].clone()))
        .collect()
}

#[test]
#[ignore = "boots QEMU; `cargo xtask ci` runs it"]
fn amd_a_dead_kernel_and_a_silent_machine_cost_one_case_each() {
    a_dead_kernel_and_a_silent_machine_cost_one_case_each(Kind::Amd, Duration::from_secs(15));
}

#[test]
#[ignore = "boots Bochs; `cargo xtask ci` runs it"]
fn intel_a_dead_kernel_and_a_silent_machine_cost_one_case_each() {
    a_dead_kernel_and_a_silent_machine_cost_one_case_each(Kind::Intel, Duration::from_secs(45));
}

fn a_dead_kernel_and_a_silent_machine_cost_one_case_each(kind: Kind, silence: Duration) {
    let mut lab = Lab::new(kind);
    lab.plan.silence = silence;
    // The limit of a case, which the session waits for: 15 s.
    lab.plan.runner.timeout_scale = Some(0.1);
    let (folder, status) = lab.run();
    assert_eq!(status.expect(WHY), 1);
    let outcomes = outcomes(&folder);
    let verdicts: Vec<(&str, &str)> = outcomes
        .iter()
        .map(|(case, outcome)| (case.as_str(), outcome["verdict"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        verdicts,
        [
            ("t.fails-after", "fail"),
            ("t.is-broken", "error"),
            ("t.kills-the-runner", "crash"),
            ("t.needs-what-is-not-there", "skip"),
            ("t.panics-the-kernel", "crash"),
            ("t.passes-before", "pass"),
            ("t.passes-between", "pass"),
            ("t.stops-the-runner", "timeout"),
        ]
    );
    let evidence = outcomes["t.panics-the-kernel"]["evidence"].to_string();
    assert!(evidence.contains("sysrq: Trigger a crash"), "{evidence}");
    assert!(evidence.contains("Kernel panic - not syncing: sysrq triggered crash"), "{evidence}");
    let reason = outcomes["t.kills-the-runner"]["reason"].to_string();
    assert!(reason.contains("/exitspec was killed by signal 9"), "{reason}");
    let text = fs::read_to_string(folder.path().join("text-4.log")).expect(WHY);
    assert!(text.contains("2 passed, 5 failed"), "{text}");
    for name in ["console.log", "console-2.log", "console-3.log", "console-4.log"] {
        assert!(folder.path().join(name).is_file(), "{name}");
    }
    assert!(!folder.path().join("console-5.log").exists());
}

#[test]
#[ignore = "boots QEMU; `cargo xtask ci` runs it"]
fn amd_a_machine_goes_from_run_to_run_and_one_that_dies_takes_the_rest_into_its_next_boot() {
    let mut lab = Lab::new(Kind::Amd);
    lab.plan.runner.timeout_scale = Some(0.1);
    let params = |text: &str| {
        text.parse::<Params>().and_then(|params| params.of_bed(Kind::Amd).map_err(|_| WHY.into()))
    };
    let runs: [(&str, &[&str]); 4] = [
        ("default", &["t.passes-before"]),
        ("npt=0", &["t.panics-the-kernel", "t.passes-between"]),
        ("vgif=0", &["t.fails-after"]),
        // The kernel refuses the value, in whichever boot.
        ("npt=7", &["t.passes-before"]),
    ];
    let selections = runs.map(|(_, cases)| {
        std::iter::once(&"--exact").chain(cases).map(|word| (*word).to_owned()).collect::<Vec<_>>()
    });
    let turns: Vec<run::Turn<'_>> = runs
        .iter()
        .zip(&selections)
        .map(|((text, _), selection)| run::Turn {
            modules: &lab.plan.modules,
            params: params(text).expect(WHY),
            manifests: &lab.plan.suite.manifests,
            selection,
        })
        .collect();
    let shared = shared::Shared::default();
    let mut folders = Vec::new();
    for number in 0..turns.len() {
        let folder = RunFolder::create(&lab.folder.path().join("runs"), "amd").expect(WHY);
        let status = run::run_first(&lab.plan, &turns[number..], &folder, &shared);
        folders.push((folder, status));
    }
    let said = |number: usize| -> Vec<(String, Value)> {
        let all = outcomes(&folders[number].0).into_iter();
        all.map(|(case, outcome)| (case, outcome["verdict"].clone())).collect()
    };
    let verdict = |case: &str, verdict: &str| (case.to_owned(), Value::from(verdict));
    assert_eq!(said(0), [verdict("t.passes-before", "pass")]);
    assert_eq!(said(1), [verdict("t.panics-the-kernel", "crash"), verdict("t.passes-between", "pass")]);
    assert_eq!(said(2), [verdict("t.fails-after", "fail")]);
    let statuses: Vec<Option<u8>> =
        folders[..3].iter().map(|(_, status)| status.as_ref().ok().copied()).collect();
    assert_eq!(statuses, [Some(0), Some(1), Some(1)]);
    let error = format!("{:#}", folders[3].1.as_ref().expect_err(WHY));
    assert!(error.contains("cannot load module kvm_amd.ko with parameters `npt=7`"), "{error}");
    // Two machines for the first three, and one more for the last.
    let console = |number: usize, name: &str| {
        fs::metadata(folders[number].0.path().join(name)).ok().map(|meta| meta.ino())
    };
    assert_eq!(console(0, "console.log"), console(1, "console.log"));
    assert_eq!(console(1, "console-2.log"), console(2, "console.log"));
    assert_ne!(console(0, "console.log"), console(2, "console.log"));
    assert!(console(2, "console-2.log").is_none() && console(3, "console-2.log").is_none());
}

#[test]
#[ignore = "boots QEMU; `cargo xtask ci` runs it"]
fn amd_a_step_of_a_bisection_tells_git() {
    let mut lab = Lab::new(Kind::Amd);
    // The limit of a case, which the session waits for: 15 s.
    lab.plan.runner.timeout_scale = Some(0.1);
    lab.plan.silence = Duration::from_secs(15);
    let mut step = |case: &str, words: &[&str]| {
        lab.plan.runner.rest = vec!["--no-waivers".to_owned()];
        lab.plan.runner.selection = vec!["--exact".to_owned(), case.to_owned()];
        lab.plan.kernel_args = words.iter().map(|word| (*word).to_owned()).collect();
        let folder = RunFolder::create(&lab.folder.path().join("runs"), "bisect-amd").expect(WHY);
        bisect::play(&lab.plan, case, &folder).expect(WHY).status()
    };
    assert_eq!(step("t.passes-before", &[]), 0);
    assert_eq!(step("t.fails-after", &[]), 1);
    // It costs the machine, and the next one says so.
    assert_eq!(step("t.panics-the-kernel", &[]), 1);
    assert_eq!(step("t.stops-the-runner", &[]), 1);
    assert_eq!(step("t.needs-what-is-not-there", &[]), 125);
    assert_eq!(step("t.is-broken", &[]), 125);
    assert_eq!(step("t.is-not-in-the-suite", &[]), 125);
    assert_eq!(step("t.passes-before", &["rdinit=/none", "init=/none"]), 125);
}

#[test]
#[ignore = "boots QEMU; `cargo xtask ci` runs it"]
fn amd_a_bed_that_does_not_come_up_says_why() {
    a_bed_that_does_not_come_up_says_why(Kind::Amd, "npt=7");
}

#[test]
#[ignore = "boots Bochs; `cargo xtask ci` runs it"]
fn intel_a_bed_that_does_not_come_up_says_why() {
    a_bed_that_does_not_come_up_says_why(Kind::Intel, "ept=7");
}

fn a_bed_that_does_not_come_up_says_why(kind: Kind, wrong: &str) {
    let mut lab = Lab::new(kind);
    // The kernel refuses the value and with it the module.
    lab.plan.params =
        wrong.parse::<Params>().and_then(|params| params.of_bed(kind).map_err(|_| WHY.into())).expect(WHY);
    let error = format!("{:#}", lab.run().1.expect_err(WHY));
    assert!(error.contains(&format!("cannot load module {}.ko", kind.module())), "{error}");
    assert!(error.contains("invalid for parameter"), "{error}");

    lab.plan.params = Params::default();
    lab.plan.kernel_args = vec!["rdinit=/none".to_owned(), "init=/none".to_owned()];
    let error = format!("{:#}", lab.run().1.expect_err(WHY));
    assert!(error.contains("before the suite could begin") && error.contains("Kernel panic"), "{error}");
}
