//! The examples for CI engines, held against the engines' own schemas; a step of `cargo xtask ci`.
//!
//! The tools are Python's and live in a folder below `target`. Where they cannot be had, without a network for example,
//! the step is left out, and says so; an example that an engine would refuse is an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::bed;
use crate::build;

/// What checks, of one version, so that a check is the same next year.
const TOOLS: &[&str] =
    &["check-jsonschema==0.39.0", "kubernetes-validate==1.37.0", "voluptuous==0.16.0", "PyYAML==6.0.3"];

const LAVA: &str = "\
import sys, yaml
from lava_common.schemas import validate
validate(yaml.safe_load(open(sys.argv[1])), strict=True)
";

/// Checks every example that can be checked here.
pub(crate) fn check() -> anyhow::Result<()> {
    let home = build::workspace().join("target").join("engines");
    let python = match tools(&home) {
        Ok(python) => python,
        Err(why) => {
            println!("left out, since the engines' tools cannot be had here: {why:#}");
            return Ok(());
        }
    };
    let beside = |name: &str| python.with_file_name(name);
    let workflows = ["--builtin-schema", "vendor.github-workflows"];
    judge("github-actions.yml", Command::new(beside("check-jsonschema")).args(workflows))?;
    judge("kubernetes-job.yaml", Command::new(beside("kubernetes-validate")).arg("--strict"))?;
    match lava(&home) {
        Ok(library) => {
            judge("lava-job.yaml", Command::new(&python).env("PYTHONPATH", library).args(["-c", LAVA]))
        }
        Err(why) => {
            println!("left out, since LAVA's schema cannot be had here: lava-job.yaml: {why:#}");
            Ok(())
        }
    }
}

/// Runs a tool on an example.
fn judge(example: &str, command: &mut Command) -> anyhow::Result<()> {
    let path = examples().join(example);
    let output = command.arg(&path).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start what checks {example}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    bail!("{} is not as its engine wants it:\n{}", path.display(), String::from_utf8_lossy(&said).trim_end());
}

fn examples() -> PathBuf {
    build::workspace().join("examples").join("engines")
}

/// The Python that has the tools, installed if need be.
fn tools(home: &Path) -> anyhow::Result<PathBuf> {
    let (venv, mark) = (home.join("venv"), home.join("venv").join("tools.txt"));
    let python = venv.join("bin").join("python");
    let wanted = TOOLS.join("\n");
    if fs::read_to_string(&mark).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    fs::create_dir_all(home)?;
    quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    quiet(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(TOOLS),
    )?;
    fs::write(mark, wanted)?;
    Ok(python)
}

/// The folder of LAVA's own library, fetched by apt if need be.
fn lava(home: &Path) -> anyhow::Result<PathBuf> {
    let place = home.join("lava");
    let library = place.join("usr/lib/python3/dist-packages");
    if library.join("lava_common/schemas").is_dir() {
        return Ok(library);
    }
    let deb = bed::fetch("lava-common", home)?;
    quiet(Command::new("dpkg-deb").arg("-x").args([&deb, &place]))?;
    Ok(library)
}

/// Runs a command that need not be shown; an error with its words if it fails.
fn quiet(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        bail!("{program} fails ({}): {}", output.status, said.lines().last().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;
    use crate::bed::args::BedArgs;

    /// What an engine puts in, and a value that it may have.
    const PUT_IN: &[(&str, &str)] = &[
        ("${{ matrix.shard }}", "4"),
        ("${{ matrix.kernel }}", "debian:6.12"),
        ("$((JOB_COMPLETION_INDEX + 1))", "5"),
        ("cargo run --manifest-path ~/exitspec/Cargo.toml --package xtask --", "cargo xtask"),
    ];

    /// The command lines of `cargo xtask` in a text, without the remarks behind them.
    fn commands(text: &str) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for line in text.replace("\\\n", " ").lines() {
            let mut line = line.to_owned();
            for (expression, value) in PUT_IN {
                line = line.replace(expression, value);
            }
            let Some((before, rest)) = line.split_once("cargo xtask ") else { continue };
            // In prose, a command is between backquotes.
            let prose = before.contains('`');
            let rest = if prose { rest.split('`').next().unwrap_or_default() } else { rest };
            if prose && !rest.contains(' ') {
                // A verb's name.
                continue;
            }
            let words =
                rest.split_whitespace().take_while(|word| !["#", "&&", "||", ";", "|"].contains(word));
            found.push(words.map(str::to_owned).collect());
        }
        found
    }

    /// Whether the command line takes these words; the error is clap's.
    fn takes(words: &[String]) -> Result<(), String> {
        let verb = words.first().cloned().unwrap_or_default();
        let rest: Vec<OsString> = words.iter().skip(1).map(OsString::from).collect();
        let line = ["cargo xtask".to_owned()].into_iter().chain(words.iter().cloned());
        crate::Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        if !["test", "soak", "diff"].contains(&verb.as_str()) {
            return Ok(());
        }
        // What such a verb does not know itself is the runner's.
        let rest = if verb == "test" {
            BedArgs::try_split(&rest).map_err(|error| error.to_string())?.1
        } else {
            rest
        };
        let runner = ["exitspec".into(), verb.into()].into_iter().chain(rest);
        exitspec::cli::takes(runner).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_lines_in_the_examples_are_taken() {
        let root = build::workspace();
        let files = fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().path());
        let docs = ["engines", "certify", "bisect"].map(|name| root.join(format!("docs/{name}.md")));
        for file in files.chain(docs) {
            let text = fs::read_to_string(&file).unwrap();
            let commands = commands(&text);
            assert!(!commands.is_empty(), "{} shows no command", file.display());
            for words in commands {
                takes(&words).unwrap_or_else(|error| panic!("{}: {words:?}: {error}", file.display()));
            }
        }
    }

    /// The step of the LAVA job that is several lines, as its shell gets them.
    fn lava_step() -> String {
        let text = fs::read_to_string(examples().join("lava-job.yaml")).unwrap();
        let (_, step) = text.split_once("- |\n").unwrap();
        let indent = step.len() - step.trim_start().len();
        let lines = step.lines().take_while(|line| line.len() - line.trim_start().len() >= indent);
        lines.map(|line| format!("{}\n", &line[indent..])).collect()
    }

    #[test]
    fn lava_is_told_each_verdict() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("reports")).unwrap();
        // Its own name for the command that LAVA puts on the machine.
        let step = format!("told() {{ echo \"$*\"; }}\n{}", lava_step().replace("lava-test-case", "told"));
        // As docs/reports.md has it.
        let ktap = "KTAP version 1\n1..1\n  KTAP version 1\n  # Subtest: exitspec\n  # a: ok 1 b\n  1..2\n    \
            KTAP version 1\n    # Subtest: smm\n    1..2\n    ok 1 smm.rsm # SKIP needs KVM_CAP_X86_SMM\n    \
            ok 2 smm.save~kick # XFAIL known\n  ok 1 smm\n    KTAP version 1\n    # Subtest: t\n    1..5\n    \
            ok 1 t.pass\n    # not ok 7 t.no\n    not ok 2 t.fail # fail: rip \\# SKIP differs\n    \
            not ok 3 t.crash # crash: x\n    not ok 4 t.late # TIMEOUT y\n    \
            not ok 5 t.open # ERROR it was selected and not started\n  not ok 2 t\nnot ok 1 exitspec\n";
        fs::write(place.path().join("reports/ktap.txt"), ktap).unwrap();
        let output = Command::new("sh").args(["-euc", &step]).current_dir(place.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let told = [
            "smm.rsm --result skip",
            "smm.save~kick --result pass",
            "t.pass --result pass",
            "t.fail --result fail",
            "t.crash --result fail",
            "t.late --result fail",
            "t.open --result unknown",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), told, "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn a_wrong_command_line_is_found() {
        let wrong =
            |line: &str| takes(&commands(&format!("  - run: cargo xtask {line} # x"))[0]).unwrap_err();
        assert!(wrong("test --partition count:6/5").contains("counted from 1 to 5"));
        assert!(wrong("test --bed amd --params").contains("--params"));
        assert!(wrong("test --no-such").contains("--no-such"));
        assert!(wrong("certify --bed amd").contains("--profile"));
        assert!(wrong("tset").contains("tset"));
        assert!(wrong("diff one").contains("RUN_B"));
        let text = "Write `cargo xtask test --list` and so on";
        assert_eq!(commands(text), [["test", "--list"]]);
    }
}
