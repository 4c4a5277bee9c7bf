//! The HTTP client of the program.

use core::error::Error;
use core::time::Duration;
use std::io::{self, ErrorKind};

use http::Uri;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::failure::{Failure, chain};

const USER_AGENT: &str = concat!("pleo-receiver/", env!("CARGO_PKG_VERSION"));

/// The time limit of a request: the same as Pleo's.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many bytes of an answer are read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

/// Builds a client for this URL. It trusts the machine's certificate authorities, or those in
/// SSL_CERT_FILE, uses no proxy and follows no redirects.
pub(crate) fn build(url: &Url) -> Result<Client, Failure> {
    let mut roots = RootCertStore::empty();
    if url.scheme() == "https" {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let why = "no certificate authorities on this machine: install `ca-certificates`, or \
                       set SSL_CERT_FILE";
            return Err(Failure::Run(why.to_owned()));
        }
    }
    // Named explicitly: another crate of the program may enable a second provider.
    let provider = rustls::crypto::ring::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::run(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .no_proxy()
        .redirect(Policy::none())
        .build()
        .map_err(|error| Failure::run(&error))
}

/// Parses an `http` or `https` URL. The error does not show it, since it may hold a password.
pub(crate) fn parse_url(text: &str) -> Result<Url, String> {
    let url: Url = text
        .parse()
        .map_err(|error| format!("{}; give `https://host/path`", chain(&error)))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("its scheme is neither `http` nor `https`".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it has a fragment (`#…`)".to_owned());
    }
    // `Url` repairs and rewrites what it does not like; the request would go elsewhere.
    let is_dots = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(&*segment, "." | "..")
    };
    let is_rewritten = |uri: &Uri| uri.path().contains('\\') || uri.path().split('/').any(is_dots);
    match text.parse::<Uri>() {
        Ok(uri) if uri.scheme().is_none() || uri.authority().is_none() => {
            Err("it has no host after `//`".to_owned())
        }
        Ok(uri) if is_rewritten(&uri) => {
            Err("its path has a segment `.` or `..`, or a `\\`".to_owned())
        }
        Ok(_) => Ok(url),
        Err(_) => Err("it has a character that must be percent-encoded".to_owned()),
    }
}

/// Sends a request, and reads the answer. The error does not show the URL, since it may hold a
/// password.
pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    // An incomplete body does not change the status.
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= ANSWER_LIMIT {
            body.truncate(ANSWER_LIMIT);
            break;
        }
    }
    Ok(Answer {
        status: response.status(),
        body,
    })
}

/// Returns the innermost cause of an error, which is the most specific.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let causes = core::iter::successors(Some::<&dyn Error>(error), |&error| error.source());
    causes.last().map_or_else(String::new, |cause| {
        let io = cause.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof) {
            // The text of this rustls error is a link to its manual.
            return "the connection was closed".to_owned();
        }
        cause.to_string()
    })
}

impl Answer {
    /// Returns the `code` of a problem document (RFC 9457), or an empty text.
    pub(crate) fn code(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let code = problem.get("code").and_then(Value::as_str);
        code.unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::parse_url;

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
            let error = parse_url(url).err().unwrap_or_default();
            assert_eq!(error.is_empty(), reason.is_empty(), "{url}: {error}");
            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains("pass"), "{error}");
        }
    }
}
