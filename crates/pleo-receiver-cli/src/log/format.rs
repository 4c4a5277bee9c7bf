//! The formats of the log: text for people, JSON for programs, fields for journald.

use core::fmt::{self, Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Deserialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format};
use tracing_subscriber::registry::LookupSpan;

use super::fields::escape;
use super::journald;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, and JSON otherwise.
    #[default]
    Auto,
    /// Time, level, text, and fields as logfmt.
    Text,
    /// An object a line.
    Json,
    /// Fields for journald, over its socket.
    Journald,
}

/// The format of the log, which a reload can change.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedFormat(Arc<Mutex<LogFormat>>);

impl SharedFormat {
    pub(super) fn get(&self) -> LogFormat {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, format: LogFormat) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = format;
    }
}

/// Formats events as text, as JSON, or for journald.
pub(super) struct LineFormat {
    text: Format<Full, Now>,
    format: SharedFormat,
}

impl LineFormat {
    pub(super) fn new(shared: SharedFormat) -> Self {
        Self {
            text: format().with_timer(Now).with_target(false),
            format: shared,
        }
    }
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.format.get() {
            LogFormat::Auto | LogFormat::Text => {
                return self.text.format_event(context, writer, event);
            }
            LogFormat::Journald => return journald::write_event(context, writer, event),
            LogFormat::Json => {}
        }
        let level = event.metadata().level().as_str();
        begin(&mut writer, level)?;
        let mut members = Members {
            writer: &mut writer,
            result: Ok(()),
        };
        event.record(&mut members);
        members.result?;
        writer.write_str("}\n")
    }
}

/// Returns the line of a JSON log with this text.
pub(super) fn json_line(level: &str, text: &str) -> Result<String, fmt::Error> {
    let mut line = String::new();
    let mut writer = Writer::new(&mut line);
    begin(&mut writer, level)?;
    writer.write_str(",\"message\":\"")?;
    escape(&mut writer, text)?;
    line.push_str("\"}\n");
    Ok(line)
}

fn begin(writer: &mut Writer<'_>, level: &str) -> fmt::Result {
    writer.write_str("{\"timestamp\":\"")?;
    Now.format_time(writer)?;
    write!(writer, "\",\"level\":\"{level}\"")
}

/// The time of a line, to the microsecond. The default formatter takes more than twice as long.
struct Now;

impl FormatTime for Now {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.6}", Timestamp::now())
    }
}

/// Writes fields as members of an object.
struct Members<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Members<'_, '_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            let name = field.name();
            self.result = write!(self.writer, ",\"{name}\":").and_then(|()| value(self.writer));
        }
    }

    fn write_text(
        &mut self,
        field: &Field,
        value: impl FnOnce(&mut Escaped<'_, '_>) -> fmt::Result,
    ) {
        self.write(field, |writer| {
            writer.write_char('"')?;
            value(&mut Escaped(writer))?;
            writer.write_char('"')
        });
    }
}

impl Visit for Members<'_, '_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write_text(field, |writer| writer.write_str(value));
    }

    /// Writes all other values as text, also numbers that JSON does not have.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write_text(field, |writer| write!(writer, "{value:?}"));
    }
}

/// Escapes all that is written.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text)
    }
}

#[cfg(test)]
mod tests {
    use std::panic;

    use serde_json::{Value, json};
    use tracing::info;
    use tracing_subscriber::fmt;

    use super::*;
    use crate::log::lines::Lines;
    use crate::log::log_panic;

    /// Returns the line of an event, and the object in it.
    fn logged(log: impl FnOnce()) -> (String, Value) {
        let lines = Lines::default();
        let writer = lines.clone();
        let json = SharedFormat::default();
        json.set(LogFormat::Json);
        let subscriber = fmt::Subscriber::builder()
            .with_writer(move || writer.clone())
            .with_ansi(true)
            .event_format(LineFormat::new(json))
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let line = lines.text();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.ends_with('\n'), "{line}");
        let mut value: Value = serde_json::from_str(&line).unwrap();
        let time = value["timestamp"].take();
        let time: Timestamp = time.as_str().unwrap().parse().unwrap();
        let age = Timestamp::now().duration_since(time);
        assert!(age.as_secs().abs() < 60, "{time}");
        value.as_object_mut().unwrap().remove("timestamp");
        (line, value)
    }

    #[test]
    fn writes_flat_object_with_typed_values() {
        let source = core::net::Ipv4Addr::new(203, 0, 113, 7);
        let (_, value) = logged(|| {
            info!(
                %source,
                endpoint = "/a",
                missing = None::<u64>,
                attempt = 2_u32,
                change = -1,
                is_late = true,
                ratio = 0.5,
                nan = f64::NAN,
                retry_in = ?core::time::Duration::from_secs(5),
                "delivery stored"
            );
        });
        let expected = json!({
            "level": "INFO",
            "message": "delivery stored",
            "source": "203.0.113.7",
            "endpoint": "/a",
            "attempt": 2,
            "change": -1,
            "is_late": true,
            "ratio": "0.5",
            "nan": "NaN",
            "retry_in": "5s",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn escapes_hostile_values_and_texts() {
        let hostile = "a\"b\\c\n\r\t\0\x1b[2J\u{7f}\u{9b}2J\u{202e}\u{2066}\u{200b}\u{2028}\u{e0041}\u{fffd}é";
        let (line, value) = logged(|| info!(value = hostile, shown = %hostile, "{hostile}"));
        for name in ["message", "value", "shown"] {
            assert_eq!(value[name], hostile, "{line}");
        }
        let harmful = |letter: &char| {
            letter.is_control() || "\u{202e}\u{2066}\u{200b}\u{2028}\u{e0041}".contains(*letter)
        };
        assert_eq!(line.trim_end().chars().find(harmful), None, "{line}");
        let printed = json_line("ERROR", hostile).unwrap();
        assert_eq!(printed.trim_end().chars().find(harmful), None, "{printed}");
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed["message"], hostile);
        assert_eq!(printed["level"], "ERROR");
    }

    #[test]
    fn panic_is_a_line() {
        let (_, value) = logged(|| {
            panic::set_hook(Box::new(log_panic));
            let caught = panic::catch_unwind(|| panic!("this panic\nis part of the test"));
            drop(panic::take_hook());
            assert!(caught.is_err());
        });
        assert_eq!(value["level"], "ERROR");
        assert_eq!(value["message"], "panic");
        assert_eq!(value["error"], "this panic\nis part of the test");
        let location = value["location"].as_str().unwrap();
        assert!(location.contains("format.rs:"), "{location}");
    }
}
