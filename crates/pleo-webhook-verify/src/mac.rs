//! HMAC-SHA256 by `ring` or RustCrypto. No other file names a backend.
//!
//! Cargo unifies features over a build, so both backends can be on. `ring` is used then: a feature
//! that another crate enables must not change how this one works.

/// Bytes in an HMAC-SHA256 tag.
pub(crate) const TAG_LEN: usize = 32;

#[cfg(feature = "ring")]
mod backend {
    use ring::hmac;

    pub(crate) use hmac::Tag;

    #[derive(Clone)]
    pub(crate) struct Key(hmac::Key);

    impl Key {
        /// Prepares a key; never `None` with this backend.
        pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
            Some(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
        }
    }

    pub(crate) struct Mac(hmac::Context);

    impl Mac {
        pub(crate) fn new(key: &Key) -> Self {
            Self(hmac::Context::with_key(&key.0))
        }

        pub(crate) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub(crate) fn finish(&self) -> Tag {
            self.0.clone().sign()
        }
    }
}

#[cfg(all(feature = "rustcrypto", not(feature = "ring")))]
mod backend {
    use hmac::{Hmac, KeyInit, Mac as _};
    use sha2::Sha256;

    pub(crate) type Tag = hmac::digest::Output<Sha256>;

    #[derive(Clone)]
    pub(crate) struct Key(Hmac<Sha256>);

    impl Key {
        /// Prepares a key; `None` if HMAC rejects its length, which it does for none.
        pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
            Hmac::new_from_slice(bytes).ok().map(Self)
        }
    }

    pub(crate) struct Mac(Hmac<Sha256>);

    impl Mac {
        pub(crate) fn new(key: &Key) -> Self {
            Self(key.0.clone())
        }

        pub(crate) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub(crate) fn finish(&self) -> Tag {
            self.0.clone().finalize().into_bytes()
        }
    }
}

#[cfg(not(any(feature = "ring", feature = "rustcrypto")))]
compile_error!("pleo-webhook-verify needs a backend: enable the feature `ring` or `rustcrypto`");

#[cfg(any(feature = "ring", feature = "rustcrypto"))]
pub(crate) use backend::{Key, Mac, Tag};
