//! Tests of the limits of connections, headers, bodies and incomplete requests. Other clients are still
//! served.

// Only Linux can bind every address of 127.0.0.0/8.
#![cfg(target_os = "linux")]

mod connections;
mod requests;

use core::time::Duration;
use std::time::Instant;

use tokio::time;

use crate::support::{BODY, Request, Server, counted, wait_for};

/// A source other than that of the valid deliveries.
const OTHER_SOURCE: &str = "127.0.0.2";

/// Asserts that a valid delivery is accepted within a second.
async fn assert_serves(server: &Server) {
    let start = Instant::now();
    let answer = server.send(&Request::signed("msg_1", BODY)).await;
    let took = start.elapsed();
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

/// Waits until this many refused connections are counted.
async fn assert_refused(server: &Server, reason: &str, count: u64) {
    let line = format!("pleo_receiver_refused_connections_total{{reason=\"{reason}\"}}");
    // The client may see the refusal before the server counts it.
    let until_counted = async {
        while counted(&server.receiver, &line) != count {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    wait_for(&line, until_counted).await;
}
