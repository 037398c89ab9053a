//! What a signal that ends a run leaves behind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use exitspec::journal::Recovered;
use exitspec::outcome::Verdict;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde_json::Value;

use crate::checks::{is_gone, wait_for};
use crate::lab::{Lab, Ran};

/// A run in a process group of its own, as a shell starts it, that has come to the case `gate`; that case's process.
fn at_the_gate(lab: &Lab, arguments: &[&str]) -> (Child, i32) {
    let mut command = lab.command(arguments);
    let command = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let runner = command.spawn().unwrap();
    let case = wait_for("the gate case to run", || {
        fs::read_to_string(lab.path("gate.pid")).ok()?.lines().last()?.parse::<i32>().ok()
    });
    (runner, case)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn end_of(runner: Child) -> Ran {
    let output = runner.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn a_signal_ends_a_run_in_order() {
    let told = [(Signal::SIGINT, 130, "2"), (Signal::SIGINT, 130, "1"), (Signal::SIGTERM, 143, "1")];
    for (signal, status, threads) in told {
        let lab = Lab::new("t.pass1,t.gate,t.needs-cap,t.gate2,t.pass2,t.pass3");
        let folder = lab.path("reports");
        let threads = format!("--test-threads={threads}");
        let (runner, case) = at_the_gate(&lab, &[&threads, "--report-dir", folder.to_str().unwrap()]);
        wait_for("the first verdict", || {
            Recovered::read(&lab.journal()).ok()?.finished.contains_key("t.pass1").then_some(())
        });
        // A terminal tells the whole group, and `kill` one process.
        if signal == Signal::SIGINT { killpg(pid(&runner), signal) } else { kill(pid(&runner), signal) }
            .unwrap();
        let ran = end_of(runner);
        ran.ends(status).says(&format!("ended    by {signal}: 4 of 6 tests have no verdict"));
        assert!(
            ran.out.contains("\nskip     1 ("),
            "what the summary says has lines of its own: {}",
            ran.out
        );
        assert_eq!(ran.out.lines().last(), Some("1 passed, 0 failed, 1 skipped"), "{}", ran.out);
        assert!(!ran.out.contains("t.pass3") && !ran.out.contains("test result"), "{}", ran.out);
        wait_for("the case's process to go", || is_gone(case).then_some(()));
        assert!(!lab.runs().contains(&"t.pass3".to_owned()), "nothing is started any more");

        let journal = fs::read_to_string(lab.journal()).unwrap();
        assert!(journal.ends_with('\n'));
        for line in journal.lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
        let found = Recovered::read(&lab.journal()).unwrap();
        let verdicts: Vec<_> =
            found.finished.iter().map(|(name, outcome)| (name.as_str(), outcome.verdict)).collect();
        assert_eq!(verdicts, [("t.needs-cap", Verdict::Skip), ("t.pass1", Verdict::Pass)]);
        let ktap = fs::read_to_string(folder.join("ktap.txt")).unwrap();
        assert!(ktap.contains("not ok 2 t.gate # ERROR it was started"), "{ktap}");
        assert!(ktap.contains("not ok 6 t.pass3 # ERROR it was selected and not started"), "{ktap}");
        assert!(ktap.contains("\nnot ok 1 exitspec\n"), "{ktap}");

        let again = ran.out.lines().find_map(|line| line.split_once("cargo xtask test --resume=")).unwrap().1;
        fs::write(lab.path("gate.open"), "").unwrap();
        lab.run(&[&format!("--resume={again}")]).ends(0).says("5 passed, 0 failed, 1 skipped");
    }
}

pub(crate) fn an_interrupted_stream_of_json_stays_one() {
    let lab = Lab::new("t.pass1,t.gate,t.pass2");
    let (runner, _) = at_the_gate(&lab, &["--test-threads=1", "--format=json"]);
    kill(pid(&runner), Signal::SIGINT).unwrap();
    let ran = end_of(runner);
    ran.ends(130);
    for line in ran.out.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    assert!(ran.out.contains("t.pass1") && !ran.out.contains("t.pass2"), "{}", ran.out);
    assert!(ran.err.contains("by SIGINT: 2 of 3"), "{}", ran.err);
}

pub(crate) fn a_second_signal_ends_a_run_at_once() {
    let lab = Lab::new("t.gate");
    let folder = lab.path("reports");
    fs::create_dir(&folder).unwrap();
    // Whoever opens it to write waits for a reader, who does not come.
    nix::unistd::mkfifo(&folder.join("report.html"), Mode::S_IRWXU).unwrap();
    let (mut runner, _) = at_the_gate(&lab, &["--report-dir", folder.to_str().unwrap()]);
    kill(pid(&runner), Signal::SIGINT).unwrap();
    wait_for("the journal to be ended", || {
        fs::read_to_string(lab.journal()).unwrap().contains("{\"event\":\"ended\"").then_some(())
    });
    assert!(runner.try_wait().unwrap().is_none());
    kill(pid(&runner), Signal::SIGTERM).unwrap();
    let status = wait_for("the run to end", || runner.try_wait().unwrap());
    assert_eq!(status.code(), Some(143));
}

pub(crate) fn a_signal_ends_a_soak() {
    let lab = Lab::new("t.gate");
    let (runner, case) = at_the_gate(&lab, &["soak", "--for=10h", "--vary=kick"]);
    kill(pid(&runner), Signal::SIGINT).unwrap();
    end_of(runner).ends(130).says("ended    by SIGINT").says("0 plays");
    wait_for("the case's process to go", || is_gone(case).then_some(()));
}
