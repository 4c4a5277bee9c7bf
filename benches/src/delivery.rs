//! The deliveries to verify.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use pleo_webhook_verify::{Secret, SignatureHeaders, unix_now};

use crate::random::Random;

/// The secret that signs: 24 bytes, as the sender generates them.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";

/// A delivery in every form that a contender needs.
#[derive(Clone)]
pub struct Delivery {
    /// The id; `None` if the header is missing.
    pub id: Option<String>,
    /// The timestamp.
    pub timestamp: String,
    /// The signature list.
    pub list: String,
    /// The base64 of each signature in the list, for the floor.
    pub encoded: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The current time in Unix seconds.
    pub now: u64,
    /// The headers in a map.
    pub map: HeaderMap,
}

impl Delivery {
    /// Makes a delivery with a number of signatures. All are wrong, except the last if `is_valid`.
    #[must_use]
    pub fn new(body_len: usize, signatures: usize, is_valid: bool) -> Self {
        let mut random = Random::new(41);
        // The peers reject a body that is not UTF-8.
        let body: Vec<u8> = (0..body_len)
            .map(|_| b"{\"data\": 0123456789abcdef}"[random.index(26)])
            .collect();
        let now = unix_now();
        let mut encoded: Vec<String> = (0..signatures)
            .map(|_| STANDARD.encode(random.bytes::<32>()))
            .collect();
        if is_valid && let Some(last) = encoded.last_mut() {
            let signature = secret().sign(ID, now, &body).expect("a valid id");
            *last = signature.as_str().trim_start_matches("v1,").to_owned();
        }
        let entries: Vec<String> = encoded.iter().map(|text| format!("v1,{text}")).collect();
        Self {
            id: Some(ID.to_owned()),
            timestamp: now.to_string(),
            list: entries.join(" "),
            encoded,
            body,
            now,
            map: HeaderMap::new(),
        }
        .with_map()
    }

    /// Removes the id.
    #[must_use]
    pub fn without_id(mut self) -> Self {
        self.id = None;
        self.with_map()
    }

    /// Makes the timestamp too old.
    #[must_use]
    pub fn stale(mut self) -> Self {
        self.timestamp = (self.now - 1000).to_string();
        self.with_map()
    }

    /// Changes the version of all signatures to one that is not supported.
    #[must_use]
    pub fn without_v1(mut self) -> Self {
        self.list = self.list.replace("v1,", "v1a,");
        self.with_map()
    }

    /// Returns the signature headers.
    #[must_use]
    pub fn headers(&self) -> SignatureHeaders<'_> {
        let id = self.id.as_deref().map(|id| ("webhook-id", id));
        let others = [
            ("webhook-timestamp", &*self.timestamp),
            ("webhook-signature", &self.list),
        ];
        SignatureHeaders::from_pairs(id.into_iter().chain(others)).expect("no header is duplicated")
    }

    fn with_map(mut self) -> Self {
        let mut map = HeaderMap::new();
        let id = self.id.as_deref();
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", Some(&self.timestamp)),
            ("webhook-signature", Some(&self.list)),
            ("content-type", Some("application/json")),
            ("user-agent", Some("Svix-Webhooks/1.100.0")),
        ] {
            if let Some(value) = value {
                map.insert(name, HeaderValue::from_str(value).expect("visible ASCII"));
            }
        }
        self.map = map;
        self
    }
}

/// Parses [`SECRET`].
#[must_use]
pub fn secret() -> Secret {
    SECRET.parse().expect("a valid secret")
}
