//! After silence, outages and restarts traffic flows again, soon, whoever speaks first.

use super::talk::{H, MIN, MS, S, Talk};
use crate::world::{Acquaintance, endpoint};
use std::time::Duration;
use weft::switch::counters::Drop;

/// With and without keepalive, on either side.
fn acquaintances() -> [[Acquaintance; 2]; 3] {
    let (none, some) = (None, Some(25));
    [[none, none], [some, none], [some, some]]
        .map(|pair| pair.map(|keepalive| Acquaintance { keepalive, ..Acquaintance::default() }))
}

#[test]
fn after_silence_of_any_length_the_first_packet_arrives() {
    for [a, b] in &acquaintances() {
        for speaker in 0..2 {
            let mut talk = Talk::between(a, b);
            talk.world.connect(0, 1);
            for silence in [S, 30 * S, 2 * MIN, 175 * S, 185 * S, 5 * MIN, 539 * S, 541 * S, 10 * MIN, H, 26 * H] {
                talk.run(silence);
                talk.say(speaker);
                assert!(talk.is_heard_within(speaker, S), "{a:?}, {b:?}: {speaker} after {silence:?}");
                talk.run(S);
                talk.say(1 - speaker);
                assert!(talk.is_heard_within(1 - speaker, S), "{a:?}, {b:?}: {speaker} after {silence:?}");
            }
        }
    }
}

/// What is said during an outage is lost; what is said after it must get through within a retry of five seconds.
#[test]
fn after_an_outage_of_any_length_traffic_flows_again_within_a_retry() {
    let patterns: [[Option<Duration>; 2]; 4] = [[Some(S), Some(S)], [Some(S), None], [None, Some(S)], [None, None]];
    for [a, b] in &acquaintances() {
        for every in patterns {
            let mut talk = Talk::between(a, b);
            talk.world.connect(0, 1);
            talk.talk(S, [Some(S), Some(S)]);
            for outage in [10 * S, 20 * S, 100 * S, 119 * S, 170 * S, 200 * S, 9 * MIN, 11 * MIN, 3 * H] {
                talk.cut(true);
                talk.talk(outage, every);
                talk.cut(false);
                // Whoever speaks, and if nobody does host 0 after a while.
                talk.talk(if every == [None, None] { 2 * S } else { 6 * S }, every);
                talk.forgive();
                for n in 0..2 {
                    talk.say(n);
                    assert!(talk.is_heard_within(n, 6 * S), "{a:?} {b:?} {every:?}: {n} after {outage:?}");
                }
            }
        }
    }
}

/// An attempt ends after 90 seconds: what waits then must not wait for the next packet.
#[test]
fn whenever_the_path_opens_what_waits_arrives_within_a_retry() {
    for tenths in 840..960 {
        let mut talk = Talk::new();
        talk.cut(true);
        talk.world.connect(0, 1);
        talk.run(tenths * 100 * MS);
        talk.say(0);
        talk.run(200 * MS);
        talk.cut(false);
        // Five seconds, jitter, and a tick.
        assert!(talk.is_heard_within(0, 5700 * MS), "said {:?} after the first attempt", tenths * 100 * MS);
    }
}

#[test]
fn a_peer_that_restarted_is_heard_at_once_when_it_speaks() {
    let mut talk = Talk::with_session();
    talk.talk(30 * S, [Some(S), Some(S)]);
    talk.run(S);
    talk.world.reboot(1);
    talk.say(1);
    assert!(talk.is_heard_within(1, S));
    talk.say(0);
    assert!(talk.is_heard_within(0, S));
}

#[test]
fn a_peer_that_restarted_and_is_silent_is_found_out_after_15_seconds() {
    let mut talk = Talk::with_session();
    talk.talk(30 * S, [Some(S), Some(S)]);
    talk.world.reboot(1);
    talk.talk(17 * S, [Some(S), None]);
    assert!(talk.world.hosts[1].dropped(Drop::UnknownSession) > 10);
    talk.forgive();
    talk.talk(5 * S, [Some(S), Some(S)]);
    talk.run(S);
    assert_eq!([talk.lost(0), talk.lost(1)], [0, 0]);
}

#[test]
fn a_peer_with_another_key_is_another_peer() {
    let mut talk = Talk::with_session();
    talk.talk(5 * S, [Some(S), Some(S)]);
    talk.world.rekey(1);
    // Host 0 still has the old key: nothing of the new one is let in.
    talk.say(1);
    assert!(!talk.is_heard_within(1, 10 * S));
    assert!(talk.world.hosts[0].dropped(Drop::HandshakeRefused) > 0);
    talk.world.part(0, 1);
    talk.world.introduce(0, 1, &Acquaintance::default());
    talk.forgive();
    for n in 0..2 {
        talk.say(n);
        assert!(talk.is_heard_within(n, 6 * S));
    }
}

#[test]
fn a_peer_that_was_removed_gets_nothing_and_gives_nothing() {
    let mut talk = Talk::with_session();
    talk.world.part(0, 1);
    talk.say(1);
    assert!(!talk.is_heard_within(1, 60 * S));
    assert!(talk.world.hosts[0].dropped(Drop::UnknownSession) > 0);
    assert!(talk.world.hosts[0].dropped(Drop::HandshakeRefused) > 0);
    assert_eq!(talk.world.hosts[0].sent, [0, 1, 0, 0, 1], "an initiation and its keepalive, before");
}

#[test]
fn initiations_go_to_all_endpoints_until_one_answers() {
    let wrong = [endpoint(70), endpoint(71)];
    let endpoints = vec![wrong[0], endpoint(1), wrong[1]];
    let known = Acquaintance { endpoints: Some(endpoints), ..Acquaintance::default() };
    let nothing = Acquaintance { endpoints: Some(Vec::new()), ..Acquaintance::default() };
    let mut talk = Talk::between(&known, &nothing);
    talk.world.capture = Some(Vec::new());
    talk.say(0);
    assert!(talk.is_heard_within(0, S));
    let capture = std::mem::take(&mut talk.world.capture).unwrap();
    let to: Vec<_> = capture.iter().filter(|d| d.bytes[0] == 1).map(|d| d.to).collect();
    assert_eq!(to, [wrong[0], endpoint(1), wrong[1]]);
    assert_eq!(talk.tunnel(0).endpoint(), Some(endpoint(1)));
    // The one that answered is the one that renewals and data go to.
    talk.world.capture = Some(Vec::new());
    talk.talk(10 * MIN, [Some(S), Some(S)]);
    assert!(talk.world.capture.take().unwrap().iter().all(|d| !wrong.contains(&d.to)));
    // When it falls silent for good, all are tried again.
    talk.cut(true);
    talk.world.capture = Some(Vec::new());
    talk.talk(60 * S, [Some(S), None]);
    let capture = talk.world.capture.take().unwrap();
    assert!(wrong.iter().all(|wrong| capture.iter().any(|d| d.to == *wrong)));
}

#[test]
fn the_same_initiation_over_several_addresses_makes_one_session() {
    let mut talk = Talk::new();
    talk.world.capture = Some(Vec::new());
    talk.world.cut.insert((0, 1));
    talk.world.connect(0, 1);
    let initiation = talk.world.capture.take().unwrap().remove(0).bytes;
    talk.world.cut.clear();
    for _ in 0..3 {
        talk.world.underlay_input(1, endpoint(0), &initiation, initiation.len());
        talk.run(MS);
    }
    assert_eq!(talk.world.hosts[1].sent[2], 1);
    assert_eq!(talk.world.hosts[1].dropped(Drop::HandshakeRefused), 2);
    talk.say(0);
    talk.say(1);
    assert!(talk.is_heard_within(0, S) && talk.is_heard_within(1, S));
}

#[test]
fn without_an_endpoint_packets_wait_and_expire_and_the_peer_may_come_by_itself() {
    let nothing = Acquaintance { endpoints: Some(Vec::new()), ..Acquaintance::default() };
    let mut talk = Talk::between(&nothing, &Acquaintance::default());
    talk.talk(20 * MIN, [Some(S), None]);
    assert_eq!(talk.world.hosts[0].sent.iter().sum::<usize>(), 0);
    talk.forgive();
    talk.say(0);
    talk.say(1);
    assert!(talk.is_heard_within(1, S) && talk.is_heard_within(0, S));
}
