//! A flood of handshakes: 50,000 a second that are made for us, from one address, or from ones that are not their sender's.

use super::talk::{MS, S, Talk, of_type};
use crate::world::{COOKIE, INITIATION, RESPONSE, World, endpoint};
use std::net::SocketAddr;
use std::time::Duration;
use weft::switch::counters::Drop;
use weft::tunnel::{HANDSHAKE_ROOM, HANDSHAKES_PER_SECOND, Tunnel, TunnelSettings};
use weft::wire::key::Secret;

const FLOOD_PER_SECOND: u32 = 50_000;

/// Initiations with a right mac1, from keys nobody knows.
fn forged(world: &World, victim: usize) -> Vec<Vec<u8>> {
    let forge = |i: u8| {
        let gate = world.gate(&Secret::private([i + 1; 32]));
        let peer = world.hosts[victim].key;
        let settings = TunnelSettings {
            peer,
            preshared_key: None,
            keepalive: None,
            index: 1,
            endpoints: vec![endpoint(victim)],
        };
        let mut message = [0; HANDSHAKE_ROOM];
        let length = Tunnel::new(&gate, &settings, world.instant()).initiate(world.instant(), &mut message).unwrap();
        message[..length].to_vec()
    };
    (0..64).map(forge).collect()
}

/// Any address of a million.
fn forged_address(n: u32) -> SocketAddr {
    let [_, a, b, c] = n.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 1000))
}

/// Floods host `victim` from forged addresses while time passes; returns the time until `done`, if within `limit`.
fn flood(talk: &mut Talk, victim: usize, limit: Duration, done: impl Fn(&World) -> bool) -> Option<Duration> {
    flood_from(forged_address, talk, victim, limit, done)
}

/// As [`flood`], the `n`th message from the address that `from` gives.
fn flood_from(
    from: impl Fn(u32) -> SocketAddr,
    talk: &mut Talk,
    victim: usize,
    limit: Duration,
    done: impl Fn(&World) -> bool,
) -> Option<Duration> {
    const SLICE: Duration = Duration::from_millis(5);
    let mut messages = forged(&talk.world, victim);
    // Some of the flood repeats what the attacker saw of a real peer.
    let seen = talk.world.capture.take().unwrap_or_default();
    messages.extend(of_type(&seen, INITIATION).into_iter().map(|datagram| datagram.bytes));
    let begin = talk.world.now;
    let mut count = 0u32;
    while !done(&talk.world) {
        if talk.world.now - begin > limit {
            return None;
        }
        for _ in 0..FLOOD_PER_SECOND / 200 {
            count += 1;
            let from = from(count);
            let message = &messages[count as usize % messages.len()];
            talk.world.underlay_input(victim, from, message, message.len());
        }
        talk.run(SLICE);
    }
    Some(talk.world.now - begin)
}

#[test]
fn a_peer_makes_its_session_while_the_other_side_is_flooded() {
    // Host 1 is flooded and host 0 wants a session with it; and the other way round, where its answers are limited.
    for initiator in 0..2 {
        let mut talk = Talk::new();
        talk.world.capture = Some(Vec::new());
        talk.world.connect(0, 1);
        talk.run(S);
        talk.world.reboot(0);
        talk.world.reboot(1);
        flood(&mut talk, 1, 100 * MS, |_| false);
        talk.world.connect(initiator, 1 - initiator);
        let live = |world: &World| (0..2).all(|n| world.hosts[n].peers[&(1 - n)].tunnel().is_live());
        let took = flood(&mut talk, 1, 16 * S, live);
        assert!(took.is_some(), "no session from {initiator} under flood");
        let host = &talk.world.hosts[1];
        let flooded = host.dropped(Drop::HandshakeLimited) + host.dropped(Drop::HandshakeRefused);
        assert!(flooded >= u64::from(FLOOD_PER_SECOND / 10));
        assert!(host.sent[usize::from(COOKIE)] > 0);
    }
}

#[test]
fn a_flooder_with_one_address_is_not_felt_by_anybody_else() {
    for initiator in 0..2 {
        let mut talk = Talk::new();
        let from = |_| endpoint(66);
        flood_from(from, &mut talk, 1, 2 * S, |_| false);
        talk.world.connect(initiator, 1 - initiator);
        let live = |world: &World| (0..2).all(|n| world.hosts[n].peers[&(1 - n)].tunnel().is_live());
        let took = flood_from(from, &mut talk, 1, S, live);
        assert!(took.is_some_and(|took| took < 100 * MS), "from {initiator}: {took:?}");
        assert_eq!(talk.world.hosts[0].dropped(Drop::HandshakeLimited), 0);
        assert_eq!(talk.initiations().iter().sum::<usize>(), 1, "nobody was asked for a cookie");
    }
}

#[test]
fn a_session_that_lives_does_not_feel_a_flood() {
    let mut talk = Talk::with_session();
    let before = talk.initiations();
    for _ in 0..20 {
        talk.say(0);
        talk.say(1);
        flood(&mut talk, 1, 50 * MS, |_| false);
    }
    talk.run(S);
    assert_eq!([talk.lost(0), talk.lost(1)], [0, 0]);
    assert_eq!(talk.initiations_since(before), [0, 0]);
}

#[test]
fn a_flood_is_answered_with_less_than_it_brings_and_costs_a_bounded_number_of_computations() {
    let mut talk = Talk::with_session();
    talk.run(2 * S);
    let limited = talk.world.hosts[1].dropped(Drop::HandshakeLimited);
    let sent = talk.world.hosts[1].sent;
    flood(&mut talk, 1, S, |_| false);
    let host = &talk.world.hosts[1];
    let limited = host.dropped(Drop::HandshakeLimited) - limited;
    assert_eq!(host.sent[usize::from(RESPONSE)] - sent[usize::from(RESPONSE)], 0);
    assert_eq!((host.sent[usize::from(COOKIE)] - sent[usize::from(COOKIE)]) as u64, limited);
    // What is not limited costs a Diffie-Hellman computation; the flood touches two of the gate's seconds.
    let computed = host.dropped(Drop::HandshakeRefused);
    assert!(computed <= 2 * u64::from(HANDSHAKES_PER_SECOND), "{computed} computations");
    assert!(limited + computed >= u64::from(FLOOD_PER_SECOND));
    assert_eq!(endpoint(0), talk.tunnel(1).endpoint().unwrap());
}
