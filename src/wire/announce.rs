//! Frames by which a port announces where its addresses are, so that neighbours and switches that remember another
//! place learn at once: a gratuitous ARP for IPv4, an unsolicited neighbor advertisement for IPv6.

use super::ethernet::Mac;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All nodes on the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Its Ethernet address (RFC 2464 §7).
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// The announcement of an address of either family.
pub fn of(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(mac, address),
        IpAddr::V6(address) => unsolicited_advertisement(mac, address),
    }
}

/// An ARP announcement (RFC 5227 §2.3): a broadcast request for the sender's own address. 42 bytes.
pub fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(mac.0),
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    ethernet(mac, Mac::BROADCAST, EthernetProtocol::Arp, arp.buffer_len(), |payload| {
        arp.emit(&mut ArpPacket::new_unchecked(payload));
    })
}

/// An unsolicited neighbor advertisement (RFC 4861 §7.2.6) to all nodes, with the override flag and the target's
/// link-layer address. 86 bytes.
pub fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: address,
        lladdr: Some(EthernetAddress(mac.0).into()),
    });
    let ip = Ipv6Repr {
        src_addr: address,
        dst_addr: ALL_NODES,
        next_header: IpProtocol::Icmpv6,
        payload_len: advertisement.buffer_len(),
        // Proves that no router forwarded it (RFC 4861 §7.1.2).
        hop_limit: 255,
    };
    let len = ip.buffer_len() + ip.payload_len;
    ethernet(mac, ALL_NODES_MAC, EthernetProtocol::Ipv6, len, |payload| {
        let mut packet = Ipv6Packet::new_unchecked(payload);
        ip.emit(&mut packet);
        let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
        advertisement.emit(&ip.src_addr, &ip.dst_addr, &mut icmp, &ChecksumCapabilities::default());
    })
}

/// A frame with `len` bytes of payload that `emit` writes.
fn ethernet(from: Mac, to: Mac, ethertype: EthernetProtocol, len: usize, emit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; EthernetFrame::<&[u8]>::buffer_len(len)];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    let header = EthernetRepr { src_addr: EthernetAddress(from.0), dst_addr: EthernetAddress(to.0), ethertype };
    header.emit(&mut frame);
    emit(frame.payload_mut());
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::testing::naive_sum;

    const MAC: Mac = Mac([0x02, 0x42, 0x0a, 0x20, 0x00, 0x05]);

    #[test]
    fn a_gratuitous_arp_asks_everybody_for_its_own_address() {
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x42, 0x0a, 0x20, 0x00, 0x05, 0x08, 0x06,
            0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x01,                // Ethernet, IPv4, request
            0x02, 0x42, 0x0a, 0x20, 0x00, 0x05, 10, 32, 0, 5,        // sender
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 10, 32, 0, 5,        // target
        ];
        assert_eq!(gratuitous_arp(MAC, Ipv4Addr::new(10, 32, 0, 5)), expected);
    }

    #[test]
    fn an_unsolicited_advertisement_overrides_what_all_nodes_remember() {
        let address: Ipv6Addr = "fd00:32::5".parse().unwrap();
        let frame = unsolicited_advertisement(MAC, address);
        #[rustfmt::skip]
        let before_checksum = [
            0x33, 0x33, 0x00, 0x00, 0x00, 0x01, 0x02, 0x42, 0x0a, 0x20, 0x00, 0x05, 0x86, 0xdd,
            0x60, 0x00, 0x00, 0x00, 0x00, 0x20, 58, 255,             // 32 bytes of ICMPv6
            0xfd, 0x00, 0x00, 0x32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5,
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            136, 0,                                                  // neighbor advertisement
        ];
        #[rustfmt::skip]
        let behind_checksum = [
            0x20, 0x00, 0x00, 0x00,                                  // override
            0xfd, 0x00, 0x00, 0x32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5,
            2, 1, 0x02, 0x42, 0x0a, 0x20, 0x00, 0x05,                // target link-layer address
        ];
        assert_eq!(frame[..56], before_checksum);
        assert_eq!(frame[58..], behind_checksum);
        let pseudo = u64::from(naive_sum(32 + 58, &frame[22..54]));
        assert_eq!(naive_sum(pseudo, &frame[54..]), 0xffff);
    }
}
