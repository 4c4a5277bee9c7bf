//! Helpers of the test modules.

#[cfg(feature = "v1a")]
pub mod asymmetric;
#[cfg(feature = "v1a")]
pub mod keys;
pub mod reference;

use pleo_webhook_verify::{Secret, SignatureHeaders};

/// The secret of the sample delivery in Pleo's documentation.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The timestamp of that delivery, and its header value.
pub const NOW: u64 = 1_614_265_330;
pub const TIMESTAMP: &str = "1614265330";

/// Makes a secret whose key is one byte, repeated.
pub fn secret(byte: u8) -> Secret {
    Secret::from_bytes(&[byte; 32]).unwrap()
}

/// Makes the headers of a delivery: id, timestamp and signature list.
pub fn headers<'h, V: AsRef<[u8]> + ?Sized>(
    id: &'h V,
    timestamp: &'h V,
    list: &'h V,
) -> SignatureHeaders<'h> {
    headers_of([Some(id), Some(timestamp), Some(list)])
}

/// Makes headers of which some are missing.
pub fn headers_of<'h, V: AsRef<[u8]> + ?Sized>(values: [Option<&'h V>; 3]) -> SignatureHeaders<'h> {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let pairs = names.into_iter().zip(values);
    SignatureHeaders::from_pairs(pairs.filter_map(|(name, value)| Some((name, value?)))).unwrap()
}
