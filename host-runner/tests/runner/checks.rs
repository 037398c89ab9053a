//! What a user of the runner relies on.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use exitspec::outcome::Verdict;
use libtest_mimic::Trial;
use nix::sys::stat::Mode;

use crate::certificates::{
    a_certificate_is_of_one_suite, a_run_of_a_profile_is_certified, an_edit_of_a_certificate_shows,
    only_a_whole_run_of_this_suite_is_certified, skips_stale_waivers_and_deviations_are_no_certificate,
    two_runs_must_say_the_same,
};
use crate::fake::REAL_DEVICE;
use crate::interrupts::{
    a_second_signal_ends_a_run_at_once, a_signal_ends_a_run_in_order, a_signal_ends_a_soak,
    an_interrupted_stream_of_json_stays_one,
};
use crate::lab::Lab;
use crate::reports::{
    a_killed_run_is_reported_with_what_it_lacks, mistakes_of_manifests_are_reported, no_text_breaks_a_format,
    no_verdict_is_lost_in_any_format, reports_are_written_at_the_end_of_a_run, where_reports_go,
};
use crate::shards::{
    a_host_that_a_profile_is_not_for_is_told_so, a_profile_names_only_what_is_there,
    a_profile_selects_its_cases_and_variations, a_shard_is_listed_and_resumed_as_it_is,
    every_test_is_in_one_shard_and_the_journal_says_which,
};
use crate::terminal::{
    a_green_run_on_a_terminal_is_short, a_terminal_is_shown_each_failure_once, a_terminal_shows_what_runs,
    colours_are_for_terminals_that_want_them, json_is_all_that_is_on_standard_output,
    what_is_piped_has_a_line_for_each_test, who_is_watched_elsewhere_tells_of_failures_alone,
};
use crate::variations::{
    a_failure_is_shrunk_and_can_be_repeated, a_killed_run_goes_on_with_its_variations,
    a_resumed_run_forgets_what_it_was_begun_with, a_seed_decides_everything,
    a_soak_refuses_what_it_would_ignore, a_soak_tells_a_deviation_once_and_counts_it,
    tests_are_named_and_counted, waivers_know_variations, what_is_left_out_says_why,
};

pub(crate) fn all() -> Vec<Trial> {
    macro_rules! trials {
        ($($name:ident),* $(,)?) => { vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) })),*] };
    }
    trials![
        all_good_is_zero,
        every_way_to_die_costs_one_case,
        a_panic_is_an_error_with_its_place,
        a_hanging_case_is_killed,
        a_case_that_cannot_be_killed_costs_its_worker,
        a_lost_worker_costs_its_case,
        a_flood_is_bounded,
        a_kernel_report_fails_its_case,
        a_killed_run_is_resumed,
        a_signal_ends_a_run_in_order,
        an_interrupted_stream_of_json_stays_one,
        a_second_signal_ends_a_run_at_once,
        a_signal_ends_a_soak,
        a_machine_that_died_is_a_crash,
        only_what_was_running_is_lost,
        what_is_forced_stays_forced,
        runs_are_compared,
        what_changed_between_runs_is_said,
        a_bed_has_its_own_waivers,
        a_changed_suite_is_not_resumed,
        waivers_expect_and_rot,
        nothing_run_is_never_green,
        usage_and_manifests,
        an_absent_device,
        listing_opens_no_device,
        under_nextest,
        filters,
        tests_are_named_and_counted,
        a_failure_is_shrunk_and_can_be_repeated,
        what_is_left_out_says_why,
        waivers_know_variations,
        a_killed_run_goes_on_with_its_variations,
        a_soak_tells_a_deviation_once_and_counts_it,
        every_test_is_in_one_shard_and_the_journal_says_which,
        a_shard_is_listed_and_resumed_as_it_is,
        a_profile_selects_its_cases_and_variations,
        a_profile_names_only_what_is_there,
        a_host_that_a_profile_is_not_for_is_told_so,
        a_run_of_a_profile_is_certified,
        skips_stale_waivers_and_deviations_are_no_certificate,
        only_a_whole_run_of_this_suite_is_certified,
        an_edit_of_a_certificate_shows,
        a_certificate_is_of_one_suite,
        two_runs_must_say_the_same,
        a_terminal_shows_what_runs,
        a_green_run_on_a_terminal_is_short,
        a_terminal_is_shown_each_failure_once,
        who_is_watched_elsewhere_tells_of_failures_alone,
        colours_are_for_terminals_that_want_them,
        what_is_piped_has_a_line_for_each_test,
        json_is_all_that_is_on_standard_output,
        no_verdict_is_lost_in_any_format,
        no_text_breaks_a_format,
        a_killed_run_is_reported_with_what_it_lacks,
        reports_are_written_at_the_end_of_a_run,
        where_reports_go,
        mistakes_of_manifests_are_reported,
        a_soak_refuses_what_it_would_ignore,
        a_resumed_run_forgets_what_it_was_begun_with,
        a_seed_decides_everything,
    ]
}

fn all_good_is_zero() {
    let lab = Lab::new("t.pass1,t.pass2,t.needs-cap");
    let ran = lab.run(&[]);
    ran.ends(0).says("2 passed, 0 failed, 1 skipped").says("needs KVM_CAP_NO_SUCH").says("results.jsonl");
    assert_eq!(lab.verdict("t.needs-cap"), Verdict::Skip);
    assert!(!lab.runs().contains(&"t.needs-cap".to_owned()));
    assert!(fs::canonicalize(lab.path("runs/latest")).unwrap().join("results.jsonl").exists());
    Lab::finish(lab.command(&[]).arg("--include-ignored")).ends(0).says("3 passed");
}

fn every_way_to_die_costs_one_case() {
    let lab = Lab::new(
        "t.abort,t.pass1,t.segv,t.exit,t.exit-three-3,t.leak,t.huge,t.fail,t.timeout,t.error,t.pass2",
    );
    let ran = lab.run(&["--test-threads=2"]);
    ran.ends(1).says("2 passed, 9 failed, 0 skipped").says("cargo xtask test --exact t.segv");
    let outcomes = lab.outcomes();
    let is = |case: &str, verdict: Verdict, words: &str| {
        let outcome = &outcomes[case];
        assert!(outcome.verdict == verdict && outcome.reason.contains(words), "{case}: {outcome:?}");
    };
    is("t.abort", Verdict::Crash, "SIGABRT");
    is("t.segv", Verdict::Crash, "SIGSEGV");
    is("t.exit", Verdict::Crash, "exited with 0 and gave no result");
    is("t.exit-three-3", Verdict::Crash, "status 3");
    is("t.leak", Verdict::Crash, "SIGABRT");
    is("t.huge", Verdict::Error, "longer than");
    is("t.fail", Verdict::Fail, "rax is 0x7");
    is("t.timeout", Verdict::Timeout, "5 ms");
    is("t.error", Verdict::Error, "broken");
    is("t.pass2", Verdict::Pass, "");
    let stderr = &outcomes["t.leak"].evidence.as_ref().unwrap().stderr;
    assert!(stderr.iter().any(|line| line.contains("memory allocation of")), "{stderr:?}");
}

fn a_panic_is_an_error_with_its_place() {
    let lab = Lab::new("t.panic");
    lab.run(&[]).ends(1).says("the harness panicked: a bug of ours").says("fake.rs:");
    assert_eq!(lab.verdict("t.panic"), Verdict::Error);
}

fn a_hanging_case_is_killed() {
    let lab = Lab::new("t.hang,t.spin,t.pass");
    lab.run(&["--timeout-scale=0.01", "--test-threads=1"]).ends(1).says("not done after 0.3 s; killed");
    assert_eq!(lab.verdict("t.hang"), Verdict::Timeout);
    assert_eq!(lab.verdict("t.spin"), Verdict::Timeout);
    assert_eq!(lab.verdict("t.pass"), Verdict::Pass);
}

fn a_case_that_cannot_be_killed_costs_its_worker() {
    let lab = Lab::new("t.immortal,t.pass");
    lab.run(&["--timeout-scale=0.01", "--test-threads=1"]).ends(1).says("another takes over");
    assert_eq!(lab.verdict("t.immortal"), Verdict::Timeout);
    assert_eq!(lab.verdict("t.pass"), Verdict::Pass);
}

fn a_lost_worker_costs_its_case() {
    let lab = Lab::new("t.orphaned,t.pass");
    lab.run(&["--test-threads=1"]).ends(1).says("its worker process is lost").says("signal: 9");
    assert_eq!(lab.verdict("t.orphaned"), Verdict::Crash);
    assert_eq!(lab.verdict("t.pass"), Verdict::Pass);
}

fn a_flood_is_bounded() {
    let lab = Lab::new("t.flood");
    let ran = lab.run(&[]);
    ran.ends(1).says("the last words");
    assert!(ran.out.len() < 20_000 && fs::metadata(lab.journal()).unwrap().len() < 40_000);
}

fn a_kernel_report_fails_its_case() {
    let lab = Lab::new("t.pass,t.warning");
    let kmsg = lab.path("kmsg");
    nix::unistd::mkfifo(&kmsg, Mode::S_IRWXU).unwrap();
    let log = format!("--kernel-log={}", kmsg.display());
    lab.run(&[&log]).ends(1).says("the kernel reported: WARNING: CPU: 0 PID: ").says("end trace");
    assert_eq!(lab.verdict("t.warning"), Verdict::Fail);
    assert_eq!(lab.verdict("t.pass"), Verdict::Pass);
    // Threads, and processes that it has moved on to, have its name.
    let lab = Lab::new("t.moved");
    let kmsg = lab.path("kmsg");
    nix::unistd::mkfifo(&kmsg, Mode::S_IRWXU).unwrap();
    lab.run(&[&format!("--kernel-log={}", kmsg.display())]).ends(1).says("Comm: es-case-");
    let evidence = &lab.outcomes()["t.moved"].evidence;
    let log = &evidence.as_ref().unwrap().kernel_log;
    assert!(!log.iter().any(|line| line.contains("names no")), "{log:?}");
    Lab::new("t.pass").run(&["--kernel-log=/nonexistent/kmsg"]).ends(0).says("the kernel log is not watched");
}

/// Starts a run and kills it while the case `gate` runs.
pub(crate) fn die_at_the_gate(lab: &Lab, more: &[&str]) {
    let mut command = lab.command(&["--test-threads=1"]);
    let mut supervisor = command.args(more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = wait_for("the gate case to run", || {
        fs::read_to_string(lab.path("gate.pid")).ok()?.trim().parse::<i32>().ok()
    });
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    wait_for("the case's process to go with its supervisor", || is_gone(pid).then_some(()));
}

fn a_killed_run_is_resumed() {
    let lab = Lab::new("t.pass1,t.gate,t.pass2");
    die_at_the_gate(&lab, &[]);

    // The kill hit in the middle of a line.
    let journal = lab.journal();
    let mut text = fs::read(&journal).unwrap();
    text.extend(b"{\"event\":\"finished\",\"case\":\"t.ga");
    fs::write(&journal, &text).unwrap();
    fs::write(lab.path("gate.open"), "").unwrap();
    lab.run(&["--resume", "--test-threads=1"]).ends(0).says("3 passed, 0 failed, 0 skipped");

    assert_eq!(lab.journal(), journal, "the same file goes on");
    assert_eq!(lab.runs(), ["t.pass1", "t.gate", "t.gate", "t.pass2"]);
    let text = fs::read_to_string(&journal).unwrap();
    for case in ["t.pass1", "t.gate", "t.pass2"] {
        let line = format!("{{\"event\":\"finished\",\"case\":\"{case}\"");
        assert_eq!(text.lines().filter(|found| found.starts_with(&line)).count(), 1, "{case}");
    }
    // A run that is complete has nothing left to do, and keeps its verdicts.
    lab.run(&["--resume"]).ends(0).says("3 passed");
    assert_eq!(lab.runs().len(), 4);
}

fn a_machine_that_died_is_a_crash() {
    let lab = Lab::new("t.pass1,t.gate,t.pass2");
    let (first, second) = (lab.path("first"), lab.path("second"));
    let mirror = |path: &std::path::Path| format!("--mirror={}", path.display());
    die_at_the_gate(&lab, &[&mirror(&first), "--bed=amd"]);
    let seen = fs::read_to_string(&first).unwrap();
    assert_eq!(seen, fs::read_to_string(lab.journal()).unwrap(), "the mirror has every line");
    assert!(seen.lines().last().unwrap().contains("\"event\":\"started\",\"case\":\"t.gate\""));

    let console = lab.path("console");
    fs::write(&console, format!("Kernel panic - not syncing\n{}\n", "x".repeat(5000))).unwrap();
    let console = format!("--console={}", console.display());
    lab.run(&["--lost=crash"]).ends(2);
    lab.run(&["--resume", "--lost=crash"]).ends(2).says("--running");
    lab.run(&["--resume", "--bed=intel"]).ends(2).says("the bed is `intel` now and was `amd`");
    let lost = ["--resume", "--lost=crash", "--running=t.gate", &console, "--bed=amd", &mirror(&second)];
    let ran = lab.run(&lost);
    ran.ends(1).says("2 passed, 1 failed, 0 skipped").says("Kernel panic - not syncing");
    assert_eq!(lab.verdict("t.gate"), Verdict::Crash);
    let outcome = &lab.outcomes()["t.gate"];
    assert!(outcome.reason.contains("Kernel panic"), "{outcome:?}");
    assert!(outcome.evidence.as_ref().unwrap().kernel_log[1].len() < 1000, "bounded");
    assert_eq!(lab.runs(), ["t.pass1", "t.gate", "t.pass2"], "what killed the machine is not played again");
    let whole = fs::read_to_string(lab.journal()).unwrap();
    assert_eq!(whole, seen + &fs::read_to_string(&second).unwrap(), "the second mirror has what is new");
}

fn only_what_was_running_is_lost() {
    let lab = Lab::new("t.pass1,t.gate,t.pass2");
    die_at_the_gate(&lab, &[]);
    // The run was stopped there, and the next machine died of another case.
    let mut journal = fs::OpenOptions::new().append(true).open(lab.journal()).unwrap();
    journal.write_all(b"{\"event\":\"started\",\"case\":\"t.pass2\",\"at\":\"later\"}\n").unwrap();
    drop(journal);
    fs::write(lab.path("gate.open"), "").unwrap();
    let console = lab.path("console");
    fs::write(&console, "the last words of its boot\n").unwrap();
    let console = format!("--console={}", console.display());
    lab.run(&["--resume", "--lost=timeout", "--running=t.pass2", "--running=t.pass1", &console]).ends(1);
    assert_eq!(lab.verdict("t.pass2"), Verdict::Timeout);
    let outcome = &lab.outcomes()["t.pass2"];
    assert_eq!(outcome.reason, "the machine hung while this case ran", "words of before are no reason");
    assert_eq!(outcome.evidence.as_ref().unwrap().kernel_log, ["the last words of its boot"]);
    assert_eq!(lab.verdict("t.gate"), Verdict::Pass);
    assert_eq!(lab.verdict("t.pass1"), Verdict::Pass, "it has its verdict");
    assert_eq!(lab.runs(), ["t.pass1", "t.gate", "t.gate"]);
}

fn what_is_forced_stays_forced() {
    for option in ["--include-ignored", "--ignored"] {
        let lab = Lab::new("t.gate,t.needs-cap.gate,t.needs-cap.pass");
        // With --ignored only the latter two are selected.
        die_at_the_gate(&lab, &[option]);
        fs::write(lab.path("gate.open"), "").unwrap();
        lab.run(&["--resume"]).ends(0).says("0 skipped");
        assert_eq!(lab.verdict("t.needs-cap.pass"), Verdict::Pass, "{option}");
        lab.run(&["--resume", option]).ends(2);
    }
}

fn runs_are_compared() {
    let lab = Lab::new("t.pass1,t.fail,t.needs-cap");
    let compare = |runs: &[&std::path::Path]| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.env(crate::fake::CASES, "t.pass1").arg("compare").args(runs);
        Lab::finish(&mut command)
    };
    lab.run(&["pass1"]).ends(0);
    let good = lab.journal();
    assert!(compare(&[&good]).ends(0).out.contains("held"));
    lab.run(&[]).ends(1);
    let bad = lab.journal();
    let table = compare(&[&good, &bad]);
    table.ends(1).says(" 2  local, Linux");
    let row = |case: &str| table.out.lines().find(|line| line.starts_with(case)).map(str::to_owned);
    assert_eq!(row("t.fail").unwrap().split_whitespace().collect::<Vec<_>>(), ["t.fail", "-", "fail"]);
    assert!(row("t.needs-cap").unwrap().ends_with("skip"));
    assert_eq!(row("t.pass1"), None, "it is a pass in both");
    assert!(compare(&[&good, &bad, std::path::Path::new("--all")]).out.contains("\nt.pass1 "));
    compare(&[std::path::Path::new("/nonexistent")]).ends(2).says("no such run");
}

fn what_changed_between_runs_is_said() {
    let lab = Lab::new("t.pass1,t.fail");
    let run = |waivers: &str| {
        fs::write(lab.path("manifests/waivers/bed-local.toml"), waivers).unwrap();
        lab.run(&[]);
        lab.journal().display().to_string()
    };
    let diff = |words: &[&str]| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.env(crate::fake::CASES, "t.pass1").arg("diff").args(words);
        Lab::finish(&mut command)
    };
    let (one, same) = (run(""), run(""));
    let other = run("[[waiver]]\ncase = \"t.fail\"\nreason = \"known\"\n");
    assert_eq!(diff(&[&one, &same]).ends(0).out, "nothing changed\n");
    let text = &diff(&[&one, &other]).ends(1).out.clone();
    assert!(
        text.contains("verdict  t.fail: fail -> xfail") && text.contains("the waivers have changed"),
        "{text}"
    );
    assert!(!text.contains("t.pass1") && !text.contains("host "), "{text}");
    let json = diff(&[&one, &other, "--format=json"]).ends(1).out.clone();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdicts"][0]["after"]["verdict"], "xfail");
    diff(&[&one, "/nonexistent"]).ends(2).says("no such run");
    diff(&[&one]).ends(2).says("RUN_B");
}

fn a_bed_has_its_own_waivers() {
    let lab = Lab::new("t.fail");
    let text = "[[waiver]]\ncase = \"t.fail\"\nreason = \"the emulator's\"\n";
    fs::write(lab.path("manifests/waivers/bed-amd.toml"), text).unwrap();
    lab.run(&[]).ends(1);
    lab.run(&["--bed=amd"]).ends(0).says("the emulator's").says("bed amd");
    lab.run(&["--bed=../x"]).ends(2).says("lower-case letters");
}

fn a_changed_suite_is_not_resumed() {
    let lab = Lab::new("t.pass");
    lab.run(&["--resume"]).ends(2).says("there is no run");
    lab.run(&[]).ends(0);
    fs::write(lab.path("manifests/new.toml"), "x").unwrap();
    lab.run(&["--resume"]).ends(2).says("the manifests have changed");
    fs::remove_file(lab.path("manifests/new.toml")).unwrap();
    lab.run(&["--resume", "--seed=5"]).ends(2).says("its seed is 1");
    lab.run(&["--resume=nowhere"]).ends(2).says("no such run");
    lab.run(&["--resume"]).ends(0);
    let whole = fs::read_to_string(lab.journal()).unwrap();
    for (field, words) in
        [("\"runner\":\"", "the runner has changed"), ("\"build\":\"", "the kernel's build is")]
    {
        fs::write(lab.journal(), whole.replacen(field, &format!("{field}0"), 1)).unwrap();
        lab.run(&["--resume"]).ends(2).says(words);
    }
}

fn waivers_expect_and_rot() {
    let lab = Lab::new("t.fail,t.pass");
    let waive = |case: &str, more: &str| {
        lab.waivers(&format!("[[waiver]]\ncase = \"{case}\"\nreason = \"known\"\n{more}\n"))
    };
    let known = waive("t.fail", "observed = \"0x7\"");
    lab.run(&[&known]).ends(0).says("[xfail] t.fail").says("1 deviated as waived");
    assert_eq!(lab.verdict("t.fail"), Verdict::Xfail);
    lab.run(&["--no-waivers"]).ends(1);
    assert_eq!(lab.verdict("t.fail"), Verdict::Fail);
    lab.run(&[&waive("t.fail", "observed = \"0x8\"")]).ends(1).says("another deviation");
    lab.run(&[&waive("t.fail", "expect = \"crash\"")]).ends(1).says("waives crash");
    lab.run(&[&waive("t.pass", ""), "pass"]).ends(1).says("remove the waiver");
    assert_eq!(lab.verdict("t.pass"), Verdict::Xpass);
    lab.run(&[&waive("t.gone", "")]).ends(2).says("waivers.toml:2:8: a waiver for `t.gone`");
    lab.run(&[&waive("t.fail", "becuse = 1")]).ends(2).says("waivers.toml:4:1: unknown field");
}

fn nothing_run_is_never_green() {
    let lab = Lab::new("t.pass,t.needs-cap");
    lab.run(&["nonsense"]).ends(4).says("no case matches");
    lab.run(&["needs-cap"]).ends(4).says("every case was skipped").says("0 passed, 0 failed, 1 skipped");
}

fn usage_and_manifests() {
    let lab = Lab::new("t.pass");
    lab.run(&["--no-such-flag"]).ends(2);
    lab.run(&["--timeout-scale=0"]).ends(2).says("above 0");
    lab.run(&["--waivers=/nonexistent/w.toml"]).ends(2).says("/nonexistent/w.toml");
    Lab::new("broken").run(&[]).ends(2).says("m.toml:1:1: a mistake");
}

fn an_absent_device() {
    let lab = Lab::new("t.pass");
    let mut command = lab.command(&["--device=/nonexistent/kvm"]);
    Lab::finish(command.env(REAL_DEVICE, "1"))
        .ends(3)
        .says("/nonexistent/kvm does not exist")
        .says("modprobe");
    assert!(lab.runs().is_empty());
}

fn listing_opens_no_device() {
    let lab = Lab::new("t.pass,t.needs-cap");
    let mut command = lab.command(&["--list", "--format=terse", "--device=/nonexistent/kvm"]);
    let ran = Lab::finish(command.env(REAL_DEVICE, "1"));
    assert_eq!(ran.ends(0).out, "t.pass: test\nt.needs-cap: test\n");
    assert!(!lab.path("runs").exists(), "listing leaves nothing behind");

    // The path that the kernel is asked for tells more than a failure to open could.
    let trace = lab.path("trace");
    let subject = lab.command(&["--list"]);
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-e", "trace=open,openat,openat2,execve,fork,vfork", "-o"]).arg(&trace);
    strace.arg(subject.get_program()).args(subject.get_args());
    for (name, value) in subject.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    match strace.output() {
        Ok(output) if output.status.success() => {
            let text = fs::read_to_string(&trace).unwrap();
            assert!(text.contains("/proc/cpuinfo") && !text.contains("\"/dev/"), "{text}");
            assert_eq!(text.matches("execve(").count(), 1, "{text}");
        }
        // Without strace or ptrace there is the device that does not exist, above.
        _ => {}
    }
}

fn under_nextest() {
    let lab = Lab::new("t.pass,t.needs-cap");
    let nextest = |arguments: &[&str]| Lab::finish(lab.command(arguments).env("NEXTEST", "1"));
    nextest(&["--exact", "t.pass", "--nocapture"]).ends(0);
    nextest(&["--exact", "t.needs-cap", "--nocapture"]).ends(1).says("exitspec host");
    let place = format!("--run-dir={}", lab.path("runs").display());
    let mut host = std::process::Command::new(std::env::current_exe().unwrap());
    Lab::finish(host.env(crate::fake::CASES, "t.pass").args(["host", &place])).ends(0);
    let listed = nextest(&["--list", "--format=terse", "--ignored"]);
    assert_eq!(listed.ends(0).out, "t.needs-cap: test\n");
    let known = lab.waivers("[[waiver]]\ncase = \"t.pass\"\nreason = \"r\"\n");
    assert!(nextest(&["--list", &known]).ends(0).out.starts_with("[xfail] t.pass: test\n"));
    nextest(&["--exact", "[xfail] t.pass", &known]).ends(1).says("xpass");
}

fn filters() {
    let lab = Lab::new("a.pass1,a.pass2,b.pass1,c.fail");
    lab.run(&["a.pass1", "b.", "--skip=c"]).ends(0).says("2 passed");
    lab.run(&["a.pass", "--exact"]).ends(4);
}

/// Waits for something that must come; the bound only ends a test that would otherwise hang.
pub(crate) fn wait_for<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = is() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_mins(2), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Gone, or a zombie that nobody has reaped yet.
pub(crate) fn is_gone(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}
