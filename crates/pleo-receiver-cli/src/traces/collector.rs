//! The HTTP client of the exporter.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use pleo_http::reqwest::{self, Client, RequestBuilder};
use pleo_http::{Target, read_limited};
use tokio::runtime::Handle;

use super::queue::Tally;
use super::settings::Settings;
use crate::failure::{Failure, chain};

const USER_AGENT: &str = concat!("pleo-receiver/", env!("CARGO_PKG_VERSION"));

/// How many bytes of an answer are read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Posts batches of spans to the collector.
pub(super) struct Collector {
    client: Client,
    target: Target,
    timeout: Duration,
    /// The exporter's thread has no runtime.
    runtime: Handle,
    tally: Arc<Tally>,
}

impl Collector {
    pub(super) fn new(settings: &Settings, tally: Arc<Tally>) -> Result<Self, Failure> {
        let target = settings.target.clone();
        let client = match &settings.certificate {
            Some(pem) => pleo_http::client(USER_AGENT, core::slice::from_ref(pem)),
            None => target.client(USER_AGENT),
        };
        Ok(Self {
            client: client.map_err(|error| Failure::usage("traces", &chain(&error)))?,
            target,
            timeout: settings.timeout,
            runtime: Handle::current(),
            tally,
        })
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let post = self.target.post(&self.client).timeout(self.timeout);
        let post = post.headers(hidden(parts.headers)).body(body);
        let answer = self.runtime.spawn(send(post)).await?;
        answer.map_err(|error| {
            self.tally.note_cause(chain(&*error));
            error
        })
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

async fn send(request: RequestBuilder) -> Result<Response<Bytes>, HttpError> {
    let response = request.send().await;
    let mut response = response.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    read_limited(&mut response, ANSWER_LIMIT, &mut body).await?;
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = response.status();
    *answer.headers_mut() = core::mem::take(response.headers_mut());
    Ok(answer)
}

/// Marks all values as secret, so that no log shows them.
fn hidden(mut headers: HeaderMap) -> HeaderMap {
    for value in headers.values_mut() {
        value.set_sensitive(true);
    }
    headers
}
