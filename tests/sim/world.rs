//! A world of hosts: real switches and real tunnels, between them a network that is a heap of datagrams, and a clock
//! that jumps from one event to the next. Everything follows from a seed.
//!
//! A host is what a daemon is without its I/O: its [`Outbox`] remembers what it would have written to TAPs and sends
//! what it would have sent into the network, where a [`Link`] delays, loses, repeats and reorders it. Datagrams that
//! arrive at one host at one time from one address are given to it in one train, as a socket with UDP_GRO does.

use super::rng::Rng;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weft::switch::allowance::Allowance;
use weft::switch::counters::Drop;
use weft::switch::fdb::Limits;
use weft::switch::ids::{PeerId, Place, PortId};
use weft::switch::policy::Policy;
use weft::switch::service::Service;
use weft::switch::staging::{Merge, Staging};
use weft::switch::topology::{Network, Peer, Port, Topology};
use weft::switch::{Egress, Event, HEADROOM, Switch};
use weft::tunnel::{Engine, Gate, GateSettings, TunnelSettings};
use weft::wire::ethernet::Mac;
use weft::wire::key::{PublicKey, Secret};
use weft::wire::vnet::{self, VnetHeader};
use weft::wire::way;
use weft::wire::{UNDERLAY_OVERHEAD_V4, WIREGUARD_OVERHEAD};

/// How often a daemon ticks its switch.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// As large as a worker's.
const STAGING_BYTES: usize = 640 * 1024;
/// Datagrams in one train.
const TRAIN: usize = 64;
/// Events that are remembered for whoever has to find out what went wrong.
const LOG: usize = 60;

pub(crate) const INITIATION: u8 = 1;
pub(crate) const RESPONSE: u8 = 2;
pub(crate) const COOKIE: u8 = 3;
pub(crate) const DATA: u8 = 4;
/// Length of a data message without data.
pub(crate) const KEEPALIVE_LEN: usize = 32;

/// What the network does to datagrams. The default is a perfect one.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) latency: Duration,
    /// Added to the latency, at random: datagrams overtake one another.
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// Largest outer packet; larger ones vanish without a word.
    pub(crate) mtu: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self { latency: Duration::from_millis(5), jitter: Duration::ZERO, loss: 0.0, duplication: 0.0, mtu: 1500 }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// A frame or super-frame handed to a port.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) port: PortId,
    pub(crate) header: VnetHeader,
    pub(crate) frame: Vec<u8>,
    /// Of how many frames it was merged.
    pub(crate) merged: usize,
}

/// What came out of a switch and was not looked at yet.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) datagrams: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) messages: Vec<(PeerId, Vec<u8>)>,
    /// The way the last of them came.
    pub(crate) came_from: Option<SocketAddr>,
    pub(crate) sessions_up: usize,
    /// Initiations of those who are no peers.
    pub(crate) strangers: Vec<(PublicKey, Vec<u8>)>,
    pub(crate) snooped: Vec<(PortId, Vec<u8>)>,
    /// There is no room for frames for service addresses.
    pub(crate) serves_nothing: bool,
    /// Frames for service addresses.
    pub(crate) served: Vec<Delivery>,
}

impl Egress for Outbox {
    fn deliver(&mut self, port: PortId, pieces: &[IoSlice<'_>]) {
        let header = VnetHeader::parse(pieces[0][..].first_chunk::<{ vnet::LEN }>().unwrap());
        let frame = pieces[1..].iter().flat_map(|piece| piece.iter().copied()).collect();
        self.deliveries.push(Delivery { port, header, frame, merged: pieces.len() - 1 });
    }

    fn transmit(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let mut bytes = vec![0xee; room];
        if let Some(length) = fill(&mut bytes) {
            bytes.truncate(length);
            if !bytes.is_empty() {
                self.datagrams.push((to, bytes));
            }
        }
    }

    fn serve(&mut self, port: &Port, header: VnetHeader, frame: &[u8]) -> bool {
        if !self.serves_nothing {
            self.served.push(Delivery { port: port.id, header, frame: frame.to_vec(), merged: 1 });
        }
        !self.serves_nothing
    }

    fn notify(&mut self, event: Event<'_>) {
        match event {
            Event::Message(peer, from, payload) => {
                self.came_from = Some(from);
                self.messages.push((peer, payload.to_vec()));
            }
            Event::SessionUp(_) => self.sessions_up += 1,
            Event::Stranger { key, datagram, .. } => self.strangers.push((key, datagram.to_vec())),
            Event::Snooped(port, frame) => self.snooped.push((port, frame.to_vec())),
        }
    }
}

/// How two hosts know each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acquaintance {
    pub(crate) keepalive: Option<u16>,
    pub(crate) preshared_key: Option<Secret>,
    /// Where it is said to be; `None` is where it is.
    pub(crate) endpoints: Option<Vec<SocketAddr>>,
    pub(crate) takes_partial: bool,
}

pub(crate) struct Host {
    pub(crate) switch: Switch,
    pub(crate) key: PublicKey,
    /// Its tunnel address.
    pub(crate) address: Ipv4Addr,
    /// Where it sends from.
    pub(crate) endpoint: SocketAddr,
    pub(crate) ports: Vec<Arc<Port>>,
    /// By host.
    pub(crate) peers: BTreeMap<usize, Arc<Peer>>,
    pub(crate) out: Outbox,
    /// Datagrams sent, by message type.
    pub(crate) sent: [usize; 5],
    secret: Secret,
    staging: Staging,
    limits: Limits,
}

impl Host {
    pub(crate) fn dropped(&self, reason: Drop) -> u64 {
        self.switch.counters.dropped(reason)
    }
}

#[derive(Debug)]
enum Next {
    Tick(usize),
    Arrival(Datagram),
}

pub(crate) struct World {
    /// The start.
    epoch: Instant,
    /// Since the start.
    pub(crate) now: Duration,
    pub(crate) rng: Rng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) link: Link,
    /// Pairs of hosts, from and to, between which nothing gets through.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Who passes packets on.
    pub(crate) relays: BTreeSet<usize>,
    /// The next hop of a host to another.
    pub(crate) routes: BTreeMap<(usize, usize), usize>,
    /// The same to another that it has a way to of its own.
    pub(crate) detours: BTreeMap<(usize, usize), usize>,
    /// Everything that was sent, when somebody wants to look.
    pub(crate) capture: Option<Vec<Datagram>>,
    pub(crate) log: VecDeque<String>,
    /// MTU of all ports.
    pub(crate) port_mtu: u16,
    /// What frames may do.
    pub(crate) policy: Option<Arc<Policy>>,
    /// The service addresses of networks, on hosts that answer for them.
    pub(crate) services: BTreeMap<usize, Service>,
    /// Every network's egress port.
    pub(crate) egress: Option<PortId>,
    /// The smallest path MTU since the play began: fragments of then may still wait or be under way.
    pub(crate) narrowest: usize,
    /// Datagrams that were too large for the path.
    pub(crate) too_big: usize,
    /// Whether switches answer for known addresses, and narrow multicast.
    pub(crate) narrow: bool,
    homes: BTreeMap<SocketAddr, usize>,
    heap: BTreeMap<(Duration, u64), Next>,
    serial: u64,
    next_id: u32,
}

thread_local! {
    /// What the tunnels' random bytes come from, in the world of this thread.
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

fn random(bytes: &mut [u8]) {
    let mut rng = Rng::new(RANDOM.get());
    bytes.iter_mut().for_each(|byte| *byte = rng.next() as u8);
    RANDOM.set(rng.next());
}

fn inner_limit(mtu: usize) -> usize {
    mtu - UNDERLAY_OVERHEAD_V4 - WIREGUARD_OVERHEAD
}

/// The first address of host `n`.
pub(crate) fn endpoint(n: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n as u8 + 1], 51820))
}

impl World {
    pub(crate) fn new(seed: u64, hosts: usize) -> Self {
        RANDOM.set(seed);
        let mut world = Self {
            epoch: Instant::now(),
            now: Duration::ZERO,
            rng: Rng::new(seed),
            hosts: Vec::new(),
            link: Link::default(),
            cut: BTreeSet::new(),
            relays: BTreeSet::new(),
            routes: BTreeMap::new(),
            detours: BTreeMap::new(),
            capture: None,
            log: VecDeque::new(),
            port_mtu: 1500,
            services: BTreeMap::new(),
            policy: None,
            egress: None,
            narrowest: usize::MAX,
            too_big: 0,
            narrow: false,
            homes: BTreeMap::new(),
            heap: BTreeMap::new(),
            serial: 0,
            next_id: 0,
        };
        for n in 0..hosts {
            let secret = Secret::private(world.rng.bytes());
            let key = secret.public_key();
            let host = Host {
                switch: world.fresh_switch(&secret, LIMITS),
                key,
                address: key.tunnel_address(),
                endpoint: endpoint(n),
                ports: Vec::new(),
                peers: BTreeMap::new(),
                out: Outbox::default(),
                sent: [0; 5],
                secret,
                staging: Staging::new(STAGING_BYTES, Merge::TcpAndUdp),
                limits: LIMITS,
            };
            world.hosts.push(host);
            world.homes.insert(endpoint(n), n);
            // Out of step, as daemons are.
            world.schedule(Duration::from_millis(37 * n as u64 + 11), Next::Tick(n));
        }
        world
    }

    fn fresh_switch(&mut self, secret: &Secret, limits: Limits) -> Switch {
        let topology = Topology::new(secret.public_key().tunnel_address(), Vec::new(), &[]);
        Switch::new(self.gate(secret), topology, limits, self.rng.next(), self.instant())
    }

    /// A gate whose tunnels see this world's time.
    pub(crate) fn gate(&self, secret: &Secret) -> Gate {
        let unix_time = Duration::from_secs(1_700_000_000) + self.now;
        Gate::new(secret, GateSettings { engine: Engine::fastest(), random, now: self.instant(), unix_time })
    }

    pub(crate) fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        let line = format!("{:>10.3} {}", self.now.as_secs_f64(), what());
        self.log.push_back(line);
    }

    fn schedule(&mut self, at: Duration, next: Next) {
        self.serial += 1;
        self.heap.insert((at, self.serial), next);
    }

    // ---- who knows whom ------------------------------------------------------------------------------------------

    /// Makes host `a` know host `b` (not the other way round).
    pub(crate) fn introduce(&mut self, a: usize, b: usize, how: &Acquaintance) {
        self.next_id += 1;
        let settings = TunnelSettings {
            peer: self.hosts[b].key,
            preshared_key: how.preshared_key.clone(),
            keepalive: how.keepalive,
            index: (self.rng.next() & 0x00ff_ffff) as u32,
            endpoints: how.endpoints.clone().unwrap_or_else(|| vec![self.hosts[b].endpoint]),
        };
        let id = PeerId(self.next_id);
        let now = self.instant();
        let host = &mut self.hosts[a];
        let peer = Arc::new(Peer::new(id, settings.peer.tunnel_address(), &host.switch.gate, &settings, now));
        peer.set_limits(inner_limit(self.link.mtu), inner_limit(self.link.mtu));
        peer.set_takes_partial(how.takes_partial);
        if let Some(old) = host.peers.insert(b, peer) {
            host.switch.fdb.forget_place(Place::Peer(old.id));
        }
        self.publish();
    }

    /// Makes every host know every other.
    pub(crate) fn introduce_all(&mut self, how: &Acquaintance) {
        for (a, b) in self.pairs() {
            self.introduce(a, b, how);
        }
    }

    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        let n = self.hosts.len();
        (0..n * n).map(|i| (i / n, i % n)).filter(|(a, b)| a != b).collect()
    }

    /// Host `a` forgets host `b`.
    pub(crate) fn part(&mut self, a: usize, b: usize) {
        if let Some(old) = self.hosts[a].peers.remove(&b) {
            self.publish();
            self.hosts[a].switch.fdb.forget_place(Place::Peer(old.id));
        }
    }

    /// Host `n` has another key from here on; nobody knows it by that yet.
    pub(crate) fn rekey(&mut self, n: usize) {
        let secret = Secret::private(self.rng.bytes());
        self.hosts[n].key = secret.public_key();
        self.hosts[n].address = secret.public_key().tunnel_address();
        self.hosts[n].secret = secret;
        self.reboot(n);
    }

    /// Host `n`'s daemon dies and starts again: sessions and FDB are gone, ports and configuration are not. It knows
    /// those whom it knew, in another way.
    pub(crate) fn reboot(&mut self, n: usize) {
        let secret = self.hosts[n].secret.clone();
        self.hosts[n].switch = self.fresh_switch(&secret, self.hosts[n].limits);
        self.set_merging(n, true);
        let known: Vec<(usize, bool)> = self.hosts[n].peers.iter().map(|(&b, p)| (b, p.takes_partial())).collect();
        self.hosts[n].peers.clear();
        for (b, takes_partial) in known {
            self.introduce(n, b, &Acquaintance { takes_partial, ..Acquaintance::default() });
        }
        self.publish();
    }

    /// Whether host `n` merges frames into super-frames; it does unless told otherwise.
    pub(crate) fn set_merging(&mut self, n: usize, merge: bool) {
        self.hosts[n].staging = Staging::new(STAGING_BYTES, if merge { Merge::TcpAndUdp } else { Merge::Nothing });
    }

    /// Host `n` is reached at, and sends from, another address; the old one is nobody's.
    pub(crate) fn move_to(&mut self, n: usize, endpoint: SocketAddr) {
        self.homes.retain(|_, &mut host| host != n);
        self.homes.insert(endpoint, n);
        self.hosts[n].endpoint = endpoint;
    }

    // ---- ports ---------------------------------------------------------------------------------------------------

    pub(crate) fn add_port(&mut self, n: usize, vni: u32, mac: Mac) -> PortId {
        self.next_id += 1;
        let id = PortId(self.next_id);
        self.hosts[n].ports.push(Arc::new(Port {
            id,
            vni,
            mac,
            flow: weft::switch::counters::Flow::default(),
            spoken: Allowance::default(),
        }));
        self.publish();
        id
    }

    pub(crate) fn remove_port(&mut self, n: usize, id: PortId) {
        self.hosts[n].ports.retain(|port| port.id != id);
        self.publish();
        self.hosts[n].switch.fdb.forget_place(Place::Port(id));
    }

    /// Tells all switches how things are.
    pub(crate) fn publish(&self) {
        for (n, host) in self.hosts.iter().enumerate() {
            let vnis: BTreeSet<u32> = host.ports.iter().map(|port| port.vni).collect();
            let networks = vnis.into_iter().map(|vni| Network {
                vni,
                mtu: self.port_mtu,
                ports: host.ports.iter().filter(|port| port.vni == vni).cloned().collect(),
                peers: self.members(host, vni),
                admits: None,
                suppress: self.narrow,
                snooping: self.narrow,
                policy: self.policy.clone(),
                service: self.services.get(&n).copied().unwrap_or_default(),
                egress: self.egress,
            });
            let peers: Vec<Arc<Peer>> = host.peers.values().cloned().collect();
            let hops = |all: &BTreeMap<(usize, usize), usize>| {
                let ours = all.iter().filter(|((at, _), _)| *at == n);
                let hop = |((_, to), hop): (&(usize, usize), &usize)| {
                    Some((u32::from(self.hosts[*to].address), host.peers.get(hop)?.id))
                };
                ours.filter_map(hop).collect()
            };
            let topology = Topology::new(host.address, networks.collect(), &peers);
            let topology = topology.with_alias(host.key.tunnel_address());
            let topology = topology.with_routes(self.relays.contains(&n), hops(&self.routes));
            host.switch.publish(topology.with_detours(hops(&self.detours)));
        }
    }

    /// The peers of `host` that have the network.
    fn members(&self, host: &Host, vni: u32) -> Vec<Arc<Peer>> {
        let has = |&(b, _): &(&usize, &Arc<Peer>)| self.hosts[*b].ports.iter().any(|port| port.vni == vni);
        host.peers.iter().filter(has).map(|(_, peer)| peer.clone()).collect()
    }

    // ---- what happens --------------------------------------------------------------------------------------------

    /// A container of host `n` sends a frame.
    pub(crate) fn port_input(&mut self, n: usize, port: &Port, header: VnetHeader, frame: &[u8]) {
        let now = self.instant();
        let host = &mut self.hosts[n];
        let mut buffer = vec![0xdd; HEADROOM + vnet::LEN];
        let at = buffer.len();
        buffer.extend_from_slice(frame);
        host.switch.port_input(now, port, header, &mut buffer, at, &mut host.out);
        assert_eq!(&buffer[at..], frame, "the frame must come back as it was");
        self.dispatch(n);
    }

    /// Host `n`'s daemon says something for a port's container.
    pub(crate) fn announce(&mut self, n: usize, port: &Port, frame: &[u8]) {
        let now = self.instant();
        let host = &mut self.hosts[n];
        host.switch.announce(now, port, frame, &mut host.out);
        self.dispatch(n);
    }

    /// Host `n`'s daemon tells all ports of a network something.
    pub(crate) fn tell_ports(&mut self, n: usize, vni: u32, frame: &[u8]) {
        let host = &mut self.hosts[n];
        host.switch.tell_ports(vni, frame, &mut host.out);
    }

    /// The path carries packets of this size from here on, and everybody knows.
    pub(crate) fn set_mtu(&mut self, mtu: usize) {
        self.link.mtu = mtu;
        self.narrowest = self.narrowest.min(mtu);
        for peer in self.hosts.iter().flat_map(|host| host.peers.values()) {
            peer.set_limits(inner_limit(mtu), inner_limit(mtu));
        }
    }

    /// Host `a` sends `packet` through its tunnel to host `b`.
    pub(crate) fn send_packet(&mut self, a: usize, b: usize, packet: &[u8]) {
        self.send_packet_via(a, b, packet, None);
    }

    /// The same, over this way.
    pub(crate) fn send_packet_via(&mut self, a: usize, b: usize, packet: &[u8], via: Option<SocketAddr>) {
        let now = self.instant();
        let host = &mut self.hosts[a];
        host.switch.send_packet(now, &host.peers[&b], packet, false, via, &mut host.out);
        self.dispatch(a);
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let host = &mut self.hosts[a];
        let now = self.epoch + self.now;
        host.switch.connect(now, &host.peers[&b], &mut host.out);
        self.dispatch(a);
    }

    /// Datagrams arrive at host `n`, in one train.
    pub(crate) fn underlay_input(&mut self, n: usize, from: SocketAddr, datagrams: &[u8], stride: usize) {
        let now = self.instant();
        let host = &mut self.hosts[n];
        host.switch.underlay_input(now, from, datagrams, stride, &mut host.staging, &mut host.out);
        host.staging.flush(&mut host.out);
        self.dispatch(n);
    }

    /// Gives what host `n` sent to the network.
    fn dispatch(&mut self, n: usize) {
        for (to, bytes) in std::mem::take(&mut self.hosts[n].out.datagrams) {
            assert!(way::is_underlay(&to), "{to} is no address of the network's");
            self.hosts[n].sent[usize::from(bytes[0]).min(4)] += 1;
            self.network(Datagram { from: self.hosts[n].endpoint, to, bytes });
        }
    }

    /// Sends a datagram, with whatever address it says it is from.
    pub(crate) fn network(&mut self, datagram: Datagram) {
        if let Some(capture) = &mut self.capture {
            capture.push(datagram.clone());
        }
        if datagram.bytes.len() + UNDERLAY_OVERHEAD_V4 > self.link.mtu {
            self.too_big += 1;
            return;
        }
        let copies = if self.rng.chance(self.link.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.chance(self.link.loss) {
                continue;
            }
            let jitter = self.link.jitter.mul_f64((self.rng.next() % 1000) as f64 / 1000.0);
            self.schedule(self.now + self.link.latency + jitter, Next::Arrival(datagram.clone()));
        }
    }

    fn home(&self, datagram: &Datagram) -> Option<usize> {
        let to = *self.homes.get(&datagram.to)?;
        let from = self.homes.get(&datagram.from);
        (!from.is_some_and(|&from| self.cut.contains(&(from, to)))).then_some(to)
    }

    /// When the next event is.
    pub(crate) fn next_event(&self) -> Duration {
        self.heap.keys().next().map_or(Duration::MAX, |&(at, _)| at)
    }

    /// Goes on to the next event; returns which host it happened to and, if it was a train's arrival, the datagrams in
    /// it.
    pub(crate) fn step(&mut self) -> Option<(usize, Vec<Vec<u8>>)> {
        let ((at, _), next) = self.heap.pop_first()?;
        self.now = self.now.max(at);
        match next {
            Next::Tick(n) => {
                let now = self.instant();
                let host = &mut self.hosts[n];
                host.switch.tick(now, &mut host.out);
                self.dispatch(n);
                self.schedule(at + TICK, Next::Tick(n));
                Some((n, Vec::new()))
            }
            Next::Arrival(first) => {
                let Some(n) = self.home(&first) else { return Some((usize::MAX, Vec::new())) };
                let train = self.train(at, first);
                let bytes: Vec<u8> = train.iter().flat_map(|datagram| datagram.bytes.clone()).collect();
                self.underlay_input(n, train[0].from, &bytes, train[0].bytes.len());
                Some((n, train.into_iter().map(|datagram| datagram.bytes).collect()))
            }
        }
    }

    /// Takes from the heap what arrives together with `first`: of equal length, only the last may be shorter.
    fn train(&mut self, at: Duration, first: Datagram) -> Vec<Datagram> {
        let stride = first.bytes.len();
        let mut train = vec![first];
        while train.len() < TRAIN {
            let Some(entry) = self.heap.first_entry() else { break };
            let Next::Arrival(next) = entry.get() else { break };
            let first = &train[0];
            let fits = (next.from, next.to) == (first.from, first.to) && next.bytes.len() <= stride;
            if entry.key().0 != at || !fits {
                break;
            }
            let Next::Arrival(next) = entry.remove() else { break };
            let shorter = next.bytes.len() < stride;
            train.push(next);
            if shorter {
                break;
            }
        }
        train
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.next_event() <= end {
            self.step();
        }
        self.now = end;
    }

    /// Lets time pass until `condition`, for at most `limit`; returns whether it came true.
    pub(crate) fn run_until(&mut self, limit: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !condition(self) {
            if self.next_event() > end {
                return false;
            }
            self.step();
        }
        true
    }
}

pub(crate) const LIMITS: Limits = Limits { max_entries: 512, max_per_port: 64, max_per_peer: 256 };
