//! A case's exits drawn step by step, expected beside observed, and the fields that differ.

use maud::{Markup, html};

use super::text::Shown;
use crate::exit::Mismatch;
use crate::outcome::{Evidence, TraceLine};

/// The steps as they were played, the one that decided, and those that were not reached.
pub(super) fn timeline(evidence: &Evidence) -> Markup {
    let fields: Vec<&str> = evidence.mismatches.iter().map(|mismatch| mismatch.field.as_str()).collect();
    if evidence.trace.is_empty() && evidence.to_come.is_empty() {
        return html! {};
    }
    html! {
        table.timeline {
            caption { "Exit timeline" }
            thead {
                tr {
                    th scope="col" { "Line" }
                    th scope="col" { "Expected" }
                    th scope="col" { "Observed" }
                }
            }
            tbody {
                @if evidence.trace_cut > 0 {
                    tr.cut {
                        th scope="row" {}
                        td colspan="2" { (evidence.trace_cut) " earlier steps held" }
                    }
                }
                @for line in &evidence.trace {
                    (step(line, &fields, &evidence.mismatches))
                }
                @for expected in &evidence.to_come {
                    tr.never {
                        th scope="row" {}
                        td { code { (Shown(expected)) } }
                        td { "not reached" }
                    }
                }
            }
        }
    }
}

fn step(line: &TraceLine, fields: &[&str], mismatches: &[Mismatch]) -> Markup {
    let class = match (line.holds, &line.observed) {
        (false, _) => "parts",
        (true, Some(_)) => "held",
        (true, None) => "host",
    };
    html! {
        tr class=(class) {
            th scope="row" { @if line.line > 0 { (line.line) } }
            td { @if !line.expected.is_empty() { code { (marked(&line.expected, fields, !line.holds)) } } }
            td {
                @match &line.observed {
                    Some(observed) => code { (marked(observed, fields, !line.holds)) },
                    None if line.holds => span.quiet { (host_step(&line.expected)) },
                    None if mismatches.is_empty() => "nothing came",
                    // The host looked at registers or memory, and these are not as they should be.
                    None => code {
                        @for (index, Mismatch { field, observed, .. }) in mismatches.iter().enumerate() {
                            @if index > 0 { " " }
                            mark { (Shown(field)) "=" (Shown(observed)) }
                        }
                    },
                }
                @if !line.holds { " " strong.parting { "here they part" } }
            }
        }
    }
}

/// What a step that is not the guest's came to.
fn host_step(expected: &str) -> &'static str {
    if expected.starts_with("check ") { "it is so" } else { "done by the host" }
}

/// A line such as `exit io port=0x61 size=1`, with the fields that differ marked if it is the one that decided.
fn marked(text: &str, fields: &[&str], decided: bool) -> Markup {
    let mut inside = false;
    let words = text.split(' ').map(|word| {
        // A value goes on until the next field: `rip=at reset`, `dr6=0x1 under mask 0x400f`.
        if let Some((name, _)) = word.split_once('=') {
            inside = decided && fields.contains(&name);
        } else if word.starts_with('[') {
            inside = false;
        }
        let marked = inside;
        inside &= !word.ends_with(',');
        (word, marked)
    });
    html! {
        @for (index, (word, marked)) in words.enumerate() {
            @if index > 0 { " " }
            @if marked { mark { (Shown(word)) } } @else { (Shown(word)) }
        }
    }
}

/// The fields that differ, expected above observed, so that their digits stand in columns.
pub(super) fn mismatches(mismatches: &[Mismatch]) -> Markup {
    if mismatches.is_empty() {
        return html! {};
    }
    html! {
        table.fields {
            caption { "What differs" }
            thead {
                tr {
                    th scope="col" { "Field" }
                    th scope="col" { "" }
                    th scope="col" { "Value" }
                }
            }
            @for Mismatch { field, expected, observed } in mismatches {
                @let numbers = number(expected).zip(number(observed));
                @let width = numbers.map_or(0, |(one, two)| one.len().max(two.len()));
                tbody {
                    tr.expected {
                        th scope="rowgroup" rowspan="2" { code { (Shown(field)) } }
                        th scope="row" { "expected" }
                        td { (value(expected, numbers, width)) }
                    }
                    tr.observed {
                        th scope="row" { "observed" }
                        td { (value(observed, numbers.map(|(one, two)| (two, one)), width)) }
                    }
                }
            }
        }
    }
}

/// A value; with two numbers to compare, its own and the other, in as many digits, the differing ones marked.
fn value(text: &str, numbers: Option<(&str, &str)>, width: usize) -> Markup {
    let Some((own, other)) = numbers else { return html! { code { (Shown(text)) } } };
    let digits = format!("{own:0>width$}");
    let others = format!("{other:0>width$}");
    // What the number was called, such as the label that it is the address of.
    let around = text.replacen(&format!("0x{own}"), "", 1).replace("()", "");
    html! {
        code {
            "0x"
            @for (digit, other) in digits.chars().zip(others.chars()) {
                @if digit == other { (digit) } @else { mark { (digit) } }
            }
        }
        @if !around.trim().is_empty() { " " span.quiet { (Shown(around.trim())) } }
    }
}

/// The digits of the number that a value is (`0x61`) or ends in (`at label (0x203052)`).
fn number(text: &str) -> Option<&str> {
    let inner =
        text.strip_suffix(')').and_then(|text| text.rsplit_once('(')).map_or(text, |(_, inner)| inner);
    let digits = inner.strip_prefix("0x")?;
    let good = (1..=16).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit());
    good.then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_columns_and_differing_ones_are_marked() {
        let one = |expected: &str, observed: &str| {
            let field = Mismatch { field: "pc".into(), expected: expected.into(), observed: observed.into() };
            mismatches(&[field]).into_string()
        };
        let html = one("at label (0x203052)", "0x3152");
        assert!(
            html.contains(
                "<code>0x<mark>2</mark>03<mark>0</mark>52</code> <span class=\"quiet\">at label</span>"
            ),
            "{html}"
        );
        assert!(html.contains("<code>0x<mark>0</mark>03<mark>1</mark>52</code>"), "{html}");
        let html = one("hlt", "0x3152 <b>");
        assert!(html.contains("<code>hlt</code>") && html.contains("0x3152 &lt;b&gt;"), "{html}");
    }

    #[test]
    fn a_field_is_marked_with_all_of_its_value() {
        let marks = |text: &str| marked(text, &["rip"], true).into_string().replace("mark", "m");
        assert_eq!(marks("exit hlt rip=at reset rax=0x1"), "exit hlt <m>rip=at</m> <m>reset</m> rax=0x1");
        assert_eq!(marks("exit hlt rip=0x1, 2 times"), "exit hlt <m>rip=0x1,</m> 2 times");
        assert_eq!(marks("exit hlt rip=0x1 [at x]=0x5"), "exit hlt <m>rip=0x1</m> [at x]=0x5");
        assert_eq!(
            marked("rip=0x1", &["rip"], false).into_string(),
            "rip=0x1",
            "it is not the one that decided"
        );
    }

    #[test]
    fn numbers_are_found_where_they_are() {
        assert_eq!(number("at intercepted_rdmsr (0x203052)"), Some("203052"));
        assert_eq!(number("0x61"), Some("61"));
        assert_eq!(number("0x4000 under mask 0x400f"), None);
        assert_eq!(number("(0xdeadbeefdeadbeef0)"), None);
        assert_eq!(number("hlt"), None);
    }
}
