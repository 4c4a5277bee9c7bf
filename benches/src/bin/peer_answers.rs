//! Prints what the Rust peers answer to the conformance vectors, as JSON. `vectors/compare` runs it at the
//! time that the vectors need.
//!
//! The argument is the folder of the vectors. Cases for another time than the system clock's are left out.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, str};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

const TOLERANCE: u64 = 300;
const NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

#[derive(Deserialize)]
struct Deliveries {
    cases: Vec<Delivery>,
}

#[derive(Deserialize)]
struct Delivery {
    name: String,
    secrets: Vec<String>,
    now: u64,
    tolerance: u64,
    id_b64: Option<String>,
    timestamp_b64: Option<String>,
    signature_b64: Option<String>,
    body_b64: String,
}

#[derive(Deserialize)]
struct Requests {
    secret: String,
    now: u64,
    body: String,
    cases: Vec<Request>,
}

#[derive(Deserialize)]
struct Request {
    name: String,
    headers: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Secrets {
    cases: Vec<Secret>,
}

#[derive(Deserialize)]
struct Secret {
    name: String,
    secret: String,
}

type Verify = fn(&str, &[u8], &HeaderMap) -> bool;
type Parse = fn(&str) -> bool;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("usage: peer_answers FOLDER")?;
    let read = |name: &str| fs::read(format!("{folder}/{name}.json"));
    let deliveries: Deliveries = serde_json::from_slice(&read("verify")?)?;
    let requests: Requests = serde_json::from_slice(&read("headers")?)?;
    let secrets: Secrets = serde_json::from_slice(&read("secrets")?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();

    let peers: [(&str, Verify, Parse); 2] = [
        ("standardwebhooks", standard_webhooks, |secret| {
            standardwebhooks::Webhook::new(secret).is_ok()
        }),
        ("svix", svix, |secret| {
            svix::webhooks::Webhook::new(secret).is_ok()
        }),
    ];
    let mut answers: BTreeMap<&str, BTreeMap<String, &str>> = BTreeMap::new();
    for (peer, verify, parse) in peers {
        let answers = answers.entry(peer).or_default();
        let cases = deliveries.cases.iter();
        for case in cases.filter(|case| case.now == now && case.tolerance == TOLERANCE) {
            // A value that is not valid in HTTP reaches no receiver.
            let Some(headers) = case.headers()? else {
                continue;
            };
            let body = decode(&case.body_b64)?;
            let accepts = |secret: &String| verify(secret, &body, &headers);
            let accepted = case.secrets.iter().any(accepts);
            answers.insert(format!("verify/{}", case.name), answer(accepted));
        }
        if requests.now != now {
            continue;
        }
        for case in &requests.cases {
            let mut headers = HeaderMap::new();
            for (name, value) in &case.headers {
                headers.append(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
            }
            let accepted = verify(&requests.secret, requests.body.as_bytes(), &headers);
            answers.insert(format!("headers/{}", case.name), answer(accepted));
        }
        for case in &secrets.cases {
            let accepted = parse(&case.secret);
            answers.insert(format!("secrets/{}", case.name), answer(accepted));
        }
    }
    println!("{}", serde_json::to_string(&answers)?);
    Ok(())
}

impl Delivery {
    /// Returns the headers; `None` if a value is not valid in HTTP.
    fn headers(&self) -> Result<Option<HeaderMap>, Box<dyn Error>> {
        let mut map = HeaderMap::new();
        let values = [&self.id_b64, &self.timestamp_b64, &self.signature_b64];
        for (name, value) in NAMES.into_iter().zip(values) {
            let Some(value) = value else {
                continue;
            };
            let Ok(value) = HeaderValue::from_bytes(&decode(value)?) else {
                return Ok(None);
            };
            map.insert(name, value);
        }
        Ok(Some(map))
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    STANDARD
        .decode(text)
        .map_err(|error| format!("`{text}` is not base64: {error}").into())
}

fn standard_webhooks(secret: &str, body: &[u8], headers: &HeaderMap) -> bool {
    standardwebhooks::Webhook::new(secret).is_ok_and(|peer| peer.verify(body, headers).is_ok())
}

fn svix(secret: &str, body: &[u8], headers: &HeaderMap) -> bool {
    svix::webhooks::Webhook::new(secret).is_ok_and(|peer| peer.verify(body, headers).is_ok())
}

fn answer(accepted: bool) -> &'static str {
    if accepted { "accepts" } else { "rejects" }
}
