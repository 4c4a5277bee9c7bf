//! The README says what is so.

#![cfg(unix)]

use crate::support::program::{OTHER, Place, SECRET};

const README: &str = include_str!("../../../../docs/configuration.md");

/// The only fenced block of a language.
fn block(language: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn its_configuration_starts_a_server() {
    let place = Place::new();
    place.write("pleo.toml", block("toml"));
    std::fs::create_dir(place.path().join("tls")).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    place.write("tls/fullchain.pem", &made.cert.pem());
    place.write("tls/key.pem", &made.signing_key.serialize_pem());
    let env = [
        ("ACME_SECRET", SECRET),
        ("ACME_PASSWORD", "pass"),
        ("BOOKS_SECRET", OTHER),
        ("PLEO_METRICS", "127.0.0.1:0"),
        ("PLEO_TLS_LISTEN", "127.0.0.1:0"),
    ];
    let server = place.serve(&["--config", "pleo.toml"], &env);
    assert!(server.url.ends_with("/webhooks/acme"), "{}", server.url);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn its_configuration_shows_every_key() {
    let place = Place::new();
    for table in ["", "[[endpoint]]\n", "[retry]\n", "[limits]\n"] {
        place.write("pleo.toml", &format!("{table}not_a_key = 1\n"));
        let refused = place.run(&["serve", "--config", "pleo.toml"]);
        let (_, keys) = refused.stderr.split_once("expected one of ").unwrap();
        let shown = |key: &str| {
            let is_line = |line: &str| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} =")) || line.trim_matches(['[', ']']) == key
            };
            block("toml").lines().any(is_line)
        };
        // Other spellings of a key that is shown.
        let others = ["trusted-proxy", "secret"];
        let keys = keys.split('`').skip(1).step_by(2);
        for key in keys.filter(|key| !others.contains(key)) {
            assert!(shown(key), "{table}{key}");
        }
    }
}
