//! Whether every place that a step names is in the payload.

use crate::case::{Action, Expr, GuestStep, What};
use crate::manifest::PayloadInfo;
use crate::manifest::mistake::{Notes, Span};
use crate::manifest::step::Written;
use crate::manifest::wording::nearest;

/// Judges the labels of a step and of those inside it.
pub(super) fn check(written: &Written, payload: &dyn PayloadInfo, notes: &mut Notes) {
    for (path, expr) in expressions(&written.step.what) {
        if let Some(name) = expr.label() {
            let after = matches!(expr, Expr::After(_));
            label(name, after, written.spans.value(&path), payload, notes);
        }
    }
    written.inner.iter().for_each(|inner| check(inner, payload, notes));
}

/// Every expression of a step, with its path.
fn expressions(what: &What) -> Vec<(String, &Expr)> {
    match what {
        What::Exit(exit) => {
            let fields = exit.pattern.named_expects().into_iter();
            let regs = exit.regs.iter().map(|(name, expect)| (name.clone(), expect));
            let numbers = fields.chain(regs).filter_map(|(path, expect)| Some((path, expect.expr()?)));
            let memory = exit.memory.iter().enumerate();
            numbers.chain(memory.map(|(index, entry)| (format!("memory[{index}].at"), &entry.at))).collect()
        }
        What::Guest(GuestStep::Value { is, .. }) => {
            is.expr().map(|expr| ("is".to_owned(), expr)).into_iter().collect()
        }
        What::Set(set) => set.values.iter().map(|(name, expr)| (name.clone(), expr)).collect(),
        What::Check(check) => {
            check.values.iter().filter_map(|(name, expect)| Some((name.clone(), expect.expr()?))).collect()
        }
        What::Do(Action::Restart { at, .. } | Action::WriteMemory { at, .. }) => vec![("at".to_owned(), at)],
        What::Do(Action::GuestDebug { breakpoints, .. }) => {
            let points = breakpoints.iter().enumerate();
            points.map(|(index, point)| (format!("breakpoints[{index}].at"), &point.at)).collect()
        }
        What::Guest(GuestStep::Done(_)) | What::Keep(..) | What::Do(_) | What::Repeat(..) => Vec::new(),
    }
}

/// Judges one label: it must be there, once, and for `after` the instruction at it must be known.
pub(super) fn label(name: &str, after: bool, span: &Span, payload: &dyn PayloadInfo, notes: &mut Notes) {
    if notes.is_full() {
        return;
    }
    let found = payload.at(name).is_some();
    if found && (!after || payload.after(name).is_some()) {
        return;
    }
    if found {
        notes
            .add(span, format!("the payload does not tell where the instruction at `{name}` ends"))
            .help("put a label behind the instruction and use `at`");
        return;
    }
    let known = payload.label_names();
    if known.iter().any(|known| known == name) {
        notes
            .add(span, format!("the label `{name}` is ambiguous: the payload has it more than once"))
            .help("give each place a name of its own, such as scenario_step");
        return;
    }
    let mistake = notes.add(span, format!("the payload has no label `{name}`"));
    mistake.help(match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "labels are the global symbols of the payload's assembly".to_owned(),
    });
}
