//! The terminal on which Bochs draws its machine's screen: it makes one of its own, says where, and writes to it for
//! ever, if only the cursor's blinking. Nobody looks at it, but somebody must read it: a terminal that is full stops
//! the machine, after some ten minutes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// What stands before the terminal's name, in quotes.
const SAYS: &str = "connected to screen \"";
/// How much of what has been said is kept while the name is not whole.
const MOST: usize = 4096;

/// What Bochs says, unchanged; the terminal that it names is read from then on.
#[derive(Debug)]
pub(crate) struct Screen<R> {
    says: R,
    /// What was said so far; `None` once the terminal is known.
    heard: Option<String>,
}

impl<R> Screen<R> {
    /// Listens for the name.
    pub(crate) fn named_in(says: R) -> Self {
        Self { says, heard: Some(String::new()) }
    }
}

impl<R: Read> Read for Screen<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.says.read(bytes)?;
        if let Some(heard) = &mut self.heard {
            heard.push_str(&String::from_utf8_lossy(&bytes[..len]));
            if let Some(terminal) = terminal(heard) {
                let terminal = open(terminal)?;
                thread::spawn(move || swallow(terminal));
                self.heard = None;
            } else if heard.len() > MOST {
                self.heard = None;
            }
        }
        Ok(len)
    }
}

/// The terminal's name in what Bochs has said.
fn terminal(heard: &str) -> Option<&str> {
    let name = heard.split_once(SAYS)?.1.split_once('"')?.0;
    name.starts_with("/dev/pts/").then_some(name)
}

/// Opens it to read whatever comes at once, without a word back.
fn open(terminal: &str) -> io::Result<File> {
    let flags = OFlag::O_NOCTTY.bits();
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(flags).open(terminal)?;
    let mut settings = tcgetattr(&terminal)?;
    cfmakeraw(&mut settings);
    tcsetattr(&terminal, SetArg::TCSANOW, &settings)?;
    Ok(terminal)
}

/// Until Bochs has gone, which is an error to whoever reads.
fn swallow(mut terminal: File) {
    let mut bytes = [0; 4096];
    while terminal.read(&mut bytes).is_ok_and(|len| len > 0) {}
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::pty::openpty;
    use nix::unistd::ttyname;

    use super::*;

    #[test]
    fn a_terminal_that_is_named_never_fills() {
        let pty = openpty(None, None).unwrap();
        let name = ttyname(&pty.slave).unwrap().display().to_string();
        let says = format!("Bochs 2.7\n\nBochs connected to screen \"{name}\"\nmore");
        // In pieces, as they come.
        let (one, two) = says.split_at(says.len() - 12);
        let mut through = String::new();
        let mut screen = Screen::named_in(one.as_bytes().chain(two.as_bytes()));
        screen.read_to_string(&mut through).unwrap();
        assert_eq!(through, says);
        // Much more than a terminal holds, without an end of line; it would block for ever.
        let mut bochs = File::from(pty.master);
        for _ in 0..10_000 {
            bochs.write_all(b"\x1b[?12l\x1b[?25h").unwrap();
        }
    }

    #[test]
    fn only_a_terminal_is_opened() {
        assert_eq!(terminal("x connected to screen \"/dev/pts/7\"\n"), Some("/dev/pts/7"));
        assert_eq!(terminal("connected to screen \"/etc/passwd\""), None);
        assert_eq!(terminal("connected to screen \"/dev/pts/"), None);
    }
}
