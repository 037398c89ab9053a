//! A whole run in a bed, over as many boots as the kernel under test needs.
//!
//! A machine that dies takes only the case down that was running: the journal is outside already, the case
//! gets its verdict, and the next boot goes on behind it. Knows nothing of QEMU, kernels or files' places.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bed_init::Event;

use super::console::{clean, excerpt};
use super::event::{Journal, Told};

/// A kernel that dies more often than this has shown enough.
const MOST_BOOTS: usize = 20;
/// How much a run may write to its journal, in bytes.
const MOST_JOURNAL: usize = 256 << 20;
/// The part of the wait between cases that a case gets beyond its limit, so that it is the runner who ends it.
const SLACK: u32 = 6;

/// What comes from a machine next.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A line on the results channel, without its end.
    Line(Vec<u8>),
    /// Nothing came on the results channel for as long as was asked.
    Silence,
    /// The machine is off.
    Ended,
    /// Somebody wants the run to end, with this exit status.
    Interrupted(u8),
}

/// A machine that is running.
pub(crate) trait Machine {
    /// The next line; waits at most `patience`, whatever comes that is no line.
    fn listen(&mut self, patience: Duration) -> anyhow::Result<Heard>;

    /// Switches it off, if it is not; the last lines of its console.
    fn stop(&mut self) -> anyhow::Result<Vec<String>>;

    /// What time it is.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// How a machine was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The kernel or the runner died.
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
    /// The case that a machine was lost in; `None` if the run was interrupted, or no case ran then.
    pub(crate) lost: Option<Lost>,
}

/// A case that was running when its machine was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Its id, as the machine said it.
    pub(crate) case: String,
    pub(crate) how: Loss,
    /// What the machine's console said of it.
    pub(crate) console: Vec<String>,
}

/// Where machines come from, and where the run is written down.
pub(crate) trait Bed {
    /// Boots a machine; `number` counts from 1.
    fn boot(&mut self, number: usize, resume: Option<&Resume>) -> anyhow::Result<Box<dyn Machine>>;

    /// The journal, which a boot to resume reads.
    fn journal(&mut self) -> &mut dyn Write;

    /// A word to the user about the course of things.
    fn remark(&mut self, text: &str);

    /// The journal goes on.
    fn told(&mut self, event: &Journal);
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until the runner starts.
    pub(crate) boot: Duration,
    /// For the next line of the journal while no case runs. A case has its own limit.
    pub(crate) results: Duration,
    /// For a case, whatever its limit is said to be.
    pub(crate) case: Duration,
}

/// How a boot ended.
enum End {
    /// The runner has ended with this status, or it shall not go on.
    Done(u8),
    /// The machine is lost, and its first program said why, if it did.
    Lost(Loss, Option<String>),
}

/// What was seen in one boot.
#[derive(Default)]
struct Seen {
    up: bool,
    header: bool,
    verdicts: usize,
    running: Option<Running>,
    /// The case that this boot has to give a verdict for, since the machine before was lost in it.
    owed: Option<String>,
}

/// A case that runs.
struct Running {
    case: String,
    limit: Option<Duration>,
}

impl Patience {
    /// How long to wait for the next event.
    fn after(self, seen: &Seen) -> Duration {
        match &seen.running {
            _ if !seen.up => self.boot,
            Some(Running { limit: Some(limit), .. }) => {
                (*limit).min(self.case).saturating_add(self.results / SLACK)
            }
            Some(Running { limit: None, .. }) | None => self.results,
        }
    }
}

/// Runs to the end; the runner's exit status. An error means that the bed cannot be used.
pub(crate) fn run(bed: &mut dyn Bed, patience: Patience, interrupted: bool) -> anyhow::Result<u8> {
    let mut resume = interrupted.then_some(Resume { lost: None });
    let mut journal = interrupted;
    let mut room = MOST_JOURNAL;
    for number in 1..=MOST_BOOTS {
        let mut machine = bed.boot(number, resume.as_ref())?;
        let lost = resume.and_then(|resume| resume.lost);
        let mut seen = Seen { owed: lost.as_ref().map(|lost| lost.case.clone()), ..Seen::default() };
        let end = follow(bed, &mut *machine, &mut seen, patience, &mut room);
        let stopped = machine.stop().map(|lines| excerpt(&lines));
        let (how, said) = match end {
            Ok(End::Lost(how, said)) => (how, said),
            Ok(End::Done(status)) => {
                // The runner has said everything; how the machine ends changes nothing.
                if let Err(error) = stopped {
                    bed.remark(&clean(&format!("{error:#}")));
                }
                return Ok(status);
            }
            Err(error) => bail!("{error:#}; the console ended with:{}", indented(&stopped)),
        };
        let console = stopped.map(|lines| said.iter().map(|said| clean(said)).chain(lines).collect());
        let last = || indented(&console);
        journal |= seen.header;
        let word = match how {
            Loss::Crash => "died",
            Loss::Timeout => "went silent",
        };
        if !seen.up {
            bail!("the kernel {word} before the suite could begin; its console ended with:{}", last());
        }
        if !journal {
            bail!("the kernel {word} before the first case; its console ended with:{}", last());
        }
        if number > 1 && seen.verdicts == 0 && seen.running.is_none() {
            bail!("the kernel {word} again and again without any verdict; its console ended with:{}", last());
        }
        let console = console?;
        let case = seen.running.as_ref().map_or("no case".to_owned(), |running| clean(&running.case));
        bed.remark(&format!("the machine {word} while {case} ran; booting again to go on behind it"));
        let lost = match seen.running {
            Some(Running { case, .. }) => Some(Lost { case, how, console }),
            // It died too soon to give the verdict that was owed.
            None => lost.filter(|_| seen.owed.is_some()),
        };
        resume = Some(Resume { lost });
    }
    bail!(
        "the kernel died in {MOST_BOOTS} boots; results.jsonl has what was found until then, and --resume goes on"
    )
}

/// A console's last lines below a message, or why there are none.
fn indented(console: &anyhow::Result<Vec<String>>) -> String {
    match console {
        Ok(lines) => lines.iter().map(|line| format!("\n    {line}")).collect(),
        Err(error) => format!("\n    {error:#}"),
    }
}

/// Listens to a machine until it is done or lost.
fn follow(
    bed: &mut dyn Bed,
    machine: &mut dyn Machine,
    seen: &mut Seen,
    patience: Patience,
    room: &mut usize,
) -> anyhow::Result<End> {
    // Only what the runner does is progress; a kernel in distress can talk for ever.
    let mut since = machine.now();
    loop {
        let left = patience.after(seen).saturating_sub(machine.now().saturating_duration_since(since));
        if left.is_zero() {
            return Ok(End::Lost(Loss::Timeout, None));
        }
        let line = match machine.listen(left)? {
            Heard::Line(line) => line,
            Heard::Silence => return Ok(End::Lost(Loss::Timeout, None)),
            Heard::Ended => return Ok(End::Lost(Loss::Crash, None)),
            Heard::Interrupted(status) => return Ok(End::Done(status)),
        };
        let event = match Told::by(&line) {
            Told::Init(Event::BedUp { .. }) => {
                if !std::mem::replace(&mut seen.up, true) {
                    since = machine.now();
                }
                continue;
            }
            // The runner's death is one more way in which a case can take everything down.
            Told::Init(Event::BedError { message }) if seen.running.is_some() => {
                return Ok(End::Lost(Loss::Crash, Some(message)));
            }
            Told::Init(Event::BedError { message }) => bail!("{}", clean(&message)),
            Told::Init(Event::Exit { status }) => return Ok(End::Done(status)),
            Told::Garbage => continue,
            Told::Journal(event) => event,
        };
        since = machine.now();
        *room = room.checked_sub(line.len() + 1).with_context(|| {
            format!("the machine writes more than {} MiB of results; that is no run", MOST_JOURNAL >> 20)
        })?;
        let journal = bed.journal();
        // One write, so that whatever kills this process leaves whole lines.
        journal.write_all(&[&line[..], b"\n"].concat()).context("cannot write results.jsonl")?;
        bed.told(&event);
        match event {
            Journal::Header { .. } => seen.header = true,
            Journal::Ended {} => {}
            Journal::Started { case, limit_ms } => {
                seen.running = Some(Running { case, limit: limit_ms.map(Duration::from_millis) });
            }
            Journal::Finished { case } => {
                seen.verdicts += 1;
                seen.running.take_if(|running| running.case == case);
                seen.owed.take_if(|owed| *owed == case);
            }
        }
    }
}

#[cfg(test)]
mod tests;
