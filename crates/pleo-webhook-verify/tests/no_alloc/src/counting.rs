//! Counts the allocations of all functions of the verifier, with valid deliveries and with deliveries
//! that fail at each check. Prints the counts, and exits with 1 unless all are 0.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use pleo_webhook_verify::{Secret, SignatureHeaders, Verifier, VerifyError};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: both methods forward their arguments to the system allocator. The other methods call these
// two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW: u64 = 1_614_265_330;

fn main() -> ExitCode {
    let mut passed = true;
    let mut expect = |what: &str, count: u64, as_expected: bool| {
        println!("{count} allocations: {what}");
        passed &= as_expected;
    };

    let count = allocations(|| drop(black_box(vec![1_u8])));
    expect(
        "a vector, to check that allocations are counted",
        count,
        count == 1,
    );

    let count = allocations(|| {
        assert!(black_box(SECRET.parse::<Secret>()).is_ok());
        for invalid in [
            "",
            "v1,whsec_",
            "whsec_AAAA",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_",
        ] {
            assert!(black_box(invalid.parse::<Secret>()).is_err());
        }
    });
    expect("parsing secrets, valid and invalid", count, count == 0);

    let secret: Secret = SECRET.parse().expect("a valid secret");
    let body = vec![b'x'; 100_000];
    let count = allocations(|| {
        let signed = black_box(secret.sign("msg_1", NOW, &body)).expect("a valid id");
        assert_eq!(signed.as_str().len(), 47);
    });
    expect("signing", count, count == 0);
    let signature = secret.sign("msg_1", NOW, &body).expect("a valid id");
    let signature = signature.to_string();

    let other = |byte| Secret::from_bytes(&[byte; 24]).expect("24 bytes");
    let verifier =
        Verifier::from_secrets([other(1), other(2), other(3), secret]).expect("at most four");
    let ten = vec![signature.as_str(); 10].join(" ");
    let malformed = signature.replace("v1,", "v1,A");
    let (id, at) = ("msg_1", "1614265330");
    for (what, values, code) in [
        ("valid", &[id, at, &signature][..], "ok"),
        ("valid, ten signatures", &[id, at, &ten], "ok"),
        ("no header", &[], "missing_header"),
        ("id", &["msg.1", at, &ten], "invalid_id"),
        ("timestamp", &[id, "+1", &ten], "invalid_timestamp"),
        ("old", &[id, "1614265029", &ten], "timestamp_too_old"),
        ("new", &[id, "1614265631", &ten], "timestamp_too_new"),
        ("list", &[id, at, "v1a,AA v2,AA"], "no_supported_signature"),
        ("malformed", &[id, at, &malformed], "signature_mismatch"),
        ("other id", &["msg_2", at, &ten], "signature_mismatch"),
    ] {
        let outcome =
            |result: Result<(), VerifyError>| result.map_or_else(|error| error.code(), |()| "ok");
        let count = allocations(|| {
            let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
            let pairs = names.into_iter().zip(values.iter().copied());
            let headers = SignatureHeaders::from_pairs(pairs).expect("no header is duplicated");
            let verified = verifier.verify(&headers, &body, NOW).map(|verified| {
                assert_eq!(verified.body().len(), 100_000);
            });
            assert_eq!(black_box(outcome(verified)), code, "{what}");
            let streamed = verifier.begin(&headers, NOW).and_then(|mut stream| {
                body.chunks(4096).for_each(|chunk| stream.update(chunk));
                stream
                    .finish()
                    .map(|verified| assert_eq!(verified.secret_index(), 3))
            });
            assert_eq!(black_box(outcome(streamed)), code, "{what}");
        });
        expect(what, count, count == 0);
    }

    let mut map = http::HeaderMap::new();
    for (name, value) in [
        ("webhook-id", "msg_1"),
        ("svix-id", "msg_1"),
        ("host", "a.b"),
    ] {
        map.insert(name, http::HeaderValue::from_static(value));
    }
    let count = allocations(|| assert!(black_box(SignatureHeaders::from_pairs(&map)).is_ok()));
    expect("finding headers in a map", count, count == 0);

    #[cfg(feature = "v1a")]
    public_keys(&body, &mut expect);

    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Counts the allocations of the functions of public keys.
#[cfg(feature = "v1a")]
fn public_keys(body: &[u8], expect: &mut impl FnMut(&str, u64, bool)) {
    use pleo_webhook_verify::{PublicKey, PublicKeyVerifier};

    let keys = [
        // Of the Svix server's own test, and of RFC 8032.
        "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
        "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    ];
    let count = allocations(|| {
        assert!(black_box(keys[0].parse::<PublicKey>()).is_ok());
        for invalid in [
            "",
            "whsk_",
            "whpk_AAAA",
            "whpk_AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert!(black_box(invalid.parse::<PublicKey>()).is_err());
        }
    });
    expect("parsing public keys, valid and invalid", count, count == 0);

    let keys = [keys[1], keys[1], keys[1], keys[0]];
    let keys = keys.map(|key| key.parse().expect("a valid key"));
    let verifier = PublicKeyVerifier::from_keys(keys).expect("at most four");
    let valid = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
    let six = [valid; 6].join(" ");
    let seven = [valid; 7].join(" ");
    let sample: &[u8] = b"{\"test\": 2432232314}";
    for (what, list, body, code) in [
        ("valid v1a", valid, sample, "ok"),
        ("valid v1a, 24 checks", &six, sample, "ok"),
        ("other body, 24 checks", &six, body, "signature_mismatch"),
        ("v1 only", "v1,AA", sample, "no_asymmetric_signature"),
        ("seven v1a", &seven, sample, "too_many_signatures"),
    ] {
        let count = allocations(|| {
            let headers = SignatureHeaders::from_pairs([
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", list),
            ]);
            let headers = headers.expect("no header is duplicated");
            let one_call = verifier
                .verify(&headers, body, NOW)
                .map(|verified| verified.secret_index());
            let streamed = verifier.begin(&headers, NOW).and_then(|mut stream| {
                body.chunks(4096).for_each(|chunk| stream.update(chunk));
                stream.finish().map(|verified| verified.secret_index())
            });
            assert_eq!(one_call, streamed, "{what}");
            let outcome =
                one_call.map_or_else(|error| error.code(), |index| ["", "", "", "ok"][index]);
            assert_eq!(black_box(outcome), code, "{what}");
        });
        expect(what, count, count == 0);
    }
}

fn allocations(call: impl FnOnce()) -> u64 {
    let before = COUNT.load(Ordering::Relaxed);
    call();
    COUNT.load(Ordering::Relaxed) - before
}
