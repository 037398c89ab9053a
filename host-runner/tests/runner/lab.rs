//! Runs the program under test in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use exitspec::journal::{Recovered, Runs};
use exitspec::outcome::{Outcome, Verdict};
use tempfile::TempDir;

use crate::fake;

pub(crate) struct Lab {
    folder: TempDir,
    cases: String,
}

pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(
            self.out.contains(text) || self.err.contains(text),
            "no `{text}` in\n{}\n{}",
            self.out,
            self.err
        );
        self
    }
}

impl Lab {
    pub(crate) fn new(cases: &str) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap(), cases: cases.to_owned() };
        fs::create_dir_all(lab.path("manifests/waivers")).unwrap();
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn waivers(&self, text: &str) -> String {
        let path = self.path("waivers.toml");
        fs::write(&path, text).unwrap();
        format!("--waivers={}", path.display())
    }

    /// The program under test; the kernel log is an empty file unless the arguments say otherwise.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env_remove("NEXTEST").env_remove("NEXTEST_RUN_ID");
        command.env(fake::CASES, &self.cases).env(fake::SCRATCH, self.folder.path());
        // A verb comes before its options.
        let (verb, arguments) = match arguments {
            ["soak", rest @ ..] => (Some("soak"), rest),
            ["report", rest @ ..] => {
                command.args(["report", &format!("--run-dir={}", self.path("runs").display())]).args(rest);
                return command;
            }
            all => (None, all),
        };
        command.args(verb);
        command.arg(format!("--run-dir={}", self.path("runs").display()));
        command.arg(format!("--manifests={}", self.path("manifests").display()));
        command.arg(format!("--payloads={}", self.path("payloads").display()));
        if !arguments.contains(&"host") && !arguments.iter().any(|text| text.starts_with("--kernel-log")) {
            command.arg("--kernel-log=/dev/null");
        }
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Self::finish(&mut self.command(arguments))
    }

    pub(crate) fn finish(command: &mut Command) -> Ran {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    pub(crate) fn journal(&self) -> PathBuf {
        Runs::in_folder(&self.path("runs")).find(None).unwrap()
    }

    pub(crate) fn outcomes(&self) -> BTreeMap<String, Outcome> {
        Recovered::read(&self.journal()).unwrap().finished
    }

    #[track_caller]
    pub(crate) fn verdict(&self, case: &str) -> Verdict {
        self.outcomes()[case].verdict
    }

    /// Which cases really ran, in order, over all runs in this lab.
    pub(crate) fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("played"));
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }
}
