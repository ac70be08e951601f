//! An IP address with its prefix length, and a network's prefix.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// `10.32.0.5/16`: an address and the length of its network's prefix. As a subnet, the host bits are ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address, host bits included.
    pub address: IpAddr,
    /// Bits of prefix: 0 to 32, or 0 to 128 for IPv6.
    pub prefix: u8,
}

/// The text is not an address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address with a prefix length: write it like 10.32.0.5/16 or fd00:32::5/64")]
pub struct NotACidr;

impl Cidr {
    /// The prefix that holds one address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `address` lies in this prefix. Addresses of the other family never do.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.prefix);
                u64::from(u32::from(a)) >> shift == u64::from(u32::from(b)) >> shift
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                u128::from(a) & mask == u128::from(b) & mask
            }
            _ => false,
        }
    }

    /// The prefix itself: without the host's bits.
    pub fn network(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        };
        Self { address, prefix: self.prefix }
    }

    /// The first address of this prefix that a host may have, with the prefix's length: behind the network's own (RFC 4291 §2.6.1
    /// has it for routers in IPv6). `None` where there is but one, or none besides the network's and the broadcast address.
    pub fn first_host(&self) -> Option<Self> {
        let address = match self.address {
            IpAddr::V4(address) if self.prefix <= 30 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(((u32::from(address) & mask) + 1).into())
            }
            IpAddr::V6(address) if self.prefix <= 126 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(((u128::from(address) & mask) + 1).into())
            }
            _ => return None,
        };
        Some(Self { address, prefix: self.prefix })
    }

    /// Whether the two prefixes share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.prefix <= other.prefix { self.contains(other.address) } else { other.contains(self.address) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cidr {
    type Err = NotACidr;
    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let (address, prefix) = text.split_once('/').ok_or(NotACidr)?;
        let address: IpAddr = address.parse().map_err(|_| NotACidr)?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotACidr);
        }
        let prefix: u8 = prefix.parse().map_err(|_| NotACidr)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix > most { Err(NotACidr) } else { Ok(Self { address, prefix }) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = NotACidr;
    fn try_from(text: String) -> Result<Self, NotACidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_holds_its_own_addresses_only() {
        assert!(cidr("10.32.0.0/16").contains("10.32.255.1".parse().unwrap()));
        assert!(!cidr("10.32.0.0/16").contains("10.33.0.1".parse().unwrap()));
        assert!(cidr("0.0.0.0/0").contains("255.1.2.3".parse().unwrap()));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(cidr("::/0").contains("fd00::1".parse().unwrap()));
        assert!(cidr("fd00:32::/64").contains("fd00:32::ffff".parse().unwrap()));
        assert!(!cidr("fd00:32::/64").contains("fd00:33::".parse().unwrap()));
    }

    #[test]
    fn overlap_is_symmetric() {
        assert!(cidr("10.0.0.0/8").overlaps(&cidr("10.32.0.0/16")));
        assert!(cidr("10.32.0.0/16").overlaps(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.32.0.0/16").overlaps(&cidr("10.33.0.0/16")));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["10.0.0.1", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/+8", "fd00::/129", "a/8", "10.0.0/8"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
