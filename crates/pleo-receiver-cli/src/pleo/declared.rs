//! The subscriptions that the configuration declares.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use pleo_api::{EndpointAuth, Sensitive};
use pleo_receiver::events::EventType;
use pleo_receiver::verify::Secret;

use super::client::Login;
use super::plan::Wanted;
use crate::args::pleo::{Api, Receiver};
pub(crate) use crate::config::schema::{
    ConfigFile as Declared, EndpointTable as Endpoint, SubscriptionTable as Subscription,
};
use crate::failure::Failure;
use crate::inbox_url::DEFAULT_INBOX;
use crate::secret_ref::{SecretRef, signing_secrets};

impl Declared {
    pub(crate) fn read(receiver: &Receiver) -> Result<Self, Failure> {
        let place = receiver.config.display();
        if !receiver.config.exists() {
            return Err(Failure::Usage(format!(
                "cannot read {place}: there is no such file; `pleo-receiver setup --url https://…` \
                 makes one, and `--config FILE` names another"
            )));
        }
        let declared = Self::from_path(&receiver.config)?;
        let mut paths = BTreeMap::new();
        for one in &declared.endpoint {
            let url = one.subscription.as_ref().map(|one| &one.url);
            if let Some(other) = url.and_then(|url| paths.insert(url, &one.path)) {
                return Err(Failure::Usage(format!(
                    "{place}: the endpoints `{other}` and `{}` have the same URL in `subscription`, \
                     which can only lead to one of them: give each its own",
                    one.path
                )));
            }
        }
        Ok(declared)
    }

    /// Where the receiver's inbox is.
    pub(crate) fn inbox<'a>(&'a self, receiver: &'a Receiver) -> &'a str {
        let inbox = receiver.inbox.as_deref().or(self.inbox.as_deref());
        inbox.unwrap_or(DEFAULT_INBOX)
    }

    /// The URLs of the subscriptions.
    pub(crate) fn urls(&self) -> BTreeSet<&str> {
        let subscriptions = self
            .endpoint
            .iter()
            .filter_map(|one| one.subscription.as_ref());
        subscriptions.map(|one| one.url.as_str()).collect()
    }

    /// Whether the endpoint at this path has its secret in this file, and no other one has.
    pub(crate) fn is_only_user(&self, path: &str, file: &Path) -> bool {
        let mut users = self.endpoint.iter().filter(|one| one.uses(file));
        users.next().is_some_and(|one| one.path == path) && users.next().is_none()
    }
}

impl Endpoint {
    pub(crate) fn secrets(&self) -> Result<Vec<Secret>, Failure> {
        let (key, secrets) = self.secret_refs();
        signing_secrets(secrets).map_err(|why| Failure::usage(&self.place(key), &why))
    }

    /// Where the newest secret is, if in a file.
    pub(crate) fn secret_file(&self) -> Option<&Path> {
        self.secret_refs().1.iter().find_map(SecretRef::file)
    }

    fn uses(&self, file: &Path) -> bool {
        // However it is written, and whether or not it is there yet.
        let name = |path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let is_same = |other| other == file || name(other).ok() == name(file).ok();
        (self.secret_refs().1.iter())
            .filter_map(SecretRef::file)
            .any(is_same)
    }

    /// What Pleo should send beside the signature.
    pub(crate) fn extras(&self) -> Result<Extras, Failure> {
        let resolve = |hidden: &SecretRef, key: &str| {
            let usage = |why| Failure::Usage(format!("{}: {why}", self.place(key)));
            hidden.resolve().map_err(usage)
        };
        let mut headers = BTreeMap::new();
        for (name, hidden) in &self.headers {
            let text = resolve(hidden, &format!("headers.{name}"))?;
            headers.insert(name.clone(), Sensitive::from(text));
        }
        let basic = self.basic.as_ref().map(|basic| {
            let username = resolve(&basic.username, "basic.username")?;
            let password = resolve(&basic.password, "basic.password")?;
            Ok::<_, Failure>((username, password))
        });
        let basic = basic.transpose()?;
        Ok(Extras { headers, basic })
    }

    fn place(&self, key: &str) -> String {
        format!("`[[endpoint]]` `{}`, key `{key}`", self.path)
    }
}

/// What Pleo should send beside the signature.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) headers: BTreeMap<String, Sensitive>,
    /// User name and password.
    pub(crate) basic: Option<(String, String)>,
}

impl Extras {
    pub(crate) fn auth(&self) -> Option<EndpointAuth> {
        let (username, password) = self.basic.as_ref()?;
        Some(EndpointAuth::basic(username.as_str(), password.as_str()))
    }
}

impl Subscription {
    /// Who asks: whom the endpoint names, else whom the command line does.
    pub(crate) fn login<'a>(&'a self, api: &'a Api) -> Result<Login<'a>, Failure> {
        let token = self.token.as_ref().map(Login::Token);
        let login = token.or_else(|| self.api_key.as_ref().map(Login::ApiKey));
        login.map_or_else(|| api.login(), Ok)
    }

    pub(crate) fn wanted(&self, extras: &Extras) -> Wanted {
        Wanted {
            url: self.url.clone(),
            event_types: self.events.clone(),
            headers: extras.headers.clone(),
            auth: extras.auth(),
        }
    }

    /// The spelling of the event for new export jobs that it uses.
    pub(crate) fn export_event(&self) -> Option<&str> {
        let is_export =
            |text: &&String| EventType::from(text.as_str()) == EventType::ExportJobCreated;
        self.events.iter().find(is_export).map(String::as_str)
    }
}
