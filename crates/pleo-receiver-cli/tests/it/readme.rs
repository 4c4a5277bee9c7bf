//! The README's example configuration works and is complete.

use crate::support::program::{OTHER_SECRET, SECRET, WorkDir};
use crate::support::tls::certificate;

const README: &str = include_str!("../../../../docs/configuration.md");

/// Returns the first fenced block of a language.
fn block(language: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn example_configuration_starts_server() {
    let dir = WorkDir::new();
    dir.write("pleo.toml", block("toml"));
    std::fs::create_dir(dir.path().join("tls")).unwrap();
    let (certificate, key, _) = certificate();
    dir.write("tls/fullchain.pem", &certificate);
    dir.write("tls/key.pem", &key);
    let env = [
        ("ACME_SECRET", SECRET),
        ("ACME_PASSWORD", "pass"),
        ("BOOKS_SECRET", OTHER_SECRET),
        ("PLEO_ADMIN", "127.0.0.1:0"),
        ("PLEO_TLS_LISTEN", "127.0.0.1:0"),
    ];
    let server = dir.serve(&["--config", "pleo.toml"], &env);
    assert!(server.url.ends_with("/webhooks/acme"), "{}", server.url);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn example_configuration_has_every_key() {
    let dir = WorkDir::new();
    for table in [
        "",
        "[[endpoint]]\n",
        "[retry]\n",
        "[limits]\n",
        "[retention]\n",
        "[catch_up]\n",
    ] {
        dir.write("pleo.toml", &format!("{table}not_a_key = 1\n"));
        let output = dir.run(&["serve", "--config", "pleo.toml"]);
        let (_, keys) = output.stderr.split_once("expected ").unwrap();
        let shown = |key: &str| {
            let is_line = |line: &str| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} =")) || line.trim_matches(['[', ']']) == key
            };
            block("toml").lines().any(is_line)
        };
        // Aliases of keys that the README shows.
        let aliases = ["trusted-proxy", "secret", "metrics"];
        let keys = keys.split('`').skip(1).step_by(2);
        for key in keys.filter(|key| !aliases.contains(key)) {
            assert!(shown(key), "{table}{key}");
        }
    }
}
