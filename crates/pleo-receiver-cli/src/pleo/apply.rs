//! Applies a planned change at Pleo.

use pleo_api::{Client, Error};
use uuid::Uuid;

use super::plan::Change;
use crate::args::pleo::ApiArgs;
use crate::failure::{Failure, chain};
use crate::secret_ref::SecretRef;

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
    args: &ApiArgs,
    failure: Failure,
) -> Failure {
    match client.subscriptions().delete(id).await {
        Ok(()) => failure.and("the subscription that was just created at Pleo is deleted again"),
        Err(error) => failure.and(&format!(
            "the subscription that was just created is still at Pleo ({}): delete it with \
             `{}`, or run this command again",
            chain(&error),
            delete_command(id, args)
        )),
    }
}

/// Returns the command that deletes a subscription with these arguments.
fn delete_command(id: Uuid, args: &ApiArgs) -> String {
    let mut command = format!("pleo-receiver subscriptions delete {id}");
    let references = [("token", &args.token), ("api-key", &args.api_key)];
    for (flag, secret) in references {
        if let Some(reference) = secret.as_ref().and_then(SecretRef::reference) {
            command.push_str(&format!(" --{flag} {reference}"));
        }
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
