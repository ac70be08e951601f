//! Frames that say what they are: every byte of a payload follows from its flow and its place in it, so that whoever
//! receives any part of anything can tell what it is a part of and whether it is whole.
//!
//! A [`Flow`] is a TCP stream, a sequence of UDP datagrams, or a sequence of frames of no known protocol, from one
//! station to one address. Its number is in its TCP or UDP ports. What travels are [`Unit`]s of it: a stretch of the
//! stream, or a numbered datagram. Made and taken apart slowly and obviously; nothing here uses the code under test
//! except for the two header structs.

use weft::wire::ethernet::Mac;
use weft::wire::vnet::{self, VnetHeader};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// An EtherType for experiments (IEEE 802 §9.2.3).
    Raw,
}

#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) v6: bool,
    pub(crate) source: Mac,
    pub(crate) destination: Mac,
    /// VLAN tags.
    pub(crate) tags: Vec<u16>,
}

/// Part of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// These bytes of the stream.
    Stretch { from: u64, to: u64 },
    /// This datagram, with as much payload.
    Datagram { number: u32, len: usize },
}

/// So that sequence numbers wrap early.
const FIRST_SEQUENCE: u32 = u32::MAX - 20_000;
const EXPERIMENTAL: u16 = 0x88b5;
/// A datagram's number.
pub(crate) const MIN_DATAGRAM: usize = 4;

impl Flow {
    fn byte(&self, place: u64) -> u8 {
        let mixed = (place ^ u64::from(self.id) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    }

    fn stretch(&self, from: u64, to: u64) -> Vec<u8> {
        (from..to).map(|place| self.byte(place)).collect()
    }

    fn datagram(&self, number: u32, len: usize) -> Vec<u8> {
        let mut payload = number.to_be_bytes().to_vec();
        let place = u64::from(number) << 16;
        payload.extend(self.stretch(place + 4, place + len as u64));
        payload
    }

    pub(crate) fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    pub(crate) fn l4(&self) -> usize {
        self.l3() + if self.v6 { 40 } else { 20 }
    }

    /// Bytes in front of the payload.
    pub(crate) fn header_len(&self) -> usize {
        match self.kind {
            Kind::Tcp => self.l4() + 20,
            Kind::Udp => self.l4() + 8,
            Kind::Raw => self.l3() + 4,
        }
    }

    /// A frame of the stream, with a partial or a complete checksum; a super-frame if it is cut into `cut` bytes each.
    pub(crate) fn tcp(&self, from: u64, len: usize, partial: bool, cut: Option<usize>) -> (VnetHeader, Vec<u8>) {
        let payload = self.stretch(from, from + len as u64);
        let mut header = self.id.to_be_bytes().to_vec();
        header.extend(FIRST_SEQUENCE.wrapping_add(from as u32).to_be_bytes());
        header.extend([0, 0, 0, 7, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        let gso = cut.map(|cut| (if self.v6 { vnet::GSO_TCPV6 } else { vnet::GSO_TCPV4 }, cut));
        self.transport(6, 16, &header, &payload, partial, gso)
    }

    /// Datagrams, given by number and length: one is a frame, several are a super-frame; all are as long as the first,
    /// only the last may be shorter.
    pub(crate) fn udp(&self, datagrams: &[(u32, usize)], partial: bool) -> (VnetHeader, Vec<u8>) {
        let payload: Vec<u8> = datagrams.iter().flat_map(|&(number, len)| self.datagram(number, len)).collect();
        let mut header = self.id.to_be_bytes().to_vec();
        header.extend(((8 + payload.len()) as u16).to_be_bytes());
        header.extend([0, 0]);
        let gso = (datagrams.len() > 1).then_some((vnet::GSO_UDP_L4, datagrams[0].1));
        self.transport(17, 6, &header, &payload, partial, gso)
    }

    pub(crate) fn raw(&self, number: u32, len: usize) -> (VnetHeader, Vec<u8>) {
        let mut frame = self.link(EXPERIMENTAL);
        frame.extend(self.id.to_be_bytes());
        frame.extend(self.datagram(number, len));
        (VnetHeader::default(), frame)
    }

    fn link(&self, ethertype: u16) -> Vec<u8> {
        let mut frame = [self.destination.0, self.source.0].concat();
        self.tags.iter().for_each(|tag| frame.extend([0x81, 0, (tag >> 8) as u8, *tag as u8]));
        frame.extend(ethertype.to_be_bytes());
        frame
    }

    fn transport(
        &self,
        protocol: u8,
        field: usize,
        header: &[u8],
        payload: &[u8],
        partial: bool,
        gso: Option<(u8, usize)>,
    ) -> (VnetHeader, Vec<u8>) {
        let l4_len = header.len() + payload.len();
        let mut frame = self.link(if self.v6 { 0x86dd } else { 0x0800 });
        let (mut from, mut to) = ([10u8; 16], [10u8; 16]);
        from[1..4].copy_from_slice(&self.source.0[3..]);
        to[1..4].copy_from_slice(&self.destination.0[3..]);
        if self.v6 {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend((l4_len as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(from);
            frame.extend(to);
        } else {
            let mut ip = vec![0x45, 0];
            ip.extend(((20 + l4_len) as u16).to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            ip.extend(&from[..4]);
            ip.extend(&to[..4]);
            let checksum = !sum(&ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(ip);
        }
        let at = frame.len();
        frame.extend(header);
        frame.extend(payload);
        let begun = pseudo(&frame[self.l3()..], self.v6, protocol, l4_len);
        frame[at + field..at + field + 2].copy_from_slice(&begun.to_be_bytes());
        if !partial && gso.is_none() {
            let checksum = not_zero(!sum(&frame[at..]), protocol);
            frame[at + field..at + field + 2].copy_from_slice(&checksum.to_be_bytes());
            return (VnetHeader::default(), frame);
        }
        let (gso_type, gso_size) = gso.unwrap_or((vnet::GSO_NONE, 0));
        let vnet = VnetHeader {
            flags: vnet::NEEDS_CSUM,
            gso_type,
            hdr_len: if gso_size > 0 { (at + header.len()) as u16 } else { 0 },
            gso_size: gso_size as u16,
            csum_start: at as u16,
            csum_offset: field as u16,
        };
        (vnet, frame)
    }

    /// What a frame that a port got is made of. It is what it says it is if making it anew gives every byte of it.
    pub(crate) fn take_apart(&self, vnet: VnetHeader, frame: &[u8]) -> Result<Vec<Unit>, String> {
        let at = self.header_len();
        ensure(frame.len() > at, "too short")?;
        let len = frame.len() - at;
        let partial = vnet.flags & vnet::NEEDS_CSUM != 0;
        let size = usize::from(vnet.gso_size);
        let (made, units) = match self.kind {
            Kind::Tcp => {
                let from = self.position(frame);
                let units = vec![Unit::Stretch { from, to: from + len as u64 }];
                (self.tcp(from, len, partial, (size > 0).then_some(size)), units)
            }
            kind => {
                let size = if size > 0 { size } else { len };
                let number =
                    |chunk: &[u8]| chunk.first_chunk().map(|number| (u32::from_be_bytes(*number), chunk.len()));
                let datagrams: Option<Vec<_>> = frame[at..].chunks(size).map(number).collect();
                let datagrams = datagrams.ok_or("a datagram too short")?;
                let units = datagrams.iter().map(|&(number, len)| Unit::Datagram { number, len }).collect();
                let udp = kind == Kind::Udp;
                (if udp { self.udp(&datagrams, partial) } else { self.raw(datagrams[0].0, len) }, units)
            }
        };
        let (right_vnet, mut right) = made;
        if self.kind != Kind::Raw && !self.v6 {
            // Every segment of a super-frame has an identification of its own.
            let (l3, l4) = (self.l3(), self.l4());
            ensure(sum(&frame[l3..l4]) == 0xffff, "wrong IPv4 checksum")?;
            right[l3 + 4..l3 + 6].copy_from_slice(&frame[l3 + 4..l3 + 6]);
            right[l3 + 10..l3 + 12].copy_from_slice(&frame[l3 + 10..l3 + 12]);
        }
        if let Some(wrong) = right.iter().zip(frame).position(|(right, wrong)| right != wrong) {
            return Err(format!("byte {wrong} of {} differs from what was sent in {units:?}", frame.len()));
        }
        ensure(right.len() == frame.len(), "wrong length")?;
        ensure(vnet == right_vnet, &format!("the vnet header is {vnet:?} and should be {right_vnet:?}"))?;
        Ok(units)
    }

    /// Where in the stream a TCP frame is.
    fn position(&self, frame: &[u8]) -> u64 {
        let at = self.l4() + 4;
        let sequence = (word(frame, at) as u32) << 16 | word(frame, at + 2) as u32;
        u64::from(sequence.wrapping_sub(FIRST_SEQUENCE))
    }
}

/// The flow's number, which every frame has where its kind has it.
pub(crate) fn flow_of(frame: &[u8]) -> Option<u32> {
    let mut at = 12;
    while frame.get(at..at + 2)? == [0x81, 0] {
        at += 4;
    }
    let at = match word(frame, at) {
        0x0800 => at + 2 + 20,
        0x86dd => at + 2 + 40,
        _ => at + 2,
    };
    frame.get(at..).and_then(|rest| rest.first_chunk()).map(|id| u32::from_be_bytes(*id))
}

fn ensure(right: bool, what: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(what.to_owned()) }
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

/// RFC 1071 as it is written down.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the pseudo-header of the packet `ip` begins.
fn pseudo(ip: &[u8], v6: bool, protocol: u8, len: usize) -> u16 {
    let addresses = if v6 { &ip[8..40] } else { &ip[12..20] };
    let mut header = addresses.to_vec();
    header.extend((len as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    sum(&header)
}

fn not_zero(checksum: u16, protocol: u8) -> u16 {
    if checksum == 0 && protocol == 17 { 0xffff } else { checksum }
}

#[test]
fn frames_are_taken_apart_as_they_were_made_and_a_changed_bit_is_seen() {
    let mac = |n| Mac([2, 0, 0, 0, 0, n]);
    for (v6, tags) in [(false, vec![]), (true, vec![]), (false, vec![7]), (true, vec![7, 9])] {
        let flow = |kind| Flow { id: 77, kind, v6, source: mac(1), destination: mac(2), tags: tags.clone() };
        let (tcp, udp, raw) = (flow(Kind::Tcp), flow(Kind::Udp), flow(Kind::Raw));
        let whole = [Unit::Stretch { from: 10, to: 1010 }];
        let datagrams: Vec<Unit> =
            [(5, 300), (6, 300), (7, 50)].map(|(number, len)| Unit::Datagram { number, len }).into();
        for (flow, (vnet, frame), units) in [
            (&tcp, tcp.tcp(10, 1000, false, None), &whole[..]),
            (&tcp, tcp.tcp(10, 1000, true, None), &whole[..]),
            (&tcp, tcp.tcp(10, 1000, true, Some(300)), &whole[..]),
            (&udp, udp.udp(&[(5, 300), (6, 300), (7, 50)], true), &datagrams[..]),
            (&udp, udp.udp(&[(7, 50)], false), &datagrams[2..]),
            (&raw, raw.raw(6, 300), &datagrams[1..2]),
        ] {
            assert_eq!(flow_of(&frame), Some(77));
            assert_eq!(flow.take_apart(vnet, &frame).as_deref(), Ok(units));
            for bit in 0..frame.len() * 8 {
                let mut wrong = frame.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(flow.take_apart(vnet, &wrong).as_deref(), Ok(units), "bit {bit}");
            }
        }
    }
}
