//! The subscriptions that the configuration file declares.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pleo_api::{EndpointAuth, Sensitive};
use pleo_receiver::events::EventType;
use pleo_receiver::verify::Secret;

use super::plan::Desired;
use crate::args::pleo::ConfigArgs;
use crate::config::schema::{ConfigFile, EndpointTable, SubscriptionTable};
use crate::failure::Failure;
use crate::inbox_url::DEFAULT_INBOX;
use crate::secret_ref::{SecretRef, signing_secrets};

/// The headers of a delivery besides its signature.
#[derive(Debug, Default)]
pub(crate) struct DeliveryHeaders {
    pub(crate) headers: BTreeMap<String, Sensitive>,
    /// User name and password.
    pub(crate) basic: Option<(Sensitive, Sensitive)>,
}

impl DeliveryHeaders {
    /// Returns the Basic credentials as Pleo's API takes them.
    pub(crate) fn auth(&self) -> Option<EndpointAuth> {
        let (username, password) = self.basic.clone()?;
        Some(EndpointAuth::basic(username, password))
    }
}

/// Reads the configuration file, and checks its subscriptions.
pub(crate) fn read(args: &ConfigArgs) -> Result<ConfigFile, Failure> {
    let location = args.config.display();
    if !args.config.exists() {
        return Err(Failure::Usage(format!(
            "cannot read {location}: no such file; create it with `pleo-receiver setup --url \
             https://…`, or name another with `--config` (PLEO_CONFIG)"
        )));
    }
    let file = ConfigFile::from_path(&args.config)?;
    let mut paths = BTreeMap::new();
    for endpoint in &file.endpoint {
        let url = endpoint.subscription.as_ref().map(|table| &table.url);
        if let Some(other) = url.and_then(|url| paths.insert(url, &endpoint.path)) {
            return Err(Failure::Usage(format!(
                "{location}: the endpoints `{other}` and `{}` have the same URL in `subscription`: \
                 give each its own",
                endpoint.path
            )));
        }
    }
    Ok(file)
}

impl ConfigFile {
    /// Returns the URL of the inbox: the one in the arguments, or the one in the file.
    pub(crate) fn inbox_url<'a>(&'a self, args: &'a ConfigArgs) -> &'a str {
        let url = args.inbox.as_deref().or(self.inbox.as_deref());
        url.unwrap_or(DEFAULT_INBOX)
    }

    /// Returns the URLs of the subscriptions.
    pub(crate) fn subscription_urls(&self) -> BTreeSet<&str> {
        let tables = (self.endpoint.iter()).filter_map(|endpoint| endpoint.subscription.as_ref());
        tables.map(|table| table.url.as_str()).collect()
    }

    /// Returns `true` if only the endpoint with this path reads its secret from the file.
    pub(crate) fn is_only_user(&self, path: &str, file: &Path) -> bool {
        let mut users = self
            .endpoint
            .iter()
            .filter(|endpoint| endpoint.reads_secret(file));
        users.next().is_some_and(|user| user.path == path) && users.next().is_none()
    }
}

impl EndpointTable {
    /// Resolves and parses the signing secrets.
    pub(crate) fn secrets(&self) -> Result<Vec<Secret>, Failure> {
        let (key, secrets) = self.secret_refs();
        signing_secrets(secrets).map_err(|why| Failure::usage(&self.location(key), &why))
    }

    /// Returns the file of the newest secret.
    pub(crate) fn secret_file(&self) -> Option<PathBuf> {
        self.secret_refs().1.iter().find_map(SecretRef::file)
    }

    /// Resolves the headers that a delivery must have besides its signature.
    pub(crate) fn delivery_headers(&self) -> Result<DeliveryHeaders, Failure> {
        let resolve = |text: &SecretRef, key: &str| {
            let resolved = text.resolve();
            resolved.map_err(|why| Failure::usage(&self.location(key), &why))
        };
        let mut headers = BTreeMap::new();
        for (name, value) in &self.headers {
            let value = resolve(value, &format!("headers.{name}"))?;
            headers.insert(name.clone(), value.into());
        }
        let basic = match &self.basic {
            Some(basic) => Some((
                resolve(&basic.username, "basic.username")?.into(),
                resolve(&basic.password, "basic.password")?.into(),
            )),
            None => None,
        };
        Ok(DeliveryHeaders { headers, basic })
    }

    fn reads_secret(&self, file: &Path) -> bool {
        // The file may not exist yet.
        let absolute = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let is_same =
            |other: PathBuf| other == file || absolute(&other).ok() == absolute(file).ok();
        let mut files = (self.secret_refs().1.iter()).filter_map(SecretRef::file);
        files.any(is_same)
    }

    fn location(&self, key: &str) -> String {
        format!("`[[endpoint]]` `{}`, key `{key}`", self.path)
    }
}

impl SubscriptionTable {
    /// Returns the subscription that Pleo should have.
    pub(crate) fn desired(&self, headers: &DeliveryHeaders) -> Desired {
        Desired {
            url: self.url.clone(),
            event_types: self.events.clone(),
            headers: headers.headers.clone(),
            auth: headers.auth(),
        }
    }

    /// Returns the event type for new export jobs, as the file spells it.
    pub(crate) fn export_event(&self) -> Option<&str> {
        let is_export =
            |text: &&String| EventType::from(text.as_str()) == EventType::ExportJobCreated;
        self.events.iter().find(is_export).map(String::as_str)
    }
}
