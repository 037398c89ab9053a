//! KCIDB's JSON, schema version 5.3: what KernelCI's database collects.
//!
//! A checkout and a build stand for the kernel that ran, since the source that it was built from is not known here. A
//! waived deviation is a failure with an incident of a known issue: that is how KCIDB keeps such things.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::results::{Results, Run, Test};
use super::text;
use crate::outcome::Verdict;

/// The report as text, with a newline at its end. `origin` names the CI system: lower-case letters, digits, `_`.
pub fn text(results: &Results, origin: &str) -> Result<String, String> {
    let mut checkouts: BTreeMap<String, Value> = BTreeMap::new();
    let mut builds: BTreeMap<String, Value> = BTreeMap::new();
    let mut issues: BTreeMap<String, Value> = BTreeMap::new();
    let (mut tests, mut incidents) = (Vec::new(), Vec::new());
    for run in &results.runs {
        let host = &run.header.host;
        let id = format!("{origin}:{:016x}", hash(&[&host.kernel, &host.build]));
        let comment = text::line(format!("Linux {} {}", host.kernel, host.build).trim_end());
        checkouts
            .entry(id.clone())
            .or_insert_with(|| json!({ "id": id, "origin": origin, "comment": comment, "valid": true }));
        let build = builds.entry(id.clone()).or_insert_with(|| {
            json!({
                "id": id,
                "origin": origin,
                "checkout_id": id,
                "architecture": "x86_64",
                "comment": comment,
                "misc": { "runs": {} },
            })
        });
        // Said once, and not with each of thousands of tests.
        build["misc"]["runs"][text::line(&run.name)] =
            json!({ "remarks": run.remarks(), "params": run.header.host.params });
        for test in &run.tests {
            let told = self::test(run, test, &id, origin);
            if test.verdict() == Some(Verdict::Xfail) {
                let reason = known(test);
                let issue = format!("{origin}:{:016x}", hash(&[reason]));
                incidents.push(json!({
                    "id": told["id"],
                    "origin": origin,
                    "issue_id": issue,
                    "issue_version": 1,
                    "test_id": told["id"],
                    "present": true,
                }));
                issues.entry(issue.clone()).or_insert_with(|| {
                    json!({
                        "id": issue,
                        "origin": origin,
                        "version": 1,
                        "comment": text::line(reason),
                        "culprit": { "code": true },
                    })
                });
            }
            tests.push(told);
        }
    }
    let list = |map: BTreeMap<String, Value>| map.into_values().collect::<Vec<_>>();
    let report = json!({
        "version": { "major": 5, "minor": 3 },
        "checkouts": list(checkouts),
        "builds": list(builds),
        "tests": tests,
        "issues": list(issues),
        "incidents": incidents,
    });
    text::json(&report)
}

fn test(run: &Run, test: &Test, build: &str, origin: &str) -> Value {
    let host = &run.header.host;
    let status = match test.verdict() {
        // A stale waiver is our list's mistake: the kernel holds.
        Some(Verdict::Pass | Verdict::Xpass) => "PASS",
        // A guest or a kernel that does not come back, or dies, was tested and is at fault.
        Some(Verdict::Fail | Verdict::Xfail | Verdict::Timeout | Verdict::Crash) => "FAIL",
        Some(Verdict::Skip) => "SKIP",
        Some(Verdict::Error) => "ERROR",
        None => "MISS",
    };
    let mut value = json!({
        "id": format!("{origin}:{}:{}", text::line(&run.name), text::line(&test.name)),
        "origin": origin,
        "build_id": build,
        "environment": {
            "comment": text::line(&host.to_string()),
            "misc": { "bed": host.bed, "backend": host.backend, "kernel": host.kernel, "cpu": host.cpu },
        },
        "path": format!("exitspec.{}", path(&test.name)),
        "status": status,
        "duration": test.duration().as_secs_f64(),
        "misc": {
            "test": text::line(&test.name),
            "verdict": test.verdict(),
            "run": text::line(&run.name),
        },
    });
    let about = test.finished().and_then(|finished| finished.about.as_deref());
    let comment = match about {
        Some(about) => format!("{}: {}", about.summary, test.reason()),
        None => test.reason().to_owned(),
    };
    if !comment.is_empty() {
        value["comment"] = text::line(&comment).into();
    }
    let details = text::details(test);
    if !details.is_empty() {
        value["log_excerpt"] = details.into();
    }
    if let Some(begin) = test.begin.or(run.begin) {
        value["start_time"] = humantime::format_rfc3339_millis(begin).to_string().into();
    }
    value
}

/// What a waiver says, without what was observed this time.
fn known(test: &Test) -> &str {
    test.reason().split(" (observed: ").next().unwrap_or_default()
}

/// A test's name as a path of KCIDB's tree of tests: parts of letters, digits, `_` and `-` with dots between.
fn path(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' };
    let parts = name.split(['.', '~', '@']).map(|part| part.chars().map(plain).collect::<String>());
    parts.map(|part| if part.is_empty() { "_".to_owned() } else { part }).collect::<Vec<_>>().join(".")
}

/// 64-bit FNV-1a, which gives the same identifiers each time.
fn hash(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
