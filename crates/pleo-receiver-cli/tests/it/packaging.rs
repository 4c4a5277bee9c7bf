//! Tests of what packages and containers need: `serve --check`, `health`, `completions` and `man`.

use std::fs;
use std::process::Command;

use crate::support::program::{ENV, RunningServer, SECRET, WorkDir, free_address};

#[test]
fn checks_configuration_beside_running_server_and_opens_nothing() {
    let dir = WorkDir::new();
    let address = free_address();
    let file = format!("listen = \"{address}\"\nsecret = \"{SECRET}\"\nexec = \"true\"\n");
    dir.write("pleo.toml", &file);
    let check = |more: &[&str]| dir.run(&[&["serve", "--check"], more].concat());
    let good = check(&[]);
    assert_eq!(
        (good.code, &*good.stdout),
        (0, "the configuration is valid\n")
    );
    assert_eq!(good.stderr, "");
    assert!(!dir.path().join("pleo-inbox.db").exists());
    let server = RunningServer::start(dir.command(&["serve"]));
    assert_eq!(
        check(&[]).code,
        0,
        "neither the port nor the inbox is in its way"
    );
    drop(server);
    for (more, part) in [
        (&["--inbox", "redis:x"][..], "`redis:x` is not an inbox"),
        (
            &["--secret", "env:MISSING"],
            "the environment variable MISSING is not set",
        ),
        (&["--path", "x"], "--path"),
        (
            &[
                "--tls-listen",
                "127.0.0.1:0",
                "--tls-certificate",
                "a",
                "--tls-key",
                "b",
            ],
            "correct `tls_certificate` and `tls_key`",
        ),
        (&["--config", "missing.toml"], "missing.toml"),
    ] {
        let bad = check(more);
        assert_eq!(bad.code, 2, "{more:?}: {bad:?}");
        assert!(bad.stderr.contains(part), "{part}: {bad:?}");
    }
    let twice = format!(
        "[[endpoint]]\npath = \"/a\"\nsecret = \"{SECRET}\"\n[[endpoint]]\npath = \"/a\"\nsecret = \
         \"{SECRET}\"\n"
    );
    dir.write("pleo.toml", &twice);
    let bad = check(&[]);
    assert_eq!(bad.code, 2, "{bad:?}");
    assert!(bad.stderr.contains("/a"), "{bad:?}");
}

#[test]
fn health_tells_whether_the_receiver_is_alive_and_ready() {
    let dir = WorkDir::new();
    let admin = free_address();
    let env = [
        ENV[0],
        ("PLEO_ADMIN", &*admin),
        ("PLEO_ADMIN_TOKEN", "swordfish"),
    ];
    // It needs no signing secret.
    let health = |args: &[&str]| dir.run_with(&[&["health"], args].concat(), &env[1..], b"");
    let before = health(&[]);
    assert_eq!(before.code, 1, "{before:?}");
    assert!(before.stderr.contains("start the receiver"), "{before:?}");
    dir.write("pleo.toml", "[limits]\nshutdown_delay = \"1h\"\n");
    let mut server = dir.serve(&[], &env);
    assert_eq!((health(&[]).code, health(&["--ready"]).code), (0, 0));
    // Alive, but no longer ready.
    server.signal_and_wait("-TERM", "listeners close after the delay");
    assert_eq!(health(&[]).code, 0);
    let ready = health(&["--ready"]);
    assert_eq!(ready.code, 1, "{ready:?}");
    assert!(ready.stderr.contains("answers 503"), "{ready:?}");
    drop(server);
    let without = dir.run(&["health"]);
    assert_eq!(without.code, 2, "{without:?}");
    for part in ["`admin`", "pleo.toml", "PLEO_ADMIN"] {
        assert!(without.stderr.contains(part), "{part}: {without:?}");
    }
}

#[test]
fn prints_completions_that_the_shell_understands() {
    let dir = WorkDir::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = dir.run(&["completions", shell]);
        assert_eq!(output.code, 0, "{output:?}");
        for word in ["catch-up", "replay", "dead"] {
            assert!(output.stdout.contains(word), "{shell}: {word}");
        }
        dir.write(shell, &output.stdout);
    }
    for (words, completed) in [
        ("inb", "inbox\n"),
        ("inbox repl", "replay\n"),
        ("inbox list --sta", "--state\n"),
        ("inbox list --state d", "done dead\n"),
        ("catch-up --dry", "--dry-run\n"),
        ("help subscriptions cre", "create\n"),
    ] {
        let words: Vec<_> = words.split(' ').collect();
        let (last, count) = (words.last().unwrap(), words.len());
        let before = words.iter().rev().nth(1).unwrap_or(&"pleo-receiver");
        let script = format!(
            "source ./bash && COMP_WORDS=(pleo-receiver {}) COMP_CWORD={count} && _pleo__receiver \
             pleo-receiver {last} {before} && echo \"${{COMPREPLY[@]}}\"",
            words.join(" ")
        );
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(dir.path())
            .output();
        let stdout = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(stdout, completed, "{words:?}");
    }
    assert_eq!(dir.run(&["completions", "tcsh"]).code, 2);
}

#[test]
fn writes_a_manual_page_for_each_command() {
    let dir = WorkDir::new();
    let page = dir.run(&["man"]);
    assert!(page.stdout.contains(".TH pleo-receiver 1"), "{page:?}");
    assert_eq!(dir.run(&["man", "--dir", "man1"]).code, 0);
    for name in [
        "",
        "-serve",
        "-inbox-list",
        "-subscriptions-create",
        "-doctor",
    ] {
        let page = dir.path().join(format!("man1/pleo-receiver{name}.1"));
        let page = fs::read_to_string(&page).unwrap();
        assert!(page.contains(".SH DESCRIPTION"), "{name}");
        // No value of this machine's environment.
        assert!(!page.contains("whsec_Bw"), "{name}");
    }
    dir.write("file", "");
    let failed = dir.run(&["man", "--dir", "file/x"]);
    assert_eq!(failed.code, 2, "{failed:?}");
}
