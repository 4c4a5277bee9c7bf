//! Books export jobs in a ledger, with all three kinds of failure, and tests that.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::time::Duration;

use pleo_receiver::events::{Event, ExportJob};
use pleo_receiver::{
    Delivery, Endpoint, Handler, HandlerError, HandlerFuture, Receiver, SqliteInbox, serve,
};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("PLEO_WEBHOOK_SECRET")?.parse()?;
    let (receiver, dispatcher) = Receiver::builder(SqliteInbox::open("pleo-inbox.db")?)
        .endpoint(Endpoint::new("/webhooks/pleo", secret)?)
        .handler(Books { max_items: 500 })
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:8787").await?;
    let shutdown = async { signal::ctrl_c().await.unwrap_or(()) };
    serve(listener, receiver, dispatcher, shutdown).await?;
    Ok(())
}

/// Books export jobs. Its state is shared by all messages.
struct Books {
    max_items: u64,
}

impl Handler for Books {
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_> {
        Box::pin(async move {
            // A body that is not an event is a permanent failure.
            let Event::ExportJobCreated(job) = delivery.event()? else {
                return Ok(());
            };
            if job.number_of_items > self.max_items {
                return Err(HandlerError::permanent("too many items for the ledger"));
            }
            if delivery.attempt() == 1 && job.number_of_items > 100 {
                let later = Duration::from_secs(3600);
                return Err(HandlerError::retry_after(
                    later,
                    "large jobs are booked later",
                ));
            }
            // `?` makes any other error a failure that is retried with backoff.
            Ok(book(&job)?)
        })
    }
}

fn book(job: &ExportJob) -> Result<(), String> {
    if job.number_of_items == 0 {
        return Err("the ledger expects at least one item".into());
    }
    println!("booked {} items", job.number_of_items);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails loudly")]

    use pleo_receiver::events::{samples, serde_json::json, uuid::Uuid};
    use pleo_receiver::http::Request;
    use pleo_receiver::http_body_util::Full;
    use pleo_receiver::jiff::Timestamp;
    use pleo_receiver::verify::{Secret, unix_now};
    use pleo_receiver::{Entry, Inbox, Key, MemoryInbox, State};

    use super::*;

    /// Signs a message, posts it, dispatches it, and returns its outcome.
    async fn outcome(body: &str) -> Entry {
        let secret = Secret::from_bytes(&[7; 32]).unwrap();
        let now = unix_now();
        let signature = secret.sign("msg_1", now, body.as_bytes()).unwrap();
        let (receiver, mut dispatcher) = Receiver::builder(MemoryInbox::new())
            .endpoint(Endpoint::new("/books", secret).unwrap())
            .handler(Books { max_items: 500 })
            .build()
            .unwrap();
        let request = Request::post("/books")
            .header("content-type", "application/json")
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature.to_string())
            .body(Full::from(body.to_owned()))
            .unwrap();
        assert_eq!(receiver.respond(request).await.status(), 204);
        dispatcher.run_until_idle().await.unwrap();
        let key = Key::new("/books", "msg_1");
        receiver.inbox().get(key).await.unwrap().unwrap().entry
    }

    fn job(items: u64) -> String {
        let mut job = samples::export_job(Uuid::nil(), Uuid::nil(), Timestamp::now());
        job.number_of_items = items;
        samples::event("v1.export-job.created", Uuid::nil(), &json!(job))
    }

    #[tokio::test]
    async fn books_job() {
        assert_eq!(outcome(&job(3)).await.state, State::Done);
    }

    #[tokio::test]
    async fn retries_later() {
        for items in [0, 200] {
            let entry = outcome(&job(items)).await;
            assert_eq!((entry.state, entry.attempts), (State::Pending, 1));
            assert!(entry.due_at.is_some());
        }
    }

    #[tokio::test]
    async fn gives_up() {
        for body in ["not an event".to_owned(), job(501)] {
            assert_eq!(outcome(&body).await.state, State::Dead);
        }
    }
}
