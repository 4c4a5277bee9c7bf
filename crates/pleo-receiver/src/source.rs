//! Where a request really comes from, also behind proxies.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The address at the other end of the connection, as an extension of a request.
///
/// [`serve`](crate::serve) sets it. Whoever mounts a [`Receiver`](crate::Receiver) elsewhere sets it
/// too where an endpoint allows only some networks: without it, such an endpoint refuses everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub IpAddr);

/// The address that a request comes from: the peer's, or where the peer is a trusted proxy, the last
/// one in `X-Forwarded-For` that isn't. `None` where a trusted proxy names none that can be read.
pub(crate) fn source(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address| contains(trusted, address);
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return Some(peer);
    }
    // Each proxy appends its peer, so only what stands to the right of the first untrusted address
    // was written by somebody trusted.
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for hop in value.to_str().ok()?.rsplit(',') {
            let hop: IpAddr = hop.trim().parse().ok()?;
            let hop = hop.to_canonical();
            if !is_trusted(hop) {
                return Some(hop);
            }
        }
    }
    None
}

pub(crate) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_trusted_proxy_wrote_is_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (peer, forwarded, expected) in [
            ("52.215.16.239", &[][..], Some("52.215.16.239")),
            ("::ffff:52.215.16.239", &[], Some("52.215.16.239")),
            // Not a proxy of ours: what it claims doesn't count.
            ("203.0.113.9", &["52.215.16.239"], Some("203.0.113.9")),
            ("10.0.0.1", &["52.215.16.239"], Some("52.215.16.239")),
            // The client forged the left part; the proxy appended the client's address.
            (
                "10.0.0.1",
                &["52.215.16.239, 203.0.113.9"],
                Some("203.0.113.9"),
            ),
            (
                "10.0.0.1",
                &["52.215.16.239", "203.0.113.9"],
                Some("203.0.113.9"),
            ),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.2"], Some("203.0.113.9")),
            (
                "fd00::1",
                &["2a05:d028:17:8000::1"],
                Some("2a05:d028:17:8000::1"),
            ),
            ("10.0.0.1", &[], None),
            ("10.0.0.1", &["unknown"], None),
            ("10.0.0.1", &["52.215.16.239, nonsense"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            let found = source(peer.parse().unwrap(), &headers, &trusted);
            let expected: Option<IpAddr> = expected.map(|address| address.parse().unwrap());
            assert_eq!(found, expected, "{peer} {forwarded:?}");
        }
    }
}
