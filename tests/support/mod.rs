//! What the tests of survival, of path MTUs and of hostile input share: traffic that goes on while things happen, and
//! a look at the counters.

#![allow(dead_code, unused_imports, clippy::unwrap_used)]

pub(crate) mod member;
pub(crate) mod raw;
pub(crate) mod traffic;

use crate::common::eventually;
use std::net::IpAddr;
use std::time::Duration;
use weft::control::request::{PeerStatus, Request, Response, Status};
use weft::lab::{Container, Lab, process};

/// What the daemon of host `h` says of itself.
pub(crate) fn status(lab: &Lab, h: usize) -> Status {
    match lab.host(h).control(&Request::Status).unwrap() {
        Response::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

/// What the daemon of host `h` says of the peer called `name`.
pub(crate) fn peer(lab: &Lab, h: usize, name: &str) -> PeerStatus {
    match lab.host(h).control(&Request::Peers).unwrap() {
        Response::Peers(peers) => peers.into_iter().find(|peer| peer.name == name).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// How often `reason` happened on host `h`.
pub(crate) fn dropped(lab: &Lab, h: usize, reason: &str) -> u64 {
    status(lab, h).drops[reason]
}

/// Waits until `reason` happened `times` on host `h` since `before`.
pub(crate) fn drops_grow(lab: &Lab, h: usize, reason: &str, before: &Status, times: u64) {
    eventually(&format!("{times} of {reason}"), || {
        let happened = dropped(lab, h, reason) - before.drops[reason];
        (happened >= times).then_some(())
    });
}

/// What grew between two looks at the drops.
pub(crate) fn growth(before: &Status, after: &Status) -> Vec<(String, u64)> {
    let grown = after.drops.iter().map(|(name, n)| (name.clone(), n - before.drops[name]));
    grown.filter(|(_, n)| *n > 0).collect()
}

/// Waits until host `h` has sessions with `n` peers.
pub(crate) fn peers_up(lab: &Lab, h: usize, n: usize) {
    eventually(&format!("{n} peers of h{h}"), || (status(lab, h).peers_up >= n).then_some(()));
}

/// Waits until one container reaches another over IPv4.
#[track_caller]
pub(crate) fn reaches(from: &Container, to: &Container) {
    from.ping(IpAddr::V4(to.v4), 56, Duration::from_secs(30)).unwrap();
}

/// Resident memory of host `h`'s daemon in bytes.
pub(crate) fn memory(lab: &Lab, h: usize) -> u64 {
    process::memory(lab.host(h).daemon().unwrap().pid()).unwrap()
}

/// Bytes that host `h`'s daemon has written to its log.
pub(crate) fn logged(lab: &Lab, h: usize) -> u64 {
    std::fs::metadata(lab.host(h).files.log()).unwrap().len()
}
