//! Guesses the original of a body that a proxy or parser rewrote.

use serde::de::IgnoredAny;

/// How many times longer than the body its original may be. Deep brackets, each on a line of its own,
/// would take quadratic memory.
const MAX_GROWTH: usize = 8;

/// By how many bytes the original of a short body may exceed that.
const MIN_GROWTH: usize = 4096;

/// Returns possible originals of a body, each with a description.
pub(super) fn candidates(body: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let plain = [
        ("without the line break at its end", trim_end(body)),
        ("with a line break at its end", [body, b"\n"].concat()),
        ("without the byte order mark", trim_start(body)),
        ("with line breaks of LF", replace(body, b"\r\n", b"\n")),
        ("with line breaks of CRLF", replace(body, b"\n", b"\r\n")),
    ];
    let plain = plain.map(|(what, candidate)| (what.to_owned(), candidate));
    plain.into_iter().chain(reformatted(trim_end(body)))
}

fn reformatted(body: Vec<u8>) -> impl Iterator<Item = (String, Vec<u8>)> {
    let is_json = serde_json::from_slice::<IgnoredAny>(&body).is_ok();
    let text = String::from_utf8(body).ok().filter(|_| is_json);
    let spacings = [
        (Spacing::Unchanged, ""),
        (Spacing::None, "without spaces between its parts"),
        (Spacing::Single, "with a space after each comma and colon"),
        (Spacing::Lines(2), "indented by 2 spaces"),
        (Spacing::Lines(4), "indented by 4 spaces"),
    ];
    let letters = [
        (Letters::Unchanged, ""),
        (Letters::Plain, "with letters instead of `\\u` escapes"),
        (Letters::Escaped, "with `\\u` escapes instead of letters"),
        (Letters::Slashes, "with `\\/` instead of `/`"),
    ];
    text.into_iter().flat_map(move |text| {
        spacings.into_iter().flat_map(move |(spacing, space)| {
            let text = text.clone();
            letters.into_iter().filter_map(move |(letters, letter)| {
                let what = [space, letter].into_iter().filter(|part| !part.is_empty());
                let what = what.collect::<Vec<_>>().join(" and ");
                Some((what, format(&text, spacing, letters)?.into_bytes()))
            })
        })
    })
}

#[derive(Clone, Copy)]
enum Spacing {
    Unchanged,
    None,
    Single,
    Lines(usize),
}

#[derive(Clone, Copy)]
enum Letters {
    Unchanged,
    Plain,
    Escaped,
    Slashes,
}

/// Writes JSON with another spacing and other escapes, in the same order. Returns `None` if it gets
/// too long. Takes time linear in the length.
fn format(json: &str, spacing: Spacing, letters: Letters) -> Option<String> {
    let limit = json.len() * MAX_GROWTH + MIN_GROWTH;
    let mut out = String::with_capacity(json.len());
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some(next) = rest.chars().next() {
        if out.len() > limit {
            return None;
        }
        let (part, behind) = rest.split_at(match next {
            '"' => string_len(rest),
            other => other.len_utf8(),
        });
        rest = behind;
        match (next, spacing) {
            ('"', _) => out.push_str(&rewrite_string(part, letters)),
            (_, Spacing::Unchanged) => out.push_str(part),
            (' ' | '\t' | '\r' | '\n', _) => {}
            ('{' | '[', Spacing::Lines(width)) if !rest.trim_start().starts_with(['}', ']']) => {
                depth += 1;
                out.push_str(part);
                new_line(&mut out, depth * width);
            }
            ('}' | ']', Spacing::Lines(width)) if !out.ends_with(['{', '[']) => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth * width);
                out.push_str(part);
            }
            (',', Spacing::Lines(width)) => {
                out.push(',');
                new_line(&mut out, depth * width);
            }
            (':', Spacing::Lines(_)) | (':' | ',', Spacing::Single) => {
                out.push_str(part);
                out.push(' ');
            }
            _ => out.push_str(part),
        }
    }
    Some(out)
}

fn new_line(out: &mut String, width: usize) {
    out.push('\n');
    out.push_str(&" ".repeat(width));
}

/// Returns the length of the JSON string at the start of the text, with its quotes.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return index + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn rewrite_string(part: &str, letters: Letters) -> String {
    let plain = || {
        let text = serde_json::from_str::<String>(part).unwrap_or_default();
        serde_json::Value::from(text).to_string()
    };
    match letters {
        Letters::Unchanged => part.to_owned(),
        Letters::Plain => plain(),
        Letters::Slashes => plain().replace('/', "\\/"),
        Letters::Escaped => {
            let mut out = String::new();
            let mut units = [0; 2];
            for letter in plain().chars() {
                if letter.is_ascii() {
                    out.push(letter);
                } else {
                    for unit in letter.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
            out
        }
    }
}

fn trim_end(body: &[u8]) -> Vec<u8> {
    let line_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let end = body
        .iter()
        .rposition(|byte| !line_break(byte))
        .map_or(0, |last| last + 1);
    body.get(..end).unwrap_or_default().to_vec()
}

fn trim_start(body: &[u8]) -> Vec<u8> {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).to_vec()
}

fn replace(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(first) = rest.first() {
        if let Some(behind) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = behind;
        } else {
            out.push(*first);
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    out
}
