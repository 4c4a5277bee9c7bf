//! What `serve` is told: by flags, by the environment and by a TOML file, in that order.

mod limits;
mod values;

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use pleo_receiver::verify::Secret;
use pleo_receiver::{Endpoint, Exec, Forward, RetryPolicy};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::limits::{Limits, Retry};
pub(crate) use self::values::Secrets;
use self::values::{Network, Words, networks, parse_network};
use crate::cli::Serve;
use crate::hidden::Hidden;
use crate::subscriptions::declared::{Owner, Subscription};
use crate::{Failure, chain};

pub(crate) const DEFAULT_INBOX: &str = "sqlite:pleo-inbox.db";
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 8787);
const DEFAULT_PATH: &str = "/webhooks/pleo";

/// All that a server needs, checked.
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) inbox: String,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) handler: Option<Target>,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) retry: RetryPolicy,
    pub(crate) limits: Limits,
}

/// Who gets the messages.
pub(crate) enum Target {
    Forward(Box<Forward>),
    Exec(Exec),
}

/// The keys of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    inbox: Option<String>,
    path: Option<String>,
    #[serde(default, alias = "secrets")]
    secret: Secrets,
    tolerance: Option<u64>,
    forward: Option<Hidden>,
    forward_secret: Option<Hidden>,
    exec: Option<Words>,
    #[serde(default, alias = "trusted-proxy")]
    trusted_proxies: Vec<Network>,
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
    headers: BTreeMap<String, Hidden>,
    #[serde(default)]
    sources: Vec<Network>,
    subscription: Option<Subscription>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Basic {
    pub(crate) username: Hidden,
    pub(crate) password: Hidden,
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
            file.check_paths(&place)?;
            let endpoints = file.endpoint.iter().enumerate();
            let build = |(index, endpoint): (usize, &FileEndpoint)| endpoint.build(&place, index);
            endpoints.map(build).collect::<Result<_, _>>()?
        };
        let retry = file.retry.policy();
        let handler = target(&args, &file, retry.timeout, at)?;
        let mut trusted_proxies = Vec::new();
        for network in &args.trusted_proxies {
            let parsed = parse_network(network);
            trusted_proxies.push(parsed.map_err(|why| usage("`--trusted-proxy`", &why))?);
        }
        if trusted_proxies.is_empty() {
            trusted_proxies = networks(&file.trusted_proxies);
        }
        Ok(Self {
            listen: args.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            metrics: args.metrics.or(file.metrics),
            inbox: (args.inbox.or(file.inbox)).unwrap_or_else(|| DEFAULT_INBOX.to_owned()),
            endpoints,
            handler,
            trusted_proxies,
            retry,
            limits: file.limits,
        })
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

/// Whether a file holds nothing that a server doesn't know.
pub(crate) fn check_keys(path: &Path) -> Result<(), Failure> {
    read::<File>(path).map(drop)
}

impl FileEndpoint {
    fn build(&self, file: &str, index: usize) -> Result<Endpoint, Failure> {
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
            endpoint = endpoint.name(name.as_str());
        }
        if let Some(seconds) = self.tolerance {
            endpoint = endpoint.tolerance(seconds);
        }
        if let Some(basic) = &self.basic {
            let resolve = |hidden: &Hidden, key| {
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
        Ok(endpoint.allow_sources(networks(&self.sources)))
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

fn target(
    args: &Serve,
    file: &File,
    timeout: Duration,
    at: impl Fn(&str) -> String,
) -> Result<Option<Target>, Failure> {
    // What is said nearer hides both of what is said farther away.
    let (forward, exec) = if args.forward.is_some() || args.exec.is_some() {
        let words = args.exec.as_deref().map(Words::parse).transpose();
        let words = words.map_err(|why| usage("`--exec` (PLEO_EXEC)", &why))?;
        (args.forward.as_ref(), words)
    } else {
        (file.forward.as_ref(), file.exec.clone())
    };
    match (forward, exec) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(usage(&at("forward"), "not beside `exec`: choose one")),
        (
            None,
            Some(Words {
                program,
                args: words,
            }),
        ) => {
            let hidden = file
                .env_names()
                .chain(args.secret.iter().filter_map(Hidden::env_name));
            let exec = Exec::new(program).args(words).without_env(hidden);
            Ok(Some(Target::Exec(exec)))
        }
        (Some(url), None) => {
            let url = url.resolve().map_err(|why| usage(&at("forward"), &why))?;
            let mut forward = Forward::new(&url)
                .map_err(|error| usage(&at("forward"), &chain(&error)))?
                .with_timeout(timeout.min(Duration::from_secs(30)));
            if let Some(secret) = args
                .forward_secret
                .as_ref()
                .or(file.forward_secret.as_ref())
            {
                let place = at("forward-secret");
                let [secret] = <[_; 1]>::try_from(Secrets(vec![secret.clone()]).parse(&place)?)
                    .map_err(|_| usage(&place, "several secrets: give one"))?;
                forward = forward.signed_with(secret);
            }
            Ok(Some(Target::Forward(Box::new(forward))))
        }
    }
}

impl File {
    fn check_paths(&self, place: &str) -> Result<(), Failure> {
        for (index, endpoint) in self.endpoint.iter().enumerate() {
            let path = &endpoint.path;
            let mut before = self.endpoint.iter().take(index);
            if let Some(first) = before.position(|one| one.path == *path) {
                let (first, second) = (first + 1, index + 1);
                let why = format!("number {first} has the path `{path}` too: give each its own");
                let key = format!("{place}, `[[endpoint]]` number {second}, key `path`");
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
            .filter_map(Hidden::env_name)
    }
}

fn usage(place: &str, why: &str) -> Failure {
    Failure::Usage(format!("{place}: {why}"))
}
