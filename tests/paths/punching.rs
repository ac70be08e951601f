//! NATs and firewalls of every kind: who gets through, and how soon; who does not stays with the relay.

use crate::nat::{ALL, By, Gate, can_be_punched};
use crate::world::{MS, SECOND, Wire, World, outside};
use std::time::Duration;
use weft::mesh::Nat;
use weft::mesh::paths::Kind;

/// How long an upgrade may take once it is possible.
const UPGRADE: Duration = Duration::from_secs(10);
/// A member that is not behind anything: it sees the others' addresses, and relays.
const THIRD: usize = 2;

/// Two hosts behind gates, and a third that both know, through which they can always talk.
fn world(seed: u64, gates: [Option<Gate>; 2]) -> World {
    let mut world = World::new(seed, &[&["10.0.0.2:51820"], &["10.1.0.2:51820"], &["192.0.2.9:51820"]]);
    for (host, gate) in gates.into_iter().enumerate() {
        match gate {
            Some(gate) => world.put_behind(host, gate),
            None => world.move_host(host, &[["192.0.2.1:51820"], ["192.0.2.2:51820"]][host]),
        }
        // Neighbours, as a third member would be.
        world.hosts[host].mesh.set_keep(world.now, THIRD, true);
        world.hosts[THIRD].mesh.set_keep(world.now, host, true);
        world.talk(host, THIRD, SECOND * 2);
    }
    world.relay(0, 1, Wire::of(MS * 30));
    world.run(SECOND * 3);
    world
}

fn nat(host: usize, (mapping, filtering): (By, By)) -> Gate {
    Gate::nat(outside(host), mapping, filtering)
}

fn kinds() -> impl Iterator<Item = (By, By)> {
    ALL.into_iter().flat_map(|mapping| ALL.into_iter().map(move |filtering| (mapping, filtering)))
}

fn both(kind: Kind) -> impl Fn(&World) -> bool {
    move |world: &World| world.kind(0, 1) == Some(kind) && world.kind(1, 0) == Some(kind)
}

#[test]
fn every_pair_of_nats_that_can_be_punched_is_and_the_others_keep_the_relay() {
    for (n, (a, b)) in kinds().flat_map(|a| kinds().map(move |b| (a, b))).enumerate() {
        let mut world = world(n as u64, [Some(nat(0, a)), Some(nat(1, b))]);
        world.talk(0, 1, MS * 200);
        world.run(UPGRADE);
        let pair = format!("{a:?} {b:?}");
        let wanted = if can_be_punched(a, b) { Kind::Direct } else { Kind::Relayed };
        assert!(both(wanted)(&world), "{pair}: not {wanted:?}\n{}", world.picture());
        let since = world.now;
        world.run(SECOND * 10);
        assert!(both(wanted)(&world), "{pair}: no longer {wanted:?}\n{}", world.picture());
        let changes = world.changes(0, 1, since) + world.changes(1, 0, since);
        assert_eq!(
            changes,
            0,
            "{pair} {:?} {:?} {since:?}\n{}",
            world.tunnel(0, 1).choices,
            world.tunnel(1, 0).choices,
            world.picture()
        );
        for (from, to) in [(0, 1), (1, 0)] {
            let pause = world.longest_pause(from, to, since - SECOND * 8);
            assert!(pause < SECOND, "{pair}: {pause:?}\n{}", world.picture());
        }
    }
}

#[test]
fn one_side_without_a_nat_is_enough() {
    for (n, kind) in kinds().enumerate() {
        let mut world = world(n as u64, [Some(nat(0, kind)), None]);
        world.talk(0, 1, MS * 200);
        world.wait(UPGRADE, &format!("{kind:?}"), both(Kind::Direct));
    }
}

#[test]
fn two_firewalls_that_let_nothing_in_are_opened_from_inside() {
    let mut world = world(1, [None, None]);
    world.put_behind(0, Gate::firewall());
    world.put_behind(1, Gate::firewall());
    world.talk(0, 1, MS * 200);
    world.wait(UPGRADE, "direct", both(Kind::Direct));
}

#[test]
fn neighbours_behind_one_nat_find_each_other_inside_it() {
    let mut world = world(3, [Some(nat(0, (By::Nothing, By::AddressAndPort))), None]);
    world.move_host(1, &["10.0.0.3:51820"]);
    world.hosts[1].site = world.hosts[0].site;
    world.talk(0, 1, MS * 200);
    world.wait(UPGRADE, "direct", both(Kind::Direct));
    assert_eq!(world.tunnel(0, 1).endpoint, Some("10.0.0.3:51820".parse().unwrap()));
}

#[test]
fn neighbours_that_are_kept_apart_inside_need_a_nat_with_a_hairpin() {
    for hairpin in [true, false] {
        let mut gate = nat(0, (By::Nothing, By::AddressAndPort));
        gate.hairpin = hairpin;
        let mut world = world(3, [Some(gate), None]);
        world.move_host(1, &["10.0.0.3:51820"]);
        world.hosts[1].site = world.hosts[0].site;
        world.apart = true;
        world.talk(0, 1, MS * 200);
        world.run(UPGRADE);
        assert!(both(if hairpin { Kind::Direct } else { Kind::Relayed })(&world), "{}", world.picture());
    }
}

#[test]
fn a_lifted_nat_is_noticed_within_ten_seconds_however_long_it_stood() {
    let symmetric = (By::AddressAndPort, By::AddressAndPort);
    for (seed, minutes) in [(1, 0), (2, 1), (3, 3), (4, 15)] {
        let mut world = world(seed, [Some(nat(0, symmetric)), Some(nat(1, symmetric))]);
        world.talk(0, 1, MS * 200);
        world.run(UPGRADE + SECOND * 60 * minutes);
        assert!(both(Kind::Relayed)(&world));
        world.lift_gate(0);
        world.move_host(0, &["192.0.2.1:51820"]);
        let took = world.wait(UPGRADE, "direct", both(Kind::Direct));
        let pause = world.longest_pause(0, 1, world.now - took);
        assert!(pause < SECOND, "frames paused for {pause:?}");
    }
}

#[test]
fn a_nat_that_forgets_its_mappings_interrupts_for_less_than_three_seconds() {
    for seed in 0..6 {
        let kind = [(By::Nothing, By::AddressAndPort), (By::Nothing, By::Nothing)][seed as usize % 2];
        let mut world = world(seed, [Some(nat(0, kind)), Some(nat(1, kind))]);
        world.talk(0, 1, MS * 200);
        world.wait(UPGRADE, "direct", both(Kind::Direct));
        world.run(SECOND * 10);
        world.gates.get_mut(&0).unwrap().forget();
        let cut = world.now;
        world.run(SECOND * 10);
        for (from, to) in [(0, 1), (1, 0)] {
            let pause = world.longest_pause(from, to, cut);
            assert!(pause < SECOND * 3, "seed {seed}: {pause:?}\n{}", world.picture());
        }
        world.wait(SECOND * 10, "direct again", both(Kind::Direct));
    }
}

#[test]
fn members_learn_what_kind_of_nat_they_are_behind() {
    for (mapping, wanted) in [(By::Nothing, Nat::Independent), (By::Address, Nat::Dependent)] {
        let mut world = world(1, [Some(nat(0, (mapping, By::Nothing))), None]);
        world.talk(0, 1, MS * 200);
        world.run(UPGRADE);
        assert_eq!(world.hosts[0].mesh.nat(), wanted);
        assert_eq!(world.hosts[1].mesh.nat(), Nat::None, "{:?}", world.hosts[1].mesh.observed());
        assert!(world.hosts[0].mesh.observed().iter().all(|address| address.ip() == outside(0)));
    }
}

#[test]
fn why_a_way_is_not_better_is_told() {
    let symmetric = (By::AddressAndPort, By::AddressAndPort);
    let mut world = world(1, [Some(nat(0, symmetric)), Some(nat(1, symmetric))]);
    world.talk(0, 1, MS * 200);
    world.run(SECOND * 30);
    let why = world.hosts[0].mesh.why_not_better(world.now, 1).unwrap();
    assert!(why.starts_with("direct 1") && why.contains("not answer since"), "{why}");
    assert_eq!(world.hosts[0].mesh.why_not_better(world.now, THIRD), None);
}
