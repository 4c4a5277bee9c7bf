//! The state file.

use core::num::NonZeroU32;
use std::fs;

use pleo_http::reqwest::Method;
use pleo_sandbox::{Error, ExportRequest, MessageState, Sandbox, SandboxOptions};
use serde_json::json;

use crate::support::{Receiver, call, secret, subscribe};

#[tokio::test]
async fn goes_on_from_file_after_kill() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sandbox.json");
    let start = async |compression| {
        let options = SandboxOptions::new().with_state_file(&file).with_seed(7);
        Sandbox::start_with(options.with_compression(compression))
            .await
            .unwrap()
    };
    let sandbox = start(NonZeroU32::MIN).await;
    let receiver = Receiver::start().await;
    receiver.answer(["503 X"]);
    let subscription = subscribe(&sandbox, &receiver.url()).await;
    let before = (
        sandbox.token(),
        sandbox.company(),
        secret(&sandbox, subscription).await,
    );
    let export = sandbox.export(&ExportRequest::new());
    // The first retry would come after 5 s.
    sandbox.wait_for_attempts(1).await.unwrap();
    let list = call(&sandbox, Method::GET, "/v3/export-jobs", None)
        .await
        .json();
    // The answer to a request comes after its state is in the file, so a kill loses nothing.
    drop(sandbox);

    let sandbox = start(SandboxOptions::COMPRESSION).await;
    let after = (
        sandbox.token(),
        sandbox.company(),
        secret(&sandbox, subscription).await,
    );
    assert_eq!(after, before);
    let again = call(&sandbox, Method::GET, "/v3/export-jobs", None)
        .await
        .json();
    assert_eq!(again["data"], list["data"]);
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    assert_eq!(
        (message.state, message.attempts.len()),
        (MessageState::Delivered, 2)
    );
    let next = sandbox.export(&ExportRequest::new());
    assert_ne!(next.jobs[0].id, export.jobs[0].id, "ids go on");
    assert!(next.messages > export.messages);
    sandbox.stop().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn keeps_file_from_other_users() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sandbox.json");
    let options = SandboxOptions::new().with_state_file(&file);
    let sandbox = Sandbox::start_with(options).await.unwrap();
    subscribe(&sandbox, "https://x.example.com/").await;
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file"
    );
}

#[tokio::test]
async fn refuses_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sandbox.json");
    for text in ["", "{}", r#"{"version":2,"state":{}}"#, "[[endpoint]]\n"] {
        fs::write(&file, text).unwrap();
        let options = SandboxOptions::new().with_state_file(&file);
        let refused = Sandbox::start_with(options).await;
        assert!(
            matches!(refused, Err(Error::StateFormat { .. })),
            "{refused:?}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "the file stays");
    }
    let missing = folder.path().join("missing/sandbox.json");
    // A pipe, too, would be no regular file.
    for path in [missing, "/dev/null".into()] {
        let options = SandboxOptions::new().with_state_file(path);
        let refused = Sandbox::start_with(options).await;
        assert!(
            matches!(refused, Err(Error::StateFile { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn fails_requests_that_cannot_be_saved() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("folder/sandbox.json");
    fs::create_dir(folder.path().join("folder")).unwrap();
    let options = SandboxOptions::new().with_state_file(&file);
    let sandbox = Sandbox::start_with(options).await.unwrap();
    fs::remove_dir_all(folder.path().join("folder")).unwrap();
    let body = json!({ "endpointUrl": "https://x.example.com/",
        "eventTypes": ["v1.export-job.created"] });
    let answer = call(&sandbox, Method::POST, "/v1/subscriptions", Some(body)).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.text.contains("sandbox.json"), "{answer:?}");
    assert!(sandbox.stop().await.is_err());
}
