//! The first program of a bed's Linux, as `/init` in its initramfs.
//!
//! Mounts what the runner reads, loads KVM, starts the runner, reports its exit status, does the same with other
//! modules if there is another turn, and switches the machine off. Whatever fails is said twice, on the console for people and on the results channel for the
//! one who booted this machine. Knows nothing of cases.

mod modules;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;

use bed_init::{CONFIG, Config, ERROR_MARK, Event, Module, PowerOff, RESULTS};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

/// The longest line of text that is kept together, in bytes.
const LONGEST: u64 = 64 << 10;

fn main() {
    let config = set_up();
    let results = terminal(config.as_ref().map_or(RESULTS, |config| &config.results)).ok();
    let power_off = config.as_ref().map(|config| config.power_off).unwrap_or_default();
    let event = match config.and_then(|config| run(&config, results.as_ref())) {
        Ok(status) => Event::Exit { status },
        Err(message) => {
            eprintln!("bed-init: {message}");
            Event::BedError { message }
        }
    };
    if let Some(results) = &results {
        say(results, &event);
    }
    // The console is slower than the power switch.
    let _ = tcdrain(std::io::stderr());
    if power_off == PowerOff::Bochs {
        // If it does not work, the other way may.
        let _ = shut_bochs_down();
    }
    // Returning from here would panic the kernel, which also ends the machine, only less politely.
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("bed-init: cannot switch off: {error}");
    }
}

/// Writes the word that ends Bochs to its port, a byte at a time.
fn shut_bochs_down() -> std::io::Result<()> {
    let ports = OpenOptions::new().write(true).open("/dev/port")?;
    b"Shutdown".iter().try_for_each(|byte| ports.write_all_at(&[*byte], 0x8900))
}

/// Mounts the file systems and reads the configuration.
fn set_up() -> Result<Config, String> {
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")] {
        attach(kind, place).map_err(|error| format!("cannot mount {kind} on {place}: {error}"))?;
    }
    // Only some kernels have these, and nothing depends on them.
    let _ = attach("debugfs", "/sys/kernel/debug");
    let text = fs::read(CONFIG).map_err(|error| format!("{CONFIG}: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("{CONFIG}: {error}"))
}

fn attach(kind: &str, place: &str) -> rustix::io::Result<()> {
    mount(kind, place, kind, MountFlags::empty(), None)
}

/// Does all turns; the last runner's exit status, which is still to be said.
fn run(config: &Config, results: Option<&File>) -> Result<u8, String> {
    let results = results.ok_or_else(|| format!("{}: cannot be opened as a terminal", config.results))?;
    let text = terminal(&config.text).map_err(|error| format!("{}: {error}", config.text))?;
    let mut loaded: &[Module] = &[];
    let mut last = None;
    for (turn, what) in config.turns.iter().enumerate() {
        if let Some(status) = last {
            say(results, &Event::Exit { status });
            modules::unload(loaded)?;
            // What an earlier turn has made the kernel say once, it can say again. Only some kernels can forget.
            let _ = fs::write("/sys/kernel/debug/clear_warn_once", "1");
        }
        loaded = &what.modules;
        modules::load(loaded, &config.device, &what.builtin_params)?;
        say(results, &Event::BedUp { turn });
        last = Some(start(&what.command, &config.environment, &text)?);
    }
    last.ok_or_else(|| "the configuration has no turn".to_owned())
}

/// Runs the runner; its exit status.
fn start(command: &[String], environment: &BTreeMap<String, String>, text: &File) -> Result<u8, String> {
    let (program, arguments) = command.split_first().ok_or("the configuration names no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let (out, errors) = (child.stdout.take(), child.stderr.take());
    let status = thread::scope(|scope| {
        scope.spawn(|| pass_on(out, &[], text));
        scope.spawn(|| pass_on(errors, &[ERROR_MARK], text));
        child.wait().map_err(|error| format!("cannot wait for {program}: {error}"))
    })?;
    // What it said last must be out before the machine goes off.
    tcdrain(text).map_err(|error| format!("the line for text: {error}"))?;
    if let Some(signal) = status.signal() {
        return Err(format!("{program} was killed by signal {signal}"));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.ok_or_else(|| format!("{program} ended without an exit status"))
}

/// Writes what the runner says to the line for text, whole lines at a time, each with a mark.
fn pass_on(from: Option<impl Read>, mark: &[u8], mut to: &File) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // A line that is longer than any sensible one goes out in pieces.
    while from.by_ref().take(LONGEST).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        line.splice(..0, mark.iter().copied());
        // Without the line for text there is nobody to tell; the results have a line of their own.
        let _ = to.write_all(&line);
        line.clear();
    }
}

/// Opens a serial line that passes every byte as it is.
fn terminal(path: &str) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut settings = tcgetattr(&file)?;
    settings.make_raw();
    settings.set_speed(115_200)?;
    tcsetattr(&file, OptionalActions::Now, &settings)?;
    Ok(file)
}

fn say(mut results: &File, event: &Event) {
    // There is nobody left to tell if this fails; the console has the message already.
    let _ = results.write_all(event.line().as_bytes()).and_then(|()| tcdrain(results).map_err(Into::into));
}
