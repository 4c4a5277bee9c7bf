//! The endpoints: a single one from flags and top-level keys, or the `[[endpoint]]` tables.

use std::collections::BTreeMap;

use ipnet::IpNet;
use pleo_receiver::{Endpoint, PLEO_EU, PLEO_US};
use tracing::warn;

use super::place::Place;
use super::schema::{ConfigFile, EndpointTable};
use super::values::{Network, Source, networks};
use crate::args::Serve;
use crate::failure::{Failure, chain};
use crate::secret_ref::{NO_SECRET, SecretRef, signing_secrets};

const DEFAULT_PATH: &str = "/webhooks/pleo";

/// Builds the endpoints.
pub(super) fn endpoints(
    args: &Serve,
    file: &ConfigFile,
    place: Place<'_>,
) -> Result<Vec<Endpoint>, Failure> {
    if file.endpoint.is_empty() {
        return Ok(vec![single(args, file, place)?]);
    }
    let place = place.file();
    for (flag, variable, is_set) in [
        ("secret", "PLEO_WEBHOOK_SECRET", !args.secret.is_empty()),
        ("path", "PLEO_PATH", args.path.is_some()),
        ("tolerance", "PLEO_TOLERANCE", args.tolerance.is_some()),
    ] {
        if args.flags.contains(flag) {
            let why = format!("{place} has `[[endpoint]]` tables: set `{flag}` in the table");
            return Err(Failure::usage(&format!("`--{flag}`"), &why));
        }
        if is_set {
            warn!(
                variable,
                file = place,
                "environment variable ignored beside [[endpoint]] tables; unset it, and set \
                 `{flag}` in the table"
            );
        }
    }
    if file.path.is_some() || !file.secret_refs().1.is_empty() || file.tolerance.is_some() {
        let why = "`path`, `secret` and `tolerance` have no effect beside `[[endpoint]]` tables: \
                   move them into the tables";
        return Err(Failure::usage(&place, why));
    }
    let tables = file.endpoint.iter().enumerate();
    tables
        .map(|(index, table)| build(table, &file.networks, &place, index + 1))
        .collect()
}

fn single(args: &Serve, file: &ConfigFile, place: Place<'_>) -> Result<Endpoint, Failure> {
    let (key, in_file) = file.secret_refs();
    let (secret_place, secrets) = if !args.secret.is_empty() {
        ("`--secret` (PLEO_WEBHOOK_SECRET)".to_owned(), &*args.secret)
    } else if !in_file.is_empty() {
        (place.key(key), in_file)
    } else {
        return Err(Failure::usage(&place.flag("secret"), NO_SECRET));
    };
    let path = args.path.as_deref().or(file.path.as_deref());
    let path = path.unwrap_or(DEFAULT_PATH);
    let endpoint = endpoint(path, secrets, &place.flag("path"), &secret_place)?;
    Ok(match args.tolerance.or(file.tolerance) {
        Some(seconds) => endpoint.tolerance(seconds),
        None => endpoint,
    })
}

fn build(
    table: &EndpointTable,
    lists: &BTreeMap<String, Vec<Network>>,
    file: &str,
    number: usize,
) -> Result<Endpoint, Failure> {
    let place = |key: &str| {
        let path = &table.path;
        format!("{file}, `[[endpoint]]` number {number} (`{path}`), key `{key}`")
    };
    let resolve = |text: &SecretRef, key: &str| {
        let resolved = text.resolve();
        resolved.map_err(|why| Failure::usage(&place(key), &why))
    };
    let (key, secrets) = table.secret_refs();
    let mut endpoint = endpoint(&table.path, secrets, &place("path"), &place(key))?;
    if let Some(name) = &table.name {
        endpoint = endpoint.with_name(name.as_str());
    }
    if let Some(seconds) = table.tolerance {
        endpoint = endpoint.tolerance(seconds);
    }
    if let Some(basic) = &table.basic {
        let username = resolve(&basic.username, "basic.username")?;
        let password = resolve(&basic.password, "basic.password")?;
        endpoint = endpoint.credentials(&username, &password);
    }
    for (name, value) in &table.headers {
        let key = format!("headers.{name}");
        let value = resolve(value, &key)?;
        endpoint = endpoint
            .require_header(name, &value)
            .map_err(|error| Failure::usage(&place(&key), &chain(&error)))?;
    }
    for source in &table.sources {
        endpoint = match source {
            Source::Network(network) => endpoint.allow_sources([*network]),
            Source::Named(name) => {
                let networks = named_networks(name, lists).ok_or_else(|| {
                    let why = "is neither a network nor the name of a list: there are `pleo-eu`, \
                               `pleo-us`, and the lists in `[networks]`";
                    Failure::usage(&place("sources"), &format!("`{name}` {why}"))
                })?;
                endpoint.allow_sources(networks)
            }
        };
    }
    Ok(endpoint)
}

fn endpoint(
    path: &str,
    secrets: &[SecretRef],
    path_place: &str,
    secret_place: &str,
) -> Result<Endpoint, Failure> {
    let secrets = signing_secrets(secrets).map_err(|why| Failure::usage(secret_place, &why))?;
    let mut secrets = secrets.into_iter();
    let first = secrets.next();
    let first =
        first.ok_or_else(|| Failure::usage(secret_place, "no secret: give at least one"))?;
    let mut endpoint =
        Endpoint::new(path, first).map_err(|error| Failure::usage(path_place, &chain(&error)))?;
    for secret in secrets {
        endpoint = endpoint
            .and_secret(secret)
            .map_err(|error| Failure::usage(secret_place, &chain(&error)))?;
    }
    Ok(endpoint)
}

/// Returns a list of networks by name. A list in the file beats a built-in one.
fn named_networks(name: &str, lists: &BTreeMap<String, Vec<Network>>) -> Option<Vec<IpNet>> {
    match (lists.get(name), name) {
        (Some(list), _) => Some(networks(list)),
        (None, "pleo-eu") => Some(PLEO_EU.into()),
        (None, "pleo-us") => Some(PLEO_US.into()),
        (None, _) => None,
    }
}
