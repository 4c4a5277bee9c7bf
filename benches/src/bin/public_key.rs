//! Measures the verification of an asymmetric signature as a multiple of the floor: ring's Ed25519 over the
//! signed content in one piece, and base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_benches::Options;
use pleo_benches::contenders::Contender;
use pleo_benches::delivery::{Delivery, secret};
use pleo_benches::interleave::{self, Effort};
use pleo_benches::stats::{median, paired_ratio};
use pleo_webhook_verify::{PublicKey, PublicKeyVerifier, SignatureHeaders, Verifier};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

const SEED: [u8; 32] = [7; 32];

/// Ring's Ed25519. Checks no header; the signed content is joined already.
struct Floor {
    key: Vec<u8>,
    signed: Vec<u8>,
}

impl Contender for Floor {
    fn name(&self) -> &'static str {
        "ring"
    }

    fn verify(&self, delivery: &Delivery, _: &SignatureHeaders<'_>) -> bool {
        let mut signature = [0; 64];
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        STANDARD.decode_slice(&delivery.encoded[0], &mut signature) == Ok(64)
            && key.verify(&self.signed, &signature).is_ok()
    }
}

struct OneCall(PublicKeyVerifier);

impl Contender for OneCall {
    fn name(&self) -> &'static str {
        "one call"
    }

    fn verify(&self, delivery: &Delivery, headers: &SignatureHeaders<'_>) -> bool {
        self.0.verify(headers, &delivery.body, delivery.now).is_ok()
    }
}

struct Streaming(PublicKeyVerifier);

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

/// A verifier with a secret, for comparison. The list of the delivery has a `v1` signature too.
struct Hmac(Verifier);

impl Contender for Hmac {
    fn name(&self) -> &'static str {
        "HMAC"
    }

    fn verify(&self, delivery: &Delivery, headers: &SignatureHeaders<'_>) -> bool {
        self.0.verify(headers, &delivery.body, delivery.now).is_ok()
    }
}

fn main() {
    let effort = if Options::from_args().quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("any 32 bytes");
    let key = pair.public_key().as_ref().to_vec();
    let verifier = || {
        let bytes = key.as_slice().try_into().expect("32 bytes");
        PublicKeyVerifier::new(PublicKey::from_bytes(bytes).expect("a valid key"))
    };

    println!(
        "{:>7}{:>12}{:>12}{:>15}{:>9}",
        "body", "ring", "one call", "4 KiB chunks", "HMAC"
    );
    for (label, len) in [
        ("300 B", 300),
        ("1 KiB", 1024),
        ("20 KiB", 20 * 1024),
        ("1 MiB", 1024 * 1024),
    ] {
        let mut delivery = Delivery::new(len, 1, true);
        let id = delivery.id.as_deref().unwrap_or_default();
        let signed = [id.as_bytes(), delivery.timestamp.as_bytes(), &delivery.body].join(&b'.');
        delivery.encoded = vec![STANDARD.encode(pair.sign(&signed))];
        delivery.list = format!("{} v1a,{}", delivery.list, delivery.encoded[0]);
        let key = key.clone();
        let contenders: [&dyn Contender; 4] = [
            &Floor { key, signed },
            &OneCall(verifier()),
            &Streaming(verifier()),
            &Hmac(Verifier::new(secret())),
        ];
        for contender in contenders {
            let is_valid = contender.verify(&delivery, &delivery.headers());
            assert!(is_valid, "{}", contender.name());
        }
        let entries = contenders.map(|contender| (contender, &delivery));
        let times = interleave::measure(&entries, effort);
        let floor = median(times[0].clone()) / 1000.0;
        let [one_call, streaming, hmac] = [1, 2, 3].map(|nth| paired_ratio(&times[nth], &times[0]));
        println!("{label:>7}{floor:>9.1} µs{one_call:>12.2}{streaming:>15.2}{hmac:>9.3}");
    }
}
