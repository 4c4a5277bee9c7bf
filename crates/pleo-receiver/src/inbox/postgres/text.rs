//! Text with NUL characters, which PostgreSQL does not store.

use std::borrow::Cow;

/// `U+001A`, the substitute character.
const ESCAPE: char = '\u{1a}';

/// Replaces NUL by `U+001A 0`, and `U+001A` by itself twice. All other text is unchanged.
pub(super) fn encode(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => encoded.extend([ESCAPE, '0']),
            ESCAPE => encoded.extend([ESCAPE, ESCAPE]),
            other => encoded.push(other),
        }
    }
    Cow::Owned(encoded)
}

/// Reverses [`encode`].
pub(super) fn decode(text: String) -> String {
    if !text.contains(ESCAPE) {
        return text;
    }
    let mut decoded = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ESCAPE => match characters.next() {
                Some('0') => decoded.push('\0'),
                Some(other) => decoded.push(other),
                None => decoded.push(ESCAPE),
            },
            other => decoded.push(other),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_it_encodes() {
        for text in ["", "a", "\0", "\u{1a}", "a\0\u{1a}0\u{1a}\u{1a}b\0", "ø\0ø"] {
            let encoded = encode(text);
            assert!(!encoded.contains('\0'), "{text:?}");
            assert_eq!(decode(encoded.into_owned()), text);
        }
        assert!(matches!(encode("unchanged"), Cow::Borrowed(_)));
    }
}
