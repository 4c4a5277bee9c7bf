//! Where a request really comes from, also behind proxies, and where the sender's come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, GetAll};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The networks that the sender's European servers send from, as published in November 2026: for
/// [`Endpoint::allow_sources`](crate::Endpoint::allow_sources). They change from time to time.
pub const PLEO_EU: [IpNet; 4] = [
    v4(52, 215, 16, 239),
    v4(54, 216, 8, 72),
    v4(63, 33, 109, 123),
    v6([0x2a05, 0xd028, 0x17, 0x8000, 0, 0, 0, 0], 56),
];

/// The networks that the sender's American servers send from, as published in November 2026: for
/// [`Endpoint::allow_sources`](crate::Endpoint::allow_sources). They change from time to time.
pub const PLEO_US: [IpNet; 5] = [
    v4(44, 228, 126, 217),
    v4(50, 112, 21, 217),
    v4(52, 24, 126, 164),
    v4(54, 148, 139, 208),
    v6([0x2600, 0x1f24, 0x64, 0x8000, 0, 0, 0, 0], 56),
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address at the other end of the connection, as an extension of a request.
///
/// [`serve`](crate::serve) knows it. Whoever mounts a [`Receiver`](crate::Receiver) elsewhere sets it
/// where an endpoint allows only some networks: without it, such an endpoint refuses everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub IpAddr);

/// The address that a request comes from: the peer's, or where the peer is a trusted proxy, the last
/// one in `X-Forwarded-For` or `Forwarded` (RFC 7239) that isn't.
///
/// `None` where a trusted proxy names none that can be read. A proxy that writes only one of the two
/// headers passes the other on as the client made it up: so where both stand, they must agree.
pub(crate) fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if !contains(trusted, peer) {
        return Some(peer);
    }
    let x_forwarded_for = headers.get_all(X_FORWARDED_FOR);
    let forwarded = headers.get_all(FORWARDED);
    let by_one = || origin(&x_forwarded_for, trusted, comma_separated);
    let by_other = || origin(&forwarded, trusted, forwarded_elements);
    match (is_there(&x_forwarded_for), is_there(&forwarded)) {
        (true, true) => by_one().filter(|one| by_other() == Some(*one)),
        (true, false) => by_one(),
        (false, true) => by_other(),
        (false, false) => None,
    }
}

/// What counts as one source: an IPv4 address; of IPv6 the network of 64 bits, in which whoever has
/// one address has them all.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

pub(crate) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Each proxy appends its peer, so only what stands to the right of the first untrusted address was
/// written by somebody trusted.
fn origin(
    values: &GetAll<'_, HeaderValue>,
    trusted: &[IpNet],
    split: impl Fn(&str) -> Option<Vec<&str>>,
) -> Option<IpAddr> {
    for value in values.iter().rev() {
        for hop in split(value.to_str().ok()?)?.into_iter().rev() {
            let hop = address(hop)?;
            if !contains(trusted, hop) {
                return Some(hop);
            }
        }
    }
    None
}

fn is_there(values: &GetAll<'_, HeaderValue>) -> bool {
    values.iter().next().is_some()
}

#[allow(clippy::unnecessary_wraps, reason = "like `forwarded_elements`")]
fn comma_separated(value: &str) -> Option<Vec<&str>> {
    Some(value.split(',').map(str::trim).collect())
}

/// What `for` says in each element of a `Forwarded` (RFC 7239 section 4), without its quotes. `None`
/// where an element has no `for` or more than one, or a quote is not closed.
fn forwarded_elements(value: &str) -> Option<Vec<&str>> {
    let element = |element| {
        let mut nodes = outside_quotes(element, ';')?
            .into_iter()
            .filter_map(|pair| {
                let (name, node) = pair.split_once('=')?;
                name.eq_ignore_ascii_case("for").then_some(node)
            });
        let node = nodes.next().filter(|_| nodes.next().is_none())?;
        // No address needs an escape, so what has one is none.
        let quoted = node
            .strip_prefix('"')
            .and_then(|node| node.strip_suffix('"'));
        Some(quoted.unwrap_or(node))
    };
    outside_quotes(value, ',')?
        .into_iter()
        .map(element)
        .collect()
}

/// Splits where a separator stands outside of quotes; `None` where a quote is not closed.
fn outside_quotes(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut in_quotes, mut escaped) = (false, false);
    let parts = text.split(|character| {
        let was_escaped = core::mem::take(&mut escaped);
        match character {
            _ if was_escaped => {}
            '"' => in_quotes = !in_quotes,
            '\\' if in_quotes => escaped = true,
            _ => {}
        }
        character == separator && !in_quotes
    });
    let parts = parts.map(str::trim).collect();
    (!in_quotes).then_some(parts)
}

/// An address as a proxy writes it: with or without a port, in IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let address: IpAddr = text.parse().ok().or_else(in_brackets).or_else(with_port)?;
    Some(address.to_canonical())
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), 32))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, c, d, e, f, g, h),
        prefix,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, headers: &[(&str, &str)]) -> Option<IpAddr> {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        client_ip(peer.parse().unwrap(), &map, &trusted)
    }

    #[test]
    fn only_what_a_trusted_proxy_wrote_is_believed() {
        const X: &str = "x-forwarded-for";
        const F: &str = "forwarded";
        #[rustfmt::skip]
        let cases = [
            ("52.215.16.239", &[][..], Some("52.215.16.239")),
            ("::ffff:52.215.16.239", &[], Some("52.215.16.239")),
            // Not a proxy of ours: what it claims doesn't count.
            ("203.0.113.9", &[(X, "52.215.16.239")], Some("203.0.113.9")),
            ("203.0.113.9", &[(F, "for=52.215.16.239")], Some("203.0.113.9")),
            ("10.0.0.1", &[(X, "52.215.16.239")], Some("52.215.16.239")),
            ("10.0.0.1", &[(F, "for=52.215.16.239")], Some("52.215.16.239")),
            // The client forged the left part; the proxy appended the client's address.
            ("10.0.0.1", &[(X, "52.215.16.239, 203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(X, "52.215.16.239"), (X, "203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(X, "nonsense, 203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(F, "for=52.215.16.239, for=203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(F, "for=52.215.16.239"), (F, "for=203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(X, "203.0.113.9, 10.0.0.2")], Some("203.0.113.9")),
            ("10.0.0.1", &[(F, "for=203.0.113.9,for=10.0.0.2")], Some("203.0.113.9")),
            ("fd00::1", &[(X, "2a05:d028:17:8000::1")], Some("2a05:d028:17:8000::1")),
            ("10.0.0.1", &[(X, "203.0.113.9:4711")], Some("203.0.113.9")),
            ("10.0.0.1", &[(X, "[2a05:d028:17:8000::1]:4711")], Some("2a05:d028:17:8000::1")),
            ("10.0.0.1", &[(X, "::ffff:203.0.113.9")], Some("203.0.113.9")),
            // The forms of RFC 7239.
            ("10.0.0.1", &[(F, "For=\"[2a05:d028:17:8000::1]:4711\"")], Some("2a05:d028:17:8000::1")),
            ("10.0.0.1", &[(F, "for=\"[2a05:d028:17:8000::1]\"")], Some("2a05:d028:17:8000::1")),
            ("10.0.0.1", &[(F, "proto=https;for=\"203.0.113.9:80\"; by=10.0.0.1")], Some("203.0.113.9")),
            ("10.0.0.1", &[(F, "for=10.0.0.3;host=\"a,b;for=52.215.16.239\", for=203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(F, "for=203.0.113.9;host=\"\\\"\"")], Some("203.0.113.9")),
            // Both headers: one of them may be the client's own.
            ("10.0.0.1", &[(X, "203.0.113.9"), (F, "for=203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(X, "203.0.113.9"), (F, "for=52.215.16.239")], None),
            ("10.0.0.1", &[(X, "52.215.16.239"), (F, "for=203.0.113.9")], None),
            ("10.0.0.1", &[(X, "52.215.16.239"), (F, "")], None),
            // Nobody known.
            ("10.0.0.1", &[], None),
            ("10.0.0.1", &[(X, "10.0.0.2")], None),
            ("10.0.0.1", &[(X, "unknown")], None),
            ("10.0.0.1", &[(X, "52.215.16.239, nonsense")], None),
            ("10.0.0.1", &[(X, "52.215.16.239,")], None),
            ("10.0.0.1", &[(F, "for=unknown")], None),
            ("10.0.0.1", &[(F, "for=_hidden")], None),
            ("10.0.0.1", &[(F, "by=203.0.113.9")], None),
            ("10.0.0.1", &[(F, "for=52.215.16.239;for=203.0.113.9")], None),
            // A quote that the client left open swallows what the proxy appended.
            ("10.0.0.1", &[(F, "for=52.215.16.239;host=\", for=203.0.113.9")], None),
        ];
        for (peer, headers, expected) in cases {
            let expected: Option<IpAddr> = expected.map(|address| address.parse().unwrap());
            assert_eq!(found(peer, headers), expected, "{peer} {headers:?}");
        }
    }

    #[test]
    fn the_sender_s_networks_are_those_that_it_publishes() {
        let text = |networks: &[IpNet]| networks.iter().map(IpNet::to_string).collect::<Vec<_>>();
        let eu = [
            "52.215.16.239/32",
            "54.216.8.72/32",
            "63.33.109.123/32",
            "2a05:d028:17:8000::/56",
        ];
        assert_eq!(text(&PLEO_EU), eu);
        let us = [
            "44.228.126.217/32",
            "50.112.21.217/32",
            "52.24.126.164/32",
            "54.148.139.208/32",
            "2600:1f24:64:8000::/56",
        ];
        assert_eq!(text(&PLEO_US), us);
    }
}
