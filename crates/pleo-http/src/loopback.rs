//! Hosts that are this machine.

use core::net::IpAddr;

/// Returns `true` if a URL's host is this machine: `localhost` in lower case, or a loopback
/// address.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}
