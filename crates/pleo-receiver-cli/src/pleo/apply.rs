//! Applies a planned change at Pleo.

use pleo_api::{Client, Error};
use uuid::Uuid;

use super::plan::Change;
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

fn create_failed(error: Error) -> Failure {
    match error {
        Error::Connection { .. } | Error::Timeout { .. } => Failure::Run(format!(
            "{}; Pleo may have created the subscription: run the command again, it will find it",
            chain(&error)
        )),
        error => error.into(),
    }
}
