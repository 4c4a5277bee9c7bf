//! The frame of each page, its headers, and how values are shown.

use core::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use pleo_receiver::State;

use super::session::Session;
use crate::admin::Body;
use crate::escape::escape;

/// No inline script or style, nothing from another host, and no frame around the page.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'; object-src 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // With a stricter policy, browsers send `Origin: null` with the page's own forms.
    (REFERRER_POLICY, "same-origin"),
    (CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// How many characters of a title are shown.
pub(super) const TITLE: usize = 120;

/// The links on each page.
const LINKS: [(&str, &str); 2] = [("/", "Overview"), ("/messages", "Messages")];

/// Creates a response with the headers of a page.
pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Creates a redirect after a form, or to the sign-in.
pub(super) fn redirect(to: &str) -> Response<Body> {
    let mut response = response(StatusCode::SEE_OTHER, "text/plain", "");
    // `to` is a path with an encoded query.
    if let Ok(to) = HeaderValue::try_from(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// Creates a page for a signed-in browser.
pub(super) fn page(path: &str, title: &str, session: &Session, content: &Markup) -> Response<Body> {
    page_with(StatusCode::OK, path, title, Some(session), content)
}

/// Creates a page that says what went wrong.
pub(super) fn failure(status: StatusCode, session: Option<&Session>, text: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let content = html! {
        h1 { (title) }
        p role="alert" { (text) }
    };
    page_with(status, "", title, session, &content)
}

/// Creates a page.
pub(super) fn page_with(
    status: StatusCode,
    path: &str,
    title: &str,
    session: Option<&Session>,
    content: &Markup,
) -> Response<Body> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (cut(title, TITLE)) " · pleo-receiver" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/page.css";
                script src="/assets/page.js" defer {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    span.brand { "pleo-receiver" }
                    @if let Some(session) = session {
                        nav aria-label="Pages" {
                            @for (target, name) in LINKS {
                                a href=(target) aria-current=[(target == path).then_some("page")] { (name) }
                            }
                        }
                        form.account method="post" action="/sign-out" {
                            (token(session))
                            span {
                                "Signed in: " (escape(&session.account.name))
                                @if !session.account.may_act { ", read only" }
                            }
                            button { "Sign out" }
                        }
                    }
                }
                main id="content" tabindex="-1" { (content) }
            }
        }
    };
    response(status, "text/html; charset=utf-8", page.into_string())
}

/// The hidden field that each action needs.
pub(super) fn token(session: &Session) -> Markup {
    html! { input type="hidden" name="token" value=(session.token); }
}

/// A time in UTC.
pub(super) fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M:%S")) " UTC" } }
}

/// The time until an expiry. A script counts it down.
pub(super) fn countdown(at: Timestamp, now: Timestamp) -> Markup {
    let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    html! {
        time datetime=(at) data-countdown {
            @if left.is_zero() { "expired" } @else { "in " (duration(left)) }
        }
    }
}

/// A duration in its two largest units.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The state of a message, in words and color.
pub(super) fn state(state: State, leased: bool) -> Markup {
    let text = if leased {
        "in progress"
    } else {
        state.as_str()
    };
    html! { span class={ "state " (state.as_str()) } { (text) } }
}

/// Cuts and escapes a text that a message contains, which may be long.
pub(super) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => escape(text.get(..end).unwrap_or_default()) + "…",
        None => escape(text),
    }
}

/// A number with separators between thousands.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut separated = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            separated.push('\u{202f}');
        }
        separated.push(digit);
    }
    separated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_two_largest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (61, "1 min 1 s"),
            (7199, "1 h 59 min"),
            (100_000, "1 d 3 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn separates_thousands() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1_234_567, "1 234 567"),
        ] {
            assert_eq!(number(value).replace('\u{202f}', " "), text);
        }
    }
}
