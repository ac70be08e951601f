//! What a packet says of itself to somebody who decides about it: who sends it to whom, and what it is for.
//!
//! The decision is only as good as the reading: what a host would understand and this does not is a way around every rule.
//! So tags are looked through as Linux does, IPv6 extension headers are walked (RFC 7113), and what cannot be read to where a
//! rule would have to look is [`Content::Unreadable`], which is no packet of anybody's.
//!
//! * Linux takes a frame in any number of tags with VLAN 0 for an untagged one: three tags are unreadable.
//! * A first fragment that ends before its ports, and a TCP fragment that would overwrite them, are unreadable (RFC 1858,
//!   RFC 7112). Later fragments have addresses and a protocol, and no more.
//! * Neighbour discovery in fragments is unreadable: nobody may take it (RFC 6980).

use super::ethernet::{ARP, Frame, IPV4, IPV6, Mac, SERVICE_VLAN, VLAN};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol numbers (IANA).
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const IGMP: u8 = 2;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;

/// TCP flags that a reverse direction is told by.
pub const TCP_RST: u8 = 0x04;
/// See [`TCP_RST`].
pub const TCP_ACK: u8 = 0x10;

/// ICMPv6 types of routers and neighbours (RFC 4861).
pub const ROUTER_SOLICITATION: u8 = 133;
/// See [`ROUTER_SOLICITATION`].
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// See [`ROUTER_SOLICITATION`].
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// See [`ROUTER_SOLICITATION`].
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// See [`ROUTER_SOLICITATION`].
pub const REDIRECT: u8 = 137;

/// Extension headers that are walked: more than any stack sends. A longer chain is unreadable.
const MAX_EXTENSIONS: usize = 8;
const IPV6_HEADER: usize = 40;

/// What is in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// An IP packet.
    Ip(Packet),
    /// ARP for IPv4.
    Arp(Claim),
    /// Nothing that has IP addresses.
    Other,
    /// Something that looks like one of the others and cannot be read.
    Unreadable,
}

/// The head of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// The protocol of its payload, behind any extension headers.
    pub protocol: u8,
    /// What that says.
    pub transport: Transport,
}

/// The head of a packet's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The flags of the header's fourteenth byte.
        flags: u8,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// The message's type.
        kind: u8,
    },
    /// ICMPv6 that says who has an address.
    Neighbour {
        /// The message's type.
        kind: u8,
        /// What it says.
        claim: Claim,
    },
    /// Another protocol.
    Other,
    /// A fragment behind the first: its ports were in that one.
    Fragment,
}

/// Somebody says which addresses belong together: an ARP packet's sender, or a message of neighbour discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The MAC address, if one is told.
    pub mac: Option<Mac>,
    /// The IP address it is said to have; unspecified if none.
    pub address: IpAddr,
}

impl Content {
    /// Reads a frame.
    #[inline]
    pub fn of(frame: &Frame<'_>) -> Self {
        match frame.ethertype() {
            IPV4 => v4(frame.payload()).map_or(Self::Unreadable, Self::Ip),
            IPV6 => v6(frame.payload()).map_or(Self::Unreadable, Self::Ip),
            ARP => arp(frame.payload()),
            VLAN | SERVICE_VLAN => Self::Unreadable,
            _ => Self::Other,
        }
    }
}

#[inline]
fn v4(packet: &[u8]) -> Option<Packet> {
    let header = packet.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let (protocol, field) = (header[9], u16::from_be_bytes([header[6], header[7]]));
    let (offset, more) = (field & 0x1fff, field & 0x2000 != 0);
    let payload = packet.get(length..)?;
    let transport = match offset {
        0 => transport(protocol, payload, more, false)?,
        // It would overwrite the flags of the header that the first one brought.
        1 if protocol == TCP => return None,
        _ => Transport::Fragment,
    };
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into();
    Some(Packet { source: address(12), destination: address(16), protocol, transport })
}

fn v6(packet: &[u8]) -> Option<Packet> {
    let (header, mut rest) = packet.split_first_chunk::<IPV6_HEADER>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| header[at..].first_chunk::<16>().map(|bytes| IpAddr::from(Ipv6Addr::from(*bytes)));
    let (source, destination) = (address(8)?, address(24)?);
    let (mut protocol, mut fragmented) = (header[6], false);
    for _ in 0..=MAX_EXTENSIONS {
        let length = match protocol {
            // Hop-by-hop, routing, destination and mobility options; in units of 8 bytes besides the first.
            0 | 43 | 60 | 135 => usize::from(*rest.get(1)?) * 8 + 8,
            // Authentication, in units of 4 bytes besides the first two.
            51 => usize::from(*rest.get(1)?) * 4 + 8,
            44 => {
                let field = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]);
                if field >> 3 != 0 {
                    let protocol = *rest.first()?;
                    return Some(Packet { source, destination, protocol, transport: Transport::Fragment });
                }
                fragmented = true;
                8
            }
            _ => {
                let transport = transport(protocol, rest, fragmented, true)?;
                return Some(Packet { source, destination, protocol, transport });
            }
        };
        protocol = *rest.first()?;
        rest = rest.get(length..)?;
    }
    None
}

#[inline]
fn transport(protocol: u8, bytes: &[u8], fragmented: bool, is_v6: bool) -> Option<Transport> {
    let ports =
        |bytes: &[u8; 4]| (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]));
    Some(match protocol {
        TCP => {
            let header = bytes.first_chunk::<14>()?;
            let (source, destination) = ports(header.first_chunk()?);
            Transport::Tcp { source, destination, flags: header[13] }
        }
        UDP => {
            let (source, destination) = ports(bytes.first_chunk()?);
            Transport::Udp { source, destination }
        }
        ICMPV6 if is_v6 => match *bytes.first()? {
            ROUTER_SOLICITATION..=REDIRECT if fragmented => return None,
            kind @ ROUTER_SOLICITATION..=REDIRECT => Transport::Neighbour { kind, claim: neighbour(kind, bytes)? },
            kind => Transport::Icmp { kind },
        },
        ICMP if !is_v6 => Transport::Icmp { kind: *bytes.first()? },
        _ => Transport::Other,
    })
}

/// What a message of neighbour discovery claims: its target's address, and whose MAC address it tells.
fn neighbour(kind: u8, message: &[u8]) -> Option<Claim> {
    // The fixed part's length, and which option tells the sender's MAC address: 1 source, 2 target.
    let (fixed, tells) = match kind {
        ROUTER_SOLICITATION => (8, 1),
        ROUTER_ADVERTISEMENT => (16, 1),
        NEIGHBOUR_SOLICITATION => (24, 1),
        NEIGHBOUR_ADVERTISEMENT => (24, 2),
        // Whose address a redirect tells is another's by its nature.
        _ => (40, 0),
    };
    let (head, mut options) = message.split_at_checked(fixed)?;
    let mut claim = Claim { mac: None, address: Ipv6Addr::UNSPECIFIED.into() };
    if kind == NEIGHBOUR_ADVERTISEMENT {
        claim.address = Ipv6Addr::from(*head[8..].first_chunk::<16>()?).into();
    }
    // What is behind the last whole option is padding of the frame.
    while let Some((&option, &eighths)) = options.first().zip(options.get(1)) {
        if eighths == 0 {
            break;
        }
        let Some((this, rest)) = options.split_at_checked(usize::from(eighths) * 8) else { break };
        // Of two the later one would be believed by some.
        if let (true, Some(mac)) = (option == tells, this.get(2..).and_then(|bytes| bytes.first_chunk::<6>())) {
            match claim.mac {
                Some(known) if known != Mac(*mac) => return None,
                _ => claim.mac = Some(Mac(*mac)),
            }
        }
        options = rest;
    }
    Some(claim)
}

fn arp(packet: &[u8]) -> Content {
    let Some(fields) = packet.first_chunk::<28>() else { return Content::Unreadable };
    // Ethernet (or IEEE 802, which Linux takes as well) and IPv4, 6 and 4 bytes long.
    if !matches!(fields[..6], [0, 1 | 6, 8, 0, 6, 4]) {
        return Content::Unreadable;
    }
    let mac = Mac([fields[8], fields[9], fields[10], fields[11], fields[12], fields[13]]);
    let address = Ipv4Addr::new(fields[14], fields[15], fields[16], fields[17]).into();
    Content::Arp(Claim { mac: Some(mac), address })
}
