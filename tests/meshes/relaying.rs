//! Two hosts without a way between them: what a relay sees, and what happens when it dies.

use crate::common::place::{lab, spec, usable};
use crate::common::{SOON, eventually};
use crate::support::traffic::{Pings, Stream};
use crate::support::{peer, reaches, status};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use weft::lab::capture::Capture;
use weft::lab::spec::{LISTEN_PORT, LabSpec, Underlay};
use weft::lab::topology::Topology;

/// What nobody but the two ends should read.
const MARKER: &[u8] = b"a sentence that is nobody else's business";
/// A dead relay is left within this.
const LEFT: Duration = Duration::from_secs(5);
const MUCH: u64 = 1 << 20;

#[test]
fn a_relay_sees_wireguard_alone_and_another_takes_over_when_it_dies() {
    if !usable() {
        return;
    }
    let topology = Topology { cut_pairs: [(1, 3)].into(), ..Topology::flat(4) };
    let mut lab = lab(LabSpec { underlay: Underlay::Routed(topology), ..spec(4, 1) });
    for (from, to) in [(1, 2), (1, 4), (2, 3), (4, 3), (1, 3)] {
        reaches(lab.container(from, 1), lab.container(to, 1));
    }
    let relay = |lab: &weft::lab::Lab, h: usize, to: &str| {
        eventually("a relay is used", || {
            let peer = peer(lab, h, to);
            (peer.path == "relayed").then_some(peer.via).flatten()
        })
    };
    let name = relay(&lab, 1, "h3");
    let middle: usize = name[1..].parse().unwrap();
    assert!([2, 4].contains(&middle), "{name}");

    let captures = [2, 4].map(|h| Capture::start(&lab.host(h).netns, &[LISTEN_PORT], MARKER).unwrap());
    let (a, b) = (lab.container(1, 1), lab.container(3, 1));
    let receiver = b.netns.run(|| UdpSocket::bind((b.v4, 7000))).unwrap().unwrap();
    let sender = a.netns.run(|| UdpSocket::bind((a.v4, 7000))).unwrap().unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let mut buffer = [0; 2048];
    for _ in 0..100 {
        sender.send_to(MARKER, (b.v4, 7000)).unwrap();
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], MARKER);
    }
    let relayed: u64 = [2, 4].iter().map(|&h| status(&lab, h).traffic.relayed_packets).sum();
    assert!(relayed >= 100, "{relayed} packets were relayed");
    let mut passed = 0;
    for capture in captures {
        let seen = capture.finish().unwrap();
        println!("{seen}");
        assert_eq!(seen.findings, 0, "{seen}");
        passed += seen.wireguard();
    }
    assert!(passed >= 100, "{passed} datagrams came by");

    let stream = Stream::start(&a.netns, &b.netns, b.v4.into());
    let pings = Pings::start(&a.netns, b.v4.into(), 56, Duration::from_millis(20));
    stream.moves_on(MUCH);
    let middle: usize = relay(&lab, 1, "h3")[1..].parse().unwrap();
    lab.crash(middle).unwrap();
    let died = Instant::now();
    // An answer that was under way already does not count.
    let took = pings.answered_after(died + Duration::from_millis(200)) + Duration::from_millis(200);
    println!("reached over the other after {took:?}");
    assert!(took < LEFT, "{took:?}");
    stream.moves_on(MUCH);
    let other = format!("h{}", 6 - middle);
    eventually("the other relay is shown", || (relay(&lab, 1, "h3") == other).then_some(()));
    stream.finish();
}
