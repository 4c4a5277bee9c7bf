//! The inspection page: what the receiver does, its messages, and actions.

mod actions;
mod assets;
mod chart;
mod curl;
mod filter;
mod form;
mod history;
mod json;
mod layout;
mod live;
mod message;
mod messages;
mod overview;
mod replays;
mod session;
mod sign_in;
mod summary;

use core::time::Duration;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use pleo_receiver::Receiver;
use tokio::sync::Semaphore;
use tokio::time;

pub(in crate::admin) use self::form::Form;
use self::form::same_origin;
pub(crate) use self::history::History;
use self::layout::{failure, redirect};
use self::replays::Replays;
use self::session::{LINK_LIFETIME, Session, Sessions};
use self::sign_in::Ask;
use super::credentials::Credentials;
use super::guesses::Guesses;
use super::readiness::Readiness;
use super::{Access, Body};

/// The maximum time until a form is read.
const FORM_TIMEOUT: Duration = Duration::from_secs(5);

/// The paths of the page, besides its assets.
const PATHS: [&str; 13] = [
    "/",
    "/messages",
    "/messages/live",
    "/replays",
    "/replays/new",
    "/replays/cancel",
    "/message",
    "/message/body",
    "/sign-in",
    "/sign-out",
    "/replay",
    "/pause",
    "/resume",
];

/// Answers the requests of the inspection page.
pub(super) struct Page {
    receiver: Receiver,
    readiness: Arc<Readiness>,
    history: Arc<History>,
    sessions: Arc<Sessions>,
    replays: Replays,
    /// A permit for each live view.
    streams: Arc<Semaphore>,
    /// The key that configures the handler.
    handler: Mutex<Option<&'static str>>,
    shows_bodies: AtomicBool,
}

impl Page {
    pub(super) fn new(
        receiver: &Receiver,
        readiness: &Arc<Readiness>,
        history: Arc<History>,
        handler: Option<&'static str>,
        shows_bodies: bool,
    ) -> Self {
        Self {
            receiver: receiver.clone(),
            readiness: Arc::clone(readiness),
            history,
            sessions: Arc::default(),
            replays: Replays::default(),
            streams: live::streams(),
            handler: Mutex::new(handler),
            shows_bodies: AtomicBool::new(shows_bodies),
        }
    }

    /// Returns `true` if the path is one of the page.
    pub(super) fn has(path: &str) -> bool {
        PATHS.contains(&path) || path.starts_with("/assets/")
    }

    /// Creates the path of a sign-in link, which is valid once. Returns how long it is.
    pub(super) fn create_link(&self) -> (String, Duration) {
        let secret = self.sessions.create_link(Instant::now());
        (form::link("/sign-in", [("link", &*secret)]), LINK_LIFETIME)
    }

    /// Replaces the kind of the handler.
    pub(super) fn set_handler(&self, kind: Option<&'static str>) {
        *self.handler.lock().unwrap_or_else(PoisonError::into_inner) = kind;
    }

    /// Shows or hides bodies. Ends all sessions if the credentials changed.
    pub(super) fn set_access(&self, shows_bodies: bool, credentials_changed: bool) {
        self.shows_bodies.store(shows_bodies, Ordering::Relaxed);
        if credentials_changed {
            self.sessions.end_all();
        }
    }

    /// Reads a form. Returns the answer to one that is too large or too slow.
    pub(super) async fn read_form<B>(body: B) -> Result<Form, Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn core::error::Error + Send + Sync>>,
    {
        let body = Limited::new(body, form::LIMIT).collect();
        match time::timeout(FORM_TIMEOUT, body).await {
            Ok(Ok(body)) => Ok(Form::parse(&body.to_bytes())),
            _ => {
                let text = "The form is too large, or arrived too slowly.";
                Err(failure(StatusCode::BAD_REQUEST, None, text))
            }
        }
    }

    /// Starts a session.
    pub(super) fn sign_in(
        &self,
        peer: IpAddr,
        parts: &Parts,
        form: &Form,
        credentials: Option<&Credentials>,
        guesses: &Guesses,
    ) -> Response<Body> {
        match same_origin(&parts.headers) {
            Some(is_tls) => {
                let headers = &parts.headers;
                sign_in::sign_in(self, credentials, guesses, peer, headers, form, is_tls)
            }
            None => other_origin(None),
        }
    }

    /// Answers a request to one of its paths.
    pub(super) async fn respond(
        self: &Arc<Self>,
        peer: IpAddr,
        parts: Parts,
        form: Form,
        access: &Access,
    ) -> Response<Body> {
        let session = self.sessions.find(&parts.headers, Instant::now());
        match parts.method {
            Method::GET | Method::HEAD => {
                if let Some(asset) = assets::respond(parts.uri.path(), &parts.headers) {
                    return asset;
                }
                self.get(&parts, session, access).await
            }
            Method::POST => {
                let Some(is_tls) = same_origin(&parts.headers) else {
                    return other_origin(session.as_ref());
                };
                let page = Arc::clone(self);
                let action = async move { page.post(&parts, peer, session, &form, is_tls).await };
                // A task of its own: it goes on, and logs its outcome, if the browser leaves.
                match time::timeout(overview::TIMEOUT, tokio::spawn(action)).await {
                    Ok(Ok(response)) => response,
                    Ok(Err(_)) => {
                        let text = "The action failed; see the log.";
                        failure(StatusCode::INTERNAL_SERVER_ERROR, None, text)
                    }
                    Err(_) => {
                        let text = "The inbox did not respond in time; the action may still be \
                                    done. The log shows its outcome.";
                        failure(StatusCode::SERVICE_UNAVAILABLE, None, text)
                    }
                }
            }
            _ => {
                let text = "The page takes GET and POST.";
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mut response = failure(status, session.as_ref(), text);
                let allowed = HeaderValue::from_static("GET, HEAD, POST");
                response.headers_mut().insert(ALLOW, allowed);
                response
            }
        }
    }

    async fn get(
        self: &Arc<Self>,
        parts: &Parts,
        session: Option<Session>,
        access: &Access,
    ) -> Response<Body> {
        let form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes());
        if parts.uri.path() == "/sign-in" {
            let ask = Ask::of(access.credentials.as_ref());
            return sign_in::respond(StatusCode::OK, ask, form.some("link"), "");
        }
        let Some(session) = session else {
            return redirect("/sign-in");
        };
        match parts.uri.path() {
            "/" => overview::respond(self, &session).await,
            "/messages" => messages::respond(self, &session, form).await,
            "/messages/live" => live::respond(self, session, form).await,
            "/replays" => replays::respond(self, &session),
            "/replays/new" => replays::respond_new(self, &session, form).await,
            "/message" => message::respond(self, &session, &form).await,
            "/message/body" => message::respond_body(self, &session, &form).await,
            _ => failure(
                StatusCode::NOT_FOUND,
                Some(&session),
                "There is no such page.",
            ),
        }
    }

    async fn post(
        &self,
        parts: &Parts,
        peer: IpAddr,
        session: Option<Session>,
        form: &Form,
        is_tls: bool,
    ) -> Response<Body> {
        let Some(session) = session else {
            return redirect("/sign-in");
        };
        if !session.has_token(form.get("token")) {
            let text = "The form is of another session. Go back, reload the page, and retry.";
            return failure(StatusCode::FORBIDDEN, Some(&session), text);
        }
        let path = parts.uri.path();
        if path == "/sign-out" {
            return sign_in::sign_out(self, &session, &parts.headers, is_tls);
        }
        if !session.account.may_act {
            let text = "This account may only read.";
            return failure(StatusCode::FORBIDDEN, Some(&session), text);
        }
        match path {
            "/replay" => actions::replay(self, &session, peer, form).await,
            "/replays" => replays::start(self, &session, peer, form).await,
            "/replays/cancel" => replays::cancel(self, &session, peer, form),
            "/pause" => actions::set_paused(self, &session, peer, form, true).await,
            "/resume" => actions::set_paused(self, &session, peer, form, false).await,
            _ => failure(
                StatusCode::NOT_FOUND,
                Some(&session),
                "There is no such action.",
            ),
        }
    }

    fn shows_bodies(&self) -> bool {
        self.shows_bodies.load(Ordering::Relaxed)
    }

    fn handler(&self) -> Option<&'static str> {
        *self.handler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn other_origin(session: Option<&Session>) -> Response<Body> {
    let text = "The form comes from another page. Open the page anew, and retry.";
    failure(StatusCode::FORBIDDEN, session, text)
}
