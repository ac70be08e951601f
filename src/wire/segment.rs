//! Cutting super-frames into frames (TSO and USO in software), as arithmetic over headers.
//!
//! A [`Plan`] is made once per super-frame: it checks everything that a forged virtio-net header could lie about,
//! copies the headers aside and knows what every segment has in common. [`Plan::stamp`] then writes the headers of
//! one segment wherever the caller wants them; payload is never touched. Because the headers are kept aside, the
//! caller may stamp segment *i* over the end of segment *i - 1* once that one is sealed:
//!
//! ```text
//!  super-frame   | L2 L3 L4 | payload 0 | payload 1 | payload 2 |
//!  segment 1                  | L2 L3 L4 | payload 1 |               headers land on what was sent already
//! ```
//!
//! Checksums stay partial in every segment ([`Plan::partial`]): whoever needs complete ones finishes them.

use super::Malformed;
use super::checksum;
use super::ethernet::{self, Frame, HEADER_LEN, TAG_LEN};
use super::vnet::{Gso, PartialChecksum, TCP_CHECKSUM, UDP_CHECKSUM, VnetHeader};
use std::ops::Range;

/// Bytes of IPv6 extension headers a super-frame may have: the segment routing headers seen in practice fit, and the
/// bound keeps the headers of a segment well below any path's MTU.
const MAX_EXTENSIONS: usize = 64;
/// The longest headers a segment can have: Ethernet, two tags, IPv6 with extensions, TCP with options.
pub const MAX_HEADER: usize = HEADER_LEN + 2 * TAG_LEN + 40 + MAX_EXTENSIONS + 60;
/// Segments one super-frame may become. 64 KiB at the smallest MSS Linux will send with (48, less timestamps) are
/// 1820; without a bound, a forged `gso_size` of 1 would turn one read into 65,000 frames.
pub const MAX_SEGMENTS: usize = 2048;

const TCP: u8 = 6;
const UDP: u8 = 17;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// How one super-frame is cut.
#[derive(Clone)]
pub struct Plan {
    /// The super-frame's headers, up to `header_len`. Fields that differ between segments hold zero, so that their
    /// values can be added to the sums below.
    template: [u8; MAX_HEADER],
    header_len: usize,
    l3: usize,
    l4: usize,
    v6: bool,
    udp: bool,
    /// Payload bytes in the whole super-frame; never zero.
    payload_len: usize,
    /// Payload bytes of every segment but the last; never zero.
    size: usize,
    /// Identification of the first segment (IPv4).
    id: u16,
    /// Sequence number of the first segment (TCP).
    seq: u32,
    /// TCP flags of the super-frame.
    flags: u8,
    /// Sum of the template's IPv4 header.
    ip_sum: u64,
    /// Sum of the pseudo-header without its length.
    pseudo_sum: u64,
}

impl Plan {
    /// How to cut the super-frame that `vnet` announces. `limit` is the largest frame (Ethernet header included)
    /// the path carries whole: TCP segments get shorter to fit it, for a stream may be cut anywhere; datagrams are
    /// messages and keep their size, so a UDP segment may be longer than `limit` and is for the caller to fragment.
    ///
    /// # Errors
    /// [`Malformed`] when this is no super-frame, when headers contradict each other or the frame, and when it
    /// would become more than [`MAX_SEGMENTS`].
    pub fn new(frame: &[u8], vnet: &VnetHeader, limit: usize) -> Result<Self, Malformed> {
        let (v6, udp) = match vnet.gso()? {
            Gso::None => return Err(Malformed),
            Gso::Tcp4 => (Some(false), false),
            Gso::Tcp6 => (Some(true), false),
            Gso::Udp => (None, true),
        };
        let partial = vnet.partial().ok_or(Malformed)?;
        let plan = Self::parse(frame, partial, udp, usize::from(vnet.gso_size), limit)?;
        if v6.is_some_and(|v6| v6 != plan.v6) {
            return Err(Malformed);
        }
        Ok(plan)
    }

    /// How to cut one ordinary TCP frame that is longer than `limit`, so that it need not be fragmented. `None` if
    /// it fits, and for what must stay whole: a frame that is not TCP with this partial checksum, that opens or
    /// resets a connection, has urgent data (its pointer counts from the sequence number) or no payload.
    pub fn oversized_tcp(frame: &[u8], partial: PartialChecksum, limit: usize) -> Option<Self> {
        if frame.len() <= limit {
            return None;
        }
        let plan = Self::parse(frame, partial, false, usize::MAX, limit).ok()?;
        (plan.flags & (SYN | RST | URG) == 0).then_some(plan)
    }

    fn parse(
        frame: &[u8],
        partial: PartialChecksum,
        udp: bool,
        size: usize,
        limit: usize,
    ) -> Result<Self, Malformed> {
        let view = Frame::parse(frame)?;
        let (l3, l4) = (view.payload_offset(), usize::from(partial.start));
        let ip = view.payload();
        let ip_header_len = l4.checked_sub(l3).ok_or(Malformed)?;
        let protocol = if udp { UDP } else { TCP };
        let v6 = match view.ethertype() {
            ethernet::IPV4 => check_ipv4(ip, ip_header_len, protocol).map(|()| false)?,
            ethernet::IPV6 => check_ipv6(ip, ip_header_len, protocol).map(|()| true)?,
            _ => return Err(Malformed),
        };
        let segment = ip.get(ip_header_len..).ok_or(Malformed)?;
        let l4_len = if udp { udp_header_len(segment, partial)? } else { tcp_header_len(segment, partial)? };
        let header_len = l4 + l4_len;
        let payload_len = frame.len().checked_sub(header_len).ok_or(Malformed)?;
        let size = if udp { size } else { size.min(limit.saturating_sub(header_len)) };
        if payload_len == 0 || size == 0 || payload_len.div_ceil(size) > MAX_SEGMENTS {
            return Err(Malformed);
        }

        let mut template = [0; MAX_HEADER];
        let header = template.get_mut(..header_len).ok_or(Malformed)?;
        header.copy_from_slice(&frame[..header_len]);
        let mut plan = Self {
            template,
            header_len,
            l3,
            l4,
            v6,
            udp,
            payload_len,
            size,
            id: 0,
            seq: 0,
            flags: 0,
            ip_sum: 0,
            pseudo_sum: 0,
        };
        plan.take_aside();
        Ok(plan)
    }

    /// Moves what differs between segments out of the template. Offsets were checked by `parse`.
    fn take_aside(&mut self) {
        let (l3, l4) = (self.l3, self.l4);
        // The field holds the sum over the pseudo-header of the whole (as Linux's own segmentation relies on): less
        // the whole's length it is every segment's. This holds behind a routing header, too, where the addresses
        // alone would mislead (RFC 8200 §8.1).
        let at = l4 + usize::from(self.partial().offset);
        let whole = (self.header_len - l4 + self.payload_len) as u16;
        self.pseudo_sum = u64::from(self.word(at)) + u64::from(!whole);
        self.set(at, 0);
        if self.v6 {
            self.set(l3 + 4, 0);
        } else {
            self.id = self.word(l3 + 4);
            for field in [2, 4, 10] {
                self.set(l3 + field, 0);
            }
            self.ip_sum = checksum::sum(0, &self.template[l3..l4]);
        }
        if self.udp {
            self.set(l4 + 4, 0);
        } else {
            self.seq = u32::from(self.word(l4 + 4)) << 16 | u32::from(self.word(l4 + 6));
            self.flags = self.template[l4 + 13];
        }
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.template[at], self.template[at + 1]])
    }

    fn set(&mut self, at: usize, word: u16) {
        put(&mut self.template, at, word);
    }

    /// Number of segments: 1 to [`MAX_SEGMENTS`].
    pub fn count(&self) -> usize {
        self.payload_len.div_ceil(self.size)
    }

    /// Bytes before the payload, in the super-frame and in every segment: at most [`MAX_HEADER`].
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Where segment `i`'s payload lies in the super-frame; empty for an `i` that is not below [`Self::count`].
    pub fn payload(&self, i: usize) -> Range<usize> {
        let start = i.saturating_mul(self.size).min(self.payload_len);
        let end = start.saturating_add(self.size).min(self.payload_len);
        self.header_len + start..self.header_len + end
    }

    /// The partial checksum of the super-frame and of every segment.
    pub fn partial(&self) -> PartialChecksum {
        PartialChecksum { start: self.l4 as u16, offset: if self.udp { UDP_CHECKSUM } else { TCP_CHECKSUM } }
    }

    /// Writes the headers of segment `i`, from the Ethernet header to the end of the L4 header.
    ///
    /// # Panics
    /// When `header` is not [`Self::header_len`] bytes long.
    pub fn stamp(&self, i: usize, header: &mut [u8]) {
        header.copy_from_slice(&self.template[..self.header_len]);
        let (l3, l4) = (self.l3, self.l4);
        let l4_len = (self.header_len - l4 + self.payload(i).len()) as u16;
        if self.v6 {
            put(header, l3 + 4, (l4 - l3 - 40) as u16 + l4_len);
        } else {
            let total = (l4 - l3) as u16 + l4_len;
            let id = self.id.wrapping_add(i as u16);
            put(header, l3 + 2, total);
            put(header, l3 + 4, id);
            put(header, l3 + 10, !checksum::fold(self.ip_sum + u64::from(total) + u64::from(id)));
        }
        if self.udp {
            put(header, l4 + 4, l4_len);
        } else {
            let seq = self.seq.wrapping_add((i * self.size) as u32);
            header[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
            let not_last = if i + 1 < self.count() { FIN | PSH } else { 0 };
            // CWR answers one congestion mark, so it is said once (RFC 3168 §6.1.2).
            let not_first = if i > 0 { CWR } else { 0 };
            header[l4 + 13] = self.flags & !not_last & !not_first;
        }
        let at = l4 + usize::from(self.partial().offset);
        put(header, at, checksum::fold(self.pseudo_sum + u64::from(l4_len)));
    }
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// The IPv4 header is `len` bytes, is not a fragment's, and its packet is all there is of `ip`.
fn check_ipv4(ip: &[u8], len: usize, protocol: u8) -> Result<(), Malformed> {
    let header = ip.first_chunk::<20>().ok_or(Malformed)?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    let right = header[0] >> 4 == 4
        && len >= 20
        && usize::from(header[0] & 0x0f) * 4 == len
        && total == ip.len()
        && fragment == 0
        && header[9] == protocol;
    right.then_some(()).ok_or(Malformed)
}

/// The IPv6 header and its extensions are `len` bytes, and its packet is all there is of `ip`.
fn check_ipv6(ip: &[u8], len: usize, protocol: u8) -> Result<(), Malformed> {
    let header = ip.first_chunk::<40>().ok_or(Malformed)?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let right = header[0] >> 4 == 6
        && (40..=40 + MAX_EXTENSIONS).contains(&len)
        && payload == ip.len() - 40
        && (header[6] == protocol || len > 40);
    right.then_some(()).ok_or(Malformed)
}

fn tcp_header_len(segment: &[u8], partial: PartialChecksum) -> Result<usize, Malformed> {
    let header = segment.first_chunk::<20>().ok_or(Malformed)?;
    let len = usize::from(header[12] >> 4) * 4;
    (partial.offset == TCP_CHECKSUM && len >= 20 && len <= segment.len()).then_some(len).ok_or(Malformed)
}

fn udp_header_len(segment: &[u8], partial: PartialChecksum) -> Result<usize, Malformed> {
    (partial.offset == UDP_CHECKSUM && segment.len() >= 8).then_some(8).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::testing::{Spec, spec};
    use crate::wire::vnet;
    use proptest::prelude::*;

    fn vnet_of(spec: &Spec, gso_size: usize) -> VnetHeader {
        VnetHeader {
            gso_type: match (spec.udp, spec.v6) {
                (true, _) => vnet::GSO_UDP_L4,
                (false, true) => vnet::GSO_TCPV6,
                (false, false) => vnet::GSO_TCPV4,
            },
            gso_size: gso_size as u16,
            // Rubbish: nobody may look at it.
            hdr_len: 0xffff,
            ..VnetHeader::single(Some(spec.partial()))
        }
    }

    /// All segments, headers stamped and payload appended.
    fn cut(plan: &Plan, frame: &[u8]) -> Vec<Vec<u8>> {
        let segment = |i| {
            let mut header = vec![0xee; plan.header_len()];
            plan.stamp(i, &mut header);
            header.extend(&frame[plan.payload(i)]);
            header
        };
        (0..plan.count()).map(segment).collect()
    }

    fn finished(mut frame: Vec<u8>, partial: PartialChecksum) -> Vec<u8> {
        checksum::finish(&mut frame, partial.start.into(), partial.offset.into()).unwrap();
        frame
    }

    proptest! {
        #[test]
        fn segments_are_what_a_sender_without_offloads_sends(
            spec in spec(8000, true), size in 8usize..3000, room in 8usize..3000,
        ) {
            let frame = spec.frame_partial();
            let plan = Plan::new(&frame, &vnet_of(&spec, size), spec.header_len() + room).unwrap();
            let size = if spec.udp { size } else { size.min(room) };
            let expected = spec.cut(size);
            let segments = cut(&plan, &frame);
            prop_assert_eq!(&segments, &expected.iter().map(Spec::frame_partial).collect::<Vec<_>>());
            prop_assert_eq!(plan.partial(), spec.partial());
            for (segment, expected) in segments.into_iter().zip(expected) {
                prop_assert_eq!(finished(segment, plan.partial()), expected.frame());
            }
        }

        #[test]
        fn an_oversized_tcp_frame_is_cut_to_the_limit(spec in spec(9000, true), room in 8usize..9000) {
            let frame = spec.frame_partial();
            let limit = spec.header_len() + room;
            let whole = spec.udp || frame.len() <= limit || spec.flags & (SYN | RST | URG) != 0;
            let plan = Plan::oversized_tcp(&frame, spec.partial(), limit);
            prop_assert_eq!(plan.is_none(), whole);
            if let Some(plan) = plan {
                let expected: Vec<_> = spec.cut(room).iter().map(Spec::frame_partial).collect();
                prop_assert_eq!(cut(&plan, &frame), expected);
            }
        }

        #[test]
        fn headers_may_be_stamped_over_the_segment_before(spec in spec(4000, true), size in 200usize..1500) {
            let mut frame = spec.frame_partial();
            let plan = Plan::new(&frame, &vnet_of(&spec, size), 9000).unwrap();
            let apart = cut(&plan, &frame);
            for (i, expected) in apart.iter().enumerate() {
                let payload = plan.payload(i);
                let start = payload.start - plan.header_len();
                plan.stamp(i, &mut frame[start..payload.start]);
                prop_assert_eq!(&frame[start..payload.end], &expected[..]);
            }
        }

        #[test]
        fn a_changed_byte_never_panics_and_stays_within_bounds(
            spec in spec(3000, true), changes in proptest::collection::vec((0usize..140, any::<u8>()), 0..6),
            header: [u8; 10], keep_header: bool, cut_at in 0usize..4000, limit in 0usize..2000,
        ) {
            let mut frame = spec.frame_partial();
            let len = frame.len();
            changes.into_iter().for_each(|(at, byte)| frame[at % len] = byte);
            frame.truncate(cut_at.max(14));
            let vnet = if keep_header { vnet_of(&spec, 100) } else { VnetHeader::parse(&header) };
            let partial = PartialChecksum { start: vnet.csum_start, offset: vnet.csum_offset };
            let plans = [Plan::new(&frame, &vnet, limit).ok(), Plan::oversized_tcp(&frame, partial, limit)];
            for plan in plans.into_iter().flatten() {
                prop_assert!((1..=MAX_SEGMENTS).contains(&plan.count()));
                prop_assert!(plan.header_len() <= MAX_HEADER);
                let segments = cut(&plan, &frame);
                let payload: Vec<u8> = segments.iter().flat_map(|s| &s[plan.header_len()..]).copied().collect();
                prop_assert_eq!(&payload, &frame[plan.header_len()..]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..200), header: [u8; 10]) {
            let vnet = VnetHeader::parse(&header);
            let partial = PartialChecksum { start: vnet.csum_start, offset: vnet.csum_offset };
            let _ = Plan::new(&frame, &vnet, 1400);
            let _ = Plan::oversized_tcp(&frame, partial, 60);
        }
    }

    #[test]
    fn more_segments_than_any_honest_sender_makes_are_refused() {
        let spec = Spec::tcp(vec![7; 65_000]);
        let frame = spec.frame_partial();
        let count = |size| Plan::new(&frame, &vnet_of(&spec, size), 1400).map(|plan| plan.count());
        assert_eq!(count(1), Err(Malformed));
        assert_eq!(count(0), Err(Malformed));
        assert!(count(36).is_ok());
        assert_eq!(Plan::new(&frame, &vnet_of(&spec, 1448), spec.header_len()).err(), Some(Malformed));
    }

    #[test]
    fn a_super_frame_that_contradicts_itself_is_refused() {
        let spec = Spec::tcp(vec![7; 65_000]);
        let frame = spec.frame_partial();
        let good = vnet_of(&spec, 1448);
        assert!(Plan::new(&frame, &good, 1400).is_ok());
        for wrong in [
            VnetHeader { flags: 0, ..good },
            VnetHeader { gso_type: vnet::GSO_NONE, ..good },
            VnetHeader { gso_type: vnet::GSO_TCPV6, ..good },
            VnetHeader { gso_type: vnet::GSO_UDP_L4, ..good },
            VnetHeader { csum_start: good.csum_start + 4, ..good },
            VnetHeader { csum_start: 0, ..good },
            VnetHeader { csum_start: u16::MAX, ..good },
            VnetHeader { csum_offset: 6, ..good },
        ] {
            assert!(Plan::new(&frame, &wrong, 1400).is_err(), "{wrong:?}");
        }
        assert!(Plan::new(&frame[..frame.len() - 1], &good, 1400).is_err());
        let mut fragment = frame.clone();
        fragment[spec.l3() + 6] |= 0x20;
        assert!(Plan::new(&fragment, &good, 1400).is_err());
    }
}
