//! A second place for the journal's lines, outside of a machine that may die: a serial port, usually.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::termios::tcdrain;

/// Where the lines go as well.
#[derive(Debug)]
pub struct Mirror {
    file: File,
}

impl Mirror {
    /// Opens a device, or a file to append to.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().append(true).create(true).open(path)? })
    }

    /// Writes a line.
    pub(super) fn write(&self, line: &[u8]) -> io::Result<()> {
        (&self.file).write_all(line)
    }

    /// Waits until a terminal has sent what was written; anything else has it already.
    pub(super) fn drain(&self) -> io::Result<()> {
        match tcdrain(&self.file) {
            Ok(()) | Err(Errno::ENOTTY | Errno::EINVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
