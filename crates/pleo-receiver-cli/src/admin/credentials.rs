//! The credentials of the admin listener.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq as _;

/// The least length of a token that is always accepted, however many wrong guesses came before it: that
/// of 128 random bits in Base64. Guesses of a shorter one are limited.
const LONG_TOKEN: usize = 22;

/// Bearer tokens, Basic credentials, or both. Each gives access.
#[derive(PartialEq, Eq)]
pub(crate) struct Credentials {
    token: Option<String>,
    /// A token without actions.
    read_token: Option<String>,
    /// The user and the password.
    basic: Option<(String, String)>,
}

/// Who has access, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name of the user, or the kind of the credentials.
    pub(crate) name: String,
    /// Whether the account may replay, pause and resume.
    pub(crate) may_act: bool,
}

/// The credentials that a client sent.
pub(super) enum Claim {
    Token(Vec<u8>),
    User { name: Vec<u8>, password: Vec<u8> },
}

impl Claim {
    /// Reads a token (RFC 6750 section 2.1) or Basic credentials (RFC 7617 section 2); `None` if the
    /// request has neither, or several.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return None;
        };
        let (scheme, given) = value.to_str().ok()?.split_once(' ')?;
        let given = given.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Token(given.into()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let given = STANDARD.decode(given).ok()?;
        // A user has no colon.
        let mut parts = given.splitn(2, |byte| *byte == b':').map(<[u8]>::to_vec);
        Some(Self::User {
            name: parts.next()?,
            password: parts.next()?,
        })
    }
}

impl Credentials {
    /// Creates credentials; `None` without a token and Basic credentials.
    pub(crate) fn new(
        token: Option<String>,
        read_token: Option<String>,
        basic: Option<(String, String)>,
    ) -> Option<Self> {
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
            (None, Some((user, password))) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            (None, None) => return None,
        };
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns the account of right credentials. The time of the comparison depends only on the
    /// lengths.
    pub(super) fn check(&self, claim: &Claim) -> Option<Account> {
        match claim {
            Claim::Token(token) => self.account_of_token(token),
            Claim::User { name, password } => {
                let (expected, expected_password) = self.basic.as_ref()?;
                let is_right =
                    name.ct_eq(expected.as_bytes()) & password.ct_eq(expected_password.as_bytes());
                bool::from(is_right).then(|| Account {
                    name: expected.clone(),
                    may_act: true,
                })
            }
        }
    }

    /// Returns the account of a right token that nobody can guess.
    pub(super) fn check_long_token(&self, claim: &Claim) -> Option<Account> {
        let is_long = matches!(claim, Claim::Token(token) if token.len() >= LONG_TOKEN);
        self.check(claim).filter(|_| is_long)
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

    fn account_of_token(&self, given: &[u8]) -> Option<Account> {
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
