//! Errors and warnings of `serve`: each names its cause and its fix.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::program::{ENV, OTHER_SECRET, SECRET, WorkDir};
use crate::support::tls::certificate;

/// Runs `serve`, which refuses to start with this exit code. Returns its standard error.
fn refused(dir: &WorkDir, code: i32, args: &[&str]) -> String {
    let args = [&["serve"], args].concat();
    let output = dir.run_with(&args, ENV, b"");
    assert_eq!(output.code, code, "{output:?}");
    output.stderr
}

#[test]
fn rejects_unusable_listen_address_with_fix() {
    let dir = WorkDir::new();
    let error = refused(&dir, 2, &["--listen", "no-such-host:8787"]);
    assert!(error.contains("give an IP address and a port"), "{error}");
    // No machine has an address of the documentation range (RFC 5737).
    let error = refused(&dir, 1, &["--listen", "192.0.2.1:8787"]);
    assert!(error.contains("an address of this machine"), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let error = refused(&dir, 1, &["--listen", &address.to_string()]);
    let port = format!("another program listens on port {}", address.port());
    assert!(error.contains(&port), "{error}");
    dir.write("pleo.toml", "listen = \"localhost\"\n");
    let error = refused(&dir, 2, &[]);
    assert!(error.contains("pleo.toml, line 1, key `listen`"), "{error}");
    assert!(error.contains("give an IP address and a port"), "{error}");
}

#[test]
fn failure_of_the_system_at_start_is_not_wrong_usage() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--admin", "127.0.0.1:0"], ENV);
    let free = ["--listen", "127.0.0.1:0"];
    let error = refused(&dir, 1, &free);
    assert!(error.contains("in use by another server"), "{error}");
    let other = [&free[..], &["--inbox", "other.db"]].concat();
    let admin = ["--admin", server.admin_address()];
    let error = refused(&dir, 1, &[&other[..], &admin].concat());
    assert!(error.contains("`--admin`: cannot listen on"), "{error}");
    let error = refused(
        &dir,
        1,
        &["--listen", "127.0.0.1:0", "--inbox", "none/a.db"],
    );
    assert!(error.contains("cannot open inbox `none/a.db`"), "{error}");
    assert_eq!(server.stop("-TERM").0, Some(0));
    // Reading this file fails with an I/O error.
    if cfg!(target_os = "linux") {
        let error = refused(&dir, 1, &["--config", "/proc/self/mem"]);
        assert!(error.contains("Input/output error"), "{error}");
    }
}

#[test]
fn rejects_missing_configuration_with_fix() {
    let dir = WorkDir::new();
    let error = refused(&dir, 2, &["--config", "plea.toml"]);
    assert!(
        error.contains("cannot read the configuration `plea.toml`"),
        "{error}"
    );
    assert!(error.contains("name another with `--config`"), "{error}");
}

#[test]
fn every_command_without_secret_names_its_variable() {
    let dir = WorkDir::new();
    for command in ["serve", "send", "sign", "verify"] {
        let output = dir.run(&[command]);
        assert_eq!(output.code, 2, "{output:?}");
        let fix = "no signing secret: set PLEO_WEBHOOK_SECRET";
        assert!(output.stderr.contains(fix), "{command}: {output:?}");
    }
}

#[test]
fn reports_that_messages_stay_pending_without_handler() {
    let dir = WorkDir::new();
    let (code, log) = dir.serve(&[], ENV).stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("no handler; messages stay pending"), "{log}");
}

#[test]
fn warns_of_missing_handler_program() {
    let dir = WorkDir::new();
    dir.write("not-executable", "");
    for (program, is_missing) in [
        ("./not-there", true),
        ("not-there-either", true),
        ("./not-executable", true),
        ("true", false),
        ("/bin/sh", false),
    ] {
        let server = dir.serve(&["--exec", program], ENV);
        let (code, log) = server.stop("-TERM");
        assert_eq!(code, Some(0));
        let warning = format!("correct `exec`, or install it program=\"{program}\"");
        assert_eq!(log.contains(&warning), is_missing, "{log}");
    }
}

#[test]
fn warns_of_authority_certificate() {
    let dir = WorkDir::new();
    for is_authority in [true, false] {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        if is_authority {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        dir.write("cert.pem", &certificate.pem());
        dir.write("key.pem", &key.serialize_pem());
        let args = [
            "--tls-listen",
            "127.0.0.1:0",
            "--tls-certificate",
            "cert.pem",
        ];
        let server = dir.serve(&[&args[..], &["--tls-key", "key.pem"]].concat(), ENV);
        let (code, log) = server.stop("-TERM");
        assert_eq!(code, Some(0));
        assert_eq!(
            log.contains("basicConstraints=critical,CA:FALSE"),
            is_authority,
            "{log}"
        );
    }
}

#[test]
fn warns_of_variables_without_effect() {
    let dir = WorkDir::new();
    dir.write("other", OTHER_SECRET);
    dir.write(
        "pleo.toml",
        "[[endpoint]]\npath = \"/a\"\nsecret = \"file:other\"\n",
    );
    let env = [ENV, &[("PLEO_TOLERANCE", "60")]].concat();
    let server = dir.serve(&[], &env);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    let reported = |variable| {
        let field = format!("variable=\"{variable}\"");
        let mut lines = log.lines();
        lines.any(|line| line.contains("variable ignored") && line.contains(&field))
    };
    assert!(
        reported("PLEO_WEBHOOK_SECRET") && reported("PLEO_TOLERANCE"),
        "{log}"
    );
    assert!(!reported("PLEO_PATH"), "{log}");
}

#[test]
fn error_names_key_in_file() {
    let dir = WorkDir::new();
    for key in ["secret", "secrets"] {
        for (file, location) in [
            (
                format!("{key} = \"whsec_x\"\n"),
                format!("`{key}` in pleo.toml"),
            ),
            (
                format!("[[endpoint]]\npath = \"/a\"\n{key} = [\"whsec_x\"]\n"),
                format!("number 1 (`/a`), key `{key}`"),
            ),
        ] {
            dir.write("pleo.toml", &file);
            let output = dir.run(&["serve"]);
            assert_eq!(output.code, 2, "{output:?}");
            assert!(output.stderr.contains(&location), "{output:?}");
        }
    }
    let both = format!("secret = \"{SECRET}\"\nsecrets = \"{OTHER_SECRET}\"\n");
    for file in [both.clone(), format!("[[endpoint]]\npath = \"/a\"\n{both}")] {
        dir.write("pleo.toml", &file);
        let output = dir.run(&["serve"]);
        assert!(output.stderr.contains("keep one of them"), "{output:?}");
    }
}

#[test]
fn reload_names_only_changed_keys() {
    let dir = WorkDir::new();
    let (certificate, key, _) = certificate();
    for name in ["a.pem", "b.pem"] {
        dir.write(name, &certificate);
    }
    dir.write("key.pem", &key);
    let configure = |certificate: &str| {
        let tls = format!(
            "secret = \"{SECRET}\"\ntls_listen = \"127.0.0.1:0\"\n\
             tls_certificate = \"{certificate}\"\ntls_key = \"key.pem\"\n"
        );
        dir.write("pleo.toml", &tls);
    };
    configure("a.pem");
    let mut server = dir.serve(&[], &[]);
    configure("b.pem");
    server.signal_and_wait("-HUP", "configuration reloaded");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    let changed: Vec<_> = log.lines().filter(|line| line.contains("key=")).collect();
    assert_eq!(changed.len(), 1, "{log}");
    assert!(changed[0].ends_with("key=\"tls_certificate\""), "{log}");
}

#[test]
fn refuses_inbox_where_other_users_can_write() {
    let dir = WorkDir::new();
    let folder = dir.path().join("shared");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let args = ["--inbox", "shared/inbox.db"];
    let error = refused(&dir, 1, &args);
    for part in [
        "shared/inbox.db",
        "other users can write",
        "`allow_shared_directory`",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let allowed = dir.serve(&[&args[..], &["--allow-shared-directory"]].concat(), ENV);
    assert_eq!(allowed.stop("-TERM").0, Some(0));
    dir.write("pleo.toml", "allow_shared_directory = true\n");
    let mut allowed = dir.serve(&args, ENV);
    dir.write("pleo.toml", "");
    let warning = allowed.signal_and_wait("-HUP", "restart the receiver to apply it");
    assert!(warning.contains("allow_shared_directory"), "{warning}");
    assert_eq!(allowed.stop("-TERM").0, Some(0));
}
