//! The service address as any host: it answers a ping, refuses ports on which nobody listens, and says when there is no way out.
//!
//! smoltcp's interface without a socket does the former two. It keeps nothing of one packet to the next.

use super::packet::HOP_LIMIT;
use super::wire::{Wire, instant, interface, set_address};
use crate::switch::service::Service;
use crate::wire::ethernet::Mac;
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr};
use std::net::IpAddr;
use std::time::Duration;

/// The longest packet that is answered: what the largest MTU of a port lets through.
const MTU: u16 = crate::wire::MAX_PORT_MTU;
/// How much of a packet comes back with the news that it has nowhere to go: what fits the smallest packet that every IPv4 host
/// takes (RFC 1812 §4.3.2.3), and IPv6's is larger.
const RETURNED: usize = 576 - 20 - 8;

/// See the head of this file.
pub(super) struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
}

impl Host {
    pub(super) fn new(now: Duration, random: u64) -> Self {
        let mut wire = Wire::new(MTU);
        let interface = interface(now, random, &mut wire);
        Self { interface, sockets: SocketSet::new(Vec::new()), wire }
    }

    /// A packet for the service address came from this station; what answers it.
    pub(super) fn input(
        &mut self,
        now: Duration,
        (vni, mac): (u32, Mac),
        service: IpAddr,
        packet: &[u8],
    ) -> impl Iterator<Item = Vec<u8>> {
        set_address(&mut self.interface, service);
        self.wire.is_of(vni, mac);
        self.wire.put(packet);
        self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
        self.wire.take()
    }
}

/// The packet that tells a sender that its own found no way out of its network; `None` for those that nobody is told of: errors
/// about errors never end.
pub(super) fn unreachable(service: Service, source: IpAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let caps = ChecksumCapabilities::default();
    let hop_limit = HOP_LIMIT;
    match source {
        IpAddr::V4(dst_addr) => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let is_error = ip.next_header() == IpProtocol::Icmp && ip.payload().first().is_none_or(|&kind| kind != 8);
            let src_addr = service.v4.filter(|_| !is_error)?;
            // Destination unreachable, net unreachable (RFC 792).
            let mut message = [&[3, 0, 0, 0, 0, 0, 0, 0][..], &packet[..packet.len().min(RETURNED)]].concat();
            Icmpv4Packet::new_unchecked(&mut message[..]).fill_checksum();
            let (next_header, payload_len) = (IpProtocol::Icmp, message.len());
            let ip = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
            let mut bytes = vec![0; ip.buffer_len()];
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &caps);
            bytes.append(&mut message);
            Some(bytes)
        }
        IpAddr::V6(dst_addr) => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            let is_error =
                ip.next_header() == IpProtocol::Icmpv6 && ip.payload().first().is_none_or(|kind| kind >> 7 == 0);
            let src_addr = service.v6.filter(|_| !is_error)?;
            // Destination unreachable, no route (RFC 4443 §3.1).
            let mut message = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &packet[..packet.len().min(RETURNED)]].concat();
            Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&src_addr, &dst_addr);
            let (next_header, payload_len) = (IpProtocol::Icmpv6, message.len());
            let ip = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
            let mut bytes = vec![0; ip.buffer_len()];
            ip.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[..]));
            bytes.append(&mut message);
            Some(bytes)
        }
    }
}
