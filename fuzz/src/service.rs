//! Frames of a container to its network's service address, and what is answered there.
//!
//! ```text
//!  again and again: the virtio-net header (10), milliseconds that pass (2), the frame's length (2), the frame
//! ```
//!
//! What must hold: an answer goes to the port that asked, from the service MAC to the station that asked, and is a frame; questions
//! handed out are pieces of what came in; and connections stay within their bound.

use super::input::Input;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use weft::io::service::stack::{Heard, Outcome, Stack};
use weft::switch::ids::PortId;
use weft::switch::topology::Network;
use weft::wire::checksum;
use weft::wire::ethernet::{Frame, Mac};
use weft::wire::vnet::{GSO_UDP_L4, VnetHeader};

const VNI: u32 = 100;
/// The service addresses.
pub const V4: [u8; 4] = [10, 32, 0, 1];
pub const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x32, 0, 0, 0, 0, 0, 1);
/// Connections of one port.
const CONNECTIONS: usize = 16;
const MAX_RECORDS: usize = 64;

/// The target.
pub fn run(data: &[u8]) {
    let service = [IpAddr::from(V4), V6.into()].into_iter().collect();
    let network = Network { vni: VNI, mtu: 1500, service, ..Network::default() };
    let mut stack = Stack::new(Duration::ZERO, 7);
    let mut input = Input::new(data);
    let mut now = Duration::ZERO;
    for _ in 0..MAX_RECORDS {
        let Some(header) = input.bytes(10).first_chunk::<10>() else { return };
        let (Some(passed), Some(length)) = (input.word(), input.word()) else { return };
        let frame = input.bytes(usize::from(length));
        now += Duration::from_millis(passed.into());
        let heard = Heard { port: PortId(3), header: VnetHeader::parse(header), frame };
        let station = frame.get(6..12).map(<[u8]>::to_vec);
        if let Outcome::Queries(asker, queries) = stack.input(now, &network, heard, 1) {
            for query in queries {
                assert!(!query.is_empty() && query.len() <= frame.len());
                let mut answer = Vec::new();
                asker.datagram(query, &mut answer);
                check(PortId(3), &answer, station.as_deref());
            }
        }
        for (asker, connection, query) in stack.take_queries() {
            stack.answer(now, asker, connection, &query);
        }
        for (port, answer) in stack.take_frames() {
            // What a timer sends belongs to an earlier frame.
            check(port, &answer, None);
        }
        stack.tick(now);
        assert!(stack.connections() <= CONNECTIONS);
    }
}

fn check(port: PortId, answer: &[u8], station: Option<&[u8]>) {
    let view = Frame::parse(answer).expect("an answer is a frame");
    assert_eq!((port, view.source()), (PortId(3), Mac::service(VNI)));
    assert!(station.is_none_or(|station| answer[..6] == *station));
}

/// What a container sends.
pub fn seeds(add: &mut dyn FnMut(&'static str, &str, Vec<u8>)) {
    let frame = |v4: bool, packet: &[u8]| {
        let ethertype: [u8; 2] = if v4 { [8, 0] } else { [0x86, 0xdd] };
        [&Mac::service(VNI).0[..], &[2, 0, 0, 0, 0, 9], &ethertype, packet].concat()
    };
    let record = |header: VnetHeader, passed: u16, frame: &[u8]| {
        [&header.to_bytes()[..], &passed.to_be_bytes(), &(frame.len() as u16).to_be_bytes(), frame].concat()
    };
    let to_v4 = |to: [u8; 4], protocol: u8, payload: &[u8]| {
        let mut header =
            [0x45, 0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 32, 1, 9, 0, 0, 0, 0];
        header[16..].copy_from_slice(&to);
        let sum = !checksum::fold(checksum::sum(0, &header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame(true, &[&header, payload].concat())
    };
    let to_v6 = |next: u8, payload: &[u8]| {
        let header = [0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
        let from = Ipv6Addr::new(0xfd00, 0x32, 0, 0, 0, 0, 1, 9).octets();
        frame(false, &[&header, &from[..], &V6.octets(), payload].concat())
    };
    let udp = |to: u16, payload: &[u8]| {
        let ports =
            [&[0x9c, 0x40][..], &to.to_be_bytes(), &(8 + payload.len() as u16).to_be_bytes(), &[0, 0]].concat();
        [&ports, payload].concat()
    };
    let tcp = |to: u16, flags: u8| {
        [&[0x9c, 0x40][..], &to.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0]].concat()
    };
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01";
    let plain = VnetHeader::default();
    let several = VnetHeader { gso_type: GSO_UDP_L4, gso_size: 12, ..plain };
    let outside = [192, 0, 2, 1];
    let ping = [8, 0, 0xe6, 0xf6, 0, 5, 0, 1, 9, 9, 8, 0];
    for (name, frame) in [
        ("ping", to_v4(V4, 1, &ping)),
        ("ping-of-six", to_v6(58, &[128, 0, 0, 0, 0, 5, 0, 1])),
        ("question", to_v4(V4, 17, &udp(53, question))),
        ("question-of-six", to_v6(17, &udp(53, question))),
        ("no-question", to_v4(V4, 17, &udp(53, b""))),
        ("traceroute", to_v4(V4, 17, &udp(33434, b"hop"))),
        ("begin", to_v4(V4, 6, &tcp(53, 2))),
        ("begin-of-six", to_v6(6, &tcp(53, 2))),
        ("refused", to_v4(V4, 6, &tcp(80, 2))),
        ("outside", to_v4(outside, 17, &udp(53, question))),
        ("error-outside", to_v4(outside, 1, &[3, 1, 0, 0, 0, 0, 0, 0])),
        ("options", to_v6(0, &[58, 0, 5, 2, 0, 0, 0, 0, 128, 0, 0, 0, 0, 5, 0, 1])),
    ] {
        add("service", name, record(plain, 1, &frame));
    }
    add("service", "several", record(several, 0, &to_v4(V4, 17, &udp(53, question))));
    let begins: Vec<u8> = (0..40)
        .flat_map(|n: u8| {
            let mut segment = tcp(53, 2);
            segment[1] = n;
            record(plain, 500, &to_v4(V4, 6, &segment))
        })
        .collect();
    add("service", "many-begin", begins);
    let ends = [2, 4, 2, 0x10, 0x11, 1].map(|flags| record(plain, 7000, &to_v4(V4, 6, &tcp(53, flags))));
    add("service", "begin-and-end", ends.concat());
}
