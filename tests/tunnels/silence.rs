//! Frames to everybody and a peer that does not answer: it costs next to nothing, and misses nothing once it is back.

use super::talk::{MIN, S, Talk};
use crate::world::INITIATION;
use std::time::Duration;
use weft::switch::counters::Drop;
use weft::wire::ethernet::Mac;
use weft::wire::vnet::VnetHeader;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Host 0 with a container that broadcasts, host 1 with one that listens.
fn network() -> Talk {
    let mut talk = Talk::new();
    talk.world.add_port(0, 7, MAC);
    talk.world.add_port(1, 7, Mac([2, 0, 0, 0, 0, 2]));
    talk
}

fn broadcast(talk: &mut Talk) {
    let port = talk.world.hosts[0].ports[0].clone();
    let frame = [&[0xff; 6][..], &MAC.0, &[0x88, 0xb5], &[0; 60]].concat();
    talk.world.port_input(0, &port, VnetHeader::default(), &frame);
}

/// One broadcast a second.
fn broadcast_for(talk: &mut Talk, span: Duration) {
    for _ in 0..span.as_secs() {
        broadcast(talk);
        talk.run(S);
    }
}

fn passed_by(talk: &Talk) -> u64 {
    talk.world.hosts[0].dropped(Drop::PeerSilent)
}

#[test]
fn nothing_is_kept_for_a_peer_that_has_not_answered_for_a_while() {
    let mut talk = network();
    talk.cut(true);
    broadcast_for(&mut talk, 3 * S);
    assert_eq!((talk.tunnel(0).waiting(), passed_by(&talk)), (3, 0), "it may be about to answer");
    broadcast_for(&mut talk, 10 * S);
    let before = passed_by(&talk);
    broadcast_for(&mut talk, 20 * S);
    assert_eq!((talk.tunnel(0).waiting(), passed_by(&talk) - before), (0, 20));
    // What is for this peer alone waits as ever.
    talk.say(0);
    assert_eq!(talk.tunnel(0).waiting(), 1);
}

#[test]
fn a_peer_that_is_back_gets_frames_again_within_a_retry_however_long_it_was_away() {
    for outage in [10 * S, 89 * S, 95 * S, 5 * MIN] {
        let mut talk = network();
        talk.cut(true);
        broadcast_for(&mut talk, outage);
        talk.cut(false);
        broadcast_for(&mut talk, 6 * S);
        talk.world.hosts[1].out.deliveries.clear();
        broadcast_for(&mut talk, 3 * S);
        assert_eq!(talk.world.hosts[1].out.deliveries.len(), 3, "after {outage:?}");
    }
}

#[test]
fn a_peer_that_is_off_is_called_every_five_seconds_however_many_frames_pass_it_by() {
    let mut talk = network();
    talk.cut(true);
    for _ in 0..5 * 60 * 20 {
        broadcast(&mut talk);
        talk.run(S / 20);
    }
    let calls = talk.world.hosts[0].sent[usize::from(INITIATION)];
    assert!((50..=62).contains(&calls), "{calls} initiations in 5 minutes");
}

#[test]
fn who_was_silent_for_want_of_anything_to_say_is_called_by_the_first_frame() {
    let mut talk = network();
    broadcast(&mut talk);
    talk.run(S);
    talk.run(30 * MIN);
    talk.world.hosts[1].out.deliveries.clear();
    broadcast(&mut talk);
    talk.run(S);
    assert_eq!((talk.world.hosts[1].out.deliveries.len(), passed_by(&talk)), (1, 0));
}
