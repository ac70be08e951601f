//! Super-frames from port to port: what one switch cuts up the other puts together, and nothing that cannot be joined
//! is overtaken or changed on the way.

use super::frames::{Flow, Kind, Unit, flow_of};
use super::world::{Acquaintance, Delivery, Outbox, World};
use std::sync::Arc;
use std::time::Duration;
use weft::switch::ids::PortId;
use weft::switch::staging::{Merge, Staging};
use weft::switch::topology::Port;
use weft::wire::ethernet::Mac;
use weft::wire::vnet::{self, VnetHeader};
use weft::wire::{INNER_OVERHEAD, UNDERLAY_OVERHEAD_V4, WIREGUARD_OVERHEAD};

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
const MS: Duration = Duration::from_millis(1);

fn flow(kind: Kind, v6: bool) -> Flow {
    Flow { id: 5, kind, v6, source: A, destination: B, tags: Vec::new() }
}

/// Two hosts with a port each; B is known to be behind the second, and a session is there.
fn two_ports(takes_partial: bool, merge: bool) -> (World, Arc<Port>) {
    let mut world = World::new(3, 2);
    world.introduce_all(&Acquaintance { takes_partial, ..Acquaintance::default() });
    world.set_merging(1, merge);
    world.add_port(0, 7, A);
    world.add_port(1, 7, B);
    world.connect(0, 1);
    world.run(100 * MS);
    let back = Flow { id: 6, kind: Kind::Raw, v6: false, source: B, destination: A, tags: Vec::new() };
    let port = world.hosts[1].ports[0].clone();
    let (header, frame) = back.raw(0, 50);
    world.port_input(1, &port, header, &frame);
    world.run(100 * MS);
    world.hosts[0].out.deliveries.clear();
    let port = world.hosts[0].ports[0].clone();
    (world, port)
}

fn arrived(world: &mut World) -> Vec<Delivery> {
    world.run(500 * MS);
    std::mem::take(&mut world.hosts[1].out.deliveries)
}

/// Payload of a full segment over an IPv4 path of 1500 bytes.
fn path_segment(flow: &Flow) -> usize {
    1500 - UNDERLAY_OVERHEAD_V4 - WIREGUARD_OVERHEAD - INNER_OVERHEAD - flow.header_len()
}

#[test]
fn a_tcp_super_frame_arrives_as_one_with_the_same_bytes() {
    for (v6, takes_partial) in [(false, false), (false, true), (true, false), (true, true)] {
        for gso in [1000, 1448] {
            let (mut world, port) = two_ports(takes_partial, true);
            let flow = flow(Kind::Tcp, v6);
            let (header, frame) = flow.tcp(100, 50_000, true, Some(gso));
            world.port_input(0, &port, header, &frame);
            let arrived = arrived(&mut world);
            assert_eq!(arrived.len(), 1, "IPv6 {v6}, partial {takes_partial}");
            let Delivery { header, frame, merged, .. } = &arrived[0];
            let size = gso.min(path_segment(&flow));
            assert_eq!(*merged, 50_000usize.div_ceil(size));
            let gso_type = if v6 { vnet::GSO_TCPV6 } else { vnet::GSO_TCPV4 };
            let l4 = (flow.header_len() - 20) as u16;
            let right = VnetHeader {
                flags: vnet::NEEDS_CSUM,
                gso_type,
                hdr_len: flow.header_len() as u16,
                gso_size: size as u16,
                csum_start: l4,
                csum_offset: vnet::TCP_CHECKSUM,
            };
            assert_eq!(*header, right);
            assert_eq!(flow.take_apart(*header, frame), Ok(vec![Unit::Stretch { from: 100, to: 50_100 }]));
        }
    }
}

#[test]
fn a_udp_super_frame_arrives_as_the_same_datagrams() {
    for takes_partial in [false, true] {
        let (mut world, port) = two_ports(takes_partial, true);
        let flow = flow(Kind::Udp, false);
        let datagrams: Vec<(u32, usize)> = (0..40).map(|n| (n, if n < 39 { 1200 } else { 7 })).collect();
        let (header, frame) = flow.udp(&datagrams, true);
        world.port_input(0, &port, header, &frame);
        let arrived = arrived(&mut world);
        assert_eq!(arrived.len(), 1);
        assert_eq!((arrived[0].header.gso_type, arrived[0].header.gso_size), (vnet::GSO_UDP_L4, 1200));
        let units = datagrams.iter().map(|&(number, len)| Unit::Datagram { number, len }).collect();
        assert_eq!(flow.take_apart(arrived[0].header, &arrived[0].frame), Ok(units));
    }
}

#[test]
fn without_merging_checksums_are_partial_only_for_who_takes_them() {
    for takes_partial in [false, true] {
        let (mut world, port) = two_ports(takes_partial, false);
        for flow in [flow(Kind::Tcp, false), flow(Kind::Tcp, true)] {
            let (header, frame) = flow.tcp(0, 20_000, true, Some(1000));
            world.port_input(0, &port, header, &frame);
            let arrived = arrived(&mut world);
            assert_eq!(arrived.len(), 20);
            for (i, Delivery { header, frame, .. }) in arrived.iter().enumerate() {
                assert_eq!(header.needs_checksum(), takes_partial);
                let from = i as u64 * 1000;
                assert_eq!(flow.take_apart(*header, frame), Ok(vec![Unit::Stretch { from, to: from + 1000 }]));
            }
        }
    }
}

/// Only its own checksum tells whether a frame was put together from pieces of two (RFC 4963).
#[test]
fn what_crosses_in_fragments_carries_its_own_checksum() {
    let (mut world, port) = two_ports(true, true);
    let flow = flow(Kind::Udp, false);
    let (header, frame) = flow.udp(&[(0, 1450)], true);
    world.port_input(0, &port, header, &frame);
    let arrived = arrived(&mut world);
    assert_eq!((arrived.len(), arrived[0].header), (1, VnetHeader::default()));
    let units = vec![Unit::Datagram { number: 0, len: 1450 }];
    assert_eq!(flow.take_apart(arrived[0].header, &arrived[0].frame), Ok(units));
}

#[test]
fn under_loss_and_reordering_every_frame_that_arrives_is_right() {
    for (v6, takes_partial) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut world, port) = two_ports(takes_partial, true);
        (world.link.loss, world.link.jitter) = (0.05, MS);
        let flow = flow(Kind::Tcp, v6);
        let (mut sent, mut received, mut merged) = (0, 0, 0);
        for _ in 0..40 {
            let (header, frame) = flow.tcp(sent, 40_000, true, Some(1300));
            sent += 40_000;
            world.port_input(0, &port, header, &frame);
            for delivery in arrived(&mut world) {
                let units = flow.take_apart(delivery.header, &delivery.frame);
                let Ok(&[Unit::Stretch { from, to }]) = units.as_deref() else { panic!("{units:?}") };
                assert!(to <= sent);
                received += to - from;
                merged = merged.max(delivery.merged);
            }
        }
        let share = received as f64 / sent as f64;
        assert!((0.9..0.99).contains(&share), "{share} arrived");
        assert!(merged > 1);
    }
}

// ---- staging by itself -------------------------------------------------------------------------------------------

/// Stages frames for ports and flushes.
fn staged(frames: &[(PortId, &[u8])]) -> Vec<Delivery> {
    staged_with(Merge::TcpAndUdp, frames)
}

fn staged_with(merge: Merge, frames: &[(PortId, &[u8])]) -> Vec<Delivery> {
    let mut staging = Staging::new(1 << 20, merge);
    let mut out = Outbox::default();
    for (port, frame) in frames {
        let room = staging.room(frame.len()).unwrap();
        staging.bytes(room.clone()).copy_from_slice(frame);
        staging.stage(*port, room.clone(), None, false);
        staging.keep(room.end);
    }
    staging.flush(&mut out);
    out.deliveries
}

const ONE: PortId = PortId(1);
const TWO: PortId = PortId(2);

#[test]
fn the_same_flow_to_two_ports_stays_apart() {
    // Two networks may have the same addresses.
    let flow = flow(Kind::Tcp, false);
    let frames: Vec<_> = (0..4).map(|i| flow.tcp(i * 100, 100, false, None).1).collect();
    let deliveries = staged(&[(ONE, &frames[0]), (TWO, &frames[1]), (ONE, &frames[1]), (TWO, &frames[2])]);
    let ports: Vec<_> = deliveries.iter().map(|delivery| (delivery.port, delivery.merged)).collect();
    assert_eq!(ports, [(ONE, 2), (TWO, 2)]);
    for (delivery, from) in deliveries.iter().zip([0, 100]) {
        let units = flow.take_apart(delivery.header, &delivery.frame);
        assert_eq!(units, Ok(vec![Unit::Stretch { from, to: from + 200 }]));
    }
}

#[test]
fn a_frame_that_cannot_be_merged_is_not_overtaken_by_its_flow() {
    let flow = flow(Kind::Udp, false);
    let datagram = |n| flow.udp(&[(n, 100)], false).1;
    // A datagram without a checksum must stay as it is.
    let mut plain = datagram(1);
    plain[40..42].fill(0);
    let (first, last) = (datagram(0), datagram(2));
    let deliveries = staged(&[(ONE, &first), (ONE, &plain), (ONE, &last)]);
    let order: Vec<_> = deliveries.into_iter().map(|delivery| delivery.frame).collect();
    assert_eq!(order, [first, plain, last]);
}

#[test]
fn nothing_of_its_port_overtakes_a_frame_of_no_known_flow() {
    let (tcp, raw) = (flow(Kind::Tcp, false), flow(Kind::Raw, false));
    let [a, b, c] = [0, 100, 200].map(|from| tcp.tcp(from, 100, false, None).1);
    let opaque = raw.raw(0, 60).1;
    let deliveries = staged(&[(ONE, &a), (TWO, &a), (ONE, &opaque), (ONE, &b), (ONE, &c), (TWO, &b)]);
    let of = |port| deliveries.iter().filter(move |delivery| delivery.port == port);
    let merged: Vec<_> = of(ONE).map(|delivery| delivery.merged).collect();
    assert_eq!(merged, [1, 1, 2]);
    assert_eq!(of(ONE).nth(1).unwrap().frame, opaque);
    assert_eq!(of(TWO).map(|delivery| delivery.merged).collect::<Vec<_>>(), [2]);
    assert_eq!(flow_of(&opaque), Some(5));
}

#[test]
fn only_tcp_is_merged_for_a_kernel_that_refuses_udp_super_frames() {
    let (tcp, udp) = (flow(Kind::Tcp, false), flow(Kind::Udp, false));
    let segments: Vec<_> = (0..3).map(|i| tcp.tcp(i * 100, 100, false, None).1).collect();
    let datagrams: Vec<_> = (0..3).map(|n| udp.udp(&[(n, 100)], false).1).collect();
    let frames: Vec<_> = segments.iter().chain(&datagrams).map(|frame| (ONE, frame.as_slice())).collect();
    let merged = |merge| staged_with(merge, &frames).iter().map(|delivery| delivery.merged).collect::<Vec<_>>();
    assert_eq!(merged(Merge::TcpAndUdp), [3, 3]);
    assert_eq!(merged(Merge::Tcp), [3, 1, 1, 1]);
    assert_eq!(merged(Merge::Nothing), [1; 6]);
}

#[test]
fn a_full_staging_area_says_so_and_a_flush_empties_it() {
    let mut staging = Staging::new(10_000, Merge::TcpAndUdp);
    let mut out = Outbox::default();
    let frame = flow(Kind::Raw, false).raw(0, 100).1;
    for _ in 0..3 {
        let mut staged = 0;
        while let Some(room) = staging.room(frame.len()) {
            staging.bytes(room.clone()).copy_from_slice(&frame);
            staging.stage(ONE, room.clone(), None, false);
            staging.keep(room.end);
            staged += 1;
        }
        assert!(staged > 70);
        staging.flush(&mut out);
        assert_eq!(std::mem::take(&mut out.deliveries).len(), staged);
    }
}
