//! IGMP, versions 1 to 3 (RFC 1112, RFC 2236, RFC 9776): who listens to which IPv4 group.
//!
//! ```text
//!  0             1             2             4
//! | type        | max resp    | checksum    | group                                    0x11 query, 0x12 and 0x16 reports,
//!                                                                                      0x17 leave
//!                                           | S, QRV | QQIC | sources | source ...      a query of version 3 goes on
//! | 0x22        | 0           | checksum    | 0    | records | record ...              a report of version 3
//! ```

use super::bytes::Reader;
use super::checksum;
use super::ethernet::IPV4;
use super::multicast::{Class, QUERIER, QUERY_INTERVAL, ROBUSTNESS, Signal, records, single};
use super::{Malformed, vxlan::IPV4_LEN};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Its number as an IP protocol.
pub(super) const PROTOCOL: u8 = 2;

const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_V3: u8 = 0x22;
/// Type, code, checksum, group.
const SHORTEST: usize = 8;
/// For each router on the way to look at (RFC 2113): hosts ignore messages without it.
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
/// Internetwork control (RFC 9776 §4).
const TYPE_OF_SERVICE: u8 = 0xc0;

/// What a packet of this protocol is; `None` if that is unknown or cannot be seen.
pub(super) fn classify(packet: &[u8]) -> Option<Class> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    match *packet.get(header)? {
        QUERY => Some(Class::Router),
        REPORT_V1 | REPORT_V2 | REPORT_V3 | LEAVE => Some(Class::Report),
        _ => None,
    }
}

/// What a packet of this protocol says.
pub(super) fn read(packet: &[u8]) -> Result<Signal, Malformed> {
    let ip = packet.first_chunk::<IPV4_LEN>().ok_or(Malformed)?;
    let (header, total) = (usize::from(ip[0] & 0x0f) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
    // Neither of them is ever fragmented: what is one of many bits of a fragment is no message.
    let whole = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff == 0;
    if ip[0] >> 4 != 4 || header < IPV4_LEN || ip[9] != PROTOCOL || !whole {
        return Err(Malformed);
    }
    let message = packet.get(header..total).filter(|message| message.len() >= SHORTEST).ok_or(Malformed)?;
    if !checksum::verifies(0, message) {
        return Err(Malformed);
    }
    let mut fields = Reader(message);
    let (kind, _code, _checksum) = (fields.u8()?, fields.u8()?, fields.u16()?);
    match kind {
        QUERY if ip[12..16] == [0; 4] => Ok(Signal::Nothing),
        QUERY => Ok(Signal::Router(Ipv4Addr::UNSPECIFIED.into())),
        REPORT_V3 => records::<4>(fields),
        REPORT_V1 | REPORT_V2 | LEAVE => single(fields.array::<4>()?.into(), kind != LEAVE),
        _ => Err(Malformed),
    }
}

/// A query of version 3 to all, or to who listens to `group`, as a frame. It is to be answered within `within`, at most 12.7 s.
/// It has no source address: so it never wins the election against a router (RFC 4541 §2.1.1).
pub fn query(group: Option<Ipv4Addr>, within: Duration) -> Vec<u8> {
    let to = group.unwrap_or(Ipv4Addr::new(224, 0, 0, 1)).octets();
    let mut frame = vec![0x01, 0x00, 0x5e, to[1] & 0x7f, to[2], to[3]];
    frame.extend(QUERIER.0);
    frame.extend(IPV4.to_be_bytes());

    let mut ip = [0; IPV4_LEN + ROUTER_ALERT.len()];
    ip[..4].copy_from_slice(&[0x46, TYPE_OF_SERVICE, 0, 36]);
    ip[8..10].copy_from_slice(&[1, PROTOCOL]);
    ip[16..20].copy_from_slice(&to);
    ip[20..].copy_from_slice(&ROUTER_ALERT);
    checksum::finish_ipv4(&mut ip);
    frame.extend(ip);

    // Below 128 the code is the time itself, in tenths of a second (RFC 9776 §4.1.1).
    let code = u8::try_from(within.as_millis() / 100).unwrap_or(u8::MAX).min(127);
    let mut message = [QUERY, code, 0, 0, 0, 0, 0, 0, ROBUSTNESS, QUERY_INTERVAL, 0, 0];
    message[4..8].copy_from_slice(&group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    let sum = !checksum::fold(checksum::sum(0, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
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

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    /// A frame with this message in it, the checksum made right.
    fn frame(source: [u8; 4], options: &[u8], mut message: Vec<u8>) -> Vec<u8> {
        let sum = !naive_sum(0, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = 20 + options.len();
        let mut frame = vec![0x01, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x40 | (header / 4) as u8, 0, 0, (header + message.len()) as u8, 0, 0, 0x40, 0, 1, 2, 0, 0]);
        frame.extend(source);
        frame.extend([239, 1, 2, 3]);
        frame.extend(options);
        frame.extend(message);
        frame
    }

    fn said(bytes: &[u8]) -> (Class, Result<Signal, Malformed>) {
        (class_of(&Frame::parse(bytes).unwrap()), read_frame(bytes))
    }

    fn records(list: &[(Ipv4Addr, bool)]) -> Result<Signal, Malformed> {
        let record = |&(group, listens): &(Ipv4Addr, bool)| Record { group: group.into(), listens };
        Ok(Signal::Records(list.iter().map(record).collect()))
    }

    #[test]
    fn reports_of_all_versions_are_read() {
        let old = |kind: u8| frame([10, 0, 0, 1], &[], vec![kind, 0, 0, 0, 239, 1, 2, 3]);
        assert_eq!(said(&old(0x12)), (Class::Report, records(&[(GROUP, true)])));
        assert_eq!(said(&old(0x16)), (Class::Report, records(&[(GROUP, true)])));
        assert_eq!(said(&old(0x17)), (Class::Report, records(&[(GROUP, false)])));
        #[rustfmt::skip]
        let message = vec![
            0x22, 0, 0, 0, 0, 0, 0, 7,
            4, 0, 0, 0, 239, 1, 2, 3,                             // to exclude nothing: join
            3, 0, 0, 0, 239, 1, 2, 4,                             // to include nothing: leave
            3, 0, 0, 1, 239, 1, 2, 5, 10, 0, 0, 9,                // to include one source
            6, 0, 0, 1, 239, 1, 2, 6, 10, 0, 0, 9,                // one source less
            2, 1, 0, 0, 239, 1, 2, 7, 1, 2, 3, 4,                 // with auxiliary data
            9, 0, 0, 0, 239, 1, 2, 8,                             // a type from the future
            4, 0, 0, 0, 224, 0, 0, 251,                           // of the link
        ];
        let group = |last| Ipv4Addr::new(239, 1, 2, last);
        let expected = [(group(3), true), (group(4), false), (group(5), true), (group(6), false), (group(7), true)];
        assert_eq!(said(&frame([10, 0, 0, 1], &ROUTER_ALERT, message)), (Class::Report, records(&expected)));
    }

    #[test]
    fn a_query_tells_of_a_router_unless_a_switch_sent_it() {
        let message = vec![0x11, 100, 0, 0, 0, 0, 0, 0];
        let router = Signal::Router(Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(said(&frame([10, 0, 0, 1], &[], message.clone())), (Class::Router, Ok(router)));
        assert_eq!(said(&frame([0; 4], &[], message)), (Class::Router, Ok(Signal::Nothing)));
        assert_eq!(said(&query(None, Duration::from_secs(1))), (Class::Router, Ok(Signal::Nothing)));
    }

    #[test]
    fn a_query_is_what_the_standard_says() {
        let general = query(None, Duration::from_secs(10));
        #[rustfmt::skip]
        let expected = [
            0x01, 0x00, 0x5e, 0, 0, 1, 0x02, b'w', b'e', b'f', b't', 0, 0x08, 0x00,
            0x46, 0xc0, 0, 36, 0, 0, 0, 0, 1, 2, 0x44, 0x13, 0, 0, 0, 0, 224, 0, 0, 1, 0x94, 4, 0, 0,
            0x11, 100, 0xec, 0x1e, 0, 0, 0, 0, 2, 125, 0, 0,
        ];
        assert_eq!(general, expected);
        let specific = query(Some(GROUP), Duration::from_secs(99));
        assert_eq!((&specific[..6], specific[39]), (&[0x01, 0x00, 0x5e, 1, 2, 3][..], 127));
        assert_eq!((&specific[30..34], &specific[42..46]), (&GROUP.octets()[..], &GROUP.octets()[..]));
        assert_eq!((naive_sum(0, &specific[14..38]), naive_sum(0, &specific[38..])), (0xffff, 0xffff));
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_malformed() {
        let good = frame([10, 0, 0, 1], &[], vec![0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3]);
        assert!(read_frame(&good).is_ok());
        for cut in 0..good.len() {
            assert!(read_frame(&good[..cut]).is_err(), "{cut}");
        }
        for at in [14, 20, 23, 36, 49] {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            assert!(read_frame(&bad).is_err(), "byte {at}");
        }
        assert!(read_frame(&frame([10, 0, 0, 1], &[], vec![0x16, 0, 0, 0, 10, 1, 2, 3])).is_err(), "not a group");
        let more = frame([10, 0, 0, 1], &[], vec![0x22, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 239, 1, 2, 3]);
        assert!(read_frame(&more).is_err(), "a record is missing");
    }

    #[test]
    fn data_is_for_who_listens_and_what_concerns_the_link_for_everyone() {
        let mut data = frame([10, 0, 0, 1], &[], vec![0; 30]);
        data[23] = 17;
        let class = |frame: &[u8]| class_of(&Frame::parse(frame).unwrap());
        assert_eq!(class(&data), Class::Group(GROUP.into()));
        data[30..34].copy_from_slice(&[224, 0, 0, 251]);
        assert_eq!(class(&data), Class::Everyone);
        data[30..34].copy_from_slice(&[224, 0, 1, 1]);
        assert_eq!(class(&data), Class::Group(Ipv4Addr::new(224, 0, 1, 1).into()));
        data[0..6].fill(0xff);
        assert_eq!(class(&data), Class::Everyone, "a broadcast");
        let mut tagged = frame([10, 0, 0, 1], &[], vec![0; 30]);
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(class(&tagged), Class::Everyone);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            options in 0usize..12, mut message in proptest::collection::vec(0u8..12, 8..100), kind: u8, cut in 0usize..120,
        ) {
            message[0] = [0x11, 0x12, 0x16, 0x17, 0x22, kind][usize::from(kind % 6)];
            let mut bytes = frame([10, 0, 0, 1], &vec![0; options * 4], message);
            let _ = said(&bytes);
            bytes.truncate(cut.max(14));
            let _ = said(&bytes);
        }
    }
}
