//! `pleo-receiver inbox verify`: proves that a stored message was authentic when it arrived.

use std::path::Path;

use pleo_receiver::verify::Secret;
use serde_json::json;

use super::{find_id, not_found, open};
use crate::args::inbox::InboxVerify;
use crate::config::load::file_path;
use crate::config::schema::ConfigFile;
use crate::failure::Failure;
use crate::inbox_url::messages;
use crate::message::{Proof, prove};
use crate::output;
use crate::secret_ref::{NO_SECRET, SecretRef, secrets_of_flag, signing_secrets};

/// The variable with the secret of the only endpoint.
const VARIABLE: &str = "PLEO_WEBHOOK_SECRET";

pub(super) async fn verify(args: InboxVerify) -> Result<(), Failure> {
    let inbox = open(&args.inbox).await?;
    let id = find_id(&*inbox, &args.id).await?;
    let found = messages(&*inbox, id.as_deref().unwrap_or(&args.id)).await?;
    if found.is_empty() {
        return Err(not_found(&args.id));
    }
    let mut failed = false;
    for message in &found {
        let entry = &message.entry;
        let endpoint = &*entry.endpoint;
        let secrets = if args.secret.is_empty() {
            configured_secrets(endpoint, args.inbox.config.as_deref())?
        } else {
            secrets_of_flag(&args.secret)?
        };
        let result = prove(message, &secrets);
        failed |= result.is_err();
        if args.json {
            let proof = result.as_ref().ok();
            output::json(&json!({
                "webhook_id": &*entry.webhook_id,
                "endpoint": endpoint,
                "authentic": proof.is_some(),
                "secret": proof.map(|proof| proof.secret),
                "signed_at": proof.and_then(|proof| proof.signed_at).map(|at| at.to_string()),
                "received_at": entry.received_at.to_string(),
                "error": result.err(),
            }))?;
            continue;
        }
        let name = format!("{} at {endpoint}", entry.webhook_id);
        match result {
            Ok(proof) => {
                let Proof {
                    secret, secrets, ..
                } = proof;
                let received = entry.received_at;
                let signed = proof.signed_at.map(|at| format!(" at {at}"));
                let signed = signed.unwrap_or_default();
                output::line(format_args!(
                    "ok      {name}: signed{signed} with secret {secret} of {secrets}, received at \
                     {received}"
                ))?;
                output::note("the time window is not checked")?;
            }
            Err(why) => output::line(format_args!("FAILED  {name}: {why}"))?,
        }
    }
    if failed {
        return Err(Failure::AlreadyReported);
    }
    Ok(())
}

/// Returns the secrets of an endpoint, as `serve` finds them.
fn configured_secrets(endpoint: &str, config: Option<&Path>) -> Result<Vec<Secret>, Failure> {
    let path = file_path(config);
    let file = path.map(ConfigFile::from_path).transpose()?;
    let file = file.unwrap_or_default();
    let table = file.endpoint.iter().find(|table| table.name() == endpoint);
    if let Some(table) = table {
        return table.secrets();
    }
    if !file.endpoint.is_empty() {
        return Err(Failure::Usage(format!(
            "the configuration has no endpoint `{endpoint}`: give its secret with `--secret`"
        )));
    }
    let (_, in_file) = file.secret_refs();
    let variable: Option<SecretRef> = std::env::var(VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok());
    let refs = variable.as_ref().map_or(in_file, core::slice::from_ref);
    if refs.is_empty() {
        return Err(Failure::usage("`--secret`", NO_SECRET));
    }
    signing_secrets(refs).map_err(|why| Failure::usage("the signing secret", &why))
}
