use super::*;
use crate::prove::bugs::Bug;
use crate::prove::verdict::{InBed, Sight};

fn bug(id: &str, proof: Proof) -> Bug {
    Bug { breaks: "One | two.".into(), undoes: Some("commit 1".into()), ..Bug::of_test(id, proof) }
}

fn judged(verdict: Verdict, amd: &[(&str, Sight)]) -> Judged {
    let expected = amd.iter().map(|(case, sight)| ((*case).to_owned(), *sight)).collect();
    let beds = [(Kind::Amd, InBed { expected, ..InBed::default() })].into();
    Judged { verdict, beds }
}

#[test]
fn the_page_tells_every_bug_every_share_and_every_case() {
    let bugs = [
        bug("f.caught", Proof::by(&["c.one"])),
        bug("f.missed", Proof::by(&["c.two"])),
        bug("g.silent", Proof::Unobservable("it is only slower".into())),
        bug("g.waits", Proof::by(&["c.two"])),
    ];
    let found: Found<'_> = vec![
        (&bugs[0], judged(Verdict::Caught, &[("c.one", Sight::Fails)])),
        (&bugs[1], judged(Verdict::Missed, &[("c.two", Sight::Holds)])),
        (&bugs[2], Judged { verdict: Verdict::Unobservable, beds: BTreeMap::new() }),
        (&bugs[3], Judged { verdict: Verdict::Open, beds: BTreeMap::new() }),
    ];
    let cases = ["c.one", "c.two", "d.three", "d.four"].map(str::to_owned).into();
    let unproved = [Unproved { patterns: vec!["d.th*".into()], reason: "in hardware.".into() }];
    let releases = ["Linux 6.12.117".to_owned()].into();
    let page = Page { found: &found, releases, cases: &cases, unproved: &unproved, peers: &Peers::default() };
    let text = page.text();
    for expected in [
        "Tested: Linux 6.12.117. Of 4 bugs 3 can show, and 2 of these have run: 1 are caught (50 %).",
        "| family | bugs | caught | missed | unobservable | not run |",
        "| f | 2 | 1 | 1 |  |  |",
        "| all | 4 | 1 | 1 | 1 | 1 |",
        "| `f.caught` | One \\| two. *Undoes commit 1* | `c.one` | not run |",
        "| `f.missed` | One \\| two. *Undoes commit 1* | **missed** | not run |",
        "- `g.silent`: it is only slower",
        "1 of 4 cases have been seen to catch a bug (25 %)",
        "- `d.th*`: in hardware",
        "| d | 2 | 0 | 1 |",
        "- `c`: two",
        "- `d`: four",
    ] {
        assert!(text.lines().any(|line| line.contains(expected)), "{expected}\n{text}");
    }
    assert_eq!(text, page.text());
}

#[test]
fn long_lists_are_cut_in_cells_and_wrapped_in_text() {
    let names: Vec<String> = (0..9).map(|n| format!("c.{n}")).collect();
    let sights: Vec<(&str, Sight)> = names.iter().map(|name| (name.as_str(), Sight::Fails)).collect();
    let cell = cell(&judged(Verdict::Partly, &sights), Kind::Amd);
    assert_eq!(cell, "**partly caught** `c.0`, `c.1`, `c.2`, `c.3` and 5 more");
    let text = wrapped(&"word ".repeat(60));
    assert!(text.lines().all(|line| line.len() <= WIDTH) && text.lines().count() == 3, "{text}");
}

#[test]
fn nearly_all_is_not_all() {
    assert_eq!(percent(199, 200), "99 %");
    assert_eq!(percent(0, 0), "-");
}
