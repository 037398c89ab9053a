//! One machine for several runs in turn: each has a machine of its own, as far as it can see.
//!
//! A run that has come to its end leaves the machine to the next one, for which its first program loads other modules.
//! One that goes wrong leaves nothing, and the next one boots. Knows neither cases nor where machines come from.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bed_init::Event;

use super::console::clean;
use super::session::{Heard, Machine};

/// How long a machine may take to unload modules and to load others. It costs a boot if that is too short.
const HANDOVER: Duration = Duration::from_mins(2);

/// A machine's logs: `console`, and the file.
pub(crate) type Logs = Vec<(&'static str, PathBuf)>;

/// A machine that is up, and its logs.
pub(crate) type Up = (Box<dyn Machine>, Logs);

/// What one run leaves to the next.
#[derive(Default)]
pub(crate) struct Shared {
    left: Rc<RefCell<Option<Left>>>,
    /// What is to be added to the time that the run has taken, in seconds, so that each run pays its part of a boot.
    shift: Rc<Cell<f64>>,
}

/// A machine whose next turn begins.
struct Left {
    machine: Box<dyn Machine>,
    turn: usize,
    turns: usize,
    logs: Logs,
    /// Each turn's part of the boot, in seconds.
    part: f64,
}

/// A machine, for one of its turns.
struct Lent {
    machine: Box<dyn Machine>,
    turn: usize,
    turns: usize,
    logs: Logs,
    part: f64,
    /// When it was switched on, until it is up.
    booting: Option<Instant>,
    /// What was heard before the run could listen.
    heard: Option<Vec<u8>>,
    done: bool,
    left: Rc<RefCell<Option<Left>>>,
    shift: Rc<Cell<f64>>,
}

impl Shared {
    /// A machine that was switched on for so many turns, for the first of them.
    pub(crate) fn first(&self, machine: Box<dyn Machine>, turns: usize, logs: Logs) -> Box<dyn Machine> {
        let booting = Some(machine.now());
        let left = Left { machine, turn: 0, turns, logs, part: 0.0 };
        Box::new(self.lend(left, booting, None))
    }

    /// The machine that the run before has left, once it is up for the next turn, and its logs; why it does not come up.
    pub(crate) fn next(&self) -> Option<Result<Up, String>> {
        let mut left = self.left.take()?;
        Some(match up(&mut *left.machine, left.turn) {
            Ok(line) => {
                self.shift.set(self.shift.get() + left.part);
                let logs = left.logs.clone();
                Ok((Box::new(self.lend(left, None, Some(line))), logs))
            }
            Err(why) => {
                // It has nothing to say that the console's log does not have.
                let _ = left.machine.stop();
                Err(clean(&why))
            }
        })
    }

    /// What is to be added to the time that the last run has taken, in seconds.
    pub(crate) fn shift(&self) -> f64 {
        self.shift.take()
    }

    fn lend(&self, left: Left, booting: Option<Instant>, heard: Option<Vec<u8>>) -> Lent {
        let Left { machine, turn, turns, logs, part } = left;
        let (left, shift) = (Rc::clone(&self.left), Rc::clone(&self.shift));
        Lent { machine, turn, turns, logs, part, booting, heard, done: false, left, shift }
    }
}

/// Waits until a turn begins; the line that says so.
fn up(machine: &mut dyn Machine, turn: usize) -> Result<Vec<u8>, String> {
    let began = machine.now();
    loop {
        let patience = HANDOVER.saturating_sub(machine.now().saturating_duration_since(began));
        if patience.is_zero() {
            return Err("it went silent".to_owned());
        }
        match machine.listen(patience) {
            Ok(Heard::Line(line)) => match Event::of_line(&line) {
                Some(Event::BedUp { turn: this }) if this == turn => return Ok(line),
                Some(Event::BedError { message }) => return Err(message),
                // What a process of the run before may still have said.
                _ => {}
            },
            Ok(Heard::Silence) => return Err("it went silent".to_owned()),
            Ok(Heard::Ended) => return Err("it died".to_owned()),
            Ok(Heard::Interrupted(_)) => return Err("it is not wanted any more".to_owned()),
            Err(error) => return Err(format!("{error:#}")),
        }
    }
}

impl Machine for Lent {
    fn listen(&mut self, patience: Duration) -> anyhow::Result<Heard> {
        let heard = match self.heard.take() {
            Some(line) => return Ok(Heard::Line(line)),
            None => self.machine.listen(patience)?,
        };
        if let Heard::Line(line) = &heard {
            match Event::of_line(line) {
                // It has not told that this turn is over; what comes now is not of this run.
                Some(Event::BedUp { turn }) if turn != self.turn => return Ok(Heard::Ended),
                Some(Event::BedUp { .. }) => {
                    if let Some(began) = self.booting.take() {
                        let boot = self.machine.now().saturating_duration_since(began).as_secs_f64();
                        self.part = boot / f64::from(u32::try_from(self.turns.max(1)).unwrap_or(u32::MAX));
                        self.shift.set(self.shift.get() + self.part - boot);
                    }
                }
                Some(Event::Exit { .. }) => self.done = true,
                Some(Event::BedError { .. }) | None => {}
            }
        }
        Ok(heard)
    }

    fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        if !self.done || self.turn + 1 >= self.turns {
            return self.machine.stop();
        }
        let machine = std::mem::replace(&mut self.machine, Box::new(Gone));
        let (turn, turns, part) = (self.turn + 1, self.turns, self.part);
        let logs = std::mem::take(&mut self.logs);
        self.left.replace(Some(Left { machine, turn, turns, logs, part }));
        Ok(Vec::new())
    }

    fn now(&self) -> Instant {
        self.machine.now()
    }
}

/// What stays of a machine that was left to the next run.
struct Gone;

impl Machine for Gone {
    fn listen(&mut self, _: Duration) -> anyhow::Result<Heard> {
        Ok(Heard::Ended)
    }

    fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
