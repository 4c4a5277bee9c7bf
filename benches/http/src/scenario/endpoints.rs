//! Measures the time per request with many endpoints.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use pleo_receiver::verify::{Secret, unix_now};
use pleo_receiver::{Endpoint, Receiver};
use tokio::runtime::Builder;

use crate::discarding_inbox::DiscardingInbox;
use crate::load::{BODY, SECRET};
use crate::targets::{Targets, median};

const COUNTS: [usize; 4] = [1, 10, 100, 500];

pub fn run(targets: &mut Targets, quick: bool) {
    let (rounds, requests) = if quick { (3, 2_000) } else { (101, 10_000) };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let receivers = COUNTS.map(receiver);
    let mut nanos = COUNTS.map(|_| Vec::new());
    let mut ratios = COUNTS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (row, (receiver, count)) in receivers.iter().zip(COUNTS).enumerate() {
            let requests: Vec<_> = (0..requests)
                .map(|number| request(number % count))
                .collect();
            let each = requests.len() as f64;
            let start = Instant::now();
            runtime.block_on(async {
                for request in requests {
                    assert_eq!(receiver.respond(request).await.status(), 204);
                }
            });
            let taken = start.elapsed().as_nanos() as f64 / each;
            nanos[row].push(taken);
            let with_one = *nanos[0].last().unwrap_or(&taken);
            ratios[row].push(taken / with_one);
        }
    }
    println!(
        "\n    {:>10}{:>18}{:>22}",
        "endpoints", "ns per request", "relative to one"
    );
    for (row, count) in COUNTS.into_iter().enumerate() {
        let (nanos, ratio) = (median(&mut nanos[row]), median(&mut ratios[row]));
        println!("    {count:>10}{nanos:>18.0}{ratio:>22.3}");
    }
    println!();
    let most = median(&mut ratios[COUNTS.len() - 1]);
    targets.at_most("500 endpoints, relative to one", 1.10, most);
}

fn receiver(count: usize) -> Receiver {
    let secret: Secret = SECRET.parse().expect("a secret");
    let mut builder = Receiver::builder(DiscardingInbox);
    for number in 0..count {
        let endpoint = Endpoint::new(path(number), secret.clone()).expect("a path");
        builder = builder.endpoint(endpoint);
    }
    builder.build().expect("a receiver").0
}

fn path(number: usize) -> String {
    format!("/webhooks/pleo/{number}")
}

fn request(number: usize) -> Request<Full<Bytes>> {
    let secret: Secret = SECRET.parse().expect("a secret");
    let (id, now) = ("msg_2b7Tj9", unix_now());
    let signature = secret.sign(id, now, BODY.as_bytes()).expect("a plain id");
    Request::post(path(number))
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", now)
        .header("webhook-signature", signature.to_string())
        .body(Full::from(BODY))
        .expect("a request")
}
