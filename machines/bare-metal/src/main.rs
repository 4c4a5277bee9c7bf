//! Runs the conformance vectors on a microcontroller: in one call, in chunks, and under both header
//! prefixes. Prints each outcome that differs, and exits with 0 if there is none.
//!
//! The program has no std and no allocator, so it does not link if the verifier needs either.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use core::time::Duration;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use pleo_webhook_verify::{Secret, SignatureHeaders, Verified, Verifier, VerifyError};

struct Case {
    name: &'static str,
    expect: &'static str,
    secrets: &'static [&'static str],
    now: u64,
    tolerance: u64,
    id: Option<&'static [u8]>,
    timestamp: Option<&'static [u8]>,
    signature: Option<&'static [u8]>,
    body: &'static [u8],
}

static CASES: &[Case] = include!(concat!(env!("OUT_DIR"), "/cases.rs"));

const WEBHOOK: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
const SVIX: [&str; 3] = ["Svix-Id", "Svix-Timestamp", "Svix-Signature"];

#[entry]
fn main() -> ! {
    let failed = CASES.iter().filter(|case| !case.passes()).count();
    hprintln!("{} cases, {} failed", CASES.len(), failed);
    exit(failed == 0 && !CASES.is_empty())
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    exit(false)
}

/// Ends the emulator. A real board without a debugger would go on, so it waits here.
fn exit(success: bool) -> ! {
    debug::exit(if success {
        debug::EXIT_SUCCESS
    } else {
        debug::EXIT_FAILURE
    });
    loop {
        core::hint::spin_loop();
    }
}

impl Case {
    fn passes(&self) -> bool {
        let Some(verifier) = self.verifier() else {
            hprintln!("{}: a secret is invalid", self.name);
            return false;
        };
        let mut passes = true;
        for names in [WEBHOOK, SVIX] {
            passes &= self.compare("one call", self.verify(&verifier, names));
            for size in [1, 63, 64, 65, 1000] {
                passes &= self.compare("chunks", self.stream(&verifier, names, size));
            }
        }
        passes
    }

    fn verifier(&self) -> Option<Verifier> {
        let mut secrets = self.secrets.iter().map(|secret| secret.parse::<Secret>());
        let first = Verifier::new(secrets.next()?.ok()?);
        secrets
            .try_fold(first, |verifier, secret| {
                verifier.and_secret(secret.ok()?).ok()
            })
            .map(|verifier| verifier.with_tolerance(Duration::from_secs(self.tolerance)))
    }

    fn headers(&self, names: [&str; 3]) -> Result<SignatureHeaders<'static>, VerifyError> {
        let values = [self.id, self.timestamp, self.signature];
        let pairs = names.into_iter().zip(values);
        SignatureHeaders::from_pairs(pairs.filter_map(|(name, value)| Some((name, value?))))
    }

    fn verify(&self, verifier: &Verifier, names: [&str; 3]) -> Result<(), VerifyError> {
        let verified = verifier.verify(&self.headers(names)?, self.body, self.now)?;
        self.check_proof(&verified)
    }

    fn stream(
        &self,
        verifier: &Verifier,
        names: [&str; 3],
        size: usize,
    ) -> Result<(), VerifyError> {
        let mut verification = verifier.begin(&self.headers(names)?, self.now)?;
        for chunk in self.body.chunks(size) {
            verification.update(chunk);
        }
        self.check_proof(&verification.finish()?)
    }

    /// Checks that a proof has the id that was signed.
    fn check_proof<B>(&self, verified: &Verified<B>) -> Result<(), VerifyError> {
        if self.id == Some(verified.id().as_bytes()) {
            Ok(())
        } else {
            Err(VerifyError::InvalidId)
        }
    }

    fn compare(&self, how: &str, result: Result<(), VerifyError>) -> bool {
        let outcome = result.map_or_else(|error| error.code(), |()| "ok");
        if outcome != self.expect {
            hprintln!(
                "{}, {}: {}, expected {}",
                self.name,
                how,
                outcome,
                self.expect
            );
        }
        outcome == self.expect
    }
}
