//! What a tunnel carries: an Ethernet frame in VXLAN (RFC 7348) in UDP in IPv4, or in UDP a message of the mesh, or a
//! datagram of a pair of members on its way through others.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+-------------------------------+
//! |   4   |   5   |       0       |         total length          |   IPv4, 20 bytes. DF is clear: a packet larger
//! +-------+-------+---------------+-----+-------------------------+   than the path is fragmented in the tunnel.
//! |        identification         |  0  |            0            |
//! +---------------+---------------+-----+-------------------------+
//! |      64       |      17       |        header checksum        |
//! +---------------+---------------+-------------------------------+
//! |              source: the sender's tunnel address              |
//! +---------------------------------------------------------------+
//! |          destination: the receiver's tunnel address           |
//! +-------------------------------+-------------------------------+
//! |     49152 + hash of flow      |             4789              |   UDP, 8 bytes. The checksum is zero (RFC 7348 §5):
//! +-------------------------------+-------------------------------+   WireGuard's tag protects every byte.
//! |          UDP length           |               0               |
//! +-+-+-+-+-+-+-+-+-+-+-+---------+-------------------------------+
//! |R|R|R|R|I|R|R|R|R|R|C|             0                           |   VXLAN, 8 bytes. I: the VNI is valid.
//! +-+-+-+-+-+-+-+-+-+-+-+---------+---------------+-+-------------+
//! |                      VNI                      |O|  start / 2  |   only with C: the frame's L4 checksum is partial
//! +-----------------------------------------------+-+-------------+
//! |  Ethernet frame without FCS ...
//! ```
//!
//! C, O and start are the remote checksum offload of Linux's VXLAN (`remcsumtx`/`remcsumrx`, include/net/vxlan.h):
//! the sum starts `start` bytes into the frame, its field is 6 bytes further for UDP (O set), 16 for TCP. It is sent
//! only to peers that said they understand it. To anybody else those bits are reserved, sent as zero.

use super::ethernet::HEADER_LEN;
use super::vnet::{PartialChecksum, TCP_CHECKSUM, UDP_CHECKSUM};
use super::{INNER_OVERHEAD, MESH_PORT, Malformed, RELAY_PORT, VXLAN_PORT, checksum};
use std::net::Ipv4Addr;
use std::ops::Range;

/// An IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// A UDP header.
pub const UDP_LEN: usize = 8;
/// What relaying adds in front of a datagram.
pub const RELAY_OVERHEAD: usize = IPV4_LEN + UDP_LEN;
/// A VXLAN header.
pub const VXLAN_LEN: usize = 8;

/// The I flag, in the first word.
const VNI_VALID: u32 = 0x0800_0000;
/// `VXLAN_HF_RCO`, in the first word.
const REMOTE_CHECKSUM: u32 = 0x0020_0000;
/// `VXLAN_RCO_UDP`, in the second word.
const REMOTE_CHECKSUM_UDP: u32 = 0x80;
/// `VXLAN_RCO_MASK`, in the second word: half the start.
const REMOTE_CHECKSUM_START: u32 = 0x7f;
/// The shortest headers before an L4 header: Ethernet and IPv4. A sum that starts earlier would let a peer have us
/// rewrite addresses we already looked at.
const MIN_START: usize = HEADER_LEN + IPV4_LEN;
/// First port of the dynamic range RFC 7348 §5 recommends for the UDP source.
const FIRST_SOURCE_PORT: u16 = 49_152;
/// TTL of what is for the member that it is sent to.
pub(super) const TTL: u8 = 64;
const UDP: u8 = 17;

/// A packet out of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Tunnel address of the sender, as the packet has it.
    pub source: Ipv4Addr,
    /// Tunnel address it is meant for.
    pub destination: Ipv4Addr,
    /// Its length: what is behind is padding.
    pub len: usize,
    /// What it carries.
    pub payload: Payload,
}

/// What a packet carries. Ranges are in the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// An Ethernet frame.
    Frame {
        /// The network.
        vni: u32,
        /// The frame's L4 checksum is partial; its field lies within the frame.
        partial: Option<PartialChecksum>,
        /// Where the frame is.
        range: Range<usize>,
    },
    /// A message of the mesh: the UDP payload.
    Message(Range<usize>),
    /// A datagram of a pair of members: the UDP payload.
    Relayed(Range<usize>),
    /// Part of a packet, for the reassembler.
    Fragment,
    /// Something else that is valid IPv4.
    Other,
}

/// Whether VXLAN has room to say that this checksum is partial.
pub fn can_signal(partial: PartialChecksum) -> bool {
    let PartialChecksum { start, offset } = partial;
    start.is_multiple_of(2)
        && u32::from(start / 2) <= REMOTE_CHECKSUM_START
        && matches!(offset, TCP_CHECKSUM | UDP_CHECKSUM)
}

/// Writes the headers in front of a frame of `frame_len` bytes. `identification` tells this packet from others of
/// the same pair while its fragments travel; `flow` is any value that is the same for all frames of a flow;
/// `partial` must be one that [`can_signal`] accepts.
///
/// # Panics
/// When `header` is not [`INNER_OVERHEAD`] bytes long.
#[expect(clippy::too_many_arguments, reason = "they are the fields of the header, each used once")]
pub fn emit(
    header: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
    vni: u32,
    flow: u16,
    partial: Option<PartialChecksum>,
    frame_len: usize,
) {
    debug_assert!(partial.is_none_or(can_signal), "{partial:?} cannot be signalled");
    let (envelope, vxlan) = header.split_at_mut(IPV4_LEN + UDP_LEN);
    let ports = (FIRST_SOURCE_PORT | flow, VXLAN_PORT);
    emit_envelope(envelope, source, destination, identification, TTL, ports, VXLAN_LEN + frame_len);
    let (mut first, mut second) = (VNI_VALID, vni << 8);
    if let Some(PartialChecksum { start, offset }) = partial.filter(|&partial| can_signal(partial)) {
        first |= REMOTE_CHECKSUM;
        second |= u32::from(start / 2);
        if offset == UDP_CHECKSUM {
            second |= REMOTE_CHECKSUM_UDP;
        }
    }
    let [a, b, c, d] = first.to_be_bytes();
    let [e, f, g, h] = second.to_be_bytes();
    vxlan.copy_from_slice(&[a, b, c, d, e, f, g, h]);
}

/// Writes the IPv4 and UDP headers (28 bytes) in front of `len` bytes of UDP payload.
pub(super) fn emit_envelope(
    header: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
    ttl: u8,
    ports: (u16, u16),
    len: usize,
) {
    let (ip, udp) = header.split_at_mut(IPV4_LEN);
    let total = (IPV4_LEN + UDP_LEN + len) as u16;
    ip.fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[4..6].copy_from_slice(&identification.to_be_bytes());
    ip[8] = ttl;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    checksum::finish_ipv4(ip);
    udp[0..2].copy_from_slice(&ports.0.to_be_bytes());
    udp[2..4].copy_from_slice(&ports.1.to_be_bytes());
    udp[4..6].copy_from_slice(&((UDP_LEN + len) as u16).to_be_bytes());
    udp[6..8].fill(0);
}

/// Writes the headers ([`RELAY_OVERHEAD`] bytes) in front of a datagram of `len` bytes that other members pass on.
///
/// # Panics
/// When `header` is not [`RELAY_OVERHEAD`] bytes long.
pub fn emit_relayed(
    header: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
    ttl: u8,
    len: usize,
) {
    emit_envelope(header, source, destination, identification, ttl, (RELAY_PORT, RELAY_PORT), len);
}

/// Source and destination of a packet that [`parse`] took.
pub fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let [.., a, b, c, d, e, f, g, h] = *packet.first_chunk::<IPV4_LEN>()?;
    Some((Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h)))
}

/// Takes one from the TTL of a packet that [`parse`] took; returns whether it may be passed on. Options are no part of
/// packets that may.
pub fn decrement_ttl(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<IPV4_LEN>() else { return false };
    if header[0] != 0x45 || header[8] <= 1 {
        return false;
    }
    header[8] -= 1;
    checksum::finish_ipv4(header);
    true
}

/// The fields of an IPv4 header that was checked: version, lengths, header checksum.
pub(super) struct Ipv4Header {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) identification: u16,
    pub(super) protocol: u8,
    /// Where what follows the header begins in its packet, in bytes.
    pub(super) fragment_offset: usize,
    pub(super) more_fragments: bool,
    /// The payload of this packet or fragment, in the bytes that were given.
    pub(super) payload: Range<usize>,
}

impl Ipv4Header {
    /// Checks the header. Bytes behind the packet's end are allowed (WireGuard pads) and ignored.
    pub(super) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let header = packet.first_chunk::<IPV4_LEN>().ok_or(Malformed)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(word(2));
        if header[0] >> 4 != 4 || header_len < IPV4_LEN || total < header_len || total > packet.len() {
            return Err(Malformed);
        }
        if !checksum::verifies(0, &packet[..header_len]) {
            return Err(Malformed);
        }
        let [.., a, b, c, d, e, f, g, h] = *header;
        Ok(Self {
            source: Ipv4Addr::new(a, b, c, d),
            destination: Ipv4Addr::new(e, f, g, h),
            identification: word(4),
            protocol: header[9],
            fragment_offset: usize::from(word(6) & 0x1fff) * 8,
            more_fragments: word(6) & 0x2000 != 0,
            payload: header_len..total,
        })
    }
}

/// Reads a packet out of a tunnel. A UDP checksum, should there be one, is not verified: the tag did more.
///
/// # Errors
/// [`Malformed`] when it is not valid IPv4, or is UDP for one of our ports and not valid there.
pub fn parse(packet: &[u8]) -> Result<Packet, Malformed> {
    let ip = Ipv4Header::parse(packet)?;
    let len = ip.payload.end;
    let payload = if ip.more_fragments || ip.fragment_offset != 0 {
        Payload::Fragment
    } else if ip.protocol == UDP {
        parse_udp(packet, ip.payload)?
    } else {
        Payload::Other
    };
    Ok(Packet { source: ip.source, destination: ip.destination, len, payload })
}

/// The UDP port that a packet which was not checked yet is for, if it is neither a fragment nor has options.
pub fn destination_port(packet: &[u8]) -> Option<u16> {
    let header = packet.first_chunk::<{ IPV4_LEN + UDP_LEN }>()?;
    let plain = header[0] == 0x45 && header[6] & 0x3f == 0 && header[7] == 0 && header[9] == UDP;
    plain.then(|| u16::from_be_bytes([header[22], header[23]]))
}

fn parse_udp(packet: &[u8], at: Range<usize>) -> Result<Payload, Malformed> {
    let header = packet[at.clone()].first_chunk::<UDP_LEN>().ok_or(Malformed)?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if len < UDP_LEN || len > at.len() {
        return Err(Malformed);
    }
    let payload = at.start + UDP_LEN..at.start + len;
    match u16::from_be_bytes([header[2], header[3]]) {
        VXLAN_PORT => parse_vxlan(packet, payload),
        MESH_PORT => Ok(Payload::Message(payload)),
        RELAY_PORT => Ok(Payload::Relayed(payload)),
        _ => Ok(Payload::Other),
    }
}

/// Bits other than I and C are other extensions' or reserved, and ignored (RFC 7348 §5).
fn parse_vxlan(packet: &[u8], at: Range<usize>) -> Result<Payload, Malformed> {
    let [a, b, c, d, e, f, g, h] = *packet[at.clone()].first_chunk::<VXLAN_LEN>().ok_or(Malformed)?;
    let (first, second) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    if first & VNI_VALID == 0 {
        return Err(Malformed);
    }
    let range = at.start + VXLAN_LEN..at.end;
    let partial = (first & REMOTE_CHECKSUM != 0).then(|| PartialChecksum {
        start: (second & REMOTE_CHECKSUM_START) as u16 * 2,
        offset: if second & REMOTE_CHECKSUM_UDP != 0 { UDP_CHECKSUM } else { TCP_CHECKSUM },
    });
    if let Some(PartialChecksum { start, offset }) = partial
        && (usize::from(start) < MIN_START || usize::from(start + offset) + 2 > range.len())
    {
        return Err(Malformed);
    }
    Ok(Payload::Frame { vni: second >> 8, partial, range })
}

const _: () = assert!(INNER_OVERHEAD == IPV4_LEN + UDP_LEN + VXLAN_LEN);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::MAX_FRAME;
    use proptest::prelude::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

    fn packet(partial: Option<PartialChecksum>, frame: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xee; INNER_OVERHEAD];
        emit(&mut packet, SOURCE, DESTINATION, 0x1234, 0x00ab_cdef, 0x0042, partial, frame.len());
        packet.extend(frame);
        packet
    }

    #[test]
    fn the_bytes_are_the_standard_ones() {
        #[rustfmt::skip]
        let expected = [
            0x45, 0x00, 0x00, 0x60,  0x12, 0x34, 0x00, 0x00,  0x40, 0x11, 0x9f, 0xd6,  // IPv4, 96 bytes in all
            100, 64, 0, 1,  100, 64, 0, 2,
            0xc0, 0x42, 0x12, 0xb5,  0x00, 0x4c, 0x00, 0x00,                           // UDP 49218 to 4789, 76 bytes
            0x08, 0x00, 0x00, 0x00,  0xab, 0xcd, 0xef, 0x00,                           // VXLAN, I, VNI 0xabcdef
        ];
        let packet = packet(None, &[0x55; 60]);
        assert_eq!(packet[..INNER_OVERHEAD], expected);
        let payload = Payload::Frame { vni: 0xab_cdef, partial: None, range: 36..96 };
        assert_eq!(
            parse(&packet),
            Ok(Packet { source: SOURCE, destination: DESTINATION, len: packet.len(), payload })
        );
    }

    #[test]
    fn a_partial_checksum_is_said_as_linux_says_it() {
        // TCP over IPv4: the sum starts at 34 = 2 * 0x11.
        let tcp = PartialChecksum { start: 34, offset: 16 };
        assert_eq!(packet(Some(tcp), &[0; 60])[28..36], [0x08, 0x20, 0, 0, 0xab, 0xcd, 0xef, 0x11]);
        // UDP over IPv6: the sum starts at 54 = 2 * 0x1b.
        let udp = PartialChecksum { start: 54, offset: 6 };
        assert_eq!(packet(Some(udp), &[0; 70])[28..36], [0x08, 0x20, 0, 0, 0xab, 0xcd, 0xef, 0x9b]);
    }

    #[test]
    fn only_even_starts_up_to_254_can_be_signalled() {
        let can = |start, offset| can_signal(PartialChecksum { start, offset });
        assert!(can(34, 16) && can(254, 6) && can(0, 6));
        assert!(!can(35, 16) && !can(256, 16) && !can(34, 2) && !can(u16::MAX, 16));
    }

    #[test]
    fn a_partial_checksum_outside_the_frame_is_malformed() {
        for (start, len) in [(34, 51), (32, 60), (0, 60), (254, 100)] {
            assert_eq!(parse(&packet(Some(PartialChecksum { start, offset: 16 }), &vec![0; len])), Err(Malformed));
        }
        assert!(parse(&packet(Some(PartialChecksum { start: 34, offset: 16 }), &[0; 52])).is_ok());
    }

    #[test]
    fn other_extensions_and_padding_are_ignored_but_the_vni_must_be_valid() {
        let good = packet(None, &[0; 60]);
        let mut group_policy = good.clone();
        group_policy[28..32].copy_from_slice(&[0x88, 0x40, 0x12, 0x34]);
        group_policy[35] = 0xff;
        group_policy.extend([0; 12]);
        assert_eq!(parse(&group_policy), parse(&good));
        let mut no_vni = good;
        no_vni[28] = 0xf7;
        assert_eq!(parse(&no_vni), Err(Malformed));
    }

    #[test]
    fn what_is_not_a_frame_is_told_apart() {
        let change = |changes: &[(usize, u8)]| {
            let mut packet = packet(None, &[0; 60]);
            changes.iter().for_each(|&(at, byte)| packet[at] = byte);
            checksum::finish_ipv4(&mut packet[..20]);
            parse(&packet).map(|packet| packet.payload)
        };
        assert_eq!(change(&[(22, 0x24), (23, 0x7a)]), Ok(Payload::Message(28..96)));
        assert_eq!(change(&[(23, 0xb6)]), Ok(Payload::Other));
        assert_eq!(change(&[(9, 1)]), Ok(Payload::Other));
        assert_eq!(change(&[(6, 0x20)]), Ok(Payload::Fragment));
        assert_eq!(change(&[(7, 1)]), Ok(Payload::Fragment));
        assert_eq!(change(&[(24, 0), (25, 7)]), Err(Malformed));
        assert_eq!(change(&[(25, 77)]), Err(Malformed));
        assert_eq!(change(&[(0, 0x44)]), Err(Malformed));
        assert_eq!(change(&[(0, 0x65)]), Err(Malformed));
        assert_eq!(change(&[(3, 97)]), Err(Malformed));
        let mut corrupt = packet(None, &[0; 60]);
        corrupt[8] ^= 1;
        assert_eq!(parse(&corrupt), Err(Malformed));
    }

    #[test]
    fn ip_options_are_stepped_over() {
        let mut packet = packet(None, &[0; 60]);
        packet.splice(20..20, [1; 4]);
        packet[0] = 0x46;
        packet[3] += 4;
        checksum::finish_ipv4(&mut packet[..24]);
        assert_eq!(parse(&packet).unwrap().payload, Payload::Frame { vni: 0xab_cdef, partial: None, range: 40..100 });
    }

    #[test]
    fn a_relayed_datagram_loses_one_hop_at_a_time_and_stays_a_packet() {
        let mut packet = vec![7; RELAY_OVERHEAD + 100];
        emit_relayed(&mut packet[..RELAY_OVERHEAD], SOURCE, DESTINATION, 9, 3, 100);
        for left in [3, 2] {
            assert_eq!(packet[8], left);
            assert!(decrement_ttl(&mut packet));
            let payload = Payload::Relayed(RELAY_OVERHEAD..packet.len());
            assert_eq!(
                parse(&packet),
                Ok(Packet { source: SOURCE, destination: DESTINATION, len: packet.len(), payload })
            );
            assert_eq!(addresses(&packet), Some((SOURCE, DESTINATION)));
            assert_eq!(destination_port(&packet), Some(RELAY_PORT));
        }
        let before = packet.clone();
        assert!(!decrement_ttl(&mut packet), "the last hop");
        assert_eq!(packet, before);
        packet[8] = 0;
        assert!(!decrement_ttl(&mut packet), "none left at all");
        packet[..2].copy_from_slice(&[0x46, 0]);
        packet[8] = 9;
        assert!(!decrement_ttl(&mut packet), "options");
        assert!(!decrement_ttl(&mut packet[..19]) && addresses(&packet[..19]).is_none());
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            source: [u8; 4], destination: [u8; 4], identification: u16, vni in 0u32..1 << 24, flow: u16,
            frame_len in 52usize..MAX_FRAME, start in 17u16..=127, tcp: bool, partial: bool,
        ) {
            let (source, destination) = (source.into(), destination.into());
            let partial = PartialChecksum { start: start * 2, offset: if tcp { 16 } else { 6 } };
            let partial = (usize::from(partial.start) + 18 <= frame_len).then_some(partial);
            let mut packet = vec![0; INNER_OVERHEAD + frame_len];
            emit(&mut packet[..INNER_OVERHEAD], source, destination, identification, vni, flow, partial, frame_len);
            let payload = Payload::Frame { vni, partial, range: INNER_OVERHEAD..packet.len() };
            prop_assert_eq!(parse(&packet), Ok(Packet { source, destination, len: packet.len(), payload }));
            let port = u16::from_be_bytes([packet[20], packet[21]]);
            prop_assert!(port >= 49_152);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..150), fix: bool) {
            if fix && bytes.len() >= 60 {
                let len = bytes.len() as u16;
                bytes[0] = 0x45 | bytes[0] & 1;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[6..8].fill(0);
                bytes[9] = UDP;
                let header_len = usize::from(bytes[0] & 0xf) * 4;
                bytes[header_len + 2..header_len + 4].copy_from_slice(&VXLAN_PORT.to_be_bytes());
                checksum::finish_ipv4(&mut bytes[..header_len]);
            }
            if let Ok(Packet { payload: Payload::Frame { range, .. } | Payload::Message(range), .. }) = parse(&bytes) {
                prop_assert!(bytes.get(range).is_some());
            }
        }
    }
}
