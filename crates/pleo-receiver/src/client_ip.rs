//! Finds the client's IP address, also behind trusted proxies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, GetAll};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Pleo's networks in Europe, as published in November 2026. They change from time to time.
///
/// Pass them to [`Endpoint::allow_sources`](crate::Endpoint::allow_sources).
pub const PLEO_EU: &[IpNet] = &[
    v4(52, 215, 16, 239),
    v4(54, 216, 8, 72),
    v4(63, 33, 109, 123),
    v6([0x2a05, 0xd028, 0x17, 0x8000, 0, 0, 0, 0], 56),
];

/// Pleo's networks in the United States, as published in November 2026. They change from time to
/// time.
///
/// Pass them to [`Endpoint::allow_sources`](crate::Endpoint::allow_sources).
pub const PLEO_US: &[IpNet] = &[
    v4(44, 228, 126, 217),
    v4(50, 112, 21, 217),
    v4(52, 24, 126, 164),
    v4(54, 148, 139, 208),
    v6([0x2600, 0x1f24, 0x64, 0x8000, 0, 0, 0, 0], 56),
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Carries the peer address of the connection in a request's extensions.
///
/// [`serve`](crate::serve) knows the address itself. Inside another server, insert this extension
/// into each request, or name the server's own with
/// [`ReceiverBuilder::peer_from`](crate::ReceiverBuilder::peer_from). Without an address, an endpoint
/// with [allowed sources](crate::Endpoint::allow_sources) rejects every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub IpAddr);

impl PeerAddr {
    pub(crate) fn from_extensions(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|peer| peer.0)
    }
}

/// Returns the client's address: the peer's, or behind a trusted proxy, the last untrusted address
/// in `X-Forwarded-For` or `Forwarded` (RFC 7239).
///
/// Returns `None` if a trusted proxy sends no readable address. If both headers are present, they
/// must agree: a proxy that writes only one of them forwards the other as the client sent it.
pub(crate) fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if !contains(trusted, peer) {
        return Some(peer);
    }
    let x_forwarded_for = headers.get_all(X_FORWARDED_FOR);
    let forwarded = headers.get_all(FORWARDED);
    let by_x_forwarded_for = || last_untrusted(&x_forwarded_for, trusted, comma_separated);
    let by_forwarded = || last_untrusted(&forwarded, trusted, forwarded_elements);
    match (is_present(&x_forwarded_for), is_present(&forwarded)) {
        (true, true) => by_x_forwarded_for().filter(|address| by_forwarded() == Some(*address)),
        (true, false) => by_x_forwarded_for(),
        (false, true) => by_forwarded(),
        (false, false) => None,
    }
}

/// Returns `true` if the request claims to come through a proxy.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED)
}

/// Returns `true` if one of the networks contains the address.
pub(crate) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Returns the rightmost untrusted address. Each proxy appends the address of its peer, so only
/// the entries to its right come from trusted proxies.
fn last_untrusted(
    values: &GetAll<'_, HeaderValue>,
    trusted: &[IpNet],
    split: impl Fn(&str) -> Option<Vec<&str>>,
) -> Option<IpAddr> {
    for value in values.iter().rev() {
        for hop in split(value.to_str().ok()?)?.into_iter().rev() {
            let hop = parse_address(hop)?;
            if !contains(trusted, hop) {
                return Some(hop);
            }
        }
    }
    None
}

fn is_present(values: &GetAll<'_, HeaderValue>) -> bool {
    values.iter().next().is_some()
}

#[allow(clippy::unnecessary_wraps, reason = "like `forwarded_elements`")]
fn comma_separated(value: &str) -> Option<Vec<&str>> {
    Some(value.split(',').map(str::trim).collect())
}

/// Returns the `for` parameter of each element of `Forwarded` (RFC 7239 section 4), unquoted.
/// Returns `None` if an element has no `for` or more than one, or a quote is not closed.
fn forwarded_elements(value: &str) -> Option<Vec<&str>> {
    let element = |element| {
        let mut nodes = outside_quotes(element, ';')?
            .into_iter()
            .filter_map(|pair| {
                let (name, node) = pair.split_once('=')?;
                name.eq_ignore_ascii_case("for").then_some(node)
            });
        let node = nodes.next().filter(|_| nodes.next().is_none())?;
        // No valid address needs an escape, so escapes stay and fail to parse.
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

/// Splits at the separators outside of quotes. Returns `None` if a quote is not closed.
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

/// Parses an address as proxies write it: with or without a port, IPv6 with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
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

    fn find(peer: &str, headers: &[(&str, &str)]) -> Option<IpAddr> {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        client_ip(peer.parse().unwrap(), &map, &trusted)
    }

    #[test]
    fn trusts_only_addresses_from_trusted_proxies() {
        const X: &str = "x-forwarded-for";
        const F: &str = "forwarded";
        #[rustfmt::skip]
        let cases = [
            ("52.215.16.239", &[][..], Some("52.215.16.239")),
            ("::ffff:52.215.16.239", &[], Some("52.215.16.239")),
            // Headers of an untrusted peer don't count.
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
            // Syntax of RFC 7239.
            ("10.0.0.1", &[(F, "For=\"[2a05:d028:17:8000::1]:4711\"")], Some("2a05:d028:17:8000::1")),
            ("10.0.0.1", &[(F, "for=\"[2a05:d028:17:8000::1]\"")], Some("2a05:d028:17:8000::1")),
            ("10.0.0.1", &[(F, "proto=https;for=\"203.0.113.9:80\"; by=10.0.0.1")], Some("203.0.113.9")),
            ("10.0.0.1", &[(F, "for=10.0.0.3;host=\"a,b;for=52.215.16.239\", for=203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(F, "for=203.0.113.9;host=\"\\\"\"")], Some("203.0.113.9")),
            // Both headers: the client may have sent one of them.
            ("10.0.0.1", &[(X, "203.0.113.9"), (F, "for=203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(X, "203.0.113.9"), (F, "for=52.215.16.239")], None),
            ("10.0.0.1", &[(X, "52.215.16.239"), (F, "for=203.0.113.9")], None),
            ("10.0.0.1", &[(X, "52.215.16.239"), (F, "")], None),
            // No readable address.
            ("10.0.0.1", &[], None),
            ("10.0.0.1", &[(X, "10.0.0.2")], None),
            ("10.0.0.1", &[(X, "unknown")], None),
            ("10.0.0.1", &[(X, "52.215.16.239, nonsense")], None),
            ("10.0.0.1", &[(X, "52.215.16.239,")], None),
            ("10.0.0.1", &[(F, "for=unknown")], None),
            ("10.0.0.1", &[(F, "for=_hidden")], None),
            ("10.0.0.1", &[(F, "by=203.0.113.9")], None),
            ("10.0.0.1", &[(F, "for=52.215.16.239;for=203.0.113.9")], None),
            // The client's open quote hides the address that the proxy appended.
            ("10.0.0.1", &[(F, "for=52.215.16.239;host=\", for=203.0.113.9")], None),
        ];
        for (peer, headers, expected) in cases {
            let expected: Option<IpAddr> = expected.map(|address| address.parse().unwrap());
            assert_eq!(find(peer, headers), expected, "{peer} {headers:?}");
        }
    }

    #[test]
    fn lists_published_networks_of_pleo() {
        let text = |networks: &[IpNet]| networks.iter().map(IpNet::to_string).collect::<Vec<_>>();
        let eu = [
            "52.215.16.239/32",
            "54.216.8.72/32",
            "63.33.109.123/32",
            "2a05:d028:17:8000::/56",
        ];
        assert_eq!(text(PLEO_EU), eu);
        let us = [
            "44.228.126.217/32",
            "50.112.21.217/32",
            "52.24.126.164/32",
            "54.148.139.208/32",
            "2600:1f24:64:8000::/56",
        ];
        assert_eq!(text(PLEO_US), us);
    }
}
