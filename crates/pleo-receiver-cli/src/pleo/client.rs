//! Builds clients of Pleo's API from arguments and configuration.

use pleo_api::{Client, Credentials, Error, Sensitive, Subscription, SubscriptionQuery};
use pleo_receiver::verify::{Secret, SecretError};
use tracing::warn;
use uuid::Uuid;

use crate::args::pleo::ApiArgs;
use crate::config::schema::SubscriptionTable;
use crate::failure::{Failure, chain};
use crate::secret_ref::SecretRef;

/// Credentials for Pleo's API, or a reference to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialsRef<'a> {
    Token(&'a SecretRef),
    ApiKey(&'a SecretRef),
}

impl<'a> CredentialsRef<'a> {
    /// Returns the credentials in the arguments or the environment.
    pub(crate) fn from_args(args: &'a ApiArgs) -> Result<Self, Failure> {
        Self::first(&args.token, &args.api_key).ok_or_else(|| {
            let why = "no token for Pleo's API: set PLEO_API_TOKEN to the token (JWT) that Pleo \
                       gave you, or PLEO_API_KEY to the API key; `--token file:PATH` reads it \
                       from a file";
            Failure::Usage(why.to_owned())
        })
    }

    /// Returns the credentials of the subscription if it has some, else those in the arguments.
    pub(crate) fn of(
        subscription: &'a SubscriptionTable,
        args: &'a ApiArgs,
    ) -> Result<Self, Failure> {
        let own = Self::first(&subscription.token, &subscription.api_key);
        own.map_or_else(|| Self::from_args(args), Ok)
    }

    /// Returns the key of the configuration file and its value, `env:NAME` or `file:PATH`. Returns
    /// `None` for credentials in plain text.
    pub(crate) fn reference(self) -> Option<(&'static str, &'a str)> {
        match self {
            Self::Token(text) => text.reference().map(|reference| ("token", reference)),
            Self::ApiKey(text) => text.reference().map(|reference| ("api_key", reference)),
        }
    }

    fn first(token: &'a Option<SecretRef>, api_key: &'a Option<SecretRef>) -> Option<Self> {
        let token = token.as_ref().map(Self::Token);
        token.or_else(|| api_key.as_ref().map(Self::ApiKey))
    }

    fn resolve(self) -> Result<Credentials, Failure> {
        let (text, location) = match self {
            Self::Token(text) => (text.resolve(), "the token (PLEO_API_TOKEN)"),
            Self::ApiKey(text) => (text.resolve(), "the API key (PLEO_API_KEY)"),
        };
        let text = text.map_err(|why| Failure::usage(location, &why))?;
        warn_if_visible(&text);
        let credentials = match self {
            Self::Token(_) => Credentials::bearer(&text),
            Self::ApiKey(_) => Credentials::api_key(&text),
        };
        credentials.map_err(|error| Failure::usage(location, &chain(&error)))
    }
}

/// Builds a client with the credentials in the arguments or the environment.
pub(crate) fn client(args: &ApiArgs) -> Result<Client, Failure> {
    client_with(CredentialsRef::from_args(args)?, args)
}

/// Builds a client with these credentials.
pub(crate) fn client_with(
    credentials: CredentialsRef<'_>,
    args: &ApiArgs,
) -> Result<Client, Failure> {
    let url = match &args.api_url {
        Some(url) => url,
        None if args.staging => Client::STAGING,
        None => Client::PRODUCTION,
    };
    Client::builder(credentials.resolve()?)
        .base_url(url)
        .build()
        .map_err(|error| Failure::Usage(chain(&error)))
}

/// Lists the subscriptions that the client's credentials give access to, and returns those to keep.
pub(crate) async fn find_subscriptions(
    client: &Client,
    is_kept: impl Fn(&Subscription) -> bool,
) -> Result<Vec<Subscription>, Failure> {
    let mut list = client.subscriptions().list(SubscriptionQuery::all());
    let mut kept = Vec::new();
    while let Some(subscription) = list.next().await? {
        if is_kept(&subscription) {
            kept.push(subscription);
        }
    }
    Ok(kept)
}

/// Fetches the signing secret of a subscription, and parses it.
pub(crate) async fn signing_secret(
    client: &Client,
    id: Uuid,
) -> Result<(Sensitive, Secret), Failure> {
    let text = client.subscriptions().secret(id).await?;
    let parsed = text.expose().parse().map_err(|error: SecretError| {
        Failure::Run(format!(
            "cannot use the signing secret that Pleo returned for subscription {id}: {}",
            chain(&error)
        ))
    })?;
    Ok((text, parsed))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::InvalidRequest(_) => Self::Usage(chain(&error)),
            _ => Self::Run(chain(&error)),
        }
    }
}

/// Warns if a secret is one of this program's arguments.
fn warn_if_visible(secret: &str) {
    let is_visible = |argument: String| {
        let flags = ["", "--token=", "--api-key="];
        flags
            .iter()
            .any(|flag| argument.strip_prefix(flag) == Some(secret))
    };
    let mut arguments = std::env::args_os().filter_map(|argument| argument.into_string().ok());
    if arguments.any(is_visible) {
        warn!(
            "every user of this machine can read the token in the arguments; use `env:NAME` or `file:PATH`"
        );
    }
}
