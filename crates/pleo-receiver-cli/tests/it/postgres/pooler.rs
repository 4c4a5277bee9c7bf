//! The settings that the user of the inbox should have behind a pooler.

use core::time::Duration;
use std::time::Instant;

use crate::support::postgres::{Server, schema};
use crate::support::program::{ENV, WorkDir};

const MANUAL: &str = include_str!("../../../../../docs/postgres.md");

const PATIENCE: Duration = Duration::from_secs(60);

const WARNING: &str = "settings missing for the user of the inbox behind a pooler";

/// Returns the statements of the manual that set settings of the role `pleo`.
fn documented() -> Vec<&'static str> {
    let lines = MANUAL.lines();
    let statements: Vec<_> = lines
        .filter(|line| line.starts_with("ALTER ROLE pleo SET "))
        .collect();
    assert!(!statements.is_empty());
    statements
}

/// Returns the name of the setting that a statement sets.
fn name(statement: &str) -> &str {
    statement.split(' ').nth(4).unwrap()
}

/// Creates a role with these settings. Returns the URL of an inbox as that role, over connections that are
/// marked as a pooler's, on which the receiver sets nothing itself.
fn url_with(database: &Server, statements: &[&str]) -> String {
    let schema = schema();
    let role = format!("{schema}_pooled");
    // Not by a grant: PostgreSQL refuses those of other tests on the same database meanwhile.
    database.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER"));
    for statement in statements {
        database.execute(&statement.replacen("pleo", &role, 1));
    }
    let url = database.url(&schema);
    let url = url.replacen("postgres@", &format!("{role}@"), 1);
    format!("{url}&pooler=transaction")
}

/// Receives and handles messages. Returns the log.
fn serve(url: &str) -> String {
    let dir = WorkDir::new();
    let server = dir.serve(&["--inbox", url, "--exec", "true"], ENV);
    for id in ["msg_1", "msg_2"] {
        dir.deliver(&server.url, &["--id", id, "--inbox", url]);
    }
    let started = Instant::now();
    let stats = ["inbox", "stats", "--json", "--inbox", url];
    while dir.json(&stats)[0]["endpoints"][0]["done"] != 2 {
        assert!(started.elapsed() < PATIENCE, "not handled");
    }
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
    log
}

/// Returns the line of the log that warns.
fn warning(log: &str) -> &str {
    let mut warnings = log.lines().filter(|line| line.contains(WARNING));
    let warning = warnings
        .next()
        .unwrap_or_else(|| panic!("no warning: {log}"));
    assert!(warnings.next().is_none(), "{log}");
    warning
}

#[test]
fn warns_of_each_missing_setting() {
    let Some(database) = Server::shared() else {
        return;
    };
    let statements = documented();
    let names: Vec<_> = statements.iter().map(|statement| name(statement)).collect();
    let log = serve(&url_with(database, &[]));
    let all = format!("settings=\"{}\"", names.join(", "));
    assert!(warning(&log).ends_with(&all), "{all} is not in {log}");

    for (n, missing) in names.iter().enumerate() {
        let mut others = statements.clone();
        others.remove(n);
        let dir = WorkDir::new();
        let server = dir.serve(&["--inbox", &url_with(database, &others)], ENV);
        let (_, log) = server.stop("-TERM");
        let one = format!("settings=\"{missing}\"");
        assert!(warning(&log).ends_with(&one), "{one} is not in {log}");
    }
}

#[test]
fn works_without_warning_with_documented_settings() {
    let Some(database) = Server::shared() else {
        return;
    };
    let log = serve(&url_with(database, &documented()));
    assert!(!log.contains(WARNING), "{log}");
}
