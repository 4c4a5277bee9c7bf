//! Who is measured.

use std::hint::black_box;
use std::time::Instant;

use pleo_webhook_verify::{Headers, Verifier, unix_now};

use crate::delivery::{Delivery, SECRET, secret};

/// Something that verifies deliveries.
pub trait Contender {
    /// What it is called in a table.
    fn name(&self) -> &'static str;

    /// Whether the delivery is genuine.
    fn verify(&self, delivery: &Delivery) -> bool;

    /// Nanoseconds that one of so many verifications takes.
    ///
    /// Provided here so that the loop is compiled for each contender, and a call through `dyn` is
    /// paid once a batch.
    fn time(&self, delivery: &Delivery, calls: u32) -> f64 {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(self.verify(black_box(delivery)));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    }
}

/// This crate, in one call.
pub struct OneShot(Verifier);

impl Contender for OneShot {
    fn name(&self) -> &'static str {
        "one-shot"
    }

    fn verify(&self, delivery: &Delivery) -> bool {
        self.0
            .verify(&delivery.headers(), &delivery.body, delivery.now)
            .is_ok()
    }
}

/// This crate, in pieces of 4 KiB.
pub struct Streaming(Verifier);

impl Contender for Streaming {
    fn name(&self) -> &'static str {
        "4 KiB pieces"
    }

    fn verify(&self, delivery: &Delivery) -> bool {
        let Ok(mut verification) = self.0.begin(&delivery.headers(), delivery.now) else {
            return false;
        };
        for piece in delivery.body.chunks(4096) {
            verification.update(piece);
        }
        verification.finish().is_ok()
    }
}

/// This crate with all that its peers do in their one call: it finds the headers in a map and reads
/// the clock.
pub struct WithMapAndClock(Verifier);

impl Contender for WithMapAndClock {
    fn name(&self) -> &'static str {
        "map and clock"
    }

    fn verify(&self, delivery: &Delivery) -> bool {
        Headers::from_map(&delivery.map)
            .is_ok_and(|headers| self.0.verify(&headers, &delivery.body, unix_now()).is_ok())
    }
}

/// The sender's own library.
pub struct Svix(svix::webhooks::Webhook);

impl Contender for Svix {
    fn name(&self) -> &'static str {
        "svix"
    }

    fn verify(&self, delivery: &Delivery) -> bool {
        self.0.verify(&delivery.body, &delivery.map).is_ok()
    }
}

/// The specification's library.
pub struct StandardWebhooks(standardwebhooks::Webhook);

impl Contender for StandardWebhooks {
    fn name(&self) -> &'static str {
        "standardwebhooks"
    }

    fn verify(&self, delivery: &Delivery) -> bool {
        self.0.verify(&delivery.body, &delivery.map).is_ok()
    }
}

/// All of them in the order of a table's columns: this crate in one call, in pieces, with map and
/// clock, then the peers.
#[must_use]
pub fn all() -> Vec<Box<dyn Contender>> {
    let verifier = Verifier::new(secret());
    vec![
        Box::new(OneShot(verifier.clone())),
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
