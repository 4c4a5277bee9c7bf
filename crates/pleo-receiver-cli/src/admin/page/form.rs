//! The parameters of requests, and the check of their origin.

use std::collections::BTreeMap;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

/// The largest form in bytes.
pub(super) const LIMIT: usize = 16 * 1024;

/// The parameters of a query or a form. Of several with one name, the last counts.
#[derive(Clone, Debug, Default)]
pub(in crate::admin) struct Form(BTreeMap<String, String>);

impl Form {
    /// Parses `application/x-www-form-urlencoded`.
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// Returns a parameter without surrounding spaces; empty if it is missing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.exact(name).trim()
    }

    /// Returns a parameter as it is; empty if it is missing.
    pub(super) fn exact(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value)
    }

    /// Returns a parameter that is not empty.
    pub(super) fn some(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }
}

/// Encodes a path with parameters.
pub(super) fn link<'a>(
    path: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    let query = query.finish();
    if query.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{query}")
}

/// Returns whether the browser uses TLS; `None` if the request doesn't come from a page of this host.
/// Browsers name the origin of each form (RFC 6454 section 7).
pub(super) fn same_origin(headers: &HeaderMap) -> Option<bool> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return None;
    };
    let origin: Uri = origin.to_str().ok()?.parse().ok()?;
    let host = headers.get(HOST)?.to_str().ok()?;
    let is_own = origin.authority()?.as_str().eq_ignore_ascii_case(host);
    let scheme = origin.scheme_str()?;
    (is_own && matches!(scheme, "http" | "https")).then_some(scheme == "https")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn accepts_only_forms_of_own_pages() {
        for (origin, is_tls) in [
            ("http://localhost:9187", Some(false)),
            ("https://LOCALHOST:9187", Some(true)),
            ("http://localhost:9188", None),
            ("http://localhost", None),
            ("http://evil.example", None),
            ("http://localhost:9187.evil.example", None),
            ("ftp://localhost:9187", None),
            ("null", None),
            ("", None),
        ] {
            let headers = [(HOST, "localhost:9187"), (ORIGIN, origin)];
            let mut headers: HeaderMap = headers
                .map(|(name, value)| (name, HeaderValue::from_static(value)))
                .into_iter()
                .collect();
            assert_eq!(same_origin(&headers), is_tls, "{origin}");
            headers.append(ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(same_origin(&headers), None, "two origins");
            headers.remove(ORIGIN);
            assert_eq!(same_origin(&headers), None, "no origin");
        }
    }

    #[test]
    fn encodes_what_it_parses() {
        let text = link("/message", [("id", "a&b=c <é>"), ("endpoint", "/x")]);
        let (path, query) = text.split_once('?').unwrap();
        let form = Form::parse(query.as_bytes());
        assert_eq!((path, form.get("id")), ("/message", "a&b=c <é>"));
        assert_eq!(form.some("endpoint"), Some("/x"));
        assert_eq!((form.get("other"), form.some("other")), ("", None));
    }
}
