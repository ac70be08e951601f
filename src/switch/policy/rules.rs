//! The allow-list of a network: what may pass between addresses, when not everything may.
//!
//! A rule says who may begin what with whom: *from* some addresses *to* some others by some protocols and ports. Control resolves
//! names and labels to addresses; here each address has two sets of rules as bits, those that it is in *from* of and those
//! that it is in *to* of. A packet is decided by two look-ups and an AND of a few words, however many rules and addresses
//! there are:
//!
//! ```text
//!   there:  from(source) & to(destination)   ─► does one of these rules allow what the packet asks?
//!   back:   from(destination) & to(source)   ─► which of them it answers?                   (wire/ports.rs)
//! ```
//!
//! Nothing is remembered of packets that passed. So both hosts come to one verdict, a daemon that restarts cuts no
//! connection, and there is no table to fill. The price: whoever may be asked can send anything from the port it is asked at,
//! for TCP all but the beginning of a connection.
//!
//! What is outside of the network's subnets is reached through hosts, and only there: an address counts as outside if the frame
//! that has it comes from a host or goes to one. A container may give itself any address.
//!
//! What a network needs to work passes always: ARP, neighbour discovery, IGMP, MLD, ICMP errors, and what is for the service address.
//! What has no IP addresses passes if everybody may send everything to everybody.

use crate::switch::counters::{Counter, Drop};
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use crate::wire::packet::{Content, ICMP, ICMPV6, IGMP, Packet, Transport};
use crate::wire::ports::{MAX_RULES, Ports};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::{BitAnd, BitOr};
use std::sync::Arc;

const WORDS: usize = MAX_RULES / 64;

/// A set of rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bits([u64; WORDS]);

impl Bits {
    /// Adds the rule with this number.
    pub fn insert(&mut self, rule: usize) {
        if let Some(word) = self.0.get_mut(rule / 64) {
            *word |= 1 << (rule % 64);
        }
    }

    /// The numbers in it.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }
}

impl BitAnd for Bits {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }
}

impl BitOr for Bits {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }
}

/// In which rules an address is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sides {
    /// As one that begins.
    pub from: Bits,
    /// As one that is asked.
    pub to: Bits,
}

impl BitOr for Sides {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self { from: self.from | other.from, to: self.to | other.to }
    }
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// What it allows.
    pub ports: Box<[Ports]>,
    /// Frames that passed by it. Shared with the rule of the next topology that says the same.
    pub hits: Arc<Counter>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    known: HashMap<IpAddr, (Mac, Sides)>,
    prefixes: Vec<(Cidr, Sides)>,
    anybody: Sides,
    /// The network's own prefixes, and the rules in which what is beyond them is.
    subnets: Vec<Cidr>,
    beyond: Sides,
    /// Through whom that is reached.
    hosts: HashSet<Mac>,
    service: Vec<IpAddr>,
}

impl Rules {
    /// Rules in which nobody is yet; at most [`MAX_RULES`] of them count. `subnets` are the network's, `service` the addresses
    /// at which it answers itself.
    pub fn new(rules: Vec<Rule>, subnets: Vec<Cidr>, service: Vec<IpAddr>) -> Self {
        Self { rules, subnets, service, ..Self::default() }
    }

    /// Everybody is in these.
    pub fn add_anybody(&mut self, sides: Sides) {
        self.anybody = self.anybody | sides;
    }

    /// Whoever is not in the network's subnets, behind a host, is in these.
    pub fn add_beyond(&mut self, sides: Sides) {
        self.beyond = self.beyond | sides;
    }

    /// Frames from and to this MAC address may have come from, or be going, beyond the subnets.
    pub fn add_host(&mut self, mac: Mac) {
        self.hosts.insert(mac);
    }

    /// All addresses of a prefix are in these.
    pub fn add_prefix(&mut self, prefix: Cidr, sides: Sides) {
        match self.prefixes.iter_mut().find(|(known, _)| *known == prefix) {
            Some((_, known)) => *known = *known | sides,
            None => self.prefixes.push((prefix, sides)),
        }
    }

    /// A station that is known has this address, and is in these rules besides those that follow from the address. Prefixes are
    /// added before. Returns all of them.
    pub fn add_station(&mut self, address: IpAddr, owner: Mac, sides: Sides) -> Sides {
        let sides = sides | self.by_prefix(address);
        self.known.insert(address, (owner, sides));
        sides
    }

    fn by_prefix(&self, address: IpAddr) -> Sides {
        let prefixes = self.prefixes.iter().filter(|(prefix, _)| prefix.contains(address));
        prefixes.fold(self.anybody, |sides, (_, more)| sides | *more)
    }

    /// Whether an address is one that hosts pass on, and outside of the subnets. Without subnets nothing is.
    fn is_beyond(&self, address: IpAddr) -> bool {
        let stays = match address {
            IpAddr::V4(v4) => v4.is_unspecified() || v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
        };
        let is_within = |subnet: &Cidr| subnet.contains(address);
        !(self.subnets.is_empty() || stays || address.is_multicast() || self.subnets.iter().any(is_within))
    }

    /// What is known of an address in a frame that comes from this station, or goes to it.
    fn lookup(&self, address: IpAddr, station: Mac) -> (Option<Mac>, Sides) {
        match self.known.get(&address) {
            Some(&(owner, sides)) => (Some(owner), sides),
            None => {
                let sides = self.by_prefix(address);
                let is_beyond = self.beyond != Sides::default() && self.is_beyond(address);
                (None, if is_beyond && self.hosts.contains(&station) { sides | self.beyond } else { sides })
            }
        }
    }

    /// Whether a frame with this content may pass from one station to another. Who sends it, where that is for us to say
    /// (`guarded`), must not use an address that is known to be another's.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, content: &Content, [from, to]: [Mac; 2], guarded: bool) -> Result<(), Drop> {
        let packet = match content {
            Content::Arp(_) => return Ok(()),
            Content::Unreadable => return Err(Drop::Unreadable),
            Content::Other => return self.check_other(),
            Content::Ip(packet) if is_needed(packet) || self.service.contains(&packet.destination) => return Ok(()),
            Content::Ip(packet) => packet,
        };
        let (owner, source) = self.lookup(packet.source, from);
        if guarded && owner.is_some_and(|owner| owner != from) {
            return Err(Drop::SpoofedAddress);
        }
        let (_, destination) = self.lookup(packet.destination, to);
        let passes = |rules: Bits, test: fn(&Ports, &Packet) -> bool| {
            let mut rules = rules.iter().filter_map(|at| self.rules.get(at));
            rules.find(|rule| rule.ports.iter().any(|ports| test(ports, packet)))
        };
        let there = passes(source.from & destination.to, Ports::asks);
        let rule = there.or_else(|| passes(destination.from & source.to, Ports::answers));
        match rule {
            Some(rule) => {
                rule.hits.add(1);
                Ok(())
            }
            None => Err(Drop::NotAllowed),
        }
    }

    #[cold]
    fn check_other(&self) -> Result<(), Drop> {
        let everything = |rule: &&Rule| rule.ports.contains(&Ports::Any);
        let all = (self.anybody.from & self.anybody.to).iter().filter_map(|at| self.rules.get(at));
        let rule = all.into_iter().find(everything).ok_or(Drop::NotAllowed)?;
        rule.hits.add(1);
        Ok(())
    }
}

/// Whether a network needs a packet to work at all.
fn is_needed(packet: &Packet) -> bool {
    match (packet.protocol, packet.transport) {
        (IGMP, _) | (_, Transport::Neighbour { .. }) => true,
        // Unreachable, time exceeded, parameter problem.
        (ICMP, Transport::Icmp { kind: 3 | 11 | 12 }) => true,
        // The same and packet too big; multicast listeners.
        (ICMPV6, Transport::Icmp { kind: 1..=4 | 130..=132 | 143 }) => true,
        _ => false,
    }
}
