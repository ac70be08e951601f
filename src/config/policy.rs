//! What frames may do: guards, permissions and rates of ports, and the rules of `[[allow]]`. Their texts are the same in the file
//! and on the command line.

use crate::wire::cidr::Cidr;
use crate::wire::ports::Ports;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// How far a network's ports are held to their own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// They may not take the MAC address of a station that is known elsewhere, and no more is asked.
    Off,
    /// Those with addresses use their own MAC address only.
    Mac,
    /// And their own IP addresses; none answers DHCP clients or says that it is a router.
    #[default]
    Full,
}

impl FromStr for Guard {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "mac" => Ok(Self::Mac),
            "full" => Ok(Self::Full),
            _ => Err("a guard is off, mac or full"),
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Mac => "mac",
            Self::Full => "full",
        })
    }
}

/// Something that a port may do although its network guards or isolates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Other stations are behind it: frames may come from any MAC and IP address that is not known to be another's.
    Bridge,
    /// It forwards for others: packets from its MAC address may come from any IP address.
    AnySource,
    /// It answers DHCP clients.
    DhcpServer,
    /// It is a router: it says so, and packets may come from any IP address.
    Router,
    /// It talks to isolated ports.
    Promiscuous,
}

impl Permission {
    /// All of them, with their names.
    const ALL: [(&'static str, Self); 5] = [
        ("bridge", Self::Bridge),
        ("any-source", Self::AnySource),
        ("dhcp-server", Self::DhcpServer),
        ("router", Self::Router),
        ("promiscuous", Self::Promiscuous),
    ];
}

impl FromStr for Permission {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|(name, _)| *name == text);
        let (_, permission) =
            known.ok_or("a port may be allowed bridge, any-source, dhcp-server, router or promiscuous")?;
        Ok(permission)
    }
}

/// How much a port may send and get, as CNI's `bandwidth` has it: bits a second and bits at once. *Ingress* is what its container
/// gets, *egress* what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bits a second that the container gets; `None` is no limit.
    #[serde(default)]
    pub ingress_bps: Option<u64>,
    /// Bits that it may get at once; `None` is what [`default_burst`] says.
    #[serde(default)]
    pub ingress_burst: Option<u64>,
    /// Bits a second that the container sends.
    #[serde(default)]
    pub egress_bps: Option<u64>,
    /// Bits that it may send at once.
    #[serde(default)]
    pub egress_burst: Option<u64>,
}

/// The lowest rate: less than a frame every ten seconds is no network.
pub const MIN_RATE: u64 = 1000;
/// The highest rate.
pub const MAX_RATE: u64 = 1_000_000_000_000;

/// Bits that may pass at once where nothing else is said: what the rate gives in 50 ms, but ten full frames.
pub fn default_burst(bps: u64) -> u64 {
    (bps / 20).max(10 * 1514 * 8)
}

impl Rate {
    /// Of what a container gets and what it sends, each as in the file.
    pub fn new(into: Option<RateText>, out: Option<RateText>) -> Self {
        Self {
            ingress_bps: into.map(|rate| rate.bps),
            ingress_burst: into.and_then(|rate| rate.burst),
            egress_bps: out.map(|rate| rate.bps),
            egress_burst: out.and_then(|rate| rate.burst),
        }
    }

    /// Rate and burst of what it gets.
    pub fn ingress(&self) -> Option<(u64, u64)> {
        self.ingress_bps.map(|bps| (bps, self.ingress_burst.unwrap_or_else(|| default_burst(bps))))
    }

    /// Rate and burst of what it sends.
    pub fn egress(&self) -> Option<(u64, u64)> {
        self.egress_bps.map(|bps| (bps, self.egress_burst.unwrap_or_else(|| default_burst(bps))))
    }

    /// Whether its numbers are within the bounds.
    ///
    /// # Errors
    /// What the bounds are.
    pub fn check(&self) -> Result<(), String> {
        let is_wrong = |rate: &u64| !(MIN_RATE..=MAX_RATE).contains(rate);
        if [self.ingress_bps, self.egress_bps].iter().flatten().any(is_wrong) {
            return Err(format!("a rate is {MIN_RATE} to {MAX_RATE} bits a second"));
        }
        Ok(())
    }
}

/// `100M` or `100M/1M`: bits a second, and bits at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateText {
    bps: u64,
    burst: Option<u64>,
}

impl FromStr for RateText {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            "a rate is bits a second from 1k to 1T, like 500k, 100M or 2G; /1M behind it allows so many bits at once";
        let number = |text: &str| {
            let (digits, unit) = match text.as_bytes().last()? {
                b'k' => (&text[..text.len() - 1], 1000),
                b'M' => (&text[..text.len() - 1], 1_000_000),
                b'G' => (&text[..text.len() - 1], 1_000_000_000),
                b'T' => (&text[..text.len() - 1], 1_000_000_000_000),
                _ => (text, 1),
            };
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = digits.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(unit)?;
            (1..=MAX_RATE).contains(&number).then_some(number)
        };
        let (bps, burst) = text.split_once('/').map_or((text, None), |(bps, burst)| (bps, Some(burst)));
        let bps = number(bps).filter(|bps| *bps >= MIN_RATE).ok_or(wrong)?;
        let burst = burst.map(|burst| number(burst).ok_or(wrong)).transpose()?;
        Ok(Self { bps, burst })
    }
}

/// Whom a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// Everybody.
    Any,
    /// The hosts' own ports, and what is beyond them: all that is not in the network's subnets.
    Host,
    /// These addresses, whoever has them.
    Addresses(Cidr),
    /// Whoever has this label, anywhere.
    Label(String, String),
    /// Whoever has this name, anywhere.
    Name(String),
}

impl FromStr for Party {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(label) = text.strip_prefix("label:") {
            return super::text::label(label).map(|(key, value)| Self::Label(key, value));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Addresses(Cidr::host(address)));
        }
        match text {
            "any" => Ok(Self::Any),
            "host" => Ok(Self::Host),
            _ if ["any", "host"].contains(&text.to_ascii_lowercase().as_str()) => {
                Err("'any' and 'host' are written in small letters")
            }
            _ if text.contains('/') && !text.starts_with("netns:") => {
                text.parse().map(Self::Addresses).map_err(|_| "not an address with a prefix length")
            }
            _ if super::text::is_port_name(text) => Ok(Self::Name(text.to_owned())),
            _ => Err("it is a name, label:KEY=VALUE, an address, a prefix, host or any"),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Host => f.write_str("host"),
            Self::Addresses(Cidr { address: address @ IpAddr::V4(_), prefix: 32 })
            | Self::Addresses(Cidr { address: address @ IpAddr::V6(_), prefix: 128 }) => write!(f, "{address}"),
            Self::Addresses(prefix) => write!(f, "{prefix}"),
            Self::Label(key, value) => write!(f, "label:{key}={value}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `[[allow]]`: who may begin what with whom in a network. A network with one of them refuses what none allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// The network's name.
    pub network: String,
    /// Who begins.
    pub from: Party,
    /// Who is asked.
    pub to: Party,
    /// What for.
    pub ports: Vec<Ports>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parties_are_read_as_they_are_written() {
        for text in
            ["any", "host", "10.32.0.5", "10.32.0.0/24", "fd00::/64", "fd00::5", "label:tier=web", "web", "web:eth1"]
        {
            assert_eq!(text.parse::<Party>().unwrap().to_string(), text);
        }
        for wrong in ["", "Any", "HOST", "label:tier", "10.32.0.0/33", "a b", "web/80"] {
            assert!(wrong.parse::<Party>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_have_units_and_bounds() {
        let rate = |text: &str| Rate::new(Some(text.parse().unwrap()), None).ingress();
        assert_eq!(rate("100M/1M"), Some((100_000_000, 1_000_000)));
        assert_eq!(rate("1G"), Some((1_000_000_000, 50_000_000)));
        assert_eq!(rate("8000"), Some((8000, 121_120)));
        for wrong in ["", "M", "0", "999", "2T", "1m", "-1M", "1M/", "1M/0", "1.5M", "18446744073709551616k"] {
            assert!(wrong.parse::<RateText>().is_err(), "{wrong}");
        }
    }
}
