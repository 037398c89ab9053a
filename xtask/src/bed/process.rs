//! A machine that another program emulates: a process with lines from which the kernel's console, the runner's
//! text and results come. Which program that is, and how its machine is made, it does not know.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::channel::{Lines, Relay, drain};
use super::console::{Console, LastWords, Stage, clean};
use super::session::{Heard, Machine};
use crate::interrupt;

/// How long a machine whose work is done may take to switch itself off.
const GRACE: Duration = Duration::from_secs(5);
/// How long a kernel that panics may take to say why.
const DYING: Duration = Duration::from_secs(30);
/// How many lines of results may wait to be read; the machine waits for the rest.
const WAITING: usize = 8;
/// How long what a dead kernel has said before may still be under way.
const DEAD: Duration = Duration::from_secs(1);
/// How often is looked whether somebody wants the run to end.
const TICK: Duration = Duration::from_millis(100);

/// Where a machine's words come from.
pub(crate) struct Sources {
    pub(crate) console: Box<dyn Read + Send>,
    pub(crate) text: Box<dyn Read + Send>,
    pub(crate) results: Box<dyn Read + Send>,
    /// The emulator's own.
    pub(crate) errors: Box<dyn Read + Send>,
    /// What nobody looks at, but has to go somewhere.
    pub(crate) screen: Option<Box<dyn Read + Send>>,
}

/// Where a machine's words go.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) console: File,
    pub(crate) text: Relay<File>,
}

/// What the emulator's end means, from its status, `None` if it was switched off, and its own last words: lines for
/// the console's end.
pub(crate) type Judge = fn(Option<ExitStatus>, &[String]) -> Vec<String>;

/// What comes from a machine.
enum Said {
    /// A line of results.
    Line(Vec<u8>),
    /// The kernel's last words.
    Last(Stage),
}

/// A machine that is running.
pub(crate) struct Process {
    child: Child,
    judge: Judge,
    said: Receiver<Said>,
    /// How far the kernel has come in dying.
    stage: Option<Stage>,
    silent: bool,
    /// The run's exit status, if it is to end.
    interrupted: fn() -> Option<u8>,
    console: Option<JoinHandle<io::Result<Vec<String>>>>,
    errors: Option<JoinHandle<io::Result<Vec<String>>>>,
    others: Vec<JoinHandle<io::Result<()>>>,
}

impl Process {
    /// Starts the emulator, which inherits these files, and listens to its machine.
    pub(crate) fn start(
        command: Command,
        inherited: Vec<OwnedFd>,
        lines: Sources,
        logs: Logs,
        judge: Judge,
    ) -> anyhow::Result<Self> {
        let child = start(command, inherited)?;
        let (give, said) = mpsc::sync_channel(WAITING);
        let Logs { console, mut text } = logs;
        let from_console = give.clone();
        let mut machine = Self {
            child,
            judge,
            said,
            stage: None,
            silent: false,
            interrupted: interrupt::caught,
            console: Some(thread::spawn(move || watch(lines.console, console, &from_console))),
            errors: Some(thread::spawn(move || tail(lines.errors))),
            others: vec![
                thread::spawn(move || drain(lines.text, |bytes| text.take(bytes))),
                thread::spawn(move || {
                    let mut cut = Lines::default();
                    drain(lines.results, |bytes| {
                        // Nobody listens any more when the run is over.
                        cut.take(bytes, |line| drop(give.send(Said::Line(line))));
                        Ok(())
                    })
                }),
            ],
        };
        if let Some(screen) = lines.screen {
            machine.others.push(thread::spawn(move || drain(screen, |_| Ok(()))));
        }
        Ok(machine)
    }

    /// Waits until the machine is off, or switches it off; `None` if that was our doing.
    fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        // One that has been silent for minutes does nothing any more, and one that is not wanted need not.
        let grace = match self.stage {
            _ if self.silent => Duration::ZERO,
            Some(_) => DEAD,
            None => GRACE,
        };
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if start.elapsed() >= grace {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(None)
    }
}

impl Machine for Process {
    fn listen(&mut self, patience: Duration) -> anyhow::Result<Heard> {
        let mut since = Instant::now();
        loop {
            if let Some(status) = (self.interrupted)() {
                self.silent = true;
                return Ok(Heard::Interrupted(status));
            }
            let wait = match self.stage {
                None => patience,
                Some(Stage::Dying) => patience.min(DYING),
                Some(Stage::Dead) => DEAD,
            };
            let left = wait.saturating_sub(since.elapsed());
            match self.said.recv_timeout(left.min(TICK)) {
                Ok(Said::Line(line)) => return Ok(Heard::Line(line)),
                Ok(Said::Last(stage)) => {
                    self.stage = self.stage.max(Some(stage));
                    since = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) if left > TICK => {}
                Err(RecvTimeoutError::Timeout) if self.stage.is_none() => {
                    self.silent = true;
                    return Ok(Heard::Silence);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(Heard::Ended),
            }
        }
    }

    fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        // Whoever waits for a reader would wait for ever.
        self.said = mpsc::sync_channel(0).1;
        let status = self.end().context("cannot switch the emulator off")?;
        let errors = join(self.errors.take())?.unwrap_or_default();
        let mut console = join(self.console.take())?.unwrap_or_default();
        for thread in self.others.drain(..) {
            join(Some(thread))?;
        }
        console.extend((self.judge)(status, &errors));
        Ok(console)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be off already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the console down and tells when the kernel dies; its last lines.
fn watch(from: impl Read, to: impl Write, tell: &SyncSender<Said>) -> io::Result<Vec<String>> {
    let (mut console, mut words) = (Console::to(to), LastWords::default());
    drain(from, |bytes| {
        if let Some(stage) = words.take(bytes) {
            let _ = tell.send(Said::Last(stage));
        }
        console.take(bytes)
    })?;
    Ok(console.lines())
}

/// What the emulator says; its last lines.
fn tail(from: impl Read) -> io::Result<Vec<String>> {
    let mut console = Console::to(io::sink());
    drain(from, |bytes| console.take(bytes))?;
    Ok(console.lines().iter().map(|line| clean(line)).collect())
}

fn join<T>(thread: Option<JoinHandle<io::Result<T>>>) -> anyhow::Result<Option<T>> {
    let Some(thread) = thread else { return Ok(None) };
    let done = thread.join().map_err(|_| anyhow!("a thread that listens to the machine panicked"))?;
    done.map(Some).context("cannot write down what the machine says")
}

/// Starts a program in a process group of its own that does not outlive this thread. What a terminal tells the program
/// in its foreground is for this one to answer.
pub(crate) fn spawn(command: Command) -> anyhow::Result<Child> {
    start(command, Vec::new())
}

/// The same; it inherits these files.
#[expect(unsafe_code, reason = "the only way to set up a child before it becomes another program")]
fn start(mut command: Command, files: Vec<OwnedFd>) -> anyhow::Result<Child> {
    command.process_group(0);
    // SAFETY: between fork and exec the closure only makes system calls; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            for file in &files {
                fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        });
    }
    let child =
        command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    // The closure owns the files and goes with the command: only the machine may hold its ends, or its death
    // would go unnoticed.
    drop(command);
    Ok(child)
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, pipe};
    use std::process::Stdio;

    use super::*;

    /// A program that does nothing until it is killed, and the ends of its machine's lines.
    fn machine(judge: Judge) -> (Process, [PipeWriter; 4]) {
        let [console, text, results, errors] = [(); 4].map(|()| pipe().unwrap());
        let sources = Sources {
            console: Box::new(console.0),
            text: Box::new(text.0),
            results: Box::new(results.0),
            errors: Box::new(errors.0),
            screen: None,
        };
        let logs = Logs {
            console: tempfile::tempfile().unwrap(),
            text: Relay::to(tempfile::tempfile().unwrap(), false),
        };
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        let process = Process::start(command, Vec::new(), sources, logs, judge).unwrap();
        (process, [console.1, text.1, results.1, errors.1])
    }

    #[test]
    fn a_dead_kernel_ends_a_machine_that_stays_on() {
        let (mut process, [mut console, text, mut results, mut errors]) = machine(|status, errors| {
            assert!(status.is_none(), "it was switched off");
            errors.to_vec()
        });
        results.write_all(b"before\npart").unwrap();
        assert!(matches!(process.listen(DYING).unwrap(), Heard::Line(line) if line == b"before"));
        errors.write_all(b"the emulator's own\n").unwrap();
        console
            .write_all(b"Kernel panic - not syncing: x\n---[ end Kernel panic - not syncing: x ]---\n")
            .unwrap();
        // Much later than any machine's last word.
        assert!(matches!(process.listen(Duration::from_hours(1)).unwrap(), Heard::Ended));
        drop((console, text, results, errors));
        let lines = process.stop().unwrap();
        assert_eq!(lines[0], "Kernel panic - not syncing: x");
        assert_eq!(lines[2], "the emulator's own");
    }

    #[test]
    fn a_machine_that_is_not_wanted_any_more_is_off_at_once() {
        let (mut process, lines) = machine(|status, _| vec![format!("{status:?}")]);
        process.interrupted = || Some(130);
        assert!(matches!(process.listen(Duration::from_hours(1)).unwrap(), Heard::Interrupted(130)));
        let start = Instant::now();
        let pid = process.child.id();
        drop(lines);
        assert_eq!(process.stop().unwrap(), ["None"], "it was switched off");
        assert!(start.elapsed() < GRACE && !std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_machine_without_a_word_is_silent_and_one_without_lines_has_ended() {
        let (mut process, lines) = machine(|_, _| Vec::new());
        assert!(matches!(process.listen(Duration::ZERO).unwrap(), Heard::Silence));
        drop(lines);
        assert!(matches!(process.listen(DYING).unwrap(), Heard::Ended));
    }
}
