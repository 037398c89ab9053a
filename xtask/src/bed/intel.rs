//! An Intel machine that Bochs emulates: real kvm_intel with EPT, unrestricted guests, SMM and nested VMX, on any
//! host, with any kernel.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, ExitStatus};

use anyhow::Context;
use nix::pty::openpty;

use super::bochs::Bochs;
use super::boot::{BootDisk, CYLINDER, Memory, rom};
use super::kind::{Emulator, Parts};
use super::process::{Logs, Process, Sources};
use super::screen::Screen;
use super::session::Machine;

/// How much memory the machine has, in MiB.
const MEMORY: u32 = 512;

/// The CPU. Newer models of Bochs 2.7 do not boot Linux.
const CPU: &str = "corei7_skylake_x";

/// A kernel that is dead stays so: to start anew would hide what it said. Its clock is good, and it need not
/// find out how fast it is. Bochs gives CPUID 0xd a size without the compaction that XSAVEC and XSAVES do, at which
/// Linux drops XSAVE as a whole ("XSAVE consistency problem"): without these two (10 * 32 + 1 and + 3 in cpufeatures.h)
/// KVM has XSAVE, and the guests AVX.
const KERNEL_ARGS: &[&str] =
    &["panic=0", "tsc=reliable", "lpj=1000000", "no_timer_check", "idle=poll", "clearcpuid=321,323"];

/// How Bochs ends when its machine has switched itself off. Its exit status is that of a failure.
const SWITCHED_OFF: &str = "Shutdown port";

/// How many of Bochs' last words are kept with the console.
const LAST_WORDS: usize = 10;

/// What Bochs opens, by the number of the file in its process.
#[derive(Debug)]
struct Files {
    disk: i32,
    rom: i32,
    log: i32,
    /// The console, text and results.
    lines: [i32; 3],
}

impl Emulator for Bochs {
    fn name(&self) -> String {
        "Bochs".to_owned()
    }

    fn boot(&self, parts: Parts<'_>) -> anyhow::Result<Box<dyn Machine>> {
        let Parts { kernel, words, initramfs, console, text } = parts;
        let words = KERNEL_ARGS.iter().copied().chain(words.iter().map(String::as_str));
        let words = words.collect::<Vec<_>>().join(" ");
        let image = std::fs::read(&kernel.image).with_context(|| kernel.image.display().to_string())?;
        let memory = Memory { size: MEMORY << 20 };
        let boot = BootDisk::new(&image, &content(initramfs)?, &words, memory)?;
        drop(image);
        let cylinders = boot.disk.len() / CYLINDER / 512;

        let mut theirs: Vec<OwnedFd> = Vec::new();
        let mut give = |file: OwnedFd| {
            theirs.push(file);
            theirs[theirs.len() - 1].as_raw_fd()
        };
        let mut line = || -> anyhow::Result<(i32, Box<dyn Read + Send>)> {
            let (from, to) = std::io::pipe().context("cannot make a line to the machine")?;
            Ok((give(to.into()), Box::new(from)))
        };
        let (console_line, from_console) = line()?;
        let (text_line, from_text) = line()?;
        let (results_line, from_results) = line()?;
        let (errors, log) = std::io::pipe().context("cannot make a line to Bochs")?;
        let stderr = log.try_clone().context("cannot make a line to Bochs")?;
        let files = Files {
            disk: give(file(&boot.disk)?.into()),
            rom: give(file(&boot.rom)?.into()),
            log: give(log.into()),
            lines: [console_line, text_line, results_line],
        };
        drop(boot);
        let settings = give(file(self.settings(&files, cylinders).as_bytes())?.into());
        // It waits for a command before it starts, as it is built with its debugger.
        let commands = give(file(b"c\n")?.into());

        // It has no display that needs no terminal.
        let terminal = openpty(None, None).context("cannot make a terminal for Bochs")?;
        let input = terminal.slave.try_clone().context("cannot make a terminal for Bochs")?;
        let mut command = Command::new(&self.program);
        command.args(["-q", "-f", &place(settings), "-rc", &place(commands)]).env("TERM", "xterm");
        command.stdin(input).stdout(terminal.slave).stderr(stderr);
        let sources = Sources {
            console: from_console,
            text: from_text,
            results: from_results,
            errors: Box::new(Screen::named_in(errors)),
            screen: Some(Box::new(File::from(terminal.master))),
        };
        Ok(Box::new(Process::start(command, theirs, sources, Logs { console, text }, judge)?))
    }
}

impl Bochs {
    /// The configuration, as bochsrc has it.
    fn settings(&self, files: &Files, cylinders: usize) -> String {
        let Files { disk, rom, log, lines } = files;
        let mut text = format!(
            "megs: {MEMORY}\n\
             cpu: model={CPU}, count=1, ips=200000000, reset_on_triple_fault=0, ignore_bad_msrs=1\n\
             romimage: file={bios}\n\
             vgaromimage: file={vga}\n\
             optromimage1: file={rom}, address={at:#x}\n\
             ata0: enabled=1\n\
             ata0-master: type=disk, mode=flat, path={disk}, cylinders={cylinders}, heads=16, spt=63\n\
             boot: disk\n\
             display_library: term\n\
             clock: sync=none\n\
             log: {log}\n\
             panic: action=fatal\n\
             error: action=ignore\n\
             info: action=ignore\n\
             magic_break: enabled=0\n\
             port_e9_hack: enabled=0\n",
            bios = self.bios.display(),
            vga = self.vga_bios.display(),
            rom = place(*rom),
            at = rom::ADDRESS,
            disk = place(*disk),
            log = place(*log),
        );
        text.extend(
            (1..)
                .zip(lines)
                .map(|(number, line)| format!("com{number}: enabled=1, mode=file, dev={}\n", place(*line))),
        );
        text
    }
}

/// The path under which a program opens a file that it has inherited.
fn place(file: i32) -> String {
    format!("/proc/self/fd/{file}")
}

/// A file without a name: nothing is left behind, however this ends.
fn file(content: &[u8]) -> anyhow::Result<File> {
    let write = || -> std::io::Result<File> {
        let mut file = tempfile::tempfile()?;
        file.write_all(content)?;
        Ok(file)
    };
    write().context("cannot write a file for Bochs")
}

fn content(mut file: File) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .context("cannot read the initramfs")?;
    Ok(bytes)
}

/// What Bochs said when it ended in another way than it should: a CPU that shuts down, say.
fn judge(status: Option<ExitStatus>, errors: &[String]) -> Vec<String> {
    if status.is_none() || errors.iter().any(|line| line.contains(SWITCHED_OFF)) {
        return Vec::new();
    }
    let first = errors.len().saturating_sub(LAST_WORDS);
    errors[first..].iter().map(|line| format!("Bochs: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_name_every_file_that_the_machine_inherits() {
        let bochs = Bochs { program: "bochs".into(), bios: "/b/BIOS".into(), vga_bios: "/b/VGA".into() };
        let text = bochs.settings(&Files { disk: 5, rom: 6, log: 7, lines: [8, 9, 10] }, 42);
        let has = |line: &str| assert!(text.lines().any(|other| other == line), "{line}\nin\n{text}");
        has("romimage: file=/b/BIOS");
        has("vgaromimage: file=/b/VGA");
        has("optromimage1: file=/proc/self/fd/6, address=0xd0000");
        has("ata0-master: type=disk, mode=flat, path=/proc/self/fd/5, cylinders=42, heads=16, spt=63");
        has("log: /proc/self/fd/7");
        has("com1: enabled=1, mode=file, dev=/proc/self/fd/8");
        has("com3: enabled=1, mode=file, dev=/proc/self/fd/10");
        // A kernel reads unknown MSRs at every exit; a prompt would wait for ever.
        has("error: action=ignore");
        has("panic: action=fatal");
    }

    #[test]
    fn only_an_end_that_is_not_the_machines_own_is_told() {
        let off = ["[UNMAP ] >>PANIC<< Shutdown port: shutdown requested".to_owned()];
        let triple = ["[CPU0  ] >>PANIC<< exception(): 3rd (14) exception with no resolution".to_owned()];
        let failed = Some(std::os::unix::process::ExitStatusExt::from_raw(1 << 8));
        assert!(judge(failed, &off).is_empty());
        assert!(judge(None, &triple).is_empty(), "it was switched off");
        assert_eq!(judge(failed, &triple), [format!("Bochs: {}", triple[0])]);
    }
}
