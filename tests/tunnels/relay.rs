//! Members that have no way of their own, and those between them.

use super::talk::{MS, S, of_type};
use crate::rng::Rng;
use crate::world::{Acquaintance, DATA, INITIATION, Outbox, World};
use std::time::Duration;
use weft::switch::counters::Drop;
use weft::tunnel::{Claim, Gate, OVERHEAD};
use weft::wire::ethernet::Mac;
use weft::wire::message::{self, Message};
use weft::wire::vnet::VnetHeader;
use weft::wire::vxlan::{self, Payload, RELAY_OVERHEAD};
use weft::wire::way;

const MACS: [Mac; 3] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 3])];
const SECRET: &[u8] = b"what only the ends may read";

/// Hosts 0 and 2 know each other and reach only host 1, which relays. They have sessions where they can.
fn chain() -> World {
    let mut world = World::new(11, 3);
    for pair in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        world.introduce(pair.0, pair.1, &Acquaintance::default());
    }
    for (a, b) in [(0, 2), (2, 0)] {
        let endpoints = Some(vec![way::relayed(world.hosts[b].address)]);
        world.introduce(a, b, &Acquaintance { endpoints, ..Acquaintance::default() });
        world.hosts[a].peers[&b].set_limits(1300, 1300);
        world.cut.insert((a, b));
    }
    for (a, b, hop) in [(0, 1, 1), (0, 2, 1), (1, 0, 0), (1, 2, 2), (2, 1, 1), (2, 0, 1)] {
        world.routes.insert((a, b), hop);
    }
    world.relays.insert(1);
    world.publish();
    world.connect(0, 1);
    world.connect(1, 2);
    world.run(S);
    world
}

/// With a session between the ends, and a container at each that the others know.
fn talking() -> World {
    let mut world = chain();
    for n in [0, 2] {
        world.add_port(n, 7, MACS[n]);
    }
    world.connect(0, 2);
    world.run(S);
    for n in [0, 2] {
        frame(&mut world, n, Mac([0xff; 6]), 60);
        world.run(S);
    }
    assert_eq!((delivered(&mut world, 0), delivered(&mut world, 2)), (1, 1));
    world
}

/// Host `n`'s container sends a frame with so many bytes behind its addresses.
fn frame(world: &mut World, n: usize, to: Mac, length: usize) {
    let mut payload = SECRET.to_vec();
    payload.resize(length, 7);
    let frame = [&to.0[..], &MACS[n].0, &[0x88, 0xb5], &payload].concat();
    let port = world.hosts[n].ports[0].clone();
    world.port_input(n, &port, VnetHeader::default(), &frame);
}

fn delivered(world: &mut World, n: usize) -> usize {
    std::mem::take(&mut world.hosts[n].out.deliveries).len()
}

fn probe(world: &World, a: usize, b: usize, token: u64) -> Vec<u8> {
    message::packet(&Message::Probe { token }, world.hosts[a].address, world.hosts[b].address, Some(100))
}

/// Host `a` seals nothing of its own: this packet leaves in its tunnel to host 1 as it is.
fn inject(world: &mut World, a: usize, from: usize, to: usize, ttl: u8, datagram: &[u8]) {
    let mut packet = vec![0; RELAY_OVERHEAD];
    let (source, destination) = (world.hosts[from].address, world.hosts[to].address);
    vxlan::emit_relayed(&mut packet, source, destination, 1, ttl, datagram.len());
    packet.extend_from_slice(datagram);
    world.send_packet(a, 1, &packet);
    world.run(100 * MS);
}

#[test]
fn a_session_and_frames_cross_a_relay() {
    let mut world = talking();
    for (a, b) in [(0, 2), (2, 0)] {
        let way = way::relayed(world.hosts[b].address);
        assert_eq!(world.hosts[a].peers[&b].tunnel().endpoint(), Some(way));
        frame(&mut world, a, MACS[b], 500);
        let packet = probe(&world, a, b, 5);
        world.send_packet(a, b, &packet);
        world.run(S);
        assert_eq!(delivered(&mut world, b), 1);
        assert_eq!(world.hosts[b].out.messages.len(), 1);
        assert_eq!(world.hosts[b].out.came_from, Some(way::relayed(world.hosts[a].address)));
    }
    assert!(world.hosts[1].out.deliveries.is_empty() && world.hosts[1].out.messages.is_empty());
    let counters = &world.hosts[1].switch.counters;
    assert!(counters.relayed_packets.get() >= 8 && counters.relayed_bytes.get() > 8 * 100);
    assert_eq!(counters.dropped_in_all(), 0);
}

#[test]
fn the_relay_has_nothing_but_ciphertext() {
    let mut world = talking();
    world.capture = Some(Vec::new());
    world.cut.insert((0, 1));
    frame(&mut world, 0, MACS[2], 500);
    world.run(10 * MS);
    let datagrams = of_type(&world.capture.take().unwrap(), DATA);
    let [datagram] = datagrams.as_slice() else { panic!("{datagrams:?}") };
    // It has not arrived; the relay opens it here.
    let Some(Claim::Data(index)) = Gate::claim(&datagram.bytes) else { panic!("{datagram:?}") };
    let opener = world.hosts[1].peers[&0].tunnel().opener(world.instant(), index).unwrap();
    let mut packet = vec![0; datagram.bytes.len()];
    let length = opener.open(&datagram.bytes, &mut packet).unwrap();
    let parsed = vxlan::parse(&packet[..length]).unwrap();
    assert_eq!((parsed.source, parsed.destination), (world.hosts[0].address, world.hosts[2].address));
    let Payload::Relayed(range) = parsed.payload else { panic!("{parsed:?}") };
    let Some(Claim::Data(beyond)) = Gate::claim(&packet[range.clone()]) else { panic!("not WireGuard's") };
    assert!(!packet.windows(SECRET.len()).any(|bytes| bytes == SECRET));
    let now = world.instant();
    assert!(world.hosts[1].peers.values().all(|peer| peer.tunnel().opener(now, beyond).is_none()));
    let opener = world.hosts[2].peers[&0].tunnel().opener(now, beyond).unwrap();
    let mut inner = vec![0; range.len()];
    let length = opener.open(&packet[range], &mut inner).unwrap();
    assert!(inner[..length].windows(SECRET.len()).any(|bytes| bytes == SECRET));
}

#[test]
fn what_a_hop_does_not_carry_whole_crosses_in_pieces() {
    let mut world = talking();
    // Cut at the source; cut by the relay; cut by both, so that pieces are cut again; and the frame in pieces as well.
    for (first, second, whole) in [(900, 1440, 1300), (1440, 900, 1300), (1000, 600, 1300), (700, 500, 800)] {
        world.hosts[0].peers[&1].set_limits(first, first);
        world.hosts[1].peers[&2].set_limits(second, second);
        world.hosts[0].peers[&2].set_limits(whole, whole);
        for length in [40, 500, 1200, 1400] {
            frame(&mut world, 0, MACS[2], length);
        }
        world.run(100 * MS);
        let frames = std::mem::take(&mut world.hosts[2].out.deliveries);
        let lengths: Vec<_> = frames.iter().map(|delivery| delivery.frame.len() - 14).collect();
        assert_eq!(lengths, [40, 500, 1200, 1400], "{first} {second} {whole}");
        assert!(frames.iter().all(|delivery| delivery.frame[14..].starts_with(SECRET)));
    }
    assert_eq!(world.too_big, 0);
}

#[test]
fn a_relay_that_comes_back_carries_on_without_a_handshake_of_the_ends() {
    let mut world = talking();
    world.reboot(1);
    world.run(20 * S);
    world.connect(1, 0);
    world.connect(1, 2);
    world.run(S);
    let before = world.hosts[0].sent[usize::from(INITIATION)];
    frame(&mut world, 0, MACS[2], 100);
    world.run(S);
    assert_eq!(delivered(&mut world, 2), 1);
    assert_eq!(world.hosts[0].sent[usize::from(INITIATION)], before);
}

#[test]
fn renewals_cross_a_relay_and_lose_nothing() {
    let mut world = talking();
    let before = world.hosts.iter().map(|host| host.sent[usize::from(INITIATION)]).collect::<Vec<_>>();
    let mut sent = 0;
    for _ in 0..200 {
        frame(&mut world, 0, MACS[2], 100);
        frame(&mut world, 2, MACS[0], 100);
        sent += 1;
        world.run(3 * S);
    }
    assert_eq!((delivered(&mut world, 0), delivered(&mut world, 2)), (sent, sent));
    let reception = world.hosts[2].peers[&0].reception();
    assert!(reception.received >= 200 && reception.lost == 0 && reception.reordered == 0, "{reception:?}");
    // Those of the ends are data to the underlay; the relay's own sessions are renewed too.
    let renewed = (0..3).map(|n| world.hosts[n].sent[usize::from(INITIATION)] - before[n]).sum::<usize>();
    assert!(renewed >= 8, "{renewed}");
    assert_eq!(world.hosts[1].switch.counters.dropped_in_all(), 0);
}

#[test]
fn a_tunnel_leaves_the_relay_for_a_way_of_its_own_and_comes_back() {
    let mut world = talking();
    world.cut.clear();
    let now = world.instant();
    for (a, b) in [(0, 2), (2, 0)] {
        let endpoint = world.hosts[b].endpoint;
        world.hosts[a].peers[&b].tunnel().choose(now, endpoint);
    }
    let relayed = world.hosts[1].switch.counters.relayed_packets.get();
    frame(&mut world, 0, MACS[2], 100);
    world.run(S);
    assert_eq!(delivered(&mut world, 2), 1);
    assert_eq!(world.hosts[1].switch.counters.relayed_packets.get(), relayed);
    // The probe of the other way leaves the tunnel where it is.
    let packet = probe(&world, 0, 2, 9);
    let via = way::relayed(world.hosts[2].address);
    world.send_packet_via(0, 2, &packet, Some(via));
    world.run(S);
    assert_eq!(world.hosts[2].out.came_from, Some(way::relayed(world.hosts[0].address)));
    assert_eq!(world.hosts[2].peers[&0].tunnel().endpoint(), Some(world.hosts[0].endpoint));
    assert_eq!(world.hosts[1].switch.counters.relayed_packets.get(), relayed + 1);
}

#[test]
fn a_detour_can_be_tried_while_the_straight_way_is_there() {
    let mut world = talking();
    world.cut.retain(|&(a, b)| (a, b) != (0, 2) && (a, b) != (2, 0));
    for (a, b) in [(0, 2), (2, 0)] {
        world.routes.insert((a, b), b);
        let address = world.hosts[b].endpoint;
        world.hosts[a].peers[&b].tunnel().choose(world.instant(), address);
    }
    let relayed = Some(way::relayed(world.hosts[2].address));
    let packet = probe(&world, 0, 2, 5);
    world.publish();
    world.send_packet_via(0, 2, &packet, relayed);
    world.run(S);
    assert!(world.hosts[2].out.messages.is_empty(), "the route leads straight");
    world.detours.insert((0, 2), 1);
    world.publish();
    world.send_packet_via(0, 2, &packet, relayed);
    world.run(S);
    assert_eq!(world.hosts[2].out.messages.len(), 1);
    assert_eq!(world.hosts[2].out.came_from, Some(way::relayed(world.hosts[0].address)));
}

#[test]
fn what_may_not_be_passed_on_is_not_and_is_counted_for_what_it_is() {
    let mut world = talking();
    let dropped = |world: &World, reason| world.hosts[1].dropped(reason);
    let relayed = world.hosts[1].switch.counters.relayed_packets.get();
    inject(&mut world, 0, 0, 2, 1, b"too old");
    assert_eq!(dropped(&world, Drop::TtlExpired), 1);
    // Not from the relay itself, nor from whom it goes to; not back to where it came from; not to nobody.
    inject(&mut world, 0, 1, 2, 16, b"forged");
    inject(&mut world, 0, 2, 2, 16, b"forged");
    assert_eq!(dropped(&world, Drop::SpoofedTunnelAddress), 2);
    inject(&mut world, 0, 2, 0, 16, b"back");
    world.routes.remove(&(1, 2));
    world.publish();
    inject(&mut world, 0, 0, 2, 16, b"nowhere");
    assert_eq!(dropped(&world, Drop::NoRoute), 2);
    // Nothing but datagrams of members.
    let packet = probe(&world, 0, 2, 1);
    world.send_packet(0, 1, &packet);
    world.run(100 * MS);
    assert_eq!(dropped(&world, Drop::SpoofedTunnelAddress), 3);
    // Not of a pair inside its own tunnel.
    inject(&mut world, 0, 0, 1, 16, b"pointless");
    assert_eq!(dropped(&world, Drop::NotRelayed), 1);
    world.routes.insert((1, 2), 2);
    world.relays.clear();
    world.publish();
    inject(&mut world, 0, 0, 2, 16, b"not by this one");
    assert_eq!(dropped(&world, Drop::NotRelayed), 2);
    world.relays.insert(1);
    world.publish();
    world.hosts[1].peers[&0].set_admitted(false);
    inject(&mut world, 0, 0, 2, 16, b"not from this one");
    assert_eq!(dropped(&world, Drop::NotAdmitted), 1);
    assert_eq!(world.hosts[1].switch.counters.relayed_packets.get(), relayed);
}

#[test]
fn nobody_unwraps_boxes_in_boxes() {
    let mut world = talking();
    world.relays.insert(2);
    world.routes.insert((2, 0), 1);
    world.publish();
    let before = [1, 2].map(|n| world.hosts[n].switch.counters.relayed_packets.get());
    // A packet for another, and one for the end itself, inside the tunnel of the ends.
    for (from, to) in [(0, 1), (1, 2), (0, 2)] {
        let mut packet = vec![0; RELAY_OVERHEAD];
        let (source, destination) = (world.hosts[from].address, world.hosts[to].address);
        vxlan::emit_relayed(&mut packet, source, destination, 1, 16, 40);
        packet.extend_from_slice(&[4; 40]);
        world.send_packet(0, 2, &packet);
        world.run(100 * MS);
    }
    assert_eq!(world.hosts[2].dropped(Drop::NotRelayed), 3);
    let after = [1, 2].map(|n| world.hosts[n].switch.counters.relayed_packets.get());
    assert_eq!((after[0] - before[0], after[1] - before[1]), (3, 0));
}

#[test]
fn a_hop_without_a_way_of_its_own_is_none() {
    let mut world = talking();
    let now = world.instant();
    world.hosts[0].peers[&1].tunnel().choose(now, way::relayed(world.hosts[1].address));
    frame(&mut world, 0, MACS[2], 100);
    world.run(100 * MS);
    assert_eq!(delivered(&mut world, 2), 0);
    assert!(world.hosts[0].dropped(Drop::NoRoute) >= 1);
}

/// Each of two peers is said to be reached through the other, and one worker sends to each: a lock held while the other's is
/// asked for would end this.
#[test]
fn workers_that_send_through_each_other_s_peers_do_not_wait_for_ever() {
    let mut world = talking();
    world.routes.insert((0, 1), 2);
    world.publish();
    let now = world.instant();
    let way = way::relayed(world.hosts[1].address);
    world.hosts[0].peers[&1].tunnel().choose(now, way);
    let packets = [probe(&world, 0, 1, 1), probe(&world, 0, 2, 1)];
    let (switch, peers) = (&world.hosts[0].switch, &world.hosts[0].peers);
    let before = switch.counters.dropped(Drop::NoRoute);
    std::thread::scope(|scope| {
        for (to, packet) in [1, 2].into_iter().zip(&packets) {
            scope.spawn(move || {
                let mut out = Outbox::default();
                for _ in 0..5000 {
                    switch.send_packet(now, &peers[&to], packet, false, None, &mut out);
                }
            });
        }
    });
    assert_eq!(switch.counters.dropped(Drop::NoRoute) - before, 10_000);
}

#[test]
fn a_datagram_that_names_another_source_is_refused_before_it_moves_anything() {
    let mut world = talking();
    let packet = probe(&world, 0, 2, 1);
    let (sealer, _) = world.hosts[0].peers[&2].tunnel().outgoing(world.instant()).unwrap();
    let mut datagram = vec![0; packet.len() + OVERHEAD];
    sealer.seal(&packet, &mut datagram).unwrap();
    // The relay itself says so.
    let other = std::net::Ipv4Addr::new(100, 64, 9, 9);
    let mut forged = vec![0; RELAY_OVERHEAD];
    vxlan::emit_relayed(&mut forged, other, world.hosts[2].address, 1, 16, datagram.len());
    forged.extend_from_slice(&datagram);
    world.send_packet(1, 2, &forged);
    world.run(100 * MS);
    assert_eq!(world.hosts[2].dropped(Drop::SpoofedTunnelAddress), 1);
    assert_eq!(world.hosts[2].peers[&0].tunnel().endpoint(), Some(way::relayed(world.hosts[0].address)));
}

/// Five members that relay, with routes that make no sense, of any kind: everything comes to rest, and soon.
#[test]
fn routes_that_go_in_circles_cost_a_few_hops() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(seed, 5);
        world.introduce_all(&Acquaintance::default());
        for (a, b) in world.pairs() {
            world.connect(a, b);
            world.relays.insert(a);
            world.routes.insert((a, b), (a + 1 + rng.next() as usize % 4) % 5);
        }
        world.publish();
        world.run(S);
        for (a, b) in world.pairs() {
            let packet = probe(&world, a, b, 1);
            world.send_packet_via(a, b, &packet, Some(way::relayed(world.hosts[b].address)));
        }
        world.capture = Some(Vec::new());
        world.run(Duration::from_millis(500));
        let relayed: u64 = world.hosts.iter().map(|host| host.switch.counters.relayed_packets.get()).sum();
        let arrived: u64 = world.hosts.iter().map(|host| host.out.messages.len() as u64).sum();
        let lost: u64 = world.hosts.iter().map(|host| host.switch.counters.dropped_in_all()).sum();
        assert!(relayed <= 20 * 15, "{relayed}");
        assert_eq!(arrived + lost, 20, "seed {seed}");
        world.capture = Some(Vec::new());
        world.run(100 * MS);
        assert!(of_type(&world.capture.take().unwrap(), DATA).is_empty(), "seed {seed}");
    }
}
