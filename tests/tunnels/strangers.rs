//! Who is no peer: control is told, and what it makes of the peer is all that the peer may do.

use super::talk::{S, Talk};
use crate::world::{Acquaintance, RESPONSE, World, endpoint};
use std::net::Ipv4Addr;
use weft::switch::counters::Drop;
use weft::wire::ethernet::Mac;
use weft::wire::message::{self, Message};
use weft::wire::vnet::VnetHeader;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Host 0 knows host 1, which does not know it.
fn unknown() -> World {
    let mut world = World::new(3, 2);
    world.introduce(0, 1, &Acquaintance::default());
    world.connect(0, 1);
    world.run(S);
    world
}

#[test]
fn control_is_told_and_the_same_initiation_makes_the_session() {
    let mut world = unknown();
    assert_eq!(world.hosts[1].dropped(Drop::HandshakeRefused), 1);
    assert_eq!(world.hosts[1].sent[usize::from(RESPONSE)], 0);
    let (key, initiation) = world.hosts[1].out.strangers.remove(0);
    assert_eq!(key, world.hosts[0].key);
    world.introduce(1, 0, &Acquaintance::default());
    world.underlay_input(1, endpoint(0), &initiation, initiation.len());
    world.run(S);
    assert!(world.hosts[1].peers[&0].tunnel().is_live() && world.hosts[0].peers[&1].tunnel().is_live());
}

#[test]
fn control_is_told_of_so_many_a_second() {
    let mut world = World::new(3, 61);
    for n in 1..61 {
        world.introduce(n, 0, &Acquaintance::default());
        world.connect(n, 0);
    }
    world.run(S / 2);
    assert_eq!(world.hosts[0].dropped(Drop::HandshakeRefused), 60);
    assert_eq!(world.hosts[0].out.strangers.len(), 32);
}

#[test]
fn a_stranger_may_say_something_and_send_nothing() {
    let mut talk = Talk::with_session();
    talk.world.add_port(0, 7, MAC);
    talk.world.add_port(1, 7, Mac([2, 0, 0, 0, 0, 2]));
    let frame = [&[0xff; 6][..], &MAC.0, &[0x88, 0xb5], &[0; 60]].concat();
    let port = talk.world.hosts[0].ports[0].clone();
    let peer = talk.world.hosts[1].peers[&0].clone();
    peer.set_admitted(false);
    assert!(peer.is_stranger());
    talk.world.port_input(0, &port, VnetHeader::default(), &frame);
    talk.say(0);
    assert!(talk.is_heard_within(0, S), "a message is heard");
    assert!(talk.world.hosts[1].out.deliveries.is_empty());
    assert_eq!(talk.world.hosts[1].dropped(Drop::NotAdmitted), 1);
    // Nor does it get anything.
    let back = talk.world.hosts[1].ports[0].clone();
    let frame = [&[0xff; 6][..], &back.mac.0, &[0x88, 0xb5], &[0; 60]].concat();
    talk.world.port_input(1, &back, VnetHeader::default(), &frame);
    talk.say(1);
    assert!(talk.is_heard_within(1, S));
    assert!(talk.world.hosts[0].out.deliveries.is_empty());
    assert_eq!(talk.world.hosts[1].dropped(Drop::NotAdmitted), 2);
    peer.set_admitted(true);
    talk.world.port_input(1, &back, VnetHeader::default(), &frame);
    talk.run(S);
    assert_eq!(talk.world.hosts[0].out.deliveries.len(), 1);
}

#[test]
fn who_sets_a_tunnel_address_of_its_own_can_speak_before_anyone_knows_it() {
    let mut talk = Talk::with_session();
    let set = Ipv4Addr::new(100, 64, 9, 9);
    let known = [talk.world.hosts[0].address, talk.world.hosts[1].address];
    let heard = |talk: &mut Talk, n: usize, from: Ipv4Addr, to: Ipv4Addr| {
        let before = talk.world.hosts[1 - n].dropped(Drop::SpoofedTunnelAddress);
        let probe = Message::Probe { token: u64::from(u32::from(from) ^ u32::from(to)) };
        let packet = message::packet(&probe, from, to, Some(100));
        talk.world.send_packet(n, 1 - n, &packet);
        talk.run(S);
        talk.world.hosts[1 - n].dropped(Drop::SpoofedTunnelAddress) == before
    };
    // A peer speaks as what it is known for; a stranger may be known for nothing.
    assert!(!heard(&mut talk, 0, set, known[1]));
    talk.world.hosts[1].peers[&0].set_admitted(false);
    assert!(heard(&mut talk, 0, set, known[1]));
    // The answer goes to the address that follows from its key.
    talk.world.hosts[0].address = set;
    talk.world.publish();
    assert!(heard(&mut talk, 1, known[1], known[0]));
    assert!(!heard(&mut talk, 1, known[1], Ipv4Addr::new(100, 64, 9, 8)));
}
