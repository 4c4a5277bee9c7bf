//! The source that a connection or a request counts for: an IPv4 address, or an IPv6 network.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A client as fair sharing sees it.
///
/// An IPv6 customer has at least a network of 64 bits, often of 56, sometimes of 48. Sources are
/// therefore weighed at three [levels](Self::LEVELS): first sites (/48) against each other, then
/// the subnets (/56) of one site, then the networks (/64) of one subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    V4(Ipv4Addr),
    /// The first 64 bits of the address.
    V6(u64),
    /// Nobody said where the request comes from.
    Unknown,
}

impl Source {
    /// How many levels there are.
    pub(crate) const LEVELS: usize = 3;

    /// The group that the source belongs to at a level, the widest first.
    pub(crate) const fn group(self, level: usize) -> Self {
        match self {
            Self::V6(bits) if level == 0 => Self::V6(bits & (u64::MAX << 16)),
            Self::V6(bits) if level == 1 => Self::V6(bits & (u64::MAX << 8)),
            source => source,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(bits) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*bits) << 64)),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments().map(u64::from);
                Self::V6((a << 48) | (b << 32) | (c << 16) | d)
            }
        }
    }
}

impl From<Option<IpAddr>> for Source {
    fn from(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Unknown, Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn groups_ipv6_by_48_56_and_64_bits() {
        let one = source("2001:db8:1:1234::1");
        for (other, same) in [
            ("2001:db8:1:1234:ffff::2", [true, true, true]),
            ("2001:db8:1:12ff::1", [true, true, false]),
            ("2001:db8:1:ff34::1", [true, false, false]),
            ("2001:db8:2:1234::1", [false, false, false]),
        ] {
            let other = source(other);
            let groups = [0, 1, 2].map(|level| one.group(level) == other.group(level));
            assert_eq!(groups, same, "{other:?}");
        }
    }

    #[test]
    fn counts_a_mapped_address_as_the_ipv4_address() {
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.2"), source("192.0.2.1"));
    }
}
