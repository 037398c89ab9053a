//! Reports of runs: that every verdict is in every format, and that no text of a guest breaks one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checks::die_at_the_gate;
use crate::lab::Lab;

/// The folder in which the reports of every verdict are left for their consumers' own tools, if it is set.
const KEEP: &str = "EXITSPEC_KEEP_REPORTS";

const CASES: &str =
    "t.pass1,t.fail,t.needs-cap,t.fail-known.fail,u.pass2,u.error,u.abort,u.timeout,u.pass,u.hostile";

/// A case of each verdict, with the word that `json` has for it.
const VERDICTS: [(&str, &str); 10] = [
    ("t.pass1", "pass"),
    ("t.fail", "fail"),
    ("t.needs-cap", "skip"),
    ("t.fail-known.fail", "xfail"),
    ("u.pass2", "xpass"),
    ("u.error", "error"),
    ("u.abort", "crash"),
    ("u.timeout", "timeout"),
    ("u.pass", "pass"),
    ("u.hostile", "fail"),
];

/// A run with every verdict; its reports are in the folder.
fn every_verdict() -> (Lab, PathBuf) {
    let lab = Lab::new(CASES);
    let known = "[[waiver]]\ncase = \"t.fail-known.fail\"\nreason = \"known # SKIP\"\n\
        [[waiver]]\ncase = \"u.pass2\"\nreason = \"gone\"\n";
    lab.run(&[&lab.waivers(known)]).ends(1);
    let folder = std::env::var_os(KEEP).map_or_else(|| lab.path("reports"), PathBuf::from);
    report(&lab, &["--output", folder.to_str().unwrap()]);
    (lab, folder)
}

fn report(lab: &Lab, arguments: &[&str]) -> String {
    let ran = lab.run(&[&["report"], arguments].concat());
    ran.ends(0);
    ran.out
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The value at `key` of the element of `list` whose `by` is `name`.
#[track_caller]
fn of<'a>(list: &'a Value, by: &str, name: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|one| one.pointer(by) == Some(&name.into()));
    found.unwrap_or_else(|| panic!("no {name} in {list:#}"))
}

pub(crate) fn no_verdict_is_lost_in_any_format() {
    let (_lab, folder) = every_verdict();
    let document = json(&read(&folder, "report.json"));
    let tests = &document["runs"][0]["tests"];
    let (ktap, kcidb) = (read(&folder, "ktap.txt"), json(&read(&folder, "kcidb.json")));
    let (sarif, github) = (json(&read(&folder, "report.sarif")), read(&folder, "github.txt"));
    let junit = read(&folder, "junit.xml");
    let junit = quick_junit::Report::deserialize_from_str(&junit).unwrap();
    for (name, verdict) in VERDICTS {
        assert_eq!(of(tests, "/name", name)["verdict"], verdict, "{name}");

        let is = |line: &&str| {
            line.trim_start_matches("not ")
                .trim_start_matches(char::is_alphanumeric)
                .contains(&format!(" {name}"))
        };
        let line = ktap
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with("ok ") || line.starts_with("not ok "));
        let line = line.filter(is).find(|line| line.split(' ').any(|word| word == name)).unwrap();
        let (word, directive) = match verdict {
            "pass" => ("ok", ""),
            "skip" => ("ok", "# SKIP needs KVM_CAP_NO_SUCH"),
            "xfail" => ("ok", "# XFAIL known \\# SKIP"),
            "error" => ("not ok", "# ERROR the case is broken"),
            "timeout" => ("not ok", "# TIMEOUT no exit within 5 ms"),
            "crash" => ("not ok", "# crash: "),
            "xpass" => ("not ok", "# xpass: it holds"),
            _ => ("not ok", "# fail: "),
        };
        assert!(line.starts_with(&format!("{word} ")) && line.contains(directive), "{line}");
        assert!(!directive.is_empty() || !line.contains('#'), "{line}");

        let status = match verdict {
            "pass" | "xpass" => "PASS",
            "skip" => "SKIP",
            "error" => "ERROR",
            _ => "FAIL",
        };
        assert_eq!(of(&kcidb["tests"], "/misc/test", name)["status"], status, "{name}");

        let results = &sarif["runs"][0]["results"];
        let quiet = matches!(verdict, "pass" | "skip");
        assert_eq!(
            quiet,
            !results.to_string().contains(&format!("\"exitspecTest/v1\":\"{name}\"")),
            "{name}"
        );
        if !quiet {
            let result = of(results, "/properties/test", name);
            assert_eq!(verdict == "xfail", result["suppressions"].is_array(), "{result}");
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(place["artifactLocation"]["uri"], "test-manifests/m.toml");
            assert_eq!(place["region"]["startLine"], 1);
        }

        let bad = !matches!(verdict, "pass" | "skip" | "xfail");
        let title = format!("::error file=test-manifests/m.toml,line=1,col=1,title={name}%3A {verdict}::");
        assert_eq!(bad, github.contains(&title), "{name}: {github}");

        let cases = junit.test_suites.iter().flat_map(|suite| &suite.test_cases);
        let case = cases.into_iter().find(|case| case.name.as_str() == name).unwrap();
        let said = format!("{:?}", case.status);
        let words = match verdict {
            "pass" => vec!["Success"],
            "skip" | "xfail" => vec!["Skipped", verdict],
            "fail" | "xpass" => vec!["kind: Failure", verdict],
            _ => vec!["kind: Error", verdict],
        };
        assert!(words.iter().all(|word| said.contains(word)), "{name}: {said}");
    }
    let skipped: usize = junit.test_suites.iter().map(|suite| suite.skipped).sum();
    assert_eq!((junit.tests, junit.failures, junit.errors, skipped), (10, 3, 3, 2));
    let issue = &kcidb["issues"][0];
    assert_eq!(
        (&issue["comment"], &kcidb["incidents"][0]["issue_id"]),
        (&"known # SKIP".into(), &issue["id"])
    );
}

pub(crate) fn no_text_breaks_a_format() {
    let (lab, folder) = every_verdict();
    for file in ["junit.xml", "ktap.txt", "kcidb.json", "report.sarif", "github.txt", "report.json"] {
        let text = read(&folder, file);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{file}");
        // XML has no way to write it. JSON has, and nothing is lost there.
        assert!(file == "report.json" || !text.contains('\u{fffe}'), "{file}");
    }
    // Lines of KTAP that are no comment are ours: three levels, each with its version, plan, and results.
    let ktap = read(&folder, "ktap.txt");
    let lines: Vec<&str> = ktap.lines().map(str::trim_start).collect();
    let count = |head: &str| lines.iter().filter(|line| line.starts_with(head)).count();
    assert_eq!((count("KTAP version 1"), count("1.."), count("# Subtest: ")), (4, 4, 3), "{ktap}");
    assert_eq!(count("ok ") + count("not ok "), VERDICTS.len() + 2 + 1);
    assert!(lines.iter().filter(|line| line.contains(" # SKIP")).count() == 1, "{ktap}");
    assert!(!ktap.contains("reboot: System halted") && !ktap.contains("Kernel panic - not syncing: VFS:"));
    // One command to a line, and each line one.
    let github = read(&folder, "github.txt");
    assert!(github.lines().all(|line| line.starts_with("::error ") && line.matches("::error ").count() == 1));
    assert!(github.contains("%250A"), "a percent sign is data");
    // The document is as its schema says.
    let schema = json(&report(&lab, &["--schema"]));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let document = json(&read(&folder, "report.json"));
    let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let tests = &document["runs"][0]["tests"];
    let hostile = of(tests, "/name", "u.hostile");
    assert_eq!(hostile["evidence"]["guest"][0], crate::fake::HOSTILE, "nothing is lost in json");
    assert_eq!(hostile["evidence"]["registers"]["rflags"], "0xffffffffffffffff");
}

pub(crate) fn a_killed_run_is_reported_with_what_it_lacks() {
    let lab = Lab::new("t.pass1,t.gate,t.pass2");
    die_at_the_gate(&lab, &[]);
    let mut text = fs::read(lab.journal()).unwrap();
    text.extend(b"{\"event\":\"finished\",\"case\":\"t.ga");
    fs::write(lab.journal(), &text).unwrap();

    let document = json(&report(&lab, &["--format=json"]));
    let run = &document["runs"][0];
    assert_eq!((&run["interrupted"], &run["torn"]), (&true.into(), &true.into()));
    assert_eq!(of(&run["tests"], "/name", "t.gate")["verdict"], Value::Null);
    let ktap = report(&lab, &["--format=ktap"]);
    assert!(
        ktap.contains("ok 1 t.pass1\n") && ktap.contains("not ok 2 t.gate # ERROR it was started"),
        "{ktap}"
    );
    assert!(
        ktap.contains("not ok 3 t.pass2 # ERROR it was selected and not started")
            && ktap.contains("\nnot ok 1 exitspec\n")
    );
    let junit = report(&lab, &["--format=junit"]);
    assert!(
        junit.contains("errors=\"2\"") && junit.contains("type=\"unfinished\"") && junit.contains("cut off")
    );
    let kcidb = json(&report(&lab, &["--format=kcidb"]));
    for name in ["t.gate", "t.pass2"] {
        assert_eq!(of(&kcidb["tests"], "/misc/test", name)["status"], "MISS");
    }
    let sarif = json(&report(&lab, &["--format=sarif"]));
    assert_eq!(sarif["runs"][0]["invocations"][0]["executionSuccessful"], false);
    assert!(report(&lab, &["--format=github"]).contains("::error title=ExitSpec%3A interrupted::"));
}

pub(crate) fn reports_are_written_at_the_end_of_a_run() {
    let lab = Lab::new("t.pass1,t.fail");
    let folder = lab.path("a/b");
    lab.run(&["--report-dir", folder.to_str().unwrap()]).ends(1).says("reports are in ");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    assert!(!json(&read(&folder, "report.json"))["runs"][0]["interrupted"].as_bool().unwrap());
    // What was reported before is reported the same now, from the journal.
    for (format, file) in [("ktap", "ktap.txt"), ("junit", "junit.xml"), ("kcidb", "kcidb.json")] {
        assert_eq!(report(&lab, &["--format", format]), read(&folder, file), "{format}");
    }
    fs::write(lab.path("file"), "").unwrap();
    let file = lab.path("file");
    lab.run(&["--report-dir", file.to_str().unwrap()]).ends(2).says("1 passed, 1 failed");
}

pub(crate) fn where_reports_go() {
    let lab = Lab::new("t.pass1,t.fail");
    lab.run(&["pass1"]).ends(0);
    let first = lab.journal().parent().unwrap().to_str().unwrap().to_owned();
    lab.run(&[]).ends(1);
    let second = lab.journal().to_str().unwrap().to_owned();
    lab.run(&["report"]).ends(2).says("--format");
    lab.run(&["report", "--format=junit", "--format=ktap"]).ends(2).says("--output");
    lab.run(&["report", "--format=junit", "--from", "nowhere"]).ends(2).says("no such run");
    lab.run(&["report", "--format=kcidb", "--origin=A b"]).ends(2).says("lower-case");
    let file = lab.path("one.xml");
    assert_eq!(report(&lab, &["--format=junit", "--output", file.to_str().unwrap()]), "");
    let junit = fs::read_to_string(&file).unwrap();
    assert_eq!(junit, report(&lab, &["--format=junit", "--from", "latest", "--output=-"]));
    assert!(
        junit.contains("<testsuite name=\"t\" ") && junit.contains("classname=\"exitspec.t\""),
        "{junit}"
    );
    // Of several runs each is a column, and a pass in one hides no failure in the other.
    for order in [[&first, &second], [&second, &first]] {
        let merged = json(&report(&lab, &["--format=json", "--from", order[0], order[1]]));
        let counts: usize = merged["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["counts"]["fail"].as_u64().unwrap_or(0) as usize)
            .sum();
        assert_eq!((merged["runs"].as_array().unwrap().len(), counts), (2, 1));
        let ktap = report(&lab, &["--format=ktap", "--from", order[0], order[1]]);
        assert!(
            ktap.starts_with("KTAP version 1\n1..2\n") && ktap.matches("ok 1 t.pass1").count() == 2,
            "{ktap}"
        );
        let junit = report(&lab, &["--format=junit", "--from", order[0], order[1]]);
        assert_eq!(junit.matches("/t\" tests=").count(), 2, "{junit}");
    }
}

pub(crate) fn mistakes_of_manifests_are_reported() {
    let lab = Lab::new("t.pass");
    let folder = lab.path("manifests");
    fs::write(folder.join("bad.toml"), "# a\nsummary = 3\nnonsense = \"a,b: %\"\n").unwrap();
    let given = format!("--manifests={}", folder.display());
    let github = report(&lab, &[&given, "--format=github"]);
    assert!(github.contains("::error file=test-manifests/bad.toml,line=2,col="), "{github}");
    let sarif = json(&report(&lab, &[&given, "--format=sarif", "--sources=a b/c"]));
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "manifest-mistake");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%20b/c/bad.toml");
    assert!(place["region"]["startLine"].as_u64().unwrap() >= 1);
    assert!(!json(&report(&lab, &[&given, "--format=json"]))["mistakes"].as_array().unwrap().is_empty());
}
