//! Text of journals made safe for a page: guests, kernels and other people's files may say anything.

use std::fmt::Write;

use maud::Render;

/// Text that is not ours. Markup becomes text, and what is invisible or reorders a line is spelled out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a>(pub(super) &'a str);

impl Render for Shown<'_> {
    fn render_to(&self, page: &mut String) {
        for c in self.0.chars() {
            match c {
                '&' => page.push_str("&amp;"),
                '<' => page.push_str("&lt;"),
                '>' => page.push_str("&gt;"),
                '"' => page.push_str("&quot;"),
                '\'' => page.push_str("&#39;"),
                '\t' => page.push_str("    "),
                c if c.is_control() => page.extend(c.escape_default()),
                c if is_unseen(c) => {
                    let _ = write!(page, "{}", c.escape_unicode());
                }
                c => page.push(c),
            }
        }
    }
}

/// Whether a character has no ink of its own and can change how others look: Unicode's bidirectional controls,
/// joiners, separators, tags and the like (general category Cf, and U+2028 and U+2029), and non-characters.
pub(super) fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        || c as u32 & 0xfffe == 0xfffe
}

/// The first `most` characters, and a mark if there were more.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `1 case`, `2 cases`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Shown(text).render().into_string()
    }

    #[test]
    fn markup_is_text_and_controls_are_seen() {
        assert_eq!(shown("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
        assert_eq!(shown("a\x1b[2J\0\n\u{202e}b\u{feff}"), "a\\u{1b}[2J\\u{0}\\n\\u{202e}b\\u{feff}");
        assert_eq!(shown("Grüße, שלום"), "Grüße, שלום", "other people's letters are letters");
    }

    #[test]
    fn a_cut_is_told() {
        assert_eq!(cut("größer", 4), "größ…");
        assert_eq!(cut("größ", 4), "größ");
    }
}
