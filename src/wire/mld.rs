//! MLD, versions 1 and 2 (RFC 2710, RFC 9777): who listens to which IPv6 group. It is part of ICMPv6.
//!
//! ```text
//!  0             1             2             4                    8
//! | type        | 0           | checksum    | max resp | 0       | group (16)          130 query, 131 report, 132 done
//!                                                               | S, QRV | QQIC | sources | source ...   a query of version 2
//! | 143         | 0           | checksum    | 0    | records     | record ...          a report of version 2
//! ```

use super::Malformed;
use super::bytes::Reader;
use super::checksum;
use super::ethernet::IPV6;
use super::multicast::{Class, QUERIER, QUERY_INTERVAL, ROBUSTNESS, Signal, records, single};
use std::net::Ipv6Addr;
use std::time::Duration;

const ICMPV6: u8 = 58;
/// The extension header that MLD stands behind, for its router alert (RFC 2711).
const HOP_BY_HOP: u8 = 0;

const IPV6_LEN: usize = 40;
const QUERY: u8 = 130;
const REPORT_V1: u8 = 131;
const DONE: u8 = 132;
const REPORT_V2: u8 = 143;
/// Next header, its own length, a router alert that says MLD, and padding.
const ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
/// Queries must come from a link-local address, and the lowest is elected (RFC 9777 §7.6.2): this one loses against every
/// router's.
const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xffff, 0xffff, 0xffff, 0xffff);

/// Where the ICMPv6 message begins in an IPv6 packet.
fn start(packet: &[u8]) -> Option<usize> {
    match *packet.get(6)? {
        ICMPV6 => Some(IPV6_LEN),
        HOP_BY_HOP if packet.get(IPV6_LEN) == Some(&ICMPV6) => {
            Some(IPV6_LEN + 8 + usize::from(*packet.get(IPV6_LEN + 1)?) * 8)
        }
        _ => None,
    }
}

/// What a packet is, if it is MLD.
pub(super) fn classify(packet: &[u8]) -> Option<Class> {
    match *packet.get(start(packet)?)? {
        QUERY => Some(Class::Router),
        REPORT_V1 | REPORT_V2 | DONE => Some(Class::Report),
        _ => None,
    }
}

/// What an IPv6 packet with MLD in it says.
pub(super) fn read(packet: &[u8]) -> Result<Signal, Malformed> {
    let ip = packet.first_chunk::<IPV6_LEN>().ok_or(Malformed)?;
    let end = IPV6_LEN + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let message = packet.get(start(packet).ok_or(Malformed)?..end).ok_or(Malformed)?;
    let pseudo = checksum::sum(u64::from(ICMPV6) + message.len() as u64, &ip[8..]);
    if ip[0] >> 4 != 6 || !checksum::verifies(pseudo, message) {
        return Err(Malformed);
    }
    let mut fields = Reader(message);
    let (kind, _code, _checksum) = (fields.u8()?, fields.u8()?, fields.u16()?);
    match kind {
        QUERY if ip[8..24] == SOURCE.octets() => Ok(Signal::Nothing),
        QUERY => Ok(Signal::Router(Ipv6Addr::UNSPECIFIED.into())),
        REPORT_V2 => records::<16>(fields),
        REPORT_V1 | DONE => {
            fields.u32()?;
            single(fields.array::<16>()?.into(), kind != DONE)
        }
        _ => Err(Malformed),
    }
}

/// A query of version 2 to all, or to who listens to `group`, as a frame. It is to be answered within `within`, at most 32 s.
pub fn query(group: Option<Ipv6Addr>, within: Duration) -> Vec<u8> {
    let to = group.unwrap_or(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)).octets();
    let mut frame = vec![0x33, 0x33, to[12], to[13], to[14], to[15]];
    frame.extend(QUERIER.0);
    frame.extend(IPV6.to_be_bytes());

    // Below 32,768 the code is the time itself, in milliseconds (RFC 9777 §5.1.3).
    let code = u16::try_from(within.as_millis()).unwrap_or(u16::MAX).min(0x7fff);
    let mut message = vec![QUERY, 0, 0, 0];
    message.extend(code.to_be_bytes());
    message.extend([0, 0]);
    message.extend(group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
    message.extend([ROBUSTNESS, QUERY_INTERVAL, 0, 0]);
    let addresses = [SOURCE.octets(), to].concat();
    let pseudo = checksum::sum(u64::from(ICMPV6) + message.len() as u64, &addresses);
    let sum = !checksum::fold(checksum::sum(pseudo, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    frame.extend([0x60, 0, 0, 0, 0, (ALERT.len() + message.len()) as u8, HOP_BY_HOP, 1]);
    frame.extend(addresses);
    frame.extend(ALERT);
    frame.extend(message);
    frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::ethernet::Frame;
    use crate::wire::multicast::{Record, classify as class_of, read as read_frame};
    use crate::wire::testing::naive_sum;
    use proptest::prelude::*;

    const ROUTER: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn group(last: u8) -> [u8; 16] {
        [0xff, 0x05, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
    }

    /// A frame with this message in it, the checksum made right.
    fn frame(source: [u8; 16], extension: &[u8], mut message: Vec<u8>) -> Vec<u8> {
        let addresses = [source, group(1)].concat();
        let pseudo = 58 + message.len() as u64 + u64::from(naive_sum(0, &addresses));
        let sum = !naive_sum(pseudo, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let next = if extension.is_empty() { 58 } else { 0 };
        let length = (extension.len() + message.len()) as u16;
        let mut frame = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0];
        frame.extend(length.to_be_bytes());
        frame.extend([next, 1]);
        frame.extend(addresses);
        frame.extend(extension);
        frame.extend(message);
        frame
    }

    fn said(bytes: &[u8]) -> (Class, Result<Signal, Malformed>) {
        (class_of(&Frame::parse(bytes).unwrap()), read_frame(bytes))
    }

    fn records(list: &[([u8; 16], bool)]) -> Result<Signal, Malformed> {
        let record = |&(group, listens): &([u8; 16], bool)| Record { group: group.into(), listens };
        Ok(Signal::Records(list.iter().map(record).collect()))
    }

    #[test]
    fn reports_of_both_versions_are_read() {
        let old = |kind: u8| frame(ROUTER, &ALERT, [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group(1)].concat());
        assert_eq!(said(&old(131)), (Class::Report, records(&[(group(1), true)])));
        assert_eq!(said(&old(132)), (Class::Report, records(&[(group(1), false)])));
        let solicited_node = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1];
        let message = [
            &[143, 0, 0, 0, 0, 0, 0, 4][..],
            &[&[4, 0, 0, 0][..], &group(1)].concat(),
            &[&[3, 0, 0, 0][..], &group(2)].concat(),
            &[&[5, 1, 0, 1][..], &group(3), &ROUTER, &[0; 4]].concat(),
            &[&[4, 0, 0, 0][..], &solicited_node].concat(),
        ];
        let expected = [(group(1), true), (group(2), false), (group(3), true)];
        assert_eq!(said(&frame(ROUTER, &ALERT, message.concat())), (Class::Report, records(&expected)));
        // A router alert is not what tells a report from data.
        assert_eq!(said(&frame([0; 16], &[], message.concat())), (Class::Report, records(&expected)));
    }

    #[test]
    fn a_query_tells_of_a_router_unless_a_switch_sent_it() {
        let message = [&[130, 0, 0, 0, 0, 10, 0, 0][..], &[0; 20]].concat();
        let router = Signal::Router(Ipv6Addr::UNSPECIFIED.into());
        assert_eq!(said(&frame(ROUTER, &ALERT, message)), (Class::Router, Ok(router)));
        assert_eq!(said(&query(None, Duration::from_secs(1))), (Class::Router, Ok(Signal::Nothing)));
    }

    #[test]
    fn a_query_is_what_the_standard_says() {
        let general = query(None, Duration::from_secs(10));
        assert_eq!(general[..14], [0x33, 0x33, 0, 0, 0, 1, 0x02, b'w', b'e', b'f', b't', 0, 0x86, 0xdd]);
        assert_eq!(general[14..22], [0x60, 0, 0, 0, 0, 36, 0, 1]);
        assert_eq!(general[54..62], [58, 0, 5, 2, 0, 0, 1, 0]);
        assert_eq!(general[62..64], [130, 0]);
        assert_eq!(general[66..], [&[0x27, 0x10, 0, 0][..], &[0; 16], &[2, 125, 0, 0]].concat());
        let specific = query(Some(group(7).into()), Duration::from_secs(99));
        assert_eq!((&specific[..6], &specific[66..68]), (&[0x33, 0x33, 0, 0, 0, 7][..], &[0x7f, 0xff][..]));
        assert_eq!((&specific[38..54], &specific[70..86]), (&group(7)[..], &group(7)[..]));
        let pseudo = 58 + 28 + u64::from(naive_sum(0, &specific[22..54]));
        assert_eq!(naive_sum(pseudo, &specific[62..]), 0xffff);
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_malformed() {
        let message = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &group(1)].concat();
        let good = frame(ROUTER, &ALERT, message.clone());
        assert!(read_frame(&good).is_ok());
        for cut in 0..good.len() {
            assert!(read_frame(&good[..cut]).is_err(), "{cut}");
        }
        for at in [14, 19, 20, 24, 54, 55, 62, 64, 69, 89] {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            assert!(read_frame(&bad).is_err(), "byte {at}");
        }
        let mut unicast = message;
        unicast[12] = 0x20;
        assert!(read_frame(&frame(ROUTER, &ALERT, unicast)).is_err(), "not a group");
    }

    #[test]
    fn data_is_for_who_listens_and_what_concerns_the_link_for_everyone() {
        let mut data = frame(ROUTER, &[], vec![0; 30]);
        data[20] = 17;
        let class = |frame: &[u8]| class_of(&Frame::parse(frame).unwrap());
        assert_eq!(class(&data), Class::Group(group(1).into()));
        for scope in [0, 1, 2] {
            data[39] = 0x10 | scope;
            assert_eq!(class(&data), Class::Everyone, "scope {scope}");
        }
        // A solicitation is ICMPv6 to a group of the link.
        assert_eq!(class(&frame(ROUTER, &[], vec![135; 24])), Class::Group(group(1).into()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            extension in proptest::collection::vec(0u8..60, 0..24), kind: u8, cut in 0usize..160,
            mut message in proptest::collection::vec(0u8..12, 8..120),
        ) {
            message[0] = [130, 131, 132, 143, kind][usize::from(kind % 5)];
            let mut bytes = frame(ROUTER, &extension, message);
            let _ = said(&bytes);
            bytes.truncate(cut.max(14));
            let _ = said(&bytes);
        }
    }
}
