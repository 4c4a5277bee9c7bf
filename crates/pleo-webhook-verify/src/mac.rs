//! HMAC-SHA256, and the only place that knows which library computes it.
//!
//! `ring` wins when both backends are on, so that switching `rustcrypto` on somewhere else in a
//! build changes nothing here.

/// Bytes in an HMAC-SHA256 tag.
pub(crate) const TAG_LEN: usize = 32;

#[cfg(feature = "ring")]
mod backend {
    use super::TAG_LEN;
    use ring::hmac;

    #[derive(Clone)]
    pub(crate) struct Key(hmac::Key);

    impl Key {
        pub(crate) fn new(bytes: &[u8]) -> Self {
            Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
        }
    }

    #[derive(Clone)]
    pub(crate) struct Mac(hmac::Context);

    impl Mac {
        pub(crate) fn new(key: &Key) -> Self {
            Self(hmac::Context::with_key(&key.0))
        }

        pub(crate) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        /// The tag of what came so far. It always has `TAG_LEN` bytes; had it not, `None` would
        /// match no signature.
        pub(crate) fn finish(&self) -> Option<[u8; TAG_LEN]> {
            self.0.clone().sign().as_ref().try_into().ok()
        }
    }
}

#[cfg(all(feature = "rustcrypto", not(feature = "ring")))]
mod backend {
    use super::TAG_LEN;
    use hmac::{Hmac, KeyInit, Mac as _};
    use sha2::{Digest, Sha256};

    /// Bytes in a SHA-256 block, the longest key that HMAC takes as it stands.
    const BLOCK_LEN: usize = 64;

    #[derive(Clone)]
    pub(crate) struct Key(Hmac<Sha256>);

    impl Key {
        /// RFC 2104 section 2: a key longer than a block is hashed first, a shorter one is
        /// filled up with zeros.
        pub(crate) fn new(bytes: &[u8]) -> Self {
            let digest;
            let short = if bytes.len() > BLOCK_LEN {
                digest = Sha256::digest(bytes);
                digest.as_slice()
            } else {
                bytes
            };
            let mut block = [0; BLOCK_LEN];
            for (to, from) in block.iter_mut().zip(short) {
                *to = *from;
            }
            Self(Hmac::new(&block.into()))
        }
    }

    #[derive(Clone)]
    pub(crate) struct Mac(Hmac<Sha256>);

    impl Mac {
        pub(crate) fn new(key: &Key) -> Self {
            Self(key.0.clone())
        }

        pub(crate) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        /// The tag of what came so far; never `None`.
        pub(crate) fn finish(&self) -> Option<[u8; TAG_LEN]> {
            Some(self.0.clone().finalize().into_bytes().into())
        }
    }
}

#[cfg(not(any(feature = "ring", feature = "rustcrypto")))]
compile_error!("pleo-webhook-verify needs a backend: enable the feature `ring` or `rustcrypto`");

#[cfg(any(feature = "ring", feature = "rustcrypto"))]
pub(crate) use backend::{Key, Mac};
