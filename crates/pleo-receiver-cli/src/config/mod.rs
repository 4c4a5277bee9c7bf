//! What `serve` is told: by flags, by the environment and by a TOML file, in that order.

mod handler;
mod limits;
mod values;

use core::hash::{Hash, Hasher};
use std::collections::BTreeMap;
use std::fs;
use std::hash::DefaultHasher;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use pleo_receiver::verify::Secret;
use pleo_receiver::{DispatchOptions, Endpoint, PLEO_EU, PLEO_US};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing_subscriber::filter::LevelFilter;

pub(crate) use self::handler::Target;
use self::handler::target;
use self::limits::{Limits, Retry};
pub(crate) use self::values::Secrets;
use self::values::{Level, Network, Source, Words, networks, parse_network};
use crate::args::Serve;
use crate::commands::subscriptions::declared::{Owner, Subscription};
use crate::failure::Failure;
use crate::secret_ref::SecretRef;

pub(crate) const DEFAULT_INBOX: &str = "sqlite:pleo-inbox.db";
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 8787);
const DEFAULT_PATH: &str = "/webhooks/pleo";

/// All that a server needs, checked.
pub(crate) struct Config {
    pub(crate) fixed: Fixed,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) handler: Option<Target>,
    pub(crate) retry: DispatchOptions,
    /// A hash of all that makes `handler` and `retry` what they are, to tell whether they changed.
    pub(crate) handing_on: u64,
    /// What the file says of the log.
    pub(crate) log: Option<LevelFilter>,
}

/// What a server keeps until it is started again.
#[derive(Clone)]
pub(crate) struct Fixed {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) inbox: String,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) limits: Limits,
}

/// Where to listen for HTTPS, and with what.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) listen: SocketAddr,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The keys of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    tls_listen: Option<SocketAddr>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    metrics: Option<SocketAddr>,
    inbox: Option<String>,
    log: Option<Level>,
    path: Option<String>,
    #[serde(default, alias = "secrets")]
    secret: Secrets,
    tolerance: Option<u64>,
    forward: Option<SecretRef>,
    forward_secret: Option<SecretRef>,
    exec: Option<Words>,
    #[serde(default, alias = "trusted-proxy")]
    trusted_proxies: Vec<Network>,
    #[serde(default)]
    networks: BTreeMap<String, Vec<Network>>,
    #[serde(default)]
    endpoint: Vec<FileEndpoint>,
    #[serde(default)]
    retry: Retry,
    #[serde(default)]
    limits: Limits,
    /// For those who look after the subscriptions; a server doesn't need it.
    #[serde(rename = "subscriptions")]
    _subscriptions: Option<Owner>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEndpoint {
    name: Option<String>,
    path: String,
    #[serde(alias = "secrets")]
    secret: Secrets,
    tolerance: Option<u64>,
    basic: Option<Basic>,
    #[serde(default)]
    headers: BTreeMap<String, SecretRef>,
    #[serde(default)]
    sources: Vec<Source>,
    subscription: Option<Subscription>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Basic {
    pub(crate) username: SecretRef,
    pub(crate) password: SecretRef,
}

impl Config {
    /// Puts flags (which clap has joined with the environment) and file together. `is_flag` says
    /// whether an argument was given as a flag.
    pub(crate) fn new(args: Serve, is_flag: impl Fn(&str) -> bool) -> Result<Self, Failure> {
        let (file, place) = match &args.config {
            Some(path) => (read::<File>(path)?, path.display().to_string()),
            None => (File::default(), String::new()),
        };
        let at = |key: &str| {
            if place.is_empty() {
                format!("`--{key}`")
            } else {
                format!("`--{key}`, or `{}` in {place}", key.replace('-', "_"))
            }
        };
        let endpoints = if file.endpoint.is_empty() {
            vec![single_endpoint(&args, &file, at)?]
        } else {
            for flag in ["secret", "path", "tolerance"] {
                if is_flag(flag) {
                    return Err(usage(
                        &format!("`--{flag}`"),
                        &format!("{place} has `[[endpoint]]` tables: set it there"),
                    ));
                }
            }
            if file.path.is_some() || !file.secret.0.is_empty() || file.tolerance.is_some() {
                let why = "`path`, `secret` and `tolerance` beside `[[endpoint]]` tables mean \
                           nothing: move them into the tables";
                return Err(usage(&place, why));
            }
            file.check_endpoints(&place)?;
            let endpoints = file.endpoint.iter().enumerate();
            let build = |(index, endpoint): (usize, &FileEndpoint)| {
                endpoint.build(&file.networks, &place, index)
            };
            endpoints.map(build).collect::<Result<_, _>>()?
        };
        let mut retry = file.retry.policy();
        retry.grace = file.limits.server().grace;
        let mut handing_on = DefaultHasher::new();
        file.retry.hash(&mut handing_on);
        let handler = target(&args, &file, retry.timeout, at, &mut handing_on)?;
        let mut trusted_proxies = Vec::new();
        for network in &args.trusted_proxies {
            let parsed = parse_network(network);
            trusted_proxies.push(parsed.map_err(|why| usage("`--trusted-proxy`", &why))?);
        }
        if trusted_proxies.is_empty() {
            trusted_proxies = networks(&file.trusted_proxies);
        }
        let tls = tls(&args, &file, at)?;
        let default = tls.is_none().then_some(DEFAULT_LISTEN);
        Ok(Self {
            fixed: Fixed {
                listen: args.listen.or(file.listen).or(default),
                tls,
                metrics: args.metrics.or(file.metrics),
                inbox: (args.inbox.or(file.inbox)).unwrap_or_else(|| DEFAULT_INBOX.to_owned()),
                trusted_proxies,
                limits: file.limits,
            },
            endpoints,
            handler,
            retry,
            handing_on: handing_on.finish(),
            log: file.log.map(|level| level.0),
        })
    }
}

impl Fixed {
    /// The keys whose values differ.
    pub(crate) fn changes(&self, other: &Self) -> Vec<&'static str> {
        let changes = [
            ("listen", self.listen != other.listen),
            (
                "tls_listen, tls_certificate, tls_key",
                self.tls != other.tls,
            ),
            ("metrics", self.metrics != other.metrics),
            ("inbox", self.inbox != other.inbox),
            (
                "trusted_proxies",
                self.trusted_proxies != other.trusted_proxies,
            ),
            ("[limits]", self.limits != other.limits),
        ];
        let changed = changes.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(key, _)| key).collect()
    }
}

/// Reads a file of which it shows nothing secret where it can't be read.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let place = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|error| usage(&place, &format!("cannot read the configuration: {error}")))?;
    toml::from_str(&text).map_err(|error| {
        // Not the error's own picture of the line, which may hold a secret.
        let mut what = error.message().to_owned();
        if what.contains("whsec_") {
            what = "not shown, since it holds a secret".to_owned();
        }
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let key = match line.split_once('=') {
            Some((key, _)) => format!(", key `{}`", key.trim()),
            None => String::new(),
        };
        usage(&format!("{place}, line {number}{key}"), &what)
    })
}

/// Whether a file holds nothing that a server doesn't know, and no endpoint twice.
pub(crate) fn check_keys(path: &Path) -> Result<(), Failure> {
    read::<File>(path)?.check_endpoints(&path.display().to_string())
}

impl FileEndpoint {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.path)
    }

    fn build(&self, lists: &Lists, file: &str, index: usize) -> Result<Endpoint, Failure> {
        let place = |key: &str| {
            let number = index + 1;
            format!(
                "{file}, `[[endpoint]]` number {number} (`{}`), key `{key}`",
                self.path
            )
        };
        let secrets = self.secret.parse(&place("secret"))?;
        let mut endpoint = endpoint(&self.path, secrets, &place("path"), &place("secret"))?;
        if let Some(name) = &self.name {
            endpoint = endpoint.with_name(name.as_str());
        }
        if let Some(seconds) = self.tolerance {
            endpoint = endpoint.tolerance(seconds);
        }
        if let Some(basic) = &self.basic {
            let resolve = |hidden: &SecretRef, key| {
                let resolved = hidden.resolve();
                resolved.map_err(|why| usage(&place(key), &why))
            };
            let username = resolve(&basic.username, "basic.username")?;
            let password = resolve(&basic.password, "basic.password")?;
            endpoint = endpoint.credentials(&username, &password);
        }
        for (name, value) in &self.headers {
            let key = format!("headers.{name}");
            let value = value.resolve().map_err(|why| usage(&place(&key), &why))?;
            endpoint = endpoint
                .require_header(name, &value)
                .map_err(|error| usage(&place(&key), &error.to_string()))?;
        }
        for source in &self.sources {
            endpoint = match source {
                Source::Network(network) => endpoint.allow_sources([*network]),
                Source::Named(name) => {
                    let list = named(name, lists).ok_or_else(|| {
                        let why = "is neither a network nor the name of some: there are `pleo-eu`, \
                                   `pleo-us`, and what `[networks]` defines";
                        usage(&place("sources"), &format!("`{name}` {why}"))
                    })?;
                    endpoint.allow_sources(list)
                }
            };
        }
        Ok(endpoint)
    }
}

/// Lists of networks, by name.
type Lists = BTreeMap<String, Vec<Network>>;

/// The file's own lists come before those that are ready-made.
fn named(name: &str, lists: &Lists) -> Option<Vec<IpNet>> {
    match (lists.get(name), name) {
        (Some(list), _) => Some(networks(list)),
        (None, "pleo-eu") => Some(PLEO_EU.into()),
        (None, "pleo-us") => Some(PLEO_US.into()),
        (None, _) => None,
    }
}

fn single_endpoint(
    args: &Serve,
    file: &File,
    at: impl Fn(&str) -> String,
) -> Result<Endpoint, Failure> {
    let secrets = if args.secret.is_empty() {
        file.secret.parse(&at("secret"))?
    } else {
        let place = "`--secret` (PLEO_WEBHOOK_SECRET)";
        Secrets(args.secret.clone()).parse(place)?
    };
    if secrets.is_empty() {
        let why = "no signing secret: set PLEO_WEBHOOK_SECRET to the `whsec_…` of the subscription, \
                   or give `--secret file:PATH`";
        return Err(usage(&at("secret"), why));
    }
    let path = args.path.as_deref().or(file.path.as_deref());
    let path = path.unwrap_or(DEFAULT_PATH);
    let endpoint = endpoint(path, secrets, &at("path"), &at("secret"))?;
    Ok(match args.tolerance.or(file.tolerance) {
        Some(seconds) => endpoint.tolerance(seconds),
        None => endpoint,
    })
}

fn endpoint(
    path: &str,
    secrets: Vec<Secret>,
    path_place: &str,
    secret_place: &str,
) -> Result<Endpoint, Failure> {
    let mut secrets = secrets.into_iter();
    let first = secrets.next();
    let first = first.ok_or_else(|| usage(secret_place, "no secret: give at least one"))?;
    let mut endpoint =
        Endpoint::new(path, first).map_err(|error| usage(path_place, &error.to_string()))?;
    for secret in secrets {
        endpoint = endpoint
            .and_secret(secret)
            .map_err(|error| usage(secret_place, &error.to_string()))?;
    }
    Ok(endpoint)
}

fn tls(
    args: &Serve,
    file: &File,
    at: impl Fn(&str) -> String,
) -> Result<Option<TlsFiles>, Failure> {
    let listen = args.tls_listen.or(file.tls_listen);
    let certificate = args
        .tls_certificate
        .as_ref()
        .or(file.tls_certificate.as_ref());
    let key = args.tls_key.as_ref().or(file.tls_key.as_ref());
    let missing = match (listen, certificate, key) {
        (None, None, None) => return Ok(None),
        (Some(listen), Some(certificate), Some(key)) => {
            return Ok(Some(TlsFiles {
                listen,
                certificate: certificate.clone(),
                key: key.clone(),
            }));
        }
        (None, ..) => "tls-listen",
        (_, None, _) => "tls-certificate",
        (.., None) => "tls-key",
    };
    let why = "missing: HTTPS needs an address, a certificate and a key";
    Err(usage(&at(missing), why))
}

impl File {
    fn check_endpoints(&self, place: &str) -> Result<(), Failure> {
        self.check_differ("path", |one| &one.path, place)?;
        self.check_differ("name", FileEndpoint::name, place)
    }

    /// Whether no two endpoints have the same of this key.
    fn check_differ(
        &self,
        key: &str,
        value: impl Fn(&FileEndpoint) -> &str,
        place: &str,
    ) -> Result<(), Failure> {
        for (index, endpoint) in self.endpoint.iter().enumerate() {
            let value_here = value(endpoint);
            let mut before = self.endpoint.iter().take(index);
            if let Some(first) = before.position(|one| value(one) == value_here) {
                let (first, second) = (first + 1, index + 1);
                let why =
                    format!("number {first} has the {key} `{value_here}` too: give each its own");
                let key = format!("{place}, `[[endpoint]]` number {second}, key `{key}`");
                return Err(usage(&key, &why));
            }
        }
        Ok(())
    }

    /// The variables that hold something secret, which no command needs to see.
    fn env_names(&self) -> impl Iterator<Item = &str> {
        let endpoints = self.endpoint.iter().flat_map(|endpoint| {
            let basic = endpoint
                .basic
                .iter()
                .flat_map(|basic| [&basic.username, &basic.password]);
            let logins = endpoint.subscription.iter().flat_map(Subscription::secrets);
            (endpoint.secret.0.iter())
                .chain(basic)
                .chain(endpoint.headers.values())
                .chain(logins)
        });
        (self.secret.0.iter())
            .chain(endpoints)
            .filter_map(SecretRef::env_name)
    }
}

fn usage(place: &str, why: &str) -> Failure {
    Failure::Usage(format!("{place}: {why}"))
}
