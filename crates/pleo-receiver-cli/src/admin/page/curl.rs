//! A `curl` command that repeats a delivery.

use pleo_receiver::StoredMessage;

use crate::escape::is_printable;

/// The address that the command posts to, with the path of the endpoint.
const ADDRESS: &str = "http://127.0.0.1:8787";

/// The largest body in the command, in bytes. A larger one is read from a file.
const BODY: usize = 16 * 1024;

/// The header that is not sent: the receiver added it itself.
const OWN: &str = "receive-traceparent";

/// Returns the command, and whether it reads the body from the file `body.json`.
pub(super) fn command(message: &StoredMessage, path: &str, shows_body: bool) -> (String, bool) {
    let mut command = format!("curl -i {}", quote(&format!("{ADDRESS}{path}")));
    let headers = message.headers.iter().filter(is_plain_header);
    for (name, value) in [("content-type", "application/json")]
        .into_iter()
        .chain(headers)
    {
        command.push_str(" \\\n  -H ");
        command.push_str(&quote(&format!("{name}: {value}")));
    }
    let body = str::from_utf8(&message.body).ok();
    let is_plain = |letter| is_printable(letter) || matches!(letter, '\n' | '\t');
    let body = body.filter(|body| shows_body && body.len() <= BODY && body.chars().all(is_plain));
    match body {
        // `--data-binary` would read a file if the body began with `@`.
        Some(body) => command.extend([" \\\n  --data-raw ", &*quote(body)]),
        None => command.push_str(" \\\n  --data-binary @body.json"),
    }
    (command, body.is_none())
}

/// Returns `true` for a header of visible ASCII, as each is that the receiver stored.
fn is_plain_header((name, value): &(&str, &str)) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    *name != OWN && name.bytes().chain(value.bytes()).all(is_plain)
}

/// Quotes a text for a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
