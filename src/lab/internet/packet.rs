//! What a router reads in an IP packet, and what it writes there.
//!
//! Checksums are corrected by what changed (RFC 1624), never computed anew: a packet that was damaged before stays
//! damaged. Whatever the bytes are, reading them ends in a [`Content`] and writing changes nothing beyond the end.

use super::nat::Protocol;
use crate::wire::checksum::{fold, sum};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;

/// The least MTU of IPv6, and so the longest error message about a packet (RFC 4443 §2.4).
const V6_LEAST: usize = 1280;

/// An IP packet whose header is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet(Vec<u8>);

/// What is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Endpoints speak. The one of an ICMP echo has the identifier as its port on the side that asked, and 0 on the
    /// other.
    Flow(Protocol, SocketAddr, SocketAddr),
    /// An ICMP error.
    Error,
    /// A fragment, or something else that has no ports.
    Other,
}

impl Packet {
    /// What an Ethernet frame carries; `None` when it is no IP packet. What follows the packet (padding) is cut off.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let length = match bytes.first()? >> 4 {
            4 => {
                let header = bytes.first_chunk::<20>()?;
                let (own, all) = (usize::from(header[0] & 15) * 4, u16::from_be_bytes([header[2], header[3]]));
                if own < 20 || usize::from(all) < own {
                    return None;
                }
                usize::from(all)
            }
            6 => {
                let header = bytes.first_chunk::<40>()?;
                40 + usize::from(u16::from_be_bytes([header[4], header[5]]))
            }
            _ => return None,
        };
        Some(Self(bytes.get(..length)?.to_vec()))
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        self.0[0] >> 4 == 4
    }

    /// Where it comes from.
    pub fn source(&self) -> IpAddr {
        if self.is_v4() { self.v4(12).into() } else { self.v6(8).into() }
    }

    /// Where it goes.
    pub fn destination(&self) -> IpAddr {
        if self.is_v4() { self.v4(16).into() } else { self.v6(24).into() }
    }

    /// Whether a router on the way may not cut it.
    pub fn whole(&self) -> bool {
        !self.is_v4() || self.0[6] & 0x40 != 0
    }

    /// What is in it.
    pub fn content(&self) -> Content {
        let Some((next, l4)) = self.upper() else { return Content::Other };
        let protocol = match next {
            UDP => Protocol::Udp,
            TCP => Protocol::Tcp,
            ICMP | ICMP_V6 => return self.icmp(next, l4),
            _ => return Content::Other,
        };
        match (self.word(l4), self.word(l4 + 2)) {
            (Some(from), Some(to)) => {
                let (from, to) = (SocketAddr::new(self.source(), from), SocketAddr::new(self.destination(), to));
                Content::Flow(protocol, from, to)
            }
            _ => Content::Other,
        }
    }

    /// One hop less to live; `false` when there was none left.
    pub fn hop(&mut self) -> bool {
        let at = if self.is_v4() { 8 } else { 7 };
        if self.0[at] <= 1 {
            return false;
        }
        self.0[at] -= 1;
        if self.is_v4() {
            // The field and its neighbour, the protocol, are one word of the sum.
            let other = self.0[at + 1];
            self.correct(10, &[self.0[at] + 1, other], &[self.0[at], other]);
        }
        true
    }

    /// Gives it another source. IPv4 only; others and what has no such endpoint stay as they are.
    pub fn set_source(&mut self, to: SocketAddrV4) {
        self.set(12, 0, to);
    }

    /// Gives it another destination. IPv4 only; others and what has no such endpoint stay as they are.
    pub fn set_destination(&mut self, to: SocketAddrV4) {
        self.set(16, 2, to);
    }

    /// The error by which `router` says that only `mtu` bytes pass (RFC 1191, RFC 4443 §3.2).
    pub fn too_big(&self, router: IpAddr, mtu: usize) -> Option<Self> {
        let mut body = vec![0; 4];
        match (router, self.source()) {
            (IpAddr::V4(router), IpAddr::V4(to)) => {
                body.extend([0, 0]);
                body.extend((mtu as u16).to_be_bytes());
                // The header, with options of up to 40 bytes, and eight bytes more.
                body.extend(&self.0[..self.0.len().min(usize::from(self.0[0] & 15) * 4 + 8)]);
                body[..2].copy_from_slice(&[3, 4]);
                let checksum = !fold(sum(0, &body));
                body[2..4].copy_from_slice(&checksum.to_be_bytes());
                let mut bytes = vec![0x45, 0];
                bytes.extend((20 + body.len() as u16).to_be_bytes());
                bytes.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
                bytes.extend(router.octets());
                bytes.extend(to.octets());
                let checksum = !fold(sum(0, &bytes));
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
                Some(Self([bytes, body].concat()))
            }
            (IpAddr::V6(router), IpAddr::V6(to)) => {
                body.extend((mtu as u32).to_be_bytes());
                body.extend(&self.0[..self.0.len().min(V6_LEAST - 48)]);
                body[0] = 2;
                let mut pseudo = [router.octets(), to.octets()].concat();
                pseudo.extend((body.len() as u32).to_be_bytes());
                pseudo.extend([0, 0, 0, ICMP_V6]);
                let checksum = !fold(sum(sum(0, &pseudo), &body));
                body[2..4].copy_from_slice(&checksum.to_be_bytes());
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend((body.len() as u16).to_be_bytes());
                bytes.extend([ICMP_V6, 64]);
                bytes.extend(router.octets());
                bytes.extend(to.octets());
                Some(Self([bytes, body].concat()))
            }
            _ => None,
        }
    }

    /// The protocol above IP and where it begins; `None` for a fragment.
    fn upper(&self) -> Option<(u8, usize)> {
        if !self.is_v4() {
            return Some((self.0[6], 40));
        }
        let cut = self.word(6)? & 0x3fff != 0;
        (!cut).then(|| (self.0[9], usize::from(self.0[0] & 15) * 4))
    }

    fn icmp(&self, next: u8, l4: usize) -> Content {
        let Some(&kind) = self.0.get(l4) else { return Content::Other };
        let (request, reply) = if next == ICMP { (8, 0) } else { (128, 129) };
        let of = |address, port| SocketAddr::new(address, port);
        match self.word(l4 + 4) {
            Some(id) if kind == request => {
                Content::Flow(Protocol::Echo, of(self.source(), id), of(self.destination(), 0))
            }
            Some(id) if kind == reply => {
                Content::Flow(Protocol::Echo, of(self.source(), 0), of(self.destination(), id))
            }
            _ if next == ICMP && matches!(kind, 3 | 11 | 12) => Content::Error,
            _ if next == ICMP_V6 && kind < 128 => Content::Error,
            _ => Content::Other,
        }
    }

    /// Writes an address at `at` and its port at `port` behind the IP header, or the identifier of an echo.
    fn set(&mut self, at: usize, port: usize, to: SocketAddrV4) {
        let Some((next, l4)) = self.upper().filter(|_| self.is_v4()) else { return };
        let (field, check, pseudo) = match next {
            UDP => (l4 + port, l4 + 6, true),
            TCP => (l4 + port, l4 + 16, true),
            ICMP => (l4 + 4, l4 + 2, false),
            _ => return,
        };
        let (old_address, new_address) = (self.v4(at).octets(), to.ip().octets());
        let Some(old_port) = self.word(field).map(u16::to_be_bytes) else { return };
        // A UDP checksum of zero says that there is none (RFC 768).
        let Some(checksum) = self.word(check) else { return };
        self.correct(10, &old_address, &new_address);
        if next != UDP || checksum != 0 {
            if pseudo {
                self.correct(check, &old_address, &new_address);
            }
            self.correct(check, &old_port, &to.port().to_be_bytes());
            if next == UDP && self.word(check) == Some(0) {
                self.0[check..check + 2].fill(0xff);
            }
        }
        self.0[at..at + 4].copy_from_slice(&new_address);
        self.0[field..field + 2].copy_from_slice(&to.port().to_be_bytes());
    }

    /// Corrects the checksum at `at` for words that change (RFC 1624 §3, equation 3).
    fn correct(&mut self, at: usize, old: &[u8], new: &[u8]) {
        let Some(checksum) = self.word(at) else { return };
        let inverted: Vec<u8> = old.iter().map(|byte| !byte).collect();
        let corrected = !fold(sum(sum(u64::from(!checksum), &inverted), new));
        self.0[at..at + 2].copy_from_slice(&corrected.to_be_bytes());
    }

    fn word(&self, at: usize) -> Option<u16> {
        self.0.get(at..)?.first_chunk().map(|&bytes| u16::from_be_bytes(bytes))
    }

    fn v4(&self, at: usize) -> Ipv4Addr {
        self.0.get(at..).and_then(|rest| rest.first_chunk::<4>()).map_or(Ipv4Addr::UNSPECIFIED, |&bytes| bytes.into())
    }

    fn v6(&self, at: usize) -> Ipv6Addr {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk::<16>())
            .map_or(Ipv6Addr::UNSPECIFIED, |&bytes| bytes.into())
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::checksum::verifies;
    use proptest::prelude::*;

    /// A UDP or TCP packet between two endpoints, DF set and checksums complete.
    pub(in super::super) fn packet(protocol: u8, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let mut body = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        if protocol == UDP {
            body.extend((8 + payload.len() as u16).to_be_bytes());
            body.extend([0; 2]);
        } else {
            body.extend([0; 8]);
            body.extend([0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        }
        body.extend(payload);
        let (octets, mut bytes) = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut bytes = vec![0x45, 0];
                bytes.extend((20 + body.len() as u16).to_be_bytes());
                bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                ([from.octets(), to.octets()].concat(), bytes)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend((body.len() as u16).to_be_bytes());
                bytes.extend([protocol, 64]);
                ([from.octets(), to.octets()].concat(), bytes)
            }
            _ => panic!("two families"),
        };
        bytes.extend(&octets);
        if from.is_ipv4() {
            let checksum = !fold(sum(0, &bytes));
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        let at = if protocol == UDP { 6 } else { 16 };
        let pseudo = sum(body.len() as u64 + u64::from(protocol), &octets);
        let checksum = !fold(sum(pseudo, &body));
        body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// All checksums of an IPv4 packet hold.
    fn is_sound(packet: &Packet) -> bool {
        let bytes = packet.bytes();
        let pseudo = sum(bytes.len() as u64 - 20 + u64::from(bytes[9]), &bytes[12..20]);
        verifies(0, &bytes[..20]) && verifies(pseudo, &bytes[20..])
    }

    #[test]
    fn endpoints_are_read_and_rewritten_with_their_checksums() {
        for (protocol, name) in [(UDP, Protocol::Udp), (TCP, Protocol::Tcp)] {
            let (from, to) = (at("192.168.1.2:5000"), at("192.0.2.1:53"));
            let mut read = Packet::parse(&packet(protocol, from, to, b"weft")).unwrap();
            assert_eq!(read.content(), Content::Flow(name, from, to));
            assert!(is_sound(&read) && read.whole());
            let (source, destination) = ("198.51.100.1:4711", "10.0.0.1:9");
            read.set_source(source.parse().unwrap());
            read.set_destination(destination.parse().unwrap());
            assert_eq!(read.content(), Content::Flow(name, at(source), at(destination)));
            assert!(read.hop() && read.bytes()[8] == 63 && is_sound(&read));
        }
        let (from, to) = (at("[2001:db8::1]:5000"), at("[2001:db8::2]:53"));
        let mut read = Packet::parse(&packet(UDP, from, to, b"weft")).unwrap();
        assert_eq!(read.content(), Content::Flow(Protocol::Udp, from, to));
        assert!(read.hop() && read.bytes()[7] == 63);
    }

    #[test]
    fn a_packet_dies_after_its_last_hop_and_a_fragment_has_no_ports() {
        let mut bytes = packet(UDP, at("192.168.1.2:5000"), at("192.0.2.1:53"), b"");
        bytes[8] = 1;
        assert!(!Packet::parse(&bytes).unwrap().hop());
        bytes[6] = 0x20;
        let fragment = Packet::parse(&bytes).unwrap();
        assert!(fragment.content() == Content::Other && !fragment.whole());
    }

    #[test]
    fn an_echo_has_its_identifier_where_it_was_asked() {
        let echo = |kind: u8| {
            let mut bytes = packet(UDP, at("192.168.1.2:0"), at("192.0.2.1:0"), b"");
            bytes[9] = ICMP;
            bytes[20..28].copy_from_slice(&[kind, 0, !kind, 0xff - 7, 0, 7, 0, 0]);
            Packet::parse(&bytes).unwrap()
        };
        let content = |from, to| Content::Flow(Protocol::Echo, at(from), at(to));
        assert_eq!(echo(8).content(), content("192.168.1.2:7", "192.0.2.1:0"));
        assert_eq!(echo(0).content(), content("192.168.1.2:0", "192.0.2.1:7"));
        assert_eq!(echo(3).content(), Content::Error);
        let mut asked = echo(8);
        asked.set_source("198.51.100.1:99".parse().unwrap());
        assert_eq!(asked.content(), content("198.51.100.1:99", "192.0.2.1:0"));
        assert!(verifies(0, &asked.bytes()[20..]));
    }

    #[test]
    fn the_error_about_a_packet_that_is_too_big_can_be_read_by_whoever_sent_it() {
        let big = Packet::parse(&packet(UDP, at("192.168.1.2:5000"), at("192.0.2.1:53"), &[7; 1400])).unwrap();
        let error = big.too_big("192.0.2.254".parse().unwrap(), 1280).unwrap();
        assert!(error.content() == Content::Error && error.destination() == big.source());
        let bytes = error.bytes();
        assert!(verifies(0, &bytes[..20]) && verifies(0, &bytes[20..]));
        assert_eq!((bytes[26], bytes[27], &bytes[28..]), (5, 0, &big.bytes()[..28]));
        let big = Packet::parse(&packet(UDP, at("[2001:db8::1]:1"), at("[2001:db8::2]:2"), &[7; 1400])).unwrap();
        let error = big.too_big("2001:db8::fe".parse().unwrap(), 1280).unwrap();
        assert!(error.content() == Content::Error && error.bytes().len() == V6_LEAST);
        assert!(verifies(sum(u64::from(ICMP_V6) + 1240, &error.bytes()[8..40]), &error.bytes()[40..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_rewritten_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80), version in 0u8..8, port: u16,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = (*first & 15) | version << 4;
            }
            let length = bytes.len() as u16;
            if let Some(field) = bytes.get_mut(2..4).filter(|_| version == 4) {
                field.copy_from_slice(&length.to_be_bytes());
            }
            if let Some(mut packet) = Packet::parse(&bytes) {
                let _ = packet.content();
                packet.set_source(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
                packet.set_destination(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
                let _ = (packet.hop(), packet.too_big(packet.source(), 1280));
            }
        }
    }
}
