//! Tests of `Exec`, with real processes.

#![cfg(all(unix, feature = "exec"))]

use core::time::Duration;
use std::fs;
use std::path::Path;

use jiff::{Timestamp, ToSpan};
use pleo_receiver::{Delivery, Exec, Handler, HandlerError};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time;

const JOB: &str = r#"{"eventType":"v1.export-job.created","eventId":"e1","data":{
    "id":"8c0d3a58-9a8e-4a2a-93a7-7a4a0f1d3b11","companyId":"8c0d3a58-9a8e-4a2a-93a7-7a4a0f1d3b12",
    "createdAt":"2026-11-24T10:00:00Z","numberOfItems":3,"expiresIn":3600,"status":"pending"}}"#;

/// The time limit of each test.
const TIME_LIMIT: Duration = Duration::from_secs(20);

fn delivery(body: impl Into<bytes::Bytes>) -> Delivery {
    let delivery = Delivery::builder(body).endpoint("books").id("msg_1");
    delivery.attempt(2).build()
}

/// Returns the body of an export job that was created at this time and expires an hour later.
fn job_created_at(time: Timestamp) -> String {
    JOB.replace("2026-11-24T10:00:00Z", &time.to_string())
}

fn shell(script: &str) -> Exec {
    Exec::new("sh").args(["-c", script])
}

async fn handle(exec: &Exec, delivery: Delivery) -> Result<(), HandlerError> {
    let handled = time::timeout(TIME_LIMIT, exec.handle(delivery)).await;
    handled.unwrap()
}

async fn run(exec: &Exec, delivery: Delivery) -> Result<(), String> {
    handle(exec, delivery)
        .await
        .map_err(|error| match error.error().source() {
            None => error.to_string(),
            Some(source) => format!("{error}: {source}"),
        })
}

/// Runs a script and returns what it writes to the file `$OUT`.
async fn output(script: &str, delivery: Delivery) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let script = format!("OUT='{}'; {script}", out.display());
    run(&shell(&script), delivery).await.unwrap();
    fs::read(out).unwrap()
}

#[tokio::test]
async fn writes_raw_body_to_stdin() {
    let bodies = [b"".to_vec(), b"\x00\xff\r\n".to_vec(), vec![b'x'; 1 << 20]];
    for body in bodies {
        assert!(output("cat > $OUT", delivery(body.clone())).await == body);
    }
}

#[tokio::test]
async fn sets_metadata_in_environment() {
    let created_at = Timestamp::now().round(jiff::Unit::Second).unwrap();
    let sent = delivery(job_created_at(created_at));
    let environment = output("env | grep ^PLEO_ | sort > $OUT", sent).await;
    let environment = String::from_utf8(environment).unwrap();
    let lines: Vec<_> = environment.lines().collect();
    let [
        attempt,
        endpoint,
        event_id,
        event_type,
        expires_at,
        received_at,
        webhook_id,
    ] = lines[..]
    else {
        panic!("{environment}");
    };
    assert_eq!(attempt, "PLEO_ATTEMPT=2");
    assert_eq!(endpoint, "PLEO_ENDPOINT=books");
    assert_eq!(event_id, "PLEO_EVENT_ID=e1");
    assert_eq!(event_type, "PLEO_EVENT_TYPE=v1.export-job.created");
    let expiry = created_at + 1.hour();
    assert_eq!(expires_at, format!("PLEO_EXPIRES_AT={expiry}"));
    assert!(received_at.starts_with("PLEO_RECEIVED_AT=20"));
    assert_eq!(webhook_id, "PLEO_WEBHOOK_ID=msg_1");
}

#[tokio::test]
async fn marks_expired_job() {
    for (age, shown) in [(59.minutes(), "unset\n"), (61.minutes(), "1\n")] {
        let sent = delivery(job_created_at(Timestamp::now() - age));
        let output = output("echo ${PLEO_EXPIRED-unset} > $OUT", sent).await;
        assert_eq!(output, shown.as_bytes());
    }
}

#[tokio::test]
async fn arguments_contain_nothing_of_message() {
    let script = r#"tr '\0' '\n' < /proc/$$/cmdline > "$0""#;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let exec = Exec::new("sh").args(["-c".into(), script.into(), out.clone().into_os_string()]);
    run(&exec, delivery(JOB)).await.unwrap();
    let arguments = format!("sh\n-c\n{script}\n{}\n", out.display());
    assert_eq!(fs::read_to_string(out).unwrap(), arguments);
}

#[tokio::test]
async fn inherits_only_listed_and_named_variables() {
    const ENVIRONMENT: [(&str, &str); 7] = [
        ("HOME", "/home/books"),
        ("LC_ALL", "da_DK.UTF-8"),
        ("SSL_CERT_FILE", "roots.pem"),
        ("TZ", "Europe/Copenhagen"),
        ("BOOKS_TOKEN", "token"),
        ("PLEO_WEBHOOK_SECRET", "secret"),
        ("OTHER_SECRET", "secret"),
    ];
    // The variables of a process that runs tests in threads cannot be set, so another one is started.
    const IS_CHILD: &str = "PLEO_TEST_EXEC_ENVIRONMENT";
    if let Ok(out) = std::env::var(IS_CHILD) {
        let exec = shell(&format!("env > '{out}'")).inherit_env(["BOOKS_TOKEN", "UNSET"]);
        return run(&exec, delivery("{}")).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let tested = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "exec::inherits_only_listed_and_named_variables"])
        .env(IS_CHILD, &out)
        .envs(ENVIRONMENT)
        .output()
        .unwrap();
    assert!(tested.status.success(), "{tested:?}");
    let environment = fs::read_to_string(out).unwrap();
    let lines: Vec<_> = environment.lines().collect();
    for (name, value) in &ENVIRONMENT[..5] {
        assert!(lines.contains(&&*format!("{name}={value}")), "{name}");
    }
    assert!(environment.contains("PATH="), "{environment}");
    for absent in ["secret", "SECRET", "CARGO", IS_CHILD, "UNSET"] {
        assert!(!environment.contains(absent), "{absent}: {environment}");
    }
}

#[tokio::test]
async fn exit_code_decides_retry() {
    const BACKOFF: (bool, Option<Duration>) = (false, None);
    const DELAY: (bool, Option<Duration>) = (false, Some(Duration::from_secs(90)));
    const PERMANENT: (bool, Option<Duration>) = (true, None);
    for (script, expected) in [
        ("exit 1", BACKOFF),
        ("exit 64", BACKOFF),
        ("exit 65", PERMANENT),
        ("echo 90; exit 65", PERMANENT),
        ("exit 75", BACKOFF),
        ("echo working; echo ' 90 '; exit 75", DELAY),
        ("echo 90; echo working; exit 75", BACKOFF),
        ("echo -1; exit 75", BACKOFF),
        ("echo 1.5; exit 75", BACKOFF),
        ("echo 99999999999999999999; exit 75", BACKOFF),
        ("echo 90 >&2; exit 75", BACKOFF),
        ("echo 90; exit 1", BACKOFF),
        ("echo 90; kill -9 $$", BACKOFF),
        ("exec /no/such/program", BACKOFF),
    ] {
        let error = handle(&shell(script), delivery(JOB)).await.unwrap_err();
        assert_eq!((error.is_permanent(), error.delay()), expected, "{script}");
    }
    let missing = handle(&Exec::new("/no/such/program"), delivery(JOB)).await;
    let error = missing.unwrap_err();
    assert_eq!((error.is_permanent(), error.delay()), BACKOFF);
}

#[tokio::test]
async fn leaves_out_values_invalid_in_environment() {
    let long = "x".repeat(200_000);
    for event_type in [r"v1\u0000x", &*long] {
        let body = format!(r#"{{"eventType":"{event_type}","eventId":"e1","data":{{}}}}"#);
        let sent = delivery(body);
        assert!(sent.event_type().is_some());
        let shown = output("echo ${PLEO_EVENT_TYPE-unset} $PLEO_EVENT_ID > $OUT", sent).await;
        assert_eq!(shown, b"unset e1\n");
    }
}

#[tokio::test]
async fn failure_has_exit_status_and_stderr() {
    let exec = shell("echo first >&2; echo out; printf 'no such account' >&2; exit 3");
    assert_eq!(
        run(&exec, delivery(JOB)).await.unwrap_err(),
        "command failed: exit status: 3: first\nno such account"
    );
    let error = run(&shell("kill -9 $$"), delivery(JOB)).await.unwrap_err();
    assert_eq!(error, "command failed: signal: 9 (SIGKILL)");
    let error = run(&Exec::new("/no/such/program"), delivery(JOB)).await;
    let error = error.unwrap_err();
    assert!(
        error.starts_with("cannot run \"/no/such/program\": No such file"),
        "{error}"
    );
}

#[tokio::test]
async fn observer_gets_output_of_each_command() {
    for code in [0, 3] {
        let (sender, outputs) = std::sync::mpsc::channel();
        let exec = shell(&format!("echo booked; echo careful >&2; exit {code}"));
        let exec = exec.on_exit(move |delivery, output| {
            let output = [delivery.id(), output.stdout, output.stderr];
            sender.send(output.map(str::to_owned)).unwrap();
        });
        assert_eq!(run(&exec, delivery(JOB)).await.is_ok(), code == 0);
        assert_eq!(outputs.try_recv().unwrap(), ["msg_1", "booked", "careful"]);
    }
}

#[tokio::test]
async fn keeps_end_of_long_output_without_blocking() {
    let script =
        "yes | head -c 5000000; yes | head -c 5000000 >&2; cat >/dev/null; echo end >&2; exit 1";
    let error = run(&shell(script), delivery(vec![b'x'; 1 << 20]))
        .await
        .unwrap_err();
    assert!(
        error.ends_with("end") && error.len() < 1200,
        "{}",
        error.len()
    );
}

#[tokio::test]
async fn succeeds_without_reading_stdin() {
    assert_eq!(
        run(&shell("exec true"), delivery(vec![b'x'; 1 << 20])).await,
        Ok(())
    );
}

#[tokio::test]
async fn does_not_wait_for_background_process() {
    // The background process keeps all three pipes open and does not read.
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > '{}'", pid.display());
    let ended = run(&shell(&script), delivery(vec![b'x'; 1 << 20])).await;
    kill(&pid);
    assert_eq!(ended, Ok(()));
}

#[tokio::test]
async fn drop_kills_command_and_its_processes() {
    // Each process has a connection open, which closes when the process is killed.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hold = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; sleep 1000");
    let exec = Exec::new("bash").args(["-c".to_owned(), format!("({hold}) & {hold}")]);
    let running = exec.handle(delivery(JOB));
    let accept = async {
        (
            listener.accept().await.unwrap().0,
            listener.accept().await.unwrap().0,
        )
    };
    let (mut command, mut child) = tokio::select! {
        ended = running => panic!("{ended:?}"),
        connections = accept => connections,
    };
    for connection in [&mut command, &mut child] {
        let read = time::timeout(TIME_LIMIT, connection.read(&mut [0])).await;
        assert_eq!(read.expect("the process is still running").unwrap_or(0), 0);
    }
}

fn kill(pid: &Path) {
    let pid = fs::read_to_string(pid).unwrap();
    let killed = std::process::Command::new("kill").arg(pid.trim()).status();
    assert!(killed.unwrap().success());
}
