//! Tests whether the time of a verification depends on where a wrong signature differs, or on which
//! secret matched.
//!
//! The method is dudect's: two classes of input in random order, the time of each verification, the
//! slowest samples cut off, Welch's t. Both classes of a test have the same result, `Ok` or `Err`,
//! because the response reveals that anyway. A valid and a wrong signature are compared in a list whose
//! second signature is valid, so that both classes pass.
//!
//! The messages are random and change often, so that the classes differ only in how the signature
//! relates to the valid one. With few messages, t would also show how their texts behave in caches; the
//! sender of a text knows that.
//!
//! The last row is a control: a comparison that stops at the first difference, whose leak must be
//! detected. `--quick` takes fewer samples. `--check` fails if a |t| is 4.5 or more, or if the control's
//! leak is not detected.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_benches::delivery::secret;
use pleo_benches::floor::Floor;
use pleo_benches::random::Random;
use pleo_benches::stats::Moments;
use pleo_benches::{BACKEND, Options};
use pleo_webhook_verify::{Secret, SignatureHeaders, Verifier};

const LIMIT: f64 = 4.5;

/// The percentages of the samples that count. The slowest samples are noise.
const CROPS: [usize; 3] = [50, 80, 95];

/// The number of messages in use at a time, and of samples until they are replaced.
const MESSAGES: usize = 64;
const SAMPLES_OF_MESSAGES: usize = 1024;

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIMESTAMP: &str = "1614265330";
const NOW: u64 = 1_614_265_330;

type Tag = [u8; 32];

/// Makes the signature list of each class for a body.
type Lists<'a> = &'a dyn Fn(&[u8]) -> [Vec<u8>; 2];

/// A body, and the signature list of each class.
struct Message {
    body: [u8; 64],
    lists: [Vec<u8>; 2],
}

fn main() -> ExitCode {
    let options = Options::from_args();
    let samples = if options.quick { 100_000 } else { 2_000_000 };
    let one = Verifier::new(secret());
    let others = (1..4).map(nth_secret);
    let four = Verifier::from_secrets([secret()].into_iter().chain(others)).expect("four secrets");

    println!("Backend: {BACKEND}, {samples} samples per test.\n");
    print!("{:<58}", "|t| of the fastest samples");
    for crop in CROPS {
        print!("{crop:>7}%");
    }
    println!("{:>12}", "difference");

    let wrong: Lists<'_> = &|body| {
        let valid = tag(0, body);
        [list(&[wrong_at(valid, 0)]), list(&[wrong_at(valid, 31)])]
    };
    let before_valid: Lists<'_> = &|body| {
        let valid = tag(0, body);
        [list(&[valid, valid]), list(&[wrong_at(valid, 31), valid])]
    };
    let signers: Lists<'_> = &|body| [0, 3].map(|nth| list(&[tag(nth, body)]));
    let mut worst: f64 = 0.0;
    for (name, verifier, lists, is_valid) in [
        (
            "one secret: wrong in the first or in the last byte",
            &one,
            wrong,
            false,
        ),
        (
            "four secrets: wrong in the first or in the last byte",
            &four,
            wrong,
            false,
        ),
        (
            "one secret: valid or wrong, before a valid one",
            &one,
            before_valid,
            true,
        ),
        (
            "four secrets: valid or wrong, before a valid one",
            &four,
            before_valid,
            true,
        ),
        (
            "four secrets: signed by the first or by the last one",
            &four,
            signers,
            true,
        ),
    ] {
        let t = test(name, samples, lists, |body, list| {
            let headers = SignatureHeaders::from_pairs([
                ("webhook-id", ID.as_bytes()),
                ("webhook-timestamp", TIMESTAMP.as_bytes()),
                ("webhook-signature", list),
            ])
            .expect("no header is duplicated");
            verifier.verify(&headers, body, NOW).is_ok() == is_valid
        });
        worst = worst.max(t);
    }

    let floor = Floor::default();
    let name = "control, stops at a difference: first or last byte";
    let control = test(name, samples, wrong, |body, list| {
        differs(&floor, body, list)
    });
    let detected = if control >= LIMIT {
        "detected"
    } else {
        "NOT DETECTED"
    };
    println!("\ngreatest |t|: {worst:.2}, limit {LIMIT}; the control's leak: {detected}");
    if options.check && (worst >= LIMIT || control < LIMIT) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs a test, prints its row, and returns the greatest |t|.
fn test(name: &str, samples: usize, lists: Lists<'_>, call: impl Fn(&[u8], &[u8]) -> bool) -> f64 {
    let mut random = Random::new(99);
    // Both classes are read from the same buffer, which is filled without a branch.
    let mut messages = Vec::new();
    let mut buffer = Vec::new();
    let mut times: Vec<(u8, f64)> = Vec::with_capacity(samples);
    let warm_up = samples / 10;
    for sample in 0..warm_up + samples {
        if sample % SAMPLES_OF_MESSAGES == 0 {
            messages = (0..MESSAGES)
                .map(|_| {
                    let body = random.bytes();
                    let lists = lists(&body);
                    Message { body, lists }
                })
                .collect();
            buffer.clone_from(&messages[0].lists[0]);
        }
        let message: &Message = &messages[random.index(messages.len())];
        let class = random.bit();
        let mask = black_box(class.wrapping_neg());
        let [one, other] = &message.lists;
        for ((to, one), other) in buffer.iter_mut().zip(one).zip(other) {
            *to = one ^ (mask & (one ^ other));
        }
        fence(Ordering::SeqCst);
        let start = Instant::now();
        let as_expected = black_box(call(black_box(&message.body), black_box(&buffer)));
        let time = start.elapsed().as_secs_f64() * 1e9;
        assert!(as_expected, "{name}");
        if sample >= warm_up {
            times.push((class, time));
        }
    }

    // One threshold for both classes, so that it cannot cause a difference.
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    print!("{name:<58}");
    let mut greatest: f64 = 0.0;
    let mut difference = 0.0;
    for crop in CROPS {
        let threshold = sorted[sorted.len() * crop / 100];
        let mut classes = [Moments::default(), Moments::default()];
        for (class, time) in &times {
            if *time <= threshold {
                classes[usize::from(*class)].add(*time);
            }
        }
        let t = classes[0].t(&classes[1]).abs();
        difference = classes[1].mean() - classes[0].mean();
        greatest = greatest.max(t);
        print!("{t:>8.2}");
    }
    println!("{difference:>9.2} ns");
    greatest
}

/// Returns `true` if the signature is wrong. Leaks where.
fn differs(floor: &Floor, body: &[u8], list: &[u8]) -> bool {
    let expected = floor.tag(ID, TIMESTAMP, body);
    let mut tag: Tag = [0; 32];
    STANDARD
        .decode_slice(&list[3..], &mut tag)
        .expect("canonical base64");
    tag.iter()
        .zip(expected.as_ref())
        .any(|(one, other)| black_box(one) != black_box(other))
}

/// Computes the tag by one of the secrets. Tests with one secret use the first.
fn tag(nth: u8, body: &[u8]) -> Tag {
    let signature = nth_secret(nth).sign(ID, NOW, body).expect("a valid id");
    let decoded = STANDARD.decode(signature.as_str().trim_start_matches("v1,"));
    let tag = decoded.ok().and_then(|tag| tag.try_into().ok());
    tag.expect("32 bytes in base64")
}

fn nth_secret(nth: u8) -> Secret {
    if nth == 0 {
        return secret();
    }
    Secret::from_bytes(&[nth; 24]).expect("24 bytes")
}

fn wrong_at(mut tag: Tag, byte: usize) -> Tag {
    tag[byte] ^= 0x55;
    tag
}

fn list(tags: &[Tag]) -> Vec<u8> {
    let entries: Vec<String> = tags
        .iter()
        .map(|tag| format!("v1,{}", STANDARD.encode(tag)))
        .collect();
    entries.join(" ").into_bytes()
}
