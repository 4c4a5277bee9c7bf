//! Prints tables, fields and JSON to standard output. Escapes all text.

use core::fmt::Display;
use core::time::Duration;
use std::borrow::Cow;
use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Serializer, Value};

use crate::escape::{EscapedJson, escape};

/// The text between two columns.
const SEPARATOR: &str = "  ";

/// The maximum width of a cell. The sender chooses the length of some.
const MAX_WIDTH: usize = 1024;

/// An entry of a list.
pub(crate) trait Row {
    /// The heads of the table's columns.
    const COLUMNS: &'static [&'static str];

    /// How many of the first columns are never cut in a narrow terminal.
    const UNCUT: usize = 0;

    /// How many of the first columns are never left out in a narrow terminal.
    const KEPT: usize = Self::UNCUT;

    /// Returns the cells of the entry's line in a table.
    fn cells(&self) -> Vec<String>;

    /// Returns the entry as a JSON object.
    fn json(&self) -> Value;
}

/// Prints a list as a table, or as one JSON object per line.
#[derive(Debug)]
pub(crate) struct List {
    json: bool,
    /// The width of the terminal; `None` if standard output is not a terminal.
    terminal: Option<usize>,
    widths: Vec<usize>,
}

impl List {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = terminal_size::terminal_size_of(io::stdout());
        Self {
            json,
            terminal: terminal.map(|(width, _)| width.0.into()),
            widths: Vec::new(),
        }
    }

    /// Prints rows. Columns never get narrower than in earlier rows. If the terminal is narrow, cuts
    /// the widest columns and omits the last ones.
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
            let cells = cells.iter().map(|cell| escape(cell));
            cells
                .map(|cell| cut(&cell, MAX_WIDTH).into_owned())
                .collect()
        }));
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut widths = self.widths.clone();
        if let Some(terminal) = self.terminal {
            fit_columns(&mut widths, R::COLUMNS, [R::UNCUT, R::KEPT], terminal);
        }
        let mut out = io::stdout().lock();
        for line in &lines {
            let cells = line.iter().zip(&widths);
            let cells = cells.map(|(cell, &width)| format!("{:width$}", cut(cell, width)));
            let text = cells.collect::<Vec<_>>().join(SEPARATOR);
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
    value.serialize(&mut Serializer::with_formatter(&mut out, EscapedJson))?;
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

/// Formats a time span in its largest unit, without a fraction: `34 min`.
pub(crate) fn about(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Formats the time until an expiry: `in 34 min`, or `expired`.
pub(crate) fn until(expiry: Timestamp, now: Timestamp) -> String {
    match Duration::try_from(expiry.duration_since(now)) {
        Ok(left) if !left.is_zero() => format!("in {}", about(left)),
        _ => "expired".to_owned(),
    }
}

/// Prints a line of text to standard error.
pub(crate) fn note(text: impl Display) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{}", escape(&text.to_string()))
}

/// Fits a table to the terminal: narrows the widest columns after the first `uncut`, to the widths of
/// their heads at least, and omits the last ones after the first `kept` if that does not suffice.
fn fit_columns(
    widths: &mut Vec<usize>,
    heads: &[&str],
    [uncut, kept]: [usize; 2],
    terminal: usize,
) {
    let total = |widths: &[usize]| {
        widths.iter().sum::<usize>() + SEPARATOR.len() * widths.len().saturating_sub(1)
    };
    let least = |(index, &width): (usize, &usize)| match heads.get(index) {
        Some(head) if index >= uncut => head.chars().count().min(width),
        _ => width,
    };
    while widths.len() > kept.max(1) {
        let narrowest: Vec<_> = widths.iter().enumerate().map(least).collect();
        if total(&narrowest) <= terminal {
            break;
        }
        widths.pop();
    }
    while total(widths) > terminal {
        let cells = widths.iter_mut().zip(heads).skip(uncut);
        let cells = cells.filter(|(width, head)| **width > head.chars().count());
        let Some((width, _)) = cells.max_by_key(|(width, _)| **width) else {
            return;
        };
        *width -= 1;
    }
}

/// Cuts a text to a number of characters, with `…` as the last.
pub(crate) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    let end = text.char_indices().nth(width.saturating_sub(1));
    match end {
        Some((end, last)) if end + last.len_utf8() < text.len() => {
            Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
        }
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::{about, cut, fit_columns, until};

    #[test]
    fn formats_spans_in_largest_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (86_399, "23 h"),
            (86_400, "1 d"),
            (30 * 86_400, "30 d"),
        ] {
            assert_eq!(about(Duration::from_secs(seconds)), text);
        }
        let now = Timestamp::UNIX_EPOCH;
        for (millis, text) in [
            (2_040_000, "in 34 min"),
            (1, "in 0 s"),
            (0, "expired"),
            (-1, "expired"),
        ] {
            let expiry = now + SignedDuration::from_millis(millis);
            assert_eq!(until(expiry, now), text);
        }
    }

    #[test]
    fn fits_columns_to_terminal() {
        let heads = ["RECEIVED", "ID", "EVENT TYPE", "ERROR"];
        for (columns, terminal, fitted) in [
            ([2, 2], 200, &[20, 31, 22, 60][..]),
            ([2, 2], 100, &[20, 31, 22, 21]),
            ([2, 2], 72, &[20, 31, 10, 5]),
            ([2, 2], 71, &[20, 31, 16]),
            ([2, 2], 65, &[20, 31, 10]),
            ([2, 2], 64, &[20, 31]),
            ([2, 2], 20, &[20, 31]),
            ([3, 2], 77, &[20, 31, 22]),
            ([3, 2], 76, &[20, 31]),
            ([0, 0], 40, &[8, 8, 10, 8]),
            ([0, 0], 5, &[8]),
        ] {
            let mut widths = vec![20, 31, 22, 60];
            fit_columns(&mut widths, &heads, columns, terminal);
            assert_eq!(widths, fitted, "{columns:?} in {terminal}");
        }
    }

    #[test]
    fn marks_cut_text() {
        for (text, width, shown) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("éèê", 3, "éèê"),
            ("éèêë", 3, "éè…"),
            ("", 3, ""),
        ] {
            assert_eq!(cut(text, width), shown);
        }
    }
}
