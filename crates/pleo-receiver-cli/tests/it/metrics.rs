//! Tests of the metrics listener.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::program::{ENV, OTHER_SECRET, SECRET, WorkDir, free_address, read_metrics};

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
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
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
