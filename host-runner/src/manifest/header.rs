//! A `[[case]]` but for the meaning of its steps, and the `[family]` table.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::mistake::{Notes, Span};
use super::step::{self, Written};
use super::table::{Spans, Table, Value, read};
use crate::case::{Basis, Budget, Case, MachineSpec, Requires, Vary};

/// Keys of a `[[case]]`.
pub(super) const CASE_KEYS: &[&str] = &[
    "id",
    "summary",
    "basis",
    "reference",
    "detects",
    "payload",
    "scenario",
    "args",
    "requires",
    "machine",
    "budget",
    "except",
    "steps",
];
/// Keys of `[family]`.
pub(super) const FAMILY_KEYS: &[&str] = &["name", "summary", "payload", "except"];
/// Most steps that one case may write down.
const MAX_STEPS: usize = 4096;

/// What a file says of all its cases.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// The file's stem.
    pub(super) name: String,
    pub(super) payload: Option<String>,
    /// Where that is written.
    pub(super) payload_span: Span,
    /// Perturbations under which no case of it is played, and why.
    pub(super) except: BTreeMap<Vary, String>,
}

/// A case as written, valid or not.
#[derive(Debug)]
pub(super) struct Draft {
    /// The case, with defaults where it has mistakes.
    pub(super) case: Case,
    pub(super) spans: Spans,
    pub(super) steps: Vec<Written>,
    /// Whether everything that judging the steps relies on was read without mistakes.
    pub(super) sound: Sound,
}

/// Which parts of a draft were read without mistakes, so that no mistake is blamed twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sound {
    pub(super) machine: bool,
    pub(super) requires: bool,
    pub(super) steps: bool,
}

/// What machines need, without the manifest having to say so.
const SMM_CAP: &str = "x86-smm";
const MSR_FILTER_CAP: &str = "x86-msr-filter";
const MSR_EXITS_CAP: &str = "x86-user-space-msr";
/// The same for a machine with an i8254.
const PIT_CAP: &str = "pit2";

/// Reads `[family]` of the file whose stem is `stem`.
pub(super) fn family(value: Option<Value>, stem: &str, notes: &mut Notes) -> Family {
    let mut family = Family { name: stem.to_owned(), ..Family::default() };
    let Some(value) = value else { return family };
    let spans = Spans::of(&value);
    let Some(mut table) = Table::new(value, "`family`", notes) else { return family };
    let name = table.require::<String>("name", &format!("name = \"{stem}\""), notes);
    if let Some(name) = name.filter(|name| name != stem) {
        notes
            .add(spans.value("name"), format!("family `{name}` is not the file's name"))
            .help(format!("a family has the name of its file: write name = \"{stem}\" or rename the file"));
    }
    let summary = table.read::<String>("summary", notes);
    if summary.is_some_and(|summary| summary.trim().is_empty()) {
        notes
            .add(spans.value("summary"), "`summary` is empty")
            .help("say what the family is about, or leave it out");
    }
    family.payload = table.read("payload", notes);
    family.payload_span = spans.value("payload").clone();
    family.except = except(&mut table, &spans, notes);
    table.finish("`[family]`", FAMILY_KEYS, notes);
    family
}

/// Reads a `[[case]]`.
pub(super) fn case(value: Value, family: &Family, notes: &mut Notes) -> Option<Draft> {
    let spans = Spans::of(&value);
    let mut table = Table::new(value, "a case", notes)?;
    let id = table.require::<String>("id", &format!("id = \"{}.what-must-hold\"", family.name), notes);
    let summary = table.require("summary", "say in one sentence what must hold", notes);
    let basis = table.require("basis", "say who promises it: \"arch\", \"kvm-abi\" or \"impl\"", notes);
    let reference =
        table.require("reference", "say where the promise is written: [\"KVM API, KVM_EXIT_HLT\"]", notes);
    let detects = table.require("detects", "say what is wrong with a hypervisor on which this fails", notes);
    let payload = if table.has("payload") || family.payload.is_none() {
        table.require("payload", "name the payload here or in [family]", notes)
    } else {
        family.payload.clone()
    };
    let scenario = table.require("scenario", "name what runs in the payload", notes);
    let args = table.read::<BTreeMap<String, u64>>("args", notes);

    let before = notes.count();
    let machine = table.take("machine").map(|value| read(value, notes, MachineSpec::deserialize));
    let machine_sound = notes.count() == before;
    let before = notes.count();
    let requires = requires(&mut table, notes);
    let requires_sound = notes.count() == before;
    let budget = table.read::<Budget>("budget", notes);
    let mut excepted = family.except.clone();
    excepted.extend(except(&mut table, &spans, notes));

    if !table.has("steps") {
        notes.add(&table.span, "missing key `steps`").help("list the exits that the host must see");
    }
    let before = notes.count();
    let mut steps = table.list("steps", notes).unwrap_or_default();
    if steps.len() > MAX_STEPS {
        notes
            .add(spans.key("steps"), format!("more than {MAX_STEPS} steps"))
            .help("use `repeat` or several cases");
        steps.truncate(MAX_STEPS);
    }
    let steps = step::list(steps, 0, notes);
    let steps_sound = notes.count() == before && spans.has("steps");
    table.finish("a case", CASE_KEYS, notes);

    let at = if spans.has("id") { spans.key("id") } else { &spans.whole };
    let place = notes.source.place(at.start, &(at.start..spans.value("id").end.max(at.end)));
    let machine = machine.flatten().unwrap_or_default();
    let mut requires = requires.unwrap_or_default();
    for (needed, cap) in [
        (machine.smm, SMM_CAP),
        (machine.msr_filter.is_some(), MSR_FILTER_CAP),
        (!machine.msr_exits.is_empty(), MSR_EXITS_CAP),
        (machine.pit, PIT_CAP),
    ] {
        if needed && !requires.caps.iter().any(|known| known == cap) {
            requires.caps.push(cap.to_owned());
        }
    }
    let case = Case {
        id: id.unwrap_or_default(),
        summary: summary.unwrap_or_default(),
        basis: basis.unwrap_or(Basis::Impl),
        reference: reference.unwrap_or_default(),
        detects: detects.unwrap_or_default(),
        payload: payload.unwrap_or_default(),
        scenario: scenario.unwrap_or_default(),
        args: args.unwrap_or_default(),
        requires,
        machine,
        budget: budget.unwrap_or_default(),
        except: excepted,
        steps: steps.iter().map(|written| written.step.clone()).collect(),
        place,
    };
    let sound = Sound { machine: machine_sound, requires: requires_sound, steps: steps_sound };
    Some(Draft { case, spans, steps, sound })
}

/// Reads `except`: which perturbations are left out, each with its reason.
fn except(table: &mut Table, spans: &Spans, notes: &mut Notes) -> BTreeMap<Vary, String> {
    let except = table.read::<BTreeMap<Vary, String>>("except", notes).unwrap_or_default();
    for (vary, _) in except.iter().filter(|(_, reason)| reason.trim().is_empty()) {
        notes
            .add(spans.value(&format!("except.{vary}")), format!("`{vary}` is excepted without a reason"))
            .help("say why the case means nothing under it");
    }
    except
}

fn requires(table: &mut Table, notes: &mut Notes) -> Option<Requires> {
    let value = table.take("requires")?;
    if let Some(params) = value.get_ref().get("params").and_then(|params| params.get_ref().as_table()) {
        let mut nested = false;
        for (key, value) in params.iter().filter(|(_, value)| value.get_ref().is_table()) {
            notes
                .add(&key.span(), format!("the parameters of module `{}` are written without quotes", key.get_ref()))
                .help("TOML takes the dot for a table; quote the name: \"kvm_intel.unrestricted_guest\" = \"N\"");
            nested |= value.get_ref().is_table();
        }
        if nested {
            return None;
        }
    }
    read(value, notes, Requires::deserialize)
}
