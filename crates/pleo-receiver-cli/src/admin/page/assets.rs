//! The style sheet, the script and the icon.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::layout::response;
use crate::admin::Body;

/// Responds with a file; `None` if there is none of this path. Browsers ask each time whether it
/// changed.
pub(super) fn respond(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let (content_type, text) = match path {
        "/assets/page.css" => ("text/css; charset=utf-8", include_str!("page.css")),
        "/assets/page.js" => ("text/javascript; charset=utf-8", include_str!("page.js")),
        "/assets/icon.svg" => ("image/svg+xml", include_str!("icon.svg")),
        _ => return None,
    };
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    let tag = HeaderValue::try_from(format!("\"{:016x}\"", hash.finish())).ok()?;
    let mut response = if headers.get(IF_NONE_MATCH) == Some(&tag) {
        response(StatusCode::NOT_MODIFIED, content_type, "")
    } else {
        response(StatusCode::OK, content_type, text)
    };
    response.headers_mut().insert(ETAG, tag);
    let no_cache = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(CACHE_CONTROL, no_cache);
    Some(response)
}
