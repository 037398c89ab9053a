//! A line on the results channel, as far as a bed has to understand it.

use bed_init::Event;
use serde::Deserialize;

/// What a line tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The first program's own.
    Init(Event),
    /// A line of the journal, kept as it is.
    Journal(Journal),
    /// Nothing that anybody here would write.
    Garbage,
}

/// What a line of the journal means for the course of things.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Journal {
    /// A run has begun.
    Header {
        /// Its tests.
        #[serde(default)]
        selected: Vec<String>,
    },
    /// A case is about to run.
    Started {
        /// Its id.
        case: String,
        /// After how many ms the runner ends it.
        #[serde(default)]
        limit_ms: Option<u64>,
    },
    /// A case has its verdict.
    Finished {
        /// Its id.
        case: String,
    },
    /// The run has come to its end.
    Ended {},
}

impl Told {
    /// Reads a line, without its end.
    pub(crate) fn by(line: &[u8]) -> Self {
        if let Some(event) = Event::of_line(line) {
            return Self::Init(event);
        }
        serde_json::from_slice(line).map_or(Self::Garbage, Self::Journal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(Told::by(br#"{"event":"bed-up","turn":0}"#), Told::Init(Event::BedUp { turn: 0 }));
        assert_eq!(
            Told::by(br#"{"event":"header","version":"1","seed":3,"selected":["a.b"]}"#),
            Told::Journal(Journal::Header { selected: vec!["a.b".to_owned()] })
        );
        assert_eq!(
            Told::by(br#"{"event":"started","case":"a.b","at":"now"}"#),
            Told::Journal(Journal::Started { case: "a.b".into(), limit_ms: None })
        );
        assert_eq!(
            Told::by(br#"{"event":"started","case":"a.b","at":"now","limit_ms":150000}"#),
            Told::Journal(Journal::Started { case: "a.b".into(), limit_ms: Some(150_000) })
        );
        assert_eq!(
            Told::by(br#"{"event":"ended","at":"now","stray":[],"remarks":[]}"#),
            Told::Journal(Journal::Ended {})
        );
        for garbage in [&b""[..], b"{", b"\xff\xfe", b"[1]", br#"{"event":"other"}"#, b"BUG: kernel"] {
            assert_eq!(Told::by(garbage), Told::Garbage);
        }
    }
}
