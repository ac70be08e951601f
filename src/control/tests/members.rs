//! What other members have, and what that makes of the switch.

use super::*;
use crate::mesh::document::{Document, paginate};
use crate::mesh::facts::{Attachment, Facts, Name, Named, records};
use crate::mesh::gossip::{Message, Part};
use crate::mesh::stations::PATIENCE;
use crate::switch::counters::Drop;
use crate::wire::igmp;
use crate::wire::key::PublicKey;
use crate::wire::vnet::VnetHeader;
use std::net::{IpAddr, Ipv4Addr};

const VNI: u32 = 100;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 32, 1, last])
}

fn beta() -> PublicKey {
    BETA.parse().unwrap()
}

/// A plane that has beta as a peer, and two ports: `one` is 10.32.1.1 at …:01, `two` the like.
fn plane() -> Plane {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n");
    let mut plane = Plane::new(&format!("{FILE}{peer}"));
    for (last, name) in [(1, "one"), (2, "two")] {
        attach(&mut plane, last, last, name);
    }
    plane.pass(Duration::from_secs(10));
    plane.control.host.out.frames.clear();
    plane
}

fn attach(plane: &mut Plane, station: u8, address: u8, name: &str) {
    plane
        .attach(u32::from(station) + 50, |attach| {
            attach.addresses = vec![format!("10.32.1.{address}/16").parse().unwrap()];
            (attach.mac, attach.name) = (Some(mac(station)), Some(name.to_owned()));
        })
        .unwrap();
}

fn beta_has(plane: &mut Plane, stations: &[(u8, u8, u32)]) {
    let attachment = |&(station, address, sequence): &(u8, u8, u32)| Attachment {
        vni: VNI,
        mac: mac(station),
        addresses: vec![ip(address)],
        sequence,
        name: format!("b{station}"),
    };
    let attachments: Vec<Attachment> = stations.iter().map(attachment).collect();
    plane.control.member_has(plane.now, beta(), "beta", &attachments);
}

fn entry(plane: &Plane, station: u8) -> Option<(String, String)> {
    plane.fdb().into_iter().find(|entry| entry.mac == mac(station)).map(|entry| (entry.at, entry.kind))
}

fn at(place: &str, kind: &str) -> Option<(String, String)> {
    Some((place.to_owned(), kind.to_owned()))
}

fn told(plane: &mut Plane) -> Vec<(PortId, Vec<u8>)> {
    std::mem::take(&mut plane.control.host.out.frames)
}

#[test]
fn what_a_member_has_is_in_the_fdb_and_answered_for_until_it_has_it_no_longer() {
    let mut plane = plane();
    assert_eq!((entry(&plane, 1), entry(&plane, 3)), (at("port one", "static"), None));
    beta_has(&mut plane, &[(3, 3, 0)]);
    assert_eq!(entry(&plane, 3), at("peer beta", "mesh"));
    assert_eq!([1, 2, 3].map(|n| plane.switch.neighbours.lookup(VNI, ip(n))), [1, 2, 3].map(|n| Some(mac(n))));
    let frame = announce::gratuitous_arp(mac(3), Ipv4Addr::new(10, 32, 1, 3));
    let hearers = [plane.id("one"), plane.id("two")];
    assert_eq!(told(&mut plane), hearers.map(|port| (port, frame.clone())), "it may have been elsewhere before");
    // Whoever comes to have the network later finds it there; who has it no longer forgets.
    beta_has(&mut plane, &[]);
    assert_eq!((entry(&plane, 3), plane.switch.neighbours.lookup(VNI, ip(3))), (None, None));
    plane.detach("one");
    assert_eq!((entry(&plane, 1), plane.switch.neighbours.lookup(VNI, ip(1))), (None, None));
    assert_eq!(plane.control.attachments().count(), 1);
}

#[test]
fn what_a_member_says_of_a_network_that_it_is_kept_out_of_does_not_count() {
    let kept = |networks: &str| {
        Plane::new(&format!("{FILE}[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\nnetworks = [{networks}]\n"))
    };
    let mut plane = kept("\"red\"");
    beta_has(&mut plane, &[(3, 3, 0)]);
    assert_eq!((entry(&plane, 3), plane.switch.neighbours.lookup(VNI, ip(3))), (None, None));
    let mut plane = kept("\"red\", \"blue\"");
    beta_has(&mut plane, &[(3, 3, 0)]);
    assert_eq!(entry(&plane, 3), at("peer beta", "mesh"));
}

#[test]
fn who_hears_of_containers_by_the_mesh_is_not_told_frame_by_frame() {
    let mut plane = Plane::new(&format!("{FILE}[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n"));
    let peer = plane.switch.topology().peer_by_key(&beta()).unwrap().clone();
    peer.set_meshed(true);
    attach(&mut plane, 7, 7, "seven");
    assert_eq!(peer.tunnel().waiting(), 0);
    peer.set_meshed(false);
    plane.pass(crate::control::TICK);
    attach(&mut plane, 8, 8, "eight");
    assert_ne!(peer.tunnel().waiting(), 0);
}

#[test]
fn a_container_comes_and_goes_by_sequence_number_and_its_neighbours_are_told() {
    let mut plane = plane();
    let ours = |plane: &Plane, name: &str| {
        plane.control.attachments().find(|attachment| attachment.name == name).map(|attachment| attachment.sequence)
    };
    assert_eq!(ours(&plane, "one"), Some(0));
    // It stops here and starts at beta with another MAC address: told to who is left here.
    plane.detach("one");
    beta_has(&mut plane, &[(9, 1, 1)]);
    let (two, frame) = (plane.id("two"), announce::gratuitous_arp(mac(9), Ipv4Addr::new(10, 32, 1, 1)));
    assert_eq!(told(&mut plane), [(two, frame)]);
    // And back, before beta has let go.
    attach(&mut plane, 1, 1, "one");
    assert_eq!((ours(&plane, "one"), entry(&plane, 1)), (Some(2), at("port one", "static")));
    assert_eq!(plane.switch.neighbours.lookup(VNI, ip(1)), Some(mac(1)));
    // With its MAC address: that is wherever the higher number is.
    beta_has(&mut plane, &[(1, 1, 3)]);
    assert_eq!(entry(&plane, 1), at("peer beta", "mesh"));
    beta_has(&mut plane, &[]);
    assert_eq!(entry(&plane, 1), at("port one", "static"));
}

#[test]
fn a_duplicate_address_is_a_warning_that_names_both_owners_until_it_is_none() {
    let mut plane = plane();
    beta_has(&mut plane, &[(3, 1, 0)]);
    let warnings = |plane: &Plane| match plane.control.show(plane.now, &Request::Status) {
        Some(Response::Status(status)) => status.warnings,
        other => panic!("{other:?}"),
    };
    let about = |plane: &Plane| warnings(plane).into_iter().find(|text| text.contains("10.32.1.1"));
    assert_eq!(about(&plane), None, "it may be moving");
    plane.pass(PATIENCE + Duration::from_secs(1));
    let warning = about(&plane).unwrap();
    let named = ["network blue", "port one of alpha", "port b3 of beta"].iter().all(|name| warning.contains(name));
    assert!(named, "{warning}");
    plane.detach("one");
    assert_eq!(about(&plane), None);
}

#[test]
fn static_entries_of_the_file_stand_above_what_members_say_and_give_way_when_they_are_gone() {
    let mut plane = plane();
    beta_has(&mut plane, &[(3, 3, 0)]);
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n");
    let pinned =
        FILE.replacen("subnets", &format!("static = [{{ mac = \"{}\", port = \"web\" }}]\nsubnets", mac(3)), 1);
    plane.found("web", Ok(9));
    plane.reload(&format!("{pinned}{peer}")).unwrap();
    assert_eq!(entry(&plane, 3), at("port web", "static"));
    beta_has(&mut plane, &[(3, 3, 7)]);
    assert_eq!(entry(&plane, 3), at("port web", "static"));
    plane.reload(&format!("{FILE}{peer}")).unwrap();
    assert_eq!(entry(&plane, 3), at("peer beta", "mesh"));
}

#[test]
fn multicast_follows_what_ports_say_and_they_are_asked() {
    let mut plane = plane();
    let (one, two) = (plane.id("one"), plane.id("two"));
    let port =
        plane.switch.topology().network(VNI).unwrap().ports.iter().find(|port| port.id == one).unwrap().clone();
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let send = |plane: &mut Plane| {
        let data = [&[0x01, 0, 0x5e, 1, 2, 3][..], &mac(1).0, &[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 17, 0, 0]];
        let frame = [&data.concat()[..], &[10, 32, 1, 1], &group.octets(), &[0; 8]].concat();
        let mut buffer = [&[0; crate::switch::HEADROOM][..], &frame].concat();
        let (at, header) = (crate::switch::HEADROOM, VnetHeader::default());
        plane.switch.port_input(plane.now, &port, header, &mut buffer, at, &mut plane.control.host.out);
        told(plane).into_iter().map(|(port, _)| port).collect::<Vec<_>>()
    };
    let report = |kind: u8| {
        let mut message = [&[kind, 0, 0, 0][..], &group.octets()].concat();
        let check = !crate::wire::checksum::fold(crate::wire::checksum::sum(0, &message));
        message[2..4].copy_from_slice(&check.to_be_bytes());
        let head =
            [&[0x01, 0, 0x5e, 1, 2, 3][..], &mac(2).0, &[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0]].concat();
        [&head[..], &[10, 32, 1, 2], &group.octets(), &message].concat()
    };
    // Beta has told nothing: it gets everything.
    let none = plane.switch.counters.dropped(Drop::NoListener);
    assert_eq!(send(&mut plane), []);
    let beta = *plane.control.peers.keys().next().unwrap();
    plane.control.peer_listens(beta, Some(BTreeSet::new()));
    plane.control.run_multicast();
    assert_eq!(send(&mut plane), []);
    assert_eq!(plane.switch.counters.dropped(Drop::NoListener), none + 1);
    plane.control.snooped(plane.now, two, &report(0x16));
    assert_eq!(send(&mut plane), [two]);
    // It leaves, is asked twice, and says nothing.
    plane.control.snooped(plane.now, two, &report(0x17));
    plane.pass(Duration::from_secs(3));
    let query = igmp::query(Some(group), Duration::from_secs(1));
    assert_eq!(told(&mut plane), [(two, query.clone()), (two, query)]);
    assert_eq!(send(&mut plane), []);
    // Everybody is asked from time to time.
    plane.pass(Duration::from_secs(125));
    let general = igmp::query(None, Duration::from_secs(10));
    let asked: Vec<PortId> =
        told(&mut plane).into_iter().filter(|(_, frame)| *frame == general).map(|(port, _)| port).collect();
    assert_eq!(asked, [one, two]);
}

#[test]
fn a_member_whose_tunnel_address_becomes_anothers_has_nothing_any_more() {
    let mut plane = plane();
    let signer = Signer::new(&Secret::private([9; 32]));
    let gamma = signer.public_key();
    let elapsed = plane.control.elapsed(plane.now);
    let membership = &mut plane.control.members.membership;
    membership.policy_mut().pin([beta(), gamma]);
    membership.link_up(elapsed, gamma);
    let says = |plane: &mut Plane, version: u64, tunnel_address: Ipv4Addr| {
        let facts = Facts { name: "gamma".into(), tunnel_address, ..Facts::default() };
        let document = Document::sign(&signer, 1, version, paginate(&records(&facts), 1).0);
        let pages = document.pages.iter().map(|page| Part::Page(page));
        let parts = std::iter::once(Part::Head(&document.head.bytes)).chain(pages).collect();
        let payload = Message::Documents { is_pushed: true, parts }.write();
        plane.control.members.membership.input(elapsed, gamma, &payload);
        plane.control.run_members(plane.now);
    };
    says(&mut plane, 1, gamma.tunnel_address());
    assert!(plane.control.entry_of(&gamma).is_some());
    let attachment = Attachment { vni: VNI, mac: mac(7), addresses: vec![ip(7)], sequence: 0, name: "c7".into() };
    let names = vec![Name { vni: VNI, name: "seven".into(), of: Named::Attachment(mac(7)) }];
    let facts = Facts { attachments: vec![attachment], names, ..Facts::default() };
    plane.control.member_has(plane.now, gamma, "gamma", &facts.attachments);
    plane.control.member_is_called(gamma, Some(&facts));
    assert!(entry(&plane, 7).is_some() && plane.control.names().addresses_of(VNI, "seven").is_some());

    let ours = plane.control.identity.address;
    says(&mut plane, 2, ours);
    assert_eq!((entry(&plane, 7), plane.control.names().addresses_of(VNI, "seven")), (None, None));
    assert!(plane.control.members.warnings().any(|warning| warning.contains("the same tunnel address")));
}
