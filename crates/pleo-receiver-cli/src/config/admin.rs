//! The admin listener: its address, credentials and host names.

use std::net::SocketAddr;

use super::location::Location;
use super::schema::ConfigFile;
use crate::admin::{Access, Credentials, Hosts};
use crate::args::Serve;
use crate::failure::Failure;
use crate::secret_ref::SecretRef;

/// The settings of the admin listener.
pub(crate) struct AdminSettings {
    /// `None` if there is no admin listener.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) access: Access,
}

impl AdminSettings {
    /// Merges flags, variables and file.
    ///
    /// # Errors
    /// A secret cannot be resolved, or other machines could read the pages without credentials.
    pub(super) fn new(
        args: &Serve,
        file: &ConfigFile,
        location: Location<'_>,
    ) -> Result<Self, Failure> {
        let is_flag = |flag: &str| args.flags.contains(flag);
        let given = if is_flag("metrics") && !is_flag("admin") {
            args.metrics
        } else {
            args.admin.or(args.metrics)
        };
        let address = given.or_else(|| file.admin.map(|address| address.0));
        let resolve = |flag: &str, arg: &Option<SecretRef>, key: &Option<SecretRef>| {
            let secret = arg.as_ref().or(key.as_ref());
            let secret = secret.map(|secret| secret.resolve().and_then(not_empty));
            secret
                .transpose()
                .map_err(|why| Failure::usage(&location.flag(flag), &why))
        };
        let token = resolve("admin-token", &args.admin_token, &file.admin_token)?;
        let read_token = resolve(
            "admin-read-token",
            &args.admin_read_token,
            &file.admin_read_token,
        )?;
        let is_sendable = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        for (flag, token) in [("admin-token", &token), ("admin-read-token", &read_token)] {
            if !token.as_ref().is_none_or(is_sendable) {
                let why =
                    "it has a space or a character that is not ASCII, which no client can send";
                return Err(Failure::usage(&location.flag(flag), why));
            }
        }
        if token.is_some() && token == read_token {
            let why = "it is the same as `admin_token`: set another";
            return Err(Failure::usage(&location.flag("admin-read-token"), why));
        }
        let user = resolve("admin-user", &args.admin_user, &file.admin_user)?;
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            let why = "it has a colon, which Basic credentials do not allow";
            return Err(Failure::usage(&location.flag("admin-user"), why));
        }
        let password = resolve("admin-password", &args.admin_password, &file.admin_password)?;
        let missing = |flag| Err(Failure::usage(&location.flag(flag), "missing: set it too"));
        let basic = match (user, password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user, password)),
            (None, Some(_)) => return missing("admin-user"),
            (Some(_), None) => return missing("admin-password"),
        };
        let credentials = Credentials::new(token, read_token, basic);
        if let Some(address) = address
            && !address.ip().to_canonical().is_loopback()
            && credentials.is_none()
        {
            let why = format!(
                "other machines could reach {address} without credentials: set `admin_token`, or \
                 `admin_user` and `admin_password`, or listen on 127.0.0.1"
            );
            return Err(Failure::usage(&location.flag("admin"), &why));
        }
        let names = file.admin_hosts.iter().map(|name| name.0.clone());
        let hosts = Hosts::new(address, names.collect());
        let access = Access {
            credentials,
            hosts,
            shows_bodies: file.admin_bodies.unwrap_or(true),
        };
        Ok(Self { address, access })
    }
}

fn not_empty(secret: String) -> Result<String, String> {
    if secret.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(secret)
}
