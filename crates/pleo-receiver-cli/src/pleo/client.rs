//! The way to Pleo's API.

use pleo_api::{Client, Credentials, Error, Sensitive, Subscription, SubscriptionList};
use pleo_receiver::verify::Secret;
use tracing::warn;
use uuid::Uuid;

use crate::args::pleo::Api;
use crate::failure::{Failure, chain};
use crate::secret_ref::SecretRef;

/// A token or an API key, or where one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login<'a> {
    Token(&'a SecretRef),
    ApiKey(&'a SecretRef),
}

impl Login<'_> {
    fn resolve(self) -> Result<Credentials, Failure> {
        let (text, place) = match self {
            Self::Token(hidden) => (hidden.resolve(), "the token (PLEO_API_TOKEN)"),
            Self::ApiKey(hidden) => (hidden.resolve(), "the API key (PLEO_API_KEY)"),
        };
        let usage = |why: String| Failure::Usage(format!("{place}: {why}"));
        let text = text.map_err(usage)?;
        warn_if_seen(&text);
        let credentials = match self {
            Self::Token(_) => Credentials::bearer(&text),
            Self::ApiKey(_) => Credentials::api_key(&text),
        };
        credentials.map_err(|error| usage(error.to_string()))
    }
}

impl Api {
    /// Who asks where nothing nearer says.
    pub(crate) fn login(&self) -> Result<Login<'_>, Failure> {
        let token = self.token.as_ref().map(Login::Token);
        let login = token.or_else(|| self.api_key.as_ref().map(Login::ApiKey));
        login.ok_or_else(|| {
            let why = "no token: set PLEO_API_TOKEN to the token (JWT) that Pleo gave you, or \
                       PLEO_API_KEY to the API key; `--token file:PATH` reads it from a file";
            Failure::Usage(why.to_owned())
        })
    }

    /// The client of whoever asks where nothing nearer says.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.client_of(self.login()?)
    }

    pub(crate) fn client_of(&self, login: Login<'_>) -> Result<Client, Failure> {
        let url = match &self.api_url {
            Some(url) => url,
            None if self.staging => Client::STAGING,
            None => Client::PRODUCTION,
        };
        Client::builder(login.resolve()?)
            .base_url(url)
            .build()
            .map_err(|error| Failure::Usage(chain(&error)))
    }
}

/// Everything that a client sees.
pub(crate) async fn subscriptions(client: &Client) -> Result<Vec<Subscription>, Failure> {
    let mut pages = client.subscriptions(SubscriptionList::default());
    let mut all = Vec::new();
    while let Some(subscription) = pages.next().await {
        all.push(subscription?);
    }
    Ok(all)
}

/// What the deliveries of a subscription are signed with, as Pleo spells it and as it is used.
pub(crate) async fn secret(client: &Client, id: Uuid) -> Result<(Sensitive, Secret), Failure> {
    let text = client.secret(id).await?;
    let parsed = text.expose().parse().map_err(|error| {
        Failure::Run(format!(
            "the secret of {id} is not one that can be used: {error}"
        ))
    })?;
    Ok((text, parsed))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Invalid(_) => Self::Usage(chain(&error)),
            _ => Self::Run(chain(&error)),
        }
    }
}

fn warn_if_seen(secret: &str) {
    let holds_it = |argument: String| {
        let flags = ["", "--token=", "--api-key="];
        flags
            .iter()
            .any(|flag| argument.strip_prefix(flag) == Some(secret))
    };
    if std::env::args_os()
        .filter_map(|one| one.into_string().ok())
        .any(holds_it)
    {
        warn!("every user of this machine can read a token in the arguments: use env: or file:");
    }
}
