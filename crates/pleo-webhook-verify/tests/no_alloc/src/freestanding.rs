//! Verifies a delivery in one call and in chunks, without std. Exits with 0 if it is authentic, else
//! with 1. Any argument changes a byte of the body first. With the feature `v1a`, the delivery also has
//! an asymmetric signature, which must have the same result.
//!
//! On RustCrypto the program has no allocator, so it does not link if anything can allocate. `ring`
//! links the `alloc` crate, so it must name an allocator; this one aborts when it is called.
#![no_std]
#![no_main]

use core::ffi::{c_char, c_int};
use core::panic::PanicInfo;

use pleo_webhook_verify::{Secret, SignatureHeaders, Verifier, VerifyError};

#[cfg(feature = "ring")]
mod allocator {
    use core::alloc::{GlobalAlloc, Layout};

    struct Abort;

    #[global_allocator]
    static ALLOCATOR: Abort = Abort;

    // SAFETY: no method returns.
    unsafe impl GlobalAlloc for Abort {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            super::stop()
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {
            super::stop()
        }
    }
}

// The compiler's calls to `memcpy` and the like link with it.
#[link(name = "c")]
unsafe extern "C" {
    safe fn abort() -> !;
}

fn stop() -> ! {
    abort()
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    stop()
}

/// `core` is built to unwind and refers to this symbol. Nothing calls it, since panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// SAFETY: no other function of this program has the name.
#[unsafe(no_mangle)]
extern "C" fn main(arguments: c_int, _: *const *const c_char) -> c_int {
    let mut body = *b"{\"test\": 2432232314}";
    body[0] ^= u8::from(arguments > 1);
    let result = verify(&body);
    #[cfg(feature = "v1a")]
    let result = result.filter(|result| verify_with_public_key(&body) == Some(*result));
    c_int::from(!matches!(result, Some(Ok(()))))
}

/// Verifies the sample of Pleo's documentation; `None` if anything but the signature is wrong.
fn verify(body: &[u8]) -> Option<Result<(), VerifyError>> {
    let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().ok()?;
    let verifier = Verifier::new(secret);
    let headers = SignatureHeaders::from_pairs([
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        (
            "webhook-signature",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ])
    .ok()?;
    let one_call = verifier.verify(&headers, body, 1_614_265_330);

    let mut stream = verifier.begin(&headers, 1_614_265_330).ok()?;
    for chunk in body.chunks(7) {
        stream.update(chunk);
    }
    let streamed = stream.finish();

    let one_call = one_call.map(|verified| verified.id().len());
    let streamed = streamed.map(|verified| verified.id().len());
    (one_call == streamed).then(|| one_call.map(drop))
}

/// Verifies the same delivery with an asymmetric signature; `None` if anything but the signature is
/// wrong.
#[cfg(feature = "v1a")]
fn verify_with_public_key(body: &[u8]) -> Option<Result<(), VerifyError>> {
    use pleo_webhook_verify::PublicKeyVerifier;

    let key = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    let verifier = PublicKeyVerifier::new(key.parse().ok()?);
    let headers = SignatureHeaders::from_pairs([
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        (
            "webhook-signature",
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
        ),
    ])
    .ok()?;
    let one_call = verifier.verify(&headers, body, 1_614_265_330);

    let mut stream = verifier.begin(&headers, 1_614_265_330).ok()?;
    for chunk in body.chunks(7) {
        stream.update(chunk);
    }
    let streamed = stream.finish();

    let one_call = one_call.map(|verified| verified.secret_index());
    let streamed = streamed.map(|verified| verified.secret_index());
    (one_call == streamed).then(|| one_call.map(drop))
}
