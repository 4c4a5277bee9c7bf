//! Asymmetric signatures: Ed25519 with a public key of the sender, version `v1a`.

mod ed25519;
mod public_key;
mod verifier;

pub use public_key::{PublicKey, PublicKeyError};
pub use verifier::{KeyCountError, PublicKeyVerification, PublicKeyVerifier};
