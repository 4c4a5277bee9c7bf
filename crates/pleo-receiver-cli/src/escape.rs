//! Escapes characters that steer a terminal or are invisible: control characters, line separators,
//! marks of text direction and other format characters.

use core::fmt::Write as _;
use std::io;

use serde_json::ser::Formatter;

/// Letters that are blank.
const FILLERS: [char; 5] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}', '\u{2800}'];

/// Returns `true` if the character is visible, or is a space.
pub(crate) fn is_printable(letter: char) -> bool {
    if FILLERS.contains(&letter) {
        return false;
    }
    matches!(letter, '"' | '\'' | '\\') || letter.escape_debug().len() == 1
}

/// Escapes line breaks and all characters that are not printable.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_printable(letter) {
            escaped.push(letter);
        } else if FILLERS.contains(&letter) {
            escaped.extend(letter.escape_unicode());
        } else {
            escaped.extend(letter.escape_debug());
        }
    }
    escaped
}

/// Escapes the lines of a text. Keeps line breaks and tabs, and escapes bytes that are not UTF-8.
pub(crate) fn escape_lines(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for piece in chunk.valid().split_inclusive(['\n', '\t']) {
            let text = piece.trim_end_matches(['\n', '\t']);
            escaped.push_str(&escape(text));
            escaped.push_str(piece.get(text.len()..).unwrap_or_default());
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    escaped
}

/// Formats compact JSON and escapes all characters that are not printable. `serde_json` alone escapes
/// only those of ASCII.
#[derive(Debug)]
pub(crate) struct EscapedJson;

impl Formatter for EscapedJson {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_json(writer, fragment)
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_json(writer, fragment)
    }
}

/// Writes a part of a JSON text. Control characters below 0x20 are white space there, or are escaped.
fn write_json<W: ?Sized + io::Write>(writer: &mut W, json: &str) -> io::Result<()> {
    let is_escaped = |letter: char| letter >= '\x7f' && !is_printable(letter);
    let mut units = [0; 2];
    let mut rest = json;
    while let Some(at) = rest.find(is_escaped) {
        let (plain, escaped) = rest.split_at(at);
        writer.write_all(plain.as_bytes())?;
        let mut letters = escaped.chars();
        for letter in letters.by_ref().take(1) {
            for unit in letter.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        rest = letters.as_str();
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::Serializer;
    use serde_json::value::RawValue;

    use super::{EscapedJson, escape, escape_lines, is_printable};

    /// Characters that steer a terminal, or are invisible.
    const HOSTILE: &str = "\0\x07\x08\r\x0c\x1b\x7f\u{80}\u{85}\u{9b}\u{9d}\u{ad}\u{61c}\u{200b}\
        \u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\
        \u{2066}\u{2067}\u{2068}\u{2069}\u{feff}\u{fff9}\u{e0001}\u{e0041}";

    #[test]
    fn escapes_terminal_control_characters() {
        for (text, escaped) in [
            (
                r#"{"a": 'b', "c": "\u00e9"}"#,
                r#"{"a": 'b', "c": "\u00e9"}"#,
            ),
            ("Café – 北京 🙂", "Café – 北京 🙂"),
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\x1b[2J\x07\x7f", r"\u{1b}[2J\u{7}\u{7f}"),
            ("\u{9b}31m\u{202e}\u{2028}", r"\u{9b}31m\u{202e}\u{2028}"),
        ] {
            assert_eq!(escape(text), escaped);
        }
        for letter in HOSTILE.chars() {
            assert!(!is_printable(letter), "{letter:?}");
        }
    }

    #[test]
    fn keeps_lines_and_tabs_of_body() {
        assert_eq!(
            escape_lines(b"{\n\t\"a\": \"\xc2\x9b2J\x1b\"\r\n}\n\n\xff\x00\n"),
            "{\n\t\"a\": \"\\u{9b}2J\\u{1b}\"\\r\n}\n\n\\xff\\0\n"
        );
    }

    #[test]
    fn escapes_json_without_change_of_its_value() {
        let text = format!("Café 🙂 \"\\\n{HOSTILE}");
        let raw = serde_json::to_string(&text).unwrap();
        let raw = format!("[\n{raw}\n]");
        let raw = serde_json::from_str::<&RawValue>(&raw).unwrap();
        let mut json = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut json, EscapedJson);
        (&text, raw).serialize(&mut serializer).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert!(json.contains("Café 🙂"), "{json}");
        let hostile = |letter| letter != '\n' && !is_printable(letter);
        assert_eq!(json.matches(hostile).count(), 0, "{json}");
        let read: (String, [String; 1]) = serde_json::from_str(&json).unwrap();
        assert_eq!(read, (text.clone(), [text]));
    }
}
