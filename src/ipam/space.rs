//! What a member may give addresses from, in one network.

use super::Spans;
use crate::wire::cidr::Cidr;
use crate::wire::range::{Range, number};
use std::net::IpAddr;

/// A network's range as one member has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Space {
    /// The network's prefixes.
    pub subnets: Vec<Cidr>,
    /// Where every member answers for the network itself.
    pub service: Vec<IpAddr>,
    /// What nobody gets unless it is asked for by hand.
    pub reserved: Vec<Range>,
    /// Where to choose; empty is everywhere.
    pub ranges: Vec<Range>,
    /// This member's slices.
    pub slices: Vec<Cidr>,
}

impl Space {
    /// The addresses of a family that this member may choose: in its slices, in the network's prefixes and ranges, and not the
    /// network's own ([`edges`]), nor reserved.
    pub fn pool(&self, v4: bool) -> Spans {
        let of = |ranges: &mut dyn Iterator<Item = Range>| {
            let family = ranges.filter(|range| range.first.is_ipv4() == v4);
            Spans::new(family.map(|range| (number(range.first), number(range.last))))
        };
        let mut pool = of(&mut self.subnets.iter().map(|&subnet| subnet.into()));
        pool = pool.and(&of(&mut self.slices.iter().map(|&slice| slice.into())));
        if !self.ranges.is_empty() {
            pool = pool.and(&of(&mut self.ranges.iter().copied()));
        }
        let service = self.service.iter().map(|&address| Range { first: address, last: address });
        let edges = self
            .subnets
            .iter()
            .chain(&self.slices)
            .flat_map(edges)
            .map(|address| Range { first: address, last: address });
        pool.without(&of(&mut self.reserved.iter().copied().chain(service).chain(edges)))
    }

    /// The network's prefix that an address lies in.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Cidr> {
        self.subnets.iter().find(|subnet| subnet.contains(address))
    }

    /// Whether an address lies in one of this member's slices.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.slices.iter().any(|slice| slice.contains(address))
    }
}

/// The addresses of a prefix that no host is given: in IPv4 the first and the last (RFC 1122 §3.2.1.3), in IPv6 the first, which means
/// any router (RFC 4291 §2.6.1). Prefixes for two and for one have none (RFC 3021, RFC 6164). Those of
/// a slice could be given, but there is software that takes every address that ends in 0 or 255 for such a one.
fn edges(subnet: &Cidr) -> impl Iterator<Item = IpAddr> + use<> {
    let Range { first, last } = Range::from(*subnet);
    let v4 = first.is_ipv4();
    let any = subnet.prefix <= if v4 { 30 } else { 126 };
    [any.then_some(first), (any && v4).then_some(last)].into_iter().flatten()
}
