//! What was found, as a page for people: one file that needs neither network nor scripts.
//!
//! The same input gives the same page. What cases and compilers said stands there as text.

use std::collections::BTreeMap;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::bugs::{Bug, Edit, Proof};
use super::peer::Peers;
use super::report::{Found, counts, families, ran};
use super::verdict::{InBed, Judged, Verdict};
use crate::bed::kind::Kind;

const STYLE: &str = include_str!("html/page.css");
/// Characters of a remark.
const REMARK: usize = 400;

/// The page.
pub(crate) fn page(found: &Found<'_>, releases: &str, peers: &Peers) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "ExitSpec: bugs and the cases that catch them" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (summary(found, releases, peers))
                @for (family, bugs) in families(found) {
                    section id=(family) {
                        h2 { (family) }
                        (matrix(&bugs))
                        @for (bug, judged) in bugs { (article(bug, judged, peers)) }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn summary(found: &Found<'_>, releases: &str, peers: &Peers) -> Markup {
    let counts = counts(found);
    let number = |verdict| counts.get(&verdict).copied().unwrap_or(0);
    let (asked, caught) = peers.count();
    html! {
        header {
            p.quiet { "ExitSpec, seeded bugs" }
            h1 { "Of " (ran(found)) " bugs that were put into KVM, one at a time, the suite catches "
                strong { (number(Verdict::Caught)) } "." }
            p.quiet { (releases) ". A bug is caught if every case that it names fails with it, and holds without." }
            @if asked > 0 {
                p { "KVM's own selftests were shown " (asked) " of them and catch " (caught) "." }
            }
            table {
                @for (verdict, number) in &counts {
                    tr { th scope="row" { (verdict.words()) } td { (number) } }
                }
            }
        }
    }
}

/// The bugs of a family, by the cases that catch any of them.
fn matrix(bugs: &[&(&Bug, Judged)]) -> Markup {
    let caught_by = |judged: &Judged| -> BTreeMap<String, Vec<Kind>> {
        let mut all: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
        for bed in Kind::ALL {
            judged
                .caught_by(bed)
                .into_iter()
                .for_each(|case| all.entry(case.to_owned()).or_default().push(bed));
        }
        all
    };
    let rows: Vec<_> = bugs.iter().map(|(bug, judged)| (bug, caught_by(judged))).collect();
    let mut cases: Vec<&String> = rows.iter().flat_map(|(_, cases)| cases.keys()).collect();
    cases.sort();
    cases.dedup();
    html! {
        @if !cases.is_empty() {
            div.scroll {
                table.matrix {
                    thead {
                        tr { td {} @for case in &cases { th scope="col" { (case) } } }
                    }
                    tbody {
                        @for (bug, caught) in &rows {
                            tr {
                                th scope="row" { a href=(format!("#{}", bug.id)) { (bug.id) } }
                                @for case in &cases {
                                    @match caught.get(*case) {
                                        Some(beds) => td.hit { (letters(beds)) },
                                        None => td {},
                                    }
                                }
                            }
                        }
                    }
                }
            }
            p.quiet { "A and I: the case fails with the bug in the bed amd or intel." }
        }
    }
}

/// The beds' first letters.
fn letters(beds: &[Kind]) -> String {
    beds.iter()
        .filter_map(|bed| bed.name().chars().next())
        .map(|letter| letter.to_ascii_uppercase())
        .collect()
}

fn article(bug: &Bug, judged: &Judged, peers: &Peers) -> Markup {
    let class = match judged.verdict {
        verdict if verdict.is_good() => "verdict",
        Verdict::Open => "verdict open",
        _ => "verdict bad",
    };
    let peers = peers.cell(bug);
    html! {
        article id=(bug.id) {
            h3 { code { (bug.id) } " " span class=(class) { (judged.verdict.words()) } }
            p { (bug.breaks) "." }
            @if let Some(fix) = &bug.undoes { p.quiet { "Undoes " (fix) } }
            @if let Proof::Unobservable(why) = &bug.proof { p { (why) } }
            @for (bed, found) in &judged.beds { (in_bed(*bed, found, &judged.caught_by(*bed))) }
            @if !peers.is_empty() { p { "KVM's selftests: " (peers) } }
            details {
                summary { "The edit" }
                @for edit in &bug.edits { (diff(edit)) }
            }
        }
    }
}

fn in_bed(bed: Kind, found: &InBed, caught: &[&str]) -> Markup {
    html! {
        p { strong { (bed) } ": "
            @if caught.is_empty() { "nothing fails" }
            @for (place, case) in caught.iter().enumerate() { @if place > 0 { ", " } code { (case) } }
        }
        @if !found.remarks.is_empty() {
            ul { @for remark in &found.remarks { li { (remark.chars().take(REMARK).collect::<String>()) } } }
        }
    }
}

/// What is taken away, and what comes instead.
fn diff(edit: &Edit) -> Markup {
    let with = |sign: char, text: &str| -> String {
        text.trim_matches('\n').lines().map(|line| format!("{sign}{line}\n")).collect()
    };
    html! {
        p.quiet { code { (Path::new(&edit.file).display()) } }
        pre { (with('-', &edit.find)) (with('+', &edit.replace)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::prove::verdict::Sight;

    #[test]
    fn the_page_has_the_matrix_the_reasons_and_the_edits_and_no_markup_of_others() {
        let bug = Bug {
            breaks: "It <breaks>".into(),
            edits: vec![Edit { file: "x86.c".into(), find: "\nif (a < b)".into(), replace: "if (b)".into() }],
            ..Bug::of_test("f.one", Proof::by(&["c.one"]))
        };
        let seen = InBed {
            expected: [("c.one".to_owned(), Sight::Fails)].into(),
            others: ["c.two".to_owned()].into(),
            remarks: vec!["c.one: fail (<script>)".into()],
        };
        let judged = Judged {
            verdict: Verdict::Caught,
            beds: [(Kind::Amd, seen.clone()), (Kind::Intel, seen)].into(),
        };
        let open = Bug { id: "f.two".into(), ..bug.clone() };
        let found = vec![(&bug, judged), (&open, Judged { verdict: Verdict::Open, beds: BTreeMap::new() })];
        let text = page(&found, "Linux 6.12", &Peers::default());
        for expected in [
            "Of 1 bugs that were put into KVM",
            "catches <strong>1</strong>",
            "It &lt;breaks&gt;.",
            r#"<th scope="col">c.two</th>"#,
            r#"<td class="hit">AI</td>"#,
            r##"<a href="#f.two">f.two</a></th><td></td><td></td>"##,
            "c.one: fail (&lt;script&gt;)",
            "-if (a &lt; b)\n+if (b)\n",
            r#"<span class="verdict open">not run</span>"#,
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("<script"), "{text}");
    }
}
