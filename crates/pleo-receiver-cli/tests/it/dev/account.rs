//! `dev --url`, with a sandbox as the account's Pleo.

use pleo_sandbox::{ExportRequest, Fault, Sandbox};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::session::{Session, temporary_files};
use crate::support::harness::parse_json;
use crate::support::program::{CommandOutput, WorkDir, free_address};

/// A sandbox, and the addresses of a session.
struct Account {
    dir: WorkDir,
    sandbox: Sandbox,
    _runtime: Runtime,
    address: String,
    url: String,
    token: String,
}

impl Account {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let sandbox = runtime.block_on(Sandbox::start()).unwrap();
        let address = free_address();
        Self {
            dir: WorkDir::new(),
            url: format!("http://{address}/pleo-4f1c"),
            token: sandbox.token(),
            sandbox,
            _runtime: runtime,
            address,
        }
    }

    fn args(&self) -> [&str; 6] {
        let (url, address) = (&*self.url, &*self.address);
        ["--url", url, "--listen", address, "--exec", "true"]
    }

    fn env(&self) -> [(&str, &str); 2] {
        [
            ("PLEO_API_URL", self.sandbox.url()),
            ("PLEO_API_TOKEN", &self.token),
        ]
    }

    fn start(&self) -> Session {
        Session::start(&self.dir, &self.args(), &self.env())
    }

    /// Runs a session that fails to start.
    fn run(&self) -> CommandOutput {
        let args = [&["dev", "--admin", "127.0.0.1:0"], &self.args()[..]].concat();
        self.dir.run_with(&args, &self.env(), b"")
    }

    fn subscribe(&self, url: &str) -> String {
        let args = ["subscriptions", "create", "--url", url, "--json"];
        let args = [&args[..], &["--event", "v1.vendor.created"]].concat();
        let created = self.dir.run_with(&args, &self.env(), b"");
        assert_eq!(created.code, 0, "{created:?}");
        id(&parse_json(&created.stdout)[0])
    }

    fn subscriptions(&self) -> Vec<Value> {
        let args = ["subscriptions", "list", "--json"];
        let listed = self.dir.run_with(&args, &self.env(), b"");
        assert_eq!(listed.code, 0, "{listed:?}");
        parse_json(&listed.stdout)
    }
}

fn id(subscription: &Value) -> String {
    subscription["id"].as_str().unwrap().to_owned()
}

#[test]
fn subscribes_for_session_and_changes_no_other_subscription() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let account = Account::new();
        let other = account.subscribe("http://127.0.0.1:1/other");
        let mut session = account.start();
        let subscriptions = account.subscriptions();
        let own = subscriptions.iter().find(|one| id(one) != other).unwrap();
        assert_eq!(own["endpointUrl"], account.url);
        let types = own["eventTypes"].as_array().unwrap();
        assert_eq!(types.len(), 2, "{own}");
        account.sandbox.export(&ExportRequest::new());
        session.wait_for("204 stored     v1.export-job.created");
        session.wait_for("done ");
        let (code, log) = session.stop(signal);
        assert_eq!((code, &*log), (Some(0), ""), "{signal}");
        let left = account.subscriptions();
        assert_eq!(left.iter().map(id).collect::<Vec<_>>(), [other], "{signal}");
        let shown = session.printed();
        assert!(shown.contains("deleted subscription"), "{shown}");
        for secret in ["whsec_", &account.token] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(temporary_files(&account.dir), [""; 0]);
    }
}

#[test]
fn sample_goes_through_public_url() {
    let account = Account::new();
    let mut session = Session::on_terminal(&account.dir, &account.args(), &account.env());
    session.press("v");
    session.wait_for("v1.vendor.created");
    session.press("q");
    assert_eq!(session.wait().0, Some(0));
    assert_eq!(account.subscriptions(), [Value::Null; 0]);
}

#[test]
fn refuses_url_that_has_subscription_and_keeps_it() {
    let account = Account::new();
    let existing = account.subscribe(&account.url);
    let before = account.subscriptions();
    let refused = account.run();
    assert_eq!(refused.code, 1, "{refused:?}");
    let fix = format!("`pleo-receiver subscriptions delete {existing}");
    assert!(refused.stderr.contains(&fix), "{refused:?}");
    assert!(refused.stderr.contains("it is not of `dev`"), "{refused:?}");
    assert_eq!(account.subscriptions(), before);
}

#[test]
fn names_subscription_that_killed_session_left() {
    let account = Account::new();
    let mut session = account.start();
    session.stop("-KILL");
    let left = id(&account.subscriptions()[0]);
    let refused = account.run();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("an earlier `dev`"), "{refused:?}");
    assert!(refused.stderr.contains(&left), "{refused:?}");
}

#[test]
fn says_what_is_left_if_pleo_does_not_delete() {
    let account = Account::new();
    let mut session = account.start();
    let left = id(&account.subscriptions()[0]);
    account.sandbox.fail_next([Fault::status(403)]);
    let (code, log) = session.stop("-TERM");
    assert_eq!(code, Some(1), "{log}");
    let text = format!("subscription {left} is still at Pleo (");
    assert!(log.contains(&text), "{log}");
    assert!(
        log.contains(&format!("subscriptions delete {left}")),
        "{log}"
    );
    assert!(!log.contains(&account.token), "{log}");
}

#[test]
fn second_signal_quits_at_once_and_says_what_is_left() {
    let account = Account::new();
    let mut session = account.start();
    let left = id(&account.subscriptions()[0]);
    account.sandbox.fail_next([Fault::Silence]);
    let is_delete = |request: &pleo_sandbox::ApiRequest| request.method == "DELETE";
    session.send_signal("-INT");
    while !account.sandbox.requests().iter().any(is_delete) {
        std::thread::yield_now();
    }
    let (code, log) = session.stop("-INT");
    assert_eq!(code, Some(1), "{log}");
    let text = format!("subscription {left} is still at Pleo (interrupted)");
    assert!(log.contains(&text), "{log}");
    assert_eq!(temporary_files(&account.dir), [""; 0]);
}

#[test]
fn lost_answer_leaves_no_subscription() {
    let account = Account::new();
    // The list of subscriptions, and the creation.
    account.sandbox.fail_next([Fault::None, Fault::AnswerLost]);
    let failed = account.run();
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("is deleted again"), "{failed:?}");
    assert_eq!(account.subscriptions(), [Value::Null; 0]);
}
