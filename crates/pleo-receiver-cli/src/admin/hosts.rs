//! The host names by which clients may reach the admin listener.

use std::net::{IpAddr, SocketAddr};

use http::Request;
use http::header::HOST;
use http::uri::Authority;

/// Protects against DNS rebinding: a hostile web page whose name resolves to this machine could read
/// the admin pages with the browser of somebody who has access. Its requests name that host.
pub(crate) struct Hosts {
    /// The names beside `localhost` and all IP addresses; `None` allows every name.
    names: Option<Vec<String>>,
}

impl Hosts {
    /// Allows these names at a listener with this address. Allows every name if there are none and
    /// other machines can reach it: then it requires credentials, which no hostile page has.
    pub(crate) fn new(address: Option<SocketAddr>, names: Vec<String>) -> Self {
        let is_loopback = address.is_none_or(|address| address.ip().to_canonical().is_loopback());
        Self {
            names: (is_loopback || !names.is_empty()).then_some(names),
        }
    }

    /// Returns `true` if the request names an allowed host, or none: browsers always name one.
    pub(super) fn allow<B>(&self, request: &Request<B>) -> bool {
        let Some(names) = &self.names else {
            return true;
        };
        let target = request.uri().authority().map(Authority::as_str);
        let headers = request.headers().get_all(HOST);
        headers.iter().count() <= 1
            && target.is_none_or(|host| is_allowed(host, names))
            && headers
                .iter()
                .all(|host| host.to_str().is_ok_and(|host| is_allowed(host, names)))
    }
}

/// Returns `true` for an address, which no name can be rebound to, for `localhost`, and for the names.
fn is_allowed(host: &str, names: &[String]) -> bool {
    let (host, port) = match host.strip_prefix('[') {
        Some(address) => address.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let number = port.strip_prefix(':').unwrap_or(port);
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = |name: &str| host.eq_ignore_ascii_case(name);
    host.parse::<IpAddr>().is_ok() || is_name("localhost") || names.iter().any(|name| is_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(hosts: &Hosts, host: &str) -> bool {
        let request = Request::get("/metrics").header(HOST, host);
        hosts.allow(&request.body(()).unwrap())
    }

    #[test]
    fn allows_addresses_localhost_and_given_names() {
        let names = vec!["receiver.internal".to_owned()];
        for address in ["127.0.0.1:9187", "0.0.0.0:9187", "[::1]:0"] {
            let hosts = Hosts::new(address.parse().ok(), names.clone());
            for (host, is_allowed) in [
                ("localhost", true),
                ("LocalHost.:9187", true),
                ("127.0.0.1:9187", true),
                ("127.8.9.1", true),
                ("[::1]:9187", true),
                ("10.2.3.4:9187", true),
                ("receiver.internal:9187", true),
                ("Receiver.Internal", true),
                ("internal", false),
                ("evil.example", false),
                ("localhost.evil.example", false),
                ("127.0.0.1.evil.example", false),
                ("receiver.internal.evil.example", false),
                ("[::1].evil.example", false),
                ("a b", false),
                ("user@localhost", false),
                ("localhost:user@evil.example", false),
                ("", false),
            ] {
                assert_eq!(allows(&hosts, host), is_allowed, "{host} at {address}");
            }
        }
    }

    #[test]
    fn allows_every_name_at_public_address_without_names() {
        let hosts = |address: &str| Hosts::new(address.parse().ok(), Vec::new());
        assert!(allows(&hosts("10.0.0.1:9187"), "receiver.internal"));
        assert!(!allows(&hosts("127.0.0.2:9187"), "receiver.internal"));
        assert!(!allows(&hosts("[::ffff:127.0.0.1]:1"), "receiver.internal"));
    }

    #[test]
    fn checks_host_of_absolute_target_and_refuses_several() {
        let hosts = Hosts::new(None, Vec::new());
        for (target, host, is_allowed) in [
            ("http://localhost/metrics", &["localhost"][..], true),
            ("http://evil.example/metrics", &["localhost"], false),
            ("http://localhost/metrics", &["evil.example"], false),
            ("/metrics", &["localhost", "localhost"], false),
            ("/metrics", &[], true),
        ] {
            let request = Request::get(target);
            let request = host
                .iter()
                .fold(request, |request, host| request.header(HOST, *host));
            let request = request.body(()).unwrap();
            assert_eq!(hosts.allow(&request), is_allowed, "{target} {host:?}");
        }
    }
}
