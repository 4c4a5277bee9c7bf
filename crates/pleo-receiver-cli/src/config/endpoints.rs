//! The endpoints: a single one from flags and top-level keys, or the `[[endpoint]]` tables.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use pleo_receiver::{Endpoint, PLEO_EU, PLEO_US};
use tracing::warn;

use super::location::Location;
use super::schema::{ConfigFile, DEFAULT_PATH, EndpointTable};
use super::values::{Network, Source, networks};
use crate::args::Serve;
use crate::failure::{Failure, chain};
use crate::secret_ref::{NO_SECRET, SecretRef, signing_secrets};

/// Builds the endpoints.
pub(super) fn endpoints(
    args: &Serve,
    file: &ConfigFile,
    location: Location<'_>,
) -> Result<Vec<Endpoint>, Failure> {
    if file.endpoint.is_empty() {
        return Ok(vec![single(args, file, location)?]);
    }
    let location = location.file();
    for (flag, variable, is_set) in [
        ("secret", "PLEO_WEBHOOK_SECRET", !args.secret.is_empty()),
        ("path", "PLEO_PATH", args.path.is_some()),
        ("tolerance", "PLEO_TOLERANCE", args.tolerance.is_some()),
    ] {
        if args.flags.contains(flag) {
            let why = format!("{location} has `[[endpoint]]` tables: set `{flag}` in the table");
            return Err(Failure::usage(&format!("`--{flag}`"), &why));
        }
        if is_set {
            warn!(
                variable,
                file = location,
                key = flag,
                "environment variable ignored beside [[endpoint]] tables; unset it, and set the \
                 key in the table"
            );
        }
    }
    if file.has_endpoint_keys_at_top() {
        let why = "`path`, `secret` and `tolerance` have no effect beside `[[endpoint]]` tables: \
                   move them into the tables";
        return Err(Failure::usage(&location, why));
    }
    let tables = file.endpoint.iter().enumerate();
    tables
        .map(|(index, table)| build(table, &file.networks, &location, index + 1))
        .collect()
}

fn single(args: &Serve, file: &ConfigFile, location: Location<'_>) -> Result<Endpoint, Failure> {
    let (key, in_file) = file.secret_refs();
    let (secret_location, secrets) = if !args.secret.is_empty() {
        ("`--secret` (PLEO_WEBHOOK_SECRET)".to_owned(), &*args.secret)
    } else if !in_file.is_empty() {
        (location.key(key), in_file)
    } else {
        return Err(Failure::usage(&location.flag("secret"), NO_SECRET));
    };
    let path = args.path.as_deref().or(file.path.as_deref());
    let path = path.unwrap_or(DEFAULT_PATH);
    let endpoint = endpoint(path, secrets, &location.flag("path"), &secret_location)?;
    Ok(match args.tolerance.or(file.tolerance) {
        Some(seconds) => endpoint.with_tolerance(Duration::from_secs(seconds)),
        None => endpoint,
    })
}

fn build(
    table: &EndpointTable,
    lists: &BTreeMap<String, Vec<Network>>,
    file: &str,
    number: usize,
) -> Result<Endpoint, Failure> {
    let location = |key: &str| {
        let path = &table.path;
        format!("{file}, `[[endpoint]]` number {number} (`{path}`), key `{key}`")
    };
    let resolve = |text: &SecretRef, key: &str| {
        let resolved = text.resolve();
        resolved.map_err(|why| Failure::usage(&location(key), &why))
    };
    let (key, secrets) = table.secret_refs();
    let mut endpoint = endpoint(&table.path, secrets, &location("path"), &location(key))?;
    if let Some(name) = &table.name {
        endpoint = endpoint.with_name(name.as_str());
    }
    if let Some(seconds) = table.tolerance {
        endpoint = endpoint.with_tolerance(Duration::from_secs(seconds));
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
            .map_err(|error| Failure::usage(&location(&key), &chain(&error)))?;
    }
    for source in &table.sources {
        endpoint = match source {
            Source::Network(network) => endpoint.allow_sources(&[*network]),
            Source::Named(name) => {
                let networks = named_networks(name, lists).ok_or_else(|| {
                    let why = "is neither a network nor the name of a list: use `pleo-eu`, \
                               `pleo-us` or a list in `[networks]`";
                    Failure::usage(&location("sources"), &format!("`{name}` {why}"))
                })?;
                endpoint.allow_sources(&networks)
            }
        };
    }
    Ok(endpoint)
}

fn endpoint(
    path: &str,
    secrets: &[SecretRef],
    path_location: &str,
    secret_location: &str,
) -> Result<Endpoint, Failure> {
    let secrets = signing_secrets(secrets).map_err(|why| Failure::usage(secret_location, &why))?;
    let mut secrets = secrets.into_iter();
    let first = secrets.next();
    let first =
        first.ok_or_else(|| Failure::usage(secret_location, "no secret: give at least one"))?;
    let mut endpoint = Endpoint::new(path, first)
        .map_err(|error| Failure::usage(path_location, &chain(&error)))?;
    for secret in secrets {
        endpoint = endpoint
            .and_secret(secret)
            .map_err(|error| Failure::usage(secret_location, &chain(&error)))?;
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
