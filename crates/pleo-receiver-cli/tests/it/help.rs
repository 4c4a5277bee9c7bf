//! Tests of `--help`.

use crate::support::program::WorkDir;

#[test]
fn fits_terminal_and_has_examples() {
    let dir = WorkDir::new();
    let commands: &[&[&str]] = &[
        &[],
        &["demo"],
        &["dev"],
        &["sandbox"],
        &["serve"],
        &["inbox"],
        &["inbox", "list"],
        &["inbox", "show"],
        &["inbox", "replay"],
        &["inbox", "prune"],
        &["inbox", "tail"],
        &["inbox", "verify"],
        &["inbox", "stats"],
        &["inbox", "pause"],
        &["inbox", "resume"],
        &["inbox", "backup"],
        &["inbox", "check"],
        &["sign"],
        &["send"],
        &["verify"],
        &["setup"],
        &["doctor"],
        &["catch-up"],
        &["subscriptions"],
    ];
    for command in commands {
        let help = dir.run_with(
            &[command, &["--help"][..]].concat(),
            &[("COLUMNS", "80")],
            b"",
        );
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains("Example"), "{}", help.stdout);
        for line in help.stdout.lines() {
            assert!(line.chars().count() <= 80, "{command:?}: {line}");
        }
    }
    let serve = dir.run(&["serve", "--help"]).stdout;
    for heading in ["Network:", "Endpoint:", "Handler:", "Operation:"] {
        assert!(serve.contains(heading), "{serve}");
    }
}

#[test]
fn setup_groups_flags_and_ends_with_example() {
    let dir = WorkDir::new();
    for command in [
        &["setup"][..],
        &["doctor"],
        &["catch-up"],
        &["subscriptions", "sync"],
        &["subscriptions", "create"],
    ] {
        for flag in ["-h", "--help"] {
            let help = dir.run(&[command, &[flag]].concat()).stdout;
            assert!(help.contains("\nPleo's API:\n"), "{help}");
            let (_, example) = help.rsplit_once("\nExample").unwrap();
            let usage = format!("pleo-receiver {}", command.join(" "));
            assert!(example.contains(&usage), "{help}");
            assert!(
                help.lines().all(|line| line.chars().count() <= 100),
                "{help}"
            );
        }
    }
}
