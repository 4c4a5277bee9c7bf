//! The files that `setup` writes and the ones that it leaves alone.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::support::harness::{EXPORT, Harness, TOKEN, VENDOR, assert_failed};
use crate::support::program::{OTHER_SECRET, SECRET};

#[test]
fn keeps_configuration_and_comments() {
    let harness = Harness::new();
    let before = format!(
        "# Ours.\ninbox = \"sqlite:books.db\" # on the fast disk\n\n[[endpoint]]\npath = \"/webhooks/pleo\"\n\
         secret = \"{SECRET}\" # until Friday\nheaders = {{ x-tenant = \"hunter2\" }}\n\n[limits]\ngrace = \"5s\"\n"
    );
    harness.dir.write("pleo.toml", &before);
    let url = harness.url("/webhooks/pleo");
    harness.run_ok(&["setup", "--url", &url]);
    let after = harness.read_file("pleo.toml");
    for line in before.lines().filter(|line| !line.starts_with("secret")) {
        assert!(after.contains(line), "{line} is not in {after}");
    }
    let secret = format!("secret = [\"file:webhooks-pleo.secret\", \"{SECRET}\"] # until Friday");
    assert!(after.contains(&secret), "{after}");
    let listed = harness.json(&["subscriptions", "list"]);
    let headers = listed[0]["customHeaders"].as_object().unwrap();
    assert!(
        headers.contains_key("x-tenant"),
        "the headers that the endpoint requires: {headers:?}"
    );

    let server = harness.serve(&[]);
    let messages = harness
        .sandbox
        .emit(harness.company, EXPORT, &serde_json::json!({}));
    assert_eq!(harness.final_attempt(&messages[0]).status, Some(204));
    drop(server);

    harness.run_ok(&["setup", "--url", &url, "--event", VENDOR]);
    let changed = harness.read_file("pleo.toml");
    assert_eq!(
        changed,
        after.replace(EXPORT, VENDOR),
        "only the event type changes"
    );
    assert_eq!(
        harness.json(&["subscriptions", "list"])[0]["eventTypes"][0],
        VENDOR
    );
    let printed = harness.run_ok(&[
        "setup",
        "--url",
        &harness.url("/webhooks/other"),
        "--name",
        "other",
    ]);
    assert!(printed.contains("create"), "{printed}");
    assert!(
        harness
            .read_file("pleo.toml")
            .starts_with(&changed[..changed.len() / 2])
    );
    let server = harness.serve(&[]);
    assert_eq!(server.stop("-TERM").0, Some(0), "both endpoints are served");
}

#[test]
fn leaves_equivalent_configuration_unchanged() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    let setup = ["setup", "--url", &url, "--event", EXPORT, "--event", VENDOR];
    harness.run_ok(&setup);
    let secret = harness.read_file("webhooks-pleo.secret");
    harness
        .dir
        .write("elsewhere", &format!("{SECRET}\n{secret}"));
    std::fs::remove_file(harness.dir.path().join("webhooks-pleo.secret")).unwrap();
    let before = format!(
        "[[endpoint]]\npath = \"/webhooks/pleo\"\nsecrets = [\"file:elsewhere\"]\n\n\
         [endpoint.subscription]\nurl = '{url}'\nevents = [\n  \"{EXPORT}\", # books\n  \"{VENDOR}\",\n]\n"
    );
    harness.dir.write("pleo.toml", &before);
    let printed = harness.run_ok(&setup);
    assert!(printed.contains("nothing to change"), "{printed}");
    assert_eq!(harness.read_file("pleo.toml"), before);
    assert!(!harness.has_file("webhooks-pleo.secret"));
}

#[test]
fn refuses_symlink_without_target() {
    let harness = Harness::new();
    let link = harness.dir.path().join("pleo.toml");
    std::os::unix::fs::symlink("etc/missing.toml", &link).unwrap();
    let parts = [
        "cannot write pleo.toml",
        "symbolic link",
        "create the target",
    ];
    harness.run_fails(&["setup", "--url", &harness.url("/a")], 2, &parts);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(harness.write_requests(), 0);
    std::fs::remove_file(&link).unwrap();
    // The signing secret.
    let link = harness.dir.path().join("a.secret");
    std::os::unix::fs::symlink("missing.secret", &link).unwrap();
    let setup = [
        "setup",
        "--url",
        &harness.url("/a"),
        "--secret-file",
        "a.secret",
    ];
    harness.run_fails(&setup, 2, &["cannot write a.secret", "symbolic link"]);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(harness.write_requests(), 0);
}

#[test]
fn error_names_lock_file() {
    let harness = Harness::new();
    let lock = harness.dir.path().join("pleo.toml.lock");
    std::os::unix::fs::symlink("elsewhere", &lock).unwrap();
    let parts = ["pleo.toml.lock: Too many levels", "remove it"];
    harness.run_fails(&["setup", "--url", &harness.url("/a")], 1, &parts);
    assert!(!harness.has_file("elsewhere"));
}

#[test]
fn keeps_permissions_and_symlink_of_configuration() {
    let harness = Harness::new();
    std::fs::create_dir(harness.dir.path().join("etc")).unwrap();
    harness
        .dir
        .write("etc/real.toml", "listen = \"127.0.0.1:0\"\n");
    let real = harness.dir.path().join("etc/real.toml");
    std::fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
    let link = harness.dir.path().join("pleo.toml");
    std::os::unix::fs::symlink("etc/real.toml", &link).unwrap();
    let setup = [
        "setup",
        "--url",
        &harness.url("/a"),
        "--secret-file",
        "etc/a.secret",
    ];
    harness.run_ok(&setup);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::fs::metadata(&real).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(
        harness
            .read_file("etc/real.toml")
            .contains("file:etc/a.secret")
    );
    let remaining: Vec<_> = std::fs::read_dir(harness.dir.path().join("etc"))
        .unwrap()
        .collect();
    assert_eq!(remaining.len(), 2, "temporary file remains: {remaining:?}");
    let unwritable = [
        "setup",
        "--url",
        &harness.url("/b"),
        "--secret-file",
        "not/there",
    ];
    let writes = harness.write_requests();
    harness.run_fails(&unwritable, 2, &["cannot write not/there", "can write to"]);
    assert_eq!(
        harness.write_requests(),
        writes,
        "no subscription is created whose secret cannot be written"
    );
}

#[test]
fn never_overwrites_secret_of_another_endpoint() {
    let harness = Harness::new();
    harness
        .dir
        .write("acme-eu.secret", &format!("{OTHER_SECRET}\n"));
    let output = harness.run(&["setup", "--url", &harness.url("/acme/eu")]);
    assert_failed(&output, 2, &["acme-eu.secret", "--secret-file"]);
    assert_eq!(
        harness.read_file("acme-eu.secret"),
        format!("{OTHER_SECRET}\n")
    );
    assert_eq!(
        harness.write_requests(),
        0,
        "no subscription is created whose secret cannot be written"
    );

    let elsewhere = ["--secret-file", "eu.secret"];
    harness.run_ok(
        &[
            &["setup", "--url", &harness.url("/acme/eu")],
            &elsewhere[..],
        ]
        .concat(),
    );
    // The URL of an endpoint changes: deliveries in flight are signed with the old secret.
    let before = harness.read_file("eu.secret");
    let moved = harness.url("/moved");
    let setup = ["setup", "--url", &moved, "--path", "/acme/eu"];
    assert_failed(
        &harness.run(&[&setup[..], &elsewhere].concat()),
        2,
        &["eu.secret"],
    );
    let printed = harness.run_ok(&[&setup[..], &["--secret-file", "moved.secret"]].concat());
    let former = "still there  ".to_owned() + &harness.url("/acme/eu");
    assert!(printed.contains(&former), "{printed}");
    assert_eq!(harness.read_file("eu.secret"), before);
    let secrets = "[\"file:moved.secret\", \"file:eu.secret\"]";
    assert!(harness.read_file("pleo.toml").contains(secrets));

    // A rotated secret replaces its own predecessor only.
    let listed = harness.json(&["subscriptions", "list"]);
    let subscription = listed.iter().find(|listed| listed["endpointUrl"] == *moved);
    let id = subscription.unwrap()["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    harness.sandbox.rotate_secret(id).unwrap();
    let rotated = [&setup[..], &["--secret-file", "moved.secret"]].concat();
    harness.run_ok(&rotated);
    assert_eq!(harness.read_file("eu.secret"), before);
    let both = harness.read_file("pleo.toml");
    let other = "\n[[endpoint]]\npath = \"/other\"\nsecret = \"file:moved.secret\"\n";
    harness.dir.write("pleo.toml", &format!("{both}{other}"));
    harness.sandbox.rotate_secret(id).unwrap();
    harness.run_fails(&rotated, 2, &["moved.secret holds another secret"]);
}

#[test]
fn keeps_credential_of_systemd_and_writes_its_file() {
    let harness = Harness::new();
    let before = "[[endpoint]]\npath = \"/webhooks/pleo\"\nsecret = \"credential:webhook-secret\" # root's\n";
    harness.dir.write("pleo.toml", before);
    std::fs::create_dir(harness.dir.path().join("credentials")).unwrap();
    harness.dir.write("credentials/api-token", TOKEN);
    let env = [
        ("SSL_CERT_FILE", "authority.pem"),
        ("PLEO_API_URL", harness.sandbox.url()),
        ("PLEO_API_TOKEN", "credential:api-token"),
        ("CREDENTIALS_DIRECTORY", "credentials"),
    ];
    let url = harness.url("/webhooks/pleo");
    let setup = || harness.dir.run_with(&["setup", "--url", &url], &env, b"");
    let first = setup();
    assert_eq!(first.code, 0, "{first:?}");
    let secret = || harness.read_file("credentials/webhook-secret");
    let old = secret();
    assert!(old.starts_with("whsec_"));
    let file = harness.dir.path().join("credentials/webhook-secret");
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let after = harness.read_file("pleo.toml");
    for part in [before, "token = \"credential:api-token\""] {
        assert!(after.contains(part), "{part} is not in {after}");
    }
    // A reload would not read it.
    assert!(first.stdout.contains("restart"), "{first:?}");
    let second = setup();
    assert!(second.stdout.contains("nothing to change"), "{second:?}");
    assert!(!second.stdout.contains("restart"), "{second:?}");

    let id = harness.json(&["subscriptions", "list"])[0]["id"].clone();
    let id = id.as_str().unwrap().parse().unwrap();
    harness.sandbox.rotate_secret(id).unwrap();
    assert_eq!(setup().code, 0);
    assert_ne!(secret(), old);
    assert_eq!(harness.read_file("pleo.toml"), after);

    // Pleo has lost the subscription, and `sync` creates another one.
    harness.run_ok(&["subscriptions", "delete", &id.to_string()]);
    harness.dir.write("credentials/webhook-secret", "");
    let sync = ["subscriptions", "sync", "--yes"];
    let synced = harness.dir.run_with(&sync, &env, b"");
    assert_eq!(synced.code, 0, "{synced:?}");
    assert!(secret().starts_with("whsec_"));
}

#[test]
fn refuses_endpoint_at_top_of_file() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    for key in [
        "path = \"/webhooks/pleo\"",
        "secret = \"file:pleo.secret\"",
        "tolerance = 600",
    ] {
        harness.dir.write("pleo.toml", key);
        harness.run_fails(
            &["setup", "--url", &url],
            2,
            &["move `path`, `secret` and `tolerance`"],
        );
        assert_eq!(harness.read_file("pleo.toml"), key);
    }
    assert_eq!(harness.write_requests(), 0);
}

#[test]
fn refuses_to_write_where_other_users_can_write() {
    let harness = Harness::new();
    let shared = harness.dir.path().join("tmp");
    std::fs::create_dir(&shared).unwrap();
    let victim = harness.dir.path().join("victim");
    std::os::unix::fs::symlink(&victim, shared.join("link")).unwrap();
    std::fs::write(&victim, "").unwrap();
    let url = harness.url("/a");
    for mode in [0o777, 0o1777, 0o702] {
        std::fs::set_permissions(&shared, Permissions::from_mode(mode)).unwrap();
        for (flag, file) in [
            ("--secret-file", "tmp/new"),
            ("--secret-file", "tmp/link"),
            ("--config", "tmp/pleo.toml"),
        ] {
            let parts = [
                "cannot write tmp/",
                "other users can write to its directory",
            ];
            harness.run_fails(&["setup", "--url", &url, flag, file], 2, &parts);
        }
    }
    // A group other than the user's own. Only the superuser can give a directory away.
    if std::os::unix::fs::chown(&shared, None, Some(54321)).is_ok() {
        std::fs::set_permissions(&shared, Permissions::from_mode(0o770)).unwrap();
        let setup = ["setup", "--url", &url, "--secret-file", "tmp/new"];
        harness.run_fails(&setup, 2, &["cannot write tmp/new", "other users"]);
    }
    assert_eq!(
        (
            harness.write_requests(),
            harness.read_file("victim").as_str()
        ),
        (0, "")
    );
    assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 1);
}
