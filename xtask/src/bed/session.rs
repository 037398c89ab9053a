//! A whole run in a bed, over as many boots as the kernel under test needs.
//!
//! A machine that dies takes only the case down that was running: the journal is outside already, the case
//! gets its verdict, and the next boot goes on behind it. Knows nothing of QEMU, kernels or files' places.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bed_init::Event;

use super::console::excerpt;
use super::event::{Journal, Told};

/// A kernel that dies more often than this has shown enough.
const MOST_BOOTS: usize = 20;

/// What comes from a machine next.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A line on the results channel, without its end.
    Line(Vec<u8>),
    /// Nothing came on the results channel for as long as was asked.
    Silence,
    /// The machine is off.
    Ended,
}

/// A machine that is running.
pub(crate) trait Machine {
    /// The next line; waits at most `patience` since the last byte.
    fn listen(&mut self, patience: Duration) -> anyhow::Result<Heard>;

    /// Switches it off, if it is not; the last lines of its console.
    fn stop(&mut self) -> anyhow::Result<Vec<String>>;
}

/// How a machine was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The kernel died.
    Crash,
    /// It went silent and was switched off.
    Timeout,
}

impl Loss {
    /// The runner's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Timeout => "timeout",
        }
    }
}

/// What a boot goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resume {
    /// How the machine before was lost, and what its console said; `None` if the run was interrupted.
    pub(crate) lost: Option<(Loss, Vec<String>)>,
}

/// Where machines come from, and where the run is written down.
pub(crate) trait Bed {
    /// Boots a machine; `number` counts from 1.
    fn boot(&mut self, number: usize, resume: Option<&Resume>) -> anyhow::Result<Box<dyn Machine>>;

    /// The journal, which a boot to resume reads.
    fn journal(&mut self) -> &mut dyn Write;

    /// A word to the user about the course of things.
    fn remark(&mut self, text: &str);
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For the first sign of life.
    pub(crate) boot: Duration,
    /// For the next byte of results.
    pub(crate) results: Duration,
}

/// How a boot ended.
enum End {
    /// The runner has ended with this status.
    Done(u8),
    Lost(Loss),
}

/// What was seen in one boot.
#[derive(Default)]
struct Seen {
    up: bool,
    header: bool,
    verdicts: usize,
    running: Option<String>,
}

/// Runs to the end; the runner's exit status. An error means that the bed cannot be used.
pub(crate) fn run(bed: &mut dyn Bed, patience: Patience, interrupted: bool) -> anyhow::Result<u8> {
    let mut resume = interrupted.then_some(Resume { lost: None });
    let mut journal = interrupted;
    for number in 1..=MOST_BOOTS {
        let mut machine = bed.boot(number, resume.as_ref())?;
        let mut seen = Seen::default();
        let end = follow(bed, &mut *machine, &mut seen, patience);
        let console = machine.stop()?;
        let last = || -> String { excerpt(&console).iter().map(|line| format!("\n    {line}")).collect() };
        let loss = match end.map_err(|error| anyhow!("{error:#}; the console ended with:{}", last()))? {
            End::Done(status) => return Ok(status),
            End::Lost(loss) => loss,
        };
        journal |= seen.header;
        let how = match loss {
            Loss::Crash => "died",
            Loss::Timeout => "went silent",
        };
        if !seen.up {
            bail!("the kernel {how} before the suite could begin; its console ended with:{}", last());
        }
        if !journal {
            bail!("the kernel {how} before the first case; its console ended with:{}", last());
        }
        if number > 1 && seen.verdicts == 0 {
            bail!("the kernel {how} again and again without any verdict; its console ended with:{}", last());
        }
        let case = seen.running.as_deref().unwrap_or("no case");
        bed.remark(&format!("the kernel {how} while {case} ran; booting again to go on behind it"));
        resume = Some(Resume { lost: Some((loss, excerpt(&console))) });
    }
    bail!(
        "the kernel died in {MOST_BOOTS} boots; results.jsonl has what was found until then, and --resume goes on"
    )
}

/// Listens to a machine until it is done or lost.
fn follow(
    bed: &mut dyn Bed,
    machine: &mut dyn Machine,
    seen: &mut Seen,
    patience: Patience,
) -> anyhow::Result<End> {
    loop {
        let wait = if seen.up { patience.results } else { patience.boot };
        let line = match machine.listen(wait)? {
            Heard::Line(line) => line,
            Heard::Silence => return Ok(End::Lost(Loss::Timeout)),
            Heard::Ended => return Ok(End::Lost(Loss::Crash)),
        };
        let event = match Told::by(&line) {
            Told::Init(Event::BedUp) => {
                seen.up = true;
                continue;
            }
            Told::Init(Event::BedError { message }) => bail!("{}", super::console::clean(&message)),
            Told::Init(Event::Exit { status }) => return Ok(End::Done(status)),
            Told::Garbage => continue,
            Told::Journal(event) => event,
        };
        let journal = bed.journal();
        // One write, so that whatever kills this process leaves whole lines.
        journal.write_all(&[&line[..], b"\n"].concat()).context("cannot write results.jsonl")?;
        match event {
            Journal::Header {} => seen.header = true,
            Journal::Started { case } => seen.running = Some(case),
            Journal::Finished { .. } => {
                seen.verdicts += 1;
                seen.running = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
