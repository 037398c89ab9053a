//! Whether colours may be printed.

use std::io::IsTerminal;

/// Whether this is a terminal that shows colours, and NO_COLOR is not set.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !set("NO_COLOR") && !dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_colours() {
        assert!(!colours(&std::fs::File::open("/dev/null").unwrap()));
    }
}
