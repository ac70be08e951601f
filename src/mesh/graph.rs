//! Who is there, and over whom: the graph of links that both their ends tell of.
//!
//! A member is *alive* when links lead to it from us, however many members they pass. So nobody has to declare anyone dead: when
//! the neighbours of one that crashed say that their links to it are gone, it is, for everyone at once; and the two sides of a
//! partition each see the other as gone. One that lies can claim links only between itself and another that says so too.
//!
//! A *route* is the cheapest way to a member whose inner members all forward for others ([`Relay`]). Costs are in microseconds: the
//! worse of the round trips that the two ends measured, more where messages are lost, and something for each member that has to
//! forward. There is no hysteresis here: what is told of links has it ([`super::pulse`]), so costs do not flutter.

use super::facts::{Facts, Relay};
use crate::wire::key::PublicKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// What it costs to pass a member: a few times what forwarding takes, so that a detour has to be worth it …
const PASSING: u64 = 2_000;
/// … unless the member is there for that.
const PASSING_PREFERRED: u64 = 200;
/// What each twentieth of messages lost costs: a retransmission's pause, shared out.
const LOSING: u64 = 10_000;

/// How a member is reached through others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The neighbour that forwards, or the member itself.
    pub next_hop: PublicKey,
    /// Links on the way; 1 for a neighbour.
    pub hops: u32,
    /// What the way costs, in µs.
    pub cost: u64,
}

/// What the graph says of one member that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The way there, if all on some way forward.
    pub route: Option<Route>,
}

/// Who is alive, we ourselves not among them. `members` are all of them by key, and us.
pub fn reach<'a>(
    us: &PublicKey,
    members: impl IntoIterator<Item = (&'a PublicKey, &'a Facts)>,
) -> BTreeMap<PublicKey, Reach> {
    let graph = Graph::new(members);
    let Some(start) = graph.place(us) else { return BTreeMap::new() };
    let routes = graph.routes(start);
    let alive = graph.component(start, None);
    let found = (0..graph.members.len()).filter(|&n| n != start && alive[n]);
    found.map(|n| (*graph.members[n].0, Reach { route: routes[n] })).collect()
}

/// Whether `other` would be out of our reach without the link between it and us.
pub fn is_bridge<'a>(
    us: &PublicKey,
    other: &PublicKey,
    members: impl IntoIterator<Item = (&'a PublicKey, &'a Facts)>,
) -> bool {
    let graph = Graph::new(members);
    let (Some(us), Some(other)) = (graph.place(us), graph.place(other)) else { return false };
    !graph.component(us, Some((us, other)))[other]
}

/// The way from `us` to `other` that does not use the link between the two.
pub fn detour<'a>(
    us: &PublicKey,
    other: &PublicKey,
    members: impl IntoIterator<Item = (&'a PublicKey, &'a Facts)>,
) -> Option<Route> {
    let mut graph = Graph::new(members);
    let (us, other) = (graph.place(us)?, graph.place(other)?);
    graph.links[us].retain(|(end, _)| *end != other);
    graph.links[other].retain(|(end, _)| *end != us);
    graph.routes(us)[other]
}

struct Graph<'a> {
    members: Vec<(&'a PublicKey, &'a Facts)>,
    /// The beginnings of their keys, side by side: each end of each link is looked up.
    firsts: Vec<u64>,
    /// For each member its links: the other end and the cost.
    links: Vec<Vec<(usize, u64)>>,
}

impl<'a> Graph<'a> {
    fn new(members: impl IntoIterator<Item = (&'a PublicKey, &'a Facts)>) -> Self {
        let members: Vec<_> = members.into_iter().collect();
        let firsts = members.iter().map(|(key, _)| key.first()).collect();
        let mut graph = Self { links: vec![Vec::new(); members.len()], firsts, members };
        let trips: [u64; 61] = std::array::from_fn(|steps| (100.0 * 2f64.powf(steps as f64 / 2.0)) as u64);
        for n in 0..graph.members.len() {
            let (key, facts) = graph.members[n];
            // Each link once, from its lower end.
            for link in facts.links.iter().filter(|link| link.neighbour > *key) {
                let Some(other) = graph.place(&link.neighbour) else { continue };
                let back = &graph.members[other].1.links;
                let Ok(back) = back.binary_search_by(|back| back.neighbour.cmp(key)) else { continue };
                let back = &graph.members[other].1.links[back];
                let steps = usize::from(link.round_trip.max(back.round_trip));
                let trip = trips[steps.min(trips.len() - 1)];
                let cost = trip + u64::from(link.loss.max(back.loss)) * LOSING;
                graph.links[n].push((other, cost));
                graph.links[other].push((n, cost));
            }
        }
        graph
    }

    fn place(&self, key: &PublicKey) -> Option<usize> {
        let first = key.first();
        let at = self.firsts.partition_point(|other| *other < first);
        let same = self.firsts[at..].iter().take_while(|other| **other == first).count();
        (at..at + same).find(|&n| self.members[n].0 == key)
    }

    /// Who is linked with `start` over any number of links, one of which may be left out.
    fn component(&self, start: usize, without: Option<(usize, usize)>) -> Vec<bool> {
        let mut found = vec![false; self.members.len()];
        found[start] = true;
        let mut next = vec![start];
        while let Some(n) = next.pop() {
            for &(other, _) in &self.links[n] {
                if !found[other] && without != Some((n, other)) && without != Some((other, n)) {
                    found[other] = true;
                    next.push(other);
                }
            }
        }
        found
    }

    /// The cheapest ways from `start` (Dijkstra). Of two that cost the same the one over the lower key is taken.
    fn routes(&self, start: usize) -> Vec<Option<Route>> {
        let mut routes: Vec<Option<Route>> = vec![None; self.members.len()];
        let mut is_final = vec![false; self.members.len()];
        let mut queue = BinaryHeap::from([Reverse((0, 0, start))]);
        while let Some(Reverse((cost, hops, n))) = queue.pop() {
            if std::mem::replace(&mut is_final[n], true) {
                continue;
            }
            let passing = match self.members[n].1.relay {
                _ if n == start => 0,
                Relay::No => continue,
                Relay::Yes => PASSING,
                Relay::Prefer => PASSING_PREFERRED,
            };
            for &(other, length) in &self.links[n] {
                let next_hop = routes[n].map_or(*self.members[other].0, |route| route.next_hop);
                let route = Route { next_hop, hops: hops + 1, cost: cost + passing + length };
                let is_better = routes[other].is_none_or(|known| (route.cost, route.hops) < (known.cost, known.hops));
                if other != start && !is_final[other] && is_better {
                    routes[other] = Some(route);
                    queue.push(Reverse((route.cost, route.hops, other)));
                }
            }
        }
        routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::facts::Link;

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    /// Members 0 to `count`, with links (a, b, steps of the round trip).
    fn mesh(count: u8, links: &[(u8, u8, u8)]) -> Vec<(PublicKey, Facts)> {
        let mut members: Vec<_> = (0..count).map(|n| (key(n), Facts::default())).collect();
        for &(a, b, round_trip) in links {
            for (a, b) in [(a, b), (b, a)] {
                members[usize::from(a)].1.links.push(Link { neighbour: key(b), round_trip, loss: 0 });
            }
        }
        members.iter_mut().for_each(|(_, facts)| facts.links.sort());
        members
    }

    fn from_zero(members: &[(PublicKey, Facts)]) -> BTreeMap<PublicKey, Reach> {
        reach(&key(0), members.iter().map(|(key, facts)| (key, facts)))
    }

    #[test]
    fn a_link_counts_when_both_ends_tell_of_it() {
        let mut members = mesh(4, &[(0, 1, 0), (1, 2, 0)]);
        assert_eq!(from_zero(&members).keys().copied().collect::<Vec<_>>(), [key(1), key(2)]);
        members[2].1.links.clear();
        members[3].1.links.push(Link { neighbour: key(0), round_trip: 0, loss: 0 });
        assert_eq!(from_zero(&members).keys().copied().collect::<Vec<_>>(), [key(1)]);
    }

    #[test]
    fn the_cheapest_way_goes_over_those_that_forward() {
        // 0 - 1 - 3 is short, 0 - 2 - 3 is long, 0 - 4 nowhere else.
        let mut members = mesh(5, &[(0, 1, 8), (1, 3, 8), (0, 2, 14), (2, 3, 14), (0, 4, 0)]);
        let route = |members: &[(PublicKey, Facts)]| {
            from_zero(members)[&key(3)].route.map(|route| (route.next_hop, route.hops))
        };
        assert_eq!(route(&members), Some((key(1), 2)));
        members[1].1.relay = Relay::No;
        assert_eq!(route(&members), Some((key(2), 2)));
        members[2].1.relay = Relay::No;
        assert_eq!(route(&members), None);
        assert!(from_zero(&members).contains_key(&key(3)), "it is alive all the same");
        let mut members = mesh(4, &[(0, 1, 8), (1, 3, 8), (0, 2, 8), (2, 3, 8)]);
        members[2].1.relay = Relay::Prefer;
        assert_eq!(route(&members), Some((key(2), 2)));
        let direct = mesh(3, &[(0, 1, 8), (1, 2, 8), (0, 2, 9)]);
        assert_eq!(from_zero(&direct)[&key(2)].route.map(|route| route.hops), Some(1), "no detour for nothing");
    }

    #[test]
    fn a_bridge_is_known() {
        let members = mesh(4, &[(0, 1, 0), (1, 2, 0), (0, 2, 0), (0, 3, 0)]);
        let is_bridge = |other| is_bridge(&key(0), &key(other), members.iter().map(|(key, facts)| (key, facts)));
        assert!(!is_bridge(1) && !is_bridge(2) && is_bridge(3));
    }
}
