//! What is shown to people on a terminal, and to programs behind a pipe.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use serde_json::Value;

use crate::lab::{Lab, Ran};

/// What of a command is a terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Both,
    Output,
    Error,
}

/// Runs a command on a terminal, what is not on it being nowhere; `seen` is asked about all that was shown so far.
fn attached(mut command: Command, is: Is, mut seen: impl FnMut(&str)) -> Ran {
    let terminal = nix::pty::openpty(None, None).unwrap();
    // No other test's programs may hold an end.
    for end in [&terminal.master, &terminal.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    let end = |attached: bool| {
        if attached { Stdio::from(terminal.slave.try_clone().unwrap()) } else { Stdio::null() }
    };
    command.stdout(end(is != Is::Error)).stderr(end(is != Is::Output));
    let mut runner = command.spawn().unwrap();
    let mut master = File::from(terminal.master);
    let (mut bytes, mut chunk, mut over) = (Vec::new(), [0; 4096], false);
    loop {
        let mut ready = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, 20_u8).unwrap() > 0 {
            let count = master.read(&mut chunk).unwrap();
            bytes.extend(&chunk[..count]);
            seen(&String::from_utf8_lossy(&bytes));
        } else if over {
            break;
        } else {
            over = runner.try_wait().unwrap().is_some();
        }
    }
    let text = String::from_utf8(bytes).unwrap().replace("\r\n", "\n");
    Ran { code: runner.wait().unwrap().code(), out: text, err: String::new() }
}

fn on_terminal(command: Command) -> Ran {
    attached(command, Is::Both, |_| ())
}

/// With nothing in the environment that has a say.
fn command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.command(arguments);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm");
    command
}

/// What stays on the screen: of each line what came last.
fn screen(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.rsplit('\r').next().unwrap_or(line)).collect()
}

/// Enough to fill a screen: 40 that pass, 10 that are skipped for two reasons, 6 that deviate as waived.
fn many() -> (Lab, String) {
    let mut cases: Vec<String> = (0..40).map(|n| format!("t.pass{n}")).collect();
    cases.extend((0..10).map(|n| format!("t.needs-cap{n}")));
    cases.extend((0..6).map(|n| format!("t.known-{n}.fail")));
    let lab = Lab::new(&cases.join(","));
    let waiver = |n| format!("[[waiver]]\ncase = \"t.known-{n}.fail\"\nreason = \"because {n}\"\n");
    let known = lab.waivers(&(0..6).map(waiver).collect::<String>());
    (lab, known)
}

pub(crate) fn a_terminal_shows_what_runs() {
    for is in [Is::Both, Is::Error] {
        let lab = Lab::new("t.pass1,t.gate,t.pass2");
        // With whatever number of seconds.
        let told =
            |seen: &str| seen.split('\r').any(|line| line.starts_with("2/3  ") && line.contains(" s t.gate"));
        let mut subject = command(&lab, &["--test-threads=2"]);
        subject.env("NO_COLOR", "1").env_remove("TERM");
        let ran = attached(subject, is, |seen| {
            if told(seen) {
                fs::write(lab.path("gate.open"), "").unwrap();
            }
        });
        ran.ends(0);
        assert!(told(&ran.out) && !ran.out.contains('\x1b'), "{:?}", ran.out);
        // Somebody who reads a file is not shown it.
        assert!(!lab.run(&[]).err.contains("/3"));
    }
}

pub(crate) fn a_green_run_on_a_terminal_is_short() {
    let (lab, known) = many();
    let ran = on_terminal(command(&lab, &[&known]));
    ran.ends(0).says("/56").says("xfail    6 deviate as waived; --verbose lists them");
    let screen = screen(&ran.out);
    assert!(screen.len() < 12 && !screen[0].is_empty(), "{screen:?}");
    assert_eq!(screen.last(), Some(&"46 passed, 0 failed, 10 skipped"));
    assert!(!ran.out.contains("test t.") && !ran.out.contains("because 0"), "{screen:?}");

    let ran = on_terminal(command(&lab, &[&known, "--verbose"]));
    ran.ends(0).says("because 0").says("because 5").says("test result: ");
    assert_eq!(ran.out.matches(" ... ").count(), 56, "{}", ran.out);
    lab.run(&["--verbose", "--quiet"]).ends(2);
}

pub(crate) fn a_terminal_is_shown_each_failure_once() {
    let lab = Lab::new("t.pass1,t.fail,t.pass2,u.error");
    let ran = on_terminal(command(&lab, &[]));
    ran.ends(1).says("fail     t.fail: rax is 0x7").says("2 passed, 2 failed");
    for test in ["t.fail", "u.error"] {
        assert_eq!(ran.out.matches(&format!("---- {test} ----")).count(), 1, "{}", ran.out);
        assert_eq!(ran.out.matches(&format!("cargo xtask test --exact {test}")).count(), 1, "{}", ran.out);
    }
    let screen = screen(&ran.out);
    assert!(screen.contains(&"---- t.fail ----"), "nothing of the line is left: {screen:?}");
    assert!(!ran.out.contains("test result"), "{}", ran.out);
}

pub(crate) fn who_is_watched_elsewhere_tells_of_failures_alone() {
    let (lab, known) = many();
    let ran = lab.run(&[&known, "--watched"]);
    ran.ends(0);
    assert!(ran.out.starts_with("xfail    6 deviate") && ran.err.is_empty(), "{}\n{}", ran.out, ran.err);
    let lab = Lab::new("t.pass,t.fail");
    let ran = lab.run(&["--watched"]);
    ran.ends(1);
    assert!(ran.out.starts_with("---- t.fail ----\nfail: rax is 0x7") && ran.err.is_empty(), "{}", ran.out);
}

pub(crate) fn colours_are_for_terminals_that_want_them() {
    let lab = Lab::new("t.pass,t.fail");
    let shown = |arguments: &[&str], name: &str, value: &str| {
        let mut command = command(&lab, arguments);
        command.env(name, value);
        on_terminal(command).out
    };
    for arguments in [&[][..], &["--verbose"]] {
        assert!(shown(arguments, "TERM", "xterm").contains("\x1b[1mfail"), "{arguments:?}");
    }
    assert!(!shown(&[], "NO_COLOR", "1").contains('\x1b'));
    assert!(!shown(&["--color=never"], "TERM", "xterm").contains('\x1b'));
    // It cannot show the line either, and so has libtest's.
    let dumb = shown(&[], "TERM", "dumb");
    assert!(!dumb.contains('\x1b') && dumb.contains("test t.pass ... ok"), "{dumb}");
    let plain = lab.run(&["--color=auto"]);
    assert!(!plain.out.contains('\x1b') && !plain.err.contains('\x1b'));
    assert!(lab.run(&["--color=always"]).out.contains('\x1b'));
}

pub(crate) fn what_is_piped_has_a_line_for_each_test() {
    let (lab, known) = many();
    let ran = lab.run(&[&known]);
    ran.ends(0).says("xfail    6 deviate as waived").says("test result: ok. 46 passed");
    assert_eq!(
        ran.out.lines().filter(|line| line.starts_with("test ") && line.contains(" ... ")).count(),
        56
    );
    assert!(!ran.out.contains("because 0") && ran.err.is_empty(), "{}", ran.err);
    assert_eq!(ran.out.lines().last(), Some("46 passed, 0 failed, 10 skipped"));
    lab.run(&[&known, "--verbose"]).ends(0).says("because 0").says("because 5");
}

pub(crate) fn json_is_all_that_is_on_standard_output() {
    let lab = Lab::new("t.pass1,t.fail,t.needs-cap,t.known.fail,u.pass2,u.error,u.abort,u.timeout,u.hostile");
    let known = lab.waivers(
        "[[waiver]]\ncase = \"t.known.fail\"\nreason = \"k\"\n[[waiver]]\ncase = \"u.pass2\"\nreason = \"k\"\n",
    );
    let reports = lab.path("reports");
    let reports = format!("--report-dir={}", reports.display());
    let json = lab.run(&[&known, "--format=json", "--color=always", "--vary=kick", &reports]);
    json.ends(1);
    let events: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let said = |name: &str| {
        let of = |event: &&Value| event["name"] == name && event["event"] != "started";
        events.iter().find(of).unwrap_or_else(|| panic!("no {name}"))["event"].clone()
    };
    for (name, event) in [("t.pass1", "ok"), ("t.needs-cap", "ignored"), ("t.known.fail", "ok")] {
        assert_eq!(said(name), event, "{name}");
    }
    for name in ["t.fail", "u.pass2", "u.error", "u.abort", "u.timeout", "u.hostile"] {
        assert_eq!(said(name), "failed", "{name}");
    }
    assert_eq!(events.last().unwrap()["type"], "suite");
    assert!(json.err.contains("reports are in") && json.err.ends_with(" 1 skipped\n"), "{}", json.err);

    // On a terminal too, whose standard error is another matter.
    let ran = attached(command(&lab, &["--format=json", "pass"]), Is::Output, |_| ());
    for line in ran.ends(0).out.lines() {
        serde_json::from_str::<Value>(line).expect(line);
    }
}
