//! A certificate as a page: one file, no scripts, nothing fetched.

use std::fmt::Write as _;

use super::{Certificate, OfTest};
use crate::outcome::Verdict;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;border-bottom:1px solid #ddd;overflow-wrap:anywhere}\
th{font-weight:600;white-space:nowrap}code{font:13px ui-monospace,monospace}\
.good{color:#17692b}.waived{color:#8a5a00}.bad{color:#a11212}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}\
.good{color:#6fcf87}.waived{color:#e0b050}.bad{color:#ff8080}}";

/// The page.
pub fn page(certificate: &Certificate) -> String {
    let Certificate { profile, suite, host, run, .. } = certificate;
    let mut page = String::new();
    let class = match certificate.verdict {
        super::Overall::Conforms => "good",
        super::Overall::ConformsWithWaivers => "waived",
        super::Overall::DoesNotConform => "bad",
    };
    let name = safe(&profile.name);
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>ExitSpec certificate: {name}</title><style>{STYLE}</style></head>\n<body>\n\
         <h1>{name}: <span class=\"{class}\">{}</span></h1>\n<p>{}</p>\n",
        certificate.verdict,
        safe(&profile.summary)
    );
    if !certificate.because.is_empty() {
        let reasons = certificate.because.iter().map(|reason| format!("<li>{}</li>", safe(reason)));
        let _ = writeln!(page, "<ul class=\"bad\">{}</ul>", reasons.collect::<String>());
    }
    let revision = suite.revision.as_deref().unwrap_or("not in a repository");
    let dirty = if suite.dirty == Some(true) { ", with changes that are not committed" } else { "" };
    let hashes = &suite.hashes;
    let facts = [
        ("Issued", certificate.issued.clone()),
        ("Host", host.to_string()),
        ("Kernel's build", host.build.clone()),
        ("Module parameters", host.params.iter().map(|(name, value)| format!("{name}={value} ")).collect()),
        ("Suite", format!("ExitSpec {}, {revision}{dirty}", suite.version)),
        (
            "Hashes",
            format!(
                "manifests {}, payloads {}, waivers {}, runner {}",
                hashes.manifests, hashes.payloads, hashes.waivers, hashes.runner
            ),
        ),
        ("Run", format!("seed {} {}", run.seed, run.words.join(" "))),
        ("Waivers", if run.waivers { "known deviations are waived" } else { "none is allowed" }.to_owned()),
        ("Digest", certificate.digest.clone()),
    ];
    let rows =
        facts.iter().map(|(name, value)| format!("<tr><th>{name}</th><td>{}</td></tr>\n", safe(value)));
    let _ = writeln!(page, "<table>\n{}</table>", rows.collect::<String>());
    waivers(&mut page, &certificate.tests);
    let _ = writeln!(page, "<h2>Tests: {}</h2>\n<table>", certificate.tests.len());
    for test in &certificate.tests {
        let class = match test.verdict {
            Some(Verdict::Pass) => "good",
            Some(Verdict::Xfail) => "waived",
            _ => "bad",
        };
        let (name, word) = (safe(&test.name()), test.word());
        let reason = safe(&test.reason);
        let _ = writeln!(
            page,
            "<tr><td><code>{name}</code></td><td class=\"{class}\">{word}</td><td>{reason}</td></tr>"
        );
    }
    let _ = writeln!(page, "</table>");
    if !certificate.left_out.is_empty() {
        let _ = writeln!(page, "<h2>Not needed: {}</h2>\n<table>", certificate.left_out.len());
        for left in &certificate.left_out {
            let (name, reason) = (safe(&left.test), safe(&left.reason));
            let _ = writeln!(page, "<tr><td><code>{name}</code></td><td>{reason}</td></tr>");
        }
        let _ = writeln!(page, "</table>");
    }
    page += "</body></html>\n";
    page
}

fn waivers(page: &mut String, tests: &[OfTest]) {
    let used: Vec<_> = tests.iter().filter_map(|test| Some((test, test.waiver.as_ref()?))).collect();
    if used.is_empty() {
        return;
    }
    let _ = writeln!(page, "<h2>Waived: {}</h2>\n<table>", used.len());
    for (test, waiver) in used {
        let link = waiver.link.as_ref().map(|link| format!(", {}", safe(link))).unwrap_or_default();
        let (name, reason, place) = (safe(&test.name()), safe(&waiver.reason), safe(&waiver.place));
        let _ = writeln!(
            page,
            "<tr><td><code>{name}</code></td><td>{reason}{link}</td><td><code>{place}</code></td></tr>"
        );
    }
    let _ = writeln!(page, "</table>");
}

/// Text of a guest or a kernel, as a page may have it.
fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}
