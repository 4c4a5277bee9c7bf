//! Tests of the inspection page in a real browser: Chromium, driven by `chromedriver`.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails loudly"
)]

mod browser;
#[path = "../it/support"]
mod support {
    #[allow(dead_code, reason = "the other tests use the rest")]
    pub(crate) mod program;
    #[allow(dead_code, reason = "the other tests use the rest")]
    mod turn;
}

use std::io::{self, Write as _};
use std::path::PathBuf;

use self::browser::{Browser, DESKTOP, SCREENS};
use crate::support::program::{OTHER_SECRET, RunningServer, SECRET, WorkDir};
use serde_json::Value;

pub(crate) const TOKEN: &str = "swordfish";

/// Fails for everything that is no vendor, and prints markup.
const HANDLER: &str = "exec = [\"sh\", \"-c\", \"echo '<b id=pwned>ledger</b>' >&2; exit 65\"]\n";

/// A name that changes the title of a page that takes it for markup.
const VENDOR: &str = r#"{"eventType":"v1.vendor.created","data":{
    "id":"3f0b1f6e-7c1e-4f58-9f0c-5f1f6a2f9b10","companyId":"3f0b1f6e-7c1e-4f58-9f0c-5f1f6a2f9b11",
    "name":"<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>",
    "state":"ACTIVE","defaultCurrency":"EUR"}}"#;

fn serve(dir: &WorkDir, settings: &str) -> RunningServer {
    let admin = "admin = \"127.0.0.1:0\"\nadmin_token = \"env:TOKEN\"\n";
    let file = format!("secret = \"{SECRET}\"\n{admin}{settings}");
    dir.write("pleo.toml", &file);
    dir.serve(&[], &[("TOKEN", TOKEN)])
}

fn send(dir: &WorkDir, server: &RunningServer, id: &str) {
    dir.deliver(&server.url, &["--id", id]);
}

fn send_vendor(dir: &WorkDir, server: &RunningServer) {
    dir.write("vendor", VENDOR);
    let args = ["--id", "msg_vendor", "--body", "vendor"];
    assert!(dir.send_with(SECRET, &server.url, &args).starts_with("204"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_filters_opens_replays_and_pauses() {
    let dir = WorkDir::new();
    let server = serve(&dir, HANDLER);
    let Some(browser) = Browser::start(&server, DESKTOP).await else {
        return;
    };
    // Watches a delivery arrive.
    browser.click("nav a[href='/messages']").await;
    browser.wait_for("#live-status", "Following").await;
    let is_empty = "return !document.getElementById('empty').hidden";
    assert_eq!(browser.run(is_empty).await, true);
    send(&dir, &server, "msg_live");
    browser.wait_for("#rows tr:first-child", "msg_live").await;
    assert_eq!(browser.run(is_empty).await, false);
    browser
        .wait_for("#rows tr:first-child .state", "dead")
        .await;
    // Filters.
    let vendor = ["--id", "msg_vendor", "--event", "v1.vendor.created"];
    dir.deliver(&server.url, &vendor);
    browser.wait_for("#rows tr:first-child", "msg_vendor").await;
    browser.click(".filter summary").await;
    browser.fill("#type", "v1.export-job.created").await;
    browser.click(".filter button.main").await;
    browser.wait_for(".filter .button", "Clear").await;
    let rows = "return document.querySelectorAll('#rows tr').length";
    assert_eq!(browser.run(rows).await, 1);
    // Opens and replays.
    browser.click("#rows a").await;
    browser.wait_for("h1", "v1.export-job.created").await;
    browser.wait_for(".timeline", "ledger").await;
    browser.click("main form button.main").await;
    browser.wait_for(".notice", "Replayed").await;
    // The page follows the attempt.
    browser
        .wait_for(".timeline li:nth-child(2)", "ledger")
        .await;
    browser.wait_for("main .state", "dead").await;
    // Pauses and resumes.
    browser.open("/").await;
    browser.click("form[action='/pause'] button").await;
    browser.wait_for(".wide .state", "paused").await;
    browser.click("form[action='/resume'] button").await;
    browser.wait_for(".wide .state", "active").await;
    // Signs out.
    browser.click(".account button").await;
    browser.wait_for("h1", "Sign in").await;
    browser.stop().await;
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_name_is_text_and_pages_fit_phone() {
    let dir = WorkDir::new();
    let server = serve(&dir, HANDLER);
    send_vendor(&dir, &server);
    let Some(browser) = Browser::start(&server, SCREENS[3]).await else {
        return;
    };
    let dark = "return matchMedia('(prefers-color-scheme: dark)').matches";
    assert_eq!(browser.run(dark).await, true);
    for (path, element) in [
        ("/", "#endpoints"),
        ("/messages", "#rows a"),
        ("/message?endpoint=/webhooks/pleo&id=msg_vendor", "#summary"),
        ("/replays/new", "main form"),
        ("/replays", "main p"),
    ] {
        browser.open(path).await;
        browser.wait_for(element, "").await;
        let width = "return document.documentElement.scrollWidth";
        assert_eq!(browser.run(width).await, 390, "{path}");
        let right = "return Math.max(0, ...[...document.querySelectorAll('main button')].map(
            (button) => button.getBoundingClientRect().right))";
        let right = browser.run(right).await.as_f64().unwrap();
        assert!(right <= 390.0, "{path}: a button ends at {right}");
        let injected = "return document.querySelectorAll('main img, main script, #pwned').length";
        assert_eq!(browser.run(injected).await, 0, "{path}");
        let title = browser.run("return document.title").await;
        assert!(
            title.as_str().unwrap().ends_with("pleo-receiver"),
            "{title}"
        );
    }
    browser.stop().await;
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axe_finds_nothing_serious() {
    let Some(path) = std::env::var_os("PLEO_TEST_AXE") else {
        assert!(
            std::env::var_os("PLEO_TEST_FORBID_SKIP").is_none(),
            "PLEO_TEST_AXE is not set: the path of axe-core's `axe.min.js`"
        );
        let _ = writeln!(io::stderr(), "SKIPPED browser: PLEO_TEST_AXE is not set");
        return;
    };
    let axe = std::fs::read_to_string(path).unwrap();
    let dir = WorkDir::new();
    let server = serve(&dir, HANDLER);
    send_vendor(&dir, &server);
    for screen in SCREENS {
        let Some(browser) = Browser::start(&server, screen).await else {
            return;
        };
        for path in [
            "/",
            "/messages",
            "/messages?type=a&q=msg_vendor&since=no",
            "/message?endpoint=/webhooks/pleo&id=msg_vendor",
            "/replays/new",
            "/replays",
            "/message",
            "/sign-in",
        ] {
            browser.open(path).await;
            browser.run(&axe).await;
            let check =
                "const done = arguments[0]; axe.run().then((found) => done(found.violations))";
            let found = browser.run_async(check).await;
            let found = found.as_array().unwrap();
            let is_serious =
                |one: &&Value| one["impact"] == "serious" || one["impact"] == "critical";
            let serious: Vec<_> = found.iter().filter(is_serious).collect();
            assert!(serious.is_empty(), "{path}, {}: {serious:#?}", screen.name);
        }
        browser.stop().await;
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Makes the pictures of the documentation:
/// `cargo test -p pleo-receiver-cli --test browser screenshots -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the pictures of the documentation"]
async fn screenshots() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/images"));
    std::fs::create_dir_all(&folder).unwrap();
    let dir = WorkDir::new();
    let handler = "exec = [\"sh\", \"-c\", \"case $PLEO_EVENT_TYPE in *vendor*) echo ledger: \
                   unknown country >&2; exit 65;; esac\"]\n";
    let server = serve(&dir, handler);
    for number in 1..=24 {
        let event = if number % 4 == 0 {
            "v1.vendor.created"
        } else {
            "v1.export-job.created"
        };
        let id = format!("msg_{number:04}");
        let args = ["--id", &*id, "--event", event];
        dir.deliver(&server.url, &args);
    }
    assert!(
        dir.send_with(OTHER_SECRET, &server.url, &[])
            .starts_with("401")
    );
    let [light, dark, _, phone] = SCREENS;
    for (name, path, screen) in [
        ("overview", "/", light),
        ("overview", "/", dark),
        ("messages", "/messages", light),
        ("messages", "/messages", phone),
        (
            "message",
            "/message?endpoint=/webhooks/pleo&id=msg_0024",
            light,
        ),
    ] {
        let browser = Browser::start(&server, screen).await.unwrap();
        // The counters are read every few seconds.
        browser.wait_for(".legend", "stored 24").await;
        browser.open(path).await;
        if name == "messages" {
            browser.wait_for("#live-status", "Following").await;
        }
        let picture = browser.screenshot().await;
        let file = folder.join(format!("{name}-{}.png", screen.name));
        std::fs::write(file, picture).unwrap();
        browser.stop().await;
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}
