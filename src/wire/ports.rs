//! What a rule lets through: a protocol and, where that has any, ports.
//!
//! Rules keep no state. A rule speaks of who begins; what comes back is told by what it is ([`Ports::answers`]).

use super::packet::{ICMP, ICMPV6, Packet, TCP, TCP_ACK, TCP_RST, Transport, UDP};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Rules of one network: what a person still understands, and a packet is held against in four words.
pub const MAX_RULES: usize = 256;

/// `any`, `tcp`, `tcp/80`, `udp/5000-5010`, `icmp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Ports {
    /// Everything.
    Any,
    /// TCP to these ports, both ends of the range included.
    Tcp(u16, u16),
    /// UDP to these ports.
    Udp(u16, u16),
    /// ICMP of both families.
    Icmp,
}

impl Ports {
    /// Whether a packet is of these, on its way to who offers it.
    pub fn asks(&self, packet: &Packet) -> bool {
        match (*self, packet.transport) {
            (Self::Any, _) => true,
            (Self::Tcp(from, to), Transport::Tcp { destination, .. })
            | (Self::Udp(from, to), Transport::Udp { destination, .. }) => (from..=to).contains(&destination),
            (Self::Icmp, Transport::Icmp { .. }) => true,
            (_, Transport::Fragment) => self.has_protocol(packet.protocol),
            _ => false,
        }
    }

    /// Whether a packet is of these, on its way back: TCP that begins no connection, UDP from the port, an ICMP reply.
    pub fn answers(&self, packet: &Packet) -> bool {
        match (*self, packet.transport) {
            (Self::Any | Self::Tcp(..), Transport::Tcp { flags, .. }) if flags & (TCP_ACK | TCP_RST) == 0 => false,
            (Self::Any | Self::Icmp, Transport::Icmp { kind }) => is_reply(packet.protocol, kind),
            (Self::Any, _) => true,
            (Self::Tcp(from, to), Transport::Tcp { source, .. })
            | (Self::Udp(from, to), Transport::Udp { source, .. }) => (from..=to).contains(&source),
            (_, Transport::Fragment) => self.has_protocol(packet.protocol),
            _ => false,
        }
    }

    fn has_protocol(&self, protocol: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Tcp(..) => protocol == TCP,
            Self::Udp(..) => protocol == UDP,
            Self::Icmp => matches!(protocol, ICMP | ICMPV6),
        }
    }
}

/// Echo and timestamp replies.
fn is_reply(protocol: u8, kind: u8) -> bool {
    matches!((protocol, kind), (ICMP, 0 | 14) | (ICMPV6, 129))
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, from, to) = match *self {
            Self::Any => return f.write_str("any"),
            Self::Icmp => return f.write_str("icmp"),
            Self::Tcp(from, to) => ("tcp", from, to),
            Self::Udp(from, to) => ("udp", from, to),
        };
        match (from, to) {
            (0, u16::MAX) => f.write_str(name),
            _ if from == to => write!(f, "{name}/{from}"),
            _ => write!(f, "{name}/{from}-{to}"),
        }
    }
}

/// The text names nothing that a rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not what a rule allows: write any, icmp, tcp, udp, tcp/80 or udp/5000-5010")]
pub struct NotPorts;

impl FromStr for Ports {
    type Err = NotPorts;
    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let (protocol, ports) = text.split_once('/').map_or((text, None), |(name, ports)| (name, Some(ports)));
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u16>().map_err(|_| NotPorts),
            false => Err(NotPorts),
        };
        let (from, to) = match ports {
            None => (0, u16::MAX),
            Some(ports) => {
                let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
                let (from, to) = (number(from)?, number(to)?);
                if from == 0 || from > to {
                    return Err(NotPorts);
                }
                (from, to)
            }
        };
        match protocol {
            "tcp" => Ok(Self::Tcp(from, to)),
            "udp" => Ok(Self::Udp(from, to)),
            "icmp" if ports.is_none() => Ok(Self::Icmp),
            "any" if ports.is_none() => Ok(Self::Any),
            _ => Err(NotPorts),
        }
    }
}

impl TryFrom<String> for Ports {
    type Error = NotPorts;
    fn try_from(text: String) -> Result<Self, NotPorts> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(service: Ports) -> Self {
        service.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_service_is_read_as_it_is_written() {
        for text in ["any", "icmp", "tcp", "udp", "tcp/80", "udp/5000-5010"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "tcp/", "tcp/0", "tcp/65536", "tcp/9-8", "icmp/8", "any/1", "TCP/80", "80", "tcp/+80", "tcp/80-"]
        {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }
}
