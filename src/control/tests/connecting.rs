//! `weft connect` and `weft forget`, also by those who mistake one host for another.

use super::*;
use crate::config::Peer;
use crate::control::peers::PeerOrigin;
use crate::control::request::{Connect, Forget};
use std::net::Ipv4Addr;

const GAMMA: PublicKey = PublicKey([9; 32]);

fn connect(plane: &mut Plane, name: &str, key: Option<PublicKey>) -> Result<(), String> {
    let endpoints = vec!["192.0.2.9:51820".parse().unwrap()];
    let connect = Connect { name: name.into(), public_key: key, endpoints, tunnel_address: None };
    match plane.control.connect(plane.now, &connect) {
        Response::Done(_) => Ok(()),
        Response::Refused(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn peers(plane: &Plane) -> Vec<(String, String)> {
    plane.peers().into_iter().map(|peer| (peer.name, peer.origin)).collect()
}

#[test]
fn a_peer_of_the_file_stays_one_also_when_it_is_called_by_another_name() {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n");
    let mut plane = Plane::new(&format!("{FILE}{peer}"));
    let reason = connect(&mut plane, "bella", Some(BETA.parse().unwrap())).unwrap_err();
    assert!(reason.contains("is the peer 'beta'"), "{reason}");
    assert!(connect(&mut plane, "beta", None).unwrap_err().contains("stands in the configuration file"));
    assert_eq!(peers(&plane), [("beta".to_owned(), "file".to_owned())]);
}

#[test]
fn more_endpoints_leave_a_known_member_its_tunnel_address() {
    let mut plane = Plane::new(FILE);
    let address = Ipv4Addr::new(100, 64, 3, 4);
    let now = plane.now;
    plane.control.set_peer(now, &Peer::of_member("gamma".into(), GAMMA, address), PeerOrigin::Member);
    connect(&mut plane, "gamma", None).unwrap();
    assert_eq!(plane.control.entry_of(&GAMMA).unwrap().config.tunnel_address, address);
    assert_eq!(peers(&plane), [("gamma".to_owned(), "connect".to_owned())]);
}

#[test]
fn whoever_is_connected_again_by_another_name_after_a_forget_has_that_name() {
    let mut plane = Plane::new(FILE);
    connect(&mut plane, "gamma", Some(GAMMA)).unwrap();
    let now = plane.now;
    let forgotten = plane.control.forget(now, &Forget { name: "gamma".into() });
    assert_eq!(forgotten, Response::Done(vec!["gamma is forgotten".into()]));
    assert_eq!(peers(&plane), []);
    connect(&mut plane, "delta", Some(GAMMA)).unwrap();
    assert_eq!(peers(&plane), [("delta".to_owned(), "connect".to_owned())]);
}

#[test]
fn a_peer_of_the_file_with_the_tunnel_address_of_a_member_is_warned_of() {
    let mut plane = Plane::new(FILE);
    let (now, address) = (plane.now, Ipv4Addr::new(100, 64, 3, 4));
    plane.control.set_peer(now, &Peer::of_member("gamma".into(), GAMMA, address), PeerOrigin::Member);
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\ntunnel_address = \"{address}\"\n");
    plane.reload(&format!("{FILE}{peer}")).unwrap();
    let Some(Response::Status(status)) = plane.control.show(plane.now, &Request::Status) else { panic!("a status") };
    let told = |text: &String| text.contains("'beta' and 'gamma' have the same tunnel address");
    assert!(status.warnings.iter().any(told), "{:?}", status.warnings);
}
