//! A renewed certificate, and one that expires.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::support::program::{ENV, RunningServer, WorkDir, free_address, read_metrics};

const GAUGE: &str = "pleo_receiver_certificate_expiry_timestamp_seconds{certificate=\"cert.pem\"} ";

fn serve(dir: &WorkDir, metrics: &str) -> RunningServer {
    let config =
        "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    dir.write("pleo.toml", &format!("{config}metrics = \"{metrics}\"\n"));
    dir.serve(&["--config", "pleo.toml"], ENV)
}

/// Writes a certificate that expires in this number of days. Returns the time of its expiry.
fn certify(dir: &WorkDir, days: i64) -> Timestamp {
    let day = Timestamp::now() + SignedDuration::from_hours(days * 24);
    let day = TimeZone::UTC.to_datetime(day).date();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let [month, date] = [day.month(), day.day()].map(|number| number.try_into().unwrap());
    params.not_after = rcgen::date_time_ymd(day.year().into(), month, date);
    let key = rcgen::KeyPair::generate().unwrap();
    dir.write("key.pem", &key.serialize_pem());
    dir.write("cert.pem", &params.self_signed(&key).unwrap().pem());
    TimeZone::UTC.to_timestamp(day.into()).unwrap()
}

/// Waits until the metrics have this time of expiry.
fn wait_for_expiry(metrics: &str, expires_at: Timestamp) {
    let expected = format!("{GAUGE}{}\n", expires_at.as_second());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let page = read_metrics(metrics);
        if page.contains(&expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{expected} is not in {page}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn loads_renewed_certificate_once_its_key_can_be_used() {
    let dir = WorkDir::new();
    let metrics = free_address();
    let first = certify(&dir, 100);
    let mut server = serve(&dir, &metrics);
    wait_for_expiry(&metrics, first);

    // The key cannot be used yet. The superuser can read every file, so it is another one.
    let second = certify(&dir, 200);
    let path = dir.path().join("key.pem");
    let key = std::fs::read_to_string(&path).unwrap();
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(key.len(), other.len());
    write_at(&path, &other, SystemTime::UNIX_EPOCH);
    let line = server.wait_for_log("TLS certificate not reloaded");
    assert!(line.contains(" WARN "), "{line}");
    wait_for_expiry(&metrics, first);

    // Neither modification time nor length changes, as with `chmod`.
    write_at(&path, &key, SystemTime::UNIX_EPOCH);
    server.wait_for_log("TLS certificate reloaded");
    wait_for_expiry(&metrics, second);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

fn write_at(path: &std::path::Path, text: &str, time: SystemTime) {
    // Replaced at once, so that no incomplete file is read.
    let new = path.with_extension("new");
    let mut file = File::create(&new).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_modified(time).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn warns_of_certificate_that_expires_soon_or_has_expired() {
    let dir = WorkDir::new();
    let metrics = free_address();
    let soon = certify(&dir, 10);
    let mut server = serve(&dir, &metrics);
    let line = server.wait_for_log("TLS certificate expires soon");
    let fields = format!(" certificate=cert.pem expires_at={soon}");
    assert!(line.contains(" WARN ") && line.contains(&fields), "{line}");
    wait_for_expiry(&metrics, soon);

    let renewed = certify(&dir, 90);
    wait_for_expiry(&metrics, renewed);
    let expired = certify(&dir, -1);
    server.wait_for_log("TLS certificate has expired");
    wait_for_expiry(&metrics, expired);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    for text in ["expires soon", "has expired"] {
        assert_eq!(log.matches(text).count(), 1, "{log}");
    }
}

#[test]
fn exports_no_expiry_without_https() {
    let dir = WorkDir::new();
    let metrics = free_address();
    let _server = dir.serve(&["--metrics", &metrics], ENV);
    let page = read_metrics(&metrics);
    assert!(!page.contains("timestamp_seconds{"), "{page}");
}

#[test]
fn is_not_ready_after_certificate_expired() {
    let dir = WorkDir::new();
    let metrics = free_address();
    for (days, ready) in [(100, 1), (-2, 0)] {
        let expires_at = certify(&dir, days);
        let server = serve(&dir, &metrics);
        wait_for_expiry(&metrics, expires_at);
        let page = read_metrics(&metrics);
        let line = format!("pleo_receiver_ready{{check=\"certificate\"}} {ready}\n");
        assert!(page.contains(&line), "{line} is not in {page}");
        assert_eq!(server.stop("-TERM").0, Some(0));
    }
}
