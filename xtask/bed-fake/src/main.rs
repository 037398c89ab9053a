//! The runner around cases that take the machine with them. What a case does is in its name.
//!
//! Only to be run in a bed: it is how xtask's tests show that such a case costs itself alone.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use exitspec::case::{Basis, Budget, Case, MachineSpec, Place, Requires};
use exitspec::outcome::{Outcome, Verdict};
use exitspec::suite::{Play, RunContext, Sources, Suite};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

const CASES: &[&str] = &[
    "t.passes-before",
    "t.panics-the-kernel",
    "t.passes-between",
    "t.stops-the-runner",
    "t.kills-the-runner",
    "t.fails-after",
    "t.is-broken",
    "t.needs-what-is-not-there",
];

struct Fake(Vec<Case>);

fn main() -> ExitCode {
    exitspec::cli::main(load)
}

#[expect(clippy::unnecessary_wraps, reason = "the type of `suite::Load`")]
fn load(_: &Sources) -> Result<Box<dyn Suite>, String> {
    Ok(Box::new(Fake(CASES.iter().map(|id| case(id)).collect())))
}

fn case(id: &str) -> Case {
    let params =
        if id.ends_with("not-there") { [("kvm.none".to_owned(), "1".to_owned())].into() } else { [].into() };
    Case {
        id: id.to_owned(),
        summary: "a fake".to_owned(),
        basis: Basis::Impl,
        reference: Vec::new(),
        detects: "a fake deviation".to_owned(),
        payload: "none".to_owned(),
        scenario: String::new(),
        args: [].into(),
        requires: Requires { params, ..Requires::default() },
        machine: MachineSpec::default(),
        budget: Budget::default(),
        except: [].into(),
        steps: Vec::new(),
        place: Place { file: "fake.toml".into(), line: 1, column: 1, text: id.to_owned() },
    }
}

impl Suite for Fake {
    fn cases(&self) -> &[Case] {
        &self.0
    }

    fn run(&self, play: &Play, _: &RunContext) -> Outcome {
        let done = match play.case.id.as_str() {
            "t.panics-the-kernel" => fs::write("/proc/sysrq-trigger", "c").map_err(|error| error.to_string()),
            "t.kills-the-runner" => {
                runner().and_then(|runner| kill(runner, Signal::SIGKILL).map_err(|error| error.to_string()))
            }
            // Nothing comes from the machine any more then, as from one that hangs.
            "t.stops-the-runner" => kill(getppid(), Signal::SIGSTOP).map_err(|error| error.to_string()),
            "t.is-broken" => return Outcome::new(Verdict::Error, "the case is broken"),
            "t.fails-after" => return Outcome::new(Verdict::Fail, "rax is 0x7"),
            _ => return Outcome::pass(),
        };
        if let Err(error) = done {
            return Outcome::new(Verdict::Error, error);
        }
        std::thread::sleep(Duration::from_mins(10));
        Outcome::new(Verdict::Error, "the machine is still there")
    }
}

/// The runner: the parent of the worker, whose child plays this case.
fn runner() -> Result<Pid, String> {
    let place = format!("/proc/{}/stat", getppid());
    let text = fs::read_to_string(&place).map_err(|error| format!("{place}: {error}"))?;
    // Its name, in parentheses, may hold anything.
    let parent = text.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
    parent.and_then(|pid| pid.parse().ok()).map(Pid::from_raw).ok_or_else(|| format!("{place}: no parent"))
}
