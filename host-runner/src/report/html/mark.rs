//! What a cell of the matrix shows: a letter, a shape and a colour, so that none of them is needed alone.

use crate::outcome::Verdict;

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Mark {
    Skip,
    Pass,
    /// It was to be played, and was not.
    Unplayed,
    /// It was running when the run ended.
    Lost,
    Xfail,
    Xpass,
    Error,
    Timeout,
    Crash,
    Fail,
}

impl Mark {
    /// All of them, the ones to look at first before the others.
    pub(super) const ALL: [Self; 10] = [
        Self::Fail,
        Self::Crash,
        Self::Timeout,
        Self::Error,
        Self::Xpass,
        Self::Xfail,
        Self::Lost,
        Self::Unplayed,
        Self::Pass,
        Self::Skip,
    ];

    pub(super) const fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail => Self::Fail,
            Verdict::Skip => Self::Skip,
            Verdict::Error => Self::Error,
            Verdict::Timeout => Self::Timeout,
            Verdict::Crash => Self::Crash,
            Verdict::Xfail => Self::Xfail,
            Verdict::Xpass => Self::Xpass,
        }
    }

    /// The word in filters, and the class in the page.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Pass => "pass",
            Self::Unplayed => "unplayed",
            Self::Lost => "lost",
            Self::Xfail => "xfail",
            Self::Xpass => "xpass",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Crash => "crash",
            Self::Fail => "fail",
        }
    }

    /// What it means, in the legend.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Skip => "skipped: the host lacks what it needs",
            Self::Pass => "holds",
            Self::Unplayed => "not played",
            Self::Lost => "was running when the run ended",
            Self::Xfail => "deviates as a waiver says",
            Self::Xpass => "holds although waived",
            Self::Error => "the suite is at fault",
            Self::Timeout => "did not come back",
            Self::Crash => "the process or kernel died",
            Self::Fail => "deviates",
        }
    }

    /// The letter in a cell of a table.
    pub(super) const fn letter(self) -> &'static str {
        match self {
            Self::Skip => "–",
            Self::Pass => "·",
            Self::Unplayed => "/",
            Self::Lost => "?",
            Self::Xfail => "w",
            Self::Xpass => "S",
            Self::Error => "E",
            Self::Timeout => "T",
            Self::Crash => "C",
            Self::Fail => "F",
        }
    }

    /// The shape in the picture: a path in a square of 8, drawn from its upper left corner. The more ink, the
    /// more it needs to be seen.
    pub(super) const fn shape(self) -> &'static str {
        match self {
            Self::Pass => "m2.5 2.5h3v3h-3z",
            Self::Skip => "m2.5 3.6h3v.8h-3z",
            Self::Unplayed => "m6 1h1l-5 6h-1z",
            Self::Lost => "m3 0h2v8h-2z",
            Self::Xfail => "m.5 .5h7v7h-7zm1.5 1.5v4h4v-4z",
            Self::Xpass => "m4 0l4 4l-4 4l-4-4zm0 2.4l-1.6 1.6l1.6 1.6l1.6-1.6z",
            Self::Error => "m4 0l4 4l-4 4l-4-4z",
            Self::Timeout => "m0 0h8l-4 8z",
            Self::Crash => "m4 0l4 8h-8z",
            Self::Fail => "h8v8h-8z",
        }
    }
}
