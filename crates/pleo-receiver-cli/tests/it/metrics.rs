//! Tests of the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::harness::{EXPORT, Harness};
use crate::support::program::{
    ENV, OTHER_SECRET, RunningServer, SECRET, WorkDir, free_address, read_metrics,
};
use crate::support::tls::certify;

#[test]
fn serves_metrics_to_many_open_connections() {
    let dir = WorkDir::new();
    let free = free_address();
    let server = dir.serve(&["--metrics", &free], ENV);
    // More connections than the server handles concurrently.
    let open: Vec<_> = (0..40).map(|_| request_metrics(&free)).collect();
    assert_eq!(open.len(), 40);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Requests the metrics, reads the status line, and keeps the connection.
fn request_metrics(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut status = [0; 15];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(status, *b"HTTP/1.1 200 OK");
    stream
}

#[test]
fn serves_metrics_on_separate_address() {
    let dir = WorkDir::new();
    let free = free_address();
    let server = dir.serve(&["--metrics", &free], ENV);
    // So that an alert sees the first dead message.
    let none = "pleo_receiver_inbox_messages{endpoint=\"/webhooks/pleo\",state=\"dead\"} 0";
    let page = read_metrics(&free);
    assert!(page.contains(none), "{page}");
    dir.send_with(SECRET, &server.url, &[]);
    dir.send_with(OTHER_SECRET, &server.url, &[]);
    let page = read_metrics(&free);
    for line in [
        "pleo_receiver_accepted_total{endpoint=\"/webhooks/pleo\",outcome=\"stored\"} 1",
        "pleo_receiver_rejected_total{endpoint=\"/webhooks/pleo\",reason=\"signature_mismatch\"} 1",
        "# EOF",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }
    assert!(
        dir.send_with(SECRET, &format!("http://{free}/webhooks/pleo"), &[])
            .starts_with("404")
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// A metric: its type, its unit, and its labels.
#[derive(Debug, PartialEq, Eq)]
struct Metric {
    kind: String,
    /// Only seconds and bytes, which are a part of the name.
    unit: Option<String>,
    labels: BTreeSet<String>,
}

/// Returns the metrics in the tables of the documentation.
fn documented() -> BTreeMap<String, Metric> {
    let page = include_str!("../../../../docs/metrics.md");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `pleo_receiver_"));
    let metric = |row: &str| {
        let row = row.trim_start_matches("| ").trim_end_matches(" |");
        // The cell of a metric without labels is empty.
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [name, kind, unit, labels, _] = cells[..] else {
            panic!("five cells: {row}");
        };
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let metric = Metric {
            kind: kind.to_owned(),
            unit: Some(unit.to_owned()).filter(|unit| ["seconds", "bytes"].contains(&&**unit)),
            labels: labels
                .map(|label| label.trim_matches('`').to_owned())
                .collect(),
        };
        (name.trim_matches('`').to_owned(), metric)
    };
    rows.map(metric).collect()
}

/// Returns the metrics of a page, and asserts that each has a help text.
fn served(page: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    for line in page.lines() {
        let Some(line) = line.strip_prefix("# TYPE ") else {
            continue;
        };
        let (family, kind) = line.split_once(' ').unwrap();
        assert!(page.contains(&format!("# HELP {family} ")), "{family}");
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let unit = page.split(&format!("# UNIT {family} ")).nth(1);
        let unit = unit.map(|unit| unit.lines().next().unwrap().to_owned());
        let is_sample = |line: &&str| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
        };
        let mut labels = BTreeSet::new();
        for sample in page.lines().filter(is_sample) {
            if let Some((_, rest)) = sample.split_once('{') {
                let pairs = rest.split("\",").filter_map(|pair| pair.split_once("=\""));
                labels.extend(pairs.map(|(label, _)| label.to_owned()));
            }
        }
        labels.remove("le");
        let kind = kind.to_owned();
        metrics.insert(format!("{family}{suffix}"), Metric { kind, unit, labels });
    }
    metrics
}

#[test]
fn serves_metrics_as_documented() {
    let harness = Harness::new();
    let dir = &harness.dir;
    harness.set_up(EXPORT);
    let config = harness.read_file("pleo.toml");
    let secret = harness.read_file("webhooks-pleo.secret");
    let secret = secret.trim();
    // A message that the next server prunes.
    let server = harness.serve(&["--exec", "true"]);
    dir.send_with(secret, &server.url, &[]);
    harness.wait_for_inbox("done", 1);
    assert_eq!(server.stop("-TERM").0, Some(0));

    harness.sandbox.add_export_job(harness.company);
    let more = "exec = [\"sh\", \"-c\", \"exit 65\"]\n";
    let tables = "[retention]\ndone = \"0s\"\n[catch_up]\nevery = \"1h\"\nmin_age = \"0s\"\n\
                  [limits]\nconnections_per_source = 2\n";
    dir.write("pleo.toml", &format!("{more}{config}{tables}"));
    certify(dir.path());
    let args = [
        "--admin=127.0.0.1:0",
        "--tls-listen=127.0.0.1:0",
        "--tls-certificate=cert.pem",
        "--tls-key=key.pem",
    ];
    let mut server = harness.serve_with_api(&args);
    // In any order.
    let mut missing = vec!["old messages deleted", "catch-up finished"];
    while !missing.is_empty() {
        let line = server.wait_for_log("");
        missing.retain(|text| !line.contains(text));
    }
    server.signal_and_wait("-HUP", "configuration reloaded");
    dir.send_with(secret, &server.url, &[]);
    dir.send_with(OTHER_SECRET, &server.url, &[]);
    // An export job that has expired, and one that has not.
    for (name, created) in [
        ("expired", "2020-01-01T00:00:00Z"),
        ("live", "2999-01-01T00:00:00Z"),
    ] {
        let body = format!(
            r#"{{"eventType":"{EXPORT}","eventId":"{name}","data":{{"id":"{name}","createdAt":"{created}","expiresIn":3600}}}}"#
        );
        dir.write(name, &body);
        dir.send_with(secret, &server.url, &["--body", name]);
    }
    harness.wait_for_inbox("dead", 4);
    // Pending, so that there is a next expiry.
    dir.run(&["inbox", "pause", "/webhooks/pleo"]);
    dir.send_with(secret, &server.url, &["--body", "live"]);
    let idle: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    // The last one is refused.
    assert_eq!((&idle[2]).read(&mut [0]).unwrap_or(0), 0);
    let (served, documented) = (served(&read_metrics(server.admin_address())), documented());
    for (name, metric) in &served {
        assert_eq!(
            documented.get(name),
            Some(metric),
            "docs/metrics.md: {name}"
        );
    }
    let missing: Vec<_> = documented
        .keys()
        .filter(|name| !served.contains_key(*name))
        .collect();
    assert!(
        missing.is_empty(),
        "documented, but not served: {missing:?}"
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Returns the value of a sample. `name` includes its labels.
fn value(server: &RunningServer, name: &str) -> f64 {
    let page = read_metrics(server.admin_address());
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("{name} is not in:\n{page}"));
    value.trim().parse().unwrap()
}

#[test]
fn shows_old_secret_in_use_and_last_delivery() {
    let dir = WorkDir::new();
    let config = format!("secrets = [\"{SECRET}\", \"{OTHER_SECRET}\"]\nadmin = \"127.0.0.1:0\"\n");
    dir.write("pleo.toml", &config);
    let server = dir.serve(&[], &[]);
    for (secret, count) in [(SECRET, 2), (OTHER_SECRET, 1)] {
        for _ in 0..count {
            dir.send_with(secret, &server.url, &[]);
        }
    }
    let endpoint = "endpoint=\"/webhooks/pleo\"";
    for (position, count) in [(1, 2.0), (2, 1.0)] {
        let name =
            format!("pleo_receiver_matched_secret_total{{{endpoint},position=\"{position}\"}}");
        assert!((value(&server, &name) - count).abs() < 0.1, "{name}");
    }
    let sent = Instant::now();
    assert_eq!(server.stop("-TERM").0, Some(0));
    // The next process knows it from the inbox.
    let server = dir.serve(&[], &[]);
    let at_least = sent.elapsed().as_secs_f64() - 0.002;
    let age = value(
        &server,
        &format!("pleo_receiver_last_delivery_age_seconds{{{endpoint}}}"),
    );
    assert!(
        (at_least..60.0).contains(&age),
        "{age}, at least {at_least}"
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn clients_add_no_labels() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--admin", "127.0.0.1:0"], ENV);
    let send = |line: &str, headers: &str| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        write!(
            stream,
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    };
    let series = || {
        let page = read_metrics(server.admin_address());
        let samples = page
            .lines()
            .filter(|line| line.starts_with("pleo_receiver_"));
        let names = samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
        names.collect::<BTreeSet<_>>()
    };
    let send_all = |number: u8| {
        send(&format!("GET /{number}"), "");
        send(&format!("METHOD{number} /webhooks/pleo"), "");
        let headers = format!("content-type: x/{number}\r\nx-{number}: {number}\r\n");
        send("POST /webhooks/pleo", &headers);
        let headers = format!(
            "content-type: application/json\r\ncontent-length: 2\r\nwebhook-id: msg_{number}\r\n"
        );
        send("POST /webhooks/pleo", &headers);
    };
    send_all(0);
    let before = series();
    (1..10).for_each(send_all);
    assert_eq!(series(), before);
    assert_eq!(server.stop("-TERM").0, Some(0));
}
