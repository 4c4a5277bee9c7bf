//! Formats JSON without changing its values.

use serde::de::IgnoredAny;

/// The largest depth of formatted JSON. Deeper indents would multiply its size.
const DEPTH: usize = 64;

/// The largest formatted JSON, in bytes.
const SIZE: usize = 1024 * 1024;

/// Returns JSON with one value a line; `None` if it is not JSON, too deep or too large. Numbers, texts and the
/// order of members stay as they are.
pub(super) fn format(text: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut formatted = String::with_capacity(text.len());
    let mut depth = 0;
    let (mut in_string, mut is_escaped) = (false, false);
    let mut letters = text
        .char_indices()
        .filter(|(_, letter)| !letter.is_ascii_whitespace())
        .peekable();
    // Strings are copied by their range, since they may contain spaces.
    while let Some((at, letter)) = letters.next() {
        if formatted.len() > SIZE {
            return None;
        }
        match letter {
            '"' => {
                let mut end = at + 1;
                in_string = true;
                for (index, letter) in text.get(at + 1..)?.char_indices() {
                    if is_escaped {
                        is_escaped = false;
                    } else if letter == '\\' {
                        is_escaped = true;
                    } else if letter == '"' {
                        end = at + 2 + index;
                        in_string = false;
                        break;
                    }
                }
                formatted.push_str(text.get(at..end)?);
                while letters.next_if(|(next, _)| *next < end).is_some() {}
            }
            '{' | '[' => {
                formatted.push(letter);
                let is_empty = letters.next_if(|(_, next)| matches!(next, '}' | ']'));
                if let Some((_, end)) = is_empty {
                    formatted.push(end);
                    continue;
                }
                depth += 1;
                if depth > DEPTH {
                    return None;
                }
                new_line(&mut formatted, depth);
            }
            '}' | ']' => {
                depth = depth.checked_sub(1)?;
                new_line(&mut formatted, depth);
                formatted.push(letter);
            }
            ',' => {
                formatted.push(letter);
                new_line(&mut formatted, depth);
            }
            ':' => formatted.push_str(": "),
            _ => formatted.push(letter),
        }
    }
    (!in_string).then_some(formatted)
}

fn new_line(formatted: &mut String, depth: usize) {
    formatted.push('\n');
    formatted.extend(core::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_values_and_order() {
        let text =
            r#" {"z":1.10,"a":[],"b":{ } ,"c":[1e400,"x, \" {y}: \\",null, true],"a":{"d":"é"}}"#;
        let formatted = format(text).unwrap();
        let expected = "{\n  \"z\": 1.10,\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1e400,\n    \
                        \"x, \\\" {y}: \\\\\",\n    null,\n    true\n  ],\n  \"a\": {\n    \"d\": \
                        \"é\"\n  }\n}";
        assert_eq!(formatted, expected);
        assert_eq!(format("3").as_deref(), Some("3"));
    }

    #[test]
    fn refuses_deep_or_large_json_and_what_is_not_json() {
        for text in ["", "{", "{]", "\"", "{} {}", "nothing"] {
            assert_eq!(format(text), None, "{text}");
        }
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(format(&nested(DEPTH)).is_some());
        assert_eq!(format(&nested(DEPTH + 2)), None);
        // Each short value in the depth has a long line.
        let wide = |values: usize| {
            let values = vec!["0"; values].join(",");
            nested(DEPTH - 1).replace("[]", &format!("[{values}]"))
        };
        assert!(format(&wide(5000)).unwrap().len() < SIZE);
        assert!(format(&wide(10_000)).is_none());
    }
}
