//! Verifies a signature that is wrong in one byte, so that `callgrind.sh` can count the instructions.
//! Arguments: the index of the byte, and the number of secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_benches::delivery::secret;
use pleo_webhook_verify::{Secret, SignatureHeaders, Verifier};

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = || -> usize {
        let arg = args.next().unwrap_or_default();
        arg.parse()
            .expect("two numbers: the index of a byte, and the number of secrets")
    };
    let (byte, secrets) = (number(), number());

    // The same delivery in every run, with a fixed timestamp.
    let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, [b'x'; 300]);
    let signature = secret().sign(id, timestamp, &body).expect("a valid id");
    let mut tag = STANDARD
        .decode(signature.as_str().trim_start_matches("v1,"))
        .expect("base64");
    tag[byte] ^= 0x55;
    let list = format!("v1,{}", STANDARD.encode(tag));
    let timestamp_text = timestamp.to_string();
    let headers = SignatureHeaders::from_pairs([
        ("webhook-id", id),
        ("webhook-timestamp", &timestamp_text),
        ("webhook-signature", &list),
    ])
    .expect("no header is duplicated");
    let others = (1..secrets).map(|nth| {
        let key = [u8::try_from(nth).expect("at most 4"); 24];
        Secret::from_bytes(&key).expect("24 bytes")
    });
    let verifier = Verifier::from_secrets([secret()].into_iter().chain(others)).expect("at most 4");

    assert!(!measured_verification(
        &verifier, &headers, &body, timestamp
    ));
}

/// The function whose instructions are counted. Callgrind finds it by its name.
#[inline(never)]
fn measured_verification(
    verifier: &Verifier,
    headers: &SignatureHeaders<'_>,
    body: &[u8],
    now: u64,
) -> bool {
    verifier.verify(headers, body, now).is_ok()
}
