//! An AMD machine that QEMU emulates by its TCG: real kvm_amd with nested paging, SMM and nested SVM, on any
//! host, with any kernel.

use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, anyhow};

use super::console::EMULATOR;
use super::kind::{Emulator, Parts};
use super::process::{Logs, Process, Sources};
use super::qemu::Qemu;
use super::session::Machine;

/// What the emulated CPU is. vGIF and nested paging are all that TCG knows of SVM's extensions.
const CPU: &str = "EPYC,+svm,+npt,+vgif";

/// A kernel that is dead ends the machine. Whether the timer ticks is not tested: where the emulator shares its CPU, none
/// may have come by then, which is a panic ("IO-APIC + timer doesn't work!").
const KERNEL_ARGS: &[&str] = &["panic=-1", "no_timer_check"];

impl Emulator for Qemu {
    fn name(&self) -> String {
        format!("QEMU {}", self.version)
    }

    fn remark(&self) -> Option<String> {
        Self::remark(self)
    }

    fn boot(&self, parts: Parts<'_>) -> anyhow::Result<Box<dyn Machine>> {
        let Parts { kernel, words, mut initramfs, console, text } = parts;
        initramfs.seek(SeekFrom::Start(0)).context("cannot rewind the initramfs")?;
        let mut command = Command::new(&self.program);
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
        let (from_errors, errors) = std::io::pipe().context("cannot make a line to QEMU")?;
        command.arg("-kernel").arg(&kernel.image);
        command.args(["-initrd", &format!("/proc/self/fd/{}", theirs[0].as_raw_fd())]);
        let words = KERNEL_ARGS.iter().copied().chain(words.iter().map(String::as_str));
        command.args(["-append", &words.collect::<Vec<_>>().join(" ")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let [console_line, text_line, results_line] =
            <[UnixStream; 3]>::try_from(ours).map_err(|_| anyhow!("a machine has three lines"))?;
        let sources = Sources {
            console: Box::new(console_line),
            text: Box::new(text_line),
            results: Box::new(results_line),
            errors: Box::new(from_errors),
            screen: None,
        };
        Ok(Box::new(Process::start(command, theirs, sources, Logs { console, text }, judge)?))
    }
}

/// QEMU ends well however its machine ends; if it does not, that is part of the evidence.
fn judge(status: Option<ExitStatus>, errors: &[String]) -> Vec<String> {
    let Some(status) = status.filter(|status| !status.success()) else { return Vec::new() };
    // The CPU's features that TCG lacks are known and harmless.
    let errors = errors.iter().filter(|line| !line.contains("TCG doesn't support"));
    std::iter::once(format!("{EMULATOR}QEMU, {status}")).chain(errors.cloned()).collect()
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
        console.extend(judge(Some(ExitStatus::from_raw(9)), &errors.map(str::to_owned)));
        let excerpt = excerpt(&console);
        assert!(excerpt[0].contains("QEMU, signal: 9"), "{excerpt:?}");
        assert_eq!(excerpt[1..], ["qemu: out of memory"]);
    }
}
