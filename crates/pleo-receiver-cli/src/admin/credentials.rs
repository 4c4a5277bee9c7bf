//! The credentials of the admin listener.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq as _;

/// Bearer tokens, Basic credentials, or both. Each gives access.
#[derive(PartialEq, Eq)]
pub(crate) struct Credentials {
    token: Option<String>,
    /// A token without actions.
    read_token: Option<String>,
    /// `user:password`
    basic: Option<String>,
}

/// Who has access, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name of the user, or the kind of the credentials.
    pub(crate) name: String,
    /// Whether the account may replay, pause and resume.
    pub(crate) may_act: bool,
}

impl Credentials {
    /// Creates credentials; `None` without a token and Basic credentials.
    pub(crate) fn new(
        token: Option<String>,
        read_token: Option<String>,
        basic: Option<(String, String)>,
    ) -> Option<Self> {
        let basic = basic.map(|(user, password)| format!("{user}:{password}"));
        let is_some = token.is_some() || read_token.is_some() || basic.is_some();
        is_some.then_some(Self {
            token,
            read_token,
            basic,
        })
    }

    /// Returns the value of the header `Authorization` with which a client gets access; `None` if it
    /// cannot be sent in HTTP.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let value = match (
            self.token.as_ref().or(self.read_token.as_ref()),
            &self.basic,
        ) {
            (Some(token), _) => format!("Bearer {token}"),
            (None, Some(basic)) => format!("Basic {}", STANDARD.encode(basic)),
            (None, None) => return None,
        };
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns `true` if the request has a token (RFC 6750 section 2.1) or the Basic credentials
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
        if scheme.eq_ignore_ascii_case("bearer") {
            self.account_of_token(given).is_some()
        } else if scheme.eq_ignore_ascii_case("basic") {
            let given = STANDARD.decode(given);
            given.is_ok_and(|given| is_equal(&given, self.basic.as_ref()))
        } else {
            false
        }
    }

    /// Returns the account of a token, or of a user and a password.
    pub(super) fn sign_in(&self, user: &str, secret: &str) -> Option<Account> {
        if user.is_empty() {
            return self.account_of_token(secret);
        }
        let given = format!("{user}:{secret}");
        is_equal(given.as_bytes(), self.basic.as_ref()).then(|| Account {
            name: user.to_owned(),
            may_act: true,
        })
    }

    /// Returns `true` if there are a user and a password.
    pub(super) const fn has_user(&self) -> bool {
        self.basic.is_some()
    }

    /// Returns the challenge of an answer with status 401.
    pub(super) const fn challenge(&self) -> &'static str {
        match self.basic {
            Some(_) => "Basic realm=\"pleo-receiver\", charset=\"UTF-8\"",
            None => "Bearer realm=\"pleo-receiver\"",
        }
    }

    fn account_of_token(&self, given: &str) -> Option<Account> {
        let given = given.as_bytes();
        let is_token = is_equal(given, self.token.as_ref());
        let is_read_token = is_equal(given, self.read_token.as_ref());
        let name = match (is_token, is_read_token) {
            (true, _) => "admin_token",
            (false, true) => "admin_read_token",
            (false, false) => return None,
        };
        Some(Account {
            name: name.to_owned(),
            may_act: is_token,
        })
    }
}

fn is_equal(given: &[u8], expected: Option<&String>) -> bool {
    expected.is_some_and(|expected| given.ct_eq(expected.as_bytes()).into())
}
