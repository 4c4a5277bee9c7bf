//! Invalid configuration: the server does not start, and reports the location of the error and its
//! fix.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::program::{CommandOutput, ENV, OTHER_SECRET, SECRET, WorkDir};

fn assert_failed(output: &CommandOutput, code: i32, parts: &[&str]) {
    assert_eq!(output.code, code, "{output:?}");
    assert_eq!(output.stdout, "", "{output:?}");
    for part in parts {
        assert!(
            output.stderr.contains(part),
            "{part:?} is not in {:?}",
            output.stderr
        );
    }
    for secret in [SECRET, OTHER_SECRET, &SECRET[6..], "hunter2"] {
        assert!(!output.stderr.contains(secret), "{:?}", output.stderr);
    }
}

#[test]
fn rejects_invalid_file_with_its_location() {
    let endpoint =
        |keys: &str| format!("[[endpoint]]\npath = \"/a\"\nsecret = \"{SECRET}\"\n{keys}");
    let dir = WorkDir::new();
    for (file, parts) in [
        (
            "listem = \"127.0.0.1:0\"",
            &["pleo.toml, line 1", "`listem`", "listen"][..],
        ),
        (
            "\nlisten = \"everywhere\"",
            &["pleo.toml, line 2, key `listen`", "address"],
        ),
        ("tolerance = \"5\"", &["line 1, key `tolerance`"]),
        (
            "log = \"loud\"",
            &["pleo.toml, line 1, key `log`", "`loud`", "off, error, warn"],
        ),
        ("inbox = \"sqlite:a.db", &["pleo.toml, line 1"]),
        ("secret = 5", &["line 1, key `secret`", "must be a string"]),
        (
            "secret = \"whsec_x\"",
            &["`secret` in pleo.toml", "standard base64"],
        ),
        (
            "secret = \"env:NOT_THERE\"",
            &["`secret` in pleo.toml", "NOT_THERE is not set"],
        ),
        (
            "secret = \"file:not-there\"",
            &["`secret` in pleo.toml", "cannot read the file not-there"],
        ),
        (
            "inbox = \"mysql://x\"",
            &["`mysql://…` is not an inbox", "sqlite:"],
        ),
        (
            "path = \"hooks\"",
            &["`path` in pleo.toml", "must begin with `/`"],
        ),
        (
            "forward = \"ftp://user:hunter2@x/\"",
            &["`forward` in pleo.toml", "scheme"],
        ),
        ("exec = \"sh -c 'x\"", &["line 1, key `exec`", "quote"]),
        (
            "exec = \"sh\"\nexec_env = [\"NAME=value\"]",
            &["`exec_env` in pleo.toml", "`NAME=value`"],
        ),
        (
            "exec = \"x\"\nforward = \"http://x/\"",
            &["`forward` in pleo.toml", "choose one"],
        ),
        (
            "tls_listen = \"127.0.0.1:0\"\ntls_key = \"key.pem\"",
            &["`tls_certificate` in pleo.toml", "missing"],
        ),
        (
            "tls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"",
            &["`tls_listen` in pleo.toml", "missing"],
        ),
        (
            "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"not-there\"\ntls_key = \"key.pem\"",
            &["TLS: cannot read not-there"],
        ),
        (
            &endpoint("sources = [\"pleo-eu\", \"pleo-moon\"]"),
            &["number 1 (`/a`), key `sources`", "`pleo-moon`", "`pleo-us`"],
        ),
        (
            &endpoint("sources = [\"10.0.0.0/33\"]"),
            &["line 4, key `sources`", "`10.0.0.0/33` is neither"],
        ),
        (
            "trusted_proxies = [\"10.0.0.0/33\"]",
            &["line 1, key `trusted_proxies`", "10.0.0.0/33"],
        ),
        (
            "[retry]\nmin_delay = \"soon\"",
            &["line 2, key `min_delay`", "`soon` is not a time span"],
        ),
        ("[retry]\nmin_delay = \"-5s\"", &["line 2, key `min_delay`"]),
        (
            "[limits]\nbody_byte = 1",
            &["pleo.toml, line 2", "`body_byte`", "body_bytes"],
        ),
        (
            &endpoint(&endpoint("")),
            &["number 2, key `path`", "number 1 also has the path `/a`"],
        ),
        (
            &endpoint(&format!(
                "[[endpoint]]\npath = \"/b\"\nname = \"/a\"\nsecret = \"{SECRET}\""
            )),
            &["number 2, key `name`", "number 1 also has the name `/a`"],
        ),
        (&endpoint("tenant = 1"), &["line 4", "`tenant`"]),
        (
            &endpoint("headers = { \"a b\" = \"hunter2\" }"),
            &["`[[endpoint]]` number 1 (`/a`)", "headers.a b"],
        ),
        (
            &endpoint("basic = { username = \"u\", password = 5 }"),
            &["line 4", "must be a string"],
        ),
        (
            &endpoint("basic = { username = \"u\", password = \"env:NOT_THERE\" }"),
            &["basic.password", "NOT_THERE"],
        ),
        (
            &endpoint("[[endpoint]]\npath = \"/b\"\nsecret = []"),
            &["number 2 (`/b`), key `secret`", "no secret"],
        ),
        (
            "[[endpoint]]\npath = \"/b\"",
            &["pleo.toml, `[[endpoint]]` number 1 (`/b`)", "no `secret`"],
        ),
        (
            &format!("path = \"/x\"\n{}", endpoint("")),
            &["pleo.toml", "move them into the tables"],
        ),
    ] {
        dir.write("pleo.toml", file);
        let args = ["serve", "--config", "pleo.toml", "--listen", "127.0.0.1:0"];
        // The variable would override the key of the file.
        let env = if file.starts_with("secret") {
            &[][..]
        } else {
            ENV
        };
        assert_failed(&dir.run_with(&args, env, b""), 2, parts);
    }
    assert!(
        !dir.path().join("pleo-inbox.db").exists(),
        "no inbox was created"
    );
}

#[test]
fn rejects_invalid_flag_with_its_name() {
    let dir = WorkDir::new();
    dir.write(
        "tables.toml",
        &format!("[[endpoint]]\npath = \"/a\"\nsecret = \"{SECRET}\"\n"),
    );
    let five = [["--secret", SECRET]; 5].concat();
    let five_secrets = [&["serve"][..], &five].concat();
    for (args, parts) in [
        (&["serve", "--nonsense"][..], &["--nonsense"][..]),
        (&["serve", "--listen", "x"], &["--listen"]),
        (
            &["serve", "--secret", "whsec_"],
            &["--secret", "fewer than 24"],
        ),
        (
            &["serve", "--secret", "v1,whsec_x"],
            &["--secret", "remove everything before `whsec_`"],
        ),
        (&five_secrets, &["secret", "at most 4"]),
        (
            &["serve", "--config", "not-there.toml"],
            &["cannot read the configuration `not-there.toml`", "--config"],
        ),
        (
            &["serve", "--inbox", "mysql://books"],
            &["--inbox", "sqlite:FILE"],
        ),
        (
            &["serve", "--exec", "x", "--forward", "http://x/"],
            &["--exec", "--forward"],
        ),
        (&["serve", "--exec", ""], &["--exec", "empty"]),
        (
            &["serve", "--trusted-proxy", "x"],
            &["--trusted-proxy", "`x`"],
        ),
        (
            &["serve", "--config", "tables.toml", "--secret", OTHER_SECRET],
            &["--secret", "[[endpoint]]"],
        ),
        (
            &["inbox", "list", "--inbox", "memory:"],
            &["--inbox", "memory"],
        ),
        (
            &["inbox", "prune", "--state", "pending"],
            &["--state", "pending"],
        ),
        (
            &["inbox", "prune", "--older-than", "1 month"],
            &["--older-than", "30d"],
        ),
        (&["send", "ftp://x/"], &["scheme"]),
        (&["send", "--header", "x"], &["--header", "name: value"]),
        (&["sign", "--id", "a.b"], &["--id", "full stop"]),
        (&[], &["Usage"]),
    ] {
        assert_failed(&dir.run_with(args, ENV, b""), 2, parts);
    }
    assert_failed(
        &dir.run(&["serve"]),
        2,
        &["no signing secret", "PLEO_WEBHOOK_SECRET"],
    );
    assert_failed(&dir.run(&["sign"]), 2, &["--secret"]);
}

#[test]
fn refuses_to_start_on_port_in_use() {
    let dir = WorkDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for (flag, named) in [
        ("--listen", "--listen"),
        ("--admin", "--admin"),
        ("--metrics", "--admin"),
    ] {
        let args = ["serve", flag, &address, "--inbox", "memory:"];
        assert_failed(
            &dir.run_with(&args, ENV, b""),
            1,
            &[named, &address, "in use", "choose another"],
        );
    }
}

#[test]
fn refuses_to_start_with_unusable_inbox() {
    let dir = WorkDir::new();
    let serve = |inbox: &str| {
        let args = ["serve", "--listen", "127.0.0.1:0", "--inbox", inbox];
        dir.run_with(&args, ENV, b"")
    };
    assert_failed(
        &serve("sqlite:no/such/folder.db"),
        1,
        &["--inbox", "no/such/folder.db", "can write to"],
    );
    dir.write(
        "text.db",
        "not a database, but a text that is long enough for a database header",
    );
    assert_failed(&serve("sqlite:text.db"), 1, &["--inbox", "text.db"]);
    // Root can write everywhere: the check is skipped then.
    std::fs::create_dir(dir.path().join("locked")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(dir.path().join("locked"), mode).unwrap();
    if std::fs::write(dir.path().join("locked/x"), "").is_err() {
        assert_failed(
            &serve("sqlite:locked/inbox.db"),
            1,
            &["--inbox", "locked/inbox.db", "can write to"],
        );
    }

    let server = dir.serve(&["--inbox", "sqlite:books.db"], ENV);
    assert_failed(
        &serve("sqlite:books.db"),
        1,
        &["--inbox", "books.db", "in use by another server"],
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
}
