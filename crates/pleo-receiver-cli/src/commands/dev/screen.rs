//! Prints a line for each delivery and each attempt, in colours on a terminal.

use core::fmt::Display;
use std::env;
use std::io::{self, IsTerminal as _, Write as _};

use clap::builder::styling::{AnsiColor, Style};
use jiff::Timestamp;
use pleo_receiver::inbox::Outcome;
use pleo_receiver::verify::VerifyError;
use pleo_receiver::{Appended, Rejection};

use super::observe::Event;
use crate::escape::escape;
use crate::output::{about, cut};

/// The width without a terminal.
const WIDTH: usize = 80;

/// The widths of the columns of a line: time, label, and the end of the message id.
const TIME: usize = 8;
const LABEL: usize = 13;
const ID: usize = 9;

/// How far the text below a line is indented.
const INDENT: usize = TIME + 2;

/// The maximum number of lines of text below a line. An error of a handler may be long.
const TEXT_LINES: usize = 12;

/// What a tab becomes.
const TAB: &str = "    ";

const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const DIM: Style = Style::new().dimmed();

/// Standard output.
pub(super) struct Screen {
    has_colours: bool,
    /// The URL of the endpoint, for requests to another path.
    endpoint: String,
}

impl Screen {
    pub(super) fn new(endpoint: String) -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            has_colours: io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb,
            endpoint,
        }
    }

    /// Prints a name and a value.
    pub(super) fn field(&self, name: &str, value: impl Display) -> io::Result<()> {
        let name = self.paint(DIM, &format!("{name:9}"));
        let value = escape(&value.to_string());
        writeln!(io::stdout().lock(), "{name} {value}")
    }

    /// Prints an event.
    pub(super) fn event(&self, event: &Event) -> io::Result<()> {
        match event {
            Event::Accepted {
                webhook_id,
                event_type,
                appended,
            } => {
                let (label, style, text) = match appended {
                    Appended::Stored => ("204 stored", GOOD, ""),
                    Appended::Duplicate => {
                        ("204 duplicate", DIM, "stored before; not dispatched again")
                    }
                    _ => (
                        "204 duplicate",
                        WARN,
                        "stored before with another body, which is kept",
                    ),
                };
                let event_type = event_type.as_deref().unwrap_or("no event type");
                self.line(label, style, event_type, webhook_id, text)
            }
            Event::Rejected {
                webhook_id,
                path,
                rejection,
            } => {
                let label = format!("{} rejected", rejection.status().as_u16());
                let code = match path {
                    Some(path) => format!("{} {path}", rejection.code()),
                    None => rejection.code().to_owned(),
                };
                let text = match self.advice(rejection) {
                    advice if advice.is_empty() => rejection.to_string(),
                    advice => format!("{rejection}: {advice}"),
                };
                let id = webhook_id.as_deref().unwrap_or_default();
                self.line(&label, BAD, &code, id, &text)
            }
            Event::Attempt {
                webhook_id,
                number,
                elapsed,
                outcome,
                output,
            } => {
                let done = format!("attempt {number}, {} ms", elapsed.as_millis());
                let (label, style, detail, text) = match outcome {
                    Some(Outcome::Done) => ("done", GOOD, done, ""),
                    Some(Outcome::Retry { after, error }) => {
                        let detail = format!("{done}, again in {}", about(*after));
                        ("retry", WARN, detail, &**error)
                    }
                    Some(Outcome::Dead { error }) => ("dead", BAD, done, &**error),
                    Some(Outcome::Release) => ("stopped", DIM, done, ""),
                    None => (
                        "lost",
                        WARN,
                        done,
                        "the lease was lost; it is dispatched again",
                    ),
                };
                self.line(label, style, &detail, webhook_id, text)?;
                self.output(&output.stdout)?;
                // The error has the standard error of a command that failed.
                if text.is_empty() {
                    self.output(&output.stderr)?;
                }
                Ok(())
            }
            Event::Replayed {
                webhook_id,
                count,
                has_handler,
            } => {
                let detail = match count {
                    1 => "1 message".to_owned(),
                    count => format!("{count} messages"),
                };
                let text = match has_handler {
                    true => "",
                    false => "pending: there is no handler",
                };
                let id = webhook_id.as_deref().unwrap_or_default();
                self.line("replay", DIM, &detail, id, text)
            }
            Event::Paused(true) => {
                let text = "messages are stored and stay pending; resume on the page";
                self.line("paused", WARN, "", "", text)
            }
            Event::Paused(false) => self.line("resumed", DIM, "", "", ""),
            Event::Note(text) => self.line("note", WARN, "", "", text),
        }
    }

    /// Prints a line, and text below it.
    pub(super) fn line(
        &self,
        label: &str,
        style: Style,
        detail: &str,
        webhook_id: &str,
        text: &str,
    ) -> io::Result<()> {
        let width = width();
        let detail_width = width.saturating_sub(TIME + LABEL + ID + 6).max(ID);
        let detail = cut(&escape(detail), detail_width).into_owned();
        let time = self.paint(DIM, &Timestamp::now().strftime("%H:%M:%S").to_string());
        let label = self.paint(style, &format!("{label:LABEL$}"));
        let id = end(&escape(webhook_id));
        let id = if id.is_empty() {
            id
        } else {
            let padding = " ".repeat(detail_width.saturating_sub(detail.chars().count()));
            format!("{padding}  {}", self.paint(DIM, &id))
        };
        let mut out = io::stdout().lock();
        let line = format!("{time}  {label}  {detail}{id}");
        writeln!(out, "{}", line.trim_end())?;
        for line in text_lines(text, width.saturating_sub(INDENT)) {
            writeln!(out, "{:INDENT$}{line}", "")?;
        }
        out.flush()
    }

    /// Prints the output of a handler.
    fn output(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for line in text_lines(text, width().saturating_sub(INDENT)) {
            writeln!(out, "{:INDENT$}{}", "", self.paint(DIM, &line))?;
        }
        out.flush()
    }

    /// Returns what to do about a rejection.
    fn advice(&self, rejection: &Rejection) -> String {
        let advice = match rejection {
            Rejection::NoSuchPath => return format!("deliver to {}", self.endpoint),
            Rejection::MethodNotAllowed => "deliveries are posted",
            Rejection::NotJson => "send `Content-Type: application/json`",
            Rejection::ContentEncoding => "send the body as it is",
            Rejection::BodyTooLarge { .. } => "Pleo's bodies are smaller; send a smaller one",
            Rejection::Signature(VerifyError::SignatureMismatch) => {
                "another secret signed it, or its body was changed in transit"
            }
            Rejection::Signature(VerifyError::TimestampTooOld { .. }) => {
                "sign each attempt anew, or correct the clock of this machine"
            }
            Rejection::Signature(VerifyError::TimestampTooNew { .. }) => {
                "correct the clock of this machine, or that of the sender"
            }
            Rejection::Signature(VerifyError::MissingHeader { .. }) => {
                "it is not a delivery of Pleo, or a proxy has removed the header"
            }
            Rejection::InboxFailed => "free space on the disk, or give another `--keep`",
            _ => "",
        };
        advice.to_owned()
    }

    fn paint(&self, style: Style, text: &str) -> String {
        match self.has_colours {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}

/// The style of lines about keys.
pub(super) const KEY: Style = DIM;

/// Returns the width of the terminal.
fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(io::stdout());
    terminal.map_or(WIDTH, |(width, _)| usize::from(width.0).max(INDENT * 3))
}

/// Returns the end of an id. Its start is the same for all ids of a minute.
fn end(id: &str) -> String {
    let letters = id.chars().count();
    if letters <= ID {
        return id.to_owned();
    }
    let end: String = id.chars().skip(letters - (ID - 1)).collect();
    format!("…{end}")
}

/// Returns the lines of a text, escaped and wrapped. Of a long text, leaves out the middle: the start has
/// the cause, and the end of a traceback its error.
fn text_lines(text: &str, width: usize) -> Vec<String> {
    let text = without_colours(text).replace('\t', TAB);
    let lines = text.lines().map(|line| escape(line.trim_end()));
    let mut lines: Vec<_> = lines.flat_map(|line| wrap(&line, width)).collect();
    if lines.len() > TEXT_LINES {
        let end = lines.len() - TEXT_LINES + 2;
        lines.splice(1..end, ["…".to_owned()]);
    }
    lines
}

/// Removes the sequences that set colours and other renditions (SGR, ECMA-48 section 8.3.117).
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        let end = after.trim_start_matches(|letter: char| matches!(letter, '0'..='9' | ';' | ':'));
        rest = end.strip_prefix('m').unwrap_or_else(|| {
            plain.push_str("\x1b[");
            after
        });
    }
    plain.push_str(rest);
    plain
}

/// Breaks a line into lines of at most `width` characters, at spaces where possible. Keeps its
/// indentation.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let text = line.trim_start_matches(' ');
    let indentation = line.get(..line.len() - text.len()).unwrap_or_default();
    if line.chars().count() <= width || indentation.len() * 2 > width {
        return break_words(line, width);
    }
    let lines = break_words(text, width - indentation.len());
    let lines = lines.iter().map(|line| format!("{indentation}{line}"));
    lines.collect()
}

/// Breaks a text that is too long at spaces, and words that are too long.
fn break_words(text: &str, width: usize) -> Vec<String> {
    if !text.is_empty() && text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let letters = word.chars().count();
        if used > 0 && used + 1 + letters > width {
            lines.push(String::new());
            used = 0;
        }
        for (index, letter) in word.chars().enumerate() {
            if used >= width {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                if index == 0 && used > 0 {
                    line.push(' ');
                    used += 1;
                }
                line.push(letter);
                used += 1;
            }
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_spaces_and_splits_long_words() {
        for (text, lines) in [
            ("", &[][..]),
            ("a b", &["a b"]),
            ("abc def ghi", &["abc def", "ghi"]),
            ("abcdefghij k", &["abcdefgh", "ij k"]),
            ("abcdefgh i", &["abcdefgh", "i"]),
            ("  a  b", &["  a  b"]),
            ("  abc def g", &["  abc", "  def g"]),
            ("       abc", &["abc"]),
        ] {
            assert_eq!(wrap(text, 8), lines, "{text}");
        }
    }

    #[test]
    fn removes_colours_and_escapes_other_sequences() {
        for (text, lines) in [
            ("\x1b[31mred\x1b[0m \x1b[1;38:5:9mx\x1b[m", &["red x"][..]),
            ("a\x1b[2Jb", &[r"a\u{1b}[2Jb"]),
            ("a\x1b[", &[r"a\u{1b}["]),
            ("a\n\tb\n\n  c", &["a", "    b", "  c"]),
        ] {
            assert_eq!(text_lines(text, 40), lines, "{text:?}");
        }
    }

    #[test]
    fn leaves_out_middle_of_long_text() {
        let text: String = (0..100).map(|number| format!("{number}\n")).collect();
        let lines = text_lines(&text, 40);
        assert_eq!(lines.len(), TEXT_LINES);
        assert_eq!(
            lines.first_chunk(),
            Some(&["0", "…", "90"].map(str::to_owned))
        );
        assert_eq!(lines.last().map(String::as_str), Some("99"));
    }

    #[test]
    fn shows_end_of_long_id() {
        assert_eq!(end("msg_1"), "msg_1");
        assert_eq!(end("msg_0123456789"), "…23456789");
    }
}
