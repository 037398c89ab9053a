//! No text makes the reader panic, and every mistake is somewhere in the text.

use proptest::prelude::*;

use super::{GOOD, case, read};

/// Checks what must hold for any text.
fn check(text: &str) -> Result<(), TestCaseError> {
    let Err(mistakes) = read(text) else { return Ok(()) };
    prop_assert!(!mistakes.is_empty());
    for mistake in &mistakes {
        let lines: Vec<&str> = text.split('\n').collect();
        let line = lines.get(mistake.line as usize - 1);
        prop_assert!(line.is_some(), "line {} of {}", mistake.line, lines.len());
        let columns = line.map_or(0, |line| line.chars().count());
        prop_assert!((1..=columns as u32 + 1).contains(&mistake.column), "{mistake:?}");
        prop_assert!(text.get(mistake.span.clone()).is_some(), "{mistake:?}");
        prop_assert!(!mistake.message.is_empty());
    }
    // Rendering must not panic either.
    prop_assert!(!mistakes.render(true).is_empty());
    Ok(())
}

/// A byte of `text` that starts a character.
fn boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at % (text.len() + 1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated_manifests(at in 0..GOOD.len()) {
        check(&GOOD[..boundary(GOOD, at)])?;
    }

    #[test]
    fn spliced_manifests(from in 0..GOOD.len(), len in 0..40_usize, put in "\\PC{0,6}|[\\[\\]{}\"=,.#\n']{1,4}") {
        let start = boundary(GOOD, from);
        let end = boundary(GOOD, (start + len).min(GOOD.len())).max(start);
        check(&format!("{}{put}{}", &GOOD[..start], &GOOD[end..]))?;
    }

    #[test]
    fn swapped_words(from in 0..400_usize, to in 0..400_usize) {
        let words: Vec<&str> = GOOD.split_inclusive([' ', '\n']).collect();
        let mut swapped = words.clone();
        swapped.swap(from % words.len(), to % words.len());
        check(&swapped.concat())?;
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        check(&text)?;
        check(&case("", &text))?;
    }
}

#[test]
fn nesting_without_end_is_refused() {
    for text in [
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
    ] {
        assert!(read(&text).is_err());
    }
    let dots = format!("{}a = 1", "a.".repeat(100_000));
    assert!(read(&dots).is_err());
    assert!(read(&format!("[{}a]", "a.".repeat(100_000))).is_err());
    assert!(read(&format!("[[case]]\n{}a = 1", "machine.".repeat(100_000))).is_err());
    let step = format!("{{ exit = \"io\", {}a = 1 }}", "port.".repeat(100_000));
    assert!(read(&case("", &step)).is_err());
}

#[test]
fn windows_line_ends_and_wide_characters_keep_their_places() {
    let text = case("", "{ exit = \"hlt\", why = \"größe 测试\", ^thraeds = 2 }");
    super::expect_mistakes(&text, &[&["`thraeds`"]]);
    super::expect_mistakes(&text.replace('\n', "\r\n"), &[&["`thraeds`"]]);
}
