//! Credentials that Pleo adds to each delivery.

use pleo_events::open_enum;
use serde::Deserialize;

use crate::error::InvalidRequest;
use crate::sensitive::{Extra, Sensitive};

/// How a delivery is authenticated besides its signature.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct EndpointAuth {
    /// The authentication scheme.
    #[serde(rename = "type")]
    pub kind: AuthType,
    /// The credentials of the scheme.
    #[serde(default)]
    pub credentials: Option<AuthCredentials>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl EndpointAuth {
    /// Sends no credentials.
    #[must_use]
    pub fn none() -> Self {
        Self {
            kind: AuthType::None,
            credentials: None,
            extra: Extra::default(),
        }
    }

    /// Sends Basic credentials (RFC 7617).
    pub fn basic(username: impl Into<Sensitive>, password: impl Into<Sensitive>) -> Self {
        Self {
            kind: AuthType::Basic,
            credentials: Some(AuthCredentials {
                username: Some(username.into()),
                password: Some(password.into()),
                token: None,
                extra: Extra::default(),
            }),
            extra: Extra::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), InvalidRequest> {
        let credentials = self.credentials.as_ref();
        let is_complete =
            credentials.is_some_and(|parts| parts.username.is_some() && parts.password.is_some());
        if self.kind == AuthType::Basic && !is_complete {
            return Err(InvalidRequest::BasicWithoutCredentials);
        }
        Ok(())
    }
}

open_enum! {
    /// The authentication schemes of [`EndpointAuth`].
    AuthType {
        /// No credentials.
        None = "NONE",
        /// `Authorization: Basic …`.
        Basic = "BASIC",
    }
}

/// The credentials of [`EndpointAuth`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct AuthCredentials {
    /// The user name.
    #[serde(default)]
    pub username: Option<Sensitive>,
    /// The password.
    #[serde(default)]
    pub password: Option<Sensitive>,
    /// A token. No scheme uses it yet.
    #[serde(default)]
    pub token: Option<Sensitive>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl AuthCredentials {
    /// Returns the names and values of the fields that are set.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, &Sensitive)> {
        [
            ("username", &self.username),
            ("password", &self.password),
            ("token", &self.token),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }
}
