//! An AMD machine that QEMU emulates by its TCG: real kvm_amd with nested paging, SMM and nested SVM, on any
//! host, with any kernel.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::channel::{Lines, Relay, drain};
use super::console::{Console, EMULATOR, clean};
use super::kernel::Kernel;
use super::qemu::Qemu;
use super::session::{Heard, Machine};

/// The module under test.
pub(crate) const MODULE: &str = "kvm_amd";

/// What the emulated CPU is. vGIF and nested paging are all that TCG knows of SVM's extensions.
const CPU: &str = "EPYC,+svm,+npt,+vgif";

/// Every death of the kernel ends the machine, and none of it is slowed down by mitigations against a
/// neighbour that is not there. The watchdog allows for a host that is busy.
const KERNEL_ARGS: &[&str] = &[
    "console=ttyS0",
    "8250.nr_uarts=4",
    "panic=-1",
    "oops=panic",
    "softlockup_panic=1",
    "watchdog_thresh=30",
    "mitigations=off",
    "nokaslr",
    "quiet",
];

/// How long a machine whose work is done may take to switch itself off.
const GRACE: Duration = Duration::from_secs(5);
/// How many lines of results may wait to be read; the machine waits for the rest.
const WAITING: usize = 8;

/// A machine that is running.
#[derive(Debug)]
pub(crate) struct Amd {
    child: Child,
    lines: Receiver<Vec<u8>>,
    silent: bool,
    console: Option<JoinHandle<io::Result<Vec<String>>>>,
    others: Vec<JoinHandle<io::Result<()>>>,
    errors: Option<JoinHandle<io::Result<Vec<String>>>>,
}

/// What a machine is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) kernel: &'a Kernel,
    pub(crate) kernel_args: &'a [String],
    pub(crate) initramfs: File,
    /// Where the console goes.
    pub(crate) console: File,
    /// Where the runner's text goes.
    pub(crate) text: Relay<File>,
}

impl Amd {
    /// Switches a machine on.
    pub(crate) fn boot(parts: Parts<'_>) -> anyhow::Result<Self> {
        let Parts { qemu, kernel, kernel_args, mut initramfs, console, mut text } = parts;
        initramfs.seek(SeekFrom::Start(0)).context("cannot rewind the initramfs")?;
        let mut command = Command::new(&qemu.program);
        command.args(["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "1", "-m", "1024"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        let mut ours = Vec::new();
        let mut theirs: Vec<OwnedFd> = vec![initramfs.into()];
        for name in ["console", "text", "results"] {
            let (inside, outside) = UnixStream::pair().context("cannot make a line to the machine")?;
            command.args(["-chardev", &format!("socket,id={name},fd={}", inside.as_raw_fd())]);
            command.args(["-serial", &format!("chardev:{name}")]);
            theirs.push(inside.into());
            ours.push(outside);
        }
        command.arg("-kernel").arg(&kernel.image);
        command.args(["-initrd", &format!("/proc/self/fd/{}", theirs[0].as_raw_fd())]);
        let words = KERNEL_ARGS.iter().copied().chain(kernel_args.iter().map(String::as_str));
        command.args(["-append", &words.collect::<Vec<_>>().join(" ")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());

        let child = start(command, theirs)?;
        let mut machine =
            Self { child, lines: deaf(), silent: false, console: None, others: Vec::new(), errors: None };
        let stderr = machine.child.stderr.take().context("QEMU has no standard error")?;
        machine.errors = Some(thread::spawn(move || tail(stderr, io::sink())));
        let [console_line, text_line, results_line] =
            <[UnixStream; 3]>::try_from(ours).map_err(|_| anyhow!("a machine has three lines"))?;
        machine.console = Some(thread::spawn(move || tail(console_line, console)));
        machine.others.push(thread::spawn(move || drain(text_line, |bytes| text.take(bytes))));
        let (give, lines) = mpsc::sync_channel(WAITING);
        machine.lines = lines;
        machine.others.push(thread::spawn(move || {
            let mut cut = Lines::default();
            drain(results_line, |bytes| {
                // Nobody listens any more when the run is over.
                cut.take(bytes, |line| drop(give.send(line)));
                Ok(())
            })
        }));
        Ok(machine)
    }

    /// Waits until the machine is off, or switches it off; `None` if that was our doing.
    fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            // One that has been silent for minutes does nothing any more.
            if self.silent || start.elapsed() >= GRACE {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(None)
    }
}

impl Machine for Amd {
    fn listen(&mut self, patience: Duration) -> anyhow::Result<Heard> {
        let heard = match self.lines.recv_timeout(patience) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Silence,
            Err(RecvTimeoutError::Disconnected) => Heard::Ended,
        };
        self.silent = matches!(heard, Heard::Silence);
        Ok(heard)
    }

    fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        // Whoever waits for a reader would wait for ever.
        self.lines = deaf();
        let status = self.end().context("cannot switch QEMU off")?;
        let errors = join(self.errors.take())?.unwrap_or_default();
        let mut console = join(self.console.take())?.unwrap_or_default();
        for thread in self.others.drain(..) {
            join(Some(thread))?;
        }
        if let Some(status) = status.filter(|status| !status.success()) {
            console.extend(failure(status, errors));
        }
        Ok(console)
    }
}

impl Drop for Amd {
    fn drop(&mut self) {
        // It may be off already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines from nowhere.
fn deaf() -> Receiver<Vec<u8>> {
    mpsc::sync_channel(0).1
}

/// What to say of a QEMU that ended with this status, and with these errors.
fn failure(status: ExitStatus, errors: Vec<String>) -> impl Iterator<Item = String> {
    // The CPU's features that TCG lacks are known and harmless.
    let errors = errors.into_iter().filter(|line| !line.contains("TCG doesn't support"));
    std::iter::once(format!("{EMULATOR}QEMU, {status}")).chain(errors)
}

/// Writes down what a line says; its last lines.
fn tail(from: impl Read, to: impl Write) -> io::Result<Vec<String>> {
    let mut console = Console::to(to);
    drain(from, |bytes| console.take(bytes))?;
    Ok(console.lines().iter().map(|line| clean(line)).collect())
}

fn join<T>(thread: Option<JoinHandle<io::Result<T>>>) -> anyhow::Result<Option<T>> {
    let Some(thread) = thread else { return Ok(None) };
    let done = thread.join().map_err(|_| anyhow!("a thread that listens to the machine panicked"))?;
    done.map(Some).context("cannot write down what the machine says")
}

/// Starts a program that inherits these files and does not outlive this thread.
#[expect(unsafe_code, reason = "the only way to set up a child before it becomes another program")]
fn start(mut command: Command, files: Vec<OwnedFd>) -> anyhow::Result<Child> {
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
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::bed::console::excerpt;

    #[test]
    fn how_qemu_ended_is_part_of_the_evidence() {
        let errors = ["warning: TCG doesn't support requested feature", "qemu: out of memory"];
        let mut console = vec!["BUG: KASAN: earlier".to_owned()];
        console.extend(failure(ExitStatus::from_raw(9), errors.map(str::to_owned).to_vec()));
        let excerpt = excerpt(&console);
        assert!(excerpt[0].contains("QEMU, signal: 9"), "{excerpt:?}");
        assert_eq!(excerpt[1..], ["qemu: out of memory"]);
    }
}
