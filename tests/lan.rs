//! Beacons on a LAN of namespaces: who finds whom, interfaces that come while the daemon runs, several daemons on one host.

#![allow(clippy::unwrap_used)]

mod common;

use arc_swap::ArcSwap;
use common::place::{self, inside};
use crossbeam::channel::{Receiver, bounded};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weft::io::lan::Lan;
use weft::io::netns::Netns;
use weft::io::outbox::{Notice, PortTable};
use weft::wire::key::PublicKey;

/// A beacon's interval, twice, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

const A: PublicKey = PublicKey([1; 32]);
const B: PublicKey = PublicKey([2; 32]);
const C: PublicKey = PublicKey([3; 32]);
const STRANGER: PublicKey = PublicKey([9; 32]);

/// A member as far as its LANs go.
struct Member {
    _lan: Lan,
    notices: Receiver<Notice>,
    found: BTreeSet<(PublicKey, SocketAddr)>,
}

impl Member {
    fn start(netns: &Netns, own: PublicKey, port: u16, known: &[PublicKey]) -> Self {
        let (sender, notices) = bounded(64);
        let table = Arc::new(ArcSwap::from_pointee(PortTable::default()));
        let lan = netns.run(|| Lan::start(own, port, table, sender)).unwrap().unwrap();
        lan.set_known(known.to_vec());
        Self { _lan: lan, notices, found: BTreeSet::new() }
    }

    /// Waits until it knows of `key` at `port` what `is_it` takes.
    #[track_caller]
    fn finds(&mut self, key: PublicKey, port: u16, is_it: impl Fn(&SocketAddr) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.found.iter().any(|(who, at)| *who == key && at.port() == port && is_it(at)) {
            match self.notices.recv_deadline(deadline) {
                Ok(Notice::Seen { key, address }) => drop(self.found.insert((key, address))),
                Ok(other) => panic!("{other:?}"),
                Err(_) => panic!("{key} at port {port} was not found: {:?}", self.found),
            }
        }
    }
}

/// A switch in a namespace of its own.
fn switch() -> Netns {
    let netns = Netns::create().unwrap();
    inside(&netns, |netlink| {
        netlink.add_bridge("br0").unwrap();
        let bridge = netlink.link("br0").unwrap().unwrap().index;
        netlink.set_up(bridge).unwrap();
    });
    netns
}

/// Lays a cable from the switch to a host, which gets this address beside its link-local one.
fn plug(switch: &Netns, host: &Netns, port: &str, address: &str) {
    inside(switch, |netlink| {
        netlink.add_veth(port, "eth0", Some(host)).unwrap();
        let [bridge, port] = ["br0", port].map(|name| netlink.link(name).unwrap().unwrap().index);
        netlink.set_master(port, Some(bridge)).unwrap();
        netlink.set_up(port).unwrap();
    });
    inside(host, |netlink| {
        let eth0 = netlink.link("eth0").unwrap().unwrap().index;
        netlink.set_up(eth0).unwrap();
        netlink.add_address(eth0, address.parse().unwrap(), true).unwrap();
    });
}

#[test]
fn members_of_a_lan_find_each_other_and_strangers_find_nobody() {
    if !place::usable() {
        return;
    }
    let switch = switch();
    let [a, b, c] = [0; 3].map(|_| Netns::create().unwrap());
    plug(&switch, &a, "a", "192.0.2.1/24");
    plug(&switch, &b, "b", "192.0.2.2/24");
    // A host whose only interface is its loopback: there is nobody, and nothing breaks.
    let mut late = Member::start(&c, C, 4003, &[A, B]);
    let mut on_a = Member::start(&a, A, 4001, &[A, B, C]);
    let stranger = Member::start(&b, STRANGER, 4009, &[C]);
    let mut on_b = Member::start(&b, B, 4002, &[A, C]);
    let v4 = |text: &str| {
        let address: SocketAddr = text.parse().unwrap();
        move |at: &SocketAddr| *at == address
    };
    let on_link =
        |at: &SocketAddr| matches!(at, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() > 0);
    on_a.finds(B, 4002, v4("192.0.2.2:4002"));
    on_b.finds(A, 4001, v4("192.0.2.1:4001"));
    on_a.finds(B, 4002, on_link);
    on_b.finds(A, 4001, on_link);
    // Another member on the same host, beside the first.
    let mut beside = Member::start(&a, PublicKey([4; 32]), 4004, &[A, B]);
    beside.finds(A, 4001, v4("192.0.2.1:4001"));
    beside.finds(B, 4002, v4("192.0.2.2:4002"));
    // The cable of the host that had none.
    plug(&switch, &c, "c", "192.0.2.3/24");
    late.finds(A, 4001, v4("192.0.2.1:4001"));
    late.finds(B, 4002, v4("192.0.2.2:4002"));
    on_a.finds(C, 4003, v4("192.0.2.3:4003"));
    for (member, own) in [(&on_a, A), (&on_b, B), (&late, C)] {
        assert!(member.found.iter().all(|(key, _)| ![own, STRANGER].contains(key)), "{:?}", member.found);
    }
    // It found C by now, as it knows its key; nobody else.
    while let Ok(notice) = stranger.notices.try_recv() {
        assert!(matches!(notice, Notice::Seen { key: C, .. }), "{notice:?}");
    }
}
