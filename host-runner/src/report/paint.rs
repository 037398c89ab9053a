//! Colours, or none; and text of guests made safe to print.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

/// Whether and how to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// With or without colours.
    pub const fn new(on: bool) -> Self {
        Self { on }
    }

    /// Colours if this is a terminal that shows them and NO_COLOR is not set.
    pub fn automatic(stream: &impl IsTerminal) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self::new(stream.is_terminal() && !set("NO_COLOR") && !dumb)
    }

    /// Whether colours are on.
    pub const fn is_on(self) -> bool {
        self.on
    }

    /// What was expected and did not come.
    pub fn minus(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default(), text)
    }

    /// What came instead.
    pub fn plus(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    /// Less important.
    pub fn dim(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.on { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// Text of a guest or a dead process: control characters cannot steer the terminal.
pub(super) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => safe.push_str("    "),
            c if c.is_control() || turns(c) => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// Separators of lines and paragraphs, what changes the direction in which the rest is shown, and what no XML may have.
fn turns(c: char) -> bool {
    matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
