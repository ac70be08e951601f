//! Which hosts sit where, behind what, and what lies between: the lab's underlay as an internet.
//!
//! ```text
//!   site 1                         the internet                          site 2
//!   h1 ──┐                                                             ┌── h3   192.168.2.3
//!        ├── box ── line ──────────── core ──────────── line ── box ───┤
//!   h2 ──┘   nat, firewall      partitions, cut pairs           nat    └── h4   192.168.2.4
//! ```
//!
//! Hosts of one *site* share a segment; everything else goes through the site's *box* and over its *line*, with loss,
//! delay, rate and MTU both ways. Addresses follow from numbers, so that they can be read:
//!
//! | | host H of site S | gateway | outside |
//! |---|---|---|---|
//! | public IPv4 | 192.0.2.H/24 | 192.0.2.254 | the same |
//! | private IPv4 | 192.168.S.H/24 | 192.168.S.254 | 198.51.100.S, the box's |
//! | IPv6 | 2001:db8:0:S::H/64 | 2001:db8:0:S::fe | the same |
//!
//! Public IPv4 addresses are one prefix spread over sites: a box answers ARP for those that are elsewhere (RFC 1027).
//! A private site whose NAT is taken away is routed by its private addresses.

use super::LabError;
use super::internet::firewall::FirewallSettings;
use super::internet::nat::NatSettings;
use super::link::LinkSettings;
use super::spec::MAX_HOSTS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The last byte of every gateway's address.
const GATEWAY: u8 = 254;

/// Sites and what lies between them. Hosts and sites are counted from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// The sites. Every host is in exactly one.
    pub sites: Vec<Site>,
    /// Pairs of hosts, the lower first, that do not reach each other.
    pub cut_pairs: BTreeSet<(usize, usize)>,
    /// A partition: hosts of different groups do not reach each other. Those in none are one more group.
    pub groups: Vec<BTreeSet<usize>>,
    /// Hosts whose cable is pulled.
    pub unplugged: BTreeSet<usize>,
    /// Where chance begins: the same seed, the same luck.
    pub seed: u64,
}

/// Hosts behind one box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Its hosts.
    pub hosts: BTreeSet<usize>,
    /// Whether they have IPv4 at all.
    pub v4: bool,
    /// Whether they have IPv6.
    pub v6: bool,
    /// Whether their IPv4 addresses are private.
    pub private: bool,
    /// What they are behind.
    pub middlebox: Middlebox,
    /// What its line does, each way. The cut cables of these settings are the impaired wire's and mean nothing here.
    pub line: LinkSettings,
    /// Whether whoever sends a packet above the line's `max_packet` is told (ICMP); else it vanishes.
    pub icmp: bool,
    /// MTU of its hosts' `eth0`.
    pub mtu: u16,
}

/// What stands between a site and the rest (RFC 3234).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Middlebox {
    /// A NAT, for IPv4.
    pub nat: Option<NatSettings>,
    /// A firewall, for both families. It sees the addresses inside.
    pub firewall: FirewallSettings,
}

impl Site {
    /// Hosts with public addresses of both families and nothing in their way.
    pub fn public(hosts: impl IntoIterator<Item = usize>) -> Self {
        Self {
            hosts: hosts.into_iter().collect(),
            v4: true,
            v6: true,
            private: false,
            middlebox: Middlebox::default(),
            line: LinkSettings::default(),
            icmp: true,
            mtu: 1500,
        }
    }

    /// Hosts with IPv4 alone, behind a NAT.
    pub fn behind(nat: NatSettings, hosts: impl IntoIterator<Item = usize>) -> Self {
        let middlebox = Middlebox { nat: Some(nat), ..Middlebox::default() };
        Self { v6: false, private: true, middlebox, ..Self::public(hosts) }
    }

    /// Hosts with public addresses behind a firewall.
    pub fn guarded(firewall: FirewallSettings, hosts: impl IntoIterator<Item = usize>) -> Self {
        Self { middlebox: Middlebox { nat: None, firewall }, ..Self::public(hosts) }
    }
}

/// The addresses of a host on the underlay, and its gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    /// IPv4, with a prefix of 24 bits, and the gateway.
    pub v4: Option<(Ipv4Addr, Option<Ipv4Addr>)>,
    /// IPv6, with a prefix of 64 bits, and the gateway.
    pub v6: Option<(Ipv6Addr, Option<Ipv6Addr>)>,
}

impl Addresses {
    /// The host's own; unspecified where it has none.
    pub(super) fn or_unspecified(self) -> (Ipv4Addr, Ipv6Addr) {
        let v4 = self.v4.map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| address);
        (v4, self.v6.map_or(Ipv6Addr::UNSPECIFIED, |(address, _)| address))
    }
}

impl Topology {
    /// An internet of these sites.
    pub fn new(sites: impl IntoIterator<Item = Site>) -> Self {
        let (cut_pairs, unplugged) = (BTreeSet::new(), BTreeSet::new());
        Self { sites: sites.into_iter().collect(), cut_pairs, groups: Vec::new(), unplugged, seed: 1 }
    }

    /// Every host alone at a public site.
    pub fn flat(hosts: usize) -> Self {
        Self::new((1..=hosts).map(|h| Site::public([h])))
    }

    /// How many hosts it has.
    pub fn hosts(&self) -> usize {
        self.sites.iter().map(|site| site.hosts.len()).sum()
    }

    /// The number of the site that host `h` is in.
    pub fn site_of(&self, h: usize) -> Option<usize> {
        self.sites.iter().position(|site| site.hosts.contains(&h)).map(|at| at + 1)
    }

    /// The addresses of host `h`; none of a host that is in no site.
    pub fn addresses(&self, h: usize) -> Addresses {
        let Some(number) = self.site_of(h) else { return Addresses::default() };
        let site = &self.sites[number - 1];
        let v4 = |last: u8| match site.private {
            true => Ipv4Addr::new(192, 168, number as u8, last),
            false => Ipv4Addr::new(192, 0, 2, last),
        };
        let v6 = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, number as u16, 0, 0, 0, last);
        Addresses {
            v4: site.v4.then(|| (v4(h as u8), Some(v4(GATEWAY)))),
            v6: site.v6.then(|| (v6(h as u16), Some(v6(GATEWAY.into())))),
        }
    }

    /// Whether something stands between two hosts that no path through the internet avoids.
    pub fn apart(&self, a: usize, b: usize) -> bool {
        let group = |h: usize| self.groups.iter().position(|group| group.contains(&h));
        self.cut_pairs.contains(&(a.min(b), a.max(b)))
            || group(a) != group(b)
            || self.unplugged.contains(&a)
            || self.unplugged.contains(&b)
    }

    /// By which address host `from` finds host `to`, if it can: who is behind a NAT is found by nobody outside.
    pub fn address_of(&self, from: usize, to: usize, prefer_v6: bool) -> Option<IpAddr> {
        let (near, far) = (self.site_of(from)?, self.site_of(to)?);
        let (own, other) = (self.addresses(from), self.addresses(to));
        let hidden = near != far && self.sites[far - 1].private;
        let v4 = own.v4.and(other.v4).filter(|_| !hidden).map(|(address, _)| IpAddr::V4(address));
        let v6 = own.v6.and(other.v6).map(|(address, _)| IpAddr::V6(address));
        if prefer_v6 { v6.or(v4) } else { v4.or(v6) }
    }

    /// # Errors
    /// A host that is in no site, or in two, or not in the lab.
    pub fn check(&self, hosts: usize) -> Result<(), LabError> {
        let refuse = |text: String| Err(LabError::Refused(text));
        let mut met = BTreeSet::new();
        for h in self.sites.iter().flat_map(|site| &site.hosts) {
            if !(1..=hosts).contains(h) {
                return refuse(format!("the topology has a host h{h} and the lab has {hosts}"));
            }
            if !met.insert(h) {
                return refuse(format!("h{h} is in two sites of the topology"));
            }
        }
        if met.len() != hosts {
            return refuse(format!("the topology has places for {} hosts and the lab has {hosts}", met.len()));
        }
        if self.sites.len() > MAX_HOSTS {
            return refuse(format!("a topology has at most {MAX_HOSTS} sites"));
        }
        if let Some(site) = self.sites.iter().find(|site| site.mtu < 1280 || !(site.v4 || site.v6)) {
            let hosts: Vec<String> = site.hosts.iter().map(|h| format!("h{h}")).collect();
            return refuse(format!("the site of {} needs an address family and an MTU of 1280", hosts.join(", ")));
        }
        Ok(())
    }
}

/// The public IPv4 address of site `site`'s box.
pub fn outside(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, site as u8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn addresses_follow_from_numbers_and_the_hidden_are_not_found() {
        let mut topology = Topology::new([Site::public([1]), Site::behind(NatSettings::default(), [2, 3])]);
        topology.check(3).unwrap();
        let found = |topology: &Topology, from, to, v6| topology.address_of(from, to, v6);
        assert_eq!(found(&topology, 2, 1, false), address("192.0.2.1"));
        assert_eq!(found(&topology, 1, 2, false), None);
        assert_eq!(found(&topology, 3, 2, true), address("192.168.2.2"));
        topology.sites[1].v6 = true;
        assert_eq!(found(&topology, 1, 2, false), address("2001:db8:0:2::2"));
        assert_eq!(found(&topology, 2, 1, true), address("2001:db8:0:1::1"));
        assert_eq!(topology.addresses(9), Addresses::default());
    }

    #[test]
    fn hosts_are_apart_by_pair_by_group_and_by_cable() {
        let mut topology = Topology::flat(5);
        topology.cut_pairs.insert((1, 2));
        let apart = |topology: &Topology| -> Vec<(usize, usize)> {
            let pairs = (1..=5).flat_map(|a| (a + 1..=5).map(move |b| (a, b)));
            pairs.filter(|&(a, b)| topology.apart(a, b) && topology.apart(b, a)).collect()
        };
        assert_eq!(apart(&topology), [(1, 2)]);
        topology.groups = vec![[1, 2].into(), [3].into()];
        assert_eq!(apart(&topology), [(1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5), (3, 4), (3, 5)]);
        topology.groups.clear();
        topology.unplugged.insert(5);
        assert_eq!(apart(&topology), [(1, 2), (1, 5), (2, 5), (3, 5), (4, 5)]);
    }

    #[test]
    fn a_topology_that_does_not_fit_is_refused() {
        let good = Topology::flat(3);
        good.check(3).unwrap();
        let refused = |topology: &Topology, hosts, why: &str| {
            let error = topology.check(hosts).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(&good, 4, "places for 3 hosts");
        refused(&good, 2, "has a host h3");
        refused(&Topology::new([Site::public([1, 2]), Site::public([2])]), 2, "h2 is in two sites");
        refused(&Topology::new([Site { mtu: 1000, ..Site::public([1]) }]), 1, "MTU of 1280");
        refused(&Topology::new([Site { v4: false, v6: false, ..Site::public([1]) }]), 1, "family");
    }

    #[test]
    fn a_topology_survives_its_file() {
        let mut topology = Topology::new([Site::behind(NatSettings::symmetric(), [1])]);
        topology.sites[0].line.rate = Some(1_000_000);
        let text = serde_json::to_string(&topology).unwrap();
        assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), topology);
    }
}
