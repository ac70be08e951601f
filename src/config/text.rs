//! The small texts of configuration and command line: names, interface names, MAC addresses, endpoints.
//!
//! Each has one rule, here, for the file and for `weft attach` alike.

use super::Endpoint;
use crate::wire::ethernet::{Mac, NotAMac};
use crate::wire::name::is_host_name;
pub use crate::wire::name::{MAX_NAME, is_name};
use md5::{Digest, Md5};
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest name of a port, enough for `TARGET:IFNAME` with any container's name.
pub const MAX_PORT_NAME: usize = 255;
/// The longest interface name: Linux's IFNAMSIZ without the terminating zero.
pub const MAX_IFNAME: usize = 15;
/// The longest DNS name as text (RFC 1035 §2.3.4).
const MAX_DNS_NAME: usize = 253;
/// The longest label of one.
const MAX_DNS_LABEL: usize = 63;
/// The longest key and the longest value of a label.
const MAX_LABEL: usize = 63;

/// Whether `text` can name a port: 1 to 255 bytes, without blanks and control characters.
pub fn is_port_name(text: &str) -> bool {
    (1..=MAX_PORT_NAME).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// The text cannot be the name of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnIfname {
    /// Nothing, or too much.
    #[error("an interface name has 1 to 15 bytes")]
    Length,
    /// `.` or `..`, which the kernel keeps for itself.
    #[error("'.' and '..' are no interface names")]
    Dots,
    /// A character the kernel refuses, or, as '%', takes for a pattern.
    #[error("an interface name has no '/', ':', '%', blanks or control characters")]
    Character,
}

/// Checks an interface name by the kernel's rule (dev_valid_name), and against '%', which it takes for a pattern.
///
/// # Errors
/// [`NotAnIfname`] says which part of the rule was broken.
pub fn check_ifname(text: &str) -> Result<(), NotAnIfname> {
    if !(1..=MAX_IFNAME).contains(&text.len()) {
        Err(NotAnIfname::Length)
    } else if text == "." || text == ".." {
        Err(NotAnIfname::Dots)
    } else if text.chars().any(|c| "/:%".contains(c) || c.is_whitespace() || c.is_control()) {
        Err(NotAnIfname::Character)
    } else {
        Ok(())
    }
}

/// Reads a name for DNS below a network's zone: labels of RFC 1123 §2.1, with underscores as containers have them, in lower case.
///
/// # Errors
/// What a name is.
pub fn host_name(text: &str) -> Result<String, &'static str> {
    let name = text.to_ascii_lowercase();
    if is_host_name(&name) {
        Ok(name)
    } else {
        Err("a name has at most 128 letters, digits, '-' and '_', in labels of at most 63 between dots")
    }
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// What a label is.
pub fn label(text: &str) -> Result<(String, String), &'static str> {
    let is_plain =
        |text: &str| text.len() <= MAX_LABEL && text.bytes().all(|b| b.is_ascii_graphic() && b != b'=' && b != b',');
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && is_plain(key) && is_plain(value) => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("a label is KEY=VALUE, each of at most 63 printable characters without ',' and '='"),
    }
}

/// The text is not the MAC address of a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAStation {
    /// Not an address at all.
    #[error(transparent)]
    Address(#[from] NotAMac),
    /// Broadcast or multicast.
    #[error("a group address belongs to no station: the first octet of a station's MAC address is even")]
    Group,
    /// All zero.
    #[error("the zero address belongs to no station")]
    Zero,
    /// `U:` with nothing behind it.
    #[error("U: needs a text behind it, like U:web")]
    Empty,
}

/// A station's MAC address from its six octets, or, as pipework has it, from `U:TEXT`: `02:` and the first 40 bits of
/// the MD5 of TEXT and a newline, so that one text gives the same address everywhere and for ever.
///
/// # Errors
/// [`NotAStation`] when the text is neither, or a group address or zero.
pub fn mac_from_text(text: &str) -> Result<Mac, NotAStation> {
    if let Some(text) = text.strip_prefix("U:") {
        if text.is_empty() {
            return Err(NotAStation::Empty);
        }
        let [a, b, c, d, e, ..]: [u8; 16] = Md5::new().chain_update(text).chain_update(b"\n").finalize().into();
        return Ok(Mac([0x02, a, b, c, d, e]));
    }
    let mac: Mac = text.parse()?;
    match mac {
        mac if mac.is_group() => Err(NotAStation::Group),
        mac if mac.is_zero() => Err(NotAStation::Zero),
        mac => Ok(mac),
    }
}

/// The text is not an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEndpoint {
    /// No port, or nothing before it.
    #[error("an endpoint has a port behind a colon")]
    NoPort,
    /// The port is not one.
    #[error("the port behind the colon must be a number from 1 to 65535")]
    Port,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address stands in brackets before its port")]
    Brackets,
    /// Looks like an address or a name, and is neither.
    #[error("what stands before the port is neither an IP address nor a DNS name")]
    Host,
    /// An address that no host can be reached at.
    #[error("no host can be reached at an unspecified or multicast address")]
    Unreachable,
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    /// `IP:PORT`, `[IPV6]:PORT` or `NAME:PORT`, for TCP with `tcp:` in front. A host may be called tcp.
    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        if let Some(rest) = text.strip_prefix("tcp:").filter(|rest| rest.contains(':')) {
            return match rest.parse()? {
                Self::Address(address) => Ok(Self::TcpAddress(address)),
                Self::Name(name, port) => Ok(Self::TcpName(name, port)),
                Self::TcpAddress(_) | Self::TcpName(..) => Err(NotAnEndpoint::Host),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(NotAnEndpoint::NoPort)?;
        if host.is_empty() {
            return Err(NotAnEndpoint::NoPort);
        }
        if text.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() {
            return Err(NotAnEndpoint::Brackets);
        }
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotAnEndpoint::Port);
        }
        let port = port.parse().ok().filter(|&port: &u16| port > 0).ok_or(NotAnEndpoint::Port)?;
        if let Ok(address) = text.parse::<SocketAddr>() {
            let ip = address.ip().to_canonical();
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(NotAnEndpoint::Unreachable);
            }
            // An IPv4 address in IPv6 clothes is reached through the IPv4 socket.
            return Ok(Self::Address(if ip.is_ipv4() { SocketAddr::new(ip, port) } else { address }));
        }
        if is_dns_name(host) { Ok(Self::Name(host.to_owned(), port)) } else { Err(NotAnEndpoint::Host) }
    }
}

/// Whether `text` is a host name as RFC 1123 §2.1 has it, underscores allowed; one whose last label is a number
/// would be a mistyped IPv4 address.
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_DNS_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= MAX_DNS_NAME && !number && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_text_gives_the_mac_that_pipework_gives() {
        // $ echo hello | md5sum
        // b1946ac92492d2347c6235b4d2611184  -
        assert_eq!(mac_from_text("U:hello").unwrap(), "02:b1:94:6a:c9:24".parse().unwrap());
        assert_eq!(mac_from_text("02:42:0a:20:00:05").unwrap(), "02:42:0a:20:00:05".parse().unwrap());
    }

    #[test]
    fn a_mac_that_belongs_to_no_station_is_refused() {
        assert_eq!(mac_from_text("ff:ff:ff:ff:ff:ff"), Err(NotAStation::Group));
        assert_eq!(mac_from_text("03:00:00:00:00:01"), Err(NotAStation::Group));
        assert_eq!(mac_from_text("00:00:00:00:00:00"), Err(NotAStation::Zero));
        assert_eq!(mac_from_text("U:"), Err(NotAStation::Empty));
        assert_eq!(mac_from_text("web"), Err(NotAStation::Address(NotAMac)));
    }

    #[test]
    fn endpoints_are_addresses_or_names_with_a_port() {
        for right in [
            "192.0.2.7:51820",
            "[2001:db8::7]:51820",
            "[fe80::1%3]:1",
            "beta:65535",
            "b.example.net.:1",
            "a_b:1",
            "tcp:192.0.2.7:443",
            "tcp:[2001:db8::7]:443",
            "tcp:beta:443",
            "tcp:51820",
        ] {
            let endpoint: Endpoint = right.parse().unwrap();
            assert_eq!(endpoint.to_string(), right);
            assert_eq!(endpoint.is_tcp(), right.matches(':').count() > 1 && right.starts_with("tcp:"), "{right}");
        }
        let mapped: Endpoint = "[::ffff:192.0.2.7]:51820".parse().unwrap();
        assert_eq!(mapped.to_string(), "192.0.2.7:51820");
        for (wrong, why) in [
            ("", NotAnEndpoint::NoPort),
            ("beta", NotAnEndpoint::NoPort),
            (":51820", NotAnEndpoint::NoPort),
            ("beta:", NotAnEndpoint::Port),
            ("beta:0", NotAnEndpoint::Port),
            ("beta:+1", NotAnEndpoint::Port),
            ("beta:65536", NotAnEndpoint::Port),
            ("beta:http", NotAnEndpoint::Port),
            ("2001:db8::7:51820", NotAnEndpoint::Brackets),
            ("2001:db8::7", NotAnEndpoint::Brackets),
            ("192.0.2.300:1", NotAnEndpoint::Host),
            ("https://beta:1", NotAnEndpoint::Host),
            ("be ta:1", NotAnEndpoint::Host),
            ("-beta:1", NotAnEndpoint::Host),
            ("beta..net:1", NotAnEndpoint::Host),
            ("tcp:tcp:beta:1", NotAnEndpoint::Host),
            ("tcp:beta:0", NotAnEndpoint::Port),
            ("tcp:0.0.0.0:1", NotAnEndpoint::Unreachable),
            ("0.0.0.0:1", NotAnEndpoint::Unreachable),
            ("[::]:1", NotAnEndpoint::Unreachable),
            ("[::ffff:0.0.0.0]:1", NotAnEndpoint::Unreachable),
            ("[ff02::1]:1", NotAnEndpoint::Unreachable),
        ] {
            assert_eq!(wrong.parse::<Endpoint>(), Err(why), "{wrong}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for right in ["eth0", "a", "fifteen-bytes-x", "eth0.5"] {
            assert_eq!(check_ifname(right), Ok(()), "{right}");
        }
        for (wrong, why) in [
            ("", NotAnIfname::Length),
            ("sixteen-bytes-xx", NotAnIfname::Length),
            (".", NotAnIfname::Dots),
            ("..", NotAnIfname::Dots),
            ("a/b", NotAnIfname::Character),
            ("a b", NotAnIfname::Character),
            ("a:b", NotAnIfname::Character),
            ("eth%d", NotAnIfname::Character),
            ("a\0", NotAnIfname::Character),
        ] {
            assert_eq!(check_ifname(wrong), Err(why), "{wrong:?}");
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(is_name("alpha-1.example_net") && is_port_name("netns:/run/netns/web:eth1"));
        for wrong in ["", "a b", "ä", "a/b", &"x".repeat(MAX_NAME + 1)] {
            assert!(!is_name(wrong), "{wrong}");
        }
        for wrong in ["", "a b", "a\n", &"x".repeat(MAX_PORT_NAME + 1)] {
            assert!(!is_port_name(wrong), "{wrong}");
        }
    }
}
