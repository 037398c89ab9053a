use super::*;
use crate::prove::journal::Setting;

fn seen(verdict: &str) -> Seen {
    Seen { verdict: verdict.into(), reason: String::new() }
}

fn cases(list: &str) -> BTreeMap<String, Seen> {
    let words = list.split_whitespace().map(|word| word.split_once('=').unwrap());
    words.map(|(case, verdict)| (case.to_owned(), seen(verdict))).collect()
}

fn bug(proof: Proof) -> Bug {
    Bug::of_test("f.b", proof)
}

fn anywhere(list: &str) -> Bug {
    bug(Proof::Anywhere(list.split_whitespace().map(str::to_owned).collect()))
}

fn trial(bed: Kind, before: &str, with: &str) -> Trial {
    let before = cases(before);
    Trial {
        bug: "f.b".into(),
        edits: "e".into(),
        release: "6.12.117".into(),
        setting: Setting { bed, params: "default".into(), kernel: "k".into(), suite: "s".into() },
        asked: before.keys().cloned().collect(),
        cases: cases(with),
        before,
        trouble: None,
        seconds: 1.0,
    }
}

fn amd(bug: &Bug, before: &str, with: &str) -> Verdict {
    judge(bug, false, &[&trial(Kind::Amd, before, with)]).verdict
}

#[test]
fn a_bug_is_caught_if_every_expected_case_fails_that_held() {
    let bug = anywhere("a b");
    for (with, verdict) in [
        ("a=fail b=fail", Verdict::Caught),
        ("a=fail b=timeout", Verdict::Caught),
        ("a=fail b=xpass", Verdict::Caught),
        ("a=fail b=pass", Verdict::Partly),
        ("a=fail b=xfail", Verdict::Partly),
        ("a=fail", Verdict::Partly),
        ("a=pass b=pass", Verdict::Missed),
        ("a=pass b=pass c=fail", Verdict::Missed),
        ("a=error b=fail", Verdict::WrongReason),
        ("a=crash b=fail", Verdict::WrongReason),
    ] {
        assert_eq!(amd(&bug, "a=pass b=xfail c=pass", with), verdict, "{with}");
    }
}

#[test]
fn what_fails_without_the_bug_proves_nothing() {
    assert_eq!(amd(&anywhere("a"), "a=fail", "a=fail"), Verdict::WrongReason);
    assert_eq!(amd(&anywhere("a"), "a=error", "a=fail"), Verdict::WrongReason);
    let judged =
        judge(&anywhere("a"), false, &[&trial(Kind::Amd, "a=pass c=fail d=skip", "a=fail c=fail d=fail")]);
    assert!(judged.beds[&Kind::Amd].others.is_empty());
}

#[test]
fn a_bug_that_kills_the_kernel_must_do_so_in_the_right_case() {
    let mut bug = anywhere("a b");
    bug.crash = true;
    for (with, verdict) in [
        ("a=crash b=fail", Verdict::Caught),
        ("a=crash b=pass", Verdict::Partly),
        ("a=fail b=fail", Verdict::WrongReason),
        ("a=pass b=pass c=crash", Verdict::Missed),
    ] {
        assert_eq!(amd(&bug, "a=pass b=pass c=pass", with), verdict, "{with}");
    }
}

#[test]
fn a_run_that_ended_early_leaves_cases_without_a_verdict() {
    let mut lost = trial(Kind::Amd, "a=pass", "");
    lost.trouble = Some("the kernel died".into());
    let judged = judge(&anywhere("a"), false, &[&lost]);
    assert_eq!(judged.verdict, Verdict::WrongReason);
    assert!(judged.beds[&Kind::Amd].remarks.iter().any(|remark| remark.contains("the kernel died")));
}

#[test]
fn a_list_wants_each_case_in_one_bed_and_a_table_in_each() {
    let list = anywhere("svm vmx");
    let first = trial(Kind::Amd, "svm=pass vmx=skip", "svm=fail vmx=skip");
    // The other bed has not run.
    assert_eq!(judge(&list, false, &[&first]).verdict, Verdict::Caught);
    let holds = trial(Kind::Intel, "svm=skip vmx=pass", "svm=skip vmx=pass");
    assert_eq!(judge(&list, false, &[&first, &holds]).verdict, Verdict::Partly);
    let fails = trial(Kind::Intel, "svm=skip vmx=pass", "svm=skip vmx=fail");
    assert_eq!(judge(&list, false, &[&first, &fails]).verdict, Verdict::Caught);

    let each = [(Kind::Amd, vec!["svm".to_owned()]), (Kind::Intel, vec!["vmx".to_owned()])];
    let table = bug(Proof::Each(each.into()));
    assert_eq!(judge(&table, false, &[&first, &holds]).verdict, Verdict::Partly);
    assert_eq!(judge(&table, false, &[&first, &fails]).verdict, Verdict::Caught);
    // What is expected where it cannot run is a mistake.
    let skipped = trial(Kind::Intel, "vmx=skip", "vmx=skip");
    assert_eq!(judge(&table, false, &[&first, &skipped]).verdict, Verdict::Partly);
    let nowhere = trial(Kind::Amd, "a=skip", "a=skip");
    assert_eq!(judge(&anywhere("a"), false, &[&nowhere]).verdict, Verdict::Open);
}

#[test]
fn an_argument_holds_until_a_case_fails() {
    let bug = bug(Proof::Unobservable("slow".into()));
    assert_eq!(judge(&bug, false, &[]).verdict, Verdict::Unobservable);
    assert_eq!(amd(&bug, "a=pass", "a=pass"), Verdict::Unobservable);
    assert_eq!(amd(&bug, "a=pass", "a=fail"), Verdict::Refuted);
    assert_eq!(judge(&bug, true, &[]).verdict, Verdict::Unbuildable);
    assert_eq!(judge(&anywhere("a"), false, &[]).verdict, Verdict::Open);
}

#[test]
fn expected_cases_are_named_before_others() {
    let judged = judge(&anywhere("z"), false, &[&trial(Kind::Amd, "a=pass z=pass", "a=fail z=fail")]);
    assert_eq!(judged.caught_by(Kind::Amd), ["z", "a"]);
    assert!(judged.caught_by(Kind::Intel).is_empty());
}
