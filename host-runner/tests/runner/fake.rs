//! A suite without KVM. What a case does is in its name; which cases there are is in the environment.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use exitspec::case::{Basis, Budget, Case, MachineSpec, Place, Requires, Vary};
use exitspec::host::{DeviceFacts, HostFacts, Unusable};
use exitspec::outcome::{Evidence, Outcome, Verdict};
use exitspec::suite::{Play, RunContext, Sources, Suite};

/// The case ids, separated by commas. Set: this process is the program under test.
pub(crate) const CASES: &str = "EXITSPEC_FAKE_CASES";
/// A folder for what cases leave behind.
pub(crate) const SCRATCH: &str = "EXITSPEC_FAKE_SCRATCH";
/// Set: the real device is asked.
pub(crate) const REAL_DEVICE: &str = "EXITSPEC_FAKE_REAL_DEVICE";

struct Fake {
    cases: Vec<Case>,
}

pub(crate) fn load(_: &Sources) -> Result<Box<dyn Suite>, String> {
    let ids = std::env::var(CASES).map_err(|error| error.to_string())?;
    if ids == "broken" {
        return Err("m.toml:1:1: a mistake".into());
    }
    Ok(Box::new(Fake { cases: ids.split(',').map(case).collect() }))
}

fn case(id: &str) -> Case {
    let caps = if id.contains("needs-cap") { vec!["no-such".to_owned()] } else { Vec::new() };
    Case {
        id: id.to_owned(),
        summary: "a fake".into(),
        basis: Basis::Impl,
        reference: Vec::new(),
        detects: "a fake deviation".into(),
        payload: "none".into(),
        scenario: String::new(),
        args: [].into(),
        requires: Requires { caps, ..Requires::default() },
        machine: MachineSpec::default(),
        budget: Budget::default(),
        except: if id.contains("excepts-kick") {
            [(Vary::Kick, "it says so".to_owned())].into()
        } else {
            [].into()
        },
        steps: Vec::new(),
        place: Place { file: "m.toml".into(), line: 1, column: 1, text: id.to_owned() },
    }
}

fn note(file: &str, text: &str) {
    let path = Path::new(&std::env::var_os(SCRATCH).unwrap()).join(file);
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// Everything that a reader of reports could trip over.
pub(crate) const HOSTILE: &str = "]]></failure>\x1b[31m\u{0}\u{7}\r\nok 1 t # SKIP x\nnot ok 9 t\n# Subtest: x\n1..0\nKTAP version 1\n\
    reboot: System halted # SKIP \u{85}\u{2028}\u{202e}::error::x%0A{0}[a](1)&lt;<!--\u{fffe} \u{1f600}";

fn hostile() -> Outcome {
    let evidence = Evidence {
        guest: vec![HOSTILE.to_owned()],
        kernel_log: HOSTILE.lines().map(str::to_owned).collect(),
        registers: vec![("rflags".to_owned(), u64::MAX)],
        stderr: vec!["Kernel panic - not syncing: VFS: x".to_owned()],
        ..Evidence::default()
    };
    Outcome { evidence: Some(Box::new(evidence)), ..Outcome::new(Verdict::Fail, format!("SKIP {HOSTILE}")) }
}

impl Suite for Fake {
    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn device(&self, device: &Path, host: &HostFacts) -> Result<DeviceFacts, Unusable> {
        if std::env::var_os(REAL_DEVICE).is_some() {
            return DeviceFacts::read(device, host);
        }
        Ok(DeviceFacts::default())
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn end(&self, process: nix::unistd::Pid) {
        // As a task in uninterruptible sleep: the signal does not arrive.
        if !self.cases.iter().any(|case| case.id.ends_with("immortal")) {
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }

    fn run(&self, play: &Play, _: &RunContext) -> Outcome {
        let case = play.case;
        note("played", &format!("{}\n", play.combo.test_name(&case.id)));
        let behaviour = case.id.rsplit('.').next().unwrap();
        match behaviour.trim_end_matches(|c: char| c.is_ascii_digit()) {
            // Deviates when it is perturbed at the fifth of eight points.
            "at-five" if !play.combo.is_plain() && play.only.is_none_or(|only| only.contains(&5)) => {
                let evidence = Evidence { perturbed: (1..=8).collect(), ..Evidence::default() };
                Outcome { evidence: Some(Box::new(evidence)), ..Outcome::new(Verdict::Fail, "rax is 0x7") }
            }
            "fail" => Outcome::new(Verdict::Fail, "rax is 0x7"),
            "error" => Outcome::new(Verdict::Error, "the case is broken"),
            "hostile" => hostile(),
            "timeout" => Outcome::new(Verdict::Timeout, "no exit within 5 ms"),
            "panic" => panic!("a bug of ours"),
            "abort" => std::process::abort(),
            // The standard library's handler takes the first one and lets the second one through.
            "segv" => loop {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV).unwrap();
            },
            "exit" => std::process::exit(0),
            "exit-three-" => std::process::exit(3),
            "hang" | "immortal" => sleep_for_ever(),
            "spin" => loop {
                std::hint::spin_loop();
            },
            "leak" => loop {
                std::mem::forget(Vec::<u8>::with_capacity(64 << 20));
            },
            "flood" => {
                let chunk = [b'x'; 10_000];
                for _ in 0..10_000 {
                    std::io::stderr().write_all(&chunk).unwrap();
                }
                eprintln!("\nthe last words");
                std::process::abort()
            }
            "huge" => Outcome::new(Verdict::Fail, "x".repeat(3 << 20)),
            "orphaned" => {
                nix::sys::signal::kill(nix::unistd::getppid(), nix::sys::signal::Signal::SIGKILL).unwrap();
                sleep_for_ever()
            }
            "gate" => {
                note("gate.pid", &format!("{}\n", std::process::id()));
                while !Path::new(&std::env::var_os(SCRATCH).unwrap()).join("gate.open").exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Outcome::pass()
            }
            "warning" => {
                let pid = std::process::id();
                note(
                    "kmsg",
                    &format!(
                        "4,1,1,-;------------[ cut here ]------------\n\
                     4,2,2,-;WARNING: CPU: 0 PID: {pid} at arch/x86/kvm/x86.c:1 f+0x1/0x2 [kvm]\n\
                     4,3,3,-;---[ end trace 0000000000000000 ]---\n"
                    ),
                );
                Outcome::pass()
            }
            _ => Outcome::pass(),
        }
    }
}
