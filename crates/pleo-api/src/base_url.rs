//! The URL of an API.

use http::Uri;
use pleo_http::is_loopback;
use pleo_http::reqwest::Url;

use crate::error::ConfigError;

/// Parses the URL of an API. Refuses one that would send the token unencrypted.
pub(crate) fn parse(text: &str) -> Result<Url, ConfigError> {
    let reject = |reason| {
        // The URL may hold a password.
        let shown = if text.contains('@') { "" } else { text };
        let url = shown.to_owned();
        Err(ConfigError::BaseUrl { url, reason })
    };
    // `Url` would repair invalid input, such as backslashes, that `Uri` rejects.
    let Ok(uri) = text.parse::<Uri>() else {
        return reject("it is not a URL");
    };
    let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return reject("it is not absolute; give `https://host`");
    };
    let Ok(url) = text.parse::<Url>() else {
        return reject("it is not a URL");
    };
    if authority.as_str().contains('@') {
        return reject("it has a user name; give the token or API key separately");
    }
    if url.query().is_some() || text.contains('#') {
        return reject("it has a query or a fragment");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(url.host_str().unwrap_or_default()) => Ok(url),
        "http" => reject("the token would be sent unencrypted; give an `https` URL"),
        _ => reject("its scheme is not `https`"),
    }
}
