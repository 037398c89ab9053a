//! The schema and the reader speak the same language.

use serde_json::Value;

use super::super::header::{CASE_KEYS, FAMILY_KEYS};
use super::super::schema;
use super::super::step::{EXIT_KEYS, STEP_KEYS, STEP_KINDS};
use super::{GOOD, case};
use crate::bank::Bank;
use crate::exit::{ExitPattern, KINDS};

fn json(text: &str) -> Value {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn steps() -> Vec<Value> {
    schema()["definitions"]["Step"]["anyOf"].as_array().unwrap().clone()
}

/// The steps of a kind, such as `exit`, by what they are, such as `io`.
fn kinds(key: &str) -> Vec<(String, Value)> {
    let named = |step: &Value| Some((step["properties"][key]["const"].as_str()?.to_owned(), step.clone()));
    steps().iter().filter_map(named).collect()
}

#[test]
fn good_manifests_are_valid() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let errors: Vec<_> = validator.iter_errors(&json(GOOD)).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn bad_manifests_are_not() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    assert!(validator.is_valid(&json(&case("", "{ guest = \"done\" }"))));
    for step in [
        "{ exit = \"oi\" }",
        "{ exit = \"io\", dircetion = \"in\" }",
        "{ exit = \"io\", direction = \"inn\" }",
        "{ exit = \"io\", port = \"x\" }",
        "{ exit = \"hlt\", reply = 1 }",
        "{ exit = \"hlt\", refuse = true }",
        "{ exit = \"hlt\", times = 0 }",
        "{ exit = \"hlt\", memory = [{ is = 1 }] }",
        "{ exit = \"hlt\", guest = \"done\" }",
        "{ guest = \"cr2\" }",
        "{ guest = \"done\", is = 1 }",
        "{ set = \"sregs\", cs.bas = 0 }",
        "{ set = \"sregs\" }",
        "{ set = \"regs\", rax = \"unchanged\" }",
        "{ check = \"reg\", rax = 1 }",
        "{ keep = \"regs\", rax = 1 }",
        "{ do = \"interrupt\" }",
        "{ do = \"nmi\", vector = 1 }",
        "{ repeat = 2 }",
        "{ repeat = 2, steps = [{ exit = \"oi\" }] }",
        "{ cpu = 1 }",
    ] {
        let text = case("", step);
        assert!(!validator.is_valid(&json(&text)), "{step} must be invalid");
        assert!(super::super::parse("port-io.toml", &text, None).is_err(), "{step} must be a mistake");
    }
    for keys in
        ["machin = {}", "machine = { vcpu = 1 }", "requires = { vendor = [\"x\"] }", "budget = { run = 1 }"]
    {
        assert!(!validator.is_valid(&json(&case(keys, "{ guest = \"done\" }"))), "{keys} must be invalid");
    }
    assert!(!validator.is_valid(&json("")), "no case");
}

#[test]
fn every_exit_and_field_is_described() {
    let exits = kinds("exit");
    assert_eq!(exits.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), KINDS);
    for (name, step) in exits {
        for field in ExitPattern::fields(&name).unwrap() {
            assert!(step["properties"].get(field.replace('_', "-")).is_some(), "{name} {field}");
        }
        for key in EXIT_KEYS.iter().chain(STEP_KEYS).filter(|key| !matches!(**key, "reply" | "refuse")) {
            assert!(step["properties"].get(key).is_some(), "{name} {key}");
        }
    }
}

#[test]
fn every_bank_and_name_is_described() {
    for key in ["set", "check", "keep"] {
        let found: Vec<_> = kinds(key);
        assert_eq!(found.len(), Bank::ALL.len());
        for (bank, (name, step)) in Bank::ALL.iter().zip(found) {
            assert_eq!(bank.name(), name);
            for name in bank.names().iter().filter(|_| key != "keep") {
                let inner = name.split('.').fold(&step, |step, part| &step["properties"][part]);
                assert!(inner.is_object(), "{key} {name}");
            }
        }
    }
}

#[test]
fn every_action_and_key_is_read_and_described() {
    // The reader's list, as it tells it for an action that does not exist.
    let mistakes = super::read(&case("", "{ do = \"zzzzzzzz\" }, { guest = \"done\" }")).unwrap_err();
    let told = mistakes.iter().next().unwrap().help.clone().unwrap();
    let read: Vec<&str> = told.split('`').skip(1).step_by(2).collect();
    let described = kinds("do");
    assert_eq!(described.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), read);
    for (name, step) in described {
        // Every key that is described is one that the reader knows.
        for key in step["properties"].as_object().unwrap().keys() {
            let text = case("", &format!("{{ do = \"{name}\", {key} = [[]] }}"))
                .replace(&format!("\"{name}\", do = [[]]"), &format!("\"{name}\""));
            let told = super::read(&text).err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
            assert!(!told.contains("unknown key"), "{name}: {told}");
        }
    }
}

#[test]
fn keys_of_cases_are_described_and_no_two_keys_of_a_step_clash() {
    let schema = schema();
    for key in CASE_KEYS {
        assert!(schema["definitions"]["Case"]["properties"].get(key).is_some(), "{key}");
    }
    for key in FAMILY_KEYS {
        assert!(schema["properties"]["family"]["properties"].get(key).is_some(), "{key}");
    }
    let common: Vec<_> = EXIT_KEYS.iter().chain(STEP_KEYS).chain(STEP_KINDS).copied().collect();
    for kind in KINDS {
        for field in ExitPattern::fields(kind).unwrap() {
            let field = field.replace('_', "-");
            assert!(!common.contains(&field.as_str()) && !Bank::Regs.has(&field), "{kind} {field}");
        }
    }
    for bank in Bank::ALL {
        for name in bank.names() {
            let first = name.split('.').next().unwrap();
            assert!(!STEP_KEYS.iter().chain(STEP_KINDS).any(|key| *key == first), "{name}");
            assert!(!["cpu", "errno"].contains(&first), "{name}");
        }
    }
}
