//! Multicast as applications do it: a kernel joins and leaves, and a stream goes where it is listened to.

use super::{Party, dropped, mac, status};
use crate::common::{SOON, eventually, place};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use weft::lab::Container;
use weft::lab::spec::CONTAINER_IFNAME;
use weft::wire::ethernet;

const PORT: u16 = 9999;

/// A socket that sends to groups by the container's interface.
fn sender(container: &Container) -> impl Fn(IpAddr, &str) {
    let sockets = container.netns.run(|| {
        let socket = |domain| Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        let (v4, v6) = (socket(Domain::IPV4), socket(Domain::IPV6));
        v4.set_multicast_if_v4(&container.v4).unwrap();
        v6.set_multicast_if_v6(index_of(container)).unwrap();
        v6.set_multicast_hops_v6(4).unwrap();
        (v4, v6)
    });
    let (v4, v6) = sockets.unwrap();
    move |group, text| {
        let socket = if group.is_ipv4() { &v4 } else { &v6 };
        socket.send_to(text.as_bytes(), &SockAddr::from(SocketAddr::new(group, PORT))).unwrap();
    }
}

fn index_of(container: &Container) -> u32 {
    place::link(&container.netns, CONTAINER_IFNAME).unwrap().index
}

/// A member of a group, as long as it lives.
fn join(container: &Container, group: IpAddr) -> UdpSocket {
    let index = index_of(container);
    let joined = container.netns.run(|| match group {
        IpAddr::V4(group) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            socket.join_multicast_v4(&group, &container.v4).unwrap();
            socket
        }
        IpAddr::V6(group) => {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
            socket.join_multicast_v6(&group, index).unwrap();
            socket
        }
    });
    joined.unwrap()
}

#[test]
fn a_stream_reaches_those_who_joined_and_nobody_else_and_ends_when_they_leave() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::spec(2, 3));
    let containers = lab.containers_of("lab");
    // Whatever they were asked when their ports came up is answered.
    containers[0].ping(containers[5].v4.into(), 56, SOON).unwrap();
    let mut party = Party::of(&containers);
    let send = sender(containers[0]);
    let groups: [IpAddr; 2] = ["239.7.7.7".parse().unwrap(), "ff05::7:7".parse().unwrap()];
    for group in groups {
        // Near and far.
        let members = [1, 4];
        let sockets = members.map(|member| join(containers[member], group));
        let mut round = 0;
        let mut try_once = |party: &mut Party, text: &str| {
            round += 1;
            let text = format!("{text} {round} to {group}.");
            send(group, &text);
            party.barrier(0);
            party.ears.iter_mut().map(|ear| ear.copies(text.as_bytes())).collect::<Vec<_>>()
        };
        eventually("both members get the stream", || {
            let copies = try_once(&mut party, "the stream");
            assert!([2, 3, 5].iter().all(|&other| copies[other] == 0), "{copies:?}");
            (copies == [0, 1, 0, 0, 1, 0]).then_some(())
        });
        drop(sockets);
        let before = dropped(lab.host(2), "no_listener");
        eventually("nobody gets it any more", || {
            let copies = try_once(&mut party, "still the stream");
            copies.iter().all(|&copies| copies == 0).then_some(())
        });
        let counted = dropped(lab.host(1), "no_listener") + dropped(lab.host(2), "no_listener");
        assert!(counted > before);
    }
    // No member heard another's report: it would have kept its own to itself.
    let report = |bytes: &[u8]| bytes.len() > 38 && bytes[12..14] == ethernet::IPV4.to_be_bytes() && bytes[23] == 2;
    for (ear, name) in party.ears.iter_mut().zip(&party.names) {
        let heard =
            ear.seen().iter().filter(|seen| !seen.outgoing && report(&seen.bytes)).any(|s| s.bytes[38] != 0x11);
        assert!(!heard, "{name} heard a report");
    }
    assert!(status(lab.host(1)).traffic.snooped_frames > 0);
}

#[test]
fn a_neighbour_whose_address_is_known_is_found_without_a_question_to_anybody() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::spec(2, 3));
    let containers = lab.containers_of("lab");
    let (asker, asked) = (containers[0], containers[1]);
    let mut party = Party::of(&containers);
    let before = status(lab.host(1)).traffic.suppressed_frames;
    asker.ping(asked.v4.into(), 56, SOON).unwrap();
    asker.ping(asked.v6.into(), 56, SOON).unwrap();
    party.barrier(0);
    assert!(status(lab.host(1)).traffic.suppressed_frames >= before + 2);
    let from = mac(asker);
    let question = |bytes: &[u8]| {
        let arp = bytes[12..14] == ethernet::ARP.to_be_bytes() && bytes[38..42] == asked.v4.octets();
        let solicitation = bytes.len() >= 78
            && bytes[12..14] == ethernet::IPV6.to_be_bytes()
            && (bytes[20], bytes[54]) == (58, 135)
            && bytes[62..78] == asked.v6.octets();
        bytes[6..12] == from.0 && bytes[0] & 1 != 0 && (arp || solicitation)
    };
    for (ear, name) in party.ears.iter_mut().zip(&party.names).skip(1) {
        assert!(!ear.seen().iter().any(|seen| question(&seen.bytes)), "{name} was asked");
    }
}
