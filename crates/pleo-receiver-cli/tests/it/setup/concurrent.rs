//! `setup` beside another command, an editor, or a directory that goes away.

use std::fs;
use std::process::{Child, Output};
use std::sync::Arc;

use pleo_sandbox::Fault;
use tokio::sync::Notify;

use crate::support::harness::{EXPORT, Harness, TOKEN, assert_failed};
use crate::support::program::CommandOutput;

const LOCK: &str = "pleo.toml.lock";

/// A `setup` whose subscription Pleo has created, without a response yet.
struct HeldSetup {
    child: Child,
    release: Arc<Notify>,
}

impl HeldSetup {
    /// Starts it. `then` are the faults of the requests that follow.
    fn start(harness: &Harness, args: &[&str], then: &[Fault]) -> Self {
        let release = Arc::new(Notify::new());
        let before = harness.sandbox.requests().len();
        let faults = [Fault::None, Fault::Held(Arc::clone(&release))];
        let faults = faults.into_iter().chain(then.iter().cloned());
        harness.sandbox.fail_next(faults);
        let child = harness.spawn(args);
        harness.wait_for_requests(before + 2);
        Self { child, release }
    }

    fn finish(self) -> CommandOutput {
        self.release.notify_one();
        self.child.wait_with_output().unwrap().into()
    }
}

#[test]
fn keeps_endpoints_of_concurrent_setups() {
    let harness = Harness::new();
    let urls: Vec<_> = (0..8)
        .map(|n| harness.url(&format!("/hooks/{n}")))
        .collect();
    let children: Vec<_> = (urls.iter())
        .map(|url| harness.spawn(&["setup", "--url", url]))
        .collect();
    for child in children {
        let output: Output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let listed = harness.json(&["subscriptions", "list"]);
    assert_eq!(listed.len(), urls.len());
    let config = harness.read_file("pleo.toml");
    assert_eq!(config.matches("[subscriptions]").count(), 1, "{config}");
    for (n, url) in urls.iter().enumerate() {
        assert!(config.contains(url.as_str()), "{url} is not in {config}");
        let secret = format!("hooks-{n}.secret");
        assert!(config.contains(&secret), "{secret} is not in {config}");
        assert!(harness.read_file(&secret).starts_with("whsec_"));
    }
    assert!(!harness.has_file(LOCK));
    let server = harness.serve(&[]);
    let messages = harness
        .sandbox
        .emit(harness.company, EXPORT, &serde_json::json!({}));
    assert_eq!(messages.len(), urls.len());
    for message in &messages {
        assert_eq!(harness.final_attempt(message).status, Some(204));
    }
    drop(server);
}

#[test]
fn keeps_endpoint_of_setup_beside_sync() {
    let harness = Harness::new();
    let table = "[[endpoint]]\npath = \"/a\"\nsecret = \"file:a.secret\"\n\
                 subscription = { url = \"https://x.example.com/a\", events = [\"v1.export-job.created\"] }\n";
    harness.dir.write("pleo.toml", table);
    let sync = HeldSetup::start(&harness, &["subscriptions", "sync", "--yes"], &[]);
    let setup = harness.spawn(&["setup", "--url", &harness.url("/b")]);
    let outputs = [sync.finish(), setup.wait_with_output().unwrap().into()];
    assert!(outputs.iter().all(|output| output.code == 0), "{outputs:?}");
    let config = harness.read_file("pleo.toml");
    assert_eq!(config.matches("[subscriptions]").count(), 1, "{config}");
    assert_eq!(config.matches("[[endpoint]]").count(), 2, "{config}");
    let kept = harness.json(&["subscriptions", "sync"]);
    assert!(kept.iter().all(|line| line["do"] == "keep"), "{kept:?}");
}

#[test]
fn keeps_change_of_editor_and_deletes_subscription() {
    let harness = Harness::new();
    let before = "# Ours.\ninbox = \"sqlite:books.db\"\n";
    harness.dir.write("pleo.toml", before);
    let setup = ["setup", "--url", &harness.url("/webhooks/pleo")];
    let held = HeldSetup::start(&harness, &setup, &[]);
    let edited = format!("{}log = \"warn\"\n", harness.read_file("pleo.toml"));
    let edited = edited.replace("# Ours.", "# Yours.");
    harness.dir.write("pleo.toml", &edited);
    let output = held.finish();
    let parts = [
        "cannot write pleo.toml: another program has changed it",
        "is deleted again",
    ];
    assert_failed(&output, 1, &parts);
    assert_eq!(harness.read_file("pleo.toml"), edited);
    assert!(!harness.has_file("webhooks-pleo.secret") && !harness.has_file(LOCK));
    assert!(harness.json(&["subscriptions", "list"]).is_empty());
    // The next run has a valid file again.
    harness.dir.write("pleo.toml", before);
    harness.run_ok(&setup);
}

#[test]
fn notices_other_setup_after_lock_file_is_deleted() {
    let harness = Harness::new();
    harness.run_ok(&["setup", "--url", &harness.url("/first")]);
    let held = HeldSetup::start(&harness, &["setup", "--url", &harness.url("/a")], &[]);
    fs::remove_file(harness.dir.path().join(LOCK)).unwrap();
    harness.run_ok(&["setup", "--url", &harness.url("/b")]);
    let output = held.finish();
    assert_failed(
        &output,
        1,
        &["another program has changed it", "is deleted again"],
    );
    let listed = harness.json(&["subscriptions", "list"]);
    let urls: Vec<_> = listed
        .iter()
        .map(|one| one["endpointUrl"].clone())
        .collect();
    assert_eq!(urls, [harness.url("/first"), harness.url("/b")]);
    assert!(harness.read_file("pleo.toml").contains("b.secret"));
}

#[test]
fn deletes_subscription_if_secret_cannot_be_written() {
    let harness = Harness::new();
    let config = "[[endpoint]]\npath = \"/a\"\nsecret = \"file:keys/a\"\n\
                  subscription = { url = \"https://x.example.com/a\", events = [\"v1.export-job.created\"] }\n";
    harness.dir.write("declared.toml", config);
    let url = harness.url("/b");
    for args in [
        &["setup", "--url", &url, "--secret-file", "keys/b"][..],
        &[
            "subscriptions",
            "sync",
            "--yes",
            "--config",
            "declared.toml",
        ],
    ] {
        let keys = harness.dir.path().join("keys");
        fs::create_dir(&keys).unwrap();
        let held = HeldSetup::start(&harness, args, &[]);
        fs::remove_dir(&keys).unwrap();
        let output = held.finish();
        assert_failed(&output, 2, &["cannot write keys/", "is deleted again"]);
        assert!(
            harness.json(&["subscriptions", "list"]).is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn prints_command_that_deletes_subscription_if_pleo_fails() {
    let harness = Harness::new();
    let keys = harness.dir.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let setup = [
        "setup",
        "--url",
        &harness.url("/a"),
        "--secret-file",
        "keys/a",
        "--token",
        "file:token",
    ];
    harness.dir.write("token", TOKEN);
    let mut faults = vec![Fault::None];
    faults.resize(20, Fault::status(500));
    let held = HeldSetup::start(&harness, &setup, &faults);
    fs::remove_dir(&keys).unwrap();
    let output = held.finish();
    assert_failed(&output, 2, &["cannot write keys/a", "is still at Pleo"]);
    // No more faults: the others were for repeated requests.
    while harness.run(&["subscriptions", "list"]).code != 0 {}
    let command = output
        .stderr
        .split('`')
        .find(|part| part.contains("subscriptions delete"));
    let words: Vec<_> = command.unwrap().split(' ').skip(1).collect();
    for word in ["--api-url", "--token", "file:token"] {
        assert!(words.contains(&word), "{words:?}");
    }
    harness.run_ok(&words);
    assert!(harness.json(&["subscriptions", "list"]).is_empty());
}

#[test]
fn completes_if_nobody_reads_its_output() {
    let harness = Harness::new();
    let setup = ["setup", "--url", &harness.url("/a")];
    let mut held = HeldSetup::start(&harness, &setup, &[]);
    drop(held.child.stdout.take());
    let output = held.finish();
    assert_eq!(output.code, 0, "{output:?}");
    assert!(harness.read_file("pleo.toml").contains("a.secret"));
    assert!(harness.run_ok(&setup).contains("nothing to change"));
}
