//! The verifier as WebAssembly, for `npm/verifier.mjs`.
//!
//! JavaScript writes the arguments of a call into the memory, calls, and overwrites what the call left
//! there. The memory holds nothing between calls: JavaScript keeps prepared keys and unfinished
//! streams as copies of [`State`], and copies one back before a call that needs it.
//!
//! Results below 0 are errors; `codes.rs` has them. The exported names are the only ones of the module.
#![no_std]
#![allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "JavaScript's numbers are `f64`, and it passes whole numbers below 2^53"
)]

mod codes;
mod memory;
mod records;

use core::panic::PanicInfo;
use core::time::Duration;

use pleo_webhook_verify::{
    Secret, SignatureHeaders, Verification, Verified, Verifier, VerifyError,
};

use crate::memory::{input, state};
use crate::records::{Records, header_name};

/// What a call needs of earlier calls, and what it returns beside its result.
pub(crate) struct State {
    verifier: Option<Verifier>,
    verification: Option<Verification<'static>>,
    /// More about an error: the skew in seconds, the header, the length of a key.
    detail: f64,
}

impl State {
    pub(crate) const EMPTY: Self = Self {
        verifier: None,
        verification: None,
        detail: 0.0,
    };

    /// Keeps the detail of an error. Returns its code.
    fn fail(&mut self, (code, detail): (i32, f64)) -> i32 {
        self.detail = detail;
        code
    }
}

/// Makes the verifier of records that are secrets. Returns 0, or `code - 100 * index` of the first
/// secret that is none.
#[unsafe(no_mangle)]
extern "C" fn create(tolerance: f64, at: usize, len: usize) -> i32 {
    let mut verifier: Option<Verifier> = None;
    for (index, (_, text)) in (0..).zip(Records::new(input(at, len))) {
        let secret = match Secret::parse(text) {
            Ok(secret) => secret,
            Err(error) => return state().fail(codes::of_secret(error)) - 100 * index,
        };
        verifier = match verifier {
            None => Some(Verifier::new(secret)),
            Some(verifier) => match verifier.and_secret(secret) {
                Ok(verifier) => Some(verifier),
                Err(_) => return codes::TOO_MANY_SECRETS,
            },
        };
    }
    let Some(verifier) = verifier else {
        return codes::NO_SECRET;
    };
    state().verifier = Some(verifier.with_tolerance(Duration::from_secs(tolerance as u64)));
    0
}

/// Verifies a delivery in one call. Returns the index of the secret, and 8 more if the `svix-` headers
/// count.
#[unsafe(no_mangle)]
extern "C" fn verify(now: f64, at: usize, len: usize, body_at: usize, body_len: usize) -> i32 {
    let state = state();
    let Some(verifier) = &state.verifier else {
        return codes::WRONG_ORDER;
    };
    let result = find(at, len).and_then(|(headers, set)| {
        let verified = verifier.verify(&headers, input(body_at, body_len), now as u64)?;
        Ok(secret_index(&verified) + 8 * set)
    });
    result.unwrap_or_else(|error| state.fail(codes::of_delivery(error)))
}

/// Checks the headers of a delivery whose body follows. Returns 8 if the `svix-` headers count, else 0.
#[unsafe(no_mangle)]
extern "C" fn begin(now: f64, at: usize, len: usize) -> i32 {
    let state = state();
    let Some(verifier) = &state.verifier else {
        return codes::WRONG_ORDER;
    };
    let result = find(at, len)
        .and_then(|(headers, set)| Ok((verifier.begin(&headers, now as u64)?, 8 * set)));
    match result {
        Ok((verification, set)) => {
            state.verification = Some(verification);
            set
        }
        Err(error) => state.fail(codes::of_delivery(error)),
    }
}

/// Takes the next chunk of a body. Returns 0.
#[unsafe(no_mangle)]
extern "C" fn update(at: usize, len: usize) -> i32 {
    let Some(verification) = &mut state().verification else {
        return codes::WRONG_ORDER;
    };
    verification.update(input(at, len));
    0
}

/// Verifies the signature after the last chunk. Returns the index of the secret.
#[unsafe(no_mangle)]
extern "C" fn finish() -> i32 {
    let state = state();
    match state.verification.take().map(Verification::finish) {
        Some(Ok(verified)) => secret_index(&verified),
        Some(Err(error)) => state.fail(codes::of_delivery(error)),
        None => codes::WRONG_ORDER,
    }
}

/// Returns more about the error of the last call.
#[unsafe(no_mangle)]
extern "C" fn detail() -> f64 {
    state().detail
}

/// Returns where the state is.
#[unsafe(no_mangle)]
extern "C" fn state_at() -> usize {
    core::ptr::from_mut(state()) as usize
}

/// Returns the size of the state in bytes.
#[unsafe(no_mangle)]
extern "C" fn state_len() -> usize {
    size_of::<State>()
}

/// Finds the signature headers in records. Returns them with 1 for the `svix-` headers, else 0.
fn find(at: usize, len: usize) -> Result<(SignatureHeaders<'static>, i32), VerifyError> {
    let records = || Records::new(input(at, len));
    let headers = SignatureHeaders::from_pairs(
        records().filter_map(|(kind, value)| Some((header_name(kind)?, value))),
    )?;
    let is_svix = records().any(|(kind, value)| {
        header_name(kind) == Some("svix-id")
            && headers.id().is_some_and(|id| core::ptr::eq(id, value))
    });
    Ok((headers, i32::from(is_svix)))
}

fn secret_index<B>(verified: &Verified<B>) -> i32 {
    verified.secret_index() as i32
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
