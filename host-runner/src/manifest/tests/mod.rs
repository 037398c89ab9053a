//! What a manifest's author sees: cases from good text, and for every mistake its place and words.

mod docs;
mod fuzz;
mod good;
mod mistakes;
mod rules;
mod schema;

use std::path::Path;

use super::{Mistakes, PayloadInfo, Payloads, parse};
use crate::case::{Case, Places};

/// A manifest that uses every kind of step.
const GOOD: &str = include_str!("port-io.toml");

/// Payloads `port_io` and `low`, as far as manifests look at them.
struct Fake;

impl Places for Fake {
    fn at(&self, label: &str) -> Option<u64> {
        let known = ["in_reset", "after_reset", "buffer", "counted", "start16"];
        let at = known.iter().position(|known| *known == label)?;
        Some(0x20_0000 + 0x10 * at as u64)
    }
    fn after(&self, label: &str) -> Option<u64> {
        // `buffer` is data: no instruction is there.
        self.at(label).filter(|_| label != "buffer").map(|at| at + 2)
    }
}

impl PayloadInfo for Fake {
    fn has_scenario(&self, name: &str) -> bool {
        self.scenarios().iter().any(|known| known == name)
    }
    fn scenarios(&self) -> Vec<String> {
        vec!["in_byte".into(), "in_then_reset".into()]
    }
    fn label_names(&self) -> Vec<String> {
        ["in_reset", "after_reset", "buffer", "counted", "start16", "twice", "twice"]
            .map(str::to_owned)
            .into()
    }
}

impl Payloads for Fake {
    fn payload(&self, name: &str) -> Result<&dyn PayloadInfo, String> {
        if name == "port_io" { Ok(self) } else { Err(format!("there is no payload `{name}`")) }
    }
    fn names(&self) -> Vec<String> {
        vec!["port_io".into()]
    }
}

fn read(text: &str) -> Result<Vec<Case>, Mistakes> {
    parse("port-io.toml", text, Some(&Fake))
}

/// A case around `steps`, with more keys.
fn case(keys: &str, steps: &str) -> String {
    format!(
        "[[case]]\nid = \"port-io.a\"\nsummary = \"s\"\nbasis = \"arch\"\nreference = [\"r\"]\ndetects = \"d\"\n\
         payload = \"port_io\"\nscenario = \"in_byte\"\n{keys}\nsteps = [\n{steps}\n]\n"
    )
}

/// Line and column of the byte `at`, from 1.
fn position(text: &str, at: usize) -> (u32, u32) {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line as u32, column as u32)
}

/// Takes the carets out of `marked`; each stands before the text of one expected mistake.
fn unmark(marked: &str) -> (String, Vec<(u32, u32)>) {
    let mut text = String::new();
    let mut places = Vec::new();
    for (index, part) in marked.split('^').enumerate() {
        if index > 0 {
            places.push(text.len());
        }
        text.push_str(part);
    }
    let places = places.into_iter().map(|at| position(&text, at)).collect();
    (text, places)
}

/// Expects one mistake per caret of `marked`, in order, whose message and help have these words.
#[track_caller]
fn expect_mistakes(marked: &str, words: &[&[&str]]) {
    let (text, places) = unmark(marked);
    let mistakes = read(&text).expect_err("this manifest has a mistake");
    let found: Vec<_> = mistakes.iter().map(|mistake| (mistake.line, mistake.column)).collect();
    assert_eq!(found, places, "\n{mistakes}");
    assert_eq!(words.len(), places.len(), "one list of words for each caret");
    for (mistake, words) in mistakes.iter().zip(words) {
        let told = format!("{} {}", mistake.message, mistake.help.as_deref().unwrap_or(""));
        for word in *words {
            assert!(told.contains(word), "`{word}` is not in `{told}`");
        }
    }
}

/// Expects one mistake in a step.
#[track_caller]
fn bad_step(marked: &str, words: &[&str]) {
    expect_mistakes(&case("", &format!("{marked},\n{{ guest = \"done\" }}")), &[words]);
}

/// Expects one mistake in a case with these keys and steps.
#[track_caller]
fn bad_case(keys: &str, steps: &str, words: &[&str]) {
    expect_mistakes(&case(keys, steps), &[words]);
}

/// Expects steps to be fine.
#[track_caller]
fn fine(keys: &str, steps: &str) -> Vec<Case> {
    read(&case(keys, steps)).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn directories_are_read_in_the_order_of_names_and_all_their_mistakes_are_told() {
    let dir = std::env::temp_dir().join(format!("exitspec-manifests-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("waivers")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let family = |name: &str| case("", "{ guest = \"done\" }").replace("port-io.", &format!("{name}."));
    write("b.toml", &family("b"));
    write("a.toml", &family("a"));
    write("waivers/w.toml", "not read");
    write("notes.txt", "not read");
    let load = |dir: &Path| super::load_dir(dir, Some(&Fake));
    let ids: Vec<_> = load(&dir).unwrap().into_iter().map(|case| case.id).collect();
    assert_eq!(ids, ["a.a", "b.a"]);

    write("b.toml", "x = 1");
    write("c.toml", "= 2");
    std::fs::write(dir.join("d.toml"), b"a = 1\n\xff").unwrap();
    let told = load(&dir).unwrap_err().to_string();
    for words in
        ["b.toml:1:1", "unknown key `x`", "c.toml:1:1", "this is not TOML", "line 2 is not UTF-8", "d.toml"]
    {
        assert!(told.contains(words), "{words} is not in\n{told}");
    }
    assert!(load(&dir.join("waivers/none")).unwrap_err().to_string().contains("cannot read this directory"));
    std::fs::remove_dir_all(&dir).unwrap();
}
