//! Who has this address? ARP requests (RFC 826) and IPv6 neighbour solicitations (RFC 4861 §4.3), and their answers.
//!
//! A switch that knows the answer gives it and spares everybody else the question (RFC 9161). What it must understand of a
//! question is little: who asks, for what, and whether the asker has an address yet. One that has none is *probing* whether
//! the address it wants is taken (RFC 5227 §2.1.1, RFC 4862 §5.4.2), and an answer tells it so.
//!
//! Only questions that are right in every field are recognised: untagged, with the sender's address in the frame equal to
//! that inside, the hop limit of a packet that no router forwarded, a good checksum. Anything else is no question and goes
//! where frames go. An answer is made in an array: nothing is allocated.

use super::checksum;
use super::ethernet::{ARP, Frame, HEADER_LEN, IPV6, Mac};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All nodes on the link (RFC 4291 §2.7.1), and its Ethernet address (RFC 2464 §7).
const ALL_NODES: (Ipv6Addr, Mac) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Mac([0x33, 0x33, 0, 0, 0, 1]));
/// Proves that no router forwarded it (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
/// Ethernet, IPv6, neighbour advertisement, one option: the longest answer.
const LONGEST: usize = 86;
/// The longest question that is looked at: a solicitation with a nonce (RFC 7527) and room for an option more. Larger
/// frames are data.
const LONGEST_QUESTION: usize = 128;
const IPV6_LEN: usize = 40;
const ICMPV6: u8 = 58;
/// A solicitation in front of its options.
const SOLICITATION_LEN: usize = 24;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Where the next header is in an untagged IPv6 frame, and the ICMPv6 type behind a header without extensions.
const NEXT_HEADER: usize = HEADER_LEN + 6;
const ICMPV6_TYPE: usize = HEADER_LEN + IPV6_LEN;

/// A question for the MAC address behind an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub asker: Mac,
    /// The asker's own address of the target's family; unspecified if it only probes whether the target is taken.
    pub asker_address: IpAddr,
    /// What it asks for. Equal to its own address when it announces that (RFC 5227 §2.3).
    pub target: IpAddr,
    /// Whom it asks: a group, or one station to see whether it is still there.
    pub asked: Mac,
}

/// The answer to a question: a frame.
pub struct Answer {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Answer {
    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The question that a frame asks, if it is one.
pub fn question(frame: &[u8]) -> Option<Question> {
    // Asked of every frame: nearly all are data, and that their length tells.
    if frame.len() > LONGEST_QUESTION {
        return None;
    }
    let view = Frame::parse(frame).ok().filter(|view| view.payload_offset() == HEADER_LEN)?;
    let is_solicitation =
        || frame.get(NEXT_HEADER) == Some(&ICMPV6) && frame.get(ICMPV6_TYPE) == Some(&NEIGHBOUR_SOLICITATION);
    match view.ethertype() {
        ARP => arp_question(&view),
        IPV6 if is_solicitation() => solicitation(&view),
        _ => None,
    }
}

fn arp_question(view: &Frame<'_>) -> Option<Question> {
    let packet = ArpPacket::new_checked(view.payload()).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let asker = Mac(source_hardware_addr.0);
    (asker == view.source()).then_some(Question {
        asker,
        asker_address: source_protocol_addr.into(),
        target: target_protocol_addr.into(),
        asked: view.destination(),
    })
}

/// Read by hand: options that nobody checked are no place for a library's surprises.
fn solicitation(view: &Frame<'_>) -> Option<Question> {
    let (ip, rest) = view.payload().split_first_chunk::<IPV6_LEN>()?;
    let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let message = rest.get(..length)?;
    let (header, mut options) = message.split_first_chunk::<SOLICITATION_LEN>()?;
    let pseudo = checksum::sum(u64::from(ICMPV6) + length as u64, &ip[8..]);
    if ip[0] >> 4 != 6 || ip[7] != HOP_LIMIT || header[1] != 0 || !checksum::verifies(pseudo, message) {
        return None;
    }
    let address = |bytes: &[u8]| bytes.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
    let (asker_address, target) = (address(&ip[8..])?, address(&header[8..])?);
    let asker = view.source();
    while let Some((&kind, &eighths)) = options.first().zip(options.get(1)) {
        let (option, rest) = options.split_at_checked(usize::from(eighths) * 8).filter(|_| eighths > 0)?;
        // A probe has no link-layer address to tell, everybody else the frame's own (RFC 4861 §7.1.1).
        let tells_right = option.get(2..8) == Some(&asker.0) && !asker_address.is_unspecified();
        if kind == SOURCE_LINK_LAYER_ADDRESS && !tells_right {
            return None;
        }
        options = rest;
    }
    let fits = options.is_empty() && !target.is_multicast() && !asker_address.is_multicast();
    fits.then_some(Question {
        asker,
        asker_address: asker_address.into(),
        target: target.into(),
        asked: view.destination(),
    })
}

impl Question {
    /// Whether the asker has no address and wants to know if it may have this one.
    pub fn is_probe(&self) -> bool {
        self.asker_address.is_unspecified()
    }

    /// The answer that `mac` has the target, as `mac` itself would give it. `None` never comes of a question that was read
    /// from a frame.
    pub fn answer(&self, mac: Mac) -> Option<Answer> {
        self.answer_with(mac, NdiscNeighborFlags::empty())
    }

    /// The same of a `mac` that is a router: IPv6 gives up a way out through a neighbour that says it is none (RFC 4861 §7.2.5).
    pub fn answer_of_router(&self, mac: Mac) -> Option<Answer> {
        self.answer_with(mac, NdiscNeighborFlags::ROUTER)
    }

    fn answer_with(&self, mac: Mac, flags: NdiscNeighborFlags) -> Option<Answer> {
        match (self.target, self.asker_address) {
            (IpAddr::V4(target), IpAddr::V4(asker)) => Some(self.arp_reply(mac, target, asker)),
            (IpAddr::V6(target), IpAddr::V6(asker)) => Some(self.advertisement(mac, target, asker, flags)),
            _ => None,
        }
    }

    fn arp_reply(&self, mac: Mac, target: Ipv4Addr, asker: Ipv4Addr) -> Answer {
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(mac.0),
            source_protocol_addr: target,
            target_hardware_addr: EthernetAddress(self.asker.0),
            target_protocol_addr: asker,
        };
        frame(mac, self.asker, EthernetProtocol::Arp, reply.buffer_len(), |payload| {
            reply.emit(&mut ArpPacket::new_unchecked(payload));
        })
    }

    fn advertisement(&self, mac: Mac, target: Ipv6Addr, asker: Ipv6Addr, flags: NdiscNeighborFlags) -> Answer {
        // Nobody can be addressed who has no address: all nodes are, and it counts as unsolicited (RFC 4861 §7.2.4).
        let flags = flags | NdiscNeighborFlags::OVERRIDE;
        let (flags, (to, to_mac)) = match self.is_probe() {
            true => (flags, ALL_NODES),
            false => (flags | NdiscNeighborFlags::SOLICITED, (asker, self.asker)),
        };
        let lladdr = Some(EthernetAddress(mac.0).into());
        let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr });
        let ip = Ipv6Repr {
            src_addr: target,
            dst_addr: to,
            next_header: IpProtocol::Icmpv6,
            payload_len: advertisement.buffer_len(),
            hop_limit: HOP_LIMIT,
        };
        frame(mac, to_mac, EthernetProtocol::Ipv6, ip.buffer_len() + ip.payload_len, |payload| {
            let mut packet = Ipv6Packet::new_unchecked(payload);
            ip.emit(&mut packet);
            let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
            advertisement.emit(&ip.src_addr, &ip.dst_addr, &mut icmp, &ChecksumCapabilities::default());
        })
    }
}

/// A frame with `len` bytes of payload that `emit` writes.
fn frame(from: Mac, to: Mac, ethertype: EthernetProtocol, len: usize, emit: impl FnOnce(&mut [u8])) -> Answer {
    let mut answer = Answer { bytes: [0; LONGEST], len: HEADER_LEN + len };
    let mut frame = EthernetFrame::new_unchecked(&mut answer.bytes[..HEADER_LEN + len]);
    EthernetRepr { src_addr: EthernetAddress(from.0), dst_addr: EthernetAddress(to.0), ethertype }.emit(&mut frame);
    emit(frame.payload_mut());
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::announce::{gratuitous_arp, unsolicited_advertisement};
    use crate::wire::testing::naive_sum;
    use proptest::prelude::*;

    const ASKER: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OWNER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const ASKER_V6: [u8; 16] = [0xfd, 0, 0, 0x32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const TARGET_V6: [u8; 16] = [0xfd, 0, 0, 0x32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    #[rustfmt::skip]
    const REQUEST: [u8; 42] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06,
        0, 1, 0x08, 0, 6, 4, 0, 1,
        2, 0, 0, 0, 0, 1, 10, 32, 0, 1,
        0, 0, 0, 0, 0, 0, 10, 32, 0, 2,
    ];

    fn solicit(source: [u8; 16], options: &[u8]) -> Vec<u8> {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(TARGET_V6);
        message.extend(options);
        let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2];
        group[15] = TARGET_V6[15];
        let addresses = [source, group].concat();
        let sum = !naive_sum(58 + message.len() as u64 + u64::from(naive_sum(0, &addresses)), &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
        frame.extend(addresses);
        frame.extend(message);
        frame
    }

    #[test]
    fn an_arp_request_is_answered_as_the_owner_would() {
        let question = question(&REQUEST).unwrap();
        assert_eq!(question.target, IpAddr::from([10, 32, 0, 2]));
        assert!(!question.is_probe());
        #[rustfmt::skip]
        let expected = [
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 2,
            2, 0, 0, 0, 0, 2, 10, 32, 0, 2,
            2, 0, 0, 0, 0, 1, 10, 32, 0, 1,
        ];
        assert_eq!(question.answer(OWNER).unwrap().bytes(), expected);
    }

    #[test]
    fn a_solicitation_is_answered_as_the_owner_would() {
        let question = question(&solicit(ASKER_V6, &[1, 1, 2, 0, 0, 0, 0, 1])).unwrap();
        assert_eq!((question.asker, question.target), (ASKER, IpAddr::from(TARGET_V6)));
        let answer = question.answer(OWNER).unwrap();
        let frame = answer.bytes();
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd]);
        assert_eq!((&frame[22..38], &frame[38..54]), (&TARGET_V6[..], &ASKER_V6[..]));
        assert_eq!((frame[21], frame[54], frame[58]), (255, 136, 0x60), "hop limit, type, solicited and override");
        assert_eq!(frame[62..78], TARGET_V6);
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 2]);
        assert_eq!(naive_sum(32 + 58 + u64::from(naive_sum(0, &frame[22..54])), &frame[54..]), 0xffff);
        let of_router = question.answer_of_router(OWNER).unwrap();
        assert_eq!(of_router.bytes()[58], 0xe0, "router, solicited and override");
    }

    #[test]
    fn a_probe_for_a_taken_address_is_told_so() {
        let mut probe = REQUEST;
        probe[28..32].fill(0);
        let asked = question(&probe).unwrap();
        assert!(asked.is_probe());
        assert_eq!(asked.answer(OWNER).unwrap().bytes()[..6], ASKER.0);

        // With a nonce, as Linux sends it (RFC 7527).
        let asked = question(&solicit([0; 16], &[14, 1, 1, 2, 3, 4, 5, 6])).unwrap();
        assert!(asked.is_probe());
        let answer = asked.answer(OWNER).unwrap();
        assert_eq!(answer.bytes()[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(answer.bytes()[38..54], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(answer.bytes()[58], 0x20, "override, not solicited");
    }

    #[test]
    fn what_is_not_right_in_every_field_is_no_question() {
        let good = solicit(ASKER_V6, &[1, 1, 2, 0, 0, 0, 0, 1]);
        assert!(question(&good).is_some());
        for at in [14, 18, 20, 21, 54, 55, 56, 60, 62, 78, 79, 85] {
            let mut bad = good.clone();
            bad[at] ^= 0x80;
            assert_eq!(question(&bad), None, "byte {at}");
        }
        assert_eq!(question(&solicit(ASKER_V6, &[1, 1, 2, 0, 0, 0, 0, 9])), None, "somebody else's address");
        assert_eq!(question(&solicit([0; 16], &[1, 1, 2, 0, 0, 0, 0, 1])), None, "a probe with an address");
        assert_eq!(question(&solicit(ASKER_V6, &[1, 0])), None, "an option of no length");
        for (at, what) in [(11, "the frame's source"), (21, "a reply"), (17, "a protocol"), (18, "a length")] {
            let mut bad = REQUEST;
            bad[at] ^= 7;
            assert_eq!(question(&bad), None, "{what}");
        }
        let mut tagged = REQUEST.to_vec();
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(question(&tagged), None);
        assert_eq!(question(&unsolicited_advertisement(ASKER, TARGET_V6.into())), None);
        let claim = question(&gratuitous_arp(ASKER, [10, 32, 0, 2].into())).unwrap();
        assert_eq!(claim.asker_address, claim.target);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            kind in 0usize..3, at in 0usize..100, cut in 0usize..100, bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let base = [REQUEST.to_vec(), solicit(ASKER_V6, &[1, 1, 2, 0, 0, 0, 0, 1]), Vec::new()];
            let mut frame = base[kind].clone();
            let at = at.min(frame.len());
            frame.splice(at..at, bytes);
            frame.truncate(cut + 20);
            if let Some(question) = question(&frame) {
                let _ = question.answer(OWNER);
            }
        }
    }
}
