//! Whose requests are answered: not those of web pages of other sites.

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority as HostAndPort;
use http::{HeaderName, Method};
use pleo_http::is_loopback;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns `true` if the request names this machine or one of `hosts`: a web page that reaches the
/// sandbox by a name of its own (DNS rebinding) names another.
pub(crate) fn names_sandbox(request: &Parts, hosts: &[String]) -> bool {
    host(request).parse().is_ok_and(|host: HostAndPort| {
        let host = host.host().to_ascii_lowercase();
        is_loopback(&host) || hosts.iter().any(|own| own.eq_ignore_ascii_case(&host))
    })
}

/// Returns `true` if a web page of another site sent the request. Browsers name the site in `Origin`
/// and `Sec-Fetch-Site`. A link of any site may open the page.
pub(crate) fn is_of_other_page(request: &Parts) -> bool {
    let is_read = request.method == Method::GET || request.method == Method::HEAD;
    if is_read && request.uri.path() == "/" {
        return false;
    }
    let is_own = |origin: &str| {
        let stripped = origin.strip_prefix("http://");
        let stripped = stripped.or_else(|| origin.strip_prefix("https://"));
        stripped.is_some_and(|origin| origin.eq_ignore_ascii_case(host(request)))
    };
    let origin = request.headers.get(ORIGIN);
    let is_other_origin = origin.is_some_and(|origin| !origin.to_str().is_ok_and(is_own));
    let site = request.headers.get(SEC_FETCH_SITE);
    is_other_origin || site.is_some_and(|site| site != "same-origin" && site != "none")
}

fn host(request: &Parts) -> &str {
    let host = request.headers.get(HOST);
    host.and_then(|host| host.to_str().ok()).unwrap_or_default()
}
