//! Hosts in memory, of any size, for benchmarks and for the test that counts instructions: real switches, sessions between
//! them, and an [`Egress`] that keeps what it is given. No syscalls, no clock.

#![allow(dead_code, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weft::switch::allowance::Allowance;
use weft::switch::counters::Flow;
use weft::switch::fdb::Limits;
use weft::switch::ids::{PeerId, Place, PortId};
use weft::switch::policy::guard::Guard;
use weft::switch::policy::rules::{Rule, Rules, Sides};
use weft::switch::policy::{Policy, PortPolicy};
use weft::switch::staging::{Merge, Staging};
use weft::switch::topology::{Network, Peer, Port, Topology};
use weft::switch::{Egress, Event, HEADROOM, Switch};
use weft::tunnel::{Engine, Gate, GateSettings, TunnelSettings};
use weft::wire::checksum;
use weft::wire::ethernet::Mac;
use weft::wire::key::{PublicKey, Secret};
use weft::wire::ports::Ports;
use weft::wire::vnet::{GSO_TCPV4, PartialChecksum, TCP_CHECKSUM, VnetHeader};

/// The network that frames are in.
const VNI: u32 = 1;
/// Room for what one input sends: a super-frame, or a flooded frame to a thousand peers.
const SEND_BYTES: usize = 1 << 20;
/// An inner packet on an underlay with an MTU of 1500.
const INNER_LIMIT: usize = 1440;

/// How large a host is, beside the one port and the one peer that talk.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Ports in all, at least two; all are in the network that talks.
    pub(crate) ports: usize,
    /// Peers known.
    pub(crate) peers: usize,
    /// How many of them have a session, at least one: BUM goes to these.
    pub(crate) live: usize,
    /// Networks.
    pub(crate) networks: usize,
    /// Dynamic FDB entries.
    pub(crate) stations: usize,
    /// Rules in the network that talks, the last of which allows its ports to talk, and ports that are guarded.
    pub(crate) rules: Option<usize>,
}

impl Size {
    /// As small as can talk.
    pub(crate) const SMALLEST: Self = Self { ports: 2, peers: 1, live: 1, networks: 1, stations: 10, rules: None };
    /// A thousand of each, and a million stations.
    pub(crate) const LARGEST: Self =
        Self { ports: 1000, peers: 1000, live: 1, networks: 1000, stations: 1_000_000, rules: None };
}

/// Datagrams of one length to one address, of which the last may be shorter.
struct Run {
    to: SocketAddr,
    bytes: Range<usize>,
    stride: usize,
    is_over: bool,
}

/// What a worker's outbox would have sent, and how much it would have delivered.
pub(crate) struct Memory {
    bytes: Box<[u8]>,
    used: usize,
    runs: Vec<Run>,
    /// Frames that ports were given.
    pub(crate) delivered: usize,
    /// Datagrams sent.
    pub(crate) sent: usize,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; SEND_BYTES].into(), used: 0, runs: Vec::with_capacity(128), delivered: 0, sent: 0 }
    }

    /// Forgets what has collected.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.runs.clear();
    }
}

impl Egress for Memory {
    fn deliver(&mut self, _port: PortId, pieces: &[IoSlice<'_>]) {
        black_box(pieces);
        self.delivered += pieces.len() - 1;
    }

    fn transmit(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        if self.used + room > self.bytes.len() {
            self.clear();
        }
        let Some(length) = fill(&mut self.bytes[self.used..]) else { return };
        let start = self.used;
        self.used += length;
        self.sent += 1;
        match self.runs.last_mut() {
            Some(run) if run.to == to && !run.is_over && length <= run.stride => {
                run.bytes.end += length;
                run.is_over = length < run.stride;
            }
            _ => self.runs.push(Run { to, bytes: start..self.used, stride: length, is_over: false }),
        }
    }

    fn serve(&mut self, _: &Port, _: VnetHeader, frame: &[u8]) -> bool {
        black_box(frame);
        true
    }

    fn notify(&mut self, event: Event<'_>) {
        black_box(event);
    }
}

/// One host.
pub(crate) struct Host {
    pub(crate) switch: Switch,
    pub(crate) ports: Vec<Arc<Port>>,
    pub(crate) peers: Vec<Arc<Peer>>,
    pub(crate) endpoint: SocketAddr,
}

/// What one worker has of its own.
pub(crate) struct Worker {
    pub(crate) out: Memory,
    staging: Staging,
}

impl Worker {
    pub(crate) fn new() -> Self {
        Self { out: Memory::new(), staging: Staging::new(640 * 1024, Merge::TcpAndUdp) }
    }
}

/// A frame in a worker's buffer.
pub(crate) struct Frame {
    header: VnetHeader,
    buffer: Vec<u8>,
}

impl Frame {
    /// Makes the first bytes of its payload a number.
    pub(crate) fn set_number(&mut self, number: u64) {
        self.buffer[HEADROOM + 14..HEADROOM + 22].copy_from_slice(&number.to_be_bytes());
    }
}

/// A host, and as many small ones as have sessions with it.
pub(crate) struct World {
    pub(crate) near: Host,
    pub(crate) far: Vec<Host>,
    pub(crate) now: Instant,
}

impl World {
    pub(crate) fn new(size: Size) -> Self {
        let now = Instant::now();
        let near = Host::new(now, 0, (1..=size.peers).map(|n| (n, n <= size.live)), size);
        let far = (1..=size.live).map(|n| Host::new(now, n, [(0, true)].into_iter(), Size::SMALLEST)).collect();
        let world = Self { near, far, now };
        // All sessions before the first frame: it is flooded, and would begin handshakes of its own.
        (0..size.live).for_each(|n| world.connect(n));
        (0..size.live).for_each(|n| world.introduce(n));
        world
    }

    /// Makes a session with far host `n`.
    fn connect(&self, n: usize) {
        let (near, far, now) = (&self.near, &self.far[n], self.now);
        let [mut here, mut there] = [Worker::new(), Worker::new()];
        near.switch.connect(now, &near.peers[n], &mut here.out);
        far.underlay(now, near, &mut here, &mut there);
        near.underlay(now, far, &mut there, &mut here);
        // The session is the other side's, too, once it has been used.
        far.underlay(now, near, &mut here, &mut there);
    }

    /// Lets frames tell both sides where their stations are.
    fn introduce(&self, n: usize) {
        let (near, far, now) = (&self.near, &self.far[n], self.now);
        let [mut here, mut there] = [Worker::new(), Worker::new()];
        far.send(now, 0, &mut plain(mac(n + 1, 0), mac(0, 0), 46), &mut there.out);
        near.underlay(now, far, &mut there, &mut here);
        near.send(now, 0, &mut plain(mac(0, 0), mac(n + 1, 0), 46), &mut here.out);
        far.underlay(now, near, &mut here, &mut there);
        let places = [(near, mac(n + 1, 0), near.peers[n].id), (far, mac(0, 0), far.peers[0].id)];
        for (host, mac, peer) in places {
            assert_eq!(host.switch.fdb.lookup(0, VNI, mac), Some(Place::Peer(peer)), "no session");
        }
    }
}

impl Host {
    fn new(now: Instant, number: usize, peers: impl Iterator<Item = (usize, bool)>, size: Size) -> Self {
        let secret = Secret::private(key_bytes(number));
        let random = |bytes: &mut [u8]| getrandom::fill(bytes).unwrap();
        let unix_time = Duration::from_secs(1_000_000);
        let gate = Gate::new(&secret, GateSettings { engine: Engine::fastest(), random, now, unix_time });
        let (mut all, mut live) = (Vec::new(), Vec::new());
        for (n, has_session) in peers {
            // Who never answers needs no private key; any 32 bytes are a public one.
            let key = if has_session { Secret::private(key_bytes(n)).public_key() } else { PublicKey(key_bytes(n)) };
            let (index, endpoints) = (n as u32, vec![endpoint(n)]);
            let settings = TunnelSettings { peer: key, preshared_key: None, keepalive: None, index, endpoints };
            let peer = Arc::new(Peer::new(PeerId(n as u32), address(n), &gate, &settings, now));
            peer.set_limits(INNER_LIMIT, INNER_LIMIT);
            peer.set_takes_partial(true);
            if has_session {
                live.push(peer.clone());
            }
            all.push(peer);
        }
        let port = |n: usize| Port {
            id: PortId(n as u32),
            vni: VNI,
            mac: mac(number, n),
            flow: Flow::default(),
            spoken: Allowance::default(),
        };
        let ports: Vec<_> = (0..size.ports).map(|n| Arc::new(port(n))).collect();
        let mut networks: Vec<_> =
            (0..size.networks as u32).map(|n| Network { vni: VNI + n, mtu: 1500, ..Network::default() }).collect();
        (networks[0].ports, networks[0].peers) = (ports.clone(), live);
        networks[0].policy = size.rules.map(|rules| Arc::new(policy(&ports, rules)));
        let limits = Limits { max_entries: 2_000_000, max_per_port: 2_000_000, max_per_peer: 2_000_000 };
        let switch = Switch::new(gate, Topology::new(address(number), networks, &all), limits, 7, now);
        for port in &ports {
            switch.fdb.insert_static(VNI, port.mac, Place::Port(port.id));
        }
        for n in 0..size.stations {
            let place = Place::Peer(PeerId(1 + (n % size.peers) as u32));
            switch.fdb.observe(0, VNI, station(n), place, Mac([0xff; 6]));
        }
        Self { switch, ports, peers: all, endpoint: endpoint(number) }
    }

    /// A container behind `port` sends a frame.
    pub(crate) fn send(&self, now: Instant, port: usize, frame: &mut Frame, out: &mut impl Egress) {
        self.switch.port_input(now, &self.ports[port], frame.header, &mut frame.buffer, HEADROOM, out);
    }

    /// What `from` has sent with the worker `sender` arrives here, and what came out of it is flushed.
    pub(crate) fn underlay(&self, now: Instant, from: &Self, sender: &mut Worker, worker: &mut Worker) {
        let Worker { out, staging } = worker;
        for run in sender.out.runs.iter().filter(|run| run.to == self.endpoint) {
            let bytes = &sender.out.bytes[run.bytes.clone()];
            self.switch.underlay_input(now, from.endpoint, bytes, run.stride, staging, out);
        }
        staging.flush(out);
        sender.out.clear();
    }
}

/// Ports held to their addresses, and rules between them; none if there are to be 0.
fn policy(ports: &[Arc<Port>], rules: usize) -> Policy {
    let rule = |_| Rule { ports: [Ports::Tcp(80, 80), Ports::Any].into(), hits: Arc::default() };
    let mut all = Rules::new((0..rules).map(rule).collect(), vec!["10.0.0.0/8".parse().unwrap()], Vec::new());
    let mut sides = Sides::default();
    sides.from.insert(rules.saturating_sub(1));
    sides.to.insert(rules.saturating_sub(1));
    // The frames by which hosts get to know each other are not IP.
    all.add_anybody(sides);
    let mut policy = Policy::default();
    for (n, port) in ports.iter().enumerate() {
        let address = Ipv4Addr::from(0x0a00_0001 + n as u32).into();
        all.add_station(address, port.mac, sides);
        let guard = Guard { mac: Some(port.mac), full: true, addresses: [address].into(), ..Guard::default() };
        policy.ports.insert(port.id, PortPolicy { guard: Some(guard), ..PortPolicy::default() });
    }
    policy.rules = (rules > 0).then(|| Arc::new(all));
    policy
}

/// A TCP segment of a few bytes to port 80, from the first port's address to the second's.
pub(crate) fn small_tcp(source: Mac, destination: Mac) -> Frame {
    let mut frame = tcp(source, destination, 0, 6);
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    Frame { header: VnetHeader::default(), buffer: [&[0; HEADROOM][..], &frame].concat() }
}

/// A frame that is neither IP nor anything else known.
pub(crate) fn plain(source: Mac, destination: Mac, payload: usize) -> Frame {
    let mut buffer = vec![0; HEADROOM];
    buffer.extend([&destination.0[..], &source.0, &[0x88, 0xb5], &vec![7; payload]].concat());
    Frame { header: VnetHeader::default(), buffer }
}

/// A TCP super-frame over IPv4, its checksum partial, to be cut into segments of 1448 bytes.
pub(crate) fn super_frame(source: Mac, destination: Mac, payload: usize) -> Frame {
    let frame = tcp(source, destination, 0, payload);
    let partial = PartialChecksum { start: 34, offset: TCP_CHECKSUM };
    let header = VnetHeader { gso_type: GSO_TCPV4, gso_size: 1448, hdr_len: 54, ..VnetHeader::single(Some(partial)) };
    Frame { header, buffer: [&[0; HEADROOM][..], &frame].concat() }
}

/// A TCP segment over IPv4 in a frame, its checksum partial.
pub(crate) fn tcp(source: Mac, destination: Mac, sequence: u32, payload: usize) -> Vec<u8> {
    let [from, to] = [[10, 0, 0, 1], [10, 0, 0, 2]];
    let mut ip = vec![0x45, 0];
    ip.extend((40 + payload as u16).to_be_bytes());
    ip.extend([[0, 1, 0x40, 0], [64, 6, 0, 0], from, to].concat());
    let sum = !checksum::fold(checksum::sum(0, &ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = checksum::fold(checksum::sum(6 + 20 + payload as u64, &[from, to].concat()));
    let mut segment = vec![0x30, 0x39, 0, 80];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0x50, 0x10, 1, 0]);
    segment.extend(pseudo.to_be_bytes());
    segment.extend([0, 0]);
    let body: Vec<u8> = (0..payload).map(|n| n as u8).collect();
    [&destination.0[..], &source.0, &[8, 0], &ip, &segment, &body].concat()
}

/// The address of port `n` of host `host`.
pub(crate) fn mac(host: usize, n: usize) -> Mac {
    let ([.., a, b], [.., c, d]) = (host.to_be_bytes(), n.to_be_bytes());
    Mac([2, 1, a, b, c, d])
}

/// The address of station `n` that never talks.
pub(crate) fn station(n: usize) -> Mac {
    let [.., a, b, c, d] = n.to_be_bytes();
    Mac([2, 2, a, b, c, d])
}

fn key_bytes(n: usize) -> [u8; 32] {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&(n as u64 + 1).to_le_bytes());
    bytes
}

fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x6440_0001 + n as u32)
}

fn endpoint(n: usize) -> SocketAddr {
    (Ipv4Addr::from(0xc612_0001 + n as u32), 51820).into()
}
