//! What the test modules share.

pub mod reference;

use pleo_webhook_verify::{Secret, Verifier};

/// The secret of the sample delivery in Pleo's documentation.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The timestamp of that delivery, and its header value.
pub const NOW: u64 = 1_614_265_330;
pub const TIMESTAMP: &[u8] = b"1614265330";

/// Makes a secret whose key is one byte, repeated.
pub fn secret(byte: u8) -> Secret {
    Secret::from_bytes(&[byte; 32]).unwrap()
}

/// Makes a verifier with several secrets, in their order.
pub fn verifier(secrets: impl IntoIterator<Item = Secret>) -> Verifier {
    let mut secrets = secrets.into_iter();
    let first = Verifier::new(secrets.next().unwrap());
    secrets.try_fold(first, Verifier::and_secret).unwrap()
}
