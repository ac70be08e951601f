//! Which way is chosen, when it is left, and what that costs.

use crate::world::{MS, SECOND, Wire, World, address, relayed, tunnel_address};
use std::time::Duration;
use weft::mesh::paths::{Kind, MAX_DIRECT, MAX_OF_SOURCE, Source};
use weft::mesh::{MAX_MESSAGES_PER_SECOND, path::Basis};
use weft::wire::message::{self, Message};

/// A path in use that died is left within this.
const LEFT: Duration = Duration::from_secs(3);
/// A better one is used within this.
const UPGRADE: Duration = Duration::from_secs(10);

/// Two hosts in the open, with a relay between them.
fn pair(seed: u64) -> World {
    let mut world = World::new(seed, &[&["192.0.2.1:51820"], &["192.0.2.2:51820"]]);
    world.relay(0, 1, Wire::of(MS * 30));
    world
}

/// Two hosts with two underlay addresses each, of which the first pair and the second pair have a wire each; here told
/// apart by family.
fn two_families(seed: u64) -> World {
    let first: &[&str] = &["192.0.2.1:51820", "[2001:db8::1]:51820"];
    World::new(seed, &[first, &["192.0.2.2:51820", "[2001:db8::2]:51820"]])
}

fn is(kind: Kind) -> impl Fn(&World) -> bool {
    move |world: &World| world.kind(0, 1) == Some(kind) && world.kind(1, 0) == Some(kind)
}

#[test]
fn a_dead_way_is_left_within_three_seconds_at_any_loss() {
    for seed in 0..24 {
        let loss = [0, 5, 15, 30][seed as usize % 4];
        let mut world = pair(seed);
        world.wire.loss = loss;
        world.relay(0, 1, Wire { loss, ..Wire::of(MS * 40) });
        // Some talk much, some little, some only in one direction.
        match seed % 3 {
            0 => world.talk(0, 1, MS * 20),
            1 => world.talk(0, 1, MS * 300),
            _ => world.talk_one_way(0, 1, MS * 50),
        }
        world.run(SECOND * 60);
        assert!(world.kind(0, 1) == Some(Kind::Direct), "seed {seed}\n{}", world.picture());
        world.run(MS * (seed as u32 * 77));
        let cut = world.now;
        match seed / 3 % 3 {
            0 => world.set_wire(0, 1, |wire| wire.up = false),
            // Only one direction dies.
            1 => drop(world.wires.insert((0, 1), Wire { up: false, ..world.wire })),
            _ => world.hosts[1].udp_blocked = true,
        }
        world.run(SECOND * 6);
        let pause = world.longest_pause(0, 1, cut);
        // A lost frame or two behind the change are not its fault.
        let slack = if loss == 0 { Duration::ZERO } else { MS * 600 };
        assert!(pause <= LEFT + slack, "seed {seed}: frames paused for {pause:?}\n{}", world.picture());
    }
}

#[test]
fn thirty_per_cent_loss_make_nobody_change_his_way() {
    let mut changes = 0;
    for seed in 0..8 {
        let mut world = two_families(seed);
        world.wire.loss = 30;
        world.wire.jitter = MS * 8;
        world.relay(0, 1, Wire { loss: 30, ..Wire::of(MS * 12) });
        if seed % 2 == 0 {
            world.talk(0, 1, MS * 100);
        } else {
            world.talk_one_way(0, 1, MS * 100);
        }
        world.run(SECOND * 30);
        let since = world.now;
        let (mut right, mut samples) = (0, 0);
        for _ in 0..600 {
            world.run(SECOND);
            samples += 1;
            right += u32::from(world.hosts[0].mesh.peer(1).unwrap().path_mtu == 1500);
        }
        assert!(right * 100 >= samples * 90, "seed {seed}: the path MTU was right for {right} of {samples} seconds");
        let these = world.changes(0, 1, since) + world.changes(1, 0, since);
        assert!(
            these <= 4,
            "seed {seed}: {these} changes: {:?} {:?}",
            world.tunnel(0, 1).choices,
            world.tunnel(1, 0).choices
        );
        changes += these;
    }
    assert!(changes <= 12, "{changes} changes in 80 minutes");
}

#[test]
fn of_two_ways_the_quicker_one_is_chosen_and_what_is_nearly_as_quick_is_not() {
    let v6 = |world: &World| world.tunnel(0, 1).endpoint.is_some_and(|way| way.is_ipv6());
    let mut world = two_families(1);
    world.slow_v6 = MS * 20;
    world.talk(0, 1, MS * 100);
    world.wait(UPGRADE, "v4", |world| world.tunnel(0, 1).endpoint.is_some_and(|way| way.is_ipv4()));
    world.run(SECOND * 20);
    assert!(!v6(&world));
    // IPv4 becomes slower, but is no more than a tenth off; then it is worth a change.
    world.slow_v4 = MS * 22;
    let since = world.now;
    world.run(SECOND * 60);
    assert_eq!(world.changes(0, 1, since), 0, "{}", world.picture());
    world.slow_v4 = MS * 60;
    world.wait(SECOND * 30, "v6", v6);
    let since = world.now;
    world.run(SECOND * 120);
    assert_eq!(world.changes(0, 1, since), 0);
}

#[test]
fn a_relay_gives_way_to_a_direct_path_and_one_that_prefers_to_relay_does_not() {
    for preferred in [false, true] {
        let mut world = pair(4);
        world.wire.delay = MS * 80;
        world.relay(0, 1, Wire::of(MS * 20));
        for (_, route) in world.relays.values_mut() {
            *route = route.map(|route| weft::mesh::paths::RelayRoute { preferred, ..route });
        }
        world.talk(0, 1, MS * 100);
        world.run(SECOND * 40);
        let wanted = if preferred { Kind::Relayed } else { Kind::Direct };
        assert!(is(wanted)(&world), "{}", world.picture());
        let since = world.now;
        world.run(SECOND * 120);
        assert_eq!(world.changes(0, 1, since) + world.changes(1, 0, since), 0);
    }
}

#[test]
fn blocked_udp_means_a_stream_and_unblocked_udp_ends_it() {
    for seed in 0..4 {
        let mut world = World::new(seed, &[&["192.0.2.1:51820"], &["192.0.2.2:51820"]]);
        world.tcp = true;
        world.hosts[0].udp_blocked = true;
        world.talk(0, 1, MS * 100);
        world.wait(SECOND * 10, "a stream", is(Kind::Stream));
        world.wait(SECOND, "its limit", |world| world.hosts[0].mesh.peer(1).unwrap().inner_limit == 8192);
        world.run(SECOND * 300);
        assert!(world.stream_wishes <= 4, "{} wishes though there is a stream", world.stream_wishes);
        world.hosts[0].udp_blocked = false;
        let took = world.wait(UPGRADE, "direct", is(Kind::Direct));
        assert!(world.longest_pause(0, 1, world.now - took) < SECOND);
        world.run(SECOND * 30);
        // And again, with the stream at hand, and then without.
        for _ in 0..2 {
            world.hosts[0].udp_blocked = true;
            let cut = world.now;
            world.run(SECOND * 20);
            assert!(is(Kind::Stream)(&world), "{}", world.picture());
            let pause = world.longest_pause(0, 1, cut);
            assert!(pause < SECOND * 8, "seed {seed}: {pause:?}");
            world.hosts[0].udp_blocked = false;
            world.wait(UPGRADE, "direct", is(Kind::Direct));
            world.run(SECOND * 10);
            world.break_streams();
            world.tcp = true;
        }
    }
}

#[test]
fn a_stream_that_ends_and_a_relay_that_is_gone_are_left_at_once() {
    let mut world = pair(1);
    world.tcp = true;
    world.hosts[0].udp_blocked = true;
    world.relays.clear();
    world.talk(0, 1, MS * 50);
    world.wait(SECOND * 10, "a stream", is(Kind::Stream));
    world.relay(0, 1, Wire::of(MS * 30));
    world.wait(UPGRADE, "the relay", is(Kind::Relayed));
    world.run(SECOND * 20);
    let cut = world.now;
    world.relays.clear();
    world.run(SECOND * 5);
    assert!(is(Kind::Stream)(&world));
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(
            world.longest_pause(from, to, cut) < SECOND,
            "{:?} {:?}",
            world.tunnel(0, 1).choices,
            world.tunnel(1, 0).choices
        );
    }
    world.relay(0, 1, Wire::of(MS * 30));
    world.wait(UPGRADE, "the relay", is(Kind::Relayed));
    world.run(SECOND * 20);
    let cut = world.now;
    world.break_streams();
    world.run(SECOND * 5);
    assert!(world.longest_pause(0, 1, cut) < SECOND);
}

#[test]
fn a_host_that_moves_is_followed_within_three_seconds() {
    for seed in 0..8 {
        let mut world = pair(seed);
        world.gossip = seed % 2 == 0;
        for (a, b, way) in [(0, 1, "192.0.2.2:51820"), (1, 0, "192.0.2.1:51820")] {
            world.hosts[a].mesh.set_candidates(world.now, b, Source::File, &[address(way)]);
        }
        match seed % 3 {
            0 => world.talk(0, 1, MS * 50),
            1 => world.talk_one_way(0, 1, MS * 50),
            _ => world.talk_one_way(1, 0, MS * 50),
        }
        world.run(SECOND * 20);
        let moved = world.now;
        world.move_host(0, &["203.0.113.77:4000"]);
        world.run(SECOND * 20);
        for (from, to) in world.talks.clone().into_keys() {
            let pause = world.longest_pause(from, to, moved);
            assert!(pause <= LEFT, "seed {seed}, {from} to {to}: {pause:?}\n{}", world.picture());
        }
        assert_eq!(world.tunnel(1, 0).endpoint, Some(address("203.0.113.77:4000")), "{}", world.picture());
    }
}

#[test]
fn idle_tunnels_are_left_alone() {
    let mut world = pair(1);
    world.talk(0, 1, MS * 100);
    world.run(SECOND * 30);
    world.talks.clear();
    world.run(SECOND * 30);
    let since = world.now;
    world.run(SECOND * 600);
    assert_eq!((world.traffic(0, since).1, world.traffic(1, since).1), (0.0, 0.0));
    // The greeting holds meanwhile, and the way is tested when there is something to send.
    assert!(world.hosts[0].mesh.peer(1).unwrap().greeting.is_some());
    world.set_wire(0, 1, |wire| wire.up = false);
    world.run(SECOND * 30);
    let awake = world.now;
    world.talk(0, 1, MS * 50);
    world.run(SECOND * 6);
    let pause = world.longest_pause(0, 1, awake);
    assert!(pause <= LEFT, "{pause:?}");
}

#[test]
fn what_probes_cost_is_bounded() {
    // In use over a good way, with a probe of full size a second; kept and idle; relayed and in use, with many addresses
    // that do not answer; nothing works at all. No heartbeats of the membership here, which spare probes.
    for (case, most_bytes) in [("in use", 2000.0), ("kept", 200.0), ("relayed", 1500.0), ("dead", 2500.0)] {
        let mut world = pair(1);
        let dead: Vec<_> = (0..16).map(|n| address(&format!("198.51.100.{n}:51820"))).collect();
        for (a, b) in [(0, 1), (1, 0)] {
            world.hosts[a].mesh.set_candidates(world.now, b, Source::Cache, &dead);
            world.hosts[a].mesh.set_keep(world.now, b, true);
        }
        if case == "relayed" {
            world.hosts[0].udp_blocked = true;
        }
        world.talk(0, 1, MS * 100);
        world.run(SECOND * 30);
        match case {
            "kept" => world.talks.clear(),
            "dead" => {
                world.hosts[0].udp_blocked = true;
                world.relays.clear();
            }
            _ => {}
        }
        let since = world.now;
        world.run(SECOND * 300);
        let (bytes, _) = world.traffic(0, since);
        assert!(bytes <= most_bytes, "{case}: {bytes} bytes a second");
        let busiest = (0..world.messages.len()).map(|n| {
            let began = world.messages[n].0;
            let these = world.messages[n..].iter().take_while(|(at, ..)| *at < began + SECOND);
            these.filter(|(_, by, _)| *by == 0).count()
        });
        let busiest = busiest.max().unwrap();
        assert!(busiest < MAX_MESSAGES_PER_SECOND as usize, "{case}: {busiest} messages in one second");
    }
}

#[test]
fn each_way_has_its_own_mtu_and_keeps_it() {
    let mut world = pair(1);
    world.wire.mtu = 9000;
    world.talk(0, 1, MS * 100);
    world.wait(UPGRADE, "direct", is(Kind::Direct));
    world.wait(SECOND * 10, "jumbo", |world| world.hosts[0].mesh.peer(1).unwrap().path_mtu == 9000);
    world.run(SECOND * 5);
    world.set_wire(0, 1, |wire| wire.up = false);
    world.wait(LEFT, "the relay", |world| world.hosts[0].mesh.peer(1).unwrap().way == Some(relayed(1)));
    let view = world.hosts[0].mesh.peer(1).unwrap();
    assert_eq!((view.inner_limit, view.expected_limit, view.basis), (1380, 1380, Basis::Given));
    world.set_wire(0, 1, |wire| wire.up = true);
    world.wait(UPGRADE, "direct", is(Kind::Direct));
    // What was learned is tried first.
    world.wait(SECOND, "jumbo", |world| world.hosts[0].mesh.peer(1).unwrap().path_mtu == 9000);
    // A black hole for what is large, and ICMP tells nobody.
    world.set_wire(0, 1, |wire| wire.mtu = 1400);
    world.wait(SECOND * 10, "the black hole is noticed", |world| {
        world.hosts[0].mesh.peer(1).unwrap().path_mtu <= 1400 && world.hosts[1].mesh.peer(0).unwrap().path_mtu <= 1400
    });
    assert!(is(Kind::Direct)(&world));
    world.wait(SECOND * 15, "and measured", |world| world.hosts[0].mesh.peer(1).unwrap().path_mtu == 1400);
}

#[test]
fn what_is_known_of_a_way_is_shown() {
    let mut world = pair(1);
    world.talk(0, 1, MS * 100);
    world.run(SECOND * 60);
    world.hosts[0].mesh.reception(world.now, 1, 1000, 10, 5);
    world.hosts[0].mesh.reception(world.now + SECOND * 6, 1, 1900, 110, 105);
    let views = world.hosts[0].mesh.paths(1);
    let (first, second) = (&views[0], &views[1]);
    assert_eq!((first.kind, first.source, first.way), (Kind::Direct, Source::Announced, address("192.0.2.2:51820")));
    assert!(first.chosen.is_some_and(|since| since < world.now - SECOND * 30));
    assert_eq!((first.loss, first.reordering), (Some(0.1), Some(0.1)));
    assert_eq!((second.kind, second.way, second.chosen, second.hops), (Kind::Relayed, relayed(1), None, 1));
    assert!(second.round_trip.is_some_and(|round_trip| round_trip >= MS * 60));
    assert_eq!(world.hosts[0].mesh.handshake_candidates(1), [address("192.0.2.2:51820"), relayed(1)]);
}

#[test]
fn what_is_told_of_addresses_is_bounded_and_leads_to_the_underlay_only() {
    let mut world = pair(1);
    world.talk(0, 1, MS * 100);
    world.run(SECOND * 5);
    let told = ["0.0.0.0:9", "224.0.0.1:9", "255.255.255.255:9", "192.0.2.77:0", "100.64.0.9:0", "[100::7]:0"];
    let mut addresses: Vec<_> = told.into_iter().map(address).collect();
    addresses.push(address("192.0.2.77:9"));
    let punch = Message::Punch { addresses, reply_wanted: true };
    let packet = message::packet(&punch, tunnel_address(1), tunnel_address(0), None);
    world.hosts[0].mesh.input(world.now, 1, address("192.0.2.2:51820"), &packet[28..]);
    let told: Vec<_> = world.hosts[0].mesh.paths(1).into_iter().filter(|path| path.source == Source::Told).collect();
    assert_eq!(told.iter().map(|path| path.way).collect::<Vec<_>>(), [address("192.0.2.77:9")]);
    // However much every source knows, there is an end, and the file's are not driven out by what others say.
    let many = |n: u8| (0..20).map(|m| address(&format!("198.51.100.{n}:{}", 1 + m))).collect::<Vec<_>>();
    for (n, source) in Source::ALL.into_iter().enumerate() {
        world.hosts[0].mesh.set_candidates(world.now, 1, source, &many(n as u8));
    }
    world.run(SECOND * 60);
    let paths = world.hosts[0].mesh.paths(1);
    assert!(paths.iter().filter(|path| path.kind == Kind::Direct).count() <= MAX_DIRECT);
    assert_eq!(paths.iter().filter(|path| path.source == Source::File).count(), MAX_OF_SOURCE);
    assert!(is(Kind::Direct)(&world) && world.longest_pause(0, 1, world.now - SECOND * 60) < SECOND);
}
