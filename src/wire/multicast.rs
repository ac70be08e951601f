//! Multicast as a switch that listens in sees it (RFC 4541): which frames are for whom, and who says what he listens to.
//!
//! [`classify`] looks at a frame to a group address as briefly as it can, for it is asked about each; [`read`] takes a
//! message of IGMP ([`super::igmp`]) or MLD ([`super::mld`]) apart, with all its checks. VLAN-tagged frames are for
//! everyone: what is said inside a tag concerns a network that is not ours.
//!
//! Groups that concern a single link are never narrowed (RFC 4541 §2.1.2): routing protocols, neighbour solicitations, mDNS.
//! Many of their listeners never say that they listen. Sources are not told apart: whoever wants a group from some sources
//! gets it from all, and its kernel chooses.

use super::bytes::Reader;
use super::ethernet::{Frame, HEADER_LEN, IPV4, IPV6, Mac};
use super::{Malformed, igmp, mld};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The source of queries that a switch sends, a local address that no container has by chance ("weft" in its middle).
pub(super) const QUERIER: Mac = Mac([0x02, b'w', b'e', b'f', b't', 0]);
/// Seconds between general queries, as told in them: the default of RFC 9776 §8.2 and RFC 9777 §9.2.
pub const QUERY_INTERVAL: u8 = 125;
/// How many queries or reports in a row may be lost (RFC 9776 §8.1).
pub const ROBUSTNESS: u8 = 2;
/// Protocol Independent Multicast: whoever speaks it is a router.
const PIM: u8 = 103;

/// What a frame to a group address is, to a switch that listens in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// For everyone in the network.
    Everyone,
    /// For everyone, and it tells who is a multicast router: a query, or PIM.
    Router,
    /// For multicast routers: it tells who listens to what, and other listeners must not hear it.
    Report,
    /// For who listens to this group.
    Group(IpAddr),
}

/// What a message of IGMP, MLD or PIM says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Its sender is a multicast router and needs all groups of its family, which is that of this unspecified address.
    Router(IpAddr),
    /// Its sender listens to these groups, or not any more. Groups of a single link are left out.
    Records(Vec<Record>),
    /// Nothing of consequence: a query of a switch like this one.
    Nothing,
}

/// One group in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The group.
    pub group: IpAddr,
    /// Whether the sender listens to it. If not, others behind the same port may.
    pub listens: bool,
}

/// Whether a group is for everyone, listening or not: 224.0.0.0/24, and IPv6 scopes up to the link.
pub fn is_of_the_link(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
        IpAddr::V6(group) => group.octets()[1] & 0x0f <= 2,
    }
}

/// What a frame is, as far as its headers tell.
pub fn classify(frame: &Frame<'_>) -> Class {
    let (payload, [first, second, ..]) = (frame.payload(), frame.destination().0);
    let class = match (frame.payload_offset(), frame.ethertype(), first, second) {
        (HEADER_LEN, IPV4, 0x01, 0x00) => classify_v4(payload),
        (HEADER_LEN, IPV6, 0x33, 0x33) => classify_v6(payload),
        _ => None,
    };
    class.unwrap_or(Class::Everyone)
}

fn classify_v4(packet: &[u8]) -> Option<Class> {
    let group = Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?);
    match *packet.get(9)? {
        igmp::PROTOCOL => igmp::classify(packet),
        PIM => Some(Class::Router),
        _ => class_of(group.into(), group.is_multicast()),
    }
}

fn classify_v6(packet: &[u8]) -> Option<Class> {
    let group = Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?);
    match *packet.get(6)? {
        PIM => Some(Class::Router),
        _ => mld::classify(packet).or_else(|| class_of(group.into(), group.is_multicast())),
    }
}

fn class_of(group: IpAddr, is_multicast: bool) -> Option<Class> {
    (is_multicast && !is_of_the_link(group)).then_some(Class::Group(group))
}

/// What a frame that is a [`Class::Report`] or [`Class::Router`] says.
///
/// # Errors
/// [`Malformed`] when it is cut short, a checksum is wrong, or it is none of those.
pub fn read(frame: &[u8]) -> Result<Signal, Malformed> {
    let frame = Frame::parse(frame)?;
    match frame.ethertype() {
        _ if frame.payload_offset() != HEADER_LEN => Err(Malformed),
        IPV4 if frame.payload().get(9) == Some(&PIM) => Ok(Signal::Router(Ipv4Addr::UNSPECIFIED.into())),
        IPV6 if frame.payload().get(6) == Some(&PIM) => Ok(Signal::Router(Ipv6Addr::UNSPECIFIED.into())),
        IPV4 => igmp::read(frame.payload()),
        IPV6 => mld::read(frame.payload()),
        _ => Err(Malformed),
    }
}

/// One group as the older versions of both protocols name it.
pub(super) fn single(group: IpAddr, listens: bool) -> Result<Signal, Malformed> {
    if !group.is_multicast() {
        return Err(Malformed);
    }
    let record = Record { group, listens };
    Ok(Signal::Records(if is_of_the_link(group) { Vec::new() } else { vec![record] }))
}

/// The group records of IGMPv3 (RFC 9776 §4.2) and MLDv2 (RFC 9777 §5.2), which differ in the size of an address alone.
/// `rest` begins with two reserved bytes and their number.
pub(super) fn records<const N: usize>(mut rest: Reader<'_>) -> Result<Signal, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    rest.u16()?;
    let count = rest.u16()?;
    let mut records = Vec::new();
    for _ in 0..count {
        let (kind, words, sources) = (rest.u8()?, rest.u8()?, rest.u16()?);
        let group = IpAddr::from(rest.array::<N>()?);
        rest.take(usize::from(sources) * N + usize::from(words) * 4)?;
        // MODE_IS_INCLUDE, MODE_IS_EXCLUDE, CHANGE_TO_INCLUDE, CHANGE_TO_EXCLUDE, ALLOW_NEW_SOURCES, BLOCK_OLD_SOURCES:
        // to include nothing is to leave, and who blocks a source may have blocked his last.
        let listens = match kind {
            2 | 4 => true,
            1 | 3 | 5 => sources > 0,
            6 => false,
            _ => continue,
        };
        if !group.is_multicast() {
            return Err(Malformed);
        }
        if !is_of_the_link(group) {
            records.push(Record { group, listens });
        }
    }
    Ok(Signal::Records(records))
}
