//! cargo-nextest on the harness: what it finds in the suite, and whether its verdicts are ours on cases of every kind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use quick_junit::{Report, TestCaseStatus};
use serde_json::Value;

use super::output;
use crate::bed::apt;
use crate::build;

/// A suite without KVM, of which the name says what each case does: `host-runner/tests/runner/fake.rs`.
const CASES: &str =
    "t.pass1,t.fail,t.needs-cap,t.known.fail,u.pass2,u.error,u.abort,u.timeout,u.panic,u.hostile,u.pass";
const WAIVERS: &str = "[[waiver]]\ncase = \"t.known.fail\"\nreason = \"known\"\n[[waiver]]\ncase = \"u.pass2\"\nreason = \"gone\"\n";
/// Where that suite finds its cases, and where they leave something behind.
const VARIABLES: [&str; 2] = ["EXITSPEC_FAKE_CASES", "EXITSPEC_FAKE_SCRATCH"];

/// What becomes of a test under nextest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Passed,
    Failed,
    Ignored,
}

impl Seen {
    /// What one of our verdicts must be there.
    fn of(verdict: &str) -> Self {
        match verdict {
            "pass" | "xfail" => Self::Passed,
            "skip" => Self::Ignored,
            _ => Self::Failed,
        }
    }
}

/// Lists the suite, and runs the cases. With `required`, a nextest that is not there is an error.
pub(super) fn check(required: bool) -> anyhow::Result<()> {
    if apt::find_program("cargo-nextest").is_none() {
        let why = "cargo-nextest is not installed (https://nexte.st)";
        if required {
            bail!(why);
        }
        println!("left out, since it cannot be had here: the harness under cargo-nextest: {why}");
        return Ok(());
    }
    let list = listed(&mut nextest(&["list", "--test", "suite"]))?;
    let count = list["test-count"].as_u64().unwrap_or_default();
    if count < 100 {
        bail!("cargo-nextest finds {count} tests in the suite");
    }
    println!("cargo-nextest: finds {count} tests");
    let (ours, theirs) = verdicts().context("cases under cargo-nextest")?;
    compare(&ours, &theirs)?;
    println!("cargo-nextest: the verdicts of {} tests are ours", ours.len());
    Ok(())
}

fn nextest(words: &[&str]) -> Command {
    let mut cargo = build::cargo();
    cargo.current_dir(build::workspace()).arg("nextest").args(words);
    cargo.args(["--cargo-quiet", "--package", "host-runner"]);
    cargo
}

fn listed(list: &mut Command) -> anyhow::Result<Value> {
    let list = output(list.args(["--message-format", "json"]))?;
    serde_json::from_slice(&list).context("cargo-nextest's list")
}

/// Our verdicts on the cases, and nextest's.
fn verdicts() -> anyhow::Result<(BTreeMap<String, String>, BTreeMap<String, Seen>)> {
    let place = tempfile::tempdir().context("cannot make a folder to run in")?;
    let wrapper = write(place.path()).context("cannot write in the folder to run in")?;
    let with = |command: &mut Command| {
        let runner = format!("CARGO_TARGET_{}_RUNNER", build::TARGET.to_uppercase().replace('-', "_"));
        command.env(VARIABLES[0], CASES).env(VARIABLES[1], place.path()).env(runner, &wrapper);
    };
    let words = ["list", "--test", "runner"];
    let mut list = nextest(&words);
    with(&mut list);
    let list = listed(&mut list)?;
    let suite = &list["rust-suites"]["host-runner::runner"];
    let program = suite["binary-path"].as_str().context("cargo-nextest's list has no program")?;

    // The host is asked once, so that a list knows what is skipped.
    let runs = format!("--run-dir={}", place.path().join("runs").display());
    let subject = |program: &str| {
        let mut command = Command::new(program);
        with(&mut command);
        command
    };
    output(subject(program).args(["host", &runs]))?;
    let mut alone = subject(&wrapper);
    let ended = alone.arg(program).output().context("cannot start the cases")?;
    if ended.status.code() != Some(1) {
        bail!("the cases end with {}, and some of them deviate", ended.status);
    }
    let report = output(subject(program).args(["report", "--format=json", &runs]))?;
    let report: Value = serde_json::from_slice(&report).context("our report")?;
    let tests = report["runs"][0]["tests"].as_array().context("our report has no tests")?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = tests.iter().map(|test| (word(&test["name"]), word(&test["verdict"]))).collect();

    let mut list = nextest(&words);
    with(&mut list);
    let mut theirs = ignored(&listed(&mut list)?["rust-suites"]["host-runner::runner"]);
    let mut run = nextest(&["run", "--test", "runner", "--no-fail-fast"]);
    with(run.arg("--config-file").arg(place.path().join("nextest.toml")));
    // It fails, as some of the cases do; what it says of each is in the report.
    let ended = run.output().context("cannot start cargo-nextest")?;
    let junit = fs::read_to_string(place.path().join("store/default/junit.xml"));
    let junit = junit.with_context(|| String::from_utf8_lossy(&ended.stderr).into_owned())?;
    theirs.extend(ran(&junit)?);
    Ok((ours, theirs))
}

/// Writes what a run needs into a folder; the program by which nextest starts the harness.
fn write(place: &Path) -> std::io::Result<String> {
    fs::create_dir(place.join("manifests"))?;
    fs::write(place.join("waivers.toml"), WAIVERS)?;
    let store = place.join("store").display().to_string();
    let settings = format!("[store]\ndir = {store:?}\n[profile.default.junit]\npath = \"junit.xml\"\n");
    fs::write(place.join("nextest.toml"), settings)?;
    let wrapper = place.join("wrapper");
    let here = place.display();
    let script = format!(
        "#!/bin/sh\nprogram=$1\nshift\nexec \"$program\" --manifests='{here}/manifests' --payloads='{here}/none' \
         --run-dir='{here}/runs' --waivers='{here}/waivers.toml' --kernel-log=/dev/null \"$@\"\n"
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(wrapper.display().to_string())
}

/// The test's own name; a list has the kind before it.
fn own(name: &str) -> String {
    name.strip_prefix("[xfail] ").unwrap_or(name).to_owned()
}

/// What a list says will not be run.
fn ignored(suite: &Value) -> BTreeMap<String, Seen> {
    let tests = suite["testcases"].as_object().into_iter().flatten();
    tests.filter(|(_, test)| test["ignored"] == true).map(|(name, _)| (own(name), Seen::Ignored)).collect()
}

/// What nextest's report says of the tests that it ran.
fn ran(junit: &str) -> anyhow::Result<BTreeMap<String, Seen>> {
    let report = Report::deserialize_from_str(junit).context("cargo-nextest's JUnit XML")?;
    let tests = report.test_suites.iter().flat_map(|suite| &suite.test_cases);
    let seen = |status: &TestCaseStatus| match status {
        TestCaseStatus::Success { .. } => Seen::Passed,
        TestCaseStatus::NonSuccess { .. } => Seen::Failed,
        TestCaseStatus::Skipped { .. } => Seen::Ignored,
    };
    Ok(tests.map(|test| (own(test.name.as_str()), seen(&test.status))).collect())
}

/// An error that names every test of which the two do not say the same.
fn compare(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, Seen>) -> anyhow::Result<()> {
    let missing = |name: &&String| !ours.contains_key(*name);
    let mut differences: Vec<String> =
        theirs.keys().filter(missing).map(|name| format!("{name} is none of ours")).collect();
    for (name, verdict) in ours {
        let seen = theirs.get(name);
        if seen != Some(&Seen::of(verdict)) {
            let seen = seen.map_or("missing".to_owned(), |seen| format!("{seen:?}").to_lowercase());
            differences.push(format!("{name} is {verdict}, and {seen} there"));
        }
    }
    if differences.is_empty() && !ours.is_empty() {
        return Ok(());
    }
    bail!("cargo-nextest's verdicts are not ours: {}", differences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_that_differs_is_named() {
        let ours = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(name, verdict)| ((*name).to_owned(), (*verdict).to_owned())).collect()
        };
        let junit = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><testsuites name=\"n\" tests=\"2\" failures=\"1\" errors=\"0\">\
            <testsuite name=\"s\" tests=\"2\" disabled=\"0\" errors=\"0\" failures=\"1\">\
            <testcase name=\"[xfail] a.known\"/><testcase name=\"a.bad\"><failure type=\"x\"/></testcase></testsuite></testsuites>";
        let mut theirs = ran(junit).unwrap();
        theirs.extend(ignored(&serde_json::json!({ "testcases": {
            "a.skipped": { "ignored": true }, "a.known": { "ignored": false }
        } })));
        let right = [("a.known", "xfail"), ("a.bad", "crash"), ("a.skipped", "skip")];
        compare(&ours(&right), &theirs).unwrap();
        let wrong = |list: &[(&str, &str)]| compare(&ours(list), &theirs).unwrap_err().to_string();
        assert!(
            wrong(&[right[0], right[1], ("a.skipped", "pass")]).contains("a.skipped is pass, and ignored")
        );
        assert!(wrong(&[right[0], ("a.bad", "pass"), right[2]]).contains("a.bad is pass, and failed there"));
        assert!(wrong(&[("a.known", "xpass"), right[1], right[2]]).contains("a.known is xpass, and passed"));
        assert!(wrong(&right[..2]).contains("a.skipped is none of ours"));
        assert!(
            wrong(&[right[0], right[1], right[2], ("a.more", "pass")])
                .contains("a.more is pass, and missing")
        );
        assert!(compare(&BTreeMap::new(), &BTreeMap::new()).is_err());
    }
}
