//! The mesh's own messages: UDP on [`MESH_PORT`] inside a tunnel, so sender and content are authentic already.
//!
//! ```text
//!  0             1             2             3             4
//! | 'W' = 0x57  | version 1   | type        | 0           |  then fields until the end of the message:
//! | field       |        length             | value ...
//!
//!  type       fields (all numbers are big-endian)
//!  1 Hello    1 capabilities (4), 2 networks (4 per VNI, may be absent), 3 incarnation (8), 4 reply wanted (0)
//!  2 Probe    5 token (8)
//!  3 ProbeAck 5 token (8), 6 size (2), 7 seen (an address, may be absent)
//! 40 Punch    8 addresses (one after the other), 4 reply wanted (0)
//!
//!  field 0    the end: everything behind it is padding
//!  address    4 or 6, the IP address (4 or 16), UDP port (2)
//! ```
//!
//! So that members of different ages understand each other: unknown fields are skipped, messages of an unknown type
//! or version are [`Message::Unknown`], and a field never changes its meaning. A field that is known must have its
//! length and appear once.

use super::bytes::{Reader, Writer};
use super::vxlan::{IPV4_LEN, TTL, UDP_LEN, emit_envelope};
use super::{MESH_PORT, Malformed};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Networks one hello can name. A hello of that many is 4 KiB, half of the largest packet a peer reassembles.
pub const MAX_VNIS: usize = 1024;
/// Addresses one punch can name: a host with a handful of interfaces of both families, and what others see it as.
pub const MAX_ADDRESSES: usize = 16;
/// Capability: understands partial checksums as VXLAN signals them ([`super::vxlan`]).
pub const PARTIAL_CHECKSUM: u32 = 1;

const MAGIC: u8 = b'W';
const VERSION: u8 = 1;

const HELLO: u8 = 1;
const PROBE: u8 = 2;
const PROBE_ACK: u8 = 3;
const PUNCH: u8 = 40;
/// Not a type that is ever sent on purpose.
const NO_TYPE: u8 = 0;

const END: u8 = 0;
const CAPABILITIES: u8 = 1;
const NETWORKS: u8 = 2;
const INCARNATION: u8 = 3;
const REPLY_WANTED: u8 = 4;
const TOKEN: u8 = 5;
const SIZE: u8 = 6;
const SEEN: u8 = 7;
const ADDRESSES: u8 = 8;

/// A message between two members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// What a member is and has; sent when a session begins and when any of it changes.
    Hello {
        /// Bits such as [`PARTIAL_CHECKSUM`]; unknown bits mean nothing.
        capabilities: u32,
        /// The VNIs of the networks it takes part in, each 1 to 2^24 - 1; at most [`MAX_VNIS`].
        vnis: Vec<u32>,
        /// Larger after every restart of the sender, so that what an earlier life said can be told from this.
        incarnation: u64,
        /// The sender has not heard a hello of this session and wants one.
        reply_wanted: bool,
    },
    /// A packet as large as a path MTU that is being tried (RFC 8899 §4.1).
    Probe {
        /// Names the probe.
        token: u64,
    },
    /// The probe arrived.
    ProbeAck {
        /// The probe's token.
        token: u64,
        /// Bytes of the inner packet that carried it.
        size: u16,
        /// The underlay address it came from, as the one who answers sees it, if it came over the underlay.
        seen: Option<SocketAddr>,
    },
    /// The sender probes all our addresses at this moment and asks us to do the same with its own, so that each side's
    /// probes open its NAT or firewall for the other's.
    Punch {
        /// Where the sender may be reached; at most [`MAX_ADDRESSES`].
        addresses: Vec<SocketAddr>,
        /// The sender wants to know ours.
        reply_wanted: bool,
    },
    /// A type or version from the future.
    Unknown,
}

/// Reads a message: the UDP payload.
///
/// # Errors
/// [`Malformed`] when it is none, a known field is cut short or has another length than it should, appears twice, or
/// one that the type needs is missing.
pub fn parse(payload: &[u8]) -> Result<Message, Malformed> {
    let (&[magic, version, kind, _reserved], body) = payload.split_first_chunk().ok_or(Malformed)?;
    if magic != MAGIC {
        return Err(Malformed);
    }
    if version != VERSION || !matches!(kind, HELLO | PROBE | PROBE_ACK | PUNCH) {
        return Ok(Message::Unknown);
    }
    let fields = Fields::parse(body)?;
    Ok(match kind {
        HELLO => Message::Hello {
            capabilities: fields.capabilities.ok_or(Malformed)?,
            vnis: fields.vnis.unwrap_or_default(),
            incarnation: fields.incarnation.ok_or(Malformed)?,
            reply_wanted: fields.reply_wanted.is_some(),
        },
        PROBE => Message::Probe { token: fields.token.ok_or(Malformed)? },
        PROBE_ACK => Message::ProbeAck {
            token: fields.token.ok_or(Malformed)?,
            size: fields.size.ok_or(Malformed)?,
            seen: fields.seen,
        },
        _ => Message::Punch {
            addresses: fields.addresses.ok_or(Malformed)?,
            reply_wanted: fields.reply_wanted.is_some(),
        },
    })
}

#[derive(Default)]
struct Fields {
    capabilities: Option<u32>,
    vnis: Option<Vec<u32>>,
    incarnation: Option<u64>,
    reply_wanted: Option<()>,
    token: Option<u64>,
    size: Option<u16>,
    seen: Option<SocketAddr>,
    addresses: Option<Vec<SocketAddr>>,
}

impl Fields {
    fn parse(mut body: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        while let Some((&field, rest)) = body.split_first()
            && field != END
        {
            let (&len, rest) = rest.split_first_chunk().ok_or(Malformed)?;
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(len))).ok_or(Malformed)?;
            body = rest;
            match field {
                CAPABILITIES => set(&mut fields.capabilities, u32::from_be_bytes(exactly(value)?))?,
                NETWORKS => set(&mut fields.vnis, parse_vnis(value)?)?,
                INCARNATION => set(&mut fields.incarnation, u64::from_be_bytes(exactly(value)?))?,
                REPLY_WANTED => set(&mut fields.reply_wanted, exactly::<0>(value).map(|_| ())?)?,
                TOKEN => set(&mut fields.token, u64::from_be_bytes(exactly(value)?))?,
                SIZE => set(&mut fields.size, u16::from_be_bytes(exactly(value)?))?,
                SEEN => match parse_addresses(value)?[..] {
                    [address] => set(&mut fields.seen, address)?,
                    _ => return Err(Malformed),
                },
                ADDRESSES => set(&mut fields.addresses, parse_addresses(value)?)?,
                _ => (),
            }
        }
        Ok(fields)
    }
}

fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed)
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if field.replace(value).is_some() { Err(Malformed) } else { Ok(()) }
}

fn parse_vnis(value: &[u8]) -> Result<Vec<u32>, Malformed> {
    let (words, rest) = value.as_chunks::<4>();
    if !rest.is_empty() || words.len() > MAX_VNIS {
        return Err(Malformed);
    }
    let vnis: Vec<u32> = words.iter().map(|&word| u32::from_be_bytes(word)).collect();
    if vnis.iter().all(|vni| (1..1 << 24).contains(vni)) { Ok(vnis) } else { Err(Malformed) }
}

fn parse_addresses(value: &[u8]) -> Result<Vec<SocketAddr>, Malformed> {
    let (mut reader, mut addresses) = (Reader(value), Vec::new());
    while !reader.is_empty() {
        let ip: IpAddr = match reader.u8()? {
            4 => reader.array::<4>()?.into(),
            6 => reader.array::<16>()?.into(),
            _ => return Err(Malformed),
        };
        if addresses.len() == MAX_ADDRESSES {
            return Err(Malformed);
        }
        addresses.push(SocketAddr::new(ip, reader.u16()?));
    }
    Ok(addresses)
}

fn write_addresses(addresses: &[SocketAddr]) -> Vec<u8> {
    let mut value = Writer::default();
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match address.ip() {
            IpAddr::V4(ip) => value.u8(4).bytes(&ip.octets()),
            IpAddr::V6(ip) => value.u8(6).bytes(&ip.octets()),
        };
        value.u16(address.port());
    }
    value.0
}

/// The whole inner packet, IPv4 header included, that carries `message`; with `pad_to`, exactly that many bytes
/// unless the message alone is longer. Of a hello's networks the first [`MAX_VNIS`] are told. Its identification is
/// zero: whoever fragments it gives it one.
pub fn packet(message: &Message, source: Ipv4Addr, destination: Ipv4Addr, pad_to: Option<usize>) -> Vec<u8> {
    let mut packet = vec![0; IPV4_LEN + UDP_LEN];
    write(message, &mut packet);
    let len = pad_to.unwrap_or(0).min(usize::from(u16::MAX)).max(packet.len());
    packet.resize(len, END);
    let (envelope, payload) = packet.split_at_mut(IPV4_LEN + UDP_LEN);
    emit_envelope(envelope, source, destination, 0, TTL, (MESH_PORT, MESH_PORT), payload.len());
    packet
}

/// The whole inner packet that carries a message written already.
pub fn envelope(payload: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; IPV4_LEN + UDP_LEN];
    emit_envelope(&mut packet, source, destination, 0, TTL, (MESH_PORT, MESH_PORT), payload.len());
    packet.extend_from_slice(payload);
    packet
}

fn write(message: &Message, to: &mut Vec<u8>) {
    let kind = match message {
        Message::Hello { .. } => HELLO,
        Message::Probe { .. } => PROBE,
        Message::ProbeAck { .. } => PROBE_ACK,
        Message::Punch { .. } => PUNCH,
        Message::Unknown => NO_TYPE,
    };
    to.extend([MAGIC, VERSION, kind, 0]);
    let mut field = |kind: u8, value: &[u8]| {
        to.push(kind);
        to.extend((value.len() as u16).to_be_bytes());
        to.extend(value);
    };
    match message {
        Message::Hello { capabilities, vnis, incarnation, reply_wanted } => {
            let vnis: Vec<u8> = vnis.iter().take(MAX_VNIS).flat_map(|vni| vni.to_be_bytes()).collect();
            field(CAPABILITIES, &capabilities.to_be_bytes());
            field(NETWORKS, &vnis);
            field(INCARNATION, &incarnation.to_be_bytes());
            if *reply_wanted {
                field(REPLY_WANTED, &[]);
            }
        }
        Message::Probe { token } => field(TOKEN, &token.to_be_bytes()),
        Message::ProbeAck { token, size, seen } => {
            field(TOKEN, &token.to_be_bytes());
            field(SIZE, &size.to_be_bytes());
            if let Some(address) = seen {
                field(SEEN, &write_addresses(&[*address]));
            }
        }
        Message::Punch { addresses, reply_wanted } => {
            field(ADDRESSES, &write_addresses(addresses));
            if *reply_wanted {
                field(REPLY_WANTED, &[]);
            }
        }
        Message::Unknown => (),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::vxlan::{self, Payload};
    use proptest::prelude::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

    #[test]
    fn the_bytes_of_a_hello_are_these() {
        let hello = Message::Hello {
            capabilities: PARTIAL_CHECKSUM,
            vnis: vec![7, 0xab_cdef],
            incarnation: 9,
            reply_wanted: true,
        };
        #[rustfmt::skip]
        let expected = [
            0x45, 0, 0, 0x47, 0, 0, 0, 0, 64, 17, 0xb2, 0x23, 100, 64, 0, 1, 100, 64, 0, 2, // IPv4, 71 bytes in all
            0x24, 0x7a, 0x24, 0x7a, 0, 51, 0, 0,                                            // UDP 9338, 51 bytes
            b'W', 1, 1, 0,
            1, 0, 4, 0, 0, 0, 1,
            2, 0, 8, 0, 0, 0, 7, 0, 0xab, 0xcd, 0xef,
            3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9,
            4, 0, 0,
            0, 0, 0, 0, 0, 0, 0,                                                            // padding
        ];
        assert_eq!(packet(&hello, SOURCE, DESTINATION, Some(71)), expected);
        assert_eq!(parse(&expected[28..]), Ok(hello));
    }

    #[test]
    fn the_bytes_of_a_probe_and_its_answer_are_these() {
        let probe = Message::Probe { token: 0x0102_0304_0506_0708 };
        let bytes = [b'W', 1, 2, 0, 5, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(packet(&probe, SOURCE, DESTINATION, None)[28..], bytes);
        assert_eq!(parse(&bytes), Ok(probe));
        let mut ack = Message::ProbeAck { token: 1, size: 1440, seen: None };
        let mut bytes = vec![b'W', 1, 3, 0, 5, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0, 2, 0x05, 0xa0];
        assert_eq!(packet(&ack, SOURCE, DESTINATION, None)[28..], bytes);
        assert_eq!(parse(&bytes), Ok(ack.clone()));
        if let Message::ProbeAck { seen, .. } = &mut ack {
            *seen = Some("192.0.2.1:51820".parse().unwrap());
        }
        bytes.extend([7, 0, 7, 4, 192, 0, 2, 1, 0xca, 0x6c]);
        assert_eq!(packet(&ack, SOURCE, DESTINATION, None)[28..], bytes);
        assert_eq!(parse(&bytes), Ok(ack));
    }

    #[test]
    fn the_bytes_of_a_punch_are_these() {
        let addresses = vec!["192.0.2.1:51820".parse().unwrap(), "[2001:db8::1]:9".parse().unwrap()];
        let punch = Message::Punch { addresses, reply_wanted: true };
        #[rustfmt::skip]
        let bytes = [
            b'W', 1, 40, 0,
            8, 0, 26, 4, 192, 0, 2, 1, 0xca, 0x6c,
            6, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9,
            4, 0, 0,
        ];
        assert_eq!(packet(&punch, SOURCE, DESTINATION, None)[28..], bytes);
        assert_eq!(parse(&bytes), Ok(punch));
        let body = |body: &[u8]| parse(&[&[b'W', 1, 40, 0], body].concat());
        assert!(body(&[8, 0, 0]).is_ok());
        assert_eq!(body(&[]), Err(Malformed), "no addresses");
        assert_eq!(body(&[8, 0, 7, 5, 0, 0, 0, 0, 0, 0]), Err(Malformed), "no family");
        assert_eq!(body(&[8, 0, 6, 4, 0, 0, 0, 0, 0]), Err(Malformed), "half a port");
        let many = [4, 192, 0, 2, 1, 0, 1].repeat(MAX_ADDRESSES + 1);
        assert_eq!(body(&[&[8, 0, many.len() as u8][..], &many].concat()), Err(Malformed), "too many");
    }

    #[test]
    fn what_comes_from_the_future_is_let_through() {
        let probe = Ok(Message::Probe { token: 1 });
        assert_eq!(parse(&[b'W', 1, 2, 0xff, 200, 0, 2, 9, 9, 5, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]), probe);
        assert_eq!(parse(&[b'W', 1, 77, 0, 1, 0, 9]), Ok(Message::Unknown));
        assert_eq!(parse(&[b'W', 2, 1, 0, 0xff]), Ok(Message::Unknown));
        assert_eq!(parse(&packet(&Message::Unknown, SOURCE, DESTINATION, None)[28..]), Ok(Message::Unknown));
    }

    #[test]
    fn what_is_not_a_message_is_malformed() {
        let token = [5, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1];
        let probe = |body: &[&[u8]]| parse(&[&[b'W', 1, 2, 0], body.concat().as_slice()].concat());
        assert!(probe(&[&token]).is_ok());
        assert_eq!(probe(&[]), Err(Malformed), "no token");
        assert_eq!(probe(&[&[0], &token]), Err(Malformed), "the token is padding");
        assert_eq!(probe(&[&token, &token]), Err(Malformed), "two tokens");
        assert_eq!(probe(&[&token[..10]]), Err(Malformed), "cut short");
        assert_eq!(probe(&[&token, &[5]]), Err(Malformed), "no length");
        assert_eq!(probe(&[&token, &[6, 0, 3, 0, 0, 0]]), Err(Malformed), "a wrong length");
        assert_eq!(probe(&[&token, &[2, 0, 4, 0, 0, 0, 0]]), Err(Malformed), "VNI 0");
        assert_eq!(probe(&[&token, &[2, 0, 4, 1, 0, 0, 0]]), Err(Malformed), "a VNI of 25 bits");
        assert_eq!(parse(&[&[b'w', 1, 2, 0], &token[..]].concat()), Err(Malformed));
        assert_eq!(parse(b"W\x01\x02"), Err(Malformed));
        let vnis = [0, 0, 0, 1].repeat(MAX_VNIS + 1);
        let networks = [&[2][..], &(vnis.len() as u16).to_be_bytes(), &vnis].concat();
        assert_eq!(probe(&[&token, &networks]), Err(Malformed), "too many networks");
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        (any::<bool>(), any::<[u8; 16]>(), any::<u16>()).prop_map(|(v4, ip, port)| {
            let v4 = v4.then(|| IpAddr::from([ip[0], ip[1], ip[2], ip[3]]));
            SocketAddr::new(v4.unwrap_or_else(|| IpAddr::from(ip)), port)
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        let vnis = proptest::collection::vec(1u32..1 << 24, 0..=MAX_VNIS);
        prop_oneof![
            (any::<u32>(), vnis, any::<u64>(), any::<bool>()).prop_map(
                |(capabilities, vnis, incarnation, reply_wanted)| Message::Hello {
                    capabilities,
                    vnis,
                    incarnation,
                    reply_wanted
                }
            ),
            any::<u64>().prop_map(|token| Message::Probe { token }),
            (any::<u64>(), any::<u16>(), proptest::option::of(address()))
                .prop_map(|(token, size, seen)| Message::ProbeAck { token, size, seen }),
            (proptest::collection::vec(address(), 0..=MAX_ADDRESSES), any::<bool>())
                .prop_map(|(addresses, reply_wanted)| Message::Punch { addresses, reply_wanted }),
        ]
    }

    proptest! {
        #[test]
        fn a_message_comes_out_of_its_packet_whatever_the_padding(
            message in message(), pad_to in proptest::option::of(0usize..9000),
        ) {
            let bytes = packet(&message, SOURCE, DESTINATION, pad_to);
            let bare = packet(&message, SOURCE, DESTINATION, None).len();
            prop_assert_eq!(bytes.len(), pad_to.unwrap_or(0).max(bare));
            let inner = vxlan::parse(&bytes).unwrap();
            prop_assert_eq!((inner.source, inner.destination), (SOURCE, DESTINATION));
            let Payload::Message(range) = inner.payload else { panic!("not a message") };
            prop_assert_eq!(parse(&bytes[range]), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            kind in prop_oneof![0u8..5, Just(PUNCH)], mut body in proptest::collection::vec(0u8..12, 0..60), raw: bool,
        ) {
            if !raw {
                body.splice(..0, [b'W', 1, kind, 0]);
            }
            let _ = parse(&body);
        }
    }
}
