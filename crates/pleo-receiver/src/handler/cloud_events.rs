//! A message as a CloudEvent 1.0.2, in the binary mode of its HTTP binding.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use super::delivery::Delivery;

/// The type of a message whose body is not an envelope, or whose event type cannot be an attribute.
const UNKNOWN_TYPE: &str = "unknown";

/// The maximum length of an event type. The sender chooses it, and targets limit their headers.
const MAX_TYPE_LEN: usize = 1024;

/// The characters of a header value that are percent-encoded, beside those outside of ASCII (HTTP
/// binding, section 3.1.3.2).
const HEADER_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The characters of an endpoint's name that are percent-encoded in a URI's path (RFC 3986 section
/// 3.3).
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Writes messages as CloudEvents.
#[derive(Clone, Debug)]
pub(super) struct CloudEvents {
    /// A URI or its start, without a slash at its end.
    source: String,
}

impl CloudEvents {
    /// Uses this URI, or start of one, as the start of the source. An error says what is wrong.
    pub(super) fn new(source: &str) -> Result<Self, &'static str> {
        // RFC 3986 sections 2.1 to 2.3, without `?` and `#`, since a path follows.
        let is_allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]@!$&'()*+,;=%".contains(&byte);
        if !source.bytes().all(is_allowed) {
            return Err(
                "a URI without query and fragment has letters, digits and -._~:/[]@!$&'()*+,;=% only",
            );
        }
        let mut escapes = source.split('%').skip(1).map(str::as_bytes);
        let is_escape = |text: &[u8]| {
            text.iter()
                .take(2)
                .filter(|byte| byte.is_ascii_hexdigit())
                .count()
                == 2
        };
        if !escapes.all(is_escape) {
            return Err("`%` without two hexadecimal digits");
        }
        Ok(Self {
            source: source.trim_end_matches('/').to_owned(),
        })
    }

    /// Returns the names and values of the headers. Source and id together are unique for a message,
    /// and the same for each attempt.
    pub(super) fn headers(&self, delivery: &Delivery) -> [(&'static str, String); 5] {
        let is_type = |text: &&str| {
            !text.is_empty() && text.len() <= MAX_TYPE_LEN && !text.contains(char::is_control)
        };
        let event_type = delivery.event_type().filter(is_type);
        let attributes = [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", delivery.id().to_owned()),
            ("ce-source", self.source(delivery.endpoint())),
            ("ce-type", event_type.unwrap_or(UNKNOWN_TYPE).to_owned()),
            ("ce-time", delivery.received_at().to_string()),
        ];
        attributes.map(|(name, value)| {
            let value = utf8_percent_encode(&value, HEADER_VALUE).to_string();
            (name, value)
        })
    }

    /// Returns the source: the configured start, and the endpoint's name as a path, or as a fragment if
    /// it does not begin with `/`. Different names give different sources.
    fn source(&self, endpoint: &str) -> String {
        let (start, encode) = (&self.source, |text| utf8_percent_encode(text, PATH));
        let Some(path) = endpoint.strip_prefix('/') else {
            return format!("{start}#{}", encode(endpoint));
        };
        let rest = path.trim_start_matches('/');
        // A reference that begins with `//` would name a host (RFC 3986 section 4.2).
        let slashes = "%2F".repeat(path.len() - rest.len());
        format!("{start}/{slashes}{}", encode(rest))
    }
}
