use std::path::Path;

use super::*;
use crate::exit::Mismatch;
use crate::host::HostFacts;
use crate::outcome::Evidence;

fn parse(text: &str) -> Result<Waivers, String> {
    let mut waivers = Waivers::default();
    waivers.parse(text, "w.toml", ["a.one", "a.two"].into_iter(), &host("Y"))?;
    Ok(waivers)
}

fn host(npt: &str) -> HostFacts {
    let mut host = HostFacts::read_under(Path::new("/nonexistent"));
    host.params.insert("kvm_amd.npt".into(), npt.into());
    host
}

const ONE: &str = "[[waiver]]\ncase = \"a.one\"\nreason = \"known\"\n";

#[test]
fn a_waived_deviation_is_expected_and_others_are_not() {
    let waivers = parse(&format!("{ONE}observed = \"0x7\"\nlink = \"L\"\n")).unwrap();
    let fail = |reason: &str| Outcome::new(Verdict::Fail, reason);
    let xfail = waivers.apply("a.one", &Combo::PLAIN, fail("rax is 0x7"));
    assert_eq!(xfail.verdict, Verdict::Xfail);
    assert_eq!(xfail.reason, "known, L (observed: rax is 0x7)");
    assert_eq!(waivers.behind("a.one", &xfail), waivers.get("a.one"));
    assert_eq!(waivers.behind("a.two", &xfail), None);
    assert_eq!(waivers.behind("a.one", &Outcome::new(Verdict::Xfail, "known (observed: x)")), None);
    let other = waivers.apply("a.one", &Combo::PLAIN, fail("rax is 0x8"));
    assert_eq!(other.verdict, Verdict::Fail);
    assert!(other.reason.contains("w.toml:2") && other.reason.contains("another deviation"));
    assert_eq!(
        waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Timeout, "0x7")).verdict,
        Verdict::Timeout
    );
    assert_eq!(waivers.apply("a.two", &Combo::PLAIN, fail("0x7")).verdict, Verdict::Fail);
    let mismatch = Mismatch { field: "rax".into(), expected: "0x1".into(), observed: "0x7".into() };
    let evidence = Evidence { mismatches: vec![mismatch], ..Evidence::default() };
    let seen = Outcome { evidence: Some(Box::new(evidence)), ..fail("rax") };
    assert_eq!(waivers.apply("a.one", &Combo::PLAIN, seen).verdict, Verdict::Xfail);
}

#[test]
fn a_deviation_can_differ_from_run_to_run() {
    let waivers = parse(&format!("{ONE}observed = [\"0x7\", \"0x8\"]\n")).unwrap();
    let verdict = |reason: &str| waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Fail, reason));
    assert_eq!(verdict("rax is 0x7").verdict, Verdict::Xfail);
    assert_eq!(verdict("rax is 0x8").verdict, Verdict::Xfail);
    let other = verdict("rax is 0x9");
    assert_eq!(other.verdict, Verdict::Fail);
    assert!(other.reason.contains("with `0x7` or `0x8`"), "{}", other.reason);
}

#[test]
fn a_waiver_can_be_for_perturbations_alone() {
    let under = "[[waiver]]\ncase = \"a.one\"\nreason = \"lost\"\nvary = [\"kick\"]\n";
    let waivers = parse(under).unwrap();
    let verdict = |waivers: &Waivers, vary: &[Vary], outcome| {
        waivers.apply("a.one", &Combo::new(vary.to_vec()), outcome).verdict
    };
    let fail = || Outcome::new(Verdict::Fail, "x");
    assert_eq!(verdict(&waivers, &[], fail()), Verdict::Fail);
    assert_eq!(verdict(&waivers, &[Vary::Kick], fail()), Verdict::Xfail);
    assert_eq!(verdict(&waivers, &[Vary::Kick, Vary::Migrate], fail()), Verdict::Xfail);
    assert_eq!(verdict(&waivers, &[Vary::Kick], Outcome::pass()), Verdict::Xpass);
    assert_eq!(verdict(&waivers, &[Vary::Migrate], fail()), Verdict::Fail);
    // With one for the case as it is.
    let both = parse(&format!("{under}{ONE}")).unwrap();
    assert_eq!(verdict(&both, &[], fail()), Verdict::Xfail);
    assert_eq!(verdict(&both, &[Vary::Migrate], fail()), Verdict::Xfail);
    assert_eq!(verdict(&both, &[Vary::Migrate], Outcome::pass()), Verdict::Pass, "it need not show");
    assert!(parse(&format!("{under}{under}")).unwrap_err().contains("second waiver"));
}

#[test]
fn a_stale_waiver_is_no_pass_and_a_skip_stays_one() {
    let waivers = parse(ONE).unwrap();
    let xpass = waivers.apply("a.one", &Combo::PLAIN, Outcome::pass());
    assert_eq!(xpass.verdict, Verdict::Xpass);
    assert!(xpass.reason.contains("remove the waiver"));
    assert_eq!(waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Skip, "")).verdict, Verdict::Skip);
}

#[test]
fn the_verdict_can_be_stated() {
    let waivers = parse(&format!("{ONE}expect = \"timeout\"\n")).unwrap();
    assert_eq!(
        waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Timeout, "x")).verdict,
        Verdict::Xfail
    );
    assert_eq!(
        waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Fail, "x")).verdict,
        Verdict::Fail
    );
}

#[test]
fn mistakes_have_a_place() {
    let error = |text: &str| parse(text).unwrap_err();
    let unknown = error("\n[[waiver]]\ncase = \"a.three\"\nreason = \"r\"\n");
    assert!(unknown.starts_with("w.toml:3:8: ") && unknown.contains("a.three"), "{unknown}");
    assert!(error(&format!("{ONE}{ONE}")).contains("second waiver"));
    assert!(error(&format!("{ONE}because = 1\n")).starts_with("w.toml:4:1: unknown field"));
    assert!(error(&format!("{ONE}expect = \"pass\"\n")).starts_with("w.toml:4:10: "));
    assert!(error("[[waiver]]\ncase = \"a.one\"\nreason = \" \"\n").contains("no reason"));
}

#[test]
fn what_deviates_at_times_may_hold() {
    let waivers = parse(&format!("{ONE}sometimes = true\n")).unwrap();
    let verdict = |outcome| waivers.apply("a.one", &Combo::PLAIN, outcome).verdict;
    assert_eq!(verdict(Outcome::pass()), Verdict::Pass);
    assert_eq!(verdict(Outcome::new(Verdict::Fail, "x")), Verdict::Xfail);
    assert!(!waivers.expects_deviation("a.one", &Combo::PLAIN), "nothing to expect");
}

#[test]
fn one_reason_can_be_that_of_several_cases() {
    let waivers = parse("[[waiver]]\ncases = [\"a.one\",\n  \"a.two\"]\nreason = \"r\"\n").unwrap();
    assert_eq!(waivers.get("a.one").unwrap().place, "w.toml:2");
    assert_eq!(waivers.get("a.two").unwrap().place, "w.toml:3");
    assert!(parse("[[waiver]]\nreason = \"r\"\n").unwrap_err().contains("names no case"));
}

#[test]
fn only_a_file_that_was_asked_for_must_exist() {
    let none = Path::new("/nonexistent/waivers.toml");
    let mut waivers = Waivers::default();
    assert!(waivers.add(none, false, std::iter::empty(), &host("Y")).is_ok());
    assert!(waivers.add(none, true, std::iter::empty(), &host("Y")).unwrap_err().contains("/nonexistent"));
}

#[test]
fn a_waiver_can_be_for_a_module_parameter_only() {
    let text = format!("{ONE}params = {{ \"kvm_amd.npt\" = \"0\" }}\n");
    let applies = |npt: &str| {
        let mut waivers = Waivers::default();
        waivers.parse(&text, "w.toml", ["a.one"].into_iter(), &host(npt)).unwrap();
        waivers.get("a.one").is_some()
    };
    assert_eq!([applies("Y"), applies("N")], [false, true]);
}

#[test]
fn two_files_add_up_and_do_not_contradict() {
    let mut waivers = parse(ONE).unwrap();
    let two = ONE.replace("a.one", "a.two");
    let cases = || ["a.one", "a.two"].into_iter();
    waivers.parse(&two, "bed.toml", cases(), &host("Y")).unwrap();
    assert!(waivers.get("a.one").is_some() && waivers.get("a.two").is_some());
    let error = waivers.parse(ONE, "bed.toml", cases(), &host("Y")).unwrap_err();
    assert!(error.contains("bed.toml:2:8") && error.contains("w.toml:2"), "{error}");
}

#[test]
fn what_a_host_does_to_any_case_under_a_variation_is_waived_once() {
    let wide = |scope: &str| {
        format!(
            "[[waiver]]\ncases = [\"{scope}\"]\nreason = \"wide\"\nvary = [\"kick\"]\nsometimes = true\nobserved = \"lost\"\n"
        )
    };
    let waivers = parse(&wide("*")).unwrap();
    let verdict = |waivers: &Waivers, vary: &[Vary], reason: &str| {
        waivers.apply("a.one", &Combo::new(vary.to_vec()), Outcome::new(Verdict::Fail, reason)).verdict
    };
    assert_eq!(verdict(&waivers, &[Vary::Kick], "it is lost"), Verdict::Xfail);
    assert_eq!(verdict(&waivers, &[Vary::Kick], "it came twice"), Verdict::Fail);
    assert_eq!(verdict(&waivers, &[], "it is lost"), Verdict::Fail);
    assert_eq!(waivers.apply("a.one", &Combo::new(vec![Vary::Kick]), Outcome::pass()).verdict, Verdict::Pass);
    let lost =
        waivers.apply("a.one", &Combo::new(vec![Vary::Kick]), Outcome::new(Verdict::Fail, "it is lost"));
    assert_eq!(waivers.behind("a.one", &lost).map(|waiver| waiver.reason.as_str()), Some("wide"));
    // Beside a case's own.
    let both = parse(&format!("{ONE}observed = \"0x7\"\n{}", wide("a.*"))).unwrap();
    assert_eq!(verdict(&both, &[Vary::Kick], "it is lost"), Verdict::Xfail);
    assert_eq!(verdict(&both, &[Vary::Kick], "rax is 0x7"), Verdict::Xfail);
    let error = |text: &str| parse(text).unwrap_err();
    assert!(error(&wide("b.*")).contains("no such family"));
    assert!(error(&wide("a*")).contains("no such case"));
    for needed in ["vary = [\"kick\"]\n", "sometimes = true\n", "observed = \"lost\"\n"] {
        assert!(error(&wide("*").replace(needed, "")).contains("more than single cases"), "{needed}");
    }
}

#[test]
fn a_waiver_can_be_for_some_releases_only() {
    let applies = |keys: &str| {
        ["", "odd", "5.10.0-46-amd64", "6.12.9", "7.1.0-rc1", "7.2.13"].map(|kernel| {
            let host = HostFacts { kernel: kernel.into(), ..host("Y") };
            let mut waivers = Waivers::default();
            waivers.parse(&format!("{ONE}{keys}"), "w.toml", ["a.one"].into_iter(), &host).unwrap();
            waivers.get("a.one").is_some()
        })
    };
    assert_eq!(applies("before = \"7.1\"\n"), [true, true, true, true, false, false]);
    assert_eq!(applies("since = \"6.12\"\n"), [false, false, false, true, true, true]);
    assert_eq!(applies("since = \"5.13\"\nbefore = \"7.2\"\n"), [false, false, false, true, true, false]);
    let error = |keys: &str| parse(&format!("{ONE}{keys}")).unwrap_err();
    let odd = error("before = \"7.1.3\"\n");
    assert!(odd.starts_with("w.toml:4:10: ") && odd.contains("`7.1.3` is no series"), "{odd}");
    let never = error("since = \"7.1\"\nbefore = \"7.1\"\n");
    assert!(never.starts_with("w.toml:5:10: ") && never.contains("later release"), "{never}");
}

#[test]
fn a_deviation_can_differ_from_release_to_release() {
    let text =
        format!("{ONE}observed = \"0x7\"\nbefore = \"6.0\"\n{ONE}observed = \"0x8\"\nsince = \"6.0\"\n");
    let verdict = |kernel: &str, reason: &str| {
        let host = HostFacts { kernel: kernel.into(), ..host("Y") };
        let mut waivers = Waivers::default();
        waivers.parse(&text, "w.toml", ["a.one"].into_iter(), &host).unwrap();
        waivers.apply("a.one", &Combo::PLAIN, Outcome::new(Verdict::Fail, reason)).verdict
    };
    assert_eq!(verdict("5.10.0", "rax is 0x7"), Verdict::Xfail);
    assert_eq!(verdict("5.10.0", "rax is 0x8"), Verdict::Fail);
    assert_eq!(verdict("6.1.0", "rax is 0x8"), Verdict::Xfail);
}
