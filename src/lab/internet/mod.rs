//! What carries packets between the sites of a [`Topology`], as a value: frames of hosts and `now` go in, frames for
//! hosts and the next deadline come out.
//!
//! ```text
//!   frame of a host ─► segment ─► box: firewall, NAT ─► line up ┐
//!                        │ same site                            ├─ core: which site has this address?
//!   frame for a host ◄───┴─────── box: NAT, firewall ◄── line down ┘
//! ```
//!
//! What happens at the far box happens when the packet gets there: two hosts that punch their NATs at the same moment
//! meet the holes that the other has made in the meantime. Each box is a hop. What a router would have to cut is lost,
//! and what has no ports (fragments, ICMP errors) does not pass a NAT; the counters say how often.

pub mod firewall;
pub mod nat;
mod neighbours;
pub mod packet;

#[cfg(test)]
mod tests;

use super::line::Line;
use super::link::{Delivery, LinkCounts, Random};
use super::topology::{self, Middlebox, Topology};
use super::wire::Medium;
use crate::wire::ethernet::{Frame, IPV4, IPV6, Mac};
use firewall::{Firewall, From, Passage};
use nat::{Nat, Protocol, Refusal};
use neighbours::Question;
use packet::{Content, Packet};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Instant;

/// Bytes that may be under way at once: a second of 1 Gbit/s.
const MAX_QUEUED_BYTES: usize = 128 << 20;

/// What became of packets, beside what the lines did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The lines, and what was cut or too large.
    pub lines: LinkCounts,
    /// Nobody has the address.
    pub unroutable: u64,
    /// Too many hops.
    pub expired: u64,
    /// A firewall refused it.
    pub blocked: u64,
    /// A NAT had no such mapping.
    pub unmapped: u64,
    /// A NAT had one, for other remotes.
    pub filtered: u64,
    /// A NAT had no room, or cannot translate such a packet.
    pub untranslated: u64,
}

/// The MAC address of host `h`'s `eth0`.
pub fn host_mac(h: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, h as u8])
}

/// The MAC address of site `site`'s box.
fn box_mac(site: usize) -> Mac {
    Mac([2, 0, 0, 0, 2, site as u8])
}

/// What a site has that remembers.
#[derive(Debug, Default)]
struct Gate {
    nat: Option<Nat>,
    firewall: Firewall,
    up: Line,
    down: Line,
}

/// Something under way.
#[derive(Debug)]
enum Flight {
    /// To a host.
    Frame(Delivery),
    /// To the core.
    Core(Sent),
    /// To the box of this site.
    Site(usize, Sent),
}

/// A packet that left its site.
#[derive(Debug)]
struct Sent {
    packet: Packet,
    /// The host that sent it.
    by: usize,
    /// Its source before it was translated.
    inside: Option<SocketAddrV4>,
}

/// A routed underlay.
#[derive(Debug)]
pub struct Internet {
    topology: Topology,
    gates: Vec<Gate>,
    random: Random,
    /// By time of arrival, then by order of entry.
    queue: BTreeMap<(Instant, u64), Flight>,
    queued_bytes: usize,
    entered: u64,
    counts: Counts,
}

impl Internet {
    /// An internet on which nothing is under way.
    pub fn new(topology: Topology) -> Self {
        let mut internet = Self {
            gates: Vec::new(),
            random: Random(topology.seed),
            queue: BTreeMap::new(),
            queued_bytes: 0,
            entered: 0,
            counts: Counts::default(),
            topology,
        };
        internet.rebuild();
        internet
    }

    /// What it is like now.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Changes what it is like. A NAT whose settings change forgets its mappings; a firewall remembers its flows. Hosts
    /// that are given another place still have the addresses of the old one: [`crate::lab::Lab::relocate`] changes both.
    pub fn change(&mut self, change: impl FnOnce(&mut Topology)) {
        change(&mut self.topology);
        self.rebuild();
    }

    /// What became of packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Brings the gates in line with the topology.
    fn rebuild(&mut self) {
        self.gates.resize_with(self.topology.sites.len(), Gate::default);
        for (at, (gate, site)) in self.gates.iter_mut().zip(&self.topology.sites).enumerate() {
            let Middlebox { nat, firewall } = &site.middlebox;
            if gate.nat.as_ref().map(Nat::settings) != nat.as_ref() {
                let seed = self.random.next_u64();
                gate.nat = nat.clone().map(|settings| Nat::new(topology::outside(at + 1), settings, seed));
            }
            gate.firewall.set(firewall.clone());
        }
    }

    /// A packet for a box, from host `h` of its site: out of the site, or back in.
    fn leave(&mut self, now: Instant, h: usize, site: usize, mut packet: Packet) {
        if !packet.hop() {
            self.counts.expired += 1;
            return;
        }
        let (content, destination) = (packet.content(), packet.destination());
        let hairpin = self.gates[site - 1].nat.as_ref().is_some_and(|nat| destination == IpAddr::V4(nat.address()));
        if hairpin {
            if self.turn(now, site, &mut packet).is_some() {
                self.arrive(now, site, &packet, h);
            }
            return;
        }
        if !self.passes(now, site, From::Inside, content) {
            return;
        }
        let mut inside = None;
        if self.gates[site - 1].nat.is_some() && packet.is_v4() {
            let Content::Flow(protocol, SocketAddr::V4(from), SocketAddr::V4(to)) = content else {
                self.counts.untranslated += 1;
                return;
            };
            let Some(outside) = self.translate(now, site, protocol, from, to) else { return };
            packet.set_source(outside);
            inside = Some(from);
        }
        let sent = Sent { packet, by: h, inside };
        self.pass(now, site, true, sent);
    }

    /// Puts a packet on a site's line, up to the core or down to the box.
    fn pass(&mut self, now: Instant, site: usize, up: bool, sent: Sent) {
        let (place, gate) = (&self.topology.sites[site - 1], &mut self.gates[site - 1]);
        let size = sent.packet.bytes().len();
        let own = usize::from(place.mtu);
        let most = place.line.max_packet.map_or(own, |most| most.min(own));
        if size > most {
            self.counts.lines.too_large += 1;
            if place.icmp && sent.packet.whole() {
                self.tell(now, &sent, most);
            }
            return;
        }
        let line = if up { &mut gate.up } else { &mut gate.down };
        let arrivals = line.pass(now, size, &place.line, &mut self.random, &mut self.counts.lines);
        for arrival in arrivals {
            let copy = Sent { packet: sent.packet.clone(), ..sent };
            self.enter(arrival, if up { Flight::Core(copy) } else { Flight::Site(site, copy) });
        }
    }

    /// Tells whoever sent a packet what size passes, in its own words: as if every NAT on the way back translated the
    /// error.
    fn tell(&mut self, now: Instant, sent: &Sent, mtu: usize) {
        let mut own = sent.packet.clone();
        if let Some(inside) = sent.inside {
            own.set_source(inside);
        }
        let Some(site) = self.topology.site_of(sent.by) else { return };
        let gateways = self.topology.addresses(sent.by);
        let v4 = gateways.v4.and_then(|(_, gateway)| Some(IpAddr::V4(gateway?)));
        let router = if own.is_v4() { v4 } else { gateways.v6.and_then(|(_, gateway)| Some(IpAddr::V6(gateway?))) };
        if let Some(error) = router.and_then(|router| own.too_big(router, mtu)) {
            self.hand(now, site, sent.by, &error);
        }
    }

    /// What the core does: finds the site.
    fn forward(&mut self, now: Instant, sent: Sent) {
        match self.site_at(sent.packet.destination()) {
            Some(site) => self.pass(now, site, false, sent),
            None => self.counts.unroutable += 1,
        }
    }

    /// The site that an address leads to.
    fn site_at(&self, address: IpAddr) -> Option<usize> {
        let is_here = |(at, gate): (usize, &Gate)| {
            let IpAddr::V4(_) = address else { return self.host_at(at + 1, address).is_some() };
            match &gate.nat {
                Some(nat) => address == IpAddr::V4(nat.address()),
                None => self.host_at(at + 1, address).is_some(),
            }
        };
        (0..).zip(&self.gates).position(is_here).map(|at| at + 1)
    }

    /// The host of a site that has an address.
    fn host_at(&self, site: usize, address: IpAddr) -> Option<usize> {
        self.topology.sites[site - 1].hosts.iter().copied().find(|&h| {
            let own = self.topology.addresses(h);
            match address {
                IpAddr::V4(address) => own.v4.is_some_and(|(own, _)| own == address),
                IpAddr::V6(address) => own.v6.is_some_and(|(own, _)| own == address),
            }
        })
    }

    /// A packet at the box of the site it is for.
    fn enter_site(&mut self, now: Instant, site: usize, mut sent: Sent) {
        let content = sent.packet.content();
        if let Some(nat) = self.gates[site - 1].nat.as_ref().filter(|_| sent.packet.is_v4()) {
            let Content::Flow(protocol, SocketAddr::V4(from), SocketAddr::V4(to)) = content else {
                self.counts.untranslated += 1;
                return;
            };
            match nat.inbound(now, protocol, to.port(), from) {
                Ok(inside) => sent.packet.set_destination(inside),
                Err(refusal) => return self.refused(refusal),
            }
        }
        if self.passes(now, site, From::Outside, sent.packet.content()) {
            self.arrive(now, site, &sent.packet, sent.by);
        }
    }

    /// A packet from host `by` that its site's box lets in.
    fn arrive(&mut self, now: Instant, site: usize, packet: &Packet, by: usize) {
        let Some(h) = self.host_at(site, packet.destination()) else {
            self.counts.unroutable += 1;
            return;
        };
        if self.topology.apart(by, h) {
            self.counts.lines.cut += 1;
            return;
        }
        let mut packet = packet.clone();
        if !packet.hop() {
            self.counts.expired += 1;
            return;
        }
        self.hand(now, site, h, &packet);
    }

    /// Gives a packet to a host.
    fn hand(&mut self, now: Instant, site: usize, h: usize, packet: &Packet) {
        let ethertype = if packet.is_v4() { IPV4 } else { IPV6 };
        let header = [&host_mac(h).0[..], &box_mac(site).0, &ethertype.to_be_bytes()].concat();
        self.deliver(now, h, &[&header, packet.bytes()].concat());
    }

    fn deliver(&mut self, now: Instant, h: usize, frame: &[u8]) {
        self.enter(now, Flight::Frame(Delivery { to: h - 1, frame: frame.into() }));
    }

    fn enter(&mut self, at: Instant, flight: Flight) {
        if self.queued_bytes + flight.size() > MAX_QUEUED_BYTES {
            self.counts.lines.overflowed += 1;
            return;
        }
        self.entered += 1;
        self.queued_bytes += flight.size();
        self.queue.insert((at, self.entered), flight);
    }

    /// Asks a site's firewall.
    fn passes(&mut self, now: Instant, site: usize, from: From, content: Content) -> bool {
        let firewall = &mut self.gates[site - 1].firewall;
        let passes = match (content, from) {
            (Content::Flow(protocol, inside, outside), From::Inside)
            | (Content::Flow(protocol, outside, inside), From::Outside) => {
                firewall.passes(now, Passage { from, protocol, inside, outside })
            }
            (Content::Error, _) => true,
            (Content::Other, _) => firewall.is_open(),
        };
        self.counts.blocked += u64::from(!passes);
        passes
    }

    /// The source that a site's NAT gives a flow.
    fn translate(
        &mut self,
        now: Instant,
        site: usize,
        protocol: Protocol,
        inside: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Option<SocketAddrV4> {
        let outcome = self.gates[site - 1].nat.as_mut()?.outbound(now, protocol, inside, remote);
        outcome.map_err(|refusal| self.refused(refusal)).ok()
    }

    /// Makes a packet that goes to its own NAT's public address one that comes from there (RFC 4787 REQ-9).
    fn turn(&mut self, now: Instant, site: usize, packet: &mut Packet) -> Option<()> {
        let Content::Flow(protocol, SocketAddr::V4(from), SocketAddr::V4(to)) = packet.content() else {
            self.counts.untranslated += 1;
            return None;
        };
        if !self.gates[site - 1].nat.as_ref()?.settings().hairpin {
            self.counts.filtered += 1;
            return None;
        }
        let outside = self.translate(now, site, protocol, from, to)?;
        let inside = self.gates[site - 1].nat.as_ref()?.inbound(now, protocol, to.port(), outside);
        let inside = inside.map_err(|refusal| self.refused(refusal)).ok()?;
        packet.set_source(outside);
        packet.set_destination(inside);
        Some(())
    }

    fn refused(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::NoMapping => self.counts.unmapped += 1,
            Refusal::Filtered => self.counts.filtered += 1,
            Refusal::Full => self.counts.untranslated += 1,
        }
    }

    /// Whether the box of a site says that an address is at its own MAC address.
    fn answers_for(&self, site: usize, asker: usize, wanted: IpAddr) -> bool {
        let own = self.topology.addresses(asker);
        match wanted {
            IpAddr::V4(wanted) => own.v4.is_some_and(|(_, gateway)| {
                // Public addresses are one prefix, most of which is elsewhere.
                Some(wanted) == gateway
                    || (!self.topology.sites[site - 1].private && self.host_at(site, wanted.into()).is_none())
            }),
            IpAddr::V6(wanted) => own.v6.is_some_and(|(_, gateway)| Some(wanted) == gateway),
        }
    }
}

impl Medium for Internet {
    fn input(&mut self, now: Instant, from: usize, bytes: &[u8]) {
        let h = from + 1;
        let (Ok(frame), Some(site)) = (Frame::parse(bytes), self.topology.site_of(h)) else { return };
        self.counts.lines.received += 1;
        if self.topology.unplugged.contains(&h) {
            self.counts.lines.cut += 1;
            return;
        }
        let to = frame.destination();
        if to.is_group() || to == box_mac(site) {
            if let Some(question) = Question::read(frame) {
                if self.answers_for(site, h, question.wanted) {
                    let answer = question.answer(box_mac(site));
                    answer.into_iter().for_each(|answer| self.deliver(now, h, &answer));
                }
            } else if !to.is_group()
                && let Some(packet) = Packet::parse(frame.payload())
            {
                self.leave(now, h, site, packet);
            }
        }
        let others: Vec<usize> =
            self.topology.sites[site - 1].hosts.iter().copied().filter(|&other| other != h).collect();
        for other in others.into_iter().filter(|&other| to.is_group() || to == host_mac(other)) {
            if self.topology.apart(h, other) {
                self.counts.lines.cut += 1;
            } else {
                self.deliver(now, other, bytes);
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    fn output(&mut self, now: Instant) -> Option<Delivery> {
        loop {
            let entry = self.queue.first_entry()?;
            let due = entry.key().0;
            if due > now {
                return None;
            }
            let flight = entry.remove();
            self.queued_bytes -= flight.size();
            match flight {
                Flight::Frame(delivery) => {
                    self.counts.lines.delivered += 1;
                    return Some(delivery);
                }
                Flight::Core(sent) => self.forward(due, sent),
                Flight::Site(site, sent) => self.enter_site(due, site, sent),
            }
        }
    }
}

impl Flight {
    fn size(&self) -> usize {
        match self {
            Self::Frame(delivery) => delivery.frame.len(),
            Self::Core(sent) | Self::Site(_, sent) => sent.packet.bytes().len(),
        }
    }
}
