//! Hosts with the real mesh value, tunnels that follow the data plane's rules, gates, and wires in virtual time.
//!
//! Control is played as the daemon plays it: a look at the tunnels and a tick of the mesh every 250 ms, and what the mesh asks
//! for done at once. Handshakes are three messages without cryptography.

use crate::nat::Gate;
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft::mesh::paths::{Kind, RelayRoute, Source};
use weft::mesh::{Link, Mesh, Output};
use weft::wire::{WIREGUARD_OVERHEAD, way};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);
/// Inner IPv4 and UDP headers in front of a message.
const HEADERS: usize = 28;
/// How long a held tunnel ignores frames from elsewhere.
const HOLD: Duration = SECOND;

type Pair = (usize, usize);

/// One direction of a wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub delay: Duration,
    pub jitter: Duration,
    /// Of a hundred packets.
    pub loss: u64,
    pub mtu: usize,
    pub up: bool,
}

impl Wire {
    pub(crate) const fn of(delay: Duration) -> Self {
        Self { delay, jitter: Duration::ZERO, loss: 0, mtu: 1500, up: true }
    }
}

#[derive(Debug, Clone)]
enum Payload {
    Initiation(u32),
    Response,
    Message(Vec<u8>),
    Frame,
}

#[derive(Debug)]
enum Event {
    Tick(usize),
    /// A frame of the first for the second.
    Send(usize, usize),
    Arrive {
        to: usize,
        by: usize,
        from: SocketAddr,
        payload: Payload,
    },
    Stream(usize, usize),
}

/// A tunnel as the data plane keeps it, and what control last saw of it.
#[derive(Debug, Default)]
pub(crate) struct Tunnel {
    pub up: bool,
    pub endpoint: Option<SocketAddr>,
    chosen: Option<Duration>,
    heard_at: Option<Duration>,
    called: Option<Duration>,
    answered: Option<u32>,
    seen_endpoint: Option<SocketAddr>,
    sent_frames: bool,
    got_frames: bool,
    heard: bool,
    /// When frames of the peer arrived.
    pub arrivals: Vec<Duration>,
    /// What control chose, and when.
    pub choices: Vec<(Duration, SocketAddr)>,
}

pub(crate) struct Host {
    pub mesh: Mesh<usize>,
    pub addresses: Vec<SocketAddr>,
    /// Hosts of a site share a gate and reach each other behind it.
    pub site: usize,
    pub udp_blocked: bool,
    pub tunnels: BTreeMap<usize, Tunnel>,
}

pub(crate) struct World {
    pub now: Duration,
    pub hosts: Vec<Host>,
    pub gates: BTreeMap<usize, Gate>,
    pub rng: Rng,
    events: BTreeMap<(Duration, u64), Event>,
    next: u64,
    /// Between the gates; without an entry, `wire`.
    pub wires: BTreeMap<Pair, Wire>,
    pub wire: Wire,
    /// Ways through other members, and what membership says of them.
    pub relays: BTreeMap<Pair, (Wire, Option<RelayRoute>)>,
    pub tcp: bool,
    streams: BTreeMap<u32, Pair>,
    /// Whom frames are sent to, and how often.
    pub talks: BTreeMap<Pair, Duration>,
    /// Messages of the mesh sent: when, by whom, bytes on the wire.
    pub messages: Vec<(Duration, usize, usize)>,
    pub stream_wishes: u32,
    /// Whether members learn each other's addresses from the mesh.
    pub gossip: bool,
    /// What one direction takes longer, by family.
    pub slow_v4: Duration,
    pub slow_v6: Duration,
    /// Whether hosts of one site do not reach each other inside.
    pub apart: bool,
}

pub(crate) fn tunnel_address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 0, 1 + host as u8)
}

pub(crate) fn relayed(host: usize) -> SocketAddr {
    SocketAddr::from((tunnel_address(host), 0))
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    /// Hosts with these addresses, each a site of its own.
    pub(crate) fn new(seed: u64, addresses: &[&[&str]]) -> Self {
        let mut rng = Rng::new(seed);
        let host = |(n, texts): (usize, &&[&str])| {
            let addresses: Vec<SocketAddr> = texts.iter().map(|text| address(text)).collect();
            let mut mesh = Mesh::new(rng.next(), 0);
            mesh.set_local(&addresses);
            Host { mesh, addresses, site: n, udp_blocked: false, tunnels: BTreeMap::new() }
        };
        let hosts: Vec<Host> = addresses.iter().enumerate().map(host).collect();
        let mut world = Self {
            now: SECOND * 100,
            hosts,
            gates: BTreeMap::new(),
            rng,
            events: BTreeMap::new(),
            next: 0,
            wires: BTreeMap::new(),
            wire: Wire::of(MS * 10),
            relays: BTreeMap::new(),
            tcp: false,
            streams: BTreeMap::new(),
            talks: BTreeMap::new(),
            messages: Vec::new(),
            stream_wishes: 0,
            gossip: true,
            apart: false,
            slow_v4: Duration::ZERO,
            slow_v6: Duration::ZERO,
        };
        for a in 0..world.hosts.len() {
            let phase = world.rng.range(0..250) as u32;
            world.at(MS * phase, Event::Tick(a));
            for b in (0..world.hosts.len()).filter(|b| *b != a) {
                let link =
                    Link { ours: tunnel_address(a), theirs: tunnel_address(b), path_mtu: None, endpoint: None };
                world.hosts[a].mesh.add_peer(b, link);
                world.hosts[a].tunnels.insert(b, Tunnel::default());
            }
        }
        world
    }

    /// Both directions carry frames this often.
    pub(crate) fn talk(&mut self, a: usize, b: usize, every: Duration) {
        for (from, to) in [(a, b), (b, a)] {
            self.talk_one_way(from, to, every);
        }
    }

    pub(crate) fn talk_one_way(&mut self, from: usize, to: usize, every: Duration) {
        if self.talks.insert((from, to), every).is_none() {
            self.at(Duration::ZERO, Event::Send(from, to));
        }
    }

    /// A member between `a` and `b` relays.
    pub(crate) fn relay(&mut self, a: usize, b: usize, wire: Wire) {
        for (from, to) in [(a, b), (b, a)] {
            let route =
                RelayRoute { way: relayed(to), cost: 1, hops: 1, limit: 1380, preferred: false, over_stream: false };
            self.relays.insert((from, to), (wire, Some(route)));
        }
    }

    /// Changes the wire between two hosts, both directions.
    pub(crate) fn set_wire(&mut self, a: usize, b: usize, change: impl Fn(&mut Wire)) {
        for pair in [(a, b), (b, a)] {
            let mut wire = *self.wires.get(&pair).unwrap_or(&self.wire);
            change(&mut wire);
            self.wires.insert(pair, wire);
        }
    }

    pub(crate) fn kind(&self, a: usize, b: usize) -> Option<Kind> {
        self.hosts[a].tunnels[&b].endpoint.map(|way| Kind::of(way, tunnel_address(b)))
    }

    pub(crate) fn tunnel(&self, a: usize, b: usize) -> &Tunnel {
        &self.hosts[a].tunnels[&b]
    }

    /// The longest pause in the frames of `a` that reach `b`, from `since` to this moment.
    pub(crate) fn longest_pause(&self, a: usize, b: usize, since: Duration) -> Duration {
        let arrivals = self.tunnel(b, a).arrivals.iter().copied().filter(|at| *at >= since);
        let points: Vec<Duration> = std::iter::once(since).chain(arrivals).chain([self.now]).collect();
        points.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    /// How often `a` changed its way to `b` since then.
    pub(crate) fn changes(&self, a: usize, b: usize, since: Duration) -> usize {
        self.tunnel(a, b).choices.iter().filter(|(at, _)| *at > since).count()
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }

    /// Runs until something is so; returns how long that took, or panics at the deadline.
    pub(crate) fn wait(&mut self, within: Duration, what: &str, done: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        let end = began + within;
        assert!(self.run_until(end, &done), "not within {within:?}: {what}\n{}", self.picture());
        self.now - began
    }

    fn run_until(&mut self, end: Duration, done: impl Fn(&Self) -> bool) -> bool {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
            if done(self) {
                return true;
            }
        }
        self.now = end;
        false
    }

    /// What every host thinks of its ways, for messages of failed tests.
    pub(crate) fn picture(&self) -> String {
        let mut text = String::new();
        for (a, host) in self.hosts.iter().enumerate() {
            for b in host.tunnels.keys() {
                text += &format!("{a} to {b} via {:?}: {:#?}\n", host.tunnels[b].endpoint, host.mesh.paths(*b));
            }
        }
        text
    }

    fn at(&mut self, from_now: Duration, event: Event) {
        self.next += 1;
        self.events.insert((self.now + from_now, self.next), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(host) => {
                self.control(host);
                self.at(TICK, Event::Tick(host));
            }
            Event::Send(from, to) => {
                let Some(&every) = self.talks.get(&(from, to)) else { return };
                self.at(every, Event::Send(from, to));
                let tunnel = self.hosts[from].tunnels.get_mut(&to).unwrap();
                if let Some(way) = tunnel.endpoint.filter(|_| tunnel.up) {
                    tunnel.sent_frames = true;
                    self.transmit(from, to, way, Payload::Frame, 1400);
                } else {
                    self.call(from, to);
                }
            }
            Event::Arrive { to, by, from, payload } => self.arrive(to, by, from, payload),
            Event::Stream(a, b) => {
                let number = self.streams.len() as u32 + 1;
                self.streams.insert(number, (a, b));
                for (host, peer) in [(a, b), (b, a)] {
                    self.hosts[host].mesh.stream_up(self.now, peer, way::stream(number));
                    self.drain(host);
                }
            }
        }
    }

    /// Tries to begin a session, as often as WireGuard does.
    fn call(&mut self, from: usize, to: usize) {
        let now = self.now;
        let ways = self.hosts[from].mesh.handshake_candidates(to);
        let tunnel = self.hosts[from].tunnels.get_mut(&to).unwrap();
        if tunnel.up || tunnel.called.is_some_and(|at| now - at < SECOND * 5) || ways.is_empty() {
            return;
        }
        tunnel.called = Some(now);
        let attempt = self.rng.next() as u32;
        for way in ways {
            self.transmit(from, to, way, Payload::Initiation(attempt), 148);
        }
    }

    fn control(&mut self, a: usize) {
        let now = self.now;
        let peers: Vec<usize> = self.hosts[a].tunnels.keys().copied().collect();
        for b in peers {
            if self.gossip {
                let other = &self.hosts[b];
                let observed = other.mesh.observed().to_vec();
                let announced = other.addresses.clone();
                let mesh = &mut self.hosts[a].mesh;
                mesh.set_candidates(now, b, Source::Observed, &observed);
                mesh.set_candidates(now, b, Source::Announced, &announced);
            }
            let route = self.relays.get(&(a, b)).and_then(|(_, route)| *route);
            let host = &mut self.hosts[a];
            host.mesh.set_relay(now, b, route);
            let tunnel = host.tunnels.get_mut(&b).unwrap();
            if tunnel.endpoint != tunnel.seen_endpoint {
                tunnel.seen_endpoint = tunnel.endpoint;
                host.mesh.rerouted(now, b, tunnel.endpoint);
            }
            if tunnel.up {
                host.mesh.session_up(now, b);
            } else {
                host.mesh.session_down(b);
                if self.talks.contains_key(&(a, b)) {
                    host.mesh.trying(now, b);
                }
            }
            if std::mem::take(&mut tunnel.sent_frames) {
                host.mesh.used(now, b);
            }
            let frames = std::mem::take(&mut tunnel.got_frames);
            if std::mem::take(&mut tunnel.heard)
                && let Some(way) = tunnel.endpoint
            {
                host.mesh.heard(now, b, way, frames);
            }
        }
        self.hosts[a].mesh.tick(now);
        self.drain(a);
    }

    /// Does what the mesh of a host asks for.
    pub(crate) fn drain(&mut self, a: usize) {
        while let Some(output) = self.hosts[a].mesh.poll_output() {
            match output {
                Output::Send { peer, packet, via, .. } => {
                    let tunnel = &self.hosts[a].tunnels[&peer];
                    if let Some(way) = via.or(tunnel.endpoint)
                        && tunnel.up
                    {
                        self.messages.push((self.now, a, packet.len() + WIREGUARD_OVERHEAD + 28));
                        let size = packet.len();
                        self.transmit(a, peer, way, Payload::Message(packet[HEADERS..].to_vec()), size);
                    }
                }
                Output::Choose { peer, way } => {
                    let now = self.now;
                    let tunnel = self.hosts[a].tunnels.get_mut(&peer).unwrap();
                    if tunnel.endpoint != Some(way) {
                        (tunnel.endpoint, tunnel.heard_at) = (Some(way), None);
                        tunnel.choices.push((now, way));
                    }
                    tunnel.chosen = Some(now);
                    // Control knows what it did itself.
                    tunnel.seen_endpoint = tunnel.endpoint;
                }
                Output::Release { peer } => self.hosts[a].tunnels.get_mut(&peer).unwrap().chosen = None,
                Output::WantStream { peer } => {
                    self.stream_wishes += 1;
                    if self.tcp && !self.streams.values().any(|&pair| pair == (a, peer) || pair == (peer, a)) {
                        self.at(MS * 100, Event::Stream(a, peer));
                    }
                }
                Output::Changed { .. } | Output::Observed | Output::Answered { .. } => {}
            }
        }
    }

    /// All TCP connections break.
    pub(crate) fn break_streams(&mut self) {
        self.tcp = false;
        for (number, (a, b)) in std::mem::take(&mut self.streams) {
            for (host, peer) in [(a, b), (b, a)] {
                self.hosts[host].mesh.stream_down(self.now, peer, way::stream(number));
                self.drain(host);
            }
        }
    }

    fn transmit(&mut self, a: usize, b: usize, to: SocketAddr, payload: Payload, size: usize) {
        let (wire, from, size) = if to == relayed(b) {
            let Some((wire, _)) = self.relays.get(&(a, b)) else { return };
            (*wire, relayed(a), size + WIREGUARD_OVERHEAD + HEADERS)
        } else if let Some(number) = way::stream_of(&to) {
            let Some(&pair) = self.streams.get(&number) else { return };
            assert!(pair == (a, b) || pair == (b, a));
            let wire = *self.wires.get(&(a, b)).unwrap_or(&self.wire);
            // What is lost comes later.
            (Wire { loss: 0, mtu: usize::MAX, delay: wire.delay * 2, up: true, ..wire }, to, size)
        } else {
            let Some((from, receiver)) = self.underlay(a, to) else { return };
            // Whoever else is there takes it for noise.
            if receiver != b {
                return;
            }
            let near = self.hosts[a].site == self.hosts[b].site;
            let wire = *self.wires.get(&(a, b)).unwrap_or(&self.wire);
            let wire = if near { Wire::of(MS) } else { wire };
            let overhead = if to.is_ipv4() { 28 } else { 48 };
            let slow = if to.is_ipv4() { self.slow_v4 } else { self.slow_v6 };
            let wire = Wire { delay: wire.delay + slow, ..wire };
            (wire, from, size + overhead + WIREGUARD_OVERHEAD)
        };
        if !wire.up || size > wire.mtu || self.rng.range(0..100) < wire.loss as usize {
            return;
        }
        let jitter = self.rng.range(0..1 + wire.jitter.as_micros() as usize) as u32;
        let delay = wire.delay + Duration::from_micros(jitter.into());
        self.at(delay, Event::Arrive { to: b, by: a, from, payload });
    }

    /// Which host gets a datagram, and where it seems to come from.
    fn underlay(&mut self, a: usize, to: SocketAddr) -> Option<(SocketAddr, usize)> {
        let now = self.now;
        let sender = &self.hosts[a];
        if sender.udp_blocked {
            return None;
        }
        let own = *sender.addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4())?;
        let site = sender.site;
        let inside = |site: usize, to: SocketAddr, hosts: &[Host]| {
            hosts.iter().position(|host| host.site == site && host.addresses.contains(&to))
        };
        if let Some(neighbour) = inside(site, to, &self.hosts) {
            return (!self.apart).then_some((own, neighbour));
        }
        let hairpin = self.gates.get(&site).is_some_and(|gate| gate.outside == Some(to.ip()) && !gate.hairpin);
        if hairpin {
            return None;
        }
        let from = match self.gates.get_mut(&site) {
            Some(gate) => gate.outward(now, own, to),
            None => own,
        };
        // The site whose outside this is.
        let behind = |gate: &Gate| gate.outside == Some(to.ip());
        let translated = self.gates.iter().find(|(_, gate)| behind(gate)).map(|(site, _)| *site);
        let (site, to) = match translated {
            Some(site) => (site, self.gates[&site].inward(now, from, to)?),
            None => {
                let receiver = self.hosts.iter().position(|host| host.addresses.contains(&to))?;
                let site = self.hosts[receiver].site;
                match self.gates.get(&site) {
                    // Private addresses mean nothing outside.
                    Some(gate) if gate.outside.is_some() => return None,
                    Some(gate) => (site, gate.inward(now, from, to)?),
                    None => (site, to),
                }
            }
        };
        let receiver = inside(site, to, &self.hosts)?;
        (!self.hosts[receiver].udp_blocked).then_some((from, receiver))
    }

    fn arrive(&mut self, to: usize, by: usize, from: SocketAddr, payload: Payload) {
        let now = self.now;
        let host = &mut self.hosts[to];
        let tunnel = host.tunnels.get_mut(&by).unwrap();
        match payload {
            Payload::Initiation(attempt) => {
                if tunnel.answered == Some(attempt) {
                    return;
                }
                tunnel.answered = Some(attempt);
                self.transmit(to, by, from, Payload::Response, 92);
                return;
            }
            Payload::Response => {
                if !tunnel.up {
                    tunnel.endpoint = Some(from);
                    tunnel.up = true;
                    self.control(to);
                    // The first keepalive makes it live on the other side.
                    self.transmit(to, by, from, Payload::Frame, 32);
                }
                return;
            }
            Payload::Message(_) | Payload::Frame => {}
        }
        if !tunnel.up {
            (tunnel.up, tunnel.endpoint) = (true, Some(from));
        }
        if tunnel.endpoint != Some(from) {
            let silent = |at: Duration| now.saturating_sub(at) >= HOLD;
            let message = matches!(payload, Payload::Message(_));
            let heard_at = tunnel.heard_at;
            let held =
                tunnel.chosen.is_some_and(|chosen| message || !silent(heard_at.map_or(chosen, |at| at.max(chosen))));
            if !held {
                tunnel.chosen = tunnel.chosen.map(|_| now);
                tunnel.endpoint = Some(from);
            }
        }
        if tunnel.endpoint == Some(from) {
            tunnel.heard_at = Some(now);
            tunnel.heard = true;
        }
        match payload {
            Payload::Frame => {
                tunnel.arrivals.push(now);
                tunnel.got_frames = true;
            }
            Payload::Message(bytes) => {
                host.mesh.input(now, by, from, &bytes);
                self.drain(to);
            }
            _ => {}
        }
    }

    /// A host sends from other addresses: it moved.
    pub(crate) fn move_host(&mut self, host: usize, addresses: &[&str]) {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|text| address(text)).collect();
        self.hosts[host].mesh.set_local(&addresses);
        self.hosts[host].addresses = addresses;
    }

    /// A NAT in front of a host, with this public address.
    pub(crate) fn put_behind(&mut self, host: usize, gate: Gate) {
        self.gates.insert(self.hosts[host].site, gate);
    }

    pub(crate) fn lift_gate(&mut self, host: usize) {
        self.gates.remove(&self.hosts[host].site);
    }

    /// Bytes and messages of the mesh each second since then, on the average, of one host.
    pub(crate) fn traffic(&self, host: usize, since: Duration) -> (f64, f64) {
        let seconds = (self.now - since).as_secs_f64();
        let sent = self.messages.iter().filter(|(at, by, _)| *at >= since && *by == host);
        let (count, bytes) = sent.fold((0, 0), |(count, bytes), (_, _, size)| (count + 1, bytes + size));
        (bytes as f64 / seconds, count as f64 / seconds)
    }
}

/// An address outside, of the gate of host `n`.
pub(crate) fn outside(n: usize) -> IpAddr {
    IpAddr::from([198, 51, 100, n as u8])
}
