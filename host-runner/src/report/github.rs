//! GitHub's workflow commands: annotations at the lines of the manifests.
//!
//! What is printed is at fault or incomplete; a skip and a waived deviation are no news. GitHub shows the first ten
//! errors of a step.

use std::fmt::Write;

use super::results::{Results, Test};
use super::text;

/// The report as text.
pub fn text(results: &Results, sources: &str) -> String {
    let mut text = String::new();
    for mistake in &results.mistakes {
        let help = mistake.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
        let at = [
            ("file", text::path(&mistake.file, sources)),
            ("line", mistake.line.to_string()),
            ("col", mistake.column.to_string()),
            ("title", "mistake in a manifest".to_owned()),
        ];
        command(&mut text, &at, &format!("{}{help}", mistake.message));
    }
    for run in &results.runs {
        let of = if results.runs.len() > 1 { format!(" ({})", run.name) } else { String::new() };
        if run.is_interrupted() {
            let remarks = run.remarks().join("\n");
            command(&mut text, &[("title", format!("ExitSpec{of}: interrupted"))], &remarks);
        }
        let bad = |test: &&Test| test.verdict().is_some_and(|verdict| !verdict.is_good());
        for test in run.tests.iter().filter(bad) {
            let mut at: Vec<(&str, String)> = Vec::new();
            if let Some(place) = text::place(test) {
                at.push(("file", text::path(&place.file, sources)));
                at.push(("line", place.line.to_string()));
                at.push(("col", place.column.to_string()));
            }
            let verdict = test.verdict().map_or("", crate::outcome::Verdict::word);
            at.push(("title", format!("{}: {verdict}{of}", test.name)));
            let mut message = test.reason().to_owned();
            if let Some(about) = test.finished().and_then(|finished| finished.about.as_deref()) {
                let _ = write!(message, "\nit must hold: {}\nagain: {}", about.summary, about.again);
            }
            command(&mut text, &at, &message);
        }
    }
    text
}

fn command(text: &mut String, properties: &[(&str, String)], message: &str) {
    let list: Vec<String> =
        properties.iter().map(|(name, value)| format!("{name}={}", property(value))).collect();
    let lines: Vec<String> = message.lines().map(|line| data(&text::line(line))).collect();
    let _ = writeln!(text, "::error {}::{}", list.join(","), lines.join("%0A"));
}

fn data(text: &str) -> String {
    text.replace('%', "%25")
}

fn property(value: &str) -> String {
    data(&text::line(value)).replace(':', "%3A").replace(',', "%2C")
}
