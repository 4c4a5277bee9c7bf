//! Applies a planned change at Pleo.

use pleo_api::{Client, Error};
use uuid::Uuid;

use super::client::CredentialsRef;
use super::plan::Change;
use crate::args::pleo::ApiArgs;
use crate::failure::{Failure, chain};

/// Applies a change. Returns the id of the subscription.
pub(crate) async fn apply(change: &Change, client: &Client) -> Result<Uuid, Failure> {
    match change {
        Change::Keep { id } => Ok(*id),
        Change::Create(request) => Ok(client
            .subscriptions()
            .create(request)
            .await
            .map_err(create_failed)?
            .id),
        Change::Update { id, request, .. } => {
            Ok(client.subscriptions().update(*id, request).await?.id)
        }
    }
}

/// Deletes a subscription that was just created, since the command failed. Returns the failure, with
/// what has become of the subscription.
pub(crate) async fn undo_create(
    id: Uuid,
    client: &Client,
    credentials: CredentialsRef<'_>,
    args: &ApiArgs,
    failure: Failure,
) -> Failure {
    match client.subscriptions().delete(id).await {
        Ok(()) => failure.and("the subscription that was just created at Pleo is deleted again"),
        Err(error) => failure.and(&format!(
            "the subscription that was just created is still at Pleo ({}): delete it with \
             `{}`, or run this command again",
            chain(&error),
            delete_command(id, credentials, args)
        )),
    }
}

/// Returns the command that deletes a subscription with these credentials. Plain ones are left out:
/// they are in the environment.
pub(crate) fn delete_command(id: Uuid, credentials: CredentialsRef<'_>, args: &ApiArgs) -> String {
    let mut command = format!("pleo-receiver subscriptions delete {id}");
    if let Some((key, reference)) = credentials.reference() {
        command.push_str(&format!(" --{} {reference}", key.replace('_', "-")));
    }
    if args.staging {
        command.push_str(" --staging");
    }
    if let Some(url) = &args.api_url {
        command.push_str(&format!(" --api-url {url}"));
    }
    command
}

fn create_failed(error: Error) -> Failure {
    match error {
        Error::Connection { .. } | Error::Timeout { .. } => Failure::Run(format!(
            "{}; Pleo may have created the subscription: run the command again, it will find it",
            chain(&error)
        )),
        error => error.into(),
    }
}
