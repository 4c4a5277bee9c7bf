//! Compares the table of log events in the documentation with the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const PRODUCTION: &str = include_str!("../../../../docs/production.md");

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The levels and fields of each event, by text.
type Events = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

fn set(texts: impl Iterator<Item = impl Into<String>>) -> BTreeSet<String> {
    texts.map(Into::into).collect()
}

/// Returns the events in the table.
fn documented() -> Events {
    let (_, table) = PRODUCTION.split_once("| text | level |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let row = row.replace('`', "");
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let list = |cell: usize| cells[cell].split(", ").filter(|part| !part.is_empty());
        (cells[1].to_owned(), (set(list(2)), set(list(3))))
    })
    .collect()
}

/// Adds the events in the sources below a folder. Returns the files that have some.
fn read_sources(folder: &Path, events: &mut Events) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(read_sources(&path, events));
        } else if path.ends_with("tests.rs") {
            // Tests may log anything.
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let source = source.split("#[cfg(test)]").next().unwrap();
            if read_source(source, events) > 0 {
                files.push(path.display().to_string());
            }
        }
    }
    files
}

/// Adds the events in a source. Returns how many macros write them.
fn read_source(source: &str, events: &mut Events) -> usize {
    let mut found = 0;
    for (at, _) in source.match_indices("!(") {
        let (before, after) = source.split_at(at);
        let name = before.rsplit(|letter: char| !letter.is_ascii_alphanumeric());
        let name = name.take(1).next().unwrap();
        let is_limited = name == "limited";
        if !is_limited && !LEVELS.contains(&name) {
            continue;
        }
        let mut args = arguments(&after[2..]);
        let (level, text) = if is_limited {
            // limit, level, endpoint, code, text, fields
            let text = args.remove(4);
            let level = args.remove(1).to_lowercase();
            args.drain(..3);
            args.push("suppressed".to_owned());
            (level, text)
        } else {
            (name.to_owned(), args.pop().unwrap())
        };
        let text = text.trim_matches('"').replace('`', "");
        let mut words = text.split_whitespace();
        let text = words.by_ref().filter(|word| *word != "\\");
        let text = text.collect::<Vec<_>>().join(" ");
        let event = events.entry(text).or_default();
        event.0.insert(level);
        event.1.extend(args.iter().map(|arg| {
            let name = arg.split('=').next().unwrap().trim();
            let name = name.trim_start_matches(['%', '?']);
            name.rsplit('.').next().unwrap().to_owned()
        }));
        found += 1;
    }
    found
}

/// Returns the arguments of a macro call, from after its opening parenthesis.
fn arguments(source: &str) -> Vec<String> {
    let (mut args, mut depth, mut is_text) = (vec![String::new()], 0, false);
    for letter in source.chars() {
        match letter {
            '"' => is_text = !is_text,
            '(' | '[' if !is_text => depth += 1,
            ')' if !is_text && depth == 0 => break,
            ')' | ']' if !is_text => depth -= 1,
            ',' if !is_text && depth == 0 => {
                args.push(String::new());
                continue;
            }
            _ => {}
        }
        args.last_mut().unwrap().push(letter);
    }
    let args = args.iter().map(|arg| arg.trim().to_owned());
    args.filter(|arg| !arg.is_empty()).collect()
}

#[test]
fn table_lists_every_event_with_levels_and_fields() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut events = Events::new();
    let library = read_sources(&crates.join("pleo-receiver/src"), &mut events);
    for file in &library {
        assert!(file.contains("/telemetry/"), "{file} writes to the log");
    }
    let of_library = events.len();
    read_sources(&crates.join("pleo-receiver-cli/src"), &mut events);
    assert!(of_library > 30 && events.len() > of_library + 20);
    let documented = documented();
    for (text, expected) in &events {
        let row = documented.get(text);
        assert_eq!(row, Some(expected), "docs/production.md, {text:?}");
    }
    for text in documented.keys() {
        assert!(events.contains_key(text), "no source logs {text:?}");
    }
}
