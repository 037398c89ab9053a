//! Whether a case that could be read makes sense: its names, its machine, its steps.
//!
//! Each file judges one thing; all of them only add mistakes.

mod exit;
mod flow;
mod machine;
mod names;
mod place;
mod step;

pub(super) use exit::MAX_THREADS;
pub use step::ERRNOS;
pub(super) use step::MAX_TIMES;

use exitspec_protocol::{MAX_ARGS, Name};

use super::header::{Draft, Family};
use super::mistake::Notes;
use super::wording::nearest;
use super::{PayloadInfo, Payloads};
use crate::case::Start;

/// Judges a case.
pub(super) fn case(draft: &Draft, family: &Family, payloads: Option<&dyn Payloads>, notes: &mut Notes) {
    identity(draft, &family.name, notes);
    arguments(draft, notes);
    let payload = payloads.and_then(|payloads| payload(draft, family, payloads, notes));
    if let Some(payload) = payload.filter(|_| draft.sound.machine) {
        scenario(draft, payload, notes);
    }
    machine::check(draft, notes);
    names::check(draft, notes);
    for written in &draft.steps {
        step::check(written, draft, notes);
        if let Some(payload) = payload {
            place::check(written, payload, notes);
        }
    }
    flow::check(draft, notes);
}

/// Lower-case letters, digits and dashes, starting with a letter.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain) && !name.ends_with('-')
}

fn identity(draft: &Draft, family: &str, notes: &mut Notes) {
    let (case, spans) = (&draft.case, &draft.spans);
    // Keys that are missing were noted when the case was read; `has` keeps them from being blamed again.
    if spans.has("id") {
        let span = spans.value("id");
        match case.id.split_once('.') {
            _ if case.id.is_empty() => {
                notes.add(span, "`id` is empty").help(format!("id = \"{family}.what-must-hold\""));
            }
            Some((own, what)) if is_name(own) && is_name(what) && own == family => {}
            Some((own, what)) if is_name(own) && is_name(what) => {
                notes
                    .add(span, format!("case `{}` is not of the family `{family}`", case.id))
                    .help(format!("an id starts with the file's name: {family}.{what}"));
            }
            _ => {
                notes
                    .add(span, format!("`{}` is not a case id", case.id))
                    .help(format!("write {family}.what-must-hold: lower-case letters, digits and dashes"));
            }
        }
    }
    let texts = [("summary", &case.summary), ("detects", &case.detects)];
    for (key, text) in texts {
        if spans.has(key) && text.trim().is_empty() {
            notes.add(spans.value(key), format!("`{key}` is empty")).help("whoever reads a failure needs it");
        }
    }
    if spans.has("reference") && case.reference.is_empty() {
        notes
            .add(spans.value("reference"), "`reference` is empty")
            .help("say where the promise is written: a section of SDM or APM, of the KVM API, or a commit");
    }
    for (index, text) in case.reference.iter().enumerate().filter(|(_, text)| text.trim().is_empty()) {
        let _ = text;
        notes.add(spans.value(&format!("reference[{index}]")), "this reference is empty").help("remove it");
    }
    if case.scenario.len() > Name::MAX || spans.has("scenario") && case.scenario.is_empty() {
        notes
            .add(spans.value("scenario"), format!("a scenario's name has 1 to {} bytes", Name::MAX))
            .help("the guest gets it in a field of that size");
    }
}

fn arguments(draft: &Draft, notes: &mut Notes) {
    let args = &draft.case.args;
    if args.len() > MAX_ARGS {
        notes
            .add(
                draft.spans.key("args"),
                format!("{} arguments; a scenario takes at most {MAX_ARGS}", args.len()),
            )
            .help("leave some out, or make a scenario of its own");
    }
    for name in args.keys().filter(|name| Name::new(name).is_none()) {
        notes
            .add(
                draft.spans.key(&format!("args.{name}")),
                format!("an argument's name has 1 to {} bytes", Name::MAX),
            )
            .help("shorten it");
    }
}

fn payload<'p>(
    draft: &Draft,
    family: &Family,
    payloads: &'p dyn Payloads,
    notes: &mut Notes,
) -> Option<&'p dyn PayloadInfo> {
    let name = &draft.case.payload;
    if name.is_empty() {
        if draft.spans.has("payload") {
            notes
                .add(draft.spans.value("payload"), "`payload` is empty")
                .help("name a binary of guest-payloads");
        }
        return None;
    }
    match payloads.payload(name) {
        Ok(payload) => Some(payload),
        Err(reason) => {
            let span =
                if draft.spans.has("payload") { draft.spans.value("payload") } else { &family.payload_span };
            let names = payloads.names();
            let mistake = notes.add(span, reason);
            mistake.help(match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "payloads are the binaries of guest-payloads; build them with `cargo xtask build`"
                    .to_owned(),
            });
            None
        }
    }
}

fn scenario(draft: &Draft, payload: &dyn PayloadInfo, notes: &mut Notes) {
    let (case, span) = (&draft.case, draft.spans.value("scenario"));
    if case.scenario.is_empty() {
        return;
    }
    if case.machine.start != Start::Long {
        place::label(&case.scenario, false, span, payload, notes);
        return;
    }
    if payload.has_scenario(&case.scenario) {
        return;
    }
    let known = payload.scenarios();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    notes
        .add(span, format!("payload `{}` has no scenario `{}`", case.payload, case.scenario))
        .help(super::wording::suggestion(&case.scenario, &known));
}
