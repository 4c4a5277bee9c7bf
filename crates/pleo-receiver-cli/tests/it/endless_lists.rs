//! Commands against an API whose lists never end, or that stops answering.

use std::io::{BufRead, BufReader};

use pleo_sandbox::Fault;

use crate::support::harness::{EXPORT, Harness, assert_failed};

const URL: &str = "https://receiver.example.com/webhooks/pleo";
const LIST: &[&str] = &["subscriptions", "list", "--json"];
const CATCH_UP: &[&str] = &["catch-up", "--min-age", "0s"];
const LIMIT_ERROR: &str = "the list has more than 10000 pages and is incomplete";

/// Creates a subscription. Its custom header makes it long.
fn create(harness: &Harness) {
    let header = format!("x-long: {}", "x".repeat(4096));
    let create = ["subscriptions", "create", "--url", URL, "--event", EXPORT];
    harness.run_ok(&[&create[..], &["--header", &header]].concat());
}

/// Writes a configuration with a subscription for export jobs, and creates its inbox.
fn set_up(harness: &Harness) {
    let url = harness.url("/webhooks/pleo");
    harness.run_ok(&["setup", "--url", &url]);
    drop(harness.serve(&[]));
}

#[test]
fn prints_page_before_next_is_fetched() {
    let harness = Harness::new();
    create(&harness);
    harness.sandbox.answer_endless_lists();
    harness.sandbox.fail_next([Fault::None, Fault::Silence]);
    let mut child = harness.spawn(LIST);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains(URL), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn lists_use_constant_memory() {
    use crate::support::program::memory_kib;

    let harness = Harness::new();
    set_up(&harness);
    for _ in 0..20 {
        create(&harness);
        harness.sandbox.add_export_job(harness.company);
    }
    harness.sandbox.answer_endless_lists();
    // If all pages were kept, they would take about 25 MiB: 4 KiB or 600 bytes for each entry.
    for (args, pages) in [
        (LIST, 300),
        (&["subscriptions", "sync"], 300),
        (CATCH_UP, 2000),
    ] {
        let mut child = harness.spawn(args);
        let mut stdout = child.stdout.take().unwrap();
        // The output must not block the program.
        let reader = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let before = harness.sandbox.requests().len();
        harness.wait_for_requests(before + 100);
        let early = memory_kib(&child, "VmHWM");
        harness.wait_for_requests(before + 100 + pages);
        let late = memory_kib(&child, "VmHWM");
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap().unwrap();
        assert!(
            late < early + 8 * 1024,
            "{args:?}: {early} KiB, then {late} KiB"
        );
    }
}

#[test]
fn reports_list_with_too_many_pages() {
    let harness = Harness::new();
    harness.run_ok(&["subscriptions", "create", "--url", URL, "--event", EXPORT]);
    harness.sandbox.answer_endless_lists();
    let output = harness.run(LIST);
    assert_failed(&output, 1, &[LIMIT_ERROR]);
    assert_eq!(
        output.stdout.lines().count(),
        10_000,
        "all that was fetched"
    );
}

#[test]
fn catch_up_stores_jobs_of_list_with_too_many_pages() {
    let harness = Harness::new();
    set_up(&harness);
    let job = harness.sandbox.add_export_job(harness.company);
    harness.sandbox.answer_endless_lists();
    let output = harness.run(CATCH_UP);
    assert_failed(&output, 1, &["error: /webhooks/pleo: ", LIMIT_ERROR]);
    let id = job["id"].as_str().unwrap();
    assert_eq!(output.stdout, format!("caught up {id} /webhooks/pleo\n"));
    assert_eq!(harness.wait_for_inbox("pending", 1).len(), 1);
}
