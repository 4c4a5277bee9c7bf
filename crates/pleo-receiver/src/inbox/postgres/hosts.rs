//! One configuration for each host of a URL, so that each has a time limit and a password of its own.

use core::fmt::Write as _;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::error::UrlError;

/// Returns the configuration of each host, in the order of the URL.
pub(super) fn split(config: &Config) -> Result<Vec<Config>, UrlError> {
    let (hosts, ports) = (config.get_hosts(), config.get_ports());
    let addresses = config.get_hostaddrs();
    let is_count = |count: usize| count <= 1 || count == hosts.len();
    let has_addresses = addresses.is_empty() || addresses.len() == hosts.len();
    if hosts.is_empty() || !is_count(ports.len()) || !has_addresses {
        return Err(UrlError::Malformed);
    }
    let hosts = hosts.iter().enumerate().map(|(n, host)| {
        let mut one = without_host(config);
        match host {
            Host::Tcp(host) => one.host(host),
            #[cfg(unix)]
            Host::Unix(folder) => one.host_path(folder),
        };
        if let Some(address) = addresses.get(n) {
            one.hostaddr(*address);
        }
        one.port(*ports.get(n).or_else(|| ports.first()).unwrap_or(&5432));
        one
    });
    Ok(hosts.collect())
}

/// Returns the hosts and the database, without user and password.
pub(super) fn describe(hosts: &[Config]) -> String {
    let mut text = String::new();
    for config in hosts {
        let separator = if text.is_empty() { "" } else { "," };
        let (host, port) = host_and_port(config);
        let host = host.map_or_else(String::new, |host| match host {
            Host::Tcp(host) => host.clone(),
            #[cfg(unix)]
            Host::Unix(folder) => folder.display().to_string(),
        });
        // Writing to a string succeeds.
        let _ = write!(text, "{separator}{host}:{port}");
    }
    let config = hosts.first();
    let database = config.and_then(|config| config.get_dbname().or_else(|| config.get_user()));
    format!("{text}/{}", database.unwrap_or_default())
}

/// Returns the host and the port of the configuration of one host.
pub(super) fn host_and_port(config: &Config) -> (Option<&Host>, u16) {
    let port = config.get_ports().first().copied();
    (config.get_hosts().first(), port.unwrap_or(5432))
}

fn without_host(config: &Config) -> Config {
    let mut other = Config::new();
    if let Some(user) = config.get_user() {
        other.user(user);
    }
    if let Some(password) = config.get_password() {
        other.password(password);
    }
    if let Some(database) = config.get_dbname() {
        other.dbname(database);
    }
    if let Some(options) = config.get_options() {
        other.options(options);
    }
    if let Some(name) = config.get_application_name() {
        other.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        other.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        other.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        other.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        other.keepalives_retries(retries);
    }
    other
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding());
    other
}
