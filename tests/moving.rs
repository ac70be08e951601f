//! A container that stops on one host and starts on another with its address; and one address on two hosts.
//!
//! What is promised is a time, on a bad line: so this has the machine for itself, in a program of its own and one after the other.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
#[path = "support/mod.rs"]
mod support;

use common::place::{lab, path_of, spec, usable};
use common::{SOON, eventually};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use support::{reaches, status};
use weft::config::{PortAddress, Target};
use weft::control::request::{Attach, Detach, Request, Response};
use weft::lab::Lab;
use weft::lab::link::LinkSettings;
use weft::lab::ping::Pinger;
use weft::lab::spec::{LabSpec, Underlay};
use weft::wire::cidr::Cidr;
use weft::wire::ethernet::Mac;

/// The address that moves.
const MOVING: Ipv4Addr = Ipv4Addr::new(10, 32, 9, 9);
const PORT: &str = "moving";
const MOVES: u8 = 20;
/// What is promised from the start of the container until it is reached.
const REACHED: Duration = Duration::from_secs(1);
/// A ping that is not answered by then was lost, which half of them are.
const LOST: Duration = Duration::from_millis(20);

static ALONE: Mutex<()> = Mutex::new(());

/// Gives the container of host `h` an interface with [`MOVING`].
fn start(lab: &Lab, h: usize, mac: Mac) {
    let request = Request::Attach(Attach {
        addresses: vec![PortAddress { cidr: Cidr { address: MOVING.into(), prefix: 16 }, gateway: None }],
        mac: Some(mac),
        ifname: Some("eth2".to_owned()),
        name: Some(PORT.to_owned()),
        ..Attach::new(Target::Netns(path_of(&lab.container(h, 1).netns)), "lab")
    });
    let response = lab.host(h).control(&request).unwrap();
    assert!(matches!(&response, Response::Attached(_)), "{response:?}");
}

fn stop(lab: &Lab, h: usize, port: &str) {
    let request = Request::Detach(Detach { port: port.to_owned(), ifname: None });
    let response = lab.host(h).control(&request).unwrap();
    assert!(matches!(&response, Response::Done(_)), "{response:?}");
}

#[test]
fn a_container_that_moves_is_reached_within_a_second_on_a_wire_that_loses_a_third() {
    if !usable() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lossy = LinkSettings { loss: 30.0, ..Default::default() };
    // The wire loses nothing while the mesh is made: that is another test.
    let lab = lab(LabSpec { underlay: Underlay::Impaired(LinkSettings::default(), 7), ..spec(3, 1) });
    for (from, to) in [(1, 2), (1, 3), (2, 3)] {
        reaches(lab.container(from, 1), lab.container(to, 1));
    }
    // With two interfaces in one network a kernel answers by either, which the guard takes for a lie.
    stop(&lab, 2, "c1");
    stop(&lab, 3, "c1");
    lab.change_link(|link| *link = lossy).unwrap();
    let mut pinger = Pinger::open(&lab.container(1, 1).netns, IpAddr::V4(MOVING), None).unwrap();
    let mut took = Vec::new();
    let mut at = 2;
    start(&lab, at, Mac([2, 0, 0, 0, 9, 0]));
    pinger.until(56, Duration::from_secs(20)).unwrap();
    for number in 1..=MOVES {
        stop(&lab, at, PORT);
        at = 5 - at;
        start(&lab, at, Mac([2, 0, 0, 0, 9, number]));
        let started = Instant::now();
        // One ping after the other: that half of them are lost must not look like a container that is not there.
        while pinger.once(56, LOST).is_err() {
            assert!(started.elapsed() < SOON, "not reached after move {number}: {took:?}");
        }
        took.push(started.elapsed());
    }
    println!("reached after {took:?}");
    assert!(took.iter().all(|took| *took < REACHED), "{took:?}");
}

#[test]
fn an_address_on_two_hosts_is_named_with_both_its_owners() {
    if !usable() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = lab(LabSpec { underlay: Underlay::Impaired(LinkSettings::default(), 7), ..spec(3, 1) });
    reaches(lab.container(2, 1), lab.container(3, 1));
    let warned = |h: usize| {
        let warnings = status(&lab, h).warnings;
        let about = |text: &String| {
            text.contains(&MOVING.to_string())
                && text.contains("is used twice")
                && ["port moving of h2", "port moving of h3"].iter().all(|owner| text.contains(owner))
        };
        warnings.iter().any(about)
    };
    // Who knows that another has the address does not get it: both start while they cannot know.
    lab.change_link(|link| link.loss = 100.0).unwrap();
    start(&lab, 2, Mac([2, 0, 0, 0, 9, 2]));
    start(&lab, 3, Mac([2, 0, 0, 0, 9, 3]));
    lab.change_link(|link| link.loss = 0.0).unwrap();
    for h in [2, 3, 1] {
        eventually(&format!("h{h} warns of the address"), || warned(h).then_some(()));
    }
    stop(&lab, 3, PORT);
    for h in [2, 3, 1] {
        eventually(&format!("h{h} warns no more"), || (!warned(h)).then_some(()));
    }
}
