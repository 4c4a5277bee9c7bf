//! The Pleo of a session: a sandbox, or the account's.

use std::net::SocketAddr;

use jiff::Timestamp;
use pleo_api::{Client, Credentials, Error};
use pleo_http::Target;
use pleo_receiver::events::samples as event_samples;
use pleo_receiver::verify::{Secret, unix_now};
use pleo_sandbox::{ExportRequest, Sandbox, SandboxOptions};
use serde_json::json;
use uuid::Uuid;

use super::observe::{Event, Observer};
use crate::args::pleo::ApiArgs;
use crate::failure::{Failure, chain};
use crate::message::{header_map, new_id, signature_headers};
use crate::pleo::apply::{apply, delete_command, undo_create};
use crate::pleo::client::{CredentialsRef, client_with, find_subscriptions, signing_secret};
use crate::pleo::owner::{dev_name, is_of_dev, is_owned};
use crate::pleo::plan::{Change, Desired};
use crate::{http_client, output, samples};

const EXPORT: &str = "v1.export-job.created";
const VENDOR: &str = "v1.vendor.created";

/// Where the sandbox listens unless the port is busy.
pub(super) const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8788);

/// A sample event.
#[derive(Clone, Copy)]
pub(super) enum Sample {
    ExportJob,
    Vendor,
}

/// A Pleo that delivers to the receiver of the session.
pub(super) enum Pleo {
    Sandbox(Sandbox),
    Account(Box<Account>),
}

impl Pleo {
    /// Starts a sandbox that is subscribed to this URL. Returns the signing secret too.
    pub(super) async fn sandbox(url: &str) -> Result<(Self, Secret), Failure> {
        let options = || SandboxOptions::new().with_compression(core::num::NonZeroU32::MIN);
        let sandbox = match Sandbox::start_with(options().with_listen(ADDRESS)).await {
            Err(pleo_sandbox::Error::Listen { .. }) => Sandbox::start_with(options()).await?,
            started => started?,
        };
        let fail = |error: &dyn core::error::Error| Failure::run(error);
        let credentials = Credentials::bearer(&sandbox.token()).map_err(|error| fail(&error))?;
        let client = Client::builder(credentials).base_url(sandbox.url()).build();
        let client = client.map_err(|error| fail(&error))?;
        let id = apply(&plan(url, &dev_name(), &client)?, &client).await?;
        let (_, secret) = signing_secret(&client, id).await?;
        Ok((Self::Sandbox(sandbox), secret))
    }

    /// Sends a sample to the receiver.
    pub(super) fn send(&self, sample: Sample, observer: &Observer) {
        match (self, sample) {
            (Self::Sandbox(sandbox), Sample::ExportJob) => {
                sandbox.export(&ExportRequest::new());
            }
            (Self::Sandbox(sandbox), Sample::Vendor) => {
                let company = sandbox.company();
                let vendor = event_samples::vendor(Uuid::new_v4(), company, Timestamp::now());
                sandbox.emit(company, VENDOR, &json!(vendor));
            }
            (Self::Account(account), sample) => account.send(sample, observer.clone()),
        }
    }

    /// Ends the session at Pleo: deletes the subscription, or stops the sandbox.
    pub(super) async fn end(&self) -> Result<(), Failure> {
        match self {
            // A sandbox without a state file stops on drop.
            Self::Sandbox(_) => Ok(()),
            Self::Account(account) => account.unsubscribe().await,
        }
    }

    /// Reports what is left if the session does not end at Pleo.
    pub(super) fn left(&self, why: &str) -> Result<(), Failure> {
        match self {
            Self::Sandbox(_) => Ok(()),
            Self::Account(account) => Err(account.left(why)),
        }
    }
}

/// A subscription of the account for this session.
pub(super) struct Account {
    client: Client,
    host: String,
    subscription: Uuid,
    secret: Secret,
    target: Target,
    http: pleo_http::reqwest::Client,
    /// The command that deletes the subscription.
    delete: String,
}

/// A subscription that can be created.
pub(super) struct Planned<'a> {
    api: &'a ApiArgs,
    credentials: CredentialsRef<'a>,
    client: Client,
    owner: String,
    change: Change,
    target: Target,
    http: pleo_http::reqwest::Client,
}

impl<'a> Planned<'a> {
    /// Checks that Pleo has no subscription for this URL. Changes nothing.
    pub(super) async fn new(api: &'a ApiArgs, url: &str) -> Result<Self, Failure> {
        let target = http_client::parse_url(url);
        let target = target.map_err(|why| Failure::usage("`--url`", &why))?;
        let http = http_client::build(&target)?;
        let credentials = CredentialsRef::from_args(api)?;
        let client = client_with(credentials, api)?;
        let owner = dev_name();
        let change = plan(url, &owner, &client)?;
        let existing = find_subscriptions(&client, |one| one.endpoint_url == url).await?;
        if let Some(existing) = existing.first() {
            let whose = match is_of_dev(existing) {
                true => "an earlier `dev` that was killed has left it, or another one runs",
                false => "it is not of `dev`, which changes no other subscription",
            };
            return Err(Failure::Run(format!(
                "Pleo already has a subscription for {url} ({whose}): give another path in \
                 `--url`, or delete it with `{}`",
                delete_command(existing.id, credentials, api)
            )));
        }
        Ok(Self {
            api,
            credentials,
            client,
            owner,
            change,
            target,
            http,
        })
    }

    /// Creates the subscription. Returns its signing secret too. If it fails, no subscription is left,
    /// unless the failure says so.
    pub(super) async fn create(self) -> Result<(Pleo, Secret), Failure> {
        let (client, credentials, api) = (self.client, self.credentials, self.api);
        let id = match apply(&self.change, &client).await {
            Ok(id) => id,
            Err(failure) => {
                // Pleo may have created it, and the answer was lost.
                let is_own = |one: &_| is_owned(one, Some(&self.owner));
                let created = find_subscriptions(&client, is_own).await;
                return Err(match created.unwrap_or_default().first() {
                    Some(one) => undo_create(one.id, &client, credentials, api, failure).await,
                    None => failure,
                });
            }
        };
        let secret = match signing_secret(&client, id).await {
            Ok((_, secret)) => secret,
            Err(failure) => {
                return Err(undo_create(id, &client, credentials, api, failure).await);
            }
        };
        let account = Account {
            host: client.host(),
            client,
            subscription: id,
            secret: secret.clone(),
            target: self.target,
            http: self.http,
            delete: delete_command(id, credentials, api),
        };
        Ok((Pleo::Account(Box::new(account)), secret))
    }
}

impl Account {
    /// Returns where the subscription is, and its id.
    pub(super) fn describe(&self) -> String {
        format!("{}, subscription {}", self.host, self.subscription)
    }

    /// Posts a sample to the public URL, through the tunnel.
    fn send(&self, sample: Sample, observer: Observer) {
        let event = match sample {
            Sample::ExportJob => EXPORT,
            Sample::Vendor => VENDOR,
        };
        let body = samples::event(event);
        let secrets = core::slice::from_ref(&self.secret);
        let headers = signature_headers(secrets, &new_id(), unix_now(), body.as_bytes());
        let headers = headers.and_then(|headers| header_map(&headers));
        let request = self.target.post(&self.http).body(body);
        let url = self.target.url().clone();
        tokio::spawn(async move {
            let sent = match headers {
                Ok(headers) => http_client::send(request.headers(headers)).await,
                Err(failure) => return observer.emit(Event::Note(failure.to_string())),
            };
            let why = match sent {
                Ok(answer) if answer.status.is_success() || !answer.code().is_empty() => return,
                Ok(answer) => format!("{url} answered {}", answer.status),
                Err(error) => format!("cannot post to {url}: {}", http_client::cause(&error)),
            };
            let fix = "start the tunnel, and let it lead to the receiver";
            observer.emit(Event::Note(format!("sample not delivered: {why}; {fix}")));
        });
    }

    async fn unsubscribe(&self) -> Result<(), Failure> {
        match self.client.subscriptions().delete(self.subscription).await {
            // Somebody may have deleted it before.
            Ok(()) | Err(Error::NotFound(_)) => {
                // The reader of the output may be gone.
                let _ = output::line(format_args!("deleted subscription {}", self.subscription));
                Ok(())
            }
            Err(error) => Err(self.left(&chain(&error))),
        }
    }

    fn left(&self, why: &str) -> Failure {
        let (id, command) = (self.subscription, &self.delete);
        Failure::Run(format!(
            "subscription {id} is still at Pleo ({why}): delete it with `{command}`"
        ))
    }
}

/// Plans the creation of a subscription that carries the name of this session.
fn plan(url: &str, owner: &str, client: &Client) -> Result<Change, Failure> {
    let desired = Desired {
        url: url.to_owned(),
        event_types: vec![EXPORT.to_owned(), VENDOR.to_owned()],
        headers: std::collections::BTreeMap::new(),
        auth: None,
    };
    let change = desired.plan(&[], owner)?;
    change.check(client)?;
    Ok(change)
}
