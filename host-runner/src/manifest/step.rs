//! One entry of `steps`: which kind it is, and its keys.
//!
//! Whether the step makes sense among the others is for [`super::check`] to say.

use serde::Deserialize;
use toml::de::DeValue;

use super::mistake::{Notes, Span};
use super::table::{Spans, Table, Value, read, unknown_key};
use super::wording::{nearest, suggestion};
use crate::bank::Bank;
use crate::case::{
    Action, BankExpect, BankSet, DataExpect, ExitStep, Expect, Expr, GuestStep, MemoryExpect, On, Step, What,
};
use crate::exit::{ExitPattern, KINDS};

/// The key that says what kind of step it is.
pub(super) const STEP_KINDS: &[&str] = &["exit", "guest", "set", "check", "keep", "do", "repeat"];
/// Keys of every step.
pub(super) const STEP_KEYS: &[&str] = &["on", "why"];
/// Keys of every exit step, besides the exit's fields and the registers.
pub(super) const EXIT_KEYS: &[&str] = &["cpu", "memory", "reply", "refuse", "times", "threads"];
/// Deepest nesting of `repeat`.
pub(super) const MAX_NESTING: usize = 3;

/// A step, with the places of its entries.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) step: Step,
    pub(super) spans: Spans,
    pub(super) inner: Vec<Written>,
}

/// Reads a list of steps; those with mistakes are left out.
pub(super) fn list(values: Vec<Value>, depth: usize, notes: &mut Notes) -> Vec<Written> {
    values.into_iter().filter_map(|value| step(value, depth, notes)).collect()
}

fn step(value: Value, depth: usize, notes: &mut Notes) -> Option<Written> {
    let before = notes.count();
    let spans = Spans::of(&value);
    let mut table = Table::new(value, "a step", notes)?;
    let kind = kind(&table, notes)?;
    let on = table.read::<On>("on", notes);
    let why = table.read::<String>("why", notes);
    let mut inner = Vec::new();
    let what = match kind {
        "exit" => exit(table, notes).map(|step| What::Exit(Box::new(step))),
        "guest" => guest(table, notes).map(What::Guest),
        "set" => set(table, notes),
        "check" => check(table, notes),
        "keep" => keep(table, notes),
        "do" => read(table.rest(), notes, Action::deserialize).map(What::Do),
        _ => repeat(table, depth, &mut inner, notes),
    };
    // A broken inner step does not make its `repeat` a mistake.
    if notes.count() != before && kind != "repeat" {
        return None;
    }
    let place = place(&spans, kind, notes);
    Some(Written { step: Step { what: what?, on, why, place }, spans, inner })
}

/// Which kind of step a table is.
fn kind(table: &Table, notes: &mut Notes) -> Option<&'static str> {
    let found: Vec<_> = STEP_KINDS.iter().copied().filter(|kind| table.has(kind)).collect();
    let kinds = STEP_KINDS.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
    match found.as_slice() {
        [kind] => Some(kind),
        [] => {
            let keys = table.keys();
            let near = keys
                .iter()
                .take(16)
                .find_map(|(key, span)| Some((nearest(key, STEP_KINDS.iter().copied())?, key, span)));
            match near {
                Some((near, key, span)) => notes
                    .add(span, format!("unknown kind of step `{key}`"))
                    .help(format!("did you mean `{near}`? A step has one of {kinds}")),
                None => notes
                    .add(&table.span, "this step does not say what it does")
                    .help(format!("give it one of {kinds}")),
            };
            None
        }
        [first, second, ..] => {
            let keys = table.keys();
            let span = keys.iter().rev().find(|(key, _)| key == first || key == second).map(|(_, span)| span);
            let message = format!("a step is either `{first}` or `{second}`, not both");
            notes.add(span.unwrap_or(&table.span), message).help("make two steps of it");
            None
        }
    }
}

/// Where a step is: an inline table at its brace, one with a header at its kind.
fn place(spans: &Spans, kind: &str, notes: &Notes) -> crate::case::Place {
    let key = spans.key(kind).start;
    if spans.whole.contains(&key) {
        notes.source.place(spans.whole.start, &spans.whole)
    } else {
        notes.source.place(key, &(key..spans.value(kind).end))
    }
}

fn exit(mut table: Table, notes: &mut Notes) -> Option<ExitStep> {
    let kind = word(&mut table, "exit", "exit", KINDS, notes)?;
    let fields = ExitPattern::fields(kind)?;
    let before = notes.count();
    let cpu = table.read("cpu", notes).unwrap_or(0);
    let memory = table.list("memory", notes).unwrap_or_default();
    let memory = memory.into_iter().filter_map(|value| memory_entry(value, notes)).collect();
    let reply = table.read("reply", notes);
    let refuse = table.read("refuse", notes).unwrap_or(false);
    let times = table.read("times", notes).unwrap_or(1);
    let threads = table.read("threads", notes).unwrap_or(1);

    let mut regs = Vec::new();
    for (key, span) in table.keys() {
        if fields.iter().any(|field| field.replace('_', "-") == key) {
            continue;
        }
        if Bank::Regs.has(&key) {
            regs.extend(table.read::<Expect>(&key, notes).map(|expect| (key, expect)));
            continue;
        }
        table.take(&key);
        let names: Vec<String> = fields.iter().map(|field| field.replace('_', "-")).collect();
        let mut allowed: Vec<&str> = names.iter().map(String::as_str).collect();
        allowed.extend(EXIT_KEYS.iter().chain(STEP_KEYS));
        allowed.extend(Bank::Regs.names());
        unknown_key(&key, &span, &format!("exit `{kind}`"), &allowed, notes);
    }
    let pattern = read(table.rest(), notes, |value| {
        ExitPattern::deserialize(kind, value).unwrap_or_else(|| Err(serde::de::Error::custom("no such exit")))
    })?;
    (notes.count() == before).then_some(ExitStep {
        pattern,
        cpu,
        regs,
        memory,
        reply,
        refuse,
        times,
        threads,
    })
}

/// The word that `key` holds, one of `known`.
fn word(
    table: &mut Table,
    key: &str,
    what: &str,
    known: &[&'static str],
    notes: &mut Notes,
) -> Option<&'static str> {
    let span = table.keys().into_iter().find(|(name, _)| name == key).map(|(_, span)| span)?;
    let value = table.take(key)?;
    let span = if value.span().is_empty() { span } else { value.span() };
    let Some(text) = value.get_ref().as_str() else {
        notes.add(&span, format!("`{key}` must name the {what}")).help(suggestion("", known));
        return None;
    };
    let found = known.iter().copied().find(|one| *one == text);
    if found.is_none() {
        notes.add(&span, format!("there is no {what} `{text}`")).help(suggestion(text, known));
    }
    found
}

fn memory_entry(value: Value, notes: &mut Notes) -> Option<MemoryExpect> {
    let before = notes.count();
    let mut table = Table::new(value, "an entry of `memory`", notes)?;
    let at = table.require::<Expr>("at", "", notes);
    let is = table.require::<DataExpect>("is", "", notes);
    let size = table.read::<u8>("size", notes);
    if matches!(is, Some(DataExpect::Number(_))) && size.is_none() && notes.count() == before {
        notes.add(&table.span, "missing key `size`").help("say how many bytes the number has: size = 4");
    }
    table.finish("an entry of `memory`", &["at", "size", "is"], notes);
    (notes.count() == before).then_some(MemoryExpect { at: at?, size: size.unwrap_or(1), is: is? })
}

fn guest(mut table: Table, notes: &mut Notes) -> Option<GuestStep> {
    let name = table.read::<String>("guest", notes);
    let cpu = table.read("cpu", notes).unwrap_or(0);
    if name.as_deref() == Some("done") {
        table.finish("`guest = \"done\"`", &["cpu", "on", "why"], notes);
        return Some(GuestStep::Done(cpu));
    }
    let is = table.require::<Expect>("is", "say what the reported value must be: is = 0x1234", notes);
    table.finish("a guest step", &["is", "cpu", "on", "why"], notes);
    Some(GuestStep::Value { cpu, name: name?, is: is? })
}

fn bank(table: &mut Table, key: &str, notes: &mut Notes) -> Option<Bank> {
    let names: Vec<&'static str> = Bank::ALL.iter().map(|bank| bank.name()).collect();
    let name = word(table, key, "bank", &names, notes)?;
    Bank::ALL.iter().copied().find(|bank| bank.name() == name)
}

fn set(mut table: Table, notes: &mut Notes) -> Option<What> {
    let bank = bank(&mut table, "set", notes)?;
    let cpu = table.read("cpu", notes).unwrap_or(0);
    let errno = table.read("errno", notes);
    let at_run = table.read("at-run", notes).unwrap_or(false);
    let (span, mut values, before) = (table.span.clone(), Vec::new(), notes.count());
    numbers(bank, &["errno", "at-run"], table, notes, &mut |name, value, notes| {
        if value.get_ref().as_str() == Some("unchanged") {
            notes
                .add(&value.span(), "`unchanged` is nothing that can be set")
                .help(format!("leave `{name}` out: `set` writes back what it does not name"));
            return;
        }
        values.extend(read(value, notes, Expr::deserialize).map(|value| (name, value)));
    });
    if values.is_empty() && errno.is_none() && notes.count() == before {
        notes.add(&span, "this `set` sets nothing").help(format!(
            "name numbers of the bank, or write keep = \"{}\" to write it back as it is",
            bank.name()
        ));
    }
    Some(What::Set(BankSet { cpu, bank, values, errno, at_run }))
}

fn check(mut table: Table, notes: &mut Notes) -> Option<What> {
    let bank = bank(&mut table, "check", notes)?;
    let cpu = table.read("cpu", notes).unwrap_or(0);
    let (span, mut values, before) = (table.span.clone(), Vec::new(), notes.count());
    numbers(bank, &[], table, notes, &mut |name, value, notes| {
        values.extend(read(value, notes, Expect::deserialize).map(|value| (name, value)));
    });
    if values.is_empty() && notes.count() == before {
        notes.add(&span, "this `check` checks nothing").help(suggestion("", &bank.names()));
    }
    Some(What::Check(BankExpect { cpu, bank, values }))
}

fn keep(mut table: Table, notes: &mut Notes) -> Option<What> {
    let bank = bank(&mut table, "keep", notes)?;
    let cpu = table.read("cpu", notes).unwrap_or(0);
    table.finish("a `keep` step", &["cpu", "on", "why"], notes);
    Some(What::Keep(cpu, bank))
}

/// Hands every number of a bank in `table` to `each`; `cs = { base = 0 }` and `cs.base = 0` are `cs.base`.
fn numbers<'t>(
    bank: Bank,
    more: &[&'static str],
    table: Table<'t>,
    notes: &mut Notes,
    each: &mut dyn FnMut(String, Value<'t>, &mut Notes),
) {
    let mut left = vec![(String::new(), table.rest())];
    let mut found = Vec::new();
    let names = bank.names();
    while let Some((prefix, value)) = left.pop() {
        let DeValue::Table(entries) = value.into_inner() else { continue };
        for (key, value) in entries {
            let (span, key) = (key.span(), key.into_inner());
            let name = format!("{prefix}{key}");
            let is_part = |known: &&&str| known.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.'));
            let is_group = names.iter().any(|known| is_part(&known));
            if is_group && value.get_ref().is_table() {
                left.push((format!("{name}."), value));
            } else if bank.has(&name) && !key.contains('.') {
                found.push((span.start, name, value));
            } else if is_group {
                let fields: Vec<_> = names.iter().filter(is_part).copied().collect();
                notes
                    .add(&span, format!("`{name}` has parts; name one of them"))
                    .help(suggestion("", &fields));
            } else if bank.has(&name) {
                notes
                    .add(&span, format!("`{name}` is written with quotes"))
                    .help(format!("write {name} = ... without them"));
            } else {
                let mut allowed = names.clone();
                if prefix.is_empty() {
                    allowed.extend(["cpu", "on", "why"].iter().chain(more));
                }
                unknown_key(&name, &span, &format!("bank `{}`", bank.name()), &allowed, notes);
            }
        }
    }
    found.sort_by_key(|(start, ..)| *start);
    for (_, name, value) in found {
        each(name, value, notes);
    }
}

fn repeat(mut table: Table, depth: usize, inner: &mut Vec<Written>, notes: &mut Notes) -> Option<What> {
    let times = table.read::<u32>("repeat", notes);
    let span: Span = table.span.clone();
    if depth >= MAX_NESTING {
        notes
            .add(&span, format!("`repeat` is nested more than {MAX_NESTING} deep"))
            .help("write the innermost steps out");
        return None;
    }
    if !table.has("steps") {
        notes.add(&span, "missing key `steps`").help("say what is repeated: repeat = 100, steps = [ ... ]");
    }
    if let Some(steps) = table.list("steps", notes) {
        if steps.is_empty() {
            notes.add(&span, "this `repeat` repeats nothing").help("put steps into it");
        }
        *inner = list(steps, depth + 1, notes);
    }
    table.finish("a `repeat` step", &["steps", "on", "why"], notes);
    Some(What::Repeat(times?, inner.iter().map(|written| written.step.clone()).collect()))
}
