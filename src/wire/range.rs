//! A range of IP addresses: one, a prefix, or from one to another.

use super::cidr::Cidr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// From one address to another of the same family, both included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The lowest.
    pub first: IpAddr,
    /// The highest; not below the first.
    pub last: IpAddr,
}

/// The text is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address, a prefix or a range: write it like 10.32.0.5, 10.32.0.0/28 or 10.32.0.5-10.32.0.9")]
pub struct NotARange;

/// An address as a number, by which those of one family are in order.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a family that has this number.
pub fn address(v4: bool, number: u128) -> IpAddr {
    match v4 {
        // No IPv4 address has a higher number.
        true => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        false => Ipv6Addr::from(number).into(),
    }
}

impl Range {
    /// Whether `address` is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }
}

impl From<Cidr> for Range {
    fn from(cidr: Cidr) -> Self {
        let (v4, at) = (cidr.address.is_ipv4(), number(cidr.address));
        let bits = if v4 { 32 } else { 128 };
        let hosts = u128::MAX.checked_shr(128 - (bits - u32::from(cidr.prefix))).unwrap_or(0);
        Self { first: address(v4, at & !hosts), last: address(v4, at | hosts) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Range {
    type Err = NotARange;
    fn from_str(text: &str) -> Result<Self, NotARange> {
        if text.contains('/') {
            return text.parse::<Cidr>().map(Self::from).map_err(|_| NotARange);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (IpAddr, IpAddr) =
            (first.parse().map_err(|_| NotARange)?, last.parse().map_err(|_| NotARange)?);
        match first.is_ipv4() == last.is_ipv4() && first <= last {
            true => Ok(Self { first, last }),
            false => Err(NotARange),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_range_is_an_address_a_prefix_or_two_ends() {
        for (text, shown) in [
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.5/30", "10.0.0.4-10.0.0.7"),
            ("0.0.0.0/0", "0.0.0.0-255.255.255.255"),
            ("10.0.0.5/32", "10.0.0.5"),
            ("fd00::/127", "fd00::-fd00::1"),
            ("::/0", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("10.0.0.5-10.0.0.9", "10.0.0.5-10.0.0.9"),
        ] {
            assert_eq!(text.parse::<Range>().unwrap().to_string(), shown);
        }
        for wrong in ["", "10.0.0.9-10.0.0.5", "10.0.0.1-fd00::1", "10.0.0.1-", "10.0.0.0/33", "a"] {
            assert_eq!(wrong.parse::<Range>(), Err(NotARange), "{wrong}");
        }
        let range: Range = "10.0.0.5-10.0.0.9".parse().unwrap();
        assert!(range.contains("10.0.0.9".parse().unwrap()) && !range.contains("10.0.0.10".parse().unwrap()));
        assert!(!range.contains("::a00:5".parse().unwrap()));
    }
}
