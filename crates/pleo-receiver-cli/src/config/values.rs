//! The values of the file's keys.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use jiff::SpanRelativeTo;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::args::values::address;
use crate::secret_ref::SecretRef;

/// A secret, or a list of them.
#[derive(Debug, Default)]
pub(super) struct Secrets(pub(super) Vec<SecretRef>);

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = match toml::Value::deserialize(deserializer)? {
            toml::Value::Array(list) => list,
            single => vec![single],
        };
        let refs = list.into_iter().map(SecretRef::deserialize);
        refs.collect::<Result<_, _>>()
            .map(Self)
            .map_err(de::Error::custom)
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address(pub(super) SocketAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        address(&text).map(Self).map_err(de::Error::custom)
    }
}

/// A host name, without a port.
#[derive(Clone, Debug)]
pub(super) struct HostName(pub(super) String);

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_allowed) {
            let why = format!("`{text}` is not a host name: give it without scheme, port and path");
            return Err(de::Error::custom(why));
        }
        Ok(Self(text))
    }
}

/// A command, as a string with quotes or as a list.
#[derive(Clone, Debug, Hash)]
pub(super) struct Words {
    pub(super) program: String,
    pub(super) args: Vec<String>,
}

impl Words {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words = shlex::split(text).ok_or("a quote in the command is not closed")?;
        Self::new(words)
    }

    fn new(words: Vec<String>) -> Result<Self, String> {
        let mut words = words.into_iter();
        let program = words.next().ok_or("the command is empty")?;
        Ok(Self {
            program,
            args: words.collect(),
        })
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "it must be a string, or a list of strings")]
        enum Form {
            Text(String),
            List(Vec<String>),
        }
        let words = match Form::deserialize(deserializer)? {
            Form::Text(text) => Self::parse(&text),
            Form::List(words) => Self::new(words),
        };
        words.map_err(de::Error::custom)
    }
}

/// The format of forwarded messages.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ForwardFormat {
    /// The body, with the headers of this program.
    #[default]
    Webhook,
    /// The headers of a CloudEvent in binary mode too.
    CloudEvents,
}

/// A network, or a single address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network(pub(super) IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_network(&text).map(Self).map_err(de::Error::custom)
    }
}

/// A source of an endpoint: a network, or the name of a list.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Network(IpNet),
    Named(String),
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_name = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            !text.is_empty() && text.bytes().all(plain)
        };
        match parse_network(&text) {
            Ok(network) => Ok(Self::Network(network)),
            Err(_) if is_name(&text) => Ok(Self::Named(text)),
            Err(why) => Err(de::Error::custom(why)),
        }
    }
}

pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse().or_else(|_| address());
    network
        .map_err(|_| format!("`{text}` is neither an IP address nor a network such as 10.0.0.0/8"))
}

pub(super) fn networks(networks: &[Network]) -> Vec<IpNet> {
    networks.iter().map(|network| network.0).collect()
}

/// A time span: `5s`, `1h 30m`, `30d`. A day has 24 hours.
#[derive(Clone, Copy, Debug, Hash, Serialize)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let days = SpanRelativeTo::days_are_24_hours();
        let span = text.parse::<jiff::Span>().ok();
        let span = span.and_then(|span| span.to_duration(days).ok());
        let span = span.and_then(|span| Duration::try_from(span).ok());
        span.map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a time span such as \"5s\"")))
    }
}
