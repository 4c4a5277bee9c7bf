//! Prints tables, fields and JSON to standard output. Escapes untrusted text.

use core::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

/// An entry of a list.
pub(crate) trait Row {
    /// The heads of the table's columns.
    const COLUMNS: &'static [&'static str];

    /// Returns the cells of the entry's line in a table.
    fn cells(&self) -> Vec<String>;

    /// Returns the entry as a JSON object.
    fn json(&self) -> Value;
}

/// Prints a list as a table, or as a JSON object a line.
#[derive(Debug)]
pub(crate) struct List {
    json: bool,
    widths: Vec<usize>,
}

impl List {
    pub(crate) const fn new(json: bool) -> Self {
        Self {
            json,
            widths: Vec::new(),
        }
    }

    /// Prints rows. Columns never get narrower than in earlier rows.
    pub(crate) fn print<R: Row>(&mut self, rows: &[R]) -> io::Result<()> {
        if self.json {
            return rows.iter().try_for_each(|row| json(&row.json()));
        }
        if rows.is_empty() {
            return Ok(());
        }
        let mut lines: Vec<Vec<String>> = Vec::new();
        if self.widths.is_empty() {
            lines.push(R::COLUMNS.iter().map(|&head| head.to_owned()).collect());
            self.widths = vec![0; R::COLUMNS.len()];
        }
        lines.extend(rows.iter().map(|row| {
            let cells = row.cells();
            cells.iter().map(|cell| escape(cell)).collect()
        }));
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = io::stdout().lock();
        for line in &lines {
            let cells = line.iter().zip(&self.widths);
            let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
            let text = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "{}", text.trim_end())?;
        }
        out.flush()
    }

    /// Prints `text` to standard error if the table has no rows.
    pub(crate) fn end(self, text: &str) -> io::Result<()> {
        if self.json || !self.widths.is_empty() {
            return Ok(());
        }
        note(text)
    }
}

/// Prints a JSON value on a line.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

/// Prints the fields of a JSON object, one per line.
pub(crate) fn fields(object: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, value) in object.as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => escape(text),
            other => escape(&other.to_string()),
        };
        writeln!(out, "{:13} {value}", escape(name))?;
    }
    Ok(())
}

/// Prints a line of text.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", escape(&text.to_string()))
}

/// Prints a line of text to standard error.
pub(crate) fn note(text: impl Display) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{}", escape(&text.to_string()))
}

/// Escapes line breaks and terminal control characters.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\'' | '\\' => escaped.push(letter),
            _ => escaped.extend(letter.escape_debug()),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

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
    }
}
