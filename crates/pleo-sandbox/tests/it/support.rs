//! A client of the sandbox, and a receiver of its deliveries.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use pleo_http::Target;
use pleo_http::reqwest::{Client, Method, RequestBuilder};
use pleo_sandbox::Sandbox;
use pleo_webhook_verify::{Secret, SignatureHeaders, Verifier, unix_now};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) const EXPORT: &str = "v1.export-job.created";

/// An answer of the sandbox.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: pleo_http::reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

pub(crate) fn client() -> Client {
    let any: Target = "http://localhost/".parse().unwrap();
    any.client("test").unwrap()
}

pub(crate) fn request(sandbox: &Sandbox, method: Method, path: &str) -> RequestBuilder {
    client().request(method, format!("{}{path}", sandbox.url()))
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response.text().await.unwrap(),
    }
}

/// Calls Pleo's API with the sandbox's token.
pub(crate) async fn call(
    sandbox: &Sandbox,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let request = request(sandbox, method, path).bearer_auth(sandbox.token());
    send(with_json(request, body)).await
}

/// Posts to the control API.
pub(crate) async fn control(sandbox: &Sandbox, path: &str, body: Option<Value>) -> Answer {
    let request = request(sandbox, Method::POST, &format!("/sandbox/{path}"));
    send(with_json(request, body)).await
}

pub(crate) fn with_json(request: RequestBuilder, body: Option<Value>) -> RequestBuilder {
    match body {
        Some(body) => request
            .header("content-type", "application/json;charset=UTF-8")
            .body(body.to_string()),
        None => request,
    }
}

/// Subscribes a URL to export jobs. Returns the id.
pub(crate) async fn subscribe(sandbox: &Sandbox, url: &str) -> Uuid {
    let body = json!({ "endpointUrl": url, "eventTypes": [EXPORT] });
    let answer = call(sandbox, Method::POST, "/v1/subscriptions", Some(body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["data"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// Returns the newest signing secret of a subscription.
pub(crate) async fn secret(sandbox: &Sandbox, subscription: Uuid) -> String {
    let path = format!("/v1/subscriptions/{subscription}/secret");
    let answer = call(sandbox, Method::GET, &path, None).await;
    let key = answer.json()["data"]["secretKey"].clone();
    key.as_str().unwrap().to_owned()
}

pub(crate) async fn status(sandbox: &Sandbox, subscription: Uuid) -> String {
    let path = format!("/v1/subscriptions/{subscription}");
    let answer = call(sandbox, Method::GET, &path, None).await;
    answer.json()["data"]["status"].as_str().unwrap().to_owned()
}

/// A delivery that a receiver got.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        found.next().map_or("", |(_, value)| value)
    }

    /// Verifies the signature as a receiver does.
    pub(crate) fn is_signed_by(&self, secret: &str) -> bool {
        let secret: Secret = secret.parse().unwrap();
        let pairs = self.headers.iter().map(|(name, value)| (name, value));
        let headers = SignatureHeaders::from_pairs(pairs).unwrap();
        let verifier = Verifier::from(secret);
        verifier
            .verify(&headers, self.body.as_bytes(), unix_now())
            .is_ok()
    }
}

/// An HTTP server that answers deliveries with the given statuses and headers, and then with 204.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    answers: Arc<Mutex<VecDeque<String>>>,
    received: watch::Sender<Vec<Received>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            answers: Arc::default(),
            received: watch::Sender::default(),
        };
        let server = receiver.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(server.clone().serve(stream));
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/webhooks/pleo", self.address)
    }

    /// Answers the next deliveries with these heads, such as `503 X` or `503 X\r\nretry-after: 1`. An
    /// empty one closes the connection.
    pub(crate) fn answer<'a>(&self, heads: impl IntoIterator<Item = &'a str>) {
        let heads = heads.into_iter().map(str::to_owned);
        self.answers.lock().unwrap().extend(heads);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut headers, mut length, mut line) = (Vec::new(), 0, String::new());
            loop {
                line.clear();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
                if line == "\r\n" {
                    break;
                }
                if let Some((name, value)) = line.trim_end().split_once(": ") {
                    if name == "content-length" {
                        length = value.parse().unwrap();
                    }
                    headers.push((name.to_owned(), value.to_owned()));
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let body = String::from_utf8(body).unwrap();
            self.received
                .send_modify(|all| all.push(Received { headers, body }));
            let head = self.answers.lock().unwrap().pop_front();
            let head = head.unwrap_or_else(|| "204 No Content".to_owned());
            if head.is_empty() {
                return;
            }
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}
