//! How a box answers those who look for a MAC address: ARP (RFC 826) and neighbour discovery (RFC 4861 §7.2).

use crate::wire::ethernet::{ARP, Frame, IPV6, Mac};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr,
    NdiscNeighborFlags, NdiscRepr,
};
use std::net::IpAddr;

/// A question for somebody's MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    asker: Mac,
    /// Who asks.
    pub(super) from: IpAddr,
    /// Whose address is wanted.
    pub(super) wanted: IpAddr,
}

impl Question {
    /// The question in a frame; `None` when there is none, or when it only asks whether an address is free.
    pub(super) fn read(frame: Frame<'_>) -> Option<Self> {
        let asker = frame.source();
        match frame.ethertype() {
            ARP => {
                let arp = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()?;
                let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } = arp else {
                    return None;
                };
                let (from, wanted) = (source_protocol_addr, target_protocol_addr);
                let asks = operation == ArpOperation::Request && !from.is_unspecified() && from != wanted;
                asks.then(|| Self { asker, from: from.into(), wanted: wanted.into() })
            }
            IPV6 => {
                let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
                let from = packet.src_addr();
                if packet.next_header() != IpProtocol::Icmpv6 || from.is_unspecified() {
                    return None;
                }
                let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
                let to = packet.dst_addr();
                match Icmpv6Repr::parse(&from, &to, &icmp, &ChecksumCapabilities::default()).ok()? {
                    Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) => {
                        Some(Self { asker, from: from.into(), wanted: target_addr.into() })
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The frame that says: it is at `mac`.
    pub(super) fn answer(&self, mac: Mac) -> Option<Vec<u8>> {
        let header = |ethertype: u16| {
            let mut frame = [self.asker.0, mac.0].concat();
            frame.extend(ethertype.to_be_bytes());
            frame
        };
        match (self.from, self.wanted) {
            (IpAddr::V4(from), IpAddr::V4(wanted)) => {
                let arp = ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Reply,
                    source_hardware_addr: EthernetAddress(mac.0),
                    source_protocol_addr: wanted,
                    target_hardware_addr: EthernetAddress(self.asker.0),
                    target_protocol_addr: from,
                };
                let mut payload = vec![0; arp.buffer_len()];
                arp.emit(&mut ArpPacket::new_unchecked(&mut payload));
                Some([header(ARP), payload].concat())
            }
            (IpAddr::V6(from), IpAddr::V6(wanted)) => {
                let flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
                let lladdr = Some(EthernetAddress(mac.0).into());
                let icmp = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr: wanted, lladdr });
                let ip = Ipv6Repr {
                    src_addr: wanted,
                    dst_addr: from,
                    next_header: IpProtocol::Icmpv6,
                    payload_len: icmp.buffer_len(),
                    // Proves that no router forwarded it (RFC 4861 §7.1.2).
                    hop_limit: 255,
                };
                let mut payload = vec![0; ip.buffer_len() + ip.payload_len];
                let mut packet = Ipv6Packet::new_unchecked(&mut payload);
                ip.emit(&mut packet);
                let mut inner = Icmpv6Packet::new_unchecked(packet.payload_mut());
                icmp.emit(&ip.src_addr, &ip.dst_addr, &mut inner, &ChecksumCapabilities::default());
                Some([header(IPV6), payload].concat())
            }
            _ => None,
        }
    }
}
