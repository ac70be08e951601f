//! What a frame to the service address is, and the frames that answer it.
//!
//! Queries by UDP are nearly all there is, so they are read and answered here and not by a stack: the answer is the question turned
//! round. A container may hand over several in one super-frame, with their checksum left to us; it comes from a kernel on this
//! very host, over no wire, so it is not looked at. Ours is complete.

use crate::switch::ids::PortId;
use crate::wire::ethernet::{HEADER_LEN, IPV4, IPV6, Mac};
use crate::wire::vnet::{Gso, VnetHeader};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpPacket, UdpPacket, UdpRepr,
};
use std::net::{IpAddr, SocketAddr};
use std::slice::Chunks;

/// Where names are asked for, by UDP and by TCP (RFC 1035 §4.2).
pub(super) const DNS: u16 = 53;
/// How far our packets may go: nowhere but to the container, which looks at it when it counts hops.
pub(super) const HOP_LIMIT: u8 = 64;
const UDP_LEN: usize = 8;
/// Queries in one super-frame that are answered: as many as the kernel puts into one (UDP_MAX_SEGMENTS).
const MAX_QUERIES: usize = 128;

/// Who asked, and so where the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The port the question came from; nobody else gets the answer.
    pub port: PortId,
    /// Its network.
    pub vni: u32,
    /// The station behind the port.
    pub mac: Mac,
    /// Its IP address and port.
    pub from: SocketAddr,
    /// The service address it asked.
    pub service: IpAddr,
}

/// What a frame is.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// Queries for names, one or more.
    Queries(Asker, Chunks<'a, u8>),
    /// A segment of a TCP connection for names, and whether it begins one.
    Segment(Asker, bool),
    /// Another packet.
    Other,
}

/// Reads a frame to the service MAC: from whom, to whom, what. `None`: it is no IP packet that could be answered.
pub(super) fn read(
    port: PortId,
    vni: u32,
    header: VnetHeader,
    frame: &[u8],
) -> Option<(IpAddr, IpAddr, Content<'_>)> {
    let (ethernet, packet) = frame.split_first_chunk::<HEADER_LEN>()?;
    let mac = Mac(*ethernet[6..].first_chunk()?);
    let (source, destination, protocol, payload) = match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        IPV4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            // A fragment is no whole packet, and what fits no packet is no question.
            if ip.version() != 4 || ip.more_frags() || ip.frag_offset() != 0 {
                return None;
            }
            let payload = packet.get(usize::from(ip.header_len())..usize::from(ip.total_len()))?;
            (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()), ip.next_header(), payload)
        }
        IPV6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            if ip.version() != 6 {
                return None;
            }
            let payload = packet.get(ip.header_len()..ip.total_len())?;
            (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()), ip.next_header(), payload)
        }
        _ => return None,
    };
    if !is_answerable(source) || !is_answerable(destination) {
        return None;
    }
    let asker = |from| Asker { port, vni, mac, from: SocketAddr::new(source, from), service: destination };
    let content = match protocol {
        IpProtocol::Udp => match UdpPacket::new_checked(payload) {
            Ok(udp) if udp.dst_port() == DNS => {
                let queries = payload.get(UDP_LEN..usize::from(udp.len())).filter(|queries| !queries.is_empty())?;
                let size = match header.gso().ok()? {
                    Gso::Udp => usize::from(header.gso_size).max(queries.len().div_ceil(MAX_QUERIES)),
                    Gso::None => queries.len(),
                    Gso::Tcp4 | Gso::Tcp6 => return None,
                };
                // Nothing can be sent to port 0.
                if udp.src_port() == 0 {
                    return None;
                }
                Content::Queries(asker(udp.src_port()), queries.chunks(size))
            }
            _ => Content::Other,
        },
        IpProtocol::Tcp => match TcpPacket::new_checked(payload) {
            Ok(tcp) if tcp.dst_port() == DNS && tcp.src_port() != 0 => {
                Content::Segment(asker(tcp.src_port()), tcp.syn() && !tcp.ack())
            }
            _ => Content::Other,
        },
        _ => Content::Other,
    };
    Some((source, destination, content))
}

/// Whether something can be sent to this address, and only to one station.
fn is_answerable(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !is_broadcast
}

/// Begins a frame to `mac` with room for `len` bytes of a packet to be written behind.
pub(super) fn begin(frame: &mut Vec<u8>, mac: Mac, vni: u32, is_v4: bool, len: usize) -> &mut [u8] {
    frame.clear();
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&Mac::service(vni).0);
    frame.extend_from_slice(&if is_v4 { IPV4 } else { IPV6 }.to_be_bytes());
    frame.resize(HEADER_LEN + len, 0);
    &mut frame[HEADER_LEN..]
}

/// Makes the frame that brings `answer` to `asker` by UDP.
pub(super) fn datagram(asker: &Asker, answer: &[u8], frame: &mut Vec<u8>) {
    let udp = UdpRepr { src_port: DNS, dst_port: asker.from.port() };
    let caps = ChecksumCapabilities::default();
    let payload_len = UDP_LEN + answer.len();
    let (from, to) = (IpAddress::from(asker.service), IpAddress::from(asker.from.ip()));
    let emit = |payload: &mut [u8]| {
        let mut packet = UdpPacket::new_unchecked(payload);
        udp.emit(&mut packet, &from, &to, answer.len(), |bytes| bytes.copy_from_slice(answer), &caps);
    };
    match (asker.service, asker.from.ip()) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let next_header = IpProtocol::Udp;
            let ip = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
            let packet = begin(frame, asker.mac, asker.vni, true, ip.buffer_len() + payload_len);
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut *packet), &caps);
            emit(&mut packet[ip.buffer_len()..]);
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let next_header = IpProtocol::Udp;
            let ip = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
            let packet = begin(frame, asker.mac, asker.vni, false, ip.buffer_len() + payload_len);
            ip.emit(&mut Ipv6Packet::new_unchecked(&mut *packet));
            emit(&mut packet[ip.buffer_len()..]);
        }
        // Nobody asks across families.
        _ => frame.clear(),
    }
}
