//! Who is a peer by what, and until when: files, contacts, certificates and tokens.

use super::*;
use crate::control::peers::PeerOrigin;
use crate::control::request::Connect;
use crate::control::trust::trust;
use crate::trust::certificate::Certificate;
use crate::trust::ledger::{Ledger, Revocation};
use crate::trust::record::Blob;
use crate::trust::token::Introducer;
use std::net::Ipv4Addr;

const DAY: Duration = Duration::from_secs(86_400);

fn beta() -> PublicKey {
    BETA.parse().unwrap()
}

fn authority() -> Authority {
    Authority::new(&Secret::shared([50; 32]))
}

/// A file that believes the authority.
fn file() -> String {
    format!("[trust]\nauthority = ['{}']\n{FILE}", authority().key())
}

/// Beta's certificate, good from now on for a day.
fn certificate(plane: &Plane) -> Vec<u8> {
    let unix = plane.control.host.unix;
    let certificate = Certificate {
        by: authority().key(),
        name: "beta".into(),
        key: beta(),
        tunnel_address: Ipv4Addr::new(100, 64, 0, 9),
        slices: Vec::new(),
        serial: 1,
        not_before: unix,
        expires: unix + DAY,
        unknown: Vec::new(),
    };
    certificate.sign(&authority()).unwrap()
}

fn revocation(unix: Duration) -> Vec<u8> {
    let revocation = Revocation { key: beta(), serial: 1, until: unix + DAY };
    Ledger::sign(&authority(), 1, Vec::new(), vec![revocation], Vec::new(), Vec::new()).unwrap().bytes().to_vec()
}

fn contact(certificate: Option<Vec<u8>>) -> Contact {
    Contact {
        name: "beta".into(),
        public_key: beta(),
        tunnel_address: Ipv4Addr::new(100, 64, 0, 9),
        connected: None,
        worked: vec!["192.0.2.7:51820".parse().unwrap()],
        certificate,
    }
}

/// A plane that knew beta before its restart.
fn plane() -> Plane {
    let mut plane = Plane::new(&file());
    let contact = contact(Some(certificate(&plane)));
    plane.control.host.contacts.insert(beta(), contact.clone());
    plane.control.contacts.insert(beta(), contact);
    plane.control.recall(plane.now);
    assert_eq!(origin(&plane), Some(PeerOrigin::Member));
    plane
}

fn origin(plane: &Plane) -> Option<PeerOrigin> {
    plane.control.entry_of(&beta()).map(|entry| entry.origin)
}

fn is_met_by_workers(plane: &Plane) -> bool {
    plane.switch.topology().peer_by_key(&beta()).is_some()
}

#[test]
fn whom_the_file_no_longer_names_is_no_peer_because_it_was_one() {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n");
    let mut plane = Plane::new(&format!("{FILE}{peer}"));
    plane.control.contacts.insert(beta(), contact(None));
    plane.reload(FILE).unwrap();
    plane.pass(Duration::from_secs(15));
    assert_eq!((origin(&plane), is_met_by_workers(&plane)), (None, false));
}

#[test]
fn a_member_of_before_is_none_as_soon_as_its_certificate_is_taken_back() {
    let mut plane = plane();
    plane.pass(super::super::TICK);
    let id = plane.control.id_of(&beta()).unwrap();
    plane.switch.fdb.observe(0, 100, mac(9), Place::Peer(id), Mac::BROADCAST);
    let ledger = revocation(plane.control.host.unix);
    plane.control.take_ledger(plane.now, &ledger);
    assert_eq!((origin(&plane), is_met_by_workers(&plane)), (None, false));
    assert_eq!((plane.fdb(), plane.control.host.contacts.len()), (vec![], 0));
}

#[test]
fn a_member_of_before_is_none_if_the_ledger_of_before_takes_it_back() {
    let mut plane = plane();
    let records = vec![Record::Ledger(Blob(revocation(plane.control.host.unix)))];
    let (config, identity) = (plane.control.config().clone(), plane.control.identity);
    plane.control.set_trust(plane.now, trust(&config, identity, None, records));
    assert_eq!((origin(&plane), is_met_by_workers(&plane)), (None, false));
}

#[test]
fn a_certificate_ends_while_the_daemon_runs() {
    let mut plane = plane();
    plane.control.host.unix += DAY;
    plane.pass(Duration::from_secs(60));
    assert_eq!(origin(&plane), Some(PeerOrigin::Member), "clocks may differ");
    plane.control.host.unix += Duration::from_secs(600);
    plane.pass(Duration::from_secs(60));
    assert_eq!((origin(&plane), is_met_by_workers(&plane)), (None, false));
}

#[test]
fn who_we_came_in_through_has_to_show_that_it_is_a_member_as_others_have() {
    let mut plane = Plane::new(&file());
    let introducer = Introducer {
        key: beta(),
        tunnel_address: Ipv4Addr::new(100, 64, 0, 9),
        endpoints: vec!["192.0.2.7:51820".into()],
    };
    let records = vec![Record::Introducers(vec![introducer])];
    let (config, identity) = (plane.control.config().clone(), plane.control.identity);
    plane.control.set_trust(plane.now, trust(&config, identity, None, records));
    let is_stranger = |plane: &Plane| plane.switch.topology().peer_by_key(&beta()).unwrap().is_stranger();
    assert_eq!((origin(&plane), is_stranger(&plane)), (Some(PeerOrigin::Introducer), true));
    assert!(plane.switch.topology().network(100).unwrap().peers.is_empty());
    let show = crate::trust::message::Message::Show(certificate(&plane), None).bytes();
    let id = plane.control.id_of(&beta()).unwrap();
    plane.control.message(plane.now, id, "192.0.2.7:51820".parse().unwrap(), &show);
    assert_eq!((origin(&plane), is_stranger(&plane)), (Some(PeerOrigin::Member), false));
    assert_eq!(plane.switch.topology().network(100).unwrap().peers.len(), 1);
}

#[test]
fn connect_leaves_the_file_s_peers_and_a_member_s_address_as_they_are() {
    let connect = |plane: &mut Plane, name: &str| {
        let endpoints = vec!["192.0.2.8:51820".parse().unwrap()];
        let connect = Connect { name: name.into(), endpoints, public_key: Some(beta()), tunnel_address: None };
        plane.control.connect(plane.now, &connect)
    };
    let mut file = Plane::new(&format!("{FILE}[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n"));
    for (name, why) in [("beta", "the configuration file"), ("gamma", "is the peer 'beta'")] {
        let Response::Refused(reason) = connect(&mut file, name) else { panic!("{name}") };
        assert!(reason.contains(why), "{reason}");
    }
    assert_eq!(origin(&file), Some(PeerOrigin::File));
    let mut plane = plane();
    plane.control.contacts.clear();
    assert!(matches!(connect(&mut plane, "beta"), Response::Done(_)));
    let entry = plane.control.entry_of(&beta()).unwrap();
    assert_eq!((entry.origin, entry.peer.address), (PeerOrigin::Connected, Ipv4Addr::new(100, 64, 0, 9)));
}

#[test]
fn strangers_cannot_keep_others_out() {
    let mut plane = Plane::new(&file());
    let key = |n: u8| PublicKey([n; 32]);
    let knock = |plane: &mut Plane, key| plane.control.stranger(plane.now, key, "192.0.2.9:7".parse().unwrap(), &[]);
    for n in 1..=200 {
        knock(&mut plane, key(n));
        plane.now += Duration::from_millis(1);
    }
    assert_eq!(plane.peers().len(), 64, "none of them has a session");
    assert!(plane.control.id_of(&key(200)).is_some() && plane.control.id_of(&key(1)).is_none());
    let ours = plane.control.identity.key;
    knock(&mut plane, ours);
    assert!(plane.control.id_of(&ours).is_none());
    assert!(plane.switch.topology().network(100).unwrap().peers.is_empty());
    plane.pass(Duration::from_secs(25));
    assert!(plane.peers().is_empty() && plane.switch.topology().peers().next().is_none());
    for n in 1..=200 {
        plane.control.warn_of_stranger(format!("{} is not let in: for a reason", key(n)));
    }
    let Some(Response::Status(status)) = plane.control.show(plane.now, &Request::Status) else { panic!() };
    assert_eq!(status.warnings.iter().filter(|text| text.contains("is not let in")).count(), 4);
}

#[test]
fn members_of_before_are_called_in_turn_until_there_is_a_link() {
    let mut plane = Plane::new(&file());
    let (from, by) = (plane.control.host.unix, authority());
    for n in 1..=40 {
        let (key, tunnel_address) = (PublicKey([n; 32]), Ipv4Addr::new(100, 64, 1, n));
        let (name, slices, unknown) = (format!("member-{n}"), Vec::new(), Vec::new());
        let (by_key, expires) = (by.key(), from + DAY);
        let paper = Certificate {
            by: by_key,
            name: name.clone(),
            key,
            tunnel_address,
            slices,
            serial: 1,
            not_before: from,
            expires,
            unknown,
        };
        let worked = vec![format!("192.0.2.{n}:51820").parse().unwrap()];
        let certificate = paper.sign(&by);
        let contact = Contact { name, public_key: key, tunnel_address, connected: None, worked, certificate };
        plane.control.contacts.insert(key, contact);
    }
    plane.control.recall(plane.now);
    plane.control.host.out.datagrams.clear();
    plane.pass(Duration::from_secs(31));
    let called: BTreeSet<_> = plane.control.host.out.datagrams.iter().collect();
    assert_eq!(called.len(), 40);
}

#[test]
fn a_member_with_a_tunnel_address_of_the_file_makes_room() {
    let mut plane = plane();
    let gamma = "YBTRq0XYPW9Wbq8ikYpZKMdLFmGYhV7lLFVCvD0nUAo=";
    let peer = format!("[[peer]]\nname = 'gamma'\npublic_key = '{gamma}'\ntunnel_address = '100.64.0.9'\n");
    plane.reload(&format!("{}{peer}", file())).unwrap();
    assert_eq!((origin(&plane), plane.peers().len()), (None, 1));
}
