//! An endpoint: a path, and what a request to it must bring.

use core::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use pleo_webhook_verify::{Secret, TooManySecrets, Verifier};
use subtle::ConstantTimeEq;

use crate::Rejection;
use crate::client_ip;

/// A path that takes the deliveries of one subscription.
#[derive(Clone)]
pub struct Endpoint {
    name: Arc<str>,
    path: String,
    verifier: Verifier,
    /// `user:password`
    credentials: Option<Bytes>,
    headers: Vec<(HeaderName, HeaderValue)>,
    sources: Vec<IpNet>,
}

impl Endpoint {
    /// An endpoint at `path`, which is also its name, for deliveries signed with `secret`.
    ///
    /// # Errors
    /// The path doesn't begin with `/`, or holds a query, a fragment, a space or a control character.
    pub fn new(path: impl Into<String>, secret: Secret) -> Result<Self, EndpointError> {
        let path = path.into();
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(plain) {
            return Err(EndpointError::Path { path });
        }
        Ok(Self {
            name: path.as_str().into(),
            path,
            verifier: Verifier::new(secret),
            credentials: None,
            headers: Vec::new(),
            sources: Vec::new(),
        })
    }

    /// Names the endpoint otherwise than by its path. Together with the `webhook-id`, the name is
    /// the key that messages are stored under: keep it when the path changes.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes deliveries signed with this secret too, while secrets are rotated.
    ///
    /// # Errors
    /// There are [`Verifier::MAX_SECRETS`] already.
    pub fn and_secret(mut self, secret: Secret) -> Result<Self, TooManySecrets> {
        self.verifier = self.verifier.and_secret(secret)?;
        Ok(self)
    }

    /// Sets how many seconds a delivery's timestamp may lie from now, either way;
    /// [`Verifier::DEFAULT_TOLERANCE`] unless set.
    #[must_use]
    pub fn tolerance(mut self, seconds: u64) -> Self {
        self.verifier = self.verifier.with_tolerance(seconds);
        self
    }

    /// Asks for Basic credentials beside the signature, as a subscription's `endpointAuth` sends them.
    #[must_use]
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some(format!("{username}:{password}").into());
        self
    }

    /// Asks for a header beside the signature, as a subscription's `customHeaders` send it.
    ///
    /// # Errors
    /// The name or the value can't stand in an HTTP header.
    pub fn require_header(mut self, name: &str, value: &str) -> Result<Self, EndpointError> {
        let parsed = name.parse().ok().zip(value.parse().ok());
        let (parsed, mut value): (HeaderName, HeaderValue) =
            parsed.ok_or_else(|| EndpointError::Header { name: name.into() })?;
        value.set_sensitive(true);
        self.headers.push((parsed, value));
        Ok(self)
    }

    /// Allows requests from these networks only; all are allowed while none is named.
    #[must_use]
    pub fn allow_sources(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.sources.extend(networks);
        self
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The checks that need neither the signature nor the body, in their order.
    pub(crate) fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        source: Option<std::net::IpAddr>,
        body_limit: usize,
    ) -> Result<(), Rejection> {
        // RFC 9112 section 3.2: what two servers could take for different hosts is no request.
        if headers.get_all(HOST).iter().nth(1).is_some() {
            return Err(Rejection::AmbiguousHost);
        }
        if method != Method::POST {
            return Err(Rejection::MethodNotAllowed);
        }
        let allowed = |address| client_ip::contains(&self.sources, address);
        if !self.sources.is_empty() && !source.is_some_and(allowed) {
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

    /// The checks of what a subscription sends beside its signature.
    pub(crate) fn check_extras(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        if let Some(expected) = &self.credentials
            && !single(headers, &AUTHORIZATION)
                .is_some_and(|value| has_credentials(value, expected))
        {
            return Err(Rejection::WrongCredentials);
        }
        let present = |(name, expected): &(HeaderName, HeaderValue)| {
            single(headers, name).is_some_and(|value| same(value.as_bytes(), expected.as_bytes()))
        };
        if self.headers.iter().all(present) {
            Ok(())
        } else {
            Err(Rejection::WrongHeader)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("verifier", &self.verifier)
            .field("has_credentials", &self.credentials.is_some())
            .field("headers", &headers)
            .field("sources", &self.sources)
            .finish()
    }
}

/// Why there can't be such an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The path isn't one.
    #[error("`{path}` is not a path: it must begin with `/` and hold no `?`, `#` or space")]
    Path {
        /// What was given.
        path: String,
    },
    /// The header isn't one. Its value may be secret, so it isn't named.
    #[error("the required header `{name}` or its value cannot stand in an HTTP request")]
    Header {
        /// The header's name.
        name: String,
    },
}

/// `application/json`, or any type of `application/` with the suffix `+json`; with or without
/// parameters.
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

/// RFC 7617 section 2: `Basic` and the base64 of user, colon, password.
fn has_credentials(value: &HeaderValue, expected: &[u8]) -> bool {
    let Some((scheme, encoded)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return false;
    };
    let Ok(given) = STANDARD.decode(encoded.trim_start()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("basic") && same(&given, expected)
}

/// A header's value where it stands exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Compares in a time that depends on the lengths only.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.ct_eq(expected).into()
}
