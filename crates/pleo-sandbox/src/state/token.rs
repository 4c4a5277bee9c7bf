//! Credentials for the API.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An accepted bearer token or API key, with its company and scopes.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    pub(crate) authorization: String,
    pub(crate) company: Option<Uuid>,
    pub(crate) scopes: Vec<String>,
}

impl Token {
    /// An OAuth bearer token.
    #[must_use]
    pub fn bearer(token: &str) -> Self {
        Self::new(format!("Bearer {token}"))
    }

    /// An API key, sent as the username of Basic credentials.
    #[must_use]
    pub fn api_key(key: &str) -> Self {
        Self::new(format!("Basic {}", STANDARD.encode(format!("{key}:"))))
    }

    const fn new(authorization: String) -> Self {
        Self {
            authorization,
            company: None,
            scopes: Vec::new(),
        }
    }

    /// Adds scopes.
    #[must_use]
    pub fn scopes<'a>(mut self, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        self.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// Sets the company; by default a new one.
    #[must_use]
    pub const fn company(mut self, company: Uuid) -> Self {
        self.company = Some(company);
        self
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("company", &self.company)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// The company and the scopes of an authenticated request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) company: Uuid,
    pub(crate) scopes: Vec<String>,
}

impl Identity {
    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| granted == scope)
    }
}
