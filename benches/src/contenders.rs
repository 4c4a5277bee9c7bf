//! The verifiers that are compared.

use std::hint::black_box;
use std::time::Instant;

use pleo_webhook_verify::{SignatureHeaders, Verifier};

use crate::delivery::{Delivery, SECRET, secret};

/// A verifier to measure.
pub trait Contender {
    /// Returns its name in a table.
    fn name(&self) -> &'static str;

    /// Returns `true` if the delivery is authentic. `headers` are those of the delivery.
    fn verify(&self, delivery: &Delivery, headers: &SignatureHeaders<'_>) -> bool;

    /// Measures the nanoseconds per verification over a number of calls.
    ///
    /// A provided method, so that the loop is compiled per contender and `dyn` dispatch costs once
    /// per batch.
    fn time(&self, delivery: &Delivery, calls: u32) -> f64 {
        let headers = delivery.headers();
        let start = Instant::now();
        for _ in 0..calls {
            black_box(self.verify(black_box(delivery), black_box(&headers)));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    }
}

/// `pleo-webhook-verify`, in one call.
pub struct OneCall(Verifier);

impl Contender for OneCall {
    fn name(&self) -> &'static str {
        "one call"
    }

    fn verify(&self, delivery: &Delivery, headers: &SignatureHeaders<'_>) -> bool {
        self.0.verify(headers, &delivery.body, delivery.now).is_ok()
    }
}

/// `pleo-webhook-verify`, in chunks of 4 KiB.
pub struct Streaming(Verifier);

impl Contender for Streaming {
    fn name(&self) -> &'static str {
        "4 KiB chunks"
    }

    fn verify(&self, delivery: &Delivery, headers: &SignatureHeaders<'_>) -> bool {
        let Ok(mut verification) = self.0.begin(headers, delivery.now) else {
            return false;
        };
        for chunk in delivery.body.chunks(4096) {
            verification.update(chunk);
        }
        verification.finish().is_ok()
    }
}

/// `pleo-webhook-verify` with the work that its peers do in one call: it also finds the headers in a
/// map and reads the clock.
pub struct WithMapAndClock(Verifier);

impl Contender for WithMapAndClock {
    fn name(&self) -> &'static str {
        "map and clock"
    }

    fn verify(&self, delivery: &Delivery, _: &SignatureHeaders<'_>) -> bool {
        SignatureHeaders::from_pairs(&delivery.map)
            .is_ok_and(|headers| self.0.verify_now(&headers, &delivery.body).is_ok())
    }
}

/// Svix's library; Svix is the sender.
pub struct Svix(svix::webhooks::Webhook);

impl Contender for Svix {
    fn name(&self) -> &'static str {
        "svix"
    }

    fn verify(&self, delivery: &Delivery, _: &SignatureHeaders<'_>) -> bool {
        self.0.verify(&delivery.body, &delivery.map).is_ok()
    }
}

/// The library of Standard Webhooks.
pub struct StandardWebhooks(standardwebhooks::Webhook);

impl Contender for StandardWebhooks {
    fn name(&self) -> &'static str {
        "standardwebhooks"
    }

    fn verify(&self, delivery: &Delivery, _: &SignatureHeaders<'_>) -> bool {
        self.0.verify(&delivery.body, &delivery.map).is_ok()
    }
}

/// Returns all contenders in the order of a table's columns.
#[must_use]
pub fn all() -> Vec<Box<dyn Contender>> {
    let verifier = Verifier::new(secret());
    vec![
        Box::new(OneCall(verifier.clone())),
        Box::new(Streaming(verifier.clone())),
        Box::new(WithMapAndClock(verifier)),
        Box::new(Svix(
            svix::webhooks::Webhook::new(SECRET).expect("a valid secret"),
        )),
        Box::new(StandardWebhooks(
            standardwebhooks::Webhook::new(SECRET).expect("a valid secret"),
        )),
    ]
}
