//! What stands between a site and the underlay: a model of RFC 4787 (UDP) as a value.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a NAT's mapping or filter depends on (RFC 4787 §4.1, §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    /// Nothing: endpoint-independent.
    Nothing,
    /// The other's address.
    Address,
    /// The other's address and port.
    AddressAndPort,
}

pub(crate) const ALL: [By; 3] = [By::Nothing, By::Address, By::AddressAndPort];

impl By {
    fn key(self, other: SocketAddr) -> Option<(IpAddr, u16)> {
        match self {
            Self::Nothing => None,
            Self::Address => Some((other.ip(), 0)),
            Self::AddressAndPort => Some((other.ip(), other.port())),
        }
    }
}

/// A NAT, or with `outside` `None` a firewall that lets in what answers.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub outside: Option<IpAddr>,
    pub mapping: By,
    pub filtering: By,
    pub hairpin: bool,
    /// How long a mapping lives after its last packet outward.
    pub timeout: Duration,
    next_port: u16,
    mappings: Vec<Mapping>,
}

#[derive(Debug, Clone)]
struct Mapping {
    inside: SocketAddr,
    key: Option<(IpAddr, u16)>,
    outside: SocketAddr,
    used: Duration,
    let_in: BTreeMap<Option<(IpAddr, u16)>, Duration>,
}

impl Gate {
    pub(crate) fn nat(outside: IpAddr, mapping: By, filtering: By) -> Self {
        let timeout = Duration::from_secs(120);
        Self {
            outside: Some(outside),
            mapping,
            filtering,
            hairpin: false,
            timeout,
            next_port: 20_000,
            mappings: Vec::new(),
        }
    }

    pub(crate) fn firewall() -> Self {
        let (mapping, filtering) = (By::Nothing, By::AddressAndPort);
        let timeout = Duration::from_secs(120);
        Self { outside: None, mapping, filtering, hairpin: false, timeout, next_port: 0, mappings: Vec::new() }
    }

    /// Everything it knows is gone, as after a restart.
    pub(crate) fn forget(&mut self) {
        self.mappings.clear();
        self.next_port += 1000;
    }

    /// A packet leaves: the source it has outside.
    pub(crate) fn outward(&mut self, now: Duration, inside: SocketAddr, to: SocketAddr) -> SocketAddr {
        let timeout = self.timeout;
        self.mappings.retain(|mapping| now.saturating_sub(mapping.used) < timeout);
        let key = self.mapping.key(to);
        let found = self.mappings.iter().position(|mapping| mapping.inside == inside && mapping.key == key);
        let at = found.unwrap_or_else(|| {
            // Ports are not preserved, and no two mappings have neighbouring ones.
            self.next_port += 7;
            let outside = self.outside.map_or(inside, |ip| SocketAddr::new(ip, self.next_port));
            self.mappings.push(Mapping { inside, key, outside, used: now, let_in: BTreeMap::new() });
            self.mappings.len() - 1
        });
        let mapping = &mut self.mappings[at];
        mapping.used = now;
        mapping.let_in.insert(self.filtering.key(to), now);
        mapping.outside
    }

    /// A packet arrives from outside: whom it is for.
    pub(crate) fn inward(&self, now: Duration, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let key = self.filtering.key(from);
        let fresh = |at: Duration| now.saturating_sub(at) < self.timeout;
        let mapping = self.mappings.iter().find(|mapping| mapping.outside == to && fresh(mapping.used))?;
        mapping.let_in.get(&key).is_some_and(|at| fresh(*at)).then_some(mapping.inside)
    }
}

/// Whether two NATs can be punched when each side knows the address that a third one sees of the other.
pub(crate) fn can_be_punched(a: (By, By), b: (By, By)) -> bool {
    let mapped_alike = |nat: (By, By)| nat.0 == By::Nothing;
    let takes_any_port = |nat: (By, By)| nat.1 != By::AddressAndPort;
    match (mapped_alike(a), mapped_alike(b)) {
        (true, true) => true,
        // The other's packets come from a port that cannot be known before.
        (true, false) => takes_any_port(a),
        (false, true) => takes_any_port(b),
        // What is sent arrives only if one side takes anything for the mapping it has with the third.
        (false, false) => a.1 == By::Nothing && takes_any_port(b) || b.1 == By::Nothing && takes_any_port(a),
    }
}

#[test]
fn the_kinds_of_nat_do_what_they_are_defined_by() {
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let (inside, now) = (address("10.0.0.2:9"), Duration::from_secs(1));
    let (first, port, other) = (address("192.0.2.1:1"), address("192.0.2.1:2"), address("192.0.2.2:1"));
    for mapping in ALL {
        for filtering in ALL {
            let mut nat = Gate::nat("198.51.100.1".parse().unwrap(), mapping, filtering);
            let outside = nat.outward(now, inside, first);
            assert_eq!(nat.inward(now, first, outside), Some(inside));
            assert_eq!(nat.inward(now, port, outside).is_some(), filtering <= By::Address);
            assert_eq!(nat.inward(now, other, outside).is_some(), filtering == By::Nothing);
            assert_eq!(nat.outward(now, inside, port) == outside, mapping <= By::Address);
            assert_eq!(nat.outward(now, inside, other) == outside, mapping == By::Nothing);
            assert_eq!(nat.inward(now + nat.timeout, first, outside), None);
        }
    }
    let mut firewall = Gate::firewall();
    assert_eq!(firewall.inward(now, first, inside), None);
    assert_eq!(firewall.outward(now, inside, first), inside);
    assert_eq!((firewall.inward(now, first, inside), firewall.inward(now, port, inside)), (Some(inside), None));
}
