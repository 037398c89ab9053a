//! SARIF 2.1.0: deviations and manifest mistakes as findings at a line of a manifest, for code scanning.
//!
//! A rule is a case. A waived deviation is a finding that is suppressed, with the waiver's reason. A skip is no finding.
//! Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::results::{Results, Run, Test};
use super::text;
use crate::manifest::Mistake;
use crate::outcome::Verdict;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// The rule of manifest mistakes.
const MISTAKE: &str = "manifest-mistake";

/// The report as text, with a newline at its end.
pub fn text(results: &Results, sources: &str) -> Result<String, String> {
    let mut runs: Vec<Value> = results.runs.iter().map(|run| self::run(run, sources)).collect();
    if !results.mistakes.is_empty() || runs.is_empty() {
        runs.push(mistakes(&results.mistakes, sources));
    }
    let log = json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": runs });
    text::json(&log)
}

fn run(run: &Run, sources: &str) -> Value {
    let mut rules: Vec<Value> = Vec::new();
    let mut indices: BTreeMap<&str, usize> = BTreeMap::new();
    let mut results = Vec::new();
    for test in &run.tests {
        let Some(verdict) = test.verdict() else { continue };
        if matches!(verdict, Verdict::Pass | Verdict::Skip) {
            continue;
        }
        let index = *indices.entry(test.case()).or_insert_with(|| {
            rules.push(rule(test));
            rules.len() - 1
        });
        results.push(result(test, verdict, index, sources));
    }
    let notifications: Vec<Value> = run
        .remarks()
        .iter()
        .map(|remark| json!({ "level": "warning", "message": { "text": message(remark) } }))
        .collect();
    let mut invocation = json!({
        "executionSuccessful": !run.is_interrupted(),
        "commandLine": run.header.command.iter().map(|word| text::line(word)).collect::<Vec<_>>().join(" "),
        "toolExecutionNotifications": notifications,
    });
    for (name, time) in [("startTimeUtc", run.begin), ("endTimeUtc", run.end)] {
        if let Some(time) = time {
            invocation[name] = humantime::format_rfc3339_millis(time).to_string().into();
        }
    }
    let host = &run.header.host;
    let host_properties: BTreeMap<String, String> =
        text::host(run).into_iter().map(|(name, value)| (text::line(&name), text::line(&value))).collect();
    json!({
        "tool": tool(&run.header.version, &rules),
        // Findings of two runs with the same first part replace each other.
        "automationDetails": { "id": format!("exitspec/{}/{}/{}", host.bed, host.backend, text::line(&run.name)) },
        "invocations": [invocation],
        "properties": host_properties,
        "columnKind": "unicodeCodePoints",
        "results": results,
    })
}

fn mistakes(mistakes: &[Mistake], sources: &str) -> Value {
    let rule = json!({
        "id": MISTAKE,
        "shortDescription": { "text": "A manifest cannot be read as it is." },
        "defaultConfiguration": { "level": "error" },
    });
    let results: Vec<Value> = mistakes
        .iter()
        .map(|mistake| {
            let help = mistake.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
            json!({
                "ruleId": MISTAKE,
                "ruleIndex": 0,
                "level": "error",
                "message": { "text": message(&format!("{}{help}", mistake.message)) },
                "locations": [location(&mistake.file, mistake.line, mistake.column, sources)],
            })
        })
        .collect();
    json!({
        "tool": tool(env!("CARGO_PKG_VERSION"), &[rule]),
        "automationDetails": { "id": "exitspec/manifests/" },
        "columnKind": "unicodeCodePoints",
        "results": results,
    })
}

fn tool(version: &str, rules: &[Value]) -> Value {
    json!({ "driver": { "name": "ExitSpec", "version": text::line(version), "rules": rules } })
}

fn rule(test: &Test) -> Value {
    let mut rule = json!({ "id": text::line(test.case()), "defaultConfiguration": { "level": "error" } });
    if let Some(about) = test.finished().and_then(|finished| finished.about.as_deref()) {
        rule["shortDescription"] = json!({ "text": message(&about.summary) });
        rule["fullDescription"] = json!({ "text": message(&format!("A failure means: {}", about.detects)) });
        if !about.reference.is_empty() {
            rule["help"] = json!({ "text": message(&about.reference.join("\n")) });
        }
        rule["properties"] = json!({ "basis": about.basis });
    }
    rule
}

fn result(test: &Test, verdict: Verdict, rule: usize, sources: &str) -> Value {
    let details = text::details(test);
    let head = format!("{}: {}", verdict.word(), test.reason());
    let mut result = json!({
        "ruleId": text::line(test.case()),
        "ruleIndex": rule,
        "level": "error",
        "message": { "text": message(&format!("{}\n{head}", test.name)) },
        "partialFingerprints": { "exitspecTest/v1": text::line(&test.name) },
        "properties": { "verdict": verdict, "test": text::line(&test.name), "details": details },
    });
    if let Some(place) = text::place(test) {
        result["locations"] = json!([location(&place.file, place.line, place.column, sources)]);
    }
    if verdict == Verdict::Xfail {
        result["suppressions"] =
            json!([{ "kind": "external", "status": "accepted", "justification": text::line(test.reason()) }]);
    }
    result
}

fn location(file: &str, line: u32, column: u32, sources: &str) -> Value {
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(&text::path(file, sources)), "uriBaseId": "%SRCROOT%" },
            "region": { "startLine": line.max(1), "startColumn": column.max(1) },
        }
    })
}

/// A text as SARIF's messages have it: braces and links are not ours.
fn message(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(text::line).collect();
    lines.join("\n").replace('{', "{{").replace('}', "}}").replace("](", "] (")
}

/// A relative path as a URI.
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    path.trim_start_matches('/')
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
