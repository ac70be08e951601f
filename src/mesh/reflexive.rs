//! As what others see us: each answer to a probe tells the address that the probe came from.
//!
//! An address that is none of our own is a NAT's. If several peers see the same one, the NAT maps us to it whoever we
//! talk to (*endpoint-independent mapping*, RFC 4787 §4.1), and whoever knows it can reach us once we have sent something
//! there. If each sees another, it is of little use to anyone else.
//!
//! A peer may lie about what it sees. What it can get is that others send small probes there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long what a peer saw holds without being said again; probes of a path in use and of neighbours repeat it.
const HOLDS: Duration = Duration::from_secs(600);
/// Addresses that are told others: two families, two uplinks.
const MAX_TOLD: usize = 4;

/// What stands between us and the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Not enough peers have said what they see.
    Unknown,
    /// Peers see addresses of our own.
    None,
    /// The same mapping for every peer.
    Independent,
    /// A mapping for each peer: others can reach us only by answering.
    Dependent,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Reflexive<P> {
    local: BTreeSet<SocketAddr>,
    /// What each peer saw, and when it last said so; one per family.
    seen: BTreeMap<(P, bool), (SocketAddr, Duration)>,
    told: Vec<SocketAddr>,
}

impl<P: Copy + Ord> Reflexive<P> {
    pub(super) fn new() -> Self {
        Self { local: BTreeSet::new(), seen: BTreeMap::new(), told: Vec::new() }
    }

    /// Our own addresses with our port.
    pub(super) fn set_local(&mut self, addresses: &[SocketAddr]) {
        self.local = addresses.iter().copied().collect();
    }

    pub(super) fn local(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.local.iter().copied()
    }

    /// A peer saw us as `address`.
    pub(super) fn saw(&mut self, now: Duration, peer: P, address: SocketAddr) {
        let ip = address.ip();
        // An address that counts on one link only is of use to nobody who is told of it.
        let of_link = match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !of_link {
            self.seen.insert((peer, address.is_ipv6()), (address, now));
        }
    }

    pub(super) fn forget(&mut self, peer: P) {
        self.seen.remove(&(peer, false));
        self.seen.remove(&(peer, true));
    }

    /// Takes what is too old away; returns whether others are to be told something else than before.
    pub(super) fn update(&mut self, now: Duration) -> bool {
        self.seen.retain(|_, (_, at)| now.saturating_sub(*at) < HOLDS);
        let mut votes: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for (address, _) in self.foreign() {
            *votes.entry(address).or_default() += 1;
        }
        let mut told: Vec<(usize, SocketAddr)> = votes.into_iter().map(|(address, votes)| (votes, address)).collect();
        // Whoever is told stays told while it is no worse than the others: no news without a reason.
        told.sort_by_key(|(votes, address)| (std::cmp::Reverse(*votes), !self.told.contains(address), *address));
        let mut told: Vec<SocketAddr> = told.into_iter().map(|(_, address)| address).take(MAX_TOLD).collect();
        told.sort();
        let changed = told != self.told;
        self.told = told;
        changed
    }

    /// The addresses others see us at that are not our own.
    pub(super) fn told(&self) -> &[SocketAddr] {
        &self.told
    }

    pub(super) fn nat(&self) -> Nat {
        let foreign: Vec<SocketAddr> =
            self.foreign().map(|(address, _)| address).filter(SocketAddr::is_ipv4).collect();
        match foreign.as_slice() {
            [] if self.seen.is_empty() => Nat::Unknown,
            [] => Nat::None,
            [_] => Nat::Unknown,
            [first, rest @ ..] if rest.iter().all(|other| other == first) => Nat::Independent,
            _ => Nat::Dependent,
        }
    }

    fn foreign(&self) -> impl Iterator<Item = (SocketAddr, Duration)> + '_ {
        self.seen.values().copied().filter(|(address, _)| !self.local.contains(address))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_kind_of_nat_is_what_the_peers_agree_on() {
        let mut reflexive = Reflexive::new();
        reflexive.set_local(&[address("10.0.0.1:51820")]);
        assert_eq!((reflexive.update(SECOND), reflexive.nat()), (false, Nat::Unknown));
        reflexive.saw(SECOND, 1, address("10.0.0.1:51820"));
        assert_eq!((reflexive.update(SECOND), reflexive.nat()), (false, Nat::None));
        reflexive.saw(SECOND, 2, address("192.0.2.1:1000"));
        assert_eq!((reflexive.update(SECOND), reflexive.nat()), (true, Nat::Unknown));
        reflexive.saw(SECOND, 3, address("192.0.2.1:1000"));
        assert_eq!((reflexive.update(SECOND), reflexive.nat()), (false, Nat::Independent));
        assert_eq!(reflexive.told(), [address("192.0.2.1:1000")]);
        reflexive.saw(SECOND, 3, address("192.0.2.1:1001"));
        assert_eq!((reflexive.update(SECOND), reflexive.nat()), (true, Nat::Dependent));
        reflexive.forget(3);
        assert!(reflexive.update(SECOND + HOLDS));
        assert!(reflexive.told().is_empty());
    }

    #[test]
    fn a_crowd_of_liars_is_told_to_nobody_beyond_the_bound() {
        let mut reflexive = Reflexive::new();
        for peer in 0..1000 {
            reflexive.saw(SECOND, peer, SocketAddr::from(([192, 0, 2, 1], 1 + peer as u16)));
        }
        for peer in 1000..1003 {
            reflexive.saw(SECOND, peer, address("198.51.100.1:7"));
        }
        reflexive.update(SECOND);
        assert_eq!(reflexive.told().len(), MAX_TOLD);
        assert!(reflexive.told().contains(&address("198.51.100.1:7")));
        reflexive.saw(SECOND, 1, address("0.0.0.0:7"));
        reflexive.saw(SECOND, 1, address("192.0.2.1:0"));
        assert_eq!(reflexive.seen[&(1, false)].0, address("192.0.2.1:2"));
    }
}
