//! `pleo-receiver demo`: sends sample deliveries to a receiver, and shows each answer.

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pleo_http::Target;
use pleo_http::reqwest::Client;
use pleo_http::reqwest::header::HeaderMap;
use pleo_receiver::verify::{Secret, unix_now};
use pleo_receiver::{Delivery, Endpoint, HandlerError, Receiver, SqliteInbox, handler_fn, serve};
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use uuid::Uuid;

use crate::args::Demo;
use crate::failure::Failure;
use crate::listen::bind;
use crate::message::{header_map, new_id, signature_headers};
use crate::{files, http_client, invocation, output, samples, signals};

const PATH: &str = "/webhooks/pleo";

/// The receiver's default limit.
const BODY_LIMIT: usize = 1024 * 1024;

/// How long to wait for the handler.
const TIMEOUT: Duration = Duration::from_secs(15);

const DISPATCHED: &str = "stored, dispatched";
const DUPLICATE: &str = "duplicate";

pub(crate) async fn run(args: Demo) -> Result<(), Failure> {
    let mut stop = signals::Stop::new()?;
    let folder = files::temporary_folder("pleo-demo-")?;
    let secret_text = new_secret();
    let secret: Secret = secret_text.parse().map_err(fail)?;

    let (handled, mut deliveries) = mpsc::unbounded_channel();
    let handler = handler_fn(move |delivery: Delivery| {
        let sent = handled.send(delivery).map_err(HandlerError::from);
        async { sent }
    });
    let inbox = SqliteInbox::open(folder.path().join("inbox.db"))?;
    let (receiver, dispatcher) = Receiver::builder(inbox)
        .endpoint(Endpoint::new(PATH, secret.clone()).map_err(fail)?)
        .body_limit(BODY_LIMIT)
        .handler(handler)
        .build()
        .map_err(fail)?;
    let listener = bind(args.listen, "listen")?;
    let url = format!("http://{}{PATH}", listener.local_addr().map_err(fail)?);
    let target = http_client::parse_url(&url).map_err(Failure::Run)?;
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, receiver.clone(), dispatcher, async {
        // An early return drops the sender, which also stops the server.
        let _ = ended.await;
    }));

    output::line(format_args!("listening on {url}"))?;
    output::line(format_args!("inbox in {}", folder.path().display()))?;
    output::line("")?;
    let demo = Scenario {
        client: http_client::build(&target)?,
        target,
        receiver,
        secret,
    };
    let failures = demo.run(&mut deliveries).await?;
    if !args.once {
        let command = format!(
            "{} send {} --event v1.vendor.created",
            invocation::program(),
            url
        );
        output::line("")?;
        output::line(
            "The receiver runs until you press Ctrl-C. Send another delivery from a second terminal:",
        )?;
        output::line("")?;
        output::line(format_args!("PLEO_WEBHOOK_SECRET={secret_text} {command}"))?;
        loop {
            tokio::select! {
                () = stop.wait() => break,
                Some(delivery) = deliveries.recv() => {
                    let event = delivery.event_type().unwrap_or("no event type");
                    output::line(format_args!("received {}: {event}", delivery.id()))?;
                }
            }
        }
    }
    drop(end);
    server.await.map_err(fail)??;
    match failures {
        0 => Ok(()),
        count => Err(Failure::Run(format!(
            "{count} answers were not as expected; the table shows which"
        ))),
    }
}

struct Scenario {
    client: Client,
    target: Target,
    receiver: Receiver,
    secret: Secret,
}

/// A request, and the expected answer.
struct Step {
    what: &'static str,
    headers: HeaderMap,
    body: Bytes,
    status: u16,
    outcome: &'static str,
}

impl Scenario {
    /// Sends every request. Returns the number of unexpected answers.
    async fn run(
        &self,
        deliveries: &mut mpsc::UnboundedReceiver<Delivery>,
    ) -> Result<usize, Failure> {
        output::line(format_args!("{:<40}{:<25}INBOX", "SENT", "ANSWER"))?;
        let (mut stored, mut failures) = (0, 0);
        for step in self.steps()? {
            let request = self.target.post(&self.client);
            let request = request.headers(step.headers).body(step.body);
            let answer = http_client::send(request).await.map_err(fail)?;
            let stats = self.receiver.inbox().stats().await?;
            let messages = stats
                .iter()
                .map(|one| one.pending() + one.done + one.dead)
                .sum();
            let outcome = if !answer.status.is_success() {
                answer.code()
            } else if messages == stored {
                DUPLICATE.to_owned()
            } else if matches!(time::timeout(TIMEOUT, deliveries.recv()).await, Ok(Some(_))) {
                DISPATCHED.to_owned()
            } else {
                "stored, not dispatched".to_owned()
            };
            stored = messages;
            let status = answer.status.as_u16();
            let is_expected = (status, &*outcome) == (step.status, step.outcome);
            let expected = if is_expected {
                String::new()
            } else {
                failures += 1;
                format!("   expected {} {}", step.status, step.outcome)
            };
            let (what, answer) = (step.what, format!("{status} {outcome}"));
            let plural = if messages == 1 { "" } else { "s" };
            output::line(format_args!(
                "{what:<40}{answer:<25}{messages} message{plural}{expected}"
            ))?;
        }
        Ok(failures)
    }

    fn steps(&self) -> Result<Vec<Step>, Failure> {
        let step = |what, (headers, body), status, outcome| Step {
            what,
            headers,
            body,
            status,
            outcome,
        };
        let first_id = new_id();
        let job = samples::event("v1.export-job.created");
        let vendor = samples::event("v1.vendor.created");
        let now = unix_now();

        let mut changed = self.signed(&new_id(), now, &job)?;
        changed.1 = job
            .replace("\"numberOfItems\":3", "\"numberOfItems\":4")
            .into();
        let other: Secret = new_secret().parse().map_err(fail)?;
        let forged = signed(&other, &new_id(), now, vendor.clone())?;
        let large = job.clone() + &" ".repeat(BODY_LIMIT + 1 - job.len());
        Ok(vec![
            step(
                "an export job",
                self.signed(&first_id, now, &job)?,
                204,
                DISPATCHED,
            ),
            step(
                "a vendor",
                self.signed(&new_id(), now, &vendor)?,
                204,
                DISPATCHED,
            ),
            step(
                "an unknown event type",
                self.signed(&new_id(), now, &samples::event("v3.receipt.split"))?,
                204,
                DISPATCHED,
            ),
            step(
                "the export job again, as a retry",
                self.signed(&first_id, now + 1, &job)?,
                204,
                DUPLICATE,
            ),
            step(
                "an export job with a changed body",
                changed,
                401,
                "signature_mismatch",
            ),
            step(
                "a vendor with another secret",
                forged,
                401,
                "signature_mismatch",
            ),
            step(
                "the sample in Pleo's docs, of 2021",
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
    let secrets = core::slice::from_ref(secret);
    let pairs = signature_headers(secrets, id, timestamp, body.as_bytes())?;
    Ok((header_map(&pairs)?, body.into()))
}

/// Returns the sample in Pleo's documentation, which was signed in 2021.
fn sample() -> Result<(HeaderMap, Bytes), Failure> {
    let pairs = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        (
            "webhook-signature",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ];
    let headers = header_map(&pairs.map(|(name, value)| (name, value.to_owned())))?;
    Ok((headers, Bytes::from_static(b"{\"test\": 2432232314}")))
}

/// Returns a secret for this run of the demo.
fn new_secret() -> String {
    let key = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    format!("whsec_{}", STANDARD.encode(key))
}

fn fail(error: impl std::error::Error) -> Failure {
    Failure::run(&error)
}
