//! Sends requests and reads their outcomes.

use core::time::Duration;
use std::error::Error as StdError;
use std::sync::OnceLock;
use std::time::Instant;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use pleo_http::Target;
use pleo_http::reqwest::Client;

use super::request::SignedRequest;
use crate::error::Error;
use crate::options::SandboxOptions;

/// The version of the open-source sender whose behavior was observed.
const USER_AGENT: &str = "Svix-Webhooks/1.100.0";

/// A connection that fails earlier is tried again at once, with the same request.
const INSTANT_RETRY: Duration = Duration::from_secs(1);

/// The clients for `http:` and `https:` endpoints.
#[derive(Debug)]
pub(crate) struct Clients {
    plain: Client,
    /// Set up by the first `https:` delivery, since it needs the machine's root certificates.
    secure: OnceLock<Client>,
    roots: Vec<Vec<u8>>,
    timeout: Duration,
}

/// The outcome of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    Response {
        status: u16,
        retry_after: Option<Duration>,
        /// `abort-message` or `disable`.
        instruction: Option<String>,
    },
    Timeout,
    /// Why no response came.
    Failed(String),
}

impl Clients {
    pub(crate) fn new(options: &SandboxOptions) -> Result<Self, Error> {
        let any: Target = "http://localhost/".parse().map_err(setup_failed)?;
        Ok(Self {
            plain: any.client(USER_AGENT).map_err(setup_failed)?,
            secure: OnceLock::new(),
            #[cfg(feature = "tls")]
            roots: (options.authority.iter())
                .map(|authority| authority.pem().into_bytes())
                .collect(),
            #[cfg(not(feature = "tls"))]
            roots: Vec::new(),
            timeout: options.response_timeout,
        })
    }

    /// Posts a request. Waits for the headers of the response only.
    pub(crate) async fn post(&self, request: &SignedRequest) -> Outcome {
        let start = Instant::now();
        match self.post_once(request).await {
            Outcome::Failed(_) if start.elapsed() < INSTANT_RETRY => self.post_once(request).await,
            outcome => outcome,
        }
    }

    async fn post_once(&self, request: &SignedRequest) -> Outcome {
        let prepared = request.url.parse::<Target>().and_then(|target| {
            let client = self.client(&target)?;
            Ok(target.post(client))
        });
        let builder = match prepared {
            Ok(builder) => builder,
            Err(error) => return Outcome::Failed(chain(&error)),
        };
        let builder = builder
            .headers(request.headers.clone())
            .body(request.body.clone())
            .timeout(self.timeout);
        match builder.send().await {
            Ok(response) => Outcome::Response {
                status: response.status().as_u16(),
                retry_after: retry_after(response.headers(), Timestamp::now()),
                instruction: text(response.headers(), "webhook-delivery").map(str::to_owned),
            },
            Err(error) if error.is_timeout() && !error.is_connect() => Outcome::Timeout,
            Err(error) => Outcome::Failed(chain(&error.without_url())),
        }
    }

    fn client(&self, target: &Target) -> Result<&Client, pleo_http::Error> {
        if target.url().scheme() == "http" {
            return Ok(&self.plain);
        }
        if let Some(client) = self.secure.get() {
            return Ok(client);
        }
        let client = pleo_http::client(USER_AGENT, &self.roots)?;
        Ok(self.secure.get_or_init(|| client))
    }
}

impl Outcome {
    pub(crate) const fn status(&self) -> Option<u16> {
        match self {
            Self::Response { status, .. } => Some(*status),
            Self::Timeout | Self::Failed(_) => None,
        }
    }

    pub(crate) fn error(&self) -> Option<String> {
        match self {
            Self::Response { .. } => None,
            Self::Timeout => Some("no response in time".to_owned()),
            Self::Failed(error) => Some(error.clone()),
        }
    }

    /// Returns `true` if the endpoint wants no more attempts of this message.
    pub(crate) fn aborts(&self) -> bool {
        self.instructs("abort-message") || self.disables()
    }

    /// Returns `true` if the endpoint wants no more deliveries.
    pub(crate) fn disables(&self) -> bool {
        self.instructs("disable")
    }

    fn instructs(&self, wanted: &str) -> bool {
        matches!(self, Self::Response { instruction: Some(text), .. } if text == wanted)
    }
}

/// Returns the delay of `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER.as_str())?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::parse(text).ok()?.timestamp();
    Some(date.duration_since(now).try_into().unwrap_or_default())
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Formats an error with its causes.
fn chain(error: &dyn StdError) -> String {
    let causes = core::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn setup_failed(error: pleo_http::Error) -> Error {
    Error::Client(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_retry_after_in_both_forms() {
        let now: Timestamp = "2026-11-26T10:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("7", Some(7)),
            ("Thu, 26 Nov 2026 10:00:09 GMT", Some(9)),
            ("Thu, 26 Nov 2026 09:00:00 GMT", Some(0)),
            ("soon", None),
        ] {
            let headers = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            let wanted = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), wanted, "{text}");
        }
    }
}
