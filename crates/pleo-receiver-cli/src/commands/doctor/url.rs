//! Checks that the public URL is `https` and resolves to public addresses.

use std::io;
use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;
use tokio::net::lookup_host;

use super::report::Report;

/// Networks that are not on the internet, from the special-purpose registries of IANA (RFC 6890).
const PRIVATE: [&str; 14] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "2001:db8::/32",
];

/// The global unicast addresses of IPv6.
const GLOBAL: &str = "2000::/3";

/// Returns `true` if the URL is `https` and its host resolves, so that further checks can use it.
pub(super) async fn check(url: &str, report: &mut Report) -> io::Result<bool> {
    let uri: Option<Uri> = url.parse().ok();
    let uri = uri.as_ref().filter(|uri| uri.scheme_str() == Some("https"));
    let Some((uri, host)) = uri.and_then(|uri| Some((uri, uri.host()?))) else {
        let fix = "set the public `https` URL at which Pleo reaches the receiver";
        report.failed("url", &format!("{url} is not an `https` URL"), fix)?;
        return Ok(false);
    };
    let port = uri.port_u16().unwrap_or(443);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<_> = match lookup_host((bare, port)).await {
        Ok(addresses) => addresses.map(|address| address.ip()).collect(),
        Err(error) => {
            let fix = "add a DNS record for the name, or correct the URL";
            report.failed("url", &format!("cannot resolve {host}: {error}"), fix)?;
            return Ok(false);
        }
    };
    match addresses.iter().find(|address| !is_public(**address)) {
        Some(address) => {
            let found = if bare.parse::<IpAddr>().is_ok() {
                format!("{host} is not a public address")
            } else {
                format!("{host} resolves to {address}, which Pleo cannot reach")
            };
            let fix = "use a public name; ignore this if only this machine resolves it so";
            report.failed("url", &found, fix)?;
        }
        None => report.ok("url", &format!("{url} has a public address"))?,
    }
    Ok(true)
}

fn is_public(address: IpAddr) -> bool {
    let is_in = |network: &str| {
        let network: Option<IpNet> = network.parse().ok();
        network.is_some_and(|network| network.contains(&address))
    };
    (address.is_ipv4() || is_in(GLOBAL)) && !PRIVATE.into_iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::is_public;

    #[test]
    fn distinguishes_public_and_private_addresses() {
        for (address, public) in [
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("172.15.0.1", true),
            ("172.31.0.1", false),
            ("192.168.1.1", false),
            ("169.254.1.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("0.0.0.0", false),
            ("52.215.16.239", true),
            ("8.8.8.8", true),
            ("::1", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("::ffff:10.0.0.1", false),
            ("2001:db8::1", false),
            ("2a05:d028:17:8000::1", true),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}
