//! KTAP version 1, as Linux' Documentation/dev-tools/ktap.rst has it: what kernel CI reads.
//!
//! Three levels: runs, families, tests. The kernel's own parser takes whatever looks like a result, so no text of a
//! test is let near to one: it stands behind a `#`, without a `#` of its own.

use std::fmt::Write;

use super::junit::families;
use super::results::{Results, Run, Test};
use super::text;
use crate::outcome::Verdict;

/// The report as text.
pub fn text(results: &Results) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", results.runs.len());
    for (index, run) in results.runs.iter().enumerate() {
        self::run(&mut text, index + 1, run, results.runs.len() > 1);
    }
    text
}

fn run(text: &mut String, number: usize, run: &Run, several: bool) {
    let title = if several { name(&format!("exitspec-{}", run.name)) } else { "exitspec".to_owned() };
    let families = families(run);
    // A test without any of its own would be no test.
    if families.is_empty() {
        let _ = writeln!(text, "ok {number} {title} # SKIP nothing was selected");
        return;
    }
    let _ = writeln!(text, "  KTAP version 1\n  # Subtest: {title}");
    for (name, value) in text::host(run) {
        let _ = writeln!(text, "  # {}: {}", clean(&name), clean(&value));
    }
    for remark in run.remarks() {
        let _ = writeln!(text, "  # note: {}", clean(&remark));
    }
    let _ = writeln!(text, "  1..{}", families.len());
    for (index, family) in families.iter().enumerate() {
        let tests: Vec<&Test> = run.tests.iter().filter(|test| test.family() == *family).collect();
        let title = name(family);
        let _ = writeln!(text, "    KTAP version 1\n    # Subtest: {title}\n    1..{}", tests.len());
        for (index, test) in tests.iter().enumerate() {
            case(text, index + 1, test);
        }
        let _ = writeln!(text, "  {} {} {title}{}", word(&tests), index + 1, rest(&tests));
    }
    let tests: Vec<&Test> = run.tests.iter().collect();
    let _ = writeln!(text, "{} {number} {title}{}", word(&tests), rest(&tests));
}

fn case(text: &mut String, number: usize, test: &Test) {
    let reason = clean(test.reason());
    for line in text::details(test).lines() {
        let _ = writeln!(text, "    # {}", clean(line));
    }
    let directive = match test.verdict() {
        Some(Verdict::Pass) => String::new(),
        Some(Verdict::Skip) => format!(" # SKIP {reason}"),
        Some(Verdict::Xfail) => format!(" # XFAIL {reason}"),
        Some(Verdict::Timeout) => format!(" # TIMEOUT {reason}"),
        Some(Verdict::Error) | None => format!(" # ERROR {reason}"),
        // The verdict's word comes first, since the reason may begin as a directive does.
        Some(verdict) => format!(" # {}: {reason}", verdict.word()),
    };
    let _ = writeln!(text, "    {} {number} {}{directive}", word(&[test]), name(&test.name));
}

/// A group of tests holds unless one of them does not.
fn word(tests: &[&Test]) -> &'static str {
    let good = |test: &&Test| test.verdict().is_some_and(Verdict::is_good);
    if tests.iter().all(good) { "ok" } else { "not ok" }
}

fn rest(tests: &[&Test]) -> &'static str {
    let skipped = |test: &&Test| test.verdict() == Some(Verdict::Skip);
    if tests.iter().all(skipped) { " # SKIP all of them are skipped" } else { "" }
}

/// A description: neither `#` nor a space at its end.
fn name(text: &str) -> String {
    let text = clean(text).replace("\\#", "_");
    let text = text.trim();
    if text.is_empty() { "_".to_owned() } else { text.to_owned() }
}

/// One line without what a parser takes for its own: the begin of a directive, or the end of a kernel's life, at which
/// the kernel's parser stops reading.
fn clean(text: &str) -> String {
    let mut text = text::line(text).replace('#', "\\#");
    for end in ["List of all partitions:", "Kernel panic - not syncing: VFS:", "reboot: System halted"] {
        text = text.replace(end, &end.replacen(' ', "  ", 1));
    }
    text
}
