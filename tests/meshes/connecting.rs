//! `weft connect`, `weft forget`, and members that keep to their files.

use super::{Hosts, within};
use crate::common::eventually;
use crate::common::place::{lab, spec, usable};
use crate::support::traffic::Pings;
use crate::support::{peer, reaches};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use weft::control::request::{Connect, Forget, Request, Response};
use weft::lab::spec::{Discovery, LISTEN_PORT, LabSpec, Underlay};
use weft::lab::topology::Topology;
use weft::lab::{Lab, Stop};

/// Longer than any member needs to find out where another is.
const FOUND_BY_NOW: Duration = Duration::from_secs(12);

fn ask(lab: &Lab, h: usize, request: &Request) -> Response {
    lab.host(h).control(request).unwrap()
}

/// Makes host `other` a peer of host `h`, with where it is or without.
fn connect(lab: &Lab, h: usize, other: usize, located: bool) {
    let to = lab.host(other);
    let endpoint = SocketAddr::new(to.v4.into(), LISTEN_PORT).to_string();
    let request = Request::Connect(Connect {
        name: to.name.clone(),
        public_key: Some(to.public_key),
        endpoints: located.then_some(endpoint).into_iter().collect(),
        tunnel_address: None,
    });
    let response = ask(lab, h, &request);
    assert!(matches!(&response, Response::Done(_)), "{response:?}");
}

fn forget(lab: &Lab, h: usize, name: &str) -> Response {
    ask(lab, h, &Request::Forget(Forget { name: name.to_owned() }))
}

fn knows(lab: &Lab, h: usize, name: &str) -> bool {
    match ask(lab, h, &Request::Peers) {
        Response::Peers(peers) => peers.iter().any(|peer| peer.name == name),
        other => panic!("{other:?}"),
    }
}

fn restart(lab: &mut Lab, h: usize) {
    lab.kill_daemon(h, libc::SIGTERM).unwrap();
    lab.start_daemon(h, &Stop::default()).unwrap();
}

#[test]
fn a_peer_that_was_connected_stays_over_restarts_until_it_is_forgotten() {
    if !usable() {
        return;
    }
    let underlay = Underlay::Routed(Topology::flat(2));
    let mut lab = lab(LabSpec { underlay, discovery: Discovery::Authority, ..spec(2, 1) });
    connect(&lab, 1, 2, true);
    connect(&lab, 2, 1, false);
    reaches(lab.container(1, 1), lab.container(2, 1));
    let file = fs::read_to_string(lab.host(1).files.config()).unwrap();
    assert!(!file.contains("[[peer]]"), "{file}");
    restart(&mut lab, 2);
    restart(&mut lab, 1);
    reaches(lab.container(2, 1), lab.container(1, 1));
    assert_eq!(peer(&lab, 1, "h2").origin, "connect");

    let forgotten = forget(&lab, 1, "h2");
    assert!(matches!(&forgotten, Response::Done(told) if told[0].contains("h2 is forgotten")), "{forgotten:?}");
    let pings =
        Pings::start(&lab.container(2, 1).netns, lab.container(1, 1).v4.into(), 56, Duration::from_millis(20));
    eventually("a dozen pings are not answered", || {
        (pings.between(Instant::now() - Duration::from_secs(3), Instant::now()).1 > 12).then_some(())
    });
    assert_eq!(pings.between(Instant::now() - Duration::from_secs(1), Instant::now()).0, 0);
    assert!(!knows(&lab, 1, "h2"));
    restart(&mut lab, 1);
    assert!(!knows(&lab, 1, "h2"), "it is back after a restart");
    connect(&lab, 1, 2, true);
    pings.answered_after(Instant::now());
    let nobody = forget(&lab, 1, "h7");
    assert!(matches!(&nobody, Response::Refused(why) if why.contains("there is no peer 'h7'")), "{nobody:?}");
}

#[test]
fn a_peer_of_the_file_is_the_files() {
    if !usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    let refused = forget(&lab, 1, "h2");
    assert!(
        matches!(&refused, Response::Refused(why) if why.contains("stands in the configuration file")),
        "{refused:?}"
    );
    reaches(lab.container(1, 1), lab.container(2, 1));
}

#[test]
fn a_member_that_keeps_to_its_file_looks_for_nobody_elsewhere() {
    if !usable() {
        return;
    }
    // All know all keys, and where h1 is.
    let underlay = Underlay::Routed(Topology::flat(3));
    let extra_node = "discovery = false\n".to_owned();
    let lab = lab(LabSpec { underlay, discovery: Discovery::Seed, extra_node, ..spec(3, 1) });
    let begun = Instant::now();
    reaches(lab.container(2, 1), lab.container(1, 1));
    reaches(lab.container(3, 1), lab.container(1, 1));
    // Over h1, whom both know; where they are they do not find out.
    reaches(lab.container(2, 1), lab.container(3, 1));
    within(FOUND_BY_NOW + Duration::from_secs(2), "time to find", || (begun.elapsed() > FOUND_BY_NOW).then_some(()));
    for (h, other) in [(2, "h3"), (3, "h2")] {
        let found = peer(&lab, h, other);
        assert_ne!(found.path, "direct", "{found:?}");
        assert_eq!(found.via.as_deref(), Some("h1"), "{found:?}");
    }
}

#[test]
fn a_joined_host_connects_and_forgets_by_command() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::joined(2);
    // That one is there, by its certificate: nothing to forget.
    let why = mesh.weft(1, "forget h2").refused();
    assert!(why.contains("'h2' is a member that is there") && why.contains("weft revoke h2"), "{why}");
    mesh.down(2, libc::SIGTERM);
    eventually("h2 is gone for h1", || mesh.peer(1, "h2").is_none_or(|peer| peer.alive == Some(false)).then_some(()));
    let told = mesh.weft(1, "forget h2").done();
    assert!(told.contains("h2 is forgotten"), "{told}");
    mesh.up(2);
    mesh.all_reach(1..=2);
}
