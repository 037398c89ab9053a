//! What supervisor and worker say to each other: one JSON document per line over a socket.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::outcome::Outcome;
use crate::suite::RunContext;

/// The longest line that either side reads, in bytes. An outcome is at most [`LONGEST_OUTCOME`].
const LONGEST_LINE: u64 = 2 * LONGEST_OUTCOME as u64 + 64 * 1024;

/// The longest outcome that a case's process may hand over, in bytes.
pub(super) const LONGEST_OUTCOME: usize = 1 << 20;

/// A test, as a worker is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Played {
    /// Its name: a case, and what is done to it.
    pub test: String,
    /// Where every random choice starts.
    pub seed: u64,
    /// The only points at which it is perturbed.
    pub only: Option<Vec<u32>>,
}

/// Supervisor to worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// First of all: the run.
    Context(Box<RunContext>),
    /// Play this test.
    Play {
        /// Which.
        what: Played,
        /// The outer bound in milliseconds.
        limit_ms: u64,
    },
}

/// Worker to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The case's process exists.
    Started {
        /// Its process id.
        pid: i32,
    },
    /// The case is over.
    Finished {
        /// What became of it.
        outcome: Box<Outcome>,
        /// Its process is still there although it was killed: the worker is not to be used again.
        stuck: bool,
    },
}

/// Writes a message with a single write, as far as the socket takes it.
pub(super) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads a message; `None` at the end of the stream.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if from.take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
