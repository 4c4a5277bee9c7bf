//! Verifies a real delivery through both ways in, without std. Exits with 0 if it verifies, with 1
//! if not; any argument changes a byte of the body first.
//!
//! On RustCrypto there is no allocator at all: a program in which anything may allocate doesn't link
//! without one. `ring` declares the `alloc` crate in a hidden module, so that one must be named; this
//! one aborts when it is called.
#![no_std]
#![no_main]

use core::ffi::{c_char, c_int};
use core::panic::PanicInfo;

use pleo_webhook_verify::{Headers, Secret, Verifier, VerifyError};

#[cfg(feature = "ring")]
mod allocator {
    use core::alloc::{GlobalAlloc, Layout};

    struct Abort;

    #[global_allocator]
    static ALLOCATOR: Abort = Abort;

    // SAFETY: it never returns.
    unsafe impl GlobalAlloc for Abort {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            super::stop()
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {
            super::stop()
        }
    }
}

// What the compiler's own calls to copy memory are linked with.
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

/// `core` was built to unwind and names this; nothing calls it where panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// SAFETY: no other function of this program has the name.
#[unsafe(no_mangle)]
extern "C" fn main(arguments: c_int, _: *const *const c_char) -> c_int {
    let mut body = *b"{\"test\": 2432232314}";
    body[0] ^= u8::from(arguments > 1);
    c_int::from(!matches!(verify(&body), Some(Ok(()))))
}

/// The sample of Pleo's documentation; `None` where something else than a signature is wrong.
fn verify(body: &[u8]) -> Option<Result<(), VerifyError>> {
    let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().ok()?;
    let verifier = Verifier::new(secret);
    let headers = Headers::new(
        b"msg_p5jXN8AQM9LWM0D4loKWxJek",
        b"1614265330",
        b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    );
    let whole = verifier.verify(&headers, body, 1_614_265_330);

    let mut stream = verifier.begin(&headers, 1_614_265_330).ok()?;
    for piece in body.chunks(7) {
        stream.update(piece);
    }
    let streamed = stream.finish();

    let whole = whole.map(|verified| verified.id().len());
    let streamed = streamed.map(|verified| verified.id().len());
    (whole == streamed).then(|| whole.map(drop))
}
