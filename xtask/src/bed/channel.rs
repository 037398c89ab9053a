//! The serial lines of a machine, seen from outside: lines of bounded length from bytes that a kernel under
//! test is free to choose.

use std::io::{self, Read, Write};

use bed_init::ERROR_MARK;

use super::progress::Progress;

/// The longest line that is kept, in bytes; a verdict with all its evidence is far shorter.
const LONGEST: usize = 8 << 20;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    overlong: bool,
}

impl Lines {
    /// Takes bytes, gives every line that they end. A line that is too long is dropped.
    pub(crate) fn take(&mut self, bytes: &[u8], mut give: impl FnMut(Vec<u8>)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (content, ended) =
                piece.strip_suffix(b"\n").map_or((piece, false), |content| (content, true));
            if self.line.len() + content.len() > LONGEST {
                self.overlong = true;
                self.line = Vec::new();
            }
            if !self.overlong {
                self.line.extend(content);
            }
            if ended {
                let line = std::mem::take(&mut self.line);
                if !std::mem::take(&mut self.overlong) {
                    give(line);
                }
            }
        }
    }
}

impl Lines {
    /// What came after the last line's end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.line)
    }
}

/// Reads until the machine is gone. A machine that ends resets the line, which is no error here.
pub(crate) fn drain(mut from: impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            // A terminal whose other end is closed.
            Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// How much text of a run is passed on, in bytes.
const MOST_TEXT: usize = 64 << 20;

/// Passes on the runner's text: to a file, and to the user if that is wanted.
#[derive(Debug)]
pub(crate) struct Relay<W: Write> {
    file: W,
    shown: bool,
    room: usize,
    lines: Lines,
    progress: Progress,
}

impl<W: Write> Relay<W> {
    pub(crate) fn to(file: W, shown: bool) -> Self {
        Self { file, shown, room: MOST_TEXT, lines: Lines::default(), progress: Progress::default() }
    }

    /// The same where there is such a line on the terminal.
    pub(crate) fn beside(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Takes bytes of text.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut ready = Vec::new();
        self.lines.take(bytes, |line| ready.push(line));
        ready.into_iter().try_for_each(|line| self.pass(&line))
    }

    fn pass(&mut self, line: &[u8]) -> io::Result<()> {
        let (line, error) = line.strip_prefix(&[ERROR_MARK]).map_or((line, false), |rest| (rest, true));
        let line = coloured(&String::from_utf8_lossy(line));
        // An empty line takes room, too.
        let Some(room) = self.room.checked_sub(line.len() + 1) else { return Ok(()) };
        self.room = room;
        writeln!(self.file, "{line}")?;
        // Whoever reads may have had enough; the run goes on into its files.
        let _ = self.progress.aside(|| match (self.shown, error) {
            (false, _) => Ok(()),
            (true, false) => writeln!(io::stdout(), "{line}"),
            (true, true) => writeln!(io::stderr(), "{line}"),
        });
        Ok(())
    }
}

impl<W: Write> Drop for Relay<W> {
    /// The last line may have no end, if the machine died in it.
    fn drop(&mut self) {
        let rest = self.lines.rest();
        if !rest.is_empty() {
            // Its file has failed before, then, or it is of no use to anybody.
            let _ = self.pass(&rest);
        }
    }
}

/// A line with its colours, and without anything else that a terminal would obey.
fn coloured(line: &str) -> String {
    let plain = |text: &str| -> String { text.chars().filter(|c| !c.is_control() || *c == '\t').collect() };
    let mut pieces = line.split("\u{1b}[");
    let mut text = plain(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(piece.len());
        if piece[digits..].starts_with('m') {
            text.push_str("\u{1b}[");
        }
        text.push_str(&plain(piece));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let text = b"one\n\ntwo\nthree\ntorn";
        for size in 1..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for chunk in text.chunks(size) {
                lines.take(chunk, |line| found.push(String::from_utf8(line).unwrap()));
            }
            assert_eq!(found, ["one", "", "two", "three"], "{size}");
        }
    }

    #[test]
    fn a_line_without_end_is_dropped_and_the_next_one_is_kept() {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for _ in 0..(LONGEST / 4096 + 2) {
            lines.take(&[b'x'; 4096], |line| found.push(line));
            assert!(lines.line.len() <= LONGEST);
        }
        lines.take(b"tail\nnext\n", |line| found.push(line));
        assert_eq!(found, [b"next"]);
    }

    #[test]
    fn colours_pass_and_other_commands_to_a_terminal_do_not() {
        let mut file = Vec::new();
        let mut relay = Relay::to(&mut file, false);
        relay
            .take(b"\x02test a ... \x1b[32mok\x1b[0m\r\n\x1b[2Jcleared\x1b]0;title\x07\n  indented\n")
            .unwrap();
        drop(relay);
        let text = String::from_utf8(file).unwrap();
        assert_eq!(text, "test a ... \u{1b}[32mok\u{1b}[0m\n2Jcleared]0;title\n  indented\n");
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let mut file = Vec::new();
        Relay::to(&mut file, false).take(b"one\nand the kernel di\x1b[2J").unwrap();
        assert_eq!(file, b"one\nand the kernel di2J\n");
    }

    #[test]
    fn a_flood_of_empty_lines_is_bounded() {
        let mut file = Vec::new();
        let mut relay = Relay::to(&mut file, false);
        relay.room = 1000;
        relay.take(&[b'\n'; 5000]).unwrap();
        drop(relay);
        assert_eq!(file.len(), 1000);
    }
}
