//! Listeners: which of our ports listens to which multicast groups, by IGMP and MLD snooping (RFC 4541).
//!
//! Ports report what they listen to when they begin, and when they are asked. So we ask: every [`QUERY_EVERY`] all ports of a
//! network, for memberships expire ([`MEMBERSHIP`]); a port that is there when we begin, twice at once; and one that leaves a
//! group, whether anybody else behind it stays ([`LAST_MEMBER`]). Queries are ours and stay on this host: each member asks
//! its own ports, and what they answer the mesh tells the others ([`Listeners::groups`]).
//!
//! ```text
//!   port ──report──► listens ──leave──► asked twice ──silence──► gone
//!                      ▲ └──────260 s of silence─────────────────► gone
//!                      └───────────report────┘
//! ```
//!
//! A port that sends queries of its own or speaks PIM has a multicast router behind it, and needs every group of its family;
//! so does, for [`FRESH`], one that was there before we were, for it may be listening to anything. Both are named by the
//! family's unspecified address, here and in the mesh.
//!
//! `P` is whatever the caller names ports by. Time is what has passed since the daemon started.

use crate::wire::multicast::{QUERY_INTERVAL, Signal, read};
use crate::wire::{igmp, mld};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// How often all ports are asked.
pub const QUERY_EVERY: Duration = Duration::from_secs(QUERY_INTERVAL as u64);
/// How long they may take to answer, so that not all do at once (RFC 9776 §8.3).
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a report holds: two queries may be lost (RFC 9776 §8.4). Routers' holds as long.
pub const MEMBERSHIP: Duration = Duration::from_secs(260);
/// How long one port may take that is asked alone, and when it is asked again (RFC 9776 §8.8).
const PAUSE: Duration = Duration::from_secs(1);
/// How long a port that leaves a group still gets it: two questions and their answers.
pub const LAST_MEMBER: Duration = Duration::from_secs(2);
/// How long a port that was there before us counts as listening to everything: two questions, their answers, and a second.
pub const FRESH: Duration = Duration::from_secs(3);
/// Groups of one port: ten times what Linux lets a socket join. More are refused and counted, and do not arrive.
pub const MAX_GROUPS: usize = 256;

/// Groups of one network and family that other members are told of. Of more they are told that it is all: then every stream
/// comes here, and ends here where nobody listens.
pub const MAX_ANNOUNCED: usize = 1024;

/// The names of all groups of a family.
const FAMILIES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<P> {
    /// Hand this frame to a port, or to all of the network.
    Query {
        /// The network.
        vni: u32,
        /// The port; `None` is all.
        port: Option<P>,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Who listens to what in this network is no longer what it was.
    Changed(u32),
}

/// How long a port listens to something.
#[derive(Debug, Clone, Copy)]
struct Listening {
    until: Duration,
    /// When it is asked once more whether it still does.
    ask: Option<Duration>,
}

#[derive(Debug)]
struct Port {
    vni: u32,
    /// By group; the unspecified address is all of its family.
    groups: BTreeMap<IpAddr, Listening>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Listeners<P> {
    ports: BTreeMap<P, Port>,
    /// When the ports of a network are asked.
    queries: BTreeMap<u32, Duration>,
    /// Nothing is to be done before.
    quiet_until: Duration,
    outputs: VecDeque<Output<P>>,
    refused: u64,
    malformed: u64,
}

impl<P> Default for Listeners<P> {
    fn default() -> Self {
        Self {
            ports: BTreeMap::new(),
            queries: BTreeMap::new(),
            quiet_until: Duration::MAX,
            outputs: VecDeque::new(),
            refused: 0,
            malformed: 0,
        }
    }
}

impl<P: Copy + Ord> Listeners<P> {
    /// A port of a snooped network: just made, or there before and possibly listening already.
    pub fn port_up(&mut self, now: Duration, vni: u32, port: P, was_there: bool) {
        let mut groups = BTreeMap::new();
        if was_there {
            let listening = Listening { until: now + FRESH, ask: Some(now + PAUSE) };
            groups.extend(FAMILIES.map(|family| (family, listening)));
            FAMILIES.iter().for_each(|&family| self.ask(vni, Some(port), family, PAUSE));
        }
        self.ports.insert(port, Port { vni, groups });
        self.queries.entry(vni).or_insert(now + QUERY_EVERY);
        self.quiet_until = self.quiet_until.min(now + PAUSE);
        self.outputs.push_back(Output::Changed(vni));
    }

    /// A port is gone, or its network is no longer snooped.
    pub fn port_down(&mut self, port: P) {
        let Some(Port { vni, .. }) = self.ports.remove(&port) else { return };
        if !self.ports.values().any(|other| other.vni == vni) {
            self.queries.remove(&vni);
        }
        self.outputs.push_back(Output::Changed(vni));
    }

    /// A port sent this frame, which is IGMP, MLD or PIM.
    pub fn heard(&mut self, now: Duration, port: P, frame: &[u8]) {
        let signal = read(frame).unwrap_or_else(|_| {
            self.malformed += 1;
            Signal::Nothing
        });
        match signal {
            Signal::Nothing => {}
            Signal::Router(family) => self.listens(now, port, family),
            Signal::Records(records) => {
                for record in records {
                    match record.listens {
                        true => self.listens(now, port, record.group),
                        false => self.leaves(now, port, record.group),
                    }
                }
            }
        }
    }

    /// Time passed: see [`Self::next_deadline`].
    pub fn tick(&mut self, now: Duration) {
        if now < self.quiet_until {
            return;
        }
        let due: Vec<u32> = self.queries.iter().filter(|(_, at)| **at <= now).map(|(&vni, _)| vni).collect();
        for vni in due {
            self.queries.insert(vni, now + QUERY_EVERY);
            FAMILIES.iter().for_each(|&family| self.ask(vni, None, family, ANSWER_WITHIN));
        }
        let mut questions = Vec::new();
        let mut changed = BTreeSet::new();
        for (&id, port) in &mut self.ports {
            let before = port.groups.len();
            port.groups.retain(|_, listening| listening.until > now);
            if port.groups.len() != before {
                changed.insert(port.vni);
            }
            for (&group, listening) in &mut port.groups {
                if listening.ask.is_some_and(|at| at <= now) {
                    listening.ask = None;
                    questions.push((port.vni, id, group));
                }
            }
        }
        self.outputs.extend(changed.into_iter().map(Output::Changed));
        questions.into_iter().for_each(|(vni, port, group)| self.ask(vni, Some(port), group, PAUSE));
        self.quiet_until = self.next_deadline().unwrap_or(Duration::MAX);
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let listening = self.ports.values().flat_map(|port| port.groups.values());
        let times = listening.flat_map(|listening| [Some(listening.until), listening.ask]).flatten();
        times.chain(self.queries.values().copied()).min()
    }

    /// What has to be done next.
    pub fn poll_output(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    /// Which port of a network listens to which group; to all of its family if that is unspecified.
    pub fn of_network(&self, vni: u32) -> impl Iterator<Item = (P, IpAddr)> {
        let ports = self.ports.iter().filter(move |(_, port)| port.vni == vni);
        ports.flat_map(|(&id, port)| port.groups.keys().map(move |&group| (id, group)))
    }

    /// What any of our ports listens to, for other members: network and group, or all of a family.
    pub fn groups(&self) -> BTreeSet<(u32, IpAddr)> {
        let mut families: BTreeMap<(u32, IpAddr), BTreeSet<IpAddr>> = BTreeMap::new();
        for port in self.ports.values() {
            for &group in port.groups.keys() {
                families.entry((port.vni, FAMILIES[usize::from(group.is_ipv6())])).or_default().insert(group);
            }
        }
        let told = families.into_iter().flat_map(|((vni, all), mut groups)| {
            if groups.contains(&all) || groups.len() > MAX_ANNOUNCED {
                groups = BTreeSet::from([all]);
            }
            groups.into_iter().map(move |group| (vni, group))
        });
        told.collect()
    }

    /// Reports that named a group more than [`MAX_GROUPS`].
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Messages that were not what their headers said.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    fn listens(&mut self, now: Duration, id: P, group: IpAddr) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        if port.groups.len() >= MAX_GROUPS && !port.groups.contains_key(&group) {
            self.refused += 1;
            return;
        }
        let listening = Listening { until: now + MEMBERSHIP, ask: None };
        self.quiet_until = self.quiet_until.min(listening.until);
        if port.groups.insert(group, listening).is_none() {
            self.outputs.push_back(Output::Changed(port.vni));
        }
    }

    fn leaves(&mut self, now: Duration, id: P, group: IpAddr) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let Some(listening) = port.groups.get_mut(&group) else { return };
        // Somebody else said so a moment ago: the question is on its way already.
        if listening.until <= now + LAST_MEMBER {
            return;
        }
        *listening = Listening { until: now + LAST_MEMBER, ask: Some(now + PAUSE) };
        self.quiet_until = self.quiet_until.min(now + PAUSE);
        let vni = port.vni;
        self.ask(vni, Some(id), group, PAUSE);
    }

    fn ask(&mut self, vni: u32, port: Option<P>, group: IpAddr, within: Duration) {
        let some = (!group.is_unspecified()).then_some(group);
        let frame = match group {
            IpAddr::V4(group) => igmp::query(some.map(|_| group), within),
            IpAddr::V6(group) => mld::query(some.map(|_| group), within),
        };
        self.outputs.push_back(Output::Query { vni, port, frame });
    }
}

#[cfg(test)]
mod tests;
