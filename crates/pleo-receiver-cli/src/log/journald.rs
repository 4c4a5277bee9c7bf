//! Entries for journald, in its native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a field a line, an entry a datagram.

use core::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::fields::escape;

/// The socket of journald.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// The start of an entry. No line of another format begins so.
pub(super) const START: &str = "PRIORITY=";

/// Writes an event: its line as `MESSAGE`, and each field as `PLEO_…`.
pub(super) fn write_event<S, N>(
    context: &FmtContext<'_, S, N>,
    mut writer: Writer<'_>,
    event: &Event<'_>,
) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    begin(&mut writer, *event.metadata().level())?;
    context.format_fields(writer.by_ref(), event)?;
    writer.write_char('\n')?;
    let mut fields = Fields {
        writer: &mut writer,
        result: Ok(()),
    };
    event.record(&mut fields);
    fields.result
}

/// Returns an entry with this text.
pub(super) fn entry(level: Level, text: &str) -> Result<String, fmt::Error> {
    let mut entry = String::new();
    let mut writer = Writer::new(&mut entry);
    begin(&mut writer, level)?;
    escape(&mut writer, text)?;
    entry.push('\n');
    Ok(entry)
}

fn begin(writer: &mut Writer<'_>, level: Level) -> fmt::Result {
    // As in syslog.
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    write!(
        writer,
        "{START}{priority}\nSYSLOG_IDENTIFIER=pleo-receiver\nMESSAGE="
    )
}

/// Writes the fields of an event, except its text.
struct Fields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn write(&mut self, field: &Field, value: &str) -> fmt::Result {
        self.writer.write_str("PLEO_")?;
        for letter in field.name().chars() {
            let is_plain = letter.is_ascii_alphanumeric();
            let letter = if is_plain { letter } else { '_' };
            self.writer.write_char(letter.to_ascii_uppercase())?;
        }
        self.writer.write_char('=')?;
        // Also escapes line breaks, which would end the field.
        escape(self.writer, value)?;
        self.writer.write_char('\n')
    }
}

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.result.is_ok() && field.name() != "message" {
            self.result = self.write(field, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing::warn;
    use tracing_subscriber::fmt;

    use super::entry;
    use crate::log::fields::LogfmtFields;
    use crate::log::format::{LineFormat, LogFormat, SharedFormat};
    use crate::log::lines::Lines;

    #[test]
    fn writes_each_field_on_a_line_of_its_own() {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = SharedFormat::default();
        format.set(LogFormat::Journald);
        let subscriber = fmt::Subscriber::builder()
            .with_writer(move || writer.clone())
            .fmt_fields(LogfmtFields)
            .event_format(LineFormat::new(format))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let endpoint: Arc<str> = "/a\nPRIORITY=0\u{202e}".into();
            warn!(%endpoint, count = 7, is_late = true, none = None::<u64>, "delivery rejected");
        });
        let expected = "PRIORITY=4\n\
            SYSLOG_IDENTIFIER=pleo-receiver\n\
            MESSAGE=delivery rejected endpoint=\"/a\\nPRIORITY=0\\u202e\" count=7 is_late=true\n\
            PLEO_ENDPOINT=/a\\nPRIORITY=0\\u202e\n\
            PLEO_COUNT=7\n\
            PLEO_IS_LATE=true\n";
        assert_eq!(lines.text(), expected);
        let error = "PRIORITY=3\nSYSLOG_IDENTIFIER=pleo-receiver\nMESSAGE=a\\nb\n";
        assert_eq!(entry(tracing::Level::ERROR, "a\nb").unwrap(), error);
    }
}
