//! Runs test programs of somebody else's in a bed, as a runner that a bed understands: it takes the few of the runner's
//! words that say what to run and what is known already, and writes the runner's journal.
//!
//! A program passes with exit status 0, is skipped with 4 (KSFT_SKIP), and has failed with anything else.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::tcdrain;

/// Where the programs are.
const PROGRAMS: &str = "/suite/payloads";
/// How long one may take. An emulated CPU is slow, and a kernel with a bug in it may never let go.
const LIMIT: Duration = Duration::from_mins(1);
/// What is kept of what a program says, in bytes.
const KEPT: u64 = 64 << 10;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let (Some(mirror), wanted) = (value("--mirror="), words.iter().filter(|word| !word.starts_with('-')))
    else {
        eprintln!("bed-peer: there is no --mirror");
        return ExitCode::from(2);
    };
    let known = value("--resume=").and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    match run(Path::new(mirror), wanted, &known, value("--running="), value("--lost=")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bed-peer: {error}");
            ExitCode::from(3)
        }
    }
}

/// Runs what has no verdict yet.
fn run<'a>(
    mirror: &Path,
    wanted: impl Iterator<Item = &'a String>,
    known: &str,
    running: Option<&str>,
    lost: Option<&str>,
) -> std::io::Result<()> {
    let mut to = OpenOptions::new().write(true).open(mirror)?;
    let mut say = |line: serde_json::Value| -> std::io::Result<()> {
        to.write_all(format!("{line}\n").as_bytes())?;
        // It is out before what comes can take the machine along.
        Ok(tcdrain(&to)?)
    };
    let finished = |case: &str, verdict: &str, reason: &str, took: Duration| {
        serde_json::json!({
            "event": "finished",
            "case": case,
            "outcome": {"verdict": verdict, "reason": reason},
            "duration_us": u64::try_from(took.as_micros()).ok(),
        })
    };
    say(serde_json::json!({"event": "header"}))?;
    if let (Some(running), Some(lost)) = (running, lost) {
        say(finished(running, lost, "the machine was lost while it ran", Duration::ZERO))?;
    }
    let done: Vec<String> = known
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| line["event"] == "finished")
        .filter_map(|line| line["case"].as_str().map(str::to_owned))
        .collect();
    // The list is not on the command line of a boot that goes on: it is all there is.
    let mut names: Vec<String> = wanted.cloned().collect();
    if names.is_empty() {
        let programs = fs::read_dir(PROGRAMS)?.flatten();
        names = programs.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
    }
    for name in names.iter().filter(|name| !done.contains(name) && running != Some(name)) {
        say(
            serde_json::json!({"event": "started", "case": name, "limit_ms": u64::try_from(LIMIT.as_millis()).ok()}),
        )?;
        let begun = Instant::now();
        let (verdict, reason) =
            play(&Path::new(PROGRAMS).join(name), LIMIT).unwrap_or_else(|error| ("error", error.to_string()));
        say(finished(name, verdict, &reason, begun.elapsed()))?;
    }
    Ok(())
}

/// Runs a program; the verdict, and the last line that it said.
fn play(program: &Path, limit: Duration) -> std::io::Result<(&'static str, String)> {
    // What an initramfs takes for a payload is no program.
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))?;
    let mut child =
        Command::new(program).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let errors = child.stderr.take();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(errors) = errors {
            // What a child of it holds open is not waited for: the thread ends with this process.
            let _ = errors.take(KEPT).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let Some(status) = wait(&mut child, limit)? else {
        return Ok(("timeout", format!("no end in {} s", limit.as_secs())));
    };
    let said = if status.success() { String::new() } else { last(reader) };
    Ok(match status.code() {
        Some(0) => ("pass", String::new()),
        Some(4) => ("skip", said),
        _ => ("fail", format!("{status}: {said}")),
    })
}

fn last(reader: thread::JoinHandle<String>) -> String {
    let begun = Instant::now();
    while !reader.is_finished() && begun.elapsed() < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(5));
    }
    let text = if reader.is_finished() { reader.join().unwrap_or_default() } else { String::new() };
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Waits until it ends, or ends it; `None` in this case.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_by_its_exit_status_what_it_found() {
        let folder = std::env::temp_dir().join(format!("bed-peer-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, script, verdict, reason) in [
            ("passes", "exit 0", "pass", ""),
            ("skips", "echo 'no EPT' >&2; exit 4", "skip", "no EPT"),
            (
                "fails",
                "printf '\\n  Assertion\\033 Failure\\nmore' >&2; exit 254",
                "fail",
                "exit status: 254: Assertion Failure",
            ),
            ("dies", "kill -9 $$", "fail", "signal: 9 (SIGKILL): "),
            ("hangs", "exec sleep 1000", "timeout", "no end in 2 s"),
        ] {
            let program = folder.join(name);
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            let limit = Duration::from_secs(if name == "hangs" { 2 } else { 600 });
            assert_eq!(play(&program, limit).unwrap(), (verdict, reason.to_owned()), "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
