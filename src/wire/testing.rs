//! Frames for the tests of this directory, made slowly and obviously: every header field is written out from a
//! [`Spec`], every checksum is a loop over 16-bit words. Nothing here uses the code under test.

use super::vnet::PartialChecksum;
use proptest::prelude::*;

/// RFC 1071 as it is written down.
pub(crate) fn naive_sum(initial: u64, bytes: &[u8]) -> u16 {
    let mut sum = initial;
    for word in bytes.chunks(2) {
        sum += u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

/// A TCP or UDP frame as its fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub(super) tags: Vec<[u8; 4]>,
    pub(super) v6: bool,
    pub(super) udp: bool,
    /// IPv4 options, or whole IPv6 extension headers.
    pub(super) extra: Vec<u8>,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) label: u32,
    pub(super) dont_fragment: bool,
    pub(super) id: u16,
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
    pub(super) ports: [u8; 4],
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// TCP options.
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Spec {
    /// A plain TCP segment over IPv4 with DF set.
    pub(super) fn tcp(payload: Vec<u8>) -> Self {
        Self {
            tags: Vec::new(),
            v6: false,
            udp: false,
            extra: Vec::new(),
            tos: 0,
            ttl: 64,
            label: 0,
            dont_fragment: true,
            id: 0xfffe,
            source: [10; 16],
            destination: [20; 16],
            ports: [0x30, 0x39, 0x00, 0x50],
            seq: u32::MAX - 1000,
            ack: 7,
            flags: ACK,
            window: 501,
            options: Vec::new(),
            payload,
        }
    }

    /// Offset of the IP header.
    pub(super) fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Offset of the TCP or UDP header.
    pub(super) fn l4(&self) -> usize {
        self.l3() + if self.v6 { 40 } else { 20 } + self.extra.len()
    }

    /// Offset of the payload.
    pub(super) fn header_len(&self) -> usize {
        self.l4() + if self.udp { 8 } else { 20 + self.options.len() }
    }

    pub(super) fn partial(&self) -> PartialChecksum {
        PartialChecksum { start: self.l4() as u16, offset: if self.udp { 6 } else { 16 } }
    }

    /// The frame with its L4 checksum partial.
    pub(super) fn frame_partial(&self) -> Vec<u8> {
        let mut l4 = self.ports.to_vec();
        if self.udp {
            l4.extend((8 + self.payload.len() as u16).to_be_bytes());
            l4.extend([0, 0]);
        } else {
            l4.extend(self.seq.to_be_bytes());
            l4.extend(self.ack.to_be_bytes());
            l4.extend([((5 + self.options.len() / 4) << 4) as u8, self.flags]);
            l4.extend(self.window.to_be_bytes());
            l4.extend([0; 4]);
            l4.extend(&self.options);
        }
        l4.extend(&self.payload);
        let size = if self.v6 { 16 } else { 4 };
        let protocol = if self.udp { 17 } else { 6 };
        let mut pseudo = [&self.source[..size], &self.destination[..size]].concat();
        pseudo.extend((l4.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        let offset = usize::from(self.partial().offset);
        l4[offset..offset + 2].copy_from_slice(&naive_sum(0, &pseudo).to_be_bytes());

        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        self.tags.iter().for_each(|tag| frame.extend(tag));
        if self.v6 {
            frame.extend([0x86, 0xdd]);
            frame.extend((6 << 28 | u32::from(self.tos) << 20 | self.label & 0xf_ffff).to_be_bytes());
            frame.extend(((self.extra.len() + l4.len()) as u16).to_be_bytes());
            frame.extend([if self.extra.is_empty() { protocol } else { 60 }, self.ttl]);
            frame.extend(self.source);
            frame.extend(self.destination);
            let at = frame.len();
            frame.extend(&self.extra);
            if !self.extra.is_empty() {
                frame[at] = protocol;
            }
        } else {
            frame.extend([8, 0]);
            let mut header = vec![0x45 + (self.extra.len() / 4) as u8, self.tos];
            header.extend(((20 + self.extra.len() + l4.len()) as u16).to_be_bytes());
            header.extend(self.id.to_be_bytes());
            header.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, protocol, 0, 0]);
            header.extend(&self.source[..4]);
            header.extend(&self.destination[..4]);
            header.extend(&self.extra);
            let checksum = !naive_sum(0, &header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(header);
        }
        frame.extend(l4);
        frame
    }

    /// The frame as it would be on a wire.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = self.frame_partial();
        let l4 = self.l4();
        let mut checksum = !naive_sum(0, &frame[l4..]);
        if checksum == 0 && self.udp {
            checksum = 0xffff;
        }
        let at = l4 + usize::from(self.partial().offset);
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// The frames a sender without offloads would have sent: `size` payload bytes each.
    pub(super) fn cut(&self, size: usize) -> Vec<Self> {
        let count = self.payload.len().div_ceil(size);
        let segment = |(i, chunk): (usize, &[u8])| Self {
            id: self.id.wrapping_add(i as u16),
            seq: self.seq.wrapping_add((i * size) as u32),
            flags: self.flags & !if i + 1 < count { FIN | PSH } else { 0 } & !if i > 0 { CWR } else { 0 },
            payload: chunk.to_vec(),
            ..self.clone()
        };
        self.payload.chunks(size).enumerate().map(segment).collect()
    }
}

/// Frames of both protocols over both IP versions, tagged or not, with a payload of up to `max` bytes but not none.
/// IPv4 options, IPv6 extension headers and flags besides ACK only if `odd`.
pub(super) fn spec(max: usize, odd: bool) -> impl Strategy<Value = Spec> {
    let link = (proptest::collection::vec(any::<u16>(), 0..=2), any::<bool>(), any::<bool>(), 0usize..=4);
    let ip =
        (any::<u8>(), any::<u8>(), any::<u32>(), any::<bool>(), any::<u16>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    let tcp =
        (any::<[u8; 4]>(), any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), 0usize..=10, any::<[u8; 40]>());
    let payload = (1..=max).prop_flat_map(|len| proptest::collection::vec(any::<u8>(), len));
    (link, ip, tcp, payload).prop_map(move |(link, ip, tcp, payload)| {
        let (tags, v6, udp, extra) = link;
        let (tos, ttl, label, dont_fragment, id, source, destination) = ip;
        let (ports, seq, ack, flags, window, options, option_bytes) = tcp;
        let extra = match (odd, v6) {
            (false, _) | (_, _) if extra == 0 || !odd => Vec::new(),
            // Destination options (RFC 8200 §4.6) full of Pad1, which a receiver ignores.
            (_, true) => [vec![0, extra as u8 - 1], vec![0; extra * 8 - 2]].concat(),
            // No-operation options (RFC 791).
            (_, false) => vec![1; extra * 4],
        };
        Spec {
            tags: tags.iter().map(|tci| [0x81, 0, (tci >> 8) as u8, *tci as u8]).collect(),
            v6,
            udp,
            extra,
            tos,
            ttl,
            label,
            dont_fragment,
            id,
            source,
            destination,
            ports,
            seq,
            ack,
            flags: if odd { flags } else { ACK | flags & PSH },
            window,
            options: option_bytes[..options * 4].to_vec(),
            payload,
        }
    })
}
