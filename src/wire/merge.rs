//! Merging frames of one flow into a super-frame (GRO in software), as arithmetic over headers.
//!
//! It is the inverse of [`super::segment`] and loses nothing: cutting what was merged gives back the frames that
//! went in, in their order (except for the identification of IPv4 packets with DF set, which means nothing, RFC 6864
//! §4.1). So only frames that differ in no more than a cut would make them differ are merged. Nothing here holds a
//! payload: [`inspect`] says what a frame is, a [`Run`] says whether the next one continues it, and the caller, who
//! has the bytes, gathers them.
//!
//! A merged super-frame is written with a partial checksum, which the receiving kernel takes as good. Merging a
//! frame that was corrupted before it reached us would therefore launder it: complete checksums are verified first,
//! partial ones are vouched for by whoever handed them over.
//!
//! Order within a flow must hold, so a frame of a flow that cannot be merged ends the flow's run
//! ([`Inspection::Closes`]), and one whose flow cannot be told ends all of them ([`Inspection::Opaque`]). The
//! exception are pure acknowledgements, which lose nothing when data overtakes them; waiting for them would end the
//! runs of every busy two-way connection.

use super::checksum;
use super::ethernet::{self, Frame, HEADER_LEN, TAG_LEN};
use super::vnet::{self, PartialChecksum, TCP_CHECKSUM, UDP_CHECKSUM, VnetHeader};
use std::ops::Range;

/// Frames in one run: as many full-size segments (of 536 bytes and more) as 64 KiB of IP can hold.
pub const MAX_RUN: usize = 128;
/// Datagrams in one UDP run: kernels refuse super-frames of more (`UDP_MAX_SEGMENTS`, 64 before Linux 6.9).
pub const MAX_UDP_RUN: usize = 64;
/// The largest IP packet.
const MAX_IP: usize = 65_535;

const TCP: u8 = 6;
const UDP: u8 = 17;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// What one frame is to merging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// Can begin or continue a run.
    Mergeable(Candidate),
    /// Belongs to this flow, must go alone, and must not be overtaken by what follows in the flow.
    Closes(FlowKey),
    /// A pure acknowledgement: goes alone and may be overtaken.
    Passes,
    /// Neither TCP nor UDP in plain IP: its flow is unknown, so it must not be overtaken at all.
    Opaque,
}

/// Frames that may follow one another in a run agree on all of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// MAC addresses and VLAN tags as they are in the frame, zero behind them.
    link: [u8; HEADER_LEN - 2 + 2 * TAG_LEN],
    /// Source and destination, IPv4 addresses in the first eight bytes.
    addresses: [u8; 32],
    /// Source and destination port.
    ports: [u8; 4],
    protocol: u8,
    v6: bool,
}

impl FlowKey {
    /// Whether it is a UDP flow (else TCP).
    pub fn is_udp(&self) -> bool {
        self.protocol == UDP
    }
}

/// A frame that can be merged, its checksum known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    key: FlowKey,
    l3: usize,
    l4: usize,
    header_len: usize,
    payload_len: usize,
    /// Whether its checksum is partial.
    partial: bool,
    /// Version, TOS, DF; or version, traffic class, flow label: the whole ECN field among them.
    traffic: [u8; 4],
    ttl: u8,
    /// The identification, of an IPv4 packet that may be fragmented.
    id: Option<u16>,
    /// Zero for UDP, and so are the following.
    seq: u32,
    ack: u32,
    window: u16,
    push: bool,
    /// TCP options, zero behind their end; `header_len` tells how many.
    options: [u8; 40],
}

impl Candidate {
    /// Its flow.
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Bytes from the start of the frame to the payload.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of payload. Bytes behind it are Ethernet padding, not to be merged.
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    fn checksum(&self) -> PartialChecksum {
        PartialChecksum { start: self.l4 as u16, offset: checksum_offset(self.key.protocol) }
    }
}

/// Says what `frame` is. `partial` is its partial checksum, `None` means that its checksum is complete.
pub fn inspect(frame: &[u8], partial: Option<PartialChecksum>) -> Inspection {
    let Some(ip) = Ip::parse(frame) else { return Inspection::Opaque };
    let Some(segment) = frame.get(ip.segment.clone()) else { return Inspection::Opaque };
    let candidate = match ip.key.protocol {
        TCP => match Tcp::parse(segment) {
            Some(tcp) if tcp.payload_len == 0 && tcp.flags == ACK => return Inspection::Passes,
            Some(tcp) => tcp.is_plain_data().then(|| tcp.candidate(&ip)),
            None => None,
        },
        _ => udp_candidate(segment, &ip),
    };
    match candidate {
        Some(candidate) if ip.checksum_is_right(frame, segment, partial) => {
            Inspection::Mergeable(Candidate { partial: partial.is_some(), ..candidate })
        }
        _ => Inspection::Closes(ip.key),
    }
}

/// The layers below TCP and UDP.
struct Ip {
    key: FlowKey,
    l3: usize,
    /// Where the TCP or UDP header and payload are in the frame.
    segment: Range<usize>,
    traffic: [u8; 4],
    ttl: u8,
    id: Option<u16>,
}

impl Ip {
    /// `None` for what is not TCP or UDP right behind a plain, whole IP header.
    fn parse(frame: &[u8]) -> Option<Self> {
        let view = Frame::parse(frame).ok()?;
        let l3 = view.payload_offset();
        let ip = view.payload();
        let mut link = [0; HEADER_LEN - 2 + 2 * TAG_LEN];
        link.get_mut(..l3 - 2)?.copy_from_slice(&frame[..l3 - 2]);
        let mut key = FlowKey { link, addresses: [0; 32], ports: [0; 4], protocol: 0, v6: false };
        let (header_len, len, traffic, ttl, id);
        match view.ethertype() {
            ethernet::IPV4 => {
                let header = ip.first_chunk::<20>()?;
                let flags = u16::from_be_bytes([header[6], header[7]]);
                // Version 4 without options; no fragment, no reserved flag; and since a merged frame gets a
                // checksum of its own, the one it came with must have been right.
                if header[0] != 0x45 || flags & !0x4000 != 0 || !checksum::verifies(0, header) {
                    return None;
                }
                (header_len, len) = (20, usize::from(u16::from_be_bytes([header[2], header[3]])));
                traffic = [header[0], header[1], header[6], 0];
                ttl = header[8];
                id = (flags == 0).then_some(u16::from_be_bytes([header[4], header[5]]));
                key.protocol = header[9];
                key.addresses[..8].copy_from_slice(&header[12..]);
            }
            ethernet::IPV6 => {
                let header = ip.first_chunk::<40>()?;
                if header[0] >> 4 != 6 {
                    return None;
                }
                (header_len, len) = (40, 40 + usize::from(u16::from_be_bytes([header[4], header[5]])));
                traffic = [header[0], header[1], header[2], header[3]];
                ttl = header[7];
                id = None;
                key.protocol = header[6];
                key.v6 = true;
                key.addresses.copy_from_slice(&header[8..]);
            }
            _ => return None,
        }
        if !matches!(key.protocol, TCP | UDP) {
            return None;
        }
        key.ports = *ip.get(header_len..len)?.first_chunk::<4>()?;
        Some(Self { key, l3, segment: l3 + header_len..l3 + len, traffic, ttl, id })
    }

    fn checksum_is_right(&self, frame: &[u8], segment: &[u8], partial: Option<PartialChecksum>) -> bool {
        let offset = checksum_offset(self.key.protocol);
        match partial {
            // It would be summed to the end of the frame, so nothing may follow the packet.
            Some(partial) => {
                usize::from(partial.start) == self.segment.start
                    && partial.offset == offset
                    && self.segment.end == frame.len()
            }
            None => {
                // A UDP checksum of zero is none (RFC 768).
                let field = segment.get(usize::from(offset)..).and_then(|tail| tail.first_chunk::<2>());
                let none = self.key.protocol == UDP && field == Some(&[0, 0]);
                !none && checksum::verifies(pseudo_sum(&self.key, segment.len()), segment)
            }
        }
    }
}

fn pseudo_sum(key: &FlowKey, len: usize) -> u64 {
    // The pseudo-headers of IPv4 and IPv6 are the same sum: IPv4's addresses have zeroes behind them.
    checksum::sum(u64::from(key.protocol) + len as u64, &key.addresses)
}

fn checksum_offset(protocol: u8) -> u16 {
    if protocol == UDP { UDP_CHECKSUM } else { TCP_CHECKSUM }
}

struct Tcp<'a> {
    header: &'a [u8; 20],
    options: &'a [u8],
    flags: u8,
    payload_len: usize,
}

impl<'a> Tcp<'a> {
    fn parse(segment: &'a [u8]) -> Option<Self> {
        let header = segment.first_chunk::<20>()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let options = segment.get(20..header_len)?;
        Some(Self { header, options, flags: header[13], payload_len: segment.len() - header_len })
    }

    /// Nothing but data: every other flag, the reserved bits and the urgent pointer would be lost or multiplied.
    fn is_plain_data(&self) -> bool {
        let header = self.header;
        self.payload_len > 0 && self.flags & !PSH == ACK && header[12] & 0x0f == 0 && header[18..] == [0, 0]
    }

    fn candidate(&self, ip: &Ip) -> Candidate {
        let [_, _, _, _, a, b, c, d, e, f, g, h, _, _, i, j, ..] = *self.header;
        let mut options = [0; 40];
        for (to, from) in options.iter_mut().zip(self.options) {
            *to = *from;
        }
        Candidate {
            seq: u32::from_be_bytes([a, b, c, d]),
            ack: u32::from_be_bytes([e, f, g, h]),
            window: u16::from_be_bytes([i, j]),
            push: self.flags & PSH != 0,
            options,
            ..Candidate::without_l4(ip, 20 + self.options.len(), self.payload_len)
        }
    }
}

fn udp_candidate(segment: &[u8], ip: &Ip) -> Option<Candidate> {
    let header = segment.first_chunk::<8>()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (len == segment.len() && len > 8).then(|| Candidate::without_l4(ip, 8, len - 8))
}

impl Candidate {
    fn without_l4(ip: &Ip, l4_header_len: usize, payload_len: usize) -> Self {
        Self {
            key: ip.key,
            l3: ip.l3,
            l4: ip.segment.start,
            header_len: ip.segment.start + l4_header_len,
            payload_len,
            partial: false,
            traffic: ip.traffic,
            ttl: ip.ttl,
            id: ip.id,
            seq: 0,
            ack: 0,
            window: 0,
            push: false,
            options: [0; 40],
        }
    }
}

/// Frames that will be one super-frame.
#[derive(Debug, Clone)]
pub struct Run {
    first: Candidate,
    segments: usize,
    payload_len: usize,
    /// The last frame was shorter than the first or pushed: nothing may follow it.
    ended: bool,
    push: bool,
}

impl Run {
    /// A run of one.
    pub fn new(first: &Candidate) -> Self {
        Self {
            first: first.clone(),
            segments: 1,
            payload_len: first.payload_len,
            ended: first.push,
            push: first.push,
        }
    }

    /// The flow of all its frames.
    pub fn key(&self) -> &FlowKey {
        &self.first.key
    }

    /// Number of frames in it, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a run is never empty")]
    pub fn len(&self) -> usize {
        self.segments
    }

    /// Takes `next` in if it continues the run; if not, the run is as it was, and over.
    pub fn append(&mut self, next: &Candidate) -> bool {
        let first = &self.first;
        let udp = first.key.is_udp();
        let fits = !self.ended
            && self.segments < if udp { MAX_UDP_RUN } else { MAX_RUN }
            && next.payload_len <= first.payload_len
            && first.header_len - first.l3 + self.payload_len + next.payload_len <= MAX_IP;
        let continues = next.seq == if udp { 0 } else { first.seq.wrapping_add(self.payload_len as u32) }
            && next.id == first.id.map(|id| id.wrapping_add(self.segments as u16));
        let alike = next.key == first.key
            && next.header_len == first.header_len
            && next.traffic == first.traffic
            && next.ttl == first.ttl
            && next.ack == first.ack
            && next.window == first.window
            && next.options == first.options;
        if !(fits && continues && alike) {
            return false;
        }
        self.segments += 1;
        self.payload_len += next.payload_len;
        self.ended = next.push || next.payload_len < first.payload_len;
        self.push = next.push;
        true
    }

    /// Completes the run: `header`, the first frame's bytes up to its payload, becomes the super-frame's, to be
    /// followed by the payloads of all frames; returned is the virtio-net header to write in front. A run of one
    /// keeps its header and its checksum as they are.
    ///
    /// # Panics
    /// When `header` is shorter than the first candidate's [`Candidate::header_len`].
    pub fn finish(&self, header: &mut [u8]) -> VnetHeader {
        let Candidate { key, l3, l4, header_len, .. } = self.first;
        let partial = self.first.checksum();
        if self.segments == 1 {
            return VnetHeader::single(self.first.partial.then_some(partial));
        }
        let put = |header: &mut [u8], at: usize, word: usize| {
            header[at..at + 2].copy_from_slice(&(word as u16).to_be_bytes());
        };
        let l4_len = header_len - l4 + self.payload_len;
        if key.v6 {
            put(header, l3 + 4, l4_len);
        } else {
            put(header, l3 + 2, l4 - l3 + l4_len);
            checksum::finish_ipv4(&mut header[l3..l4]);
        }
        if key.is_udp() {
            put(header, l4 + 4, l4_len);
        } else if self.push {
            header[l4 + 13] |= PSH;
        }
        let pseudo = checksum::fold(pseudo_sum(&key, l4_len));
        put(header, l4 + usize::from(partial.offset), usize::from(pseudo));
        VnetHeader {
            gso_type: match (key.is_udp(), key.v6) {
                (true, _) => vnet::GSO_UDP_L4,
                (false, true) => vnet::GSO_TCPV6,
                (false, false) => vnet::GSO_TCPV4,
            },
            gso_size: self.first.payload_len as u16,
            hdr_len: header_len as u16,
            ..VnetHeader::single(Some(partial))
        }
    }
}

#[cfg(test)]
mod tests;
