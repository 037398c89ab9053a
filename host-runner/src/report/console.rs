//! A failure as text: which case, what was expected, what came, what it means, how to run it again.

use super::Paint;
use super::paint::safe;
use super::registers;
use crate::journal::About;
use crate::outcome::{Evidence, Outcome, TraceLine, Verdict};

/// The report of one test that is not good. Without `about`, which old journals lack, it says less.
pub fn failure(name: &str, about: Option<&About>, outcome: &Outcome, paint: Paint) -> String {
    let mut text = Text { paint, lines: Vec::new() };
    text.lines.push(format!("{}: {}", paint.bold(outcome.verdict.word()), safe(&outcome.reason)));
    match about {
        Some(about) => text.field("case", &format!("{name}: {}", about.summary)),
        None => text.field("case", name),
    }
    match (&outcome.evidence, about) {
        (Some(evidence), about) => text.evidence(about, evidence),
        (None, Some(about)) => text.field("written", &format!("{}:{}", about.place.file, about.place.line)),
        (None, None) => {}
    }
    if let Some(about) = about {
        if matches!(outcome.verdict, Verdict::Fail | Verdict::Timeout | Verdict::Crash) {
            text.field("means", &about.detects);
        }
        text.field("see", &about.reference.join("; "));
        text.field("again", &about.again);
    }
    text.lines.join("\n")
}

struct Text {
    paint: Paint,
    lines: Vec<String>,
}

impl Text {
    fn field(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.lines.push(format!("  {} {}", self.paint.bold(&format!("{name:<9}")), safe(text)));
        }
    }

    fn block(&mut self, name: &str, lines: impl IntoIterator<Item = String>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_some() {
            self.lines.push(format!("  {}", self.paint.bold(name)));
            self.lines.extend(lines.map(|line| format!("    {line}")));
        }
    }

    fn evidence(&mut self, about: Option<&About>, evidence: &Evidence) {
        if let Some(place) = evidence.place.as_ref().or(about.map(|about| &about.place)) {
            self.field("expected", &format!("{}:{}: {}", place.file, place.line, place.text));
        }
        for mismatch in &evidence.mismatches {
            self.field("", &format!("{} = {}", mismatch.field, mismatch.expected));
        }
        self.field("because", evidence.why.as_deref().unwrap_or_default());
        let decided = evidence.trace.last().filter(|line| !line.holds);
        self.field("observed", decided.and_then(|line| line.observed.as_deref()).unwrap_or_default());
        for mismatch in &evidence.mismatches {
            self.field("", &format!("{} = {}", mismatch.field, mismatch.observed));
        }
        self.trace(evidence);
        self.block(
            "registers",
            evidence.registers.iter().map(|(name, value)| registers::line(&safe(name), *value)),
        );
        self.field("perturbed", evidence.shrunk.as_deref().unwrap_or_default());
        self.block("guest says", evidence.guest.iter().map(|line| safe(line)));
        self.block(
            "code",
            evidence.code.iter().map(|line| {
                let mark = if line.here { "=>" } else { "  " };
                format!("{mark} {:#x} {:<24} {}", line.address, safe(&line.symbol), safe(&line.text))
            }),
        );
        self.block("its process wrote", evidence.stderr.iter().map(|line| safe(line)));
        self.block("kernel log", evidence.kernel_log.iter().map(|line| safe(line)));
    }

    fn trace(&mut self, evidence: &Evidence) {
        let paint = self.paint;
        let cut = (evidence.trace_cut > 0)
            .then(|| paint.dim(&format!("  ... {} earlier steps held", evidence.trace_cut)));
        let played = evidence.trace.iter().flat_map(|line| diff(line, paint));
        let to_come = evidence.to_come.iter().map(|step| paint.dim(&format!("        {}", safe(step))));
        self.block("trace (- expected, + observed)", cut.into_iter().chain(played).chain(to_come));
    }
}

fn diff(line: &TraceLine, paint: Paint) -> Vec<String> {
    let expected = format!("{:>5} {}", line.line, safe(&line.expected));
    if line.holds {
        return vec![format!("  {expected}")];
    }
    let mut lines = vec![paint.minus(&format!("- {expected}"))];
    lines.extend(line.observed.as_ref().map(|seen| paint.plus(&format!("+ {:>5} {}", "", safe(seen)))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Basis, Place};
    use crate::exit::Mismatch;
    use crate::outcome::CodeLine;

    fn about() -> About {
        About {
            summary: "Moving RIP cancels the IN".into(),
            basis: Basis::KvmAbi,
            reference: vec!["commit 45def77ebf79".into(), "KVM API".into()],
            detects: "KVM completes the IN".into(),
            place: Place { file: "m.toml".into(), line: 3, column: 1, text: "port-io.reset".into() },
            again: "cargo xtask test --exact port-io.reset".into(),
        }
    }

    fn outcome() -> Outcome {
        let line = |line, expected: &str, observed: &str, holds| TraceLine {
            line,
            expected: expected.into(),
            observed: Some(observed.into()),
            holds,
        };
        let evidence = Evidence {
            trace: vec![line(10, "io in", "io in", true), line(11, "hlt", "shutdown", false)],
            trace_cut: 4,
            to_come: vec!["guest done".into()],
            mismatches: vec![Mismatch {
                field: "rip".into(),
                expected: "0x10".into(),
                observed: "0x12".into(),
            }],
            place: Some(Place {
                file: "m.toml".into(),
                line: 11,
                column: 3,
                text: "{ exit = \"hlt\" }".into(),
            }),
            why: Some("the reset wins".into()),
            registers: vec![("rflags".into(), 0x202)],
            code: vec![CodeLine { address: 0x10, symbol: "f+0x0".into(), text: "hlt".into(), here: true }],
            guest: vec!["hello \x1b[2J".into()],
            shrunk: Some("at 1 of 3 points".into()),
            kernel_log: vec!["WARNING: x".into()],
            stderr: vec!["bye".into()],
            perturbed: Vec::new(),
        };
        Outcome { verdict: Verdict::Fail, reason: "rip differs".into(), evidence: Some(Box::new(evidence)) }
    }

    #[test]
    fn everything_is_said_in_order() {
        let text = failure("port-io.reset", Some(&about()), &outcome(), Paint::new(false));
        let order = [
            "fail: rip differs",
            "port-io.reset: Moving RIP",
            "expected  m.toml:11: { exit = \"hlt\" }",
            "rip = 0x10",
            "the reset wins",
            "observed  shutdown",
            "rip = 0x12",
            "... 4 earlier steps held",
            "   10 io in",
            "-    11 hlt",
            "+       shutdown",
            "guest done",
            "rflags   0x0000000000000202  IF",
            "hello \\u{1b}[2J",
            "=> 0x10 f+0x0",
            "bye",
            "WARNING: x",
            "means     KVM completes the IN",
            "commit 45def77ebf79; KVM API",
            "cargo xtask test --exact port-io.reset",
        ];
        let mut from = 0;
        for part in order {
            let at = text[from..].find(part);
            from += at.unwrap_or_else(|| panic!("`{part}` is not in its place:\n{text}"));
        }
        assert!(!text.contains('\x1b'), "no colours, and none from the guest");
    }

    #[test]
    fn an_old_journal_says_what_it_can() {
        let text = failure("port-io.reset", None, &outcome(), Paint::new(false));
        assert!(text.contains("case      port-io.reset\n") && text.contains("rip = 0x12"), "{text}");
        assert!(!text.contains("again"), "{text}");
    }

    #[test]
    fn colours_are_colours_only() {
        let plain = failure("port-io.reset", Some(&about()), &outcome(), Paint::new(false));
        let colourful = failure("port-io.reset", Some(&about()), &outcome(), Paint::new(true));
        assert!(colourful.contains("\x1b[31m-"));
        let mut stripped = String::new();
        for part in colourful.split('\x1b') {
            stripped += part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |(_, rest)| rest);
        }
        assert_eq!(stripped, plain);
    }
}
