//! URLs that users give.

use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use reqwest::{Client, RequestBuilder, Url};
use rustls::RootCertStore;

use crate::Error;
use crate::client::{root_certificates, with_roots};

/// An `http` or `https` URL, and the user and password that it had.
///
/// Path and query are sent as given, except that characters which a URL may not contain are
/// percent-encoded. A URL that [`Url`] repairs or rewrites, such as `http:host` or
/// `http://host/a/../b`, is an error.
#[derive(Clone)]
pub struct Target {
    url: Url,
    credentials: Option<HeaderValue>,
}

impl Target {
    /// Returns the URL without user and password. Its path and query may still hold secrets.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Builds a client for this target. Reads the machine's root certificates only if the URL is
    /// `https`.
    ///
    /// # Errors
    /// [`Error::NoRoots`] if the URL is `https` and the machine has no root certificates;
    /// [`Error::Client`] if the client cannot be set up.
    pub fn client(&self, user_agent: &str) -> Result<Client, Error> {
        let roots = if self.url.scheme() == "https" {
            root_certificates(&[])?
        } else {
            RootCertStore::empty()
        };
        with_roots(user_agent, roots)
    }

    /// Starts a POST request, with user and password as Basic credentials (RFC 7617).
    pub fn post(&self, client: &Client) -> RequestBuilder {
        let request = client.post(self.url.clone());
        match &self.credentials {
            Some(credentials) => request.header(AUTHORIZATION, credentials.clone()),
            None => request,
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // `Url::parse` removes or encodes whitespace.
        if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return Err(invalid("it has whitespace that must be percent-encoded"));
        }
        let mut url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("its scheme is not `http` or `https`"));
        }
        if url.fragment().is_some() {
            return Err(invalid("it has a fragment (`#…`)"));
        }
        // `Url::parse` also repairs what `Uri` rejects, such as `http:host`.
        let uri = text.parse::<Uri>();
        let uri = uri.map_err(|_| invalid("it has a character that must be percent-encoded"))?;
        let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(invalid("it has no host after `//`"));
        };
        let credentials = match authority.as_str().rsplit_once('@') {
            Some((userinfo, _)) => Some(basic(userinfo)?),
            None => None,
        };
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(invalid("it has no host"));
        }
        let query = uri.query().unwrap_or_default();
        let same_query = is_same(query, url.query().unwrap_or_default());
        if !is_same(uri.path(), url.path()) || !same_query {
            return Err(invalid("its path has a segment `.` or `..`, or a `\\`"));
        }
        Ok(Self { url, credentials })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("origin", &self.url.origin().ascii_serialization())
            .finish_non_exhaustive()
    }
}

fn invalid(reason: &str) -> Error {
    let reason = reason.to_owned();
    Error::Url { reason }
}

/// Returns `true` if two texts differ at most in percent-encoding.
fn is_same(one: &str, other: &str) -> bool {
    percent_decode_str(one).eq(percent_decode_str(other))
}

/// Returns the `Authorization` of a URL's `user:password`.
fn basic(userinfo: &str) -> Result<HeaderValue, Error> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let value = format!("Basic {}", STANDARD.encode(plain));
    let value = HeaderValue::try_from(value);
    let mut value = value.map_err(|_| invalid("its user and password cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_url_that_would_be_rewritten() {
        for (url, reason) in [
            ("http://u:pass@host", ""),
            ("https://host//a%2Fb/..c/...?x=/../", ""),
            ("http://host/é", ""),
            ("ftp://u:pass@host/", "scheme"),
            ("http://u:pass@host/#x", "fragment"),
            ("http:u:pass@host", "no host"),
            ("http:///u:pass@host", "percent-encoded"),
            ("http://u:pass@host/a b", "percent-encoded"),
            ("http://u:pass@host/a\tb", "percent-encoded"),
            ("http://u:pass@host/a/../b", "`..`"),
            ("http://u:pass@host/%2E./b", "`..`"),
            ("http://u:pass@host/a\\b", "`\\`"),
            ("/u:pass@host", "relative URL"),
        ] {
            let error = url.parse::<Target>().err();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error.is_empty(), reason.is_empty(), "{url}: {error}");
            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains("pass"), "{error}");
        }
    }

    #[test]
    fn hides_user_and_password() {
        let target: Target = "http://u:hunter2@host/path".parse().unwrap();
        assert_eq!(target.url().as_str(), "http://host/path");
        assert_eq!(target.credentials.as_ref().unwrap(), "Basic dTpodW50ZXIy");
        let request = target.post(&target.client("test").unwrap());
        for text in [format!("{target:?}"), format!("{request:?}")] {
            assert!(
                !text.contains("hunter2") && !text.contains("dTpo"),
                "{text}"
            );
        }
    }
}
