//! Public keys of the tests.

use pleo_webhook_verify::PublicKey;

use super::{TIMESTAMP, asymmetric};

/// The public key of the Svix server's own test.
pub const SVIX_KEY: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

/// Makes the public key whose private key is one byte, repeated.
pub fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes(&asymmetric::public_key(&[byte; 32])).unwrap()
}

/// Signs the message `msg_1` with the body `{}` by that private key.
pub fn signed(byte: u8) -> String {
    asymmetric::entry(&[byte; 32], b"msg_1", TIMESTAMP.as_bytes(), b"{}")
}
