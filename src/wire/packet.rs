//! What a packet says of itself to somebody who decides about it: who sends it to whom, and what it is for.
//!
//! The decision is only as good as the reading: what a host would understand and this does not is a way around every rule.
//! So tags are looked through as Linux does, IPv6 extension headers are walked (RFC 7113), and what cannot be read to where a
//! rule would have to look is [`Content::Unreadable`], which is no packet of anybody's.
//!
//! * Linux takes a frame in any number of tags with VLAN 0 for an untagged one: three tags are unreadable.
//! * A packet ends where its header says, not where its frame does: nobody takes the padding behind it for ports.
//! * A first fragment that ends before its ports, and one that would overwrite them, are unreadable (RFC 1858, RFC 7112). Later
//!   fragments have addresses and a protocol, and no more.
//! * Neighbour discovery in fragments is unreadable: nobody may take it (RFC 6980).
//! * A checksum that is still to be finished is written over the frame after all that. [`may_finish`] tells whether it stays
//!   off what was read.

use super::ethernet::{ARP, Frame, IPV4, IPV6, Mac, SERVICE_VLAN, VLAN};
use super::vnet::{PartialChecksum, TCP_CHECKSUM, UDP_CHECKSUM};
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

/// ICMP types by which routers of IPv4 speak of themselves and of better ones (RFC 792, RFC 1256).
pub const REDIRECT_V4: u8 = 5;
/// See [`REDIRECT_V4`].
pub const ROUTER_ADVERTISEMENT_V4: u8 = 9;

/// Extension headers that are walked: more than any stack sends. A longer chain is unreadable.
const MAX_EXTENSIONS: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
/// The field in both ICMPs' header.
const ICMP_CHECKSUM: u16 = 2;

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

/// Somebody says which addresses belong together: an ARP packet's sender, the target of a neighbour advertisement, the source of
/// other neighbour discovery.
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
    let header = packet.first_chunk::<IPV4_HEADER>()?;
    let length = v4_header_len(header)?;
    let (protocol, field) = (header[9], u16::from_be_bytes([header[6], header[7]]));
    let (offset, more) = (field & 0x1fff, field & 0x2000 != 0);
    let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let payload = packet.get(length..said(end, packet.len()))?;
    let transport = match offset {
        0 => transport(protocol, payload, more, None)?,
        // It would overwrite the flags of the header that the first one brought.
        1 if protocol == TCP => return None,
        _ => Transport::Fragment,
    };
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into();
    Some(Packet { source: address(12), destination: address(16), protocol, transport })
}

#[inline]
fn v4_header_len(header: &[u8; IPV4_HEADER]) -> Option<usize> {
    let length = usize::from(header[0] & 0x0f) * 4;
    (header[0] >> 4 == 4 && length >= IPV4_HEADER).then_some(length)
}

/// How much of `there` is the packet's, by a length field. 0 is a super-frame too long to say it; for what is cut short, what
/// there is.
#[inline]
fn said(length: usize, there: usize) -> usize {
    if length == 0 { there } else { length.min(there) }
}

fn v6(packet: &[u8]) -> Option<Packet> {
    let (header, rest) = packet.split_first_chunk::<IPV6_HEADER>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| header[at..].first_chunk::<16>().map(|bytes| IpAddr::from(Ipv6Addr::from(*bytes)));
    let (source, destination) = (address(8)?, address(24)?);
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let (protocol, payload, fragment) = behind_extensions(header[6], rest.get(..said(length, rest.len()))?)?;
    let transport = match fragment {
        // Where a first one may have TCP's flags, whatever this one calls its protocol: nobody looks at that (RFC 8200 §4.5).
        Some(1) => return None,
        Some(offset) if offset > 0 => Transport::Fragment,
        _ => transport(protocol, payload, fragment.is_some(), Some(source))?,
    };
    Some(Packet { source, destination, protocol, transport })
}

/// Walks the extension headers in front of `rest`, of which `protocol` is the first: the protocol behind them, what is there, and
/// where that belongs in a fragmented packet, in units of 8 bytes. Behind the header of a later fragment is nothing to be walked.
fn behind_extensions(mut protocol: u8, mut rest: &[u8]) -> Option<(u8, &[u8], Option<u16>)> {
    let mut fragment = None;
    for _ in 0..=MAX_EXTENSIONS {
        if fragment.is_some_and(|offset| offset > 0) {
            return Some((protocol, rest, fragment));
        }
        let length = match protocol {
            // Hop-by-hop, routing, destination and mobility options; in units of 8 bytes besides the first.
            0 | 43 | 60 | 135 => usize::from(*rest.get(1)?) * 8 + 8,
            // Authentication, in units of 4 bytes besides the first two.
            51 => usize::from(*rest.get(1)?) * 4 + 8,
            44 => {
                fragment = Some(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) >> 3);
                8
            }
            _ => return Some((protocol, rest, fragment)),
        };
        protocol = *rest.first()?;
        rest = rest.get(length..)?;
    }
    None
}

/// Whether the checksum that a frame's sender left to be finished is written where nothing of it was read: behind the IP header
/// and its extensions, into the field of the protocol there, or, where something is carried inside of another protocol, behind
/// what [`Content`] says of that. Else a frame could be judged as one and sent as another.
pub fn may_finish(frame: &Frame<'_>, partial: PartialChecksum) -> bool {
    let packet = frame.payload();
    let begins = match frame.ethertype() {
        IPV4 => packet.first_chunk().and_then(|header| Some((header[9], v4_header_len(header)?))),
        IPV6 => packet.split_first_chunk::<IPV6_HEADER>().and_then(|(header, rest)| {
            let (protocol, payload, _) = behind_extensions(header[6], rest)?;
            Some((protocol, packet.len() - payload.len()))
        }),
        ARP => None,
        // IP in something that is no IP: nobody reads it here.
        _ => Some((0, IPV4_HEADER)),
    };
    let Some((protocol, length)) = begins else { return false };
    let (start, field) = (usize::from(partial.start), partial.offset);
    let Some(inside) = start.checked_sub(frame.payload_offset() + length) else { return false };
    let fits = start + usize::from(field) + 2 <= frame.bytes().len();
    fits && match (protocol, inside) {
        (TCP, _) => (inside, field) == (0, TCP_CHECKSUM),
        (ICMP | ICMPV6, _) => (inside, field) == (0, ICMP_CHECKSUM),
        (UDP, 0) => field == UDP_CHECKSUM,
        (UDP, _) => inside >= UDP_HEADER,
        _ => true,
    }
}

/// The head of a packet's payload; IPv6 has its `source` for what speaks of it.
#[inline]
fn transport(protocol: u8, bytes: &[u8], fragmented: bool, source: Option<IpAddr>) -> Option<Transport> {
    let ports =
        |bytes: &[u8; 4]| (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]));
    Some(match (protocol, source) {
        (TCP, _) => {
            let header = bytes.first_chunk::<14>()?;
            let (source, destination) = ports(header.first_chunk()?);
            Transport::Tcp { source, destination, flags: header[13] }
        }
        (UDP, _) => {
            let (source, destination) = ports(bytes.first_chunk()?);
            Transport::Udp { source, destination }
        }
        (ICMPV6, Some(source)) => match *bytes.first()? {
            ROUTER_SOLICITATION..=REDIRECT if fragmented => return None,
            kind @ ROUTER_SOLICITATION..=REDIRECT => {
                Transport::Neighbour { kind, claim: neighbour(kind, source, bytes)? }
            }
            kind => Transport::Icmp { kind },
        },
        (ICMP, None) => Transport::Icmp { kind: *bytes.first()? },
        _ => Transport::Other,
    })
}

/// What a message of neighbour discovery claims: an address, and the MAC address that goes with it. An advertisement speaks of its
/// target; of all others that tell a MAC address hosts learn where their source is (RFC 4861 §6.2.6, §6.3.4, §7.2.3).
fn neighbour(kind: u8, source: IpAddr, message: &[u8]) -> Option<Claim> {
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
    let address = match kind {
        NEIGHBOUR_ADVERTISEMENT => Ipv6Addr::from(*head[8..].first_chunk::<16>()?).into(),
        REDIRECT => Ipv6Addr::UNSPECIFIED.into(),
        _ => source,
    };
    let mut claim = Claim { mac: None, address };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A frame with so many tags, and what is behind them.
    fn frame(tags: usize, ethertype: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        (0..tags).for_each(|_| frame.extend([0x81, 0, 0, 0]));
        [&frame[..], &ethertype.to_be_bytes(), packet].concat()
    }

    #[test]
    fn a_checksum_is_finished_only_behind_what_was_read() {
        let v4 = |protocol: u8, options: usize| {
            let mut header = vec![0; 20 + options];
            (header[0], header[9]) = (0x45 + options as u8 / 4, protocol);
            [header, vec![0; 120]].concat()
        };
        let v6 = |protocol: u8, extensions: &[u8]| {
            let mut header = [0; 40];
            (header[0], header[6]) = (0x60, if extensions.is_empty() { protocol } else { 60 });
            [&header[..], extensions, &[0; 120]].concat()
        };
        for tags in 0..3 {
            for (protocol, ethertype, packet, length) in [
                (6, IPV4, v4(6, 0), 20),
                (17, IPV4, v4(17, 8), 28),
                (6, IPV6, v6(6, &[]), 40),
                (17, IPV6, v6(17, &[17, 0, 1, 4, 0, 0, 0, 0]), 48),
                (58, IPV6, v6(58, &[]), 40),
                (47, IPV4, v4(47, 0), 20),
            ] {
                let bytes = frame(tags, ethertype, &packet);
                let view = Frame::parse(&bytes).unwrap();
                let begin = (14 + 4 * tags + length) as u16;
                let may = |start, offset| may_finish(&view, PartialChecksum { start, offset });
                for start in 0..begin {
                    assert!((0..40).all(|offset| !may(start, offset)), "{tags} tags, protocol {protocol}: {start}");
                }
                let own = (0..40).filter(|&offset| may(begin, offset)).collect::<Vec<_>>();
                match protocol {
                    6 => assert_eq!(own, [16]),
                    17 => assert_eq!(own, [6]),
                    58 => assert_eq!(own, [2]),
                    // The checksum of GRE itself (RFC 2784) among others.
                    _ => assert!(own.contains(&4)),
                }
                // TCP inside of VXLAN or GRE; nothing is inside of TCP.
                let inside = begin + 8 + 8 + 14 + 20;
                assert_eq!(may(inside, 16), matches!(protocol, 17 | 47), "{protocol}");
                assert!(!may(bytes.len() as u16 - 17, 16), "beyond the end");
            }
            let arp = frame(tags, ARP, &[0; 100]);
            let arp = Frame::parse(&arp).unwrap();
            assert!((0..80).all(|start| !may_finish(&arp, PartialChecksum { start, offset: 0 })));
        }
    }
}
