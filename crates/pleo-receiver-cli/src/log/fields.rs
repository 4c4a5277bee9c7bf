//! Writes the fields of an event as logfmt: `text key=value key="a value"`. The default formatter
//! never quotes `%` values, which may contain spaces, quotes and line breaks.

use core::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::escape::is_printable;

/// Formats the fields of an event.
#[derive(Debug)]
pub(super) struct LogfmtFields;

impl<'w> FormatFields<'w> for LogfmtFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line {
            writer,
            is_empty: true,
            value: String::new(),
            result: Ok(()),
        };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    is_empty: bool,
    /// The memory of formatted values.
    value: String,
    result: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, field: &Field, value: &str, always_quoted: bool) -> fmt::Result {
        if !self.is_empty {
            self.writer.write_char(' ')?;
        }
        self.is_empty = false;
        if field.name() == "message" {
            return escape(&mut self.writer, value);
        }
        self.writer.write_str(field.name())?;
        self.writer.write_char('=')?;
        if is_bare(value) && !always_quoted {
            return self.writer.write_str(value);
        }
        self.writer.write_char('"')?;
        escape(&mut self.writer, value)?;
        self.writer.write_char('"')
    }

    fn record(&mut self, field: &Field, value: &str, always_quoted: bool) {
        if self.result.is_ok() {
            self.result = self.write(field, value, always_quoted);
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value, true);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = core::mem::take(&mut self.value);
        text.clear();
        // Writing to a string fails only if the value does.
        let _ = write!(text, "{value:?}");
        self.record(field, &text, false);
        self.value = text;
    }
}

fn is_bare(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    !value.is_empty() && value.bytes().all(plain)
}

/// Escapes quotes, backslashes and unprintable characters, as JSON does.
pub(super) fn escape(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.bytes().all(is_plain) {
        return writer.write_str(text);
    }
    let mut units = [0; 2];
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(writer, "\\{letter}")?,
            '\n' => writer.write_str("\\n")?,
            '\r' => writer.write_str("\\r")?,
            '\t' => writer.write_str("\\t")?,
            _ if is_printable(letter) => writer.write_char(letter)?,
            _ => {
                for unit in letter.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tracing::info;
    use tracing_subscriber::fmt;

    use super::LogfmtFields;
    use crate::log::lines::Lines;

    fn logged(log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = fmt::Subscriber::builder()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .fmt_fields(LogfmtFields)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        lines.text()
    }

    #[test]
    fn writes_text_and_fields() {
        let source = core::net::Ipv4Addr::new(203, 0, 113, 7);
        let line =
            logged(|| info!(code = %"no_such_path", path = "/x", %source, "delivery rejected"));
        let expected = " INFO delivery rejected code=no_such_path path=\"/x\" source=203.0.113.7\n";
        assert_eq!(line, expected);
        let line = logged(|| info!(lines = 3, is_late = true, retry = ?Some(1.5)));
        assert_eq!(line, " INFO lines=3 is_late=true retry=Some(1.5)\n");
    }

    #[test]
    fn quotes_and_escapes_hostile_values() {
        for (value, written) in [
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a=b", r#""a=b""#),
            ("a\" code=\"x", r#""a\" code=\"x""#),
            (r"C:\x", r#""C:\\x""#),
            ("a\nERROR b", r#""a\nERROR b""#),
            ("\r\t\0", r#""\r\t\u0000""#),
            ("\x1b[31mred\x7f", r#""\u001b[31mred\u007f""#),
            ("\u{9b}2J", r#""\u009b2J""#),
            ("\u{202e}gpj", r#""\u202egpj""#),
            ("\u{2028}", r#""\u2028""#),
            ("\u{e0001}", r#""\udb40\udc01""#),
            ("Kaffe & Kagé's", r#""Kaffe & Kagé's""#),
        ] {
            let line = logged(|| info!(value = %value, "event"));
            assert_eq!(line, format!(" INFO event value={written}\n"), "{value:?}");
            assert_eq!(logged(|| info!(value, "event")), line, "{value:?}");
        }
    }

    #[test]
    fn keeps_hostile_text_on_its_line() {
        let text = "a\nb\x1b[0m";
        assert_eq!(logged(|| info!("{text}")), " INFO a\\nb\\u001b[0m\n");
    }
}
