//! A tunnel that control holds on a way: probes over others leave it there, a peer that lost the way does not.

use super::talk::{MS, S, Talk};
use crate::world::endpoint;
use weft::wire::ethernet::Mac;
use weft::wire::vnet::VnetHeader;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Host 1 holds its tunnel to host 0 where that is, and host 0 has a container.
fn held() -> Talk {
    let mut talk = Talk::with_session();
    talk.world.add_port(0, 7, MAC);
    talk.world.add_port(1, 7, Mac([2, 0, 0, 0, 0, 2]));
    let now = talk.world.instant();
    talk.tunnel(1).choose(now, endpoint(0));
    talk
}

fn broadcast(talk: &mut Talk) {
    let port = talk.world.hosts[0].ports[0].clone();
    let frame = [&[0xff; 6][..], &MAC.0, &[0x88, 0xb5], &[0; 60]].concat();
    talk.world.port_input(0, &port, VnetHeader::default(), &frame);
    talk.run(10 * MS);
}

#[test]
fn messages_from_elsewhere_are_heard_and_never_move_it() {
    let mut talk = held();
    talk.world.move_to(0, endpoint(40));
    for _ in 0..5 {
        talk.say(0);
        assert!(talk.is_heard_within(0, S));
        assert_eq!(talk.world.hosts[1].out.came_from, Some(endpoint(40)));
        talk.run(S);
    }
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(0)));
    // Released, it follows the next one as it would have all along.
    talk.tunnel(1).release();
    talk.say(0);
    talk.run(S);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(40)));
}

#[test]
fn frames_from_elsewhere_move_it_once_its_way_is_silent() {
    let mut talk = held();
    broadcast(&mut talk);
    assert!(talk.tunnel(1).heard_at().is_some());
    talk.world.move_to(0, endpoint(40));
    broadcast(&mut talk);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(0)), "its way was heard on a moment ago");
    talk.run(S);
    broadcast(&mut talk);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(40)));
    // It is held there now.
    talk.world.move_to(0, endpoint(41));
    broadcast(&mut talk);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(40)));
}

#[test]
fn a_choice_stands_for_a_second_before_anything_was_heard_there() {
    let mut talk = held();
    let now = talk.world.instant();
    talk.tunnel(1).choose(now, endpoint(50));
    assert_eq!(talk.tunnel(1).heard_at(), None);
    broadcast(&mut talk);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(50)));
    talk.run(S);
    // Chosen again, it stands for another second.
    let now = talk.world.instant();
    talk.tunnel(1).choose(now, endpoint(50));
    broadcast(&mut talk);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(50)));
    talk.run(S);
    broadcast(&mut talk);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(0)));
}

#[test]
fn a_peer_that_starts_over_elsewhere_is_followed() {
    let mut talk = held();
    talk.world.move_to(0, endpoint(40));
    talk.world.reboot(0);
    talk.world.connect(0, 1);
    talk.run(2 * S);
    broadcast(&mut talk);
    talk.say(1);
    assert!(talk.is_heard_within(1, 10 * S));
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(40)));
}

#[test]
fn a_message_takes_the_way_it_is_given_and_moves_nothing() {
    let mut talk = Talk::with_session();
    talk.world.capture = Some(Vec::new());
    let packet = talk.packet(0, 1);
    talk.world.send_packet_via(0, 1, &packet, Some(endpoint(77)));
    talk.run(10 * MS);
    let sent = talk.world.capture.take().unwrap();
    assert_eq!(sent.iter().map(|datagram| datagram.to).collect::<Vec<_>>(), [endpoint(77)]);
    assert_eq!(talk.tunnel(0).endpoint(), Some(endpoint(1)));
}

#[test]
fn what_was_lost_late_and_received_is_told_by_the_counters() {
    let mut talk = Talk::with_session();
    talk.run(S);
    let before = talk.world.hosts[1].peers[&0].reception();
    let datagrams = talk.sealed(0, 10);
    // 3 and 7 get lost, 5 comes last.
    for n in [0, 1, 2, 4, 6, 8, 9, 5] {
        talk.world.underlay_input(1, endpoint(0), &datagrams[n], datagrams[n].len());
        talk.world.hosts[1].out.messages.clear();
    }
    let after = talk.world.hosts[1].peers[&0].reception();
    assert_eq!((after.received - before.received, after.lost - before.lost), (8, 2));
    assert_eq!(after.reordered - before.reordered, 1);
    // A copy is none of these, and another session adds to them.
    talk.world.underlay_input(1, endpoint(0), &datagrams[0], datagrams[0].len());
    assert_eq!(talk.world.hosts[1].peers[&0].reception(), after);
    talk.world.reboot(0);
    talk.world.connect(0, 1);
    talk.run(S);
    let later = talk.world.hosts[1].peers[&0].reception();
    assert!(later.received > after.received && later.lost == after.lost, "{later:?}");
}
