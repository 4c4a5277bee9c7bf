//! The credentials of the admin listener.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq as _;

/// A bearer token, Basic credentials, or both. Either gives access.
pub(crate) struct Credentials {
    token: Option<String>,
    /// `user:password`
    basic: Option<String>,
}

impl Credentials {
    /// Creates credentials; `None` without a token and Basic credentials.
    pub(crate) fn new(token: Option<String>, basic: Option<(String, String)>) -> Option<Self> {
        let basic = basic.map(|(user, password)| format!("{user}:{password}"));
        (token.is_some() || basic.is_some()).then_some(Self { token, basic })
    }

    /// Returns the value of the header `Authorization` with which a client gets access; `None` if it
    /// cannot be sent in HTTP.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let value = match (&self.token, &self.basic) {
            (Some(token), _) => format!("Bearer {token}"),
            (None, Some(basic)) => format!("Basic {}", STANDARD.encode(basic)),
            (None, None) => return None,
        };
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns `true` if the request has the token (RFC 6750 section 2.1) or the Basic credentials
    /// (RFC 7617 section 2). The time of the comparison depends only on the lengths.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let Some((scheme, given)) = value.to_str().ok().and_then(|text| text.split_once(' '))
        else {
            return false;
        };
        let given = given.trim_start();
        let (given, expected) = if scheme.eq_ignore_ascii_case("bearer") {
            (Some(given.as_bytes().to_vec()), &self.token)
        } else if scheme.eq_ignore_ascii_case("basic") {
            (STANDARD.decode(given).ok(), &self.basic)
        } else {
            return false;
        };
        match (given, expected) {
            (Some(given), Some(expected)) => given.ct_eq(expected.as_bytes()).into(),
            _ => false,
        }
    }

    /// Returns the challenge of an answer with status 401.
    pub(super) const fn challenge(&self) -> &'static str {
        match self.basic {
            Some(_) => "Basic realm=\"pleo-receiver\", charset=\"UTF-8\"",
            None => "Bearer realm=\"pleo-receiver\"",
        }
    }
}
