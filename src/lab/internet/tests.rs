//! Packets through the internet, with two sites and their boxes, without a thread or a clock.

#![allow(clippy::unwrap_used)]
use super::firewall::FirewallSettings;
use super::nat::{Behaviour, NatSettings};
use super::packet::tests::packet;
use super::*;
use crate::lab::link::LinkSettings;
use crate::lab::topology::Site;
use proptest::prelude::*;
use std::time::Duration;

const UDP: u8 = 17;
const TCP: u8 = 6;

struct World {
    internet: Internet,
    now: Instant,
}

impl World {
    fn new(sites: impl IntoIterator<Item = Site>) -> Self {
        Self { internet: Internet::new(Topology::new(sites)), now: Instant::now() }
    }

    fn at(&self, text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Host `h` sends a packet to its gateway.
    fn send(&mut self, h: usize, protocol: u8, from: &str, to: &str, payload: &[u8]) {
        let bytes = packet(protocol, self.at(from), self.at(to), payload);
        let site = self.internet.topology.site_of(h).unwrap();
        let ethertype = if self.at(from).is_ipv4() { IPV4 } else { IPV6 };
        let frame = [&box_mac(site).0[..], &host_mac(h).0, &ethertype.to_be_bytes(), &bytes].concat();
        self.internet.input(self.now, h - 1, &frame);
    }

    /// Everything that arrives, until nothing is under way: to whom, from where, to where, after how long.
    fn arrivals(&mut self) -> Vec<(usize, SocketAddr, SocketAddr, Duration)> {
        let start = self.now;
        let mut all = Vec::new();
        while let Some(due) = self.internet.next_deadline() {
            self.now = due;
            while let Some(Delivery { to, frame }) = self.internet.output(due) {
                let view = Frame::parse(&frame).unwrap();
                assert_eq!(view.destination(), host_mac(to + 1));
                if let Some(Content::Flow(_, source, destination)) =
                    Packet::parse(view.payload()).map(|packet| packet.content())
                {
                    all.push((to + 1, source, destination, due - start));
                }
            }
        }
        all
    }

    /// The one thing that arrives: to whom and from where.
    fn arrival(&mut self) -> Option<(usize, SocketAddr)> {
        let all = self.arrivals();
        assert!(all.len() < 2, "{all:?}");
        all.first().map(|&(to, from, ..)| (to, from))
    }
}

fn cone_and_public() -> World {
    World::new([Site::behind(NatSettings::default(), [1]), Site::public([2]), Site::public([3])])
}

#[test]
fn who_is_behind_a_nat_is_seen_by_its_outside_and_answered_through_it() {
    for protocol in [UDP, TCP] {
        let mut world = cone_and_public();
        world.send(2, protocol, "192.0.2.2:7", "192.168.1.1:9", b"");
        assert_eq!((world.arrival(), world.internet.counts().unroutable), (None, 1));
        world.send(1, protocol, "192.168.1.1:9", "192.0.2.2:7", b"hello");
        assert_eq!(world.arrival(), Some((2, world.at("198.51.100.1:9"))));
        world.send(2, protocol, "192.0.2.2:7", "198.51.100.1:9", b"hello yourself");
        assert_eq!(world.arrival(), Some((1, world.at("192.0.2.2:7"))));
        world.send(3, protocol, "192.0.2.3:7", "198.51.100.1:9", b"");
        assert_eq!((world.arrival(), world.internet.counts().filtered), (None, 1));
        world.send(3, protocol, "192.0.2.3:7", "198.51.100.1:10", b"");
        assert_eq!((world.arrival(), world.internet.counts().unmapped), (None, 1));
    }
}

#[test]
fn two_cones_are_punched_by_simultaneous_datagrams_and_two_symmetric_nats_are_not() {
    let slow = |nat: NatSettings, h| Site {
        line: LinkSettings { delay: Duration::from_millis(10), ..Default::default() },
        ..Site::behind(nat, [h])
    };
    let mut world = World::new([slow(NatSettings::default(), 1), slow(NatSettings::default(), 2)]);
    // Each datagram arrives when the other has made its hole, though it was not there when it left.
    world.send(1, UDP, "192.168.1.1:9", "198.51.100.2:9", b"");
    world.send(2, UDP, "192.168.2.2:9", "198.51.100.1:9", b"");
    let arrived: Vec<(usize, SocketAddr)> = world.arrivals().iter().map(|&(to, from, ..)| (to, from)).collect();
    assert_eq!(arrived, [(2, world.at("198.51.100.1:9")), (1, world.at("198.51.100.2:9"))]);

    let mut world = World::new([slow(NatSettings::symmetric(), 1), slow(NatSettings::symmetric(), 2)]);
    world.send(1, UDP, "192.168.1.1:9", "198.51.100.2:9", b"");
    world.send(2, UDP, "192.168.2.2:9", "198.51.100.1:9", b"");
    assert_eq!((world.arrivals(), world.internet.counts().unmapped), (vec![], 2));
}

#[test]
fn hosts_behind_one_nat_meet_at_its_outside_only_if_it_turns_them_back() {
    for hairpin in [false, true] {
        let nat = NatSettings { hairpin, filtering: Behaviour::EndpointIndependent, ..Default::default() };
        let mut world = World::new([Site::behind(nat, [1, 2]), Site::public([3])]);
        world.send(1, UDP, "192.168.1.1:9", "192.0.2.3:7", b"");
        assert_eq!(world.arrival(), Some((3, world.at("198.51.100.1:9"))));
        world.send(2, UDP, "192.168.1.2:8", "198.51.100.1:9", b"");
        // The other sees the outside of its neighbour (RFC 4787 REQ-9).
        let expected = hairpin.then(|| (1, world.at("198.51.100.1:8")));
        assert_eq!(world.arrival(), expected);
    }
}

#[test]
fn a_nat_that_is_lifted_leaves_its_hosts_with_routed_addresses() {
    let mut world = cone_and_public();
    world.send(1, UDP, "192.168.1.1:9", "192.0.2.2:7", b"");
    assert!(world.arrival().is_some());
    world.internet.change(|topology| topology.sites[0].middlebox.nat = None);
    world.send(2, UDP, "192.0.2.2:7", "198.51.100.1:9", b"");
    assert_eq!(world.arrival(), None);
    world.send(2, UDP, "192.0.2.2:7", "192.168.1.1:9", b"");
    assert_eq!(world.arrival(), Some((1, world.at("192.0.2.2:7"))));
    // One that comes back knows nothing of before; one that did not change remembers.
    world.internet.change(|topology| topology.sites[0].middlebox.nat = Some(NatSettings::full_cone()));
    world.send(2, UDP, "192.0.2.2:7", "198.51.100.1:9", b"");
    assert_eq!(world.arrival(), None);
    world.send(1, UDP, "192.168.1.1:9", "192.0.2.2:7", b"");
    world.arrival().unwrap();
    world.internet.change(|topology| topology.sites[1].mtu = 1400);
    world.send(3, UDP, "192.0.2.3:7", "198.51.100.1:9", b"");
    assert_eq!(world.arrival(), Some((1, world.at("192.0.2.3:7"))));
}

#[test]
fn a_firewall_stands_before_both_families() {
    let mut world = World::new([Site::guarded(FirewallSettings::closed(), [1]), Site::public([2])]);
    for (inside, outside) in [("192.0.2.1:9", "192.0.2.2:7"), ("[2001:db8:0:1::1]:9", "[2001:db8:0:2::2]:7")] {
        world.send(2, UDP, outside, inside, b"");
        assert_eq!(world.arrival(), None);
        world.send(1, UDP, inside, outside, b"");
        assert_eq!(world.arrival(), Some((2, world.at(inside))));
        world.send(2, UDP, outside, inside, b"");
        assert_eq!(world.arrival(), Some((1, world.at(outside))));
    }
    assert_eq!(world.internet.counts().blocked, 2);
    world.internet.change(|topology| topology.sites[0].middlebox.firewall = FirewallSettings::without_udp());
    world.send(1, UDP, "192.0.2.1:9", "192.0.2.2:7", b"");
    assert_eq!(world.arrival(), None);
    world.send(1, TCP, "192.0.2.1:9", "192.0.2.2:7", b"");
    assert!(world.arrival().is_some());
}

#[test]
fn both_lines_take_their_time_and_their_toll() {
    let line = |ms, max_packet| LinkSettings { delay: Duration::from_millis(ms), max_packet, ..Default::default() };
    let near = Site { line: line(5, None), ..Site::public([1]) };
    let far = Site { line: line(20, Some(1280)), icmp: false, ..Site::public([2]) };
    let mut world = World::new([near, far]);
    world.send(1, UDP, "192.0.2.1:9", "192.0.2.2:7", &[0; 1252]);
    assert_eq!(world.arrivals()[0].3, Duration::from_millis(25));
    world.send(1, UDP, "192.0.2.1:9", "192.0.2.2:7", &[0; 1253]);
    assert_eq!((world.arrivals(), world.internet.counts().lines.too_large), (vec![], 1));
    // A router that talks says so to whoever sent it.
    world.internet.change(|topology| topology.sites[1].icmp = true);
    world.send(1, UDP, "192.0.2.1:9", "192.0.2.2:7", &[0; 1253]);
    let mut told = Vec::new();
    while let Some(due) = world.internet.next_deadline() {
        told.extend(std::iter::from_fn(|| world.internet.output(due)));
    }
    let error = Packet::parse(&told[0].frame[14..]).unwrap();
    assert_eq!((told.len(), told[0].to, error.content()), (1, 0, Content::Error));
    assert_eq!(error.bytes()[26..28], 1280u16.to_be_bytes());
    // Behind a NAT the sender is told of the packet it knows.
    world.internet.change(|topology| topology.sites[0].middlebox.nat = Some(NatSettings::default()));
    world.send(1, UDP, "192.0.2.1:9", "192.0.2.2:7", &[0; 1253]);
    let mut told = Vec::new();
    while let Some(due) = world.internet.next_deadline() {
        told.extend(std::iter::from_fn(|| world.internet.output(due)));
    }
    assert_eq!(told[0].frame[14 + 28 + 12..][..4], [192, 0, 2, 1]);
}

#[test]
fn what_is_apart_does_not_meet_and_healing_is_at_once() {
    let mut world = World::new([Site::public([1, 2]), Site::public([3])]);
    let send = |world: &mut World, to: &str| {
        world.send(1, UDP, "192.0.2.1:9", to, b"");
        world.arrival().is_some()
    };
    assert!(send(&mut world, "192.0.2.3:7"));
    world.internet.change(|topology| topology.groups = vec![[1, 2].into()]);
    assert!(!send(&mut world, "192.0.2.3:7"));
    world.internet.change(|topology| topology.groups.clear());
    assert!(send(&mut world, "192.0.2.3:7"));

    // Neighbours on one segment speak without the box; a cut pair does not.
    let frame = [&host_mac(2).0[..], &host_mac(1).0, &[0x88, 0xb5], &[0; 46]].concat();
    let broadcast = [&[0xff; 6][..], &host_mac(1).0, &[0x88, 0xb5], &[0; 46]].concat();
    for cut in [false, true] {
        world.internet.change(|topology| {
            topology.cut_pairs.clear();
            topology.cut_pairs.extend(cut.then_some((1, 2)));
        });
        for frame in [&frame, &broadcast] {
            world.internet.input(world.now, 0, frame);
            let to: Vec<usize> = std::iter::from_fn(|| world.internet.output(world.now)).map(|got| got.to).collect();
            assert_eq!(to, if cut { vec![] } else { vec![1] });
        }
    }
    world.internet.change(|topology| topology.unplugged = [3].into());
    assert!(!send(&mut world, "192.0.2.3:7"));
}

#[test]
fn a_packet_that_goes_round_ends() {
    let mut world = cone_and_public();
    let mut bytes = packet(UDP, world.at("192.0.2.2:7"), world.at("192.0.2.3:7"), b"");
    for (ttl, arrives) in [(3, true), (2, false), (1, false)] {
        bytes[8] = ttl;
        let frame = [&box_mac(2).0[..], &host_mac(2).0, &IPV4.to_be_bytes(), &bytes].concat();
        world.internet.input(world.now, 1, &frame);
        assert_eq!(world.arrival().is_some(), arrives, "{ttl}");
    }
    assert_eq!(world.internet.counts().expired, 2);
}

#[test]
fn a_box_answers_for_its_gateway_and_for_public_addresses_that_are_elsewhere() {
    let internet = Internet::new(Topology::new([
        Site::public([1, 2]),
        Site::public([3]),
        Site::behind(NatSettings::default(), [4, 5]),
    ]));
    let answers = |h: usize, wanted: &str| {
        let site = internet.topology.site_of(h).unwrap();
        internet.answers_for(site, h, wanted.parse().unwrap())
    };
    assert!(answers(1, "192.0.2.254") && answers(1, "192.0.2.3") && answers(1, "2001:db8:0:1::fe"));
    assert!(!answers(1, "192.0.2.2") && !answers(1, "2001:db8:0:1::2") && !answers(1, "fe80::1"));
    assert!(answers(4, "192.168.3.254") && !answers(4, "192.168.3.5") && !answers(4, "192.168.3.77"));
}

proptest! {
    #[test]
    fn whatever_a_host_sends_nobody_stumbles(
        frame in prop_oneof![
            // A packet for another site, a question for a gateway, anything.
            Just(packet(UDP, "192.168.1.1:9".parse().unwrap(), "192.0.2.2:7".parse().unwrap(), b"weft")),
            Just(crate::wire::announce::gratuitous_arp(host_mac(1), [192, 168, 1, 254].into())[14..].to_vec()),
            Just(crate::wire::announce::unsolicited_advertisement(host_mac(1), [9; 16].into())[14..].to_vec()),
            proptest::collection::vec(any::<u8>(), 0..90),
        ],
        ethertype in prop_oneof![Just(IPV4), Just(IPV6), Just(crate::wire::ethernet::ARP), any::<u16>()],
        everybody: bool,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        length in any::<usize>(),
    ) {
        let mut world = World::new([Site::behind(NatSettings::full_cone(), [1]), Site::public([2])]);
        let to = if everybody { Mac::BROADCAST } else { box_mac(1) };
        let mut bytes = [&to.0[..], &host_mac(1).0, &ethertype.to_be_bytes(), &frame].concat();
        let end = bytes.len();
        for (at, value) in changes {
            bytes[at % end] = value;
        }
        bytes.truncate(if length % 3 == 0 { length % (end + 1) } else { end });
        world.internet.input(world.now, 0, &bytes);
        while let Some(due) = world.internet.next_deadline() {
            while world.internet.output(due).is_some() {}
        }
        prop_assert_eq!(world.internet.queued_bytes, 0);
    }
}
