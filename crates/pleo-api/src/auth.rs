//! Credentials for Pleo's API.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::error::ConfigError;
use crate::sensitive::Sensitive;

/// Credentials for Pleo's API: a bearer token or an API key, of one company or organization.
#[derive(Clone)]
pub struct Credentials {
    header: HeaderValue,
    secret: Sensitive,
}

impl Credentials {
    /// Authenticates by an OAuth token (JWT), sent as `Authorization: Bearer …`.
    ///
    /// # Errors
    /// [`ConfigError::Credentials`] if the token is empty or not visible ASCII.
    pub fn bearer(token: &str) -> Result<Self, ConfigError> {
        Self::new(token, &format!("Bearer {token}"))
    }

    /// Authenticates by an API key, sent as the user name of Basic credentials (RFC 7617) with an
    /// empty password.
    ///
    /// # Errors
    /// [`ConfigError::Credentials`] if the key is empty, not visible ASCII, or has a colon, which
    /// would end the user name.
    pub fn api_key(key: &str) -> Result<Self, ConfigError> {
        if key.contains(':') {
            return Err(ConfigError::Credentials);
        }
        Self::new(
            key,
            &format!("Basic {}", STANDARD.encode(format!("{key}:"))),
        )
    }

    fn new(secret: &str, header: &str) -> Result<Self, ConfigError> {
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::Credentials);
        }
        let mut header = HeaderValue::from_str(header).map_err(|_| ConfigError::Credentials)?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            secret: secret.into(),
        })
    }

    pub(crate) const fn header(&self) -> &HeaderValue {
        &self.header
    }

    pub(crate) const fn secret(&self) -> &Sensitive {
        &self.secret
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
