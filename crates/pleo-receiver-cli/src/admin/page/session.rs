//! The sessions of the inspection page, and the one-time sign-in link.

use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::admin::credentials::Account;

/// How long a session lasts.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// How long the sign-in link is valid.
pub(super) const LINK_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The maximum number of sessions of an account. Another takes the place of its oldest. There are at
/// most four accounts: two tokens, a user and the link.
const SESSIONS: usize = 16;

/// A signed-in browser.
#[derive(Clone)]
pub(super) struct Session {
    id: String,
    pub(super) account: Account,
    /// The token that each action of this session must have.
    pub(super) token: String,
    ends_at: Instant,
}

impl Session {
    /// Returns `true` for the token of this session's actions.
    pub(super) fn has_token(&self, token: &str) -> bool {
        token.as_bytes().ct_eq(self.token.as_bytes()).into()
    }
}

/// The sessions. They are in memory: a restart ends them.
#[derive(Default)]
pub(super) struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    /// The oldest first.
    sessions: Vec<Session>,
    /// The secret of the sign-in link, and its end.
    link: Option<(String, Instant)>,
}

impl Sessions {
    /// Creates the secret of a sign-in link, which replaces an earlier one.
    pub(super) fn create_link(&self, now: Instant) -> String {
        // 122 random bits, so that the link fits into 80 columns.
        let secret = Uuid::new_v4().simple().to_string();
        self.lock().link = Some((secret.clone(), now + LINK_LIFETIME));
        secret
    }

    /// Returns the account of the sign-in link, once.
    pub(super) fn use_link(&self, secret: &str, now: Instant) -> Option<Account> {
        let mut state = self.lock();
        let (expected, ends_at) = state.link.as_ref()?;
        let is_right: bool = secret.as_bytes().ct_eq(expected.as_bytes()).into();
        if !is_right || *ends_at <= now {
            return None;
        }
        state.link = None;
        Some(Account {
            name: "sign-in link".to_owned(),
            may_act: true,
        })
    }

    /// Starts a session.
    pub(super) fn start(&self, account: Account, now: Instant) -> Session {
        let session = Session {
            id: random(),
            account,
            token: random(),
            ends_at: now + LIFETIME,
        };
        let mut state = self.lock();
        state.sessions.retain(|session| session.ends_at > now);
        let is_own = |other: &Session| other.account == session.account;
        if state.sessions.iter().filter(|other| is_own(other)).count() >= SESSIONS
            && let Some(oldest) = state.sessions.iter().position(is_own)
        {
            state.sessions.remove(oldest);
        }
        state.sessions.push(session.clone());
        session
    }

    /// Returns the session of a request.
    pub(super) fn find(&self, headers: &HeaderMap, now: Instant) -> Option<Session> {
        let state = self.lock();
        // Another program on this host may have set a cookie of the same name for one of the paths.
        let session = cookies(headers).find_map(|id| {
            let is_own = |session: &&Session| id.as_bytes().ct_eq(session.id.as_bytes()).into();
            let session = state.sessions.iter().find(is_own);
            session.filter(|session| session.ends_at > now)
        });
        session.cloned()
    }

    /// Returns `true` until the session has ended.
    pub(super) fn has(&self, session: &Session) -> bool {
        let state = self.lock();
        let is_same = |other: &Session| other.id == session.id && other.ends_at > Instant::now();
        state.sessions.iter().any(is_same)
    }

    /// Ends a session.
    pub(super) fn end(&self, session: &Session) {
        let mut state = self.lock();
        state.sessions.retain(|other| other.id != session.id);
    }

    /// Ends all sessions, and the sign-in link.
    pub(super) fn end_all(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the cookie of a session; one that ends at once without a session. It is sent over TLS only
/// if the browser uses TLS, which a proxy may end.
pub(super) fn set_cookie(
    headers: &HeaderMap,
    session: Option<&Session>,
    is_tls: bool,
) -> Option<HeaderValue> {
    let name = cookie_name(headers);
    let (id, age) = session.map_or(("", 0), |session| (&*session.id, LIFETIME.as_secs()));
    let secure = if is_tls { "; Secure" } else { "" };
    let cookie = format!("{name}={id}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
    let mut cookie = HeaderValue::try_from(cookie).ok()?;
    cookie.set_sensitive(true);
    Some(cookie)
}

/// Returns the values of all cookies of the name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let name = cookie_name(headers);
    let cookies = headers.get_all(COOKIE).iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter_map(move |(other, value)| (other == name).then_some(value))
}

/// Returns the name of the cookie. Browsers share cookies among the ports of a host, so that it names
/// the port: two receivers on one machine don't end each other's sessions.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let port = host.and_then(|host| host.rsplit_once(':')?.1.parse::<u16>().ok());
    port.map_or_else(
        || "pleo_session".to_owned(),
        |port| format!("pleo_session_{port}"),
    )
}

/// Returns 244 random bits.
pub(super) fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            name: "token".to_owned(),
            may_act: true,
        }
    }

    fn headers(session: &Session) -> HeaderMap {
        let cookie = format!("a=b; pleo_session=other; pleo_session={}", session.id);
        let cookie = HeaderValue::try_from(cookie).unwrap();
        HeaderMap::from_iter([(COOKIE, cookie)])
    }

    #[test]
    fn ends_session_after_its_lifetime() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let session = sessions.start(account(), now);
        let headers = headers(&session);
        let is_found = |at| sessions.find(&headers, at).is_some();
        assert!(is_found(now + LIFETIME - Duration::from_secs(1)));
        assert!(!is_found(now + LIFETIME));
        sessions.end(&session);
        assert!(!is_found(now));
    }

    #[test]
    fn replaces_oldest_of_too_many_sessions_of_account() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let first = sessions.start(account(), now);
        let mut reader = account();
        reader.name = "read".to_owned();
        let reader = sessions.start(reader, now);
        let others: Vec<_> = (0..SESSIONS)
            .map(|_| sessions.start(account(), now))
            .collect();
        assert!(sessions.find(&headers(&first), now).is_none());
        for session in others.into_iter().chain([reader]) {
            assert!(sessions.find(&headers(&session), now).is_some());
        }
    }

    #[test]
    fn accepts_link_once_and_until_its_end() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        assert_eq!(sessions.use_link("", now), None);
        let link = sessions.create_link(now);
        assert_eq!(sessions.use_link("", now), None);
        assert_eq!(sessions.use_link(&link, now + LINK_LIFETIME), None);
        assert!(sessions.use_link(&link, now).is_some());
        assert_eq!(sessions.use_link(&link, now), None);
    }
}
