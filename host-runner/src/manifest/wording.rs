//! Words for mistakes: suggestions, and serde's messages in the language of manifests.

use std::fmt::Write as _;

/// The known word nearest to `word`, if one is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase().replace('_', "-");
    let score = |candidate: &&str| {
        let candidate = candidate.to_lowercase().replace('_', "-");
        strsim::normalized_damerau_levenshtein(&word, &candidate)
            .max(strsim::jaro_winkler(&word, &candidate) - 0.25)
    };
    let scored = known.into_iter().map(|candidate| (score(&candidate), candidate));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= 0.55).then_some(best.1)
}

/// "did you mean" and what is allowed.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    const SHOWN: usize = 40;
    let mut all = known.iter().take(SHOWN).map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
    if known.len() > SHOWN {
        let _ = write!(all, " and {} more", known.len() - SHOWN);
    }
    match (nearest(word, known.iter().copied()), known) {
        (_, []) => "nothing is allowed here".to_owned(),
        // With a good guess, a list longer than a line only hides it.
        (Some(near), _) if known.len() == 1 || known.len() > 12 => format!("did you mean `{near}`?"),
        (Some(near), _) => format!("did you mean `{near}`? Allowed: {all}"),
        (None, _) => format!("allowed: {all}"),
    }
}

/// A message of serde's, and what to do.
pub(super) fn reword(message: &str) -> (String, Option<String>) {
    if let Some(key) = message.strip_prefix("missing field ") {
        return (format!("missing key {key}"), None);
    }
    for (prefix, word) in [("unknown field ", "key"), ("unknown variant ", "word")] {
        if let Some((what, expected)) = message.strip_prefix(prefix).and_then(|rest| rest.split_once(", ")) {
            let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            return (format!("unknown {word} {what}"), Some(suggestion(what.trim_matches('`'), &known)));
        }
    }
    for prefix in ["invalid type: ", "invalid value: "] {
        if let Some((found, expected)) =
            message.strip_prefix(prefix).and_then(|rest| rest.split_once(", expected "))
        {
            let found: String = found.chars().take(80).collect();
            let found = found
                .replace("integer `", "the number `")
                .replace("floating point `", "the number `")
                .replace("string ", "the text ")
                .replace("boolean `", "the word `");
            let found = match found.as_str() {
                "map" => "a table",
                "sequence" => "a list",
                other => other,
            };
            return (format!("expected {}, found {found}", expected_words(expected)), None);
        }
    }
    if message == "wanted string or table" {
        return ("expected a text".to_owned(), None);
    }
    (message.to_owned(), None)
}

fn expected_words(expected: &str) -> &str {
    match expected {
        "u8" => "a number from 0 to 255",
        "u16" => "a number from 0 to 65535",
        "u32" => "a number from 0 to 0xffff_ffff",
        "u64" | "usize" => "a number, 0 or more",
        "a boolean" => "true or false",
        "a string" => "a text",
        "a sequence" => "a list: [ ... ]",
        "a map" => "a table: { ... }",
        other if other.starts_with("struct ") || other.starts_with("internally tagged") => "a table: { ... }",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["direction", "port", "size", "irq-window-open"];
        assert_eq!(nearest("dircetion", known), Some("direction"));
        assert_eq!(nearest("irq_window", known), Some("irq-window-open"));
        assert_eq!(nearest("xyzzy", known), None);
    }

    #[test]
    fn serdes_types_become_words() {
        let (message, _) = reword("invalid type: string \"x\", expected u8");
        assert_eq!(message, "expected a number from 0 to 255, found the text \"x\"");
        let (message, help) = reword("unknown field `prot`, expected one of `port`, `size`");
        assert_eq!(message, "unknown key `prot`");
        assert_eq!(help.unwrap(), "did you mean `port`? Allowed: `port`, `size`");
    }
}
