//! The language as a JSON Schema, for editors (taplo, Even Better TOML) and other tools.
//!
//! Made from the same types and tables that the reader uses, so that the two cannot part.

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::check::{ERRNOS, MAX_THREADS, MAX_TIMES};
use super::header::{CASE_KEYS, FAMILY_KEYS};
use crate::bank::Bank;
use crate::case::{Action, Basis, Budget, DataExpect, Expect, Expr, MachineSpec, On, Requires, Vary};
use crate::exit::ExitPattern;

/// Where definitions are put, and how they are referred to.
const REFERENCE: &str = "#/definitions/";

/// The JSON Schema of manifests.
pub fn schema() -> Value {
    let mut generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let (exits, banks, actions) = (exits(&mut generator), banks(&mut generator), actions(&mut generator));
    let common = common(&mut generator);
    let expect = generator.subschema_for::<Expect>().to_value();

    let mut steps = exits;
    steps.push(step("guest", json!({ "const": "done" }), &common, &[cpu()], &[]));
    let name = json!({ "type": "string", "minLength": 1, "not": { "const": "done" } });
    steps.push(step("guest", name, &common, &[cpu(), ("is", expect)], &["is"]));
    steps.extend(banks);
    steps.extend(actions);
    let inner = json!({ "type": "array", "minItems": 1, "items": { "$ref": format!("{REFERENCE}Step") } });
    let times = json!({ "type": "integer", "minimum": 1, "maximum": MAX_TIMES });
    steps.push(step("repeat", times, &common, &[("steps", inner)], &["steps"]));

    let case = case(&mut generator);
    let mut definitions: Map<String, Value> = generator.take_definitions(true);
    // Its variants are steps, with the keys of every step.
    definitions.remove("Action");
    definitions.insert("Step".into(), json!({ "description": "One step of a case.", "anyOf": steps }));
    definitions.insert("Case".into(), case);
    let text = json!({ "type": "string", "minLength": 1 });
    let except = except();
    let of_family = |key: &str| if key == "except" { except.clone() } else { text.clone() };
    let family: Map<String, Value> =
        FAMILY_KEYS.iter().map(|key| ((*key).to_owned(), of_family(key))).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ExitSpec manifest",
        "description": "Cases of one family: what a guest does, what the host does to it, and which exits the host must see.",
        "type": "object",
        "properties": {
            "family": { "description": "Defaults for the cases of this file.", "type": "object", "properties": family, "required": ["name"], "additionalProperties": false },
            "case": { "type": "array", "minItems": 1, "items": { "$ref": format!("{REFERENCE}Case") } },
        },
        "required": ["case"],
        "additionalProperties": false,
        "definitions": definitions,
    })
}

fn case(generator: &mut SchemaGenerator) -> Value {
    let text = |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
    let mut properties = BTreeMap::new();
    for key in CASE_KEYS {
        let value = match *key {
            "id" => {
                json!({ "type": "string", "pattern": "^[a-z][a-z0-9-]*\\.[a-z][a-z0-9-]*$", "description": "family.what-must-hold: a stable identifier." })
            }
            "summary" => text("One sentence: the behaviour."),
            "basis" => generator.subschema_for::<Basis>().to_value(),
            "reference" => {
                json!({ "type": "array", "minItems": 1, "items": { "type": "string", "minLength": 1 }, "description": "Where the promise is written: SDM or APM section, KVM API section, commit." })
            }
            "detects" => text("What is wrong with a hypervisor on which this fails."),
            "payload" => text("A binary of guest-payloads; default: the family's."),
            "scenario" => text("What runs in the payload; with a real- or protected-mode start, a label."),
            "args" => {
                json!({ "type": "object", "maxProperties": exitspec_protocol::MAX_ARGS, "additionalProperties": { "type": "integer", "minimum": 0 }, "description": "Numbers for the scenario." })
            }
            "requires" => generator.subschema_for::<Requires>().to_value(),
            "machine" => generator.subschema_for::<MachineSpec>().to_value(),
            "budget" => generator.subschema_for::<Budget>().to_value(),
            "except" => except(),
            _ => json!({ "type": "array", "minItems": 1, "items": { "$ref": format!("{REFERENCE}Step") } }),
        };
        properties.insert(*key, value);
    }
    let required = ["id", "summary", "basis", "reference", "detects", "scenario", "steps"];
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// Perturbations, each with its reason.
fn except() -> Value {
    let reason = json!({ "type": "string", "minLength": 1 });
    let names: Map<String, Value> =
        Vary::ALL.iter().map(|vary| (vary.name().to_owned(), reason.clone())).collect();
    json!({ "type": "object", "properties": names, "additionalProperties": false, "description": "Variations under which it is not played, each with its reason." })
}

/// The keys of every step.
fn common(generator: &mut SchemaGenerator) -> Vec<(&'static str, Value)> {
    let on = generator.subschema_for::<On>().to_value();
    let why = json!({ "type": "string", "description": "Why, in the author's words; shown on failure." });
    vec![("on", on), ("why", why)]
}

fn cpu() -> (&'static str, Value) {
    ("cpu", json!({ "type": "integer", "minimum": 0, "default": 0, "description": "Which vCPU." }))
}

/// A kind of step: `key` with `kind`, and the properties it has besides.
fn step(
    key: &str,
    kind: Value,
    common: &[(&'static str, Value)],
    more: &[(&'static str, Value)],
    required: &[&str],
) -> Value {
    let mut properties = Map::new();
    properties.insert(key.to_owned(), kind);
    for (name, value) in common.iter().chain(more) {
        properties.insert((*name).to_owned(), value.clone());
    }
    let required: Vec<&str> = std::iter::once(key).chain(required.iter().copied()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn exits(generator: &mut SchemaGenerator) -> Vec<Value> {
    let common = common(generator);
    let expect = generator.subschema_for::<Expect>().to_value();
    let expr = generator.subschema_for::<Expr>().to_value();
    let data = generator.subschema_for::<DataExpect>().to_value();
    let size =
        json!({ "type": "integer", "minimum": 1, "maximum": 8, "description": "Bytes of the number." });
    let memory = json!({ "type": "array", "description": "Guest memory at the exit.", "items": {
        "type": "object", "properties": { "at": expr, "size": size, "is": data.clone() },
        "required": ["at", "is"], "additionalProperties": false,
    }});
    let count = |most: u32, description: &str| json!({ "type": "integer", "minimum": 1, "maximum": most, "default": 1, "description": description });
    let refuse = json!({ "type": "boolean", "description": "The host answers with #GP." });
    ExitPattern::schemas(generator)
        .into_iter()
        .map(|(name, fields)| {
            let mut more = vec![
                cpu(),
                ("memory", memory.clone()),
                ("times", count(MAX_TIMES, "How often in a row.")),
                (
                    "threads",
                    count(MAX_THREADS, "How many threads call KVM_RUN at once; each must see this exit."),
                ),
            ];
            if matches!(name, "io" | "mmio" | "rdmsr") {
                more.push(("reply", data.clone()));
            }
            if matches!(name, "rdmsr" | "wrmsr") {
                more.push(("refuse", refuse.clone()));
            }
            more.extend(Bank::Regs.names().into_iter().map(|name| (name, expect.clone())));
            let mut merged = step("exit", json!({ "const": name }), &common, &more, &[]);
            let fields = fields.to_value();
            copy(&fields, &mut merged, "description");
            for (field, value) in fields["properties"].as_object().into_iter().flatten() {
                merged["properties"][field] = without_null(value.clone());
            }
            merged
        })
        .collect()
}

/// TOML has no null: an optional field is left out.
fn without_null(mut value: Value) -> Value {
    if let Some(any) = value.get_mut("anyOf").and_then(Value::as_array_mut) {
        any.retain(|one| one["type"] != "null");
    }
    if let Some(types) = value.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|one| one != "null");
    }
    value
}

fn copy(from: &Value, to: &mut Value, key: &str) {
    if let Some(value) = from.get(key) {
        to[key] = value.clone();
    }
}

fn banks(generator: &mut SchemaGenerator) -> Vec<Value> {
    let common = common(generator);
    let expr = generator.subschema_for::<Expr>().to_value();
    let expect = generator.subschema_for::<Expect>().to_value();
    let errno = json!({ "enum": ERRNOS, "description": "KVM must refuse with this." });
    let at_run = json!({ "type": "boolean", "description": "Or the next KVM_RUN must." });
    let mut steps = Vec::new();
    for bank in Bank::ALL {
        let kind = json!({ "const": bank.name() });
        let mut set = step(
            "set",
            kind.clone(),
            &common,
            &[cpu(), ("errno", errno.clone()), ("at-run", at_run.clone())],
            &[],
        );
        let mut check = step("check", kind.clone(), &common, &[cpu()], &[]);
        for (step, value, least) in [(&mut set, &expr, 2), (&mut check, &expect, 2)] {
            for name in bank.names() {
                insert_name(&mut step["properties"], name, value);
            }
            if *bank == Bank::Msrs {
                step["patternProperties"] = json!({ "^0x[0-9a-fA-F]{1,8}$": value });
            }
            step["minProperties"] = json!(least);
        }
        steps.extend([set, check, step("keep", kind, &common, &[cpu()], &[])]);
    }
    steps
}

/// Puts `cs.base` as `base` into the object `cs`.
fn insert_name(properties: &mut Value, name: &str, value: &Value) {
    match name.split_once('.') {
        None => properties[name] = value.clone(),
        Some((group, field)) => {
            if properties.get(group).is_none() {
                properties[group] =
                    json!({ "type": "object", "properties": {}, "additionalProperties": false });
            }
            insert_name(&mut properties[group]["properties"], field, value);
        }
    }
}

fn actions(generator: &mut SchemaGenerator) -> Vec<Value> {
    let common = common(generator);
    let schema = generator.root_schema_for::<Action>().to_value();
    // The variants refer to definitions that the generator must know too.
    generator.subschema_for::<Action>();
    let mut variants = schema["oneOf"].as_array().cloned().unwrap_or_default();
    for variant in &mut variants {
        for (name, value) in &common {
            variant["properties"][*name] = value.clone();
        }
    }
    variants
}
