//! `docs/manifest.md` tells the truth: its examples are read, its tables are the code's.
//!
//! After a change to the language, `EXITSPEC_BLESS=1 cargo test -p host-runner manifest::tests::docs`
//! writes the tables anew.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::{parse, schema};
use super::case;
use crate::bank::Bank;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/manifest.md");

fn docs() -> String {
    std::fs::read_to_string(DOCS).unwrap()
}

#[test]
fn examples_are_valid() {
    let text = docs();
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 8);
    for block in blocks {
        let whole = if block.contains("[[case]]") {
            block.to_owned()
        } else if block.starts_with('{') {
            case("", block)
        } else {
            case(block, "{ guest = \"done\" }")
        };
        // The examples' payloads are made up.
        parse("port-io.toml", &whole, None).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{whole}"));
    }
}

#[test]
fn tables_are_the_codes() {
    let schema = schema();
    let mut text = docs();
    for (name, table) in [
        ("table: Requires", properties(&schema, "Requires")),
        ("table: MachineSpec", properties(&schema, "MachineSpec")),
        ("table: SlotSpec", properties(&schema, "SlotSpec")),
        ("table: ZoneSpec", properties(&schema, "ZoneSpec")),
        ("table: MsrFilter", properties(&schema, "MsrFilter")),
        ("table: MsrRange", properties(&schema, "MsrRange")),
        ("table: Budget", properties(&schema, "Budget")),
        ("exits", exits(&schema)),
        ("banks", banks()),
        ("actions", actions(&schema)),
        ("churn", words(&schema, "Churn")),
        ("names: caps", names(crate::host::caps::names())),
        ("names: cpuid", names(crate::host::cpuid::names())),
        ("names: enable-caps", names(crate::host::switches::enable_names())),
        ("names: disable-quirks", names(crate::host::switches::quirk_names())),
    ] {
        text = replace(&text, name, &table);
    }
    if std::env::var_os("EXITSPEC_BLESS").is_some() {
        std::fs::write(DOCS, &text).unwrap();
    }
    assert!(text == docs(), "the tables of docs/manifest.md are stale; see this test's module");
}

/// Puts `table` between the marks called `name`.
fn replace(text: &str, name: &str, table: &str) -> String {
    let mark = format!("<!-- {name} -->\n");
    let (before, rest) = text.split_once(&mark).unwrap_or_else(|| panic!("no {mark}"));
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    format!("{before}{mark}{table}<!-- end -->{after}")
}

fn described(value: &Value) -> String {
    value["description"].as_str().unwrap_or("").replace('\n', " ").replace('|', "\\|")
}

fn properties(schema: &Value, name: &str) -> String {
    let object = &schema["definitions"][name];
    let mut table = "| key | meaning |\n|---|---|\n".to_owned();
    let required = object["required"].as_array().cloned().unwrap_or_default();
    for (key, value) in object["properties"].as_object().unwrap() {
        let must = if required.iter().any(|one| one == key) { "Required. " } else { "" };
        let default = match &value["default"] {
            Value::Null => String::new(),
            Value::Array(list) if list.is_empty() => String::new(),
            Value::Object(map) if map.is_empty() => String::new(),
            other => format!(" Default: `{other}`."),
        };
        writeln!(table, "| `{key}` | {must}{}{default} |", described(value)).unwrap();
    }
    table
}

fn steps<'s>(schema: &'s Value, key: &'s str) -> impl Iterator<Item = (&'s str, &'s Value)> {
    let steps = schema["definitions"]["Step"]["anyOf"].as_array().unwrap();
    steps.iter().filter_map(move |step| Some((step["properties"][key]["const"].as_str()?, step)))
}

fn exits(schema: &Value) -> String {
    let mut table = "| exit | meaning | fields |\n|---|---|---|\n".to_owned();
    for (name, step) in steps(schema, "exit") {
        let fields = crate::exit::ExitPattern::fields(name).unwrap();
        let fields: Vec<_> = fields
            .iter()
            .map(|field| field.replace('_', "-"))
            .map(|field| {
                let told = described(&step["properties"][&field]);
                format!("`{field}`: {}", told.trim_end_matches('.'))
            })
            .collect();
        writeln!(table, "| `{name}` | {} | {} |", described(step), fields.join(".<br>")).unwrap();
    }
    table
}

fn actions(schema: &Value) -> String {
    let mut table = "| do | meaning | keys |\n|---|---|---|\n".to_owned();
    for (name, step) in steps(schema, "do") {
        let required = step["required"].as_array().unwrap();
        let keys: Vec<_> = step["properties"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| !["do", "on", "why"].contains(&key.as_str()))
            .map(|(key, value)| {
                let key = if required.iter().any(|one| one == key) {
                    format!("**`{key}`**")
                } else {
                    format!("`{key}`")
                };
                format!("{key}: {}", described(value).trim_end_matches('.'))
            })
            .collect();
        writeln!(table, "| `{name}` | {} | {} |", described(step), keys.join(".<br>")).unwrap();
    }
    table
}

fn names(names: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let list: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    format!("{}\n", list.join(", "))
}

/// The words of an enumeration, with their meaning.
fn words(schema: &Value, name: &str) -> String {
    let mut table = "| word | meaning |\n|---|---|\n".to_owned();
    for word in schema["definitions"][name]["oneOf"].as_array().unwrap() {
        writeln!(table, "| `{}` | {} |", word["const"].as_str().unwrap(), described(word)).unwrap();
    }
    table
}

fn banks() -> String {
    let schema = schemars::schema_for!(Bank).to_value();
    let mut table = "| bank | meaning | names |\n|---|---|---|\n".to_owned();
    for (bank, word) in Bank::ALL.iter().zip(schema["oneOf"].as_array().unwrap()) {
        assert_eq!(word["const"], bank.name());
        let mut names: Vec<String> = Vec::new();
        for name in bank.names() {
            match name.split_once('.') {
                // All segments have the same parts; once is enough.
                Some((group, part)) if ["ds", "es", "fs", "gs", "ss", "tr", "ldt"].contains(&group) => {
                    let like = format!("`{group}` as `cs`");
                    assert!(bank.has(&format!("cs.{part}")));
                    if names.last() != Some(&like) {
                        names.push(like);
                    }
                }
                _ => names.push(format!("`{name}`")),
            }
        }
        writeln!(table, "| `{}` | {} | {} |", bank.name(), described(word), names.join(", ")).unwrap();
    }
    table
}
