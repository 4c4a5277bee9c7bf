//! An endpoint: its path, secrets, credentials, required headers and allowed networks.

use core::fmt;
use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use pleo_webhook_verify::{Secret, SecretCountError, Verifier};
use subtle::ConstantTimeEq;

use crate::client_ip;
use crate::rejection::Rejection;

/// Receives the deliveries of one subscription at one path.
#[derive(Clone)]
pub struct Endpoint {
    name: Arc<str>,
    path: String,
    verifier: Verifier,
    secrets: Vec<Secret>,
    /// `user:password`
    credentials: Option<Bytes>,
    required_headers: Vec<(HeaderName, HeaderValue)>,
    allowed_sources: Vec<IpNet>,
}

impl Endpoint {
    /// Creates an endpoint at `path` for deliveries signed with `secret`. The path is also its name.
    ///
    /// # Errors
    /// The path doesn't begin with `/`, or contains a query, a fragment, a space, a control
    /// character or a non-ASCII character.
    pub fn new(path: impl Into<String>, secret: Secret) -> Result<Self, EndpointError> {
        let path = path.into();
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(is_allowed) {
            return Err(EndpointError::Path { path });
        }
        Ok(Self {
            name: path.as_str().into(),
            path,
            secrets: vec![secret.clone()],
            verifier: Verifier::new(secret),
            credentials: None,
            required_headers: Vec::new(),
            allowed_sources: Vec::new(),
        })
    }

    /// Sets the name; the path unless set. Messages are stored under the name and their
    /// `webhook-id`, so keep the name when the path changes.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a secret. Use it to accept the old and the new secret during a rotation.
    ///
    /// # Errors
    /// The endpoint already has [`Verifier::MAX_SECRETS`] secrets.
    pub fn and_secret(mut self, secret: Secret) -> Result<Self, SecretCountError> {
        self.verifier = self.verifier.and_secret(secret.clone())?;
        self.secrets.push(secret);
        Ok(self)
    }

    /// Sets by how much a timestamp may differ from now, in the past or the future;
    /// [`Verifier::DEFAULT_TOLERANCE`] unless set.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.verifier = self.verifier.with_tolerance(tolerance);
        self
    }

    /// Requires Basic credentials (RFC 7617) in addition to the signature. Pleo sends those of the
    /// subscription's `endpointAuth`.
    #[must_use]
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some(format!("{username}:{password}").into());
        self
    }

    /// Requires a header in addition to the signature. Pleo sends those of the subscription's
    /// `customHeaders`.
    ///
    /// # Errors
    /// The name or the value is not valid in an HTTP header.
    pub fn require_header(mut self, name: &str, value: &str) -> Result<Self, EndpointError> {
        let parsed = name.parse().ok().zip(value.parse().ok());
        let (parsed, mut value): (HeaderName, HeaderValue) =
            parsed.ok_or_else(|| EndpointError::Header { name: name.into() })?;
        value.set_sensitive(true);
        self.required_headers.push((parsed, value));
        Ok(self)
    }

    /// Allows requests only from these networks, and from those of earlier calls; all networks
    /// unless set.
    ///
    /// ```
    /// use pleo_receiver::{Endpoint, PLEO_EU};
    ///
    /// # fn endpoint(endpoint: Endpoint) -> Result<Endpoint, pleo_receiver::ipnet::AddrParseError> {
    /// # Ok(
    /// endpoint.allow_sources(PLEO_EU).allow_sources(&["10.0.0.0/8".parse()?])
    /// # )}
    /// ```
    #[must_use]
    pub fn allow_sources(mut self, networks: &[IpNet]) -> Self {
        self.allowed_sources.extend(networks);
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Returns the signing secrets.
    #[must_use]
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// Checks host, method, source address, content type and content length, in this order.
    pub(crate) fn check_request(
        &self,
        method: &Method,
        headers: &HeaderMap,
        source: Option<IpAddr>,
        body_limit: usize,
    ) -> Result<(), Rejection> {
        // RFC 9112 section 3.2: two `Host` headers are a bad request.
        if headers.get_all(HOST).iter().nth(1).is_some() {
            return Err(Rejection::AmbiguousHost);
        }
        if method != Method::POST {
            return Err(Rejection::MethodNotAllowed);
        }
        let allowed = |address| client_ip::contains(&self.allowed_sources, address);
        if !self.allowed_sources.is_empty() && !source.is_some_and(allowed) {
            return Err(Rejection::SourceNotAllowed);
        }
        if !single(headers, &CONTENT_TYPE).is_some_and(is_json) {
            return Err(Rejection::NotJson);
        }
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(Rejection::ContentEncoding);
        }
        let length = headers.get(CONTENT_LENGTH).map(HeaderValue::to_str);
        if let Some(Ok(length)) = length
            && length.parse::<usize>().map_or(true, |len| len > body_limit)
        {
            return Err(Rejection::BodyTooLarge { limit: body_limit });
        }
        Ok(())
    }

    /// Checks the Basic credentials and the required headers.
    pub(crate) fn check_credentials(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        if let Some(expected) = &self.credentials
            && !single(headers, &AUTHORIZATION)
                .is_some_and(|value| has_credentials(value, expected))
        {
            return Err(Rejection::WrongCredentials);
        }
        let matches = |(name, expected): &(HeaderName, HeaderValue)| {
            single(headers, name)
                .is_some_and(|value| constant_time_eq(value.as_bytes(), expected.as_bytes()))
        };
        if self.required_headers.iter().all(matches) {
            Ok(())
        } else {
            Err(Rejection::WrongHeader)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.required_headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("verifier", &self.verifier)
            .field("has_credentials", &self.credentials.is_some())
            .field("required_headers", &headers)
            .field("allowed_sources", &self.allowed_sources)
            .finish()
    }
}

/// Why an endpoint is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The path is invalid.
    #[error(
        "invalid path `{path}`: it must begin with `/`; `?`, `#`, spaces and non-ASCII characters are not allowed"
    )]
    Path {
        /// The invalid path.
        path: String,
    },
    /// A required header is invalid. Its value may be secret, so the error leaves it out.
    #[error("invalid required header `{name}`: its name or value is not valid in HTTP")]
    Header {
        /// The header's name.
        name: String,
    },
}

/// Returns `true` for `application/json` and `application/*+json`, with or without parameters.
fn is_json(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    let suffix = subtype.rsplit('+').next().unwrap_or_default();
    kind.eq_ignore_ascii_case("application") && suffix.eq_ignore_ascii_case("json")
}

/// Compares Basic credentials (RFC 7617 section 2) with `user:password`.
fn has_credentials(value: &HeaderValue, expected: &[u8]) -> bool {
    let Some((scheme, encoded)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return false;
    };
    let Ok(given) = STANDARD.decode(encoded.trim_start()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("basic") && constant_time_eq(&given, expected)
}

/// Returns the value of a header that occurs exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Compares in a time that depends only on the lengths.
fn constant_time_eq(given: &[u8], expected: &[u8]) -> bool {
    given.ct_eq(expected).into()
}
