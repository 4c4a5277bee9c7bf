//! The keys of `dev`, on a terminal.

use std::os::unix::fs::PermissionsExt as _;

use super::session::{Session, temporary_files};
use crate::support::program::WorkDir;

#[test]
fn keys_send_replay_open_and_quit() {
    let dir = WorkDir::new();
    // The program that opens the browser.
    for name in ["xdg-open", "open"] {
        dir.write(
            name,
            "#!/bin/sh\necho \"$1\" > opened.tmp\nmv opened.tmp opened\n",
        );
        let executable = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path().join(name), executable).unwrap();
    }
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let env = [("PATH", &*path)];
    let mut session = Session::on_terminal(&dir, &["--exec", "true"], &env);
    assert!(!session.terminal_is_cooked());
    // An arrow key is no command, though its last byte could be one.
    session.press("\x1b[q");
    session.press("r");
    session.wait_for("nothing to replay");
    session.press("e");
    session.wait_for("v1.export-job.created");
    session.wait_for("done");
    session.press("v");
    session.wait_for("v1.vendor.created");
    // A message in progress is not replayed.
    while session.printed().matches("attempt 1, ").count() < 2 {
        std::thread::yield_now();
    }
    session.press("r");
    while session.printed().matches("attempt 1, ").count() < 3 {
        std::thread::yield_now();
    }
    session.press("?");
    while session.printed().matches("q quit").count() < 2 {
        std::thread::yield_now();
    }
    let shown = session.printed();
    assert!(shown.contains("\r\n\r\n\x1b[2mreceiver"), "{shown:?}");
    session.press("o");
    let opened = dir.path().join("opened");
    while !opened.exists() {
        std::thread::yield_now();
    }
    let opened = std::fs::read_to_string(opened).unwrap();
    assert!(opened.contains("/sign-in?link="), "{opened}");
    session.press("q");
    assert_eq!(session.wait(), (Some(0), String::new()));
    assert!(session.terminal_is_cooked());
    let shown = session.printed();
    assert!(shown.contains("\x1b[32m204 stored"), "{shown:?}");
    assert!(!shown.contains("note"), "{shown}");
    assert_eq!(temporary_files(&dir), [""; 0]);
}

#[test]
fn shows_link_if_no_browser_opens() {
    let dir = WorkDir::new();
    let env = [("PATH", "/nonexistent"), ("NO_COLOR", "1")];
    let mut session = Session::on_terminal(&dir, &[], &env);
    session.press("o");
    let shown = session.wait_for("open failed");
    assert!(!shown.contains('\x1b'), "{shown:?}");
    session.wait_for("open\r\n          http://127.0.0.1:");
    session.press("\x04");
    assert_eq!(session.wait().0, Some(0));
}

#[test]
fn every_end_restores_terminal() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let dir = WorkDir::new();
        let mut session = Session::on_terminal(&dir, &[], &[]);
        assert!(!session.terminal_is_cooked(), "{signal}");
        assert_eq!(session.stop(signal).0, Some(0), "{signal}");
        assert!(session.terminal_is_cooked(), "{signal}");
        assert_eq!(temporary_files(&dir), [""; 0], "{signal}");
    }
}
