//! Signing in and out.

use std::net::IpAddr;
use std::time::Instant;

use http::header::SET_COOKIE;
use http::{HeaderMap, Response, StatusCode};
use maud::html;
use tracing::{info, warn};

use super::Page;
use super::form::Form;
use super::layout::{page_with, redirect};
use super::session::{Session, set_cookie};
use crate::admin::Body;
use crate::admin::credentials::{Claim, Credentials};
use crate::admin::guesses::Guesses;

/// Which credentials the form asks for.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    Nothing,
    Token,
    UserAndPassword,
}

impl Ask {
    pub(super) fn of(credentials: Option<&Credentials>) -> Self {
        match credentials {
            None => Self::Nothing,
            Some(credentials) if credentials.has_user() => Self::UserAndPassword,
            Some(_) => Self::Token,
        }
    }
}

/// Responds with the form. A sign-in link fills it in; a click uses the link, so that a program that
/// reads links ahead doesn't.
pub(super) fn respond(
    status: StatusCode,
    ask: Ask,
    link: Option<&str>,
    error: &str,
) -> Response<Body> {
    let content = html! {
        h1 { "Sign in" }
        @if !error.is_empty() { p.alert role="alert" { (error) } }
        @if let Some(link) = link {
            form.sign-in method="post" action="/sign-in" {
                input type="hidden" name="link" value=(link);
                button.main { "Sign in with the link" }
            }
        } @else {
            @match ask {
                Ask::Nothing => {
                    p {
                        "The receiver has no credentials for this page. Either set "
                        code { "admin_token" } " in its configuration, or start "
                        code { "pleo-receiver serve" } " on a terminal: it prints a sign-in link."
                    }
                }
                Ask::Token | Ask::UserAndPassword => {
                    form.sign-in method="post" action="/sign-in" {
                        @if matches!(ask, Ask::UserAndPassword) {
                            p {
                                label for="user" { "User; empty for a token" }
                                input id="user" name="user" autocomplete="username" autocapitalize="none" spellcheck="false";
                            }
                        }
                        p {
                            label for="secret" {
                                @if matches!(ask, Ask::Token) { "Token" } @else { "Password or token" }
                            }
                            input id="secret" name="secret" type="password" autocomplete="current-password" required;
                        }
                        button.main { "Sign in" }
                    }
                    p.note {
                        "These are the credentials of the admin listener: " code { "admin_token" } ", "
                        code { "admin_read_token" } " or " code { "admin_user" } " in the configuration."
                    }
                }
            }
        }
    };
    page_with(status, "", "Sign in", None, &content)
}

/// Starts a session for the form's credentials or link.
pub(super) fn sign_in(
    admin: &Page,
    credentials: Option<&Credentials>,
    guesses: &Guesses,
    peer: IpAddr,
    headers: &HeaderMap,
    form: &Form,
    is_tls: bool,
) -> Response<Body> {
    let now = Instant::now();
    let ask = Ask::of(credentials);
    let claim = match (form.some("link"), form.some("user")) {
        (Some(_), _) => None,
        (None, None) => Some(Claim::Token(form.get("secret").into())),
        (None, Some(_)) => Some(Claim::User {
            name: form.exact("user").into(),
            password: form.exact("secret").into(),
        }),
    };
    let claim = credentials.zip(claim.as_ref());
    // Nobody can guess these: wrong guesses of others don't keep their owner out.
    let mut account = match form.some("link") {
        Some(link) => admin.sessions.use_link(link, now),
        None => claim.and_then(|(credentials, claim)| credentials.check_long_token(claim)),
    };
    let is_allowed = account.is_some() || {
        let checked = guesses.check(peer, now, || {
            account = claim.and_then(|(credentials, claim)| credentials.check(claim));
            account.is_some()
        });
        checked.is_some()
    };
    if !is_allowed {
        let error = "Too many wrong credentials from this address. Retry later.";
        return respond(StatusCode::TOO_MANY_REQUESTS, ask, None, error);
    }
    let Some(account) = account else {
        warn!(%peer, "sign-in refused");
        let error = match form.some("link") {
            Some(_) => "The link was used, or is too old. Restart the receiver for another.",
            None => "The credentials are wrong.",
        };
        return respond(StatusCode::FORBIDDEN, ask, None, error);
    };
    info!(account = account.name, %peer, "signed in");
    let session = admin.sessions.start(account, now);
    let mut response = redirect("/");
    if let Some(cookie) = set_cookie(headers, Some(&session), is_tls) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// Ends a session.
pub(super) fn sign_out(
    admin: &Page,
    session: &Session,
    headers: &HeaderMap,
    is_tls: bool,
) -> Response<Body> {
    admin.sessions.end(session);
    let mut response = redirect("/sign-in");
    if let Some(cookie) = set_cookie(headers, None, is_tls) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
