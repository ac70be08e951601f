//! Sessions are made when they are needed, renewed in time, and not more often.

use super::talk::{H, MIN, MS, S, Talk, of_type};
use crate::world::{Acquaintance, DATA, KEEPALIVE_LEN, RESPONSE};
use std::time::Duration;
use weft::switch::counters::Drop;

const HANDSHAKE_OF_3_H: usize = 3 * 3600 / 120;

#[test]
fn silence_and_then_one_way_traffic_does_not_renew() {
    for latency in [MS, 150 * MS, 400 * MS, 1500 * MS] {
        let mut talk = Talk::with_session();
        talk.world.link.latency = latency;
        talk.run(40 * S);
        let before = talk.initiations();
        talk.talk(60 * S, [Some(50 * MS), None]);
        talk.run(4 * S);
        assert_eq!(talk.initiations_since(before), [0, 0], "round trip {:?}", 2 * latency);
        assert_eq!(talk.lost(0), 0);
    }
}

#[test]
fn a_question_now_and_then_does_not_renew() {
    let mut talk = Talk::with_session();
    talk.world.link.latency = 300 * MS;
    let before = talk.initiations();
    for _ in 0..6 {
        talk.run(17 * S);
        talk.say(1);
        talk.run(700 * MS);
        talk.say(0);
    }
    assert_eq!(talk.initiations_since(before), [0, 0]);
}

/// WireGuard answers one-way traffic with a keepalive 10 seconds after the first packet.
#[test]
fn a_peer_that_answers_after_ten_seconds_is_not_deaf() {
    let mut talk = Talk::with_session();
    talk.run(30 * S);
    let before = talk.initiations();
    talk.world.cut.insert((1, 0));
    talk.talk(9500 * MS, [Some(500 * MS), None]);
    talk.world.cut.clear();
    talk.talk(60 * S, [Some(500 * MS), None]);
    assert_eq!(talk.initiations_since(before), [0, 0]);
}

#[test]
fn a_deaf_peer_is_asked_for_a_session_after_15_seconds() {
    for silence in [Duration::ZERO, 40 * S] {
        let mut talk = Talk::with_session();
        talk.talk(10 * S, [Some(200 * MS), Some(200 * MS)]);
        // What is under way arrives: nobody waits for an answer.
        talk.run(20 * MS + silence);
        let before = talk.initiations();
        talk.cut(true);
        talk.talk(14 * S, [Some(200 * MS), None]);
        assert_eq!(talk.initiations_since(before), [0, 0], "after {silence:?}");
        talk.talk(2 * S, [Some(200 * MS), None]);
        assert_eq!(talk.initiations_since(before), [1, 0], "after {silence:?}");
        talk.talk(20 * S, [Some(200 * MS), None]);
        assert!((4..=5).contains(&talk.initiations_since(before)[0]), "every five seconds");
    }
}

#[test]
fn a_single_unanswered_packet_makes_a_deaf_peer_be_asked_too() {
    let mut talk = Talk::with_session();
    talk.run(40 * S);
    let before = talk.initiations();
    talk.cut(true);
    talk.say(0);
    talk.run(14 * S);
    assert_eq!(talk.initiations_since(before), [0, 0]);
    talk.run(2 * S);
    assert_eq!(talk.initiations_since(before), [1, 0]);
}

#[test]
fn after_simultaneous_initiations_one_side_renews_for_both() {
    // Longer than the hosts' ticks are apart, too, so that both renew before they hear of the other's renewal.
    for latency in [20 * MS, 100 * MS, 500 * MS] {
        let mut talk = Talk::new();
        talk.world.link.latency = latency;
        talk.world.connect(0, 1);
        talk.world.connect(1, 0);
        talk.run(2 * S);
        assert_eq!(talk.initiations(), [1, 1]);
        assert!(talk.tunnel(0).is_live() && talk.tunnel(1).is_live());
        let before = talk.initiations();
        talk.talk(H, [Some(100 * MS), Some(70 * MS)]);
        talk.run(S);
        assert_eq!([talk.lost(0), talk.lost(1)], [0, 0]);
        let [a, b] = talk.initiations_since(before);
        assert!(a.min(b) == 0 && (28..=30).contains(&a.max(b)), "{latency:?}: {a} and {b} initiations");
    }
}

/// The second of the two defects meets the first: both find the other deaf, at once.
#[test]
fn after_an_outage_that_both_noticed_one_side_renews_for_both() {
    let mut talk = Talk::with_session();
    talk.world.link.latency = 200 * MS;
    talk.cut(true);
    talk.talk(30 * S, [Some(100 * MS), Some(100 * MS)]);
    talk.cut(false);
    talk.talk(6 * S, [Some(100 * MS), Some(100 * MS)]);
    talk.forgive();
    let before = talk.initiations();
    talk.talk(H, [Some(100 * MS), Some(100 * MS)]);
    talk.run(S);
    assert_eq!([talk.lost(0), talk.lost(1)], [0, 0]);
    let [a, b] = talk.initiations_since(before);
    assert!((28..=31).contains(&(a + b)), "{a} and {b} initiations");
}

#[test]
fn three_hours_of_traffic_lose_nothing_in_any_direction() {
    let patterns: [[Option<Duration>; 2]; 6] = [
        [Some(100 * MS), Some(130 * MS)],
        [Some(100 * MS), None],
        [None, Some(100 * MS)],
        [Some(100 * MS), Some(61 * S)],
        [Some(17 * S), Some(19 * S)],
        [Some(131 * S), Some(100 * MS)],
    ];
    for (every, latency) in patterns.into_iter().zip([1, 20, 20, 300, 300, 300]) {
        let mut talk = Talk::with_session();
        talk.world.link.latency = latency * MS;
        let mut last = [0, 0];
        for minute in 0..180 {
            talk.talk(MIN, every);
            // What was said in the last second may be under way.
            let lost = [talk.lost(0), talk.lost(1)];
            assert!(lost.iter().all(|&lost| lost <= 8), "{every:?}: {lost:?} lost in minute {minute}");
            last = lost;
        }
        talk.run(2 * S);
        assert_eq!([talk.lost(0), talk.lost(1)], [0, 0], "{every:?}, before: {last:?}");
        let handshakes: usize = talk.initiations().iter().sum();
        assert!(handshakes <= HANDSHAKE_OF_3_H + 2, "{every:?}: {handshakes} handshakes");
        assert!(handshakes >= 3 * 3600 / 180, "{every:?}: {handshakes} handshakes");
    }
}

#[test]
fn renewals_survive_loss_and_reordering() {
    let mut talk = Talk::with_session();
    (talk.world.link.loss, talk.world.link.jitter) = (0.05, 40 * MS);
    talk.talk(H, [Some(100 * MS), Some(100 * MS)]);
    talk.run(S);
    for n in 0..2 {
        assert!((1300..2300).contains(&talk.lost(n)), "5 % of 36,000, and not a second's silence: {}", talk.lost(n));
    }
    let handshakes: usize = talk.initiations().iter().sum();
    assert!((29..45).contains(&handshakes), "{handshakes}");
}

#[test]
fn an_idle_tunnel_with_keepalive_sends_it_and_one_without_is_silent() {
    let keepalive = Acquaintance { keepalive: Some(25), ..Acquaintance::default() };
    let mut talk = Talk::between(&keepalive, &Acquaintance::default());
    talk.world.connect(0, 1);
    talk.run(S);
    talk.world.capture = Some(Vec::new());
    talk.run(170 * S);
    let sent = of_type(&talk.world.capture.take().unwrap(), DATA);
    assert!(sent.iter().all(|datagram| datagram.bytes.len() == KEEPALIVE_LEN));
    assert!((6..=7).contains(&sent.len()), "{} keepalives", sent.len());
    // And for hours: the other side, possibly behind the NAT that this keeps open, can always be reached.
    for _ in 0..60 {
        talk.run(97 * S);
        talk.say(1);
        assert!(talk.is_heard_within(1, S), "after {:?}", talk.world.now);
    }
    let mut talk = Talk::with_session();
    talk.world.capture = Some(Vec::new());
    talk.run(H);
    assert_eq!(talk.world.capture.unwrap().len(), 0);
}

#[test]
fn what_waits_at_the_responder_leaves_with_the_first_keepalive() {
    let mut talk = Talk::new();
    // Host 1 has something to say while host 0's initiation is under way.
    talk.world.cut.insert((1, 0));
    talk.say(1);
    talk.run(S);
    assert_eq!(talk.tunnel(1).waiting(), 1);
    talk.world.cut.clear();
    talk.world.connect(0, 1);
    assert!(talk.is_heard_within(1, 100 * MS), "three ways of five milliseconds");
    assert_eq!(talk.initiations(), [1, 1]);
}

#[test]
fn all_that_waits_leaves_when_the_session_comes() {
    let mut talk = Talk::new();
    for n in [0, 0, 0, 1, 1].repeat(6) {
        talk.say(n);
    }
    assert_eq!((talk.tunnel(0).waiting(), talk.tunnel(1).waiting()), (18, 12));
    assert!(talk.is_heard_within(0, 100 * MS) && talk.is_heard_within(1, 100 * MS));
}

#[test]
fn a_session_is_not_live_before_the_peer_proved_that_it_has_it() {
    let mut talk = Talk::new();
    // Host 1 gets every initiation; its responses are lost.
    talk.world.cut.insert((1, 0));
    for _ in 0..30 {
        talk.talk(5 * S, [Some(S), None]);
        assert!(!talk.tunnel(1).is_live() && talk.tunnel(1).established().is_none(), "{:?}", talk.world.now);
    }
    assert!(talk.world.hosts[1].sent[usize::from(RESPONSE)] > 16);
    talk.say(1);
    assert_eq!(talk.tunnel(1).waiting(), 1);
    talk.world.cut.clear();
    assert!(talk.world.run_until(6 * S, |world| world.hosts[1].peers[&0].tunnel().is_live()));
}

#[test]
fn a_different_preshared_key_never_makes_a_session() {
    use weft::wire::key::Secret;
    let with = |key: Option<u8>| Acquaintance {
        preshared_key: key.map(|key| Secret::shared([key; 32])),
        keepalive: Some(10),
        ..Acquaintance::default()
    };
    for (a, b) in [(Some(1), Some(2)), (Some(1), None), (None, Some(2))] {
        let mut talk = Talk::between(&with(a), &with(b));
        for _ in 0..60 {
            talk.talk(5 * S, [Some(S), Some(S)]);
            assert!(!talk.tunnel(0).is_live() && !talk.tunnel(1).is_live(), "{a:?} {b:?} at {:?}", talk.world.now);
        }
        assert_eq!((talk.lost(0), talk.lost(1)), (300, 300));
        assert!(talk.world.hosts.iter().all(|host| host.dropped(Drop::HandshakeRefused) > 10));
    }
    let mut talk = Talk::between(&with(Some(1)), &with(Some(1)));
    talk.say(0);
    assert!(talk.is_heard_within(0, S));
}
