//! Invitations, revocations and rotations through control, and a disk that is full.

use super::*;
use crate::config::Peer;
use crate::control::peers::PeerOrigin;
use crate::control::request::Invite;
use crate::control::trust::trust;
use crate::trust::Token;
use crate::trust::message::{Join, Joined, Message};
use crate::trust::record::issued_slot;
use crate::trust::token::{Introducer, proof};
use crate::wire::key::PublicKey;
use std::net::Ipv4Addr;

const PEER: PublicKey = PublicKey([9; 32]);

fn issuing() -> Plane {
    let mut plane = Plane::new(&format!("{FILE}[node]\nadvertise = ['192.0.2.1:51820']\n"));
    let authority = Authority::new(&Secret::shared([50; 32]));
    let (config, identity) = (plane.control.config().clone(), plane.control.identity);
    plane.control.set_trust(plane.now, trust(&config, identity, Some(authority), Vec::new()));
    plane
}

fn saved(plane: &Plane) -> Vec<&String> {
    plane.control.host.trust.as_ref().unwrap().keys().collect()
}

fn invite(plane: &mut Plane, name: &str) -> Response {
    let invite = Invite { name: name.into(), life_s: 3600, slices: Vec::new(), endpoints: Vec::new() };
    plane.control.invite(plane.now, &invite)
}

#[test]
fn a_slice_that_no_network_has_is_refused() {
    let mut plane = issuing();
    let mut sliced = |slice: &str| {
        let slices = vec![slice.parse().unwrap()];
        let invite = Invite { name: "gamma".into(), life_s: 3600, slices, endpoints: Vec::new() };
        plane.control.invite(plane.now, &invite)
    };
    for wrong in ["10.99.0.0/24", "10.32.0.0/15", "fd00::/64"] {
        let Response::Refused(reason) = sliced(wrong) else { panic!("{wrong} is nowhere") };
        assert!(reason.contains(wrong), "{reason}");
    }
    assert!(matches!(sliced("10.32.16.0/20"), Response::Invited(_)));
}

fn invited(plane: &mut Plane, name: &str) -> Token {
    match invite(plane, name) {
        Response::Invited(line) => Token::parse(&line).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_invitation_tells_where_to_go_and_what_to_take_part_in_and_is_remembered() {
    let mut plane = issuing();
    assert!(saved(&plane).iter().any(|slot| *slot == "certificate"), "the issuer is a member");
    let token = invited(&mut plane, "gamma");
    assert_eq!(token.introducers[0].endpoints, ["192.0.2.1:51820"]);
    assert_eq!((token.networks[0].name.as_str(), token.networks[0].vni), ("blue", 100));
    assert!(saved(&plane).iter().any(|slot| slot.starts_with("invite/")));
    let Response::Refused(reason) = invite(&mut plane, "alpha") else { panic!("refused") };
    assert!(reason.contains("the name 'alpha' belongs to"), "{reason}");
    let Response::Refused(reason) = invite(&mut Plane::new(FILE), "gamma") else { panic!("refused") };
    assert!(reason.contains("say so with --endpoint") || reason.contains("does not hold"), "{reason}");
}

#[test]
fn nothing_is_given_out_that_could_not_be_saved() {
    let mut plane = issuing();
    let token = invited(&mut plane, "gamma");
    let kept = plane.control.host.trust.take();
    assert_eq!(invite(&mut plane, "delta"), Response::Refused("the disk is full".into()));
    // A join whose record cannot be saved is not answered; it is when it is asked again and the disk has room.
    let address = Ipv4Addr::new(100, 64, 0, 9);
    let join = Join { id: token.id, proof: proof(&token.secret, token.id, &PEER, address), tunnel_address: address };
    let join = Message::Join(join).bytes();
    let unix = plane.control.host.unix;
    plane.control.trust.input(Duration::ZERO, unix, PEER, false, &join);
    assert_eq!(plane.control.do_trust(plane.now), Err("the disk is full".into()));
    plane.control.host.trust = kept;
    plane.control.trust.input(Duration::ZERO, unix, PEER, false, &join);
    plane.control.do_trust(plane.now).unwrap();
    assert!(saved(&plane).iter().any(|slot| slot.starts_with("issued/CQkJ")));
}

#[test]
fn revoking_and_rotating_answer_in_sentences() {
    let mut plane = issuing();
    let token = invited(&mut plane, "gamma");
    assert_eq!(
        plane.control.revoke(plane.now, "gamma"),
        Response::Done(vec!["the invitation for 'gamma' was withdrawn".into()])
    );
    assert!(!saved(&plane).iter().any(|slot| slot.starts_with("invite/")), "{}", token.name);
    let Response::Refused(reason) = plane.control.revoke(plane.now, "zeta") else { panic!("refused") };
    assert!(reason.contains("give the member's public key"), "{reason}");
    let Response::Done(told) = plane.control.rotate(plane.now, Duration::from_secs(86_400)) else { panic!("done") };
    let next = Authority::new(&Secret::shared([50; 32])).key();
    assert!(told[0].contains(&next.to_string()), "{told:?}");
    assert!(saved(&plane).iter().any(|slot| *slot == "ledger"));
    let Response::Refused(reason) = Plane::new(FILE).control.rotate(plane.now, Duration::ZERO) else { panic!() };
    assert!(reason.contains("does not hold the authority's key"));
}

#[test]
fn a_forged_answer_changes_nothing() {
    let mut plane = issuing();
    let before = plane.control.trust().certificate().map(<[u8]>::to_vec);
    let forged = Joined { certificate: vec![1; 200], ledger: None, introducers: Vec::new() };
    let unix = plane.control.host.unix;
    plane.control.trust.input(Duration::ZERO, unix, PEER, true, &Message::Joined(forged).bytes());
    plane.control.do_trust(plane.now).unwrap();
    assert_eq!(plane.control.trust().certificate().map(<[u8]>::to_vec), before);
    assert_eq!(plane.control.trust().counters().malformed, 1);
}

/// A plane that let [`PEER`] in as gamma, which has shown its certificate and sends no document.
fn with_silent_member() -> Plane {
    let mut plane = issuing();
    let token = invited(&mut plane, "gamma");
    let address = Ipv4Addr::new(100, 64, 0, 9);
    let stranger = Peer::of_member("stranger".to_owned(), PEER, PEER.tunnel_address());
    let until = plane.now + Duration::from_secs(20);
    plane.control.add_peer(plane.now, &stranger, PeerOrigin::Stranger(until));
    let join = Join { id: token.id, proof: proof(&token.secret, token.id, &PEER, address), tunnel_address: address };
    let unix = plane.control.host.unix;
    plane.control.trust.input(Duration::ZERO, unix, PEER, false, &Message::Join(join).bytes());
    plane.control.do_trust(plane.now).unwrap();
    plane
}

#[test]
fn a_member_that_never_sends_a_document_is_revoked_like_any_other() {
    let mut plane = with_silent_member();
    plane.pass(Duration::from_secs(30));
    let entry = plane.control.entry_of(&PEER).unwrap();
    assert!(entry.origin == PeerOrigin::Member && !entry.peer.is_stranger());
    plane.control.revoke(plane.now, "gamma");
    assert!(plane.control.entry_of(&PEER).is_none(), "its session would go on");
}

#[test]
fn an_introducer_passes_for_a_member_only_once_it_has_shown_that_it_is_one() {
    let mut issuer = with_silent_member();
    let Some(Record::Issued(gamma)) = issuer.control.host.trust.as_ref().unwrap().get(&issued_slot(&PEER)).cloned()
    else {
        panic!("gamma has a certificate");
    };
    issuer.control.revoke(issuer.now, "gamma");
    let Some(Record::Ledger(ledger)) = issuer.control.host.trust.as_ref().unwrap().get("ledger").cloned() else {
        panic!("there is a ledger");
    };

    let authority = Authority::new(&Secret::shared([50; 32])).key();
    let mut plane = Plane::new(&format!("{FILE}[trust]\nauthority = [\"{authority}\"]\n"));
    let endpoints = vec!["192.0.2.9:51820".to_owned()];
    let introducer = Introducer { key: PEER, tunnel_address: gamma.tunnel_address, endpoints };
    let (config, identity) = (plane.control.config().clone(), plane.control.identity);
    let records = vec![Record::Introducers(vec![introducer])];
    plane.control.set_trust(plane.now, trust(&config, identity, None, records));
    let is_stranger = |plane: &Plane| plane.control.entry_of(&PEER).is_none_or(|entry| entry.peer.is_stranger());
    assert!(is_stranger(&plane));
    let show = Message::Show(gamma.certificate.0, None).bytes();
    let unix = plane.control.host.unix;
    plane.control.trust.input(Duration::ZERO, unix, PEER, true, &show);
    plane.control.do_trust(plane.now).unwrap();
    assert!(!is_stranger(&plane));
    plane.control.take_ledger(plane.now, &ledger.0);
    assert!(is_stranger(&plane));
    plane.control.trust.input(Duration::ZERO, unix, PEER, true, &show);
    plane.control.do_trust(plane.now).unwrap();
    assert!(is_stranger(&plane));
}

#[test]
fn an_authority_that_left_the_file_counts_no_longer() {
    let issuer = with_silent_member();
    let Some(Record::Issued(gamma)) = issuer.control.host.trust.as_ref().unwrap().get(&issued_slot(&PEER)).cloned()
    else {
        panic!("gamma has a certificate");
    };
    let authority = Authority::new(&Secret::shared([50; 32])).key();
    let mut plane = Plane::new(&format!("{FILE}[trust]\nauthority = [\"{authority}\"]\n"));
    let counts = |plane: &Plane| {
        let (trust, unix) = (plane.control.trust(), plane.control.host.unix);
        trust.policy().judge(unix, &PEER, Some(&gamma.certificate.0)).is_ok()
    };
    assert!(counts(&plane));
    plane.reload(FILE).unwrap();
    assert!(!counts(&plane));
    // Whoever holds the authority's key believes it without its being named.
    let mut issuer = issuer;
    issuer.reload(&format!("{FILE}[node]\nadvertise = ['192.0.2.1:51820']\n[trust]\ndeny = ['zeta']\n")).unwrap();
    assert!(counts(&issuer));
}
