//! What a kernel said on its console: kept within bounds, cleaned, and cut down to what tells why it died.

use std::io::{self, Write};

use super::channel::Lines;

/// How much of a console is kept on disk, in bytes. A kernel in distress can say the same for ever.
const LARGEST: usize = 8 << 20;
/// How much of its end is kept in memory, in bytes.
const TAIL: usize = 64 << 10;
/// How many lines tell why a kernel died.
const EXCERPT: usize = 60;

/// How many lines one report of a dying kernel has at most.
const REPORT: usize = 150;

/// How what is said of the emulator itself begins.
pub(crate) const EMULATOR: &str = "the emulator ended: ";

/// What a kernel says when it is dying. Other reports, such as a sanitizer's, it survives.
const MARKS: &[&str] = &[
    EMULATOR,
    "BUG: unable to handle",
    "BUG: kernel NULL pointer",
    "BUG: soft lockup",
    "BUG: stack guard page",
    "Oops",
    "Kernel panic",
    "kernel BUG at",
    "general protection fault",
    "sysrq: Trigger a crash",
    "divide error",
    "double fault",
    "PANIC: ",
    "stack segment",
    "invalid opcode",
    ">>PANIC<<",
];

/// What a kernel may be told to die of.
const CAUSES: &[&str] = &["BUG: ", "WARNING: ", "UBSAN: "];

/// A console that is being written down.
#[derive(Debug)]
pub(crate) struct Console<W> {
    to: W,
    room: usize,
    tail: Vec<u8>,
}

impl<W: Write> Console<W> {
    /// Writes down to a file, usually `console.log` in the run's folder.
    pub(crate) fn to(to: W) -> Self {
        Self { to, room: LARGEST, tail: Vec::new() }
    }

    /// Takes what the kernel said.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tail.extend(bytes);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        if self.room == 0 {
            return Ok(());
        }
        let kept = &bytes[..bytes.len().min(self.room)];
        self.room -= kept.len();
        self.to.write_all(kept)?;
        if self.room == 0 {
            self.to.write_all(b"\n(cut here: the console said more than is kept)\n")?;
        }
        Ok(())
    }

    /// The last lines, cleaned.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.tail);
        text.lines().map(clean).filter(|line| !line.is_empty()).collect()
    }
}

/// How far a kernel has come in dying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It is saying why.
    Dying,
    /// It has said all that it will ever say.
    Dead,
}

/// Looks for the words with which a kernel dies. Not every machine goes off then.
#[derive(Debug, Default)]
pub(crate) struct LastWords(Lines);

impl LastWords {
    /// Takes what the kernel said; how it stands if that is news.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<Stage> {
        let mut stage = None;
        self.0.take(bytes, |line| {
            let says = |words: &[u8]| line.windows(words.len()).any(|part| part == words);
            if says(b"---[ end Kernel panic") {
                stage = Some(Stage::Dead);
            } else if says(b"Kernel panic - not syncing") {
                stage = stage.max(Some(Stage::Dying));
            }
        });
        stage
    }
}

/// Why the kernel died, as far as it said: at most [`EXCERPT`] lines from its last report on, or the last
/// ones if there is no report.
pub(crate) fn excerpt(lines: &[String]) -> Vec<String> {
    let Some(first) = last_report(lines) else {
        return lines[lines.len().saturating_sub(EXCERPT)..].to_vec();
    };
    let report = &lines[first..];
    if report.len() <= EXCERPT {
        return report.to_vec();
    }
    // The end tells how it died, the beginning why.
    let (head, tail) = (EXCERPT - 11, 10);
    let mut cut = report[..head].to_vec();
    cut.push(format!("... {} lines ...", report.len() - head - tail));
    cut.extend_from_slice(&report[report.len() - tail..]);
    cut
}

/// Where the report of the kernel's death begins. What is before it belongs to cases that are over.
fn last_report(lines: &[String]) -> Option<usize> {
    let says = |line: &String, marks: &[&str]| marks.iter().any(|mark| line.contains(mark));
    let mut first = lines.iter().rposition(|line| says(line, MARKS))?;
    // A kernel that was told to panic of a report says so, and the report is right before.
    let marks =
        if lines[first].contains("panic_on") || lines[first].contains("=panic set") { CAUSES } else { MARKS };
    // An oops has marks of its own before the panic that follows from it.
    while let Some(before) = (first.saturating_sub(REPORT)..first).rev().find(|&at| says(&lines[at], marks)) {
        first = before;
        if marks == CAUSES {
            break;
        }
    }
    Some(first)
}

/// A line without what would move a terminal's cursor, and not longer than a screen can show.
pub(crate) fn clean(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').take(500).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn an_excerpt_begins_with_the_report_of_the_death() {
        let console =
            lines(&["boot", "kvm: fine", "BUG: unable to handle page fault", "RIP: 0", "Kernel panic"]);
        assert_eq!(excerpt(&console), console[2..]);
        assert_eq!(excerpt(&console[..2]), console[..2]);
        assert!(excerpt(&[]).is_empty());
        let console =
            lines(&["sysrq: Trigger a crash", "Kernel panic", "the emulator ended: signal: 9", "oom"]);
        assert_eq!(excerpt(&console), console);
    }

    #[test]
    fn a_report_that_the_kernel_survived_is_not_why_it_died() {
        let mut console = lines(&["BUG: KASAN: use-after-free in f", "Call Trace:", "==="]);
        console.extend(lines(&["BUG: kernel NULL pointer dereference", "RIP: 0", "Oops: 0000"]));
        console.extend((0..80).map(|n| format!("stack {n}")));
        console.extend(lines(&["Kernel panic - not syncing: Fatal exception", "end"]));
        assert_eq!(excerpt(&console)[0], "BUG: kernel NULL pointer dereference");
        assert_eq!(excerpt(&console[..3]), console[..3], "it is all that there is");
        // Unless it was told to die of it.
        let console = lines(&[
            "WARNING: CPU: 0 at f",
            "BUG: KASAN: out-of-bounds in g",
            "==",
            "Kernel panic - not syncing: KASAN: panic_on_warn set ...",
        ]);
        assert_eq!(excerpt(&console), console[1..]);
    }

    #[test]
    fn a_long_report_keeps_both_ends() {
        let mut console = lines(&["before", "Kernel panic - not syncing"]);
        console.extend((0..1000).map(|n| format!("line {n}")));
        let excerpt = excerpt(&console);
        assert_eq!(excerpt.len(), EXCERPT);
        assert_eq!(excerpt[0], "Kernel panic - not syncing");
        assert_eq!(excerpt[EXCERPT - 1], "line 999");
        assert!(excerpt.iter().any(|line| line.contains("942 lines")), "{excerpt:?}");
    }

    #[test]
    fn last_words_are_known_however_they_arrive() {
        let text =
            b"boot\r\n[ 1.0] Kernel panic - not syncing: sysrq\r\n CPU: 0\n---[ end Kernel panic - not \
            syncing: sysrq ]---\r\n";
        for size in [1, 7, text.len()] {
            let mut words = LastWords::default();
            let stages: Vec<Stage> = text.chunks(size).filter_map(|chunk| words.take(chunk)).collect();
            assert_eq!(stages.last(), Some(&Stage::Dead), "{size}");
            assert!(size == text.len() || stages == [Stage::Dying, Stage::Dead], "{size}");
        }
        assert_eq!(LastWords::default().take(b"Kernel panic - not syncing"), None, "the line goes on");
        assert_eq!(LastWords::default().take(b"kvm: fine\n"), None);
    }

    #[test]
    fn a_flood_is_bounded_and_its_end_is_kept() {
        let mut kept = Vec::new();
        let mut console = Console::to(&mut kept);
        for _ in 0..(LARGEST / 1000 + 100) {
            console.take(&[b'x'; 1000]).unwrap();
        }
        console.take(b"\nthe end\r\n\x1b[31mred\x07\n").unwrap();
        assert_eq!(console.lines()[1..], ["the end", "[31mred"]);
        assert!(kept.len() < LARGEST + 100 && kept.ends_with(b"than is kept)\n"));
    }
}
