//! The schema of the TOML file, which `serve`, `setup`, `sync`, `catch-up` and `doctor` all read.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::limits::{Limits, Retry};
use super::tasks::{CatchUp, Retention};
use super::values::{Address, ForwardFormat, HostName, Network, Secrets, Source, Words};
use crate::failure::Failure;
use crate::files;
use crate::log::{LogFilter, LogFormat};
use crate::secret_ref::SecretRef;

/// The default configuration file.
pub(crate) const DEFAULT_FILE: &str = "pleo.toml";

/// The default path of a single endpoint.
pub(crate) const DEFAULT_PATH: &str = "/webhooks/pleo";

const TWO_KEYS: &str = "both `secret` and `secrets` are set: keep one of them";

/// The keys of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(super) listen: Option<Address>,
    pub(super) tls_listen: Option<Address>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    #[serde(alias = "metrics")]
    pub(super) admin: Option<Address>,
    pub(super) admin_token: Option<SecretRef>,
    pub(super) admin_read_token: Option<SecretRef>,
    pub(super) admin_user: Option<SecretRef>,
    pub(super) admin_password: Option<SecretRef>,
    #[serde(default)]
    pub(super) admin_hosts: Vec<HostName>,
    pub(super) admin_bodies: Option<bool>,
    pub(crate) inbox: Option<String>,
    pub(super) migrate: Option<bool>,
    #[serde(default)]
    pub(super) allow_shared_directory: bool,
    pub(super) log: Option<LogFilter>,
    pub(super) log_format: Option<LogFormat>,
    pub(crate) path: Option<String>,
    secret: Option<Secrets>,
    secrets: Option<Secrets>,
    pub(super) tolerance: Option<u64>,
    pub(super) forward: Option<SecretRef>,
    pub(super) forward_secret: Option<SecretRef>,
    #[serde(default)]
    pub(super) forward_format: ForwardFormat,
    pub(super) forward_source: Option<String>,
    pub(super) exec: Option<Words>,
    #[serde(default)]
    pub(super) exec_env: Vec<String>,
    #[serde(default, alias = "trusted-proxy")]
    pub(super) trusted_proxies: Vec<Network>,
    #[serde(default)]
    pub(super) networks: BTreeMap<String, Vec<Network>>,
    #[serde(default)]
    pub(crate) endpoint: Vec<EndpointTable>,
    #[serde(default)]
    pub(super) retry: Retry,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) retention: Retention,
    #[serde(default)]
    pub(super) catch_up: CatchUp,
    pub(crate) subscriptions: Option<Owner>,
}

/// A table `[[endpoint]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointTable {
    pub(crate) name: Option<String>,
    pub(crate) path: String,
    secret: Option<Secrets>,
    secrets: Option<Secrets>,
    pub(super) tolerance: Option<u64>,
    pub(crate) basic: Option<Basic>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, SecretRef>,
    #[serde(default)]
    pub(super) sources: Vec<Source>,
    pub(crate) subscription: Option<SubscriptionTable>,
}

/// The key `basic` of an endpoint: Basic credentials that a delivery must have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Basic {
    pub(crate) username: SecretRef,
    pub(crate) password: SecretRef,
}

/// The key `subscription` of an endpoint: its subscription at Pleo.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriptionTable {
    /// The public URL of the endpoint.
    pub(crate) url: String,
    /// The types of events.
    pub(crate) events: Vec<String>,
    /// The credentials for Pleo's API, if this endpoint has its own.
    pub(crate) token: Option<SecretRef>,
    pub(crate) api_key: Option<SecretRef>,
}

/// The table `[subscriptions]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owner {
    /// Marks the subscriptions at Pleo that this configuration owns. `sync` deletes no others. A
    /// copy of the file needs another name.
    pub(crate) name: String,
}

impl ConfigFile {
    /// Reads and checks the file.
    pub(crate) fn from_path(path: &Path) -> Result<Self, Failure> {
        let file: Self = read(path)?;
        let location = path.display().to_string();
        if file.secret.is_some() && file.secrets.is_some() {
            return Err(Failure::usage(&location, TWO_KEYS));
        }
        for (index, endpoint) in file.endpoint.iter().enumerate() {
            let why = match (&endpoint.secret, &endpoint.secrets) {
                (Some(_), Some(_)) => TWO_KEYS,
                (None, None) => "no `secret`: set it to `env:NAME` or `file:PATH`",
                _ => continue,
            };
            let (number, path) = (index + 1, &endpoint.path);
            let location = format!("{location}, `[[endpoint]]` number {number} (`{path}`)");
            return Err(Failure::usage(&location, why));
        }
        file.check_unique("path", |endpoint| &endpoint.path, &location)?;
        file.check_unique("name", EndpointTable::name, &location)?;
        Ok(file)
    }

    /// Returns the key that the file uses for the secrets of its single endpoint, and their
    /// references.
    pub(crate) fn secret_refs(&self) -> (&'static str, &[SecretRef]) {
        secrets(&self.secret, &self.secrets)
    }

    /// Returns the files that hold the secrets of the receiver.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = PathBuf> {
        let handler = self.forward.iter().chain(&self.forward_secret);
        let endpoints = self.endpoint.iter().flat_map(|endpoint| {
            let basic = endpoint.basic.iter();
            let basic = basic.flat_map(|basic| [&basic.username, &basic.password]);
            let headers = endpoint.headers.values();
            endpoint.secret_refs().1.iter().chain(basic).chain(headers)
        });
        let admin = [
            &self.admin_token,
            &self.admin_read_token,
            &self.admin_user,
            &self.admin_password,
        ];
        let receiver = self.secret_refs().1.iter().chain(handler);
        let refs = receiver.chain(admin.into_iter().flatten()).chain(endpoints);
        refs.filter_map(SecretRef::file)
    }

    /// Returns `true` if the file configures a single endpoint outside of `[[endpoint]]`.
    pub(crate) fn has_single_endpoint(&self) -> bool {
        self.endpoint.is_empty() && self.has_endpoint_keys_at_top()
    }

    /// Returns `true` if a key of an endpoint is at the top of the file.
    pub(super) fn has_endpoint_keys_at_top(&self) -> bool {
        self.path.is_some() || self.tolerance.is_some() || !self.secret_refs().1.is_empty()
    }

    /// Returns `true` if the file configures a handler.
    pub(crate) const fn has_handler(&self) -> bool {
        self.exec.is_some() || self.forward.is_some()
    }

    /// Returns the names of the endpoints in the file.
    pub(crate) fn endpoint_names(&self) -> Vec<&str> {
        if self.endpoint.is_empty() {
            return vec![self.path.as_deref().unwrap_or(DEFAULT_PATH)];
        }
        self.endpoint.iter().map(EndpointTable::name).collect()
    }

    /// Checks that no two endpoints have the same value of this key.
    fn check_unique(
        &self,
        key: &str,
        value: impl Fn(&EndpointTable) -> &str,
        location: &str,
    ) -> Result<(), Failure> {
        let mut seen = BTreeMap::new();
        for (index, endpoint) in self.endpoint.iter().enumerate() {
            let (value, number) = (value(endpoint), index + 1);
            if let Some(first) = seen.insert(value, number) {
                let location = format!("{location}, `[[endpoint]]` number {number}, key `{key}`");
                let why = format!("number {first} also has the {key} `{value}`: give each its own");
                return Err(Failure::usage(&location, &why));
            }
        }
        Ok(())
    }
}

impl EndpointTable {
    /// Returns the name of the endpoint in the inbox.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.path)
    }

    /// Returns the key that the file uses for the secrets of this endpoint, and their references.
    pub(crate) fn secret_refs(&self) -> (&'static str, &[SecretRef]) {
        secrets(&self.secret, &self.secrets)
    }
}

/// Reads a TOML file. The error never shows a value, since it may be a secret.
fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let location = path.display().to_string();
    let text = files::read_text(path).map_err(|error| {
        let fix = match error.kind() {
            ErrorKind::NotFound => "; name another with `--config` (PLEO_CONFIG)",
            ErrorKind::PermissionDenied => "; run as a user who may read it",
            _ => "",
        };
        let text = format!("cannot read the configuration `{location}`: {error}{fix}");
        Failure::file(&error, text)
    })?;
    toml::from_str(&text).map_err(|error| {
        let mut what = error.message();
        if what.contains("whsec_") {
            what = "the value is wrong; it is not shown, since it holds a secret";
        }
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let key = match line.split_once('=') {
            Some((key, _)) => format!(", key `{}`", key.trim()),
            None => String::new(),
        };
        Failure::usage(&format!("{location}, line {number}{key}"), what)
    })
}

fn secrets<'a>(
    secret: &'a Option<Secrets>,
    secrets: &'a Option<Secrets>,
) -> (&'static str, &'a [SecretRef]) {
    match (secret, secrets) {
        (None, Some(secrets)) => ("secrets", &secrets.0),
        (Some(secret), _) => ("secret", &secret.0),
        (None, None) => ("secret", &[]),
    }
}
