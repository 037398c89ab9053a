use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use scraper::{ElementRef, Html, Selector};
use sha2::Digest;

use super::super::tests::about;
use super::super::{Results, Run, STRAY, State, Test};
use super::text::is_unseen;
use super::*;
use crate::case::Place;
use crate::exit::Mismatch;
use crate::host::HostFacts;
use crate::journal::{About, Ended, Finished, Header};
use crate::outcome::{CodeLine, Evidence, Outcome, TraceLine, Verdict};

/// What a hostile guest, kernel or journal would say.
const EVIL: &str = "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}\u{200b}\x1b[2J\0\r\n&amp;\"'`";

fn evidence(text: &str) -> Evidence {
    let text = || text.to_owned();
    let line = |line, holds| TraceLine { line, expected: text(), observed: Some(text()), holds };
    Evidence {
        trace: vec![line(10, true), line(11, false)],
        trace_cut: 4,
        to_come: vec![text()],
        mismatches: vec![
            Mismatch { field: text(), expected: text(), observed: text() },
            Mismatch { field: "rip".into(), expected: "at l (0x1010)".into(), observed: "0x12".into() },
        ],
        place: Some(Place { file: text(), line: 11, column: 3, text: text() }),
        why: Some(text()),
        registers: vec![(text(), 0x202)],
        code: vec![CodeLine { address: 0x10, symbol: text(), text: text(), here: true }],
        guest: vec![text()],
        kernel_log: vec![text()],
        perturbed: vec![7],
        shrunk: Some(text()),
        stderr: vec![text()],
    }
}

fn test(name: &str, verdict: Verdict, text: &str) -> Test {
    let told = !matches!(verdict, Verdict::Pass | Verdict::Skip);
    let about = || About {
        summary: text.into(),
        detects: text.into(),
        reference: vec![
            text.into(),
            format!("KVM API 4.10 KVM_RUN {text}"),
            format!("commit 45def77ebf79 {text}"),
        ],
        place: Place { file: text.into(), line: 1, column: 1, text: text.into() },
        again: text.into(),
        ..about()
    };
    let outcome = Outcome { verdict, reason: text.into(), evidence: told.then(|| Box::new(evidence(text))) };
    let about = told.then(|| Box::new(about()));
    let finished = Finished { outcome, duration: Duration::from_millis(3), about };
    Test { name: name.into(), begin: Some(UNIX_EPOCH), state: State::Finished(finished) }
}

fn run(name: &str, tests: Vec<Test>) -> Run {
    let mut host = HostFacts::read_under(std::path::Path::new("/nonexistent"));
    (host.kernel, host.cpu, host.backend) = ("6.12.1".into(), "AMD EPYC".into(), "kvm_amd".into());
    Run {
        name: name.into(),
        journal: PathBuf::new(),
        header: Header { host, command: vec!["exitspec".into()], ..Header::of_nothing() },
        begin: Some(UNIX_EPOCH),
        end: Some(UNIX_EPOCH),
        tests,
        ended: vec![Ended::default()],
        torn: false,
        unread: 0,
    }
}

fn results(runs: Vec<Run>) -> Results {
    Results { runs, mistakes: Vec::new() }
}

fn parsed(runs: Vec<Run>) -> Html {
    Html::parse_document(&page(&results(runs)))
}

fn all<'a>(html: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    html.select(&Selector::parse(selector).unwrap()).collect()
}

fn text(element: ElementRef<'_>) -> String {
    let words = element.text().collect::<String>();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn texts(html: &Html, selector: &str) -> Vec<String> {
    all(html, selector).into_iter().map(text).collect()
}

const EVERY: [Verdict; 8] = [
    Verdict::Pass,
    Verdict::Fail,
    Verdict::Skip,
    Verdict::Error,
    Verdict::Timeout,
    Verdict::Crash,
    Verdict::Xfail,
    Verdict::Xpass,
];

/// Every string that a journal can hold, in every verdict, of a hostile journal.
fn hostile() -> Vec<Run> {
    let tests = EVERY.map(|verdict| test(&format!("a.{}{EVIL}", verdict.word()), verdict, EVIL));
    let mut run = run(EVIL, tests.into());
    run.tests.push(Test { name: format!("a.lost{EVIL}"), begin: None, state: State::Unfinished });
    run.tests.push(Test { name: format!("a.c~{EVIL}"), begin: None, state: State::Unplayed });
    let evil = || EVIL.to_owned();
    let host = &mut run.header.host;
    (host.bed, host.kernel, host.build, host.cpu) = (evil(), evil(), evil(), evil());
    (host.cpu_vendor, host.microcode, host.backend) = (evil(), evil(), evil());
    host.params.insert(evil(), evil());
    run.header.version = evil();
    run.header.revision = Some(evil());
    run.header.command = vec![evil()];
    run.ended = vec![Ended { at: evil(), stray: vec![vec![evil()]], remarks: vec![evil()] }];
    let mut other = run_like(&run);
    other.header.host.params.insert(evil(), "other".into());
    vec![run, other]
}

fn run_like(other: &Run) -> Run {
    let mut run = run(EVIL, vec![test(&format!("a.pass{EVIL}"), Verdict::Fail, EVIL)]);
    run.header = other.header.clone();
    run
}

#[test]
fn nothing_that_a_journal_says_is_markup_or_unseen() {
    let html = parsed(hostile());
    assert_eq!(all(&html, "script").len(), 1);
    assert!(all(&html, "img, iframe, object, embed, link, base").is_empty());
    for element in all(&html, "*") {
        for (name, value) in element.value().attrs() {
            assert!(!name.starts_with("on"), "{name}");
            assert!(!value.chars().any(|c| c.is_control() || is_unseen(c)), "{name}={value:?}");
        }
    }
    for word in all(&html, "body")[0].text() {
        let seen = |c: char| c == '\n' || !(c.is_control() || is_unseen(c));
        assert!(word.chars().all(seen), "{word:?}");
    }
    // It was there, in each place.
    let times = html.root_element().html().matches("alert(1)").count();
    assert!(times > 100, "{times}");
}

#[test]
fn the_page_is_one_file() {
    let source = page(&results(hostile()));
    let html = Html::parse_document(&source);
    assert!(all(&html, "[src], [srcset], [action], [background], [data], [poster]").is_empty());
    let links: BTreeSet<_> = all(&html, "[href]").into_iter().filter_map(|link| link.attr("href")).collect();
    for link in &links {
        let known = ["#", "https://git.kernel.org/linus/", "https://docs.kernel.org/"];
        assert!(known.iter().any(|start| link.starts_with(start)), "{link}");
    }
    assert!(links.contains("https://git.kernel.org/linus/45def77ebf79"));
    assert!(links.contains("https://docs.kernel.org/virt/kvm/api.html#kvm-run"));
    let style = STYLE.to_ascii_lowercase();
    assert!(!style.contains("@import") && !style.contains("url(") && !style.contains("</"));
    assert!(!SCRIPT.contains("</") && !SCRIPT.contains("fetch(") && !SCRIPT.contains("innerHTML"));
}

#[test]
fn the_policy_lets_this_script_run_and_no_other() {
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(SCRIPT));
    assert_eq!(SCRIPT_HASH, hash, "page.js has changed: this is its hash now");
    let html = parsed(vec![run("r", Vec::new())]);
    let policy = all(&html, "meta[http-equiv=Content-Security-Policy]")[0].attr("content").unwrap();
    assert!(
        policy.contains(&format!("script-src 'sha256-{hash}'")) && policy.starts_with("default-src 'none'")
    );
    // A parser ends a script where it pleases; the hash is of what it takes for the script.
    assert_eq!(all(&html, "script")[0].text().collect::<String>(), SCRIPT);
}

#[test]
fn every_case_has_a_row_and_every_column_a_cell() {
    let one = run("one", EVERY.map(|verdict| test(&format!("a.{}", verdict.word()), verdict, "r")).into());
    let mut two =
        run("two", vec![test("a.pass", Verdict::Pass, ""), test("a.pass~kick", Verdict::Fail, "r")]);
    two.tests.push(Test { name: "b.lost".into(), begin: None, state: State::Unfinished });
    two.tests.push(Test { name: "b.never".into(), begin: None, state: State::Unplayed });
    let html = parsed(vec![one, two]);
    let names = texts(&html, "table.cases tbody th[scope=row]");
    let words = ["crash", "error", "fail", "pass", "skip", "timeout", "xfail", "xpass"];
    let expected: Vec<String> = words.iter().map(|word| format!("a.{word}")).collect();
    assert_eq!(names, [expected, vec!["b.lost".into(), "b.never".into()]].concat());
    for row in all(&html, "table.cases tbody tr") {
        let cells = row.select(&Selector::parse("td").unwrap()).count();
        assert_eq!(cells, 3, "as it is in one, as it is in two, kick in two");
    }
    let cell = |row: &str, column: usize| {
        let rows = all(&html, "table.cases tbody tr");
        let found = rows.iter().find(|one| text(**one).starts_with(row)).unwrap();
        let cell = found.select(&Selector::parse("td").unwrap()).nth(column).unwrap();
        (text(cell), cell.attr("class").unwrap_or_default().to_owned())
    };
    for verdict in EVERY {
        let mark = Mark::of(verdict);
        assert_eq!(cell(&format!("a.{}", verdict.word()), 0), (mark.letter().into(), verdict.word().into()));
    }
    assert_eq!(cell("a.pass", 2), ("F".into(), "fail".into()));
    assert_eq!(cell("a.fail", 1), (String::new(), String::new()), "not a test of that run");
    assert_eq!((cell("b.lost", 1).0, cell("b.never", 1).0), ("?".into(), "/".into()));
    let heads = texts(&html, "table.cases thead th[scope=col]");
    assert_eq!(heads[..4], ["Case", "1 as it is", "2 as it is", "3 kick"]);
    // Each mark is a shape of its own, and each family has its picture.
    let shapes: BTreeSet<_> = Mark::ALL.iter().map(|mark| mark.shape()).collect();
    let letters: BTreeSet<_> = Mark::ALL.iter().map(|mark| mark.letter()).collect();
    assert_eq!((shapes.len(), letters.len()), (10, 10));
    assert_eq!(all(&html, "svg.picture").len(), 2);
}

#[test]
fn a_picture_has_a_shape_for_each_cell() {
    let many: Vec<Test> = (0..130).map(|n| test(&format!("a.{n:03}"), Verdict::Pass, "")).collect();
    let html = parsed(vec![run("r", many)]);
    let path = all(&html, "svg.picture path.pass")[0].attr("d").unwrap();
    assert_eq!(path.matches('M').count(), 130);
    assert!(
        path.starts_with("M0 0") && path.contains("M567 0m") && !path.contains("M576 "),
        "64 beside each other"
    );
}

#[test]
fn a_deviation_is_told_with_all_that_was_seen() {
    let mut deviating = test("a.b", Verdict::Fail, "said");
    let State::Finished(finished) = &mut deviating.state else { unreachable!() };
    let seen = finished.outcome.evidence.as_mut().unwrap();
    seen.trace[1].observed = Some("exit hlt rip=0x12".into());
    let html = parsed(vec![run("r", vec![deviating, test("a.c", Verdict::Pass, "")])]);
    let article = all(&html, "#deviations article.case");
    assert_eq!(article.len(), 1);
    assert_eq!(article[0].attr("data-case"), Some("a.b"));
    let within =
        |selector: &str| -> Vec<String> { texts(&html, &format!("#deviations article.case {selector}")) };
    assert_eq!(
        within("table.timeline tbody tr").len(),
        4,
        "what was cut, two steps, one that was not reached"
    );
    assert_eq!(within("tr.parts th"), ["11"]);
    assert_eq!(within("tr.parts mark"), ["rip=0x12"]);
    assert_eq!(within("tr.expected td"), ["said", "0x1010 at l"]);
    assert_eq!(within("tr.observed td"), ["said", "0x0012"], "with as many digits");
    assert_eq!(within("tr.observed mark"), ["0", "2"], "digits that differ");
    assert_eq!(within("table.code tr[aria-current] th"), ["0x10"]);
    assert_eq!(within("ul.registers li"), ["said 0x0000000000000202"]);
    assert_eq!(within("figure.log figcaption"), ["The guest says", "Its process wrote", "Kernel log"]);
    assert_eq!(within("pre.command"), ["said"]);
    let index = all(&html, "table.index a");
    let anchor = index[0].attr("href").unwrap();
    assert_eq!(all(&html, anchor).len(), 1, "the list at the top leads to it");
}

#[test]
fn the_same_deviation_in_several_columns_is_told_once() {
    let names = ["a.b", "a.b~kick", "a.b~threads"];
    let same = run("r", names.map(|name| test(name, Verdict::Fail, "same")).into());
    let html = parsed(vec![same]);
    assert_eq!(texts(&html, "article.case .where"), ["Seen in each of 3 columns"]);
    assert_eq!(all(&html, "article.case table.timeline").len(), 1);
    let differing = names.map(|name| test(name, Verdict::Fail, name));
    let html = parsed(vec![run("r", differing.into())]);
    assert_eq!(all(&html, "article.case").len(), 1);
    assert_eq!(all(&html, "article.case table.timeline").len(), 3);
}

#[test]
fn what_is_known_stale_and_skipped_has_its_place() {
    let tests = EVERY.map(|verdict| test(&format!("a.{}", verdict.word()), verdict, "because"));
    let html = parsed(vec![run("r", tests.into())]);
    let cases = |section: &str| -> Vec<&str> {
        all(&html, &format!("#{section} article.case"))
            .into_iter()
            .filter_map(|one| one.attr("data-case"))
            .collect()
    };
    assert_eq!(cases("deviations"), ["a.crash", "a.fail", "a.timeout"]);
    assert_eq!(cases("faults"), ["a.error"]);
    assert_eq!(cases("stale"), ["a.xpass"]);
    assert_eq!(cases("waived"), ["a.xfail"]);
    assert_eq!(texts(&html, "details.waived > summary"), ["a.xfail because"]);
    assert_eq!(texts(&html, "details.skip > summary"), ["1 because"]);
    assert_eq!(texts(&html, "details.skip li"), ["a.skip"]);
    assert_eq!(all(&html, "table.slowest tbody tr").len(), 8);
}

#[test]
fn a_host_where_everything_deviates_does_not_make_a_monster() {
    let many: Vec<Test> = (0..1000).map(|n| test(&format!("a.{n}"), Verdict::Fail, "x")).collect();
    let html = parsed(vec![run("r", many)]);
    assert_eq!(all(&html, "#deviations article.case").len(), 1000, "each is named");
    assert_eq!(all(&html, "table.timeline").len(), IN_FULL);
}

#[test]
fn the_same_journals_give_the_same_page() {
    assert_eq!(page(&results(hostile())), page(&results(hostile())));
}

#[test]
fn a_page_of_no_run_is_a_page() {
    assert_eq!(all(&parsed(Vec::new()), "main").len(), 1);
}

mod verdict {
    use super::*;

    fn said(run: Run) -> String {
        let html = parsed(vec![run]);
        texts(&html, "header .verdict > *").join(" ")
    }

    fn of(verdicts: &[Verdict]) -> Run {
        let tests = verdicts.iter().enumerate().map(|(n, verdict)| test(&format!("a.{n}"), *verdict, "r"));
        run("r", tests.collect())
    }

    #[test]
    fn is_one_sentence() {
        use Verdict::{Crash, Error, Fail, Pass, Skip, Timeout, Xfail, Xpass};
        let host = "Linux 6.12.1 on AMD EPYC, kvm_amd,";
        let all: [(&[Verdict], &str); 8] = [
            (&[Pass, Pass], "conforms in 2 cases."),
            (&[Pass, Xfail, Skip], "conforms in 1 case, known deviations aside."),
            (&[Fail, Pass, Skip], "deviates from 1 of 2 cases."),
            (&[Fail, Crash, Timeout, Pass, Error], "deviates from 3 of 5 cases."),
            (&[Error, Pass], "cannot be judged: the suite is at fault in 1 case."),
            (&[Skip], "cannot be judged: no case was played."),
            (&[], "cannot be judged: no case was played."),
            (&[Xpass, Pass], "conforms in 2 cases. 1 waiver is stale"),
        ];
        for (verdicts, sentence) in all {
            let said = said(of(verdicts));
            assert!(said.starts_with(&format!("{host} {sentence}")), "{said}");
        }
    }

    #[test]
    fn counts_a_case_once_whatever_its_variations() {
        let all = [("a.b", Verdict::Pass), ("a.b~kick", Verdict::Fail), ("a.c", Verdict::Fail)];
        let one = run("r", all.map(|(name, verdict)| test(name, verdict, "r")).into());
        assert!(said(one).contains("deviates from 2 of 2 cases."));
    }

    #[test]
    fn of_an_interrupted_run_is_none() {
        let mut torn = of(&[Verdict::Pass]);
        torn.torn = true;
        let said_of_torn = said(torn);
        assert!(said_of_torn.contains("cannot be judged: the run was interrupted."), "{said_of_torn}");
        assert!(said_of_torn.contains("cut off"), "{said_of_torn}");
        let mut cut = of(&[Verdict::Fail, Verdict::Pass]);
        cut.tests.push(Test { name: "a.lost".into(), begin: None, state: State::Unfinished });
        let said_of_cut = said(cut);
        assert!(
            said_of_cut.contains("deviates from 1 of 2 cases, as far as they were played."),
            "{said_of_cut}"
        );
        assert!(said_of_cut.contains("interrupted"), "{said_of_cut}");
    }

    #[test]
    fn hears_of_the_kernel_between_cases() {
        let mut stray = of(&[Verdict::Pass]);
        stray.tests.push(test(STRAY, Verdict::Fail, "WARNING: at x"));
        let said_of_it = said(stray);
        assert!(said_of_it.contains("deviates: its kernel reported a fault"), "{said_of_it}");
        let mut both = of(&[Verdict::Pass, Verdict::Fail]);
        both.tests.push(test(STRAY, Verdict::Fail, "WARNING: at x"));
        let said_of_both = said(both);
        assert!(said_of_both.contains("deviates from 1 of 2 cases. Its kernel reported"), "{said_of_both}");
    }
}
