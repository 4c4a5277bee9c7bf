//! The load: requests signed beforehand, sent over connections that stay open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pleo_receiver::verify::{Secret, unix_now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// An export job as Pleo words it.
const BODY: &str = r#"{"data":{"id":"0a9f7c4e-5b1d-4c57-9a39-5f1c1f0c9d11","companyId":"3f0b4a6e-6d5c-4b6e-8f1a-2c9d7e5b4a33","createdBy":"7c1e2d3f-4a5b-4c6d-8e9f-0a1b2c3d4e5f","createdAt":"2026-11-24T09:30:00Z","numberOfItems":3,"expiresIn":3600,"status":"pending","startedAt":null,"completedAt":null,"failureReason":null},"eventType":"v1.export-job.created","eventId":"a257a31e-e8a6-4c36-a98d-451250e5b5c4"}"#;

/// Whole requests, byte for byte.
pub struct Requests(Arc<Vec<Bytes>>);

impl Requests {
    /// So many, each with its own id.
    pub fn new(count: u64, id: impl Fn(u64) -> String) -> Self {
        let (secret, now) = (secret(), unix_now());
        let request = |number| {
            let id = id(number);
            let signature = secret.sign(&id, now, BODY.as_bytes()).expect("a plain id");
            let length = BODY.len();
            Bytes::from(format!(
                "POST /webhooks/pleo HTTP/1.1\r\nhost: localhost\r\nuser-agent: Svix-Webhooks/1.100\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\nwebhook-id: {id}\r\n\
                 webhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\r\n{BODY}"
            ))
        };
        Self(Arc::new((0..count).map(request).collect()))
    }

    pub fn body_len(&self) -> usize {
        BODY.len()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Sends them all; gives requests per second.
    pub async fn send(&self, address: SocketAddr, connections: usize) -> f64 {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address)
                .await
                .expect("the server listens");
            stream.set_nodelay(true).expect("a TCP socket");
            streams.push(stream);
        }
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (first, mut stream) in streams.into_iter().enumerate() {
            let requests = Arc::clone(&self.0);
            tasks.spawn(async move {
                let mut answer = [0; 1024];
                // In turn, so that ids rise over all connections together.
                for request in requests.iter().skip(first).step_by(connections) {
                    stream.write_all(request).await.expect("the server reads");
                    let mut len = 0;
                    while !answer[..len].ends_with(b"\r\n\r\n") {
                        let read = stream.read(&mut answer[len..]).await.expect("an answer");
                        assert_ne!(read, 0, "the server closed the connection");
                        len += read;
                    }
                    assert!(answer.starts_with(b"HTTP/1.1 204 "), "not 204");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("every request was answered");
        }
        self.0.len() as f64 / start.elapsed().as_secs_f64()
    }
}

/// Identifiers in no order.
pub fn scattered_id(number: u64) -> String {
    let (low, high) = (mix(number), mix(number ^ 0x9E37_79B9_7F4A_7C15));
    format!("msg_{low:016x}{high:011x}")
}

/// SplitMix64's finaliser: neighbours end far apart, and no two in one place.
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

pub fn secret() -> Secret {
    Secret::from_bytes(&[7; 24]).expect("long enough")
}
