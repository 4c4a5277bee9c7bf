//! `pleo-receiver demo`: a day of webhooks in a second, on a real socket and a real inbox.

use core::time::Duration;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use pleo_receiver::verify::{Secret, unix_now};
use pleo_receiver::{Delivery, Endpoint, HandlerError, HttpClient, Receiver, SqliteInbox, serve};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use uuid::Uuid;

use crate::args::Demo;
use crate::failure::{Failure, chain};
use crate::message::new_id;
use crate::{samples, signals};

const PATH: &str = "/webhooks/pleo";

/// How large a body may be here: what the receiver takes unless told otherwise.
const BODY_LIMIT: usize = 1024 * 1024;

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) async fn run(args: Demo) -> Result<(), Failure> {
    let stop = signals::stop()?;
    let folder = Folder::new()?;
    let text = throw_away_secret();
    let secret: Secret = text.parse().map_err(fail)?;

    let (handled, mut deliveries) = mpsc::unbounded_channel();
    let handler = move |delivery: Delivery| {
        let sent = handled.send(delivery).map_err(HandlerError::from);
        async { sent }
    };
    let receiver = Receiver::builder()
        .endpoint(Endpoint::new(PATH, secret.clone()).map_err(fail)?)
        .inbox(SqliteInbox::open(folder.0.join("inbox.db"))?)
        .body_limit(BODY_LIMIT)
        .handler(handler)
        .build()
        .map_err(fail)?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::Usage(format!(
            "`--listen`: cannot listen on {}: {error}",
            args.listen
        ))
    })?;
    let url = format!("http://{}{PATH}", listener.local_addr().map_err(fail)?);
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, receiver.clone(), async {
        // An error says that the sender is gone, which means the same.
        let _ = ended.await;
    }));

    let mut out = io::stdout();
    writeln!(
        out,
        "A receiver at {url}, its inbox in {}\n",
        folder.0.display()
    )?;
    let client = HttpClient::new(&url).map_err(fail)?;
    let story = Story {
        client,
        receiver,
        secret,
    };
    let surprises = story.tell(&mut deliveries).await?;
    if !args.once {
        // Whatever this was started as can be started so again.
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "pleo-receiver".to_owned());
        writeln!(
            out,
            "\nIt goes on listening. Send one more, from another terminal:\n"
        )?;
        let more = format!("{program} send {url} --event v1.vendor.created");
        writeln!(out, "    PLEO_WEBHOOK_SECRET={text} {more}\n")?;
        writeln!(out, "Ctrl-C ends it.")?;
        let mut stop = core::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(delivery) = deliveries.recv() => {
                    let kind = delivery.event_type.as_deref().unwrap_or("no envelope");
                    writeln!(out, "received {}: {}", delivery.webhook_id, kind.escape_debug())?;
                }
            }
        }
    }
    drop(end);
    server.await.map_err(fail)??;
    match surprises {
        0 => Ok(()),
        count => Err(Failure::Run(format!(
            "{count} answers were not as expected"
        ))),
    }
}

struct Story {
    client: HttpClient,
    receiver: Receiver,
    secret: Secret,
}

/// One request, and what should become of it.
struct Step {
    what: &'static str,
    headers: HeaderMap,
    body: Bytes,
    status: u16,
    reason: &'static str,
}

impl Story {
    /// Sends it all; says how many answers were not as expected.
    async fn tell(
        &self,
        deliveries: &mut mpsc::UnboundedReceiver<Delivery>,
    ) -> Result<usize, Failure> {
        let mut out = io::stdout();
        writeln!(out, "{:<44}{:<27}INBOX", "SENT", "ANSWER")?;
        let (mut stored, mut surprises) = (0, 0);
        for step in self.steps()? {
            let answer = self.client.post(step.headers, step.body, TIMEOUT).await;
            let answer = answer.map_err(|error| Failure::Run(chain(&error)))?;
            let status = answer.status().as_u16();
            let counts = self.receiver.inbox().counts().await?;
            let messages = counts.pending + counts.done + counts.dead;
            let reason = if answer.status().is_success() && messages > stored {
                // Stored is not all: it must come out at the other end too.
                let handed_on = time::timeout(TIMEOUT, deliveries.recv()).await;
                if matches!(handed_on, Ok(Some(_))) {
                    "stored, handed on".to_owned()
                } else {
                    "stored, but not handed on".to_owned()
                }
            } else if answer.status().is_success() {
                "known already".to_owned()
            } else {
                let problem: serde_json::Value =
                    serde_json::from_slice(answer.body()).unwrap_or_default();
                problem["code"].as_str().unwrap_or("no reason").to_owned()
            };
            stored = messages;
            let expected = (status, &*reason) == (step.status, step.reason);
            let answer = format!("{status} {reason}");
            let plural = if messages == 1 { "" } else { "s" };
            write!(
                out,
                "{:<44}{answer:<27}{messages} message{plural}",
                step.what
            )?;
            if !expected {
                surprises += 1;
                write!(out, "   expected {} {}", step.status, step.reason)?;
            }
            writeln!(out)?;
        }
        Ok(surprises)
    }

    fn steps(&self) -> Result<Vec<Step>, Failure> {
        let step = |what, (headers, body), status, reason| Step {
            what,
            headers,
            body,
            status,
            reason,
        };
        let stored = "stored, handed on";
        let first_id = new_id();
        let job = samples::event("v1.export-job.created");
        let vendor = samples::event("v1.vendor.created");
        let now = unix_now();

        let mut tampered = self.signed(&new_id(), now, &job)?;
        tampered.1 = job
            .replace("\"numberOfItems\":3", "\"numberOfItems\":4")
            .into();
        let forger: Secret = throw_away_secret().parse().map_err(fail)?;
        let forged = signed(&forger, &new_id(), now, vendor.clone())?;
        let large = job.clone() + &" ".repeat(BODY_LIMIT + 1 - job.len());
        Ok(vec![
            step(
                "an export job",
                self.signed(&first_id, now, &job)?,
                204,
                stored,
            ),
            step(
                "a vendor",
                self.signed(&new_id(), now, &vendor)?,
                204,
                stored,
            ),
            step(
                "an event type that nobody knows yet",
                self.signed(&new_id(), now, &samples::event("v3.receipt.split"))?,
                204,
                stored,
            ),
            step(
                "the export job again, as a retry",
                self.signed(&first_id, now + 1, &job)?,
                204,
                "known already",
            ),
            step(
                "an export job, its body tampered with",
                tampered,
                401,
                "signature_mismatch",
            ),
            step(
                "a vendor, signed by a forger",
                forged,
                401,
                "signature_mismatch",
            ),
            step(
                "the sample of Pleo's page, years old",
                sample()?,
                401,
                "timestamp_too_old",
            ),
            step(
                "an export job of more than 1 MiB",
                self.signed(&new_id(), now, &large)?,
                413,
                "body_too_large",
            ),
        ])
    }

    fn signed(&self, id: &str, timestamp: u64, body: &str) -> Result<(HeaderMap, Bytes), Failure> {
        signed(&self.secret, id, timestamp, body.to_owned())
    }
}

fn signed(
    secret: &Secret,
    id: &str,
    timestamp: u64,
    body: String,
) -> Result<(HeaderMap, Bytes), Failure> {
    let signature = secret.sign(id, timestamp, body.as_bytes()).map_err(fail)?;
    let headers = headers(id, &timestamp.to_string(), signature.as_str())?;
    Ok((headers, body.into()))
}

/// The headers and body that Pleo's page on webhooks shows: genuine, signed in 2021.
fn sample() -> Result<(HeaderMap, Bytes), Failure> {
    let headers = headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    )?;
    Ok((headers, Bytes::from_static(b"{\"test\": 2432232314}")))
}

fn headers(id: &str, timestamp: &str, signature: &str) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", id.parse().map_err(fail)?);
    headers.insert("webhook-timestamp", timestamp.parse().map_err(fail)?);
    headers.insert("webhook-signature", signature.parse().map_err(fail)?);
    Ok(headers)
}

/// Good enough for as long as the demo runs.
fn throw_away_secret() -> String {
    let key = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    format!("whsec_{}", STANDARD.encode(key))
}

/// A folder that goes when the demo does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("pleo-demo-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path)
            .map_err(|error| Failure::Run(format!("cannot make {}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is in the way of nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fail(error: impl std::error::Error) -> Failure {
    Failure::Run(chain(&error))
}
