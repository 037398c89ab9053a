//! JUnit XML, in the form of Jenkins' xunit plugin: what most CI systems show.
//!
//! A suite is a family of one run. As pytest does it, a waived deviation is `skipped` with the type `xfail`, and a
//! waiver that is not needed any more a failure. `error` is what gave no verdict on the host in the way of the case:
//! the case is broken, its time was over, its process died, or the run ended before.

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::results::{Results, Run, State, Test};
use super::text;
use crate::outcome::Verdict;

/// The report as text.
pub fn text(results: &Results) -> Result<String, String> {
    let mut report = Report::new("ExitSpec");
    let several = results.runs.len() > 1;
    for run in &results.runs {
        for family in families(run) {
            report.add_test_suite(suite(run, family, several));
        }
    }
    let text = report.to_string().map_err(|error| error.to_string())?;
    // Jenkins' schema has this attribute for suites, and not for all of them; the first is the latter.
    Ok(text.replacen(&format!(" skipped=\"{}\"", report.skipped), "", 1))
}

/// The families of a run, in the order in which they begin.
pub(super) fn families(run: &Run) -> Vec<&str> {
    let mut families: Vec<&str> = Vec::new();
    for test in &run.tests {
        if !families.contains(&test.family()) {
            families.push(test.family());
        }
    }
    families
}

fn suite(run: &Run, family: &str, several: bool) -> TestSuite {
    let run_name = text::line(&run.name);
    let name = if several { format!("{run_name}/{}", text::line(family)) } else { text::line(family) };
    let mut suite = TestSuite::new(name);
    // Jenkins takes what is before the last dot for a package.
    let package = if several { run_name.replace('.', "_") } else { "exitspec".to_owned() };
    let class = format!("{package}.{}", text::line(family));
    for (name, value) in text::host(run) {
        suite.add_property(Property::new(text::line(&name), text::line(&value)));
    }
    let mut time = std::time::Duration::ZERO;
    for test in run.tests.iter().filter(|test| test.family() == family) {
        let mut case = TestCase::new(text::line(&test.name), status(test));
        case.set_classname(&*class).set_time(test.duration());
        suite.add_test_case(case);
        time += test.duration();
    }
    suite.set_time(time);
    if let Some(begin) = run.begin {
        let begin = humantime::format_rfc3339_millis(begin).to_string();
        suite.extra.insert("timestamp".into(), begin.into());
    }
    let remarks = run.remarks();
    if !remarks.is_empty() {
        let lines: Vec<String> = remarks.iter().map(|remark| text::line(remark)).collect();
        suite.set_system_out(lines.join("\n"));
    }
    suite
}

fn status(test: &Test) -> TestCaseStatus {
    let (mut status, ty) = match (&test.state, test.verdict()) {
        (_, Some(Verdict::Pass)) => return TestCaseStatus::success(),
        (_, Some(verdict @ (Verdict::Skip | Verdict::Xfail))) => (TestCaseStatus::skipped(), verdict.word()),
        (_, Some(verdict @ (Verdict::Fail | Verdict::Xpass))) => {
            (TestCaseStatus::non_success(NonSuccessKind::Failure), verdict.word())
        }
        (_, Some(verdict)) => (TestCaseStatus::non_success(NonSuccessKind::Error), verdict.word()),
        (State::Unplayed, None) => (TestCaseStatus::non_success(NonSuccessKind::Error), "unplayed"),
        (_, None) => (TestCaseStatus::non_success(NonSuccessKind::Error), "unfinished"),
    };
    status.set_type(ty).set_message(text::line(test.reason()));
    let details = text::details(test);
    if !details.is_empty() {
        status.set_description(details);
    }
    status
}
