//! A play: stations in a [`World`] that send each other everything that can be sent, while everything that can go
//! wrong does, and a [`Ledger`] that watches.
//!
//! # What is checked
//!
//! At every input of a port: the frame is delivered to the ports and peers that the FDB named, a peer's share being a
//! packet sealed, waiting, or counted as displaced; or it is counted under one drop reason and went nowhere. At every
//! train of datagrams: each is a frame that went to ports, is counted under one reason, or is one of the few that end
//! quietly (keepalives, handshakes, fragments that wait), and nothing goes back into a tunnel (split horizon). At
//! every delivery, the ledger's objections. After every event, the bounds on memory.
//!
//! In a *calm* nothing is lost, so every unit must arrive exactly where it should, and known unicast is never flooded.

use super::frames::{Flow, Kind, MIN_DATAGRAM, Unit};
use super::ledger::Ledger;
use super::world::{Acquaintance, DATA, Delivery, KEEPALIVE_LEN, LIMITS, RESPONSE, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use weft::switch::counters::Drop;
use weft::switch::ids::{Place, PortId};
use weft::switch::topology::Port;
use weft::wire::INNER_OVERHEAD;
use weft::wire::ethernet::Mac;
use weft::wire::vnet::{self, VnetHeader};

/// Packets that may wait for one session: `WAITING_PACKETS` of the tunnel.
const MAX_WAITING: usize = 32;
pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const S: Duration = Duration::from_secs(1);

/// Reasons that end a datagram before it is known to carry a frame.
const OF_DATAGRAMS: &[Drop] = &[
    Drop::NotWireguard,
    Drop::UnknownSession,
    Drop::HandshakeRefused,
    Drop::HandshakeLimited,
    Drop::NotAuthentic,
    Drop::Replay,
    Drop::MalformedPacket,
    Drop::SpoofedTunnelAddress,
    Drop::UnknownProtocol,
    Drop::BadFragment,
];
/// Reasons that end a frame that came out of a tunnel.
const OF_TUNNEL_FRAMES: &[Drop] = &[
    Drop::UnknownNetwork,
    Drop::MalformedInnerFrame,
    Drop::InvalidSource,
    Drop::ReservedDestination,
    Drop::SpoofedSource,
    Drop::SplitHorizon,
    Drop::NoReceiver,
];

#[derive(Debug, Clone)]
pub(super) struct Station {
    pub(super) mac: Mac,
    pub(super) vni: u32,
    pub(super) host: usize,
    pub(super) port: PortId,
    /// Every switch has a static entry for it.
    pub(super) pinned: bool,
}

/// What of a host is compared before and after.
struct Snapshot {
    drops: Vec<u64>,
    data: usize,
    waiting: usize,
    tunnel_rx: u64,
}

impl Snapshot {
    fn of(world: &World, n: usize) -> Self {
        let host = &world.hosts[n];
        Self {
            drops: Drop::ALL.iter().map(|&reason| host.dropped(reason)).collect(),
            data: host.sent[usize::from(DATA)],
            waiting: host.peers.values().map(|peer| peer.tunnel().waiting()).sum(),
            tunnel_rx: host.switch.counters.tunnel_rx_frames.get(),
        }
    }

    fn drops_since(&self, before: &Self, reasons: &[Drop]) -> u64 {
        reasons.iter().map(|&reason| self.drops[reason as usize] - before.drops[reason as usize]).sum()
    }
}

/// Where a frame should go.
#[derive(Debug, Default, PartialEq)]
struct Fan {
    ports: Vec<PortId>,
    /// Packets for all peers together.
    packets: u64,
    drops: u64,
    /// Those of the drops that are for want of anybody else in the network.
    unheard: u64,
}

/// How a frame enters a switch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Port,
    Announcement,
}

pub(crate) struct Play {
    pub(crate) world: World,
    pub(crate) ledger: Ledger,
    pub(super) seed: u64,
    pub(super) stations: Vec<Station>,
    /// The flow of a station's frames to an address.
    flows: BTreeMap<(Mac, u32, Mac, u8), Flow>,
    flow_ids: u32,
    pub(super) calm: bool,
}

impl std::ops::Drop for Play {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log: Vec<&str> = self.world.log.iter().map(String::as_str).collect();
            eprintln!(
                "the last events:\n{}\nagain: WEFT_SIM_SEED={} cargo test --test simulation",
                log.join("\n"),
                self.seed
            );
        }
    }
}

impl Play {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 2 + (seed % 3) as usize);
        // Nobody is known and nobody listens: it must make no difference.
        world.narrow = seed.is_multiple_of(2);
        let mtu = *world.rng.pick(&[1280, 1420, 1500, 1500]);
        world.set_mtu(mtu);
        world.port_mtu = *world.rng.pick(&[1500, 1500, 1280, 9000]);
        for (a, b) in world.pairs() {
            let keepalive = world.rng.one_in(3).then_some(25);
            let takes_partial = world.rng.one_in(2);
            world.introduce(a, b, &Acquaintance { keepalive, takes_partial, ..Acquaintance::default() });
        }
        let (flows, ledger) = (BTreeMap::new(), Ledger::default());
        let mut play = Self { world, ledger, seed, stations: Vec::new(), flows, flow_ids: 0, calm: true };
        let vnis: Vec<u32> = (0..play.world.rng.range(1..4)).map(|n| 100 + n as u32).collect();
        for host in 0..play.world.hosts.len() {
            for &vni in &vnis {
                // The first network has ports on two hosts at least.
                let least = usize::from(host < 2 && vni == vnis[0]);
                for _ in 0..play.world.rng.range(least..4) {
                    play.add_port(host, vni);
                }
            }
        }
        for (a, b) in play.world.pairs() {
            play.world.connect(a, b);
        }
        play.run(2 * S);
        play.announce_all();
        play
    }

    pub(super) fn add_port(&mut self, host: usize, vni: u32) {
        let mac = self.fresh_mac();
        let port = self.world.add_port(host, vni, mac);
        self.ledger.port(port, vni);
        let pinned = self.world.rng.one_in(3);
        self.stations.push(Station { mac, vni, host, port, pinned });
        if self.world.rng.one_in(3) {
            // A bridge in the container.
            let mac = self.fresh_mac();
            self.stations.push(Station { mac, vni, host, port, pinned: false });
        }
        self.world.note(|| format!("{port:?} of network {vni} appears on host {host}"));
        self.pin();
    }

    /// A number that no flow has.
    pub(super) fn fresh_flow(&mut self) -> u32 {
        self.flow_ids += 1;
        self.flow_ids
    }

    pub(super) fn fresh_mac(&mut self) -> Mac {
        Mac::local(self.world.rng.bytes())
    }

    /// Gives all switches the static entries they should have.
    pub(super) fn pin(&mut self) {
        for (n, host) in self.world.hosts.iter().enumerate() {
            for station in self.stations.iter().filter(|station| station.pinned) {
                let peer = host.peers.get(&station.host).map(|peer| Place::Peer(peer.id));
                if let Some(place) = if n == station.host { Some(Place::Port(station.port)) } else { peer } {
                    host.switch.fdb.insert_static(station.vni, station.mac, place);
                }
            }
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    /// Lets time pass and looks at everything that happens.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.world.now + span;
        while self.world.next_event() <= end {
            let before: Vec<Snapshot> = (0..self.world.hosts.len()).map(|n| Snapshot::of(&self.world, n)).collect();
            if let Some((n, train)) = self.world.step()
                && n < before.len()
            {
                self.check_train(n, &before[n], &train);
                self.check_bounds(n);
            }
        }
        self.world.run(end - self.world.now);
    }

    fn check_train(&mut self, n: usize, before: &Snapshot, train: &[Vec<u8>]) {
        let after = Snapshot::of(&self.world, n);
        let deliveries = std::mem::take(&mut self.world.hosts[n].out.deliveries);
        let frames = after.tunnel_rx - before.tunnel_rx;
        let dropped = after.drops_since(before, OF_DATAGRAMS);
        let of = |kind: u8| train.iter().filter(|datagram| datagram[0] == kind).count();
        let keepalives =
            train.iter().filter(|datagram| datagram[0] == DATA && datagram.len() == KEEPALIVE_LEN).count();
        let quiet = (train.len() as u64).checked_sub(frames + dropped);
        let quiet = self.ensure(quiet.is_some(), || "more came out of a train than there was in it", quiet);
        let may_be_quiet = train.len() - of(DATA) + keepalives;
        let fragments = self.world.narrowest < usize::from(self.world.port_mtu) + 128;
        self.ensure(fragments || quiet <= Some(may_be_quiet as u64), || "datagrams vanished uncounted", ());

        // A flooded frame goes to several ports in pieces of its own; what was merged goes to one.
        let single: BTreeSet<&[u8]> = deliveries.iter().filter(|d| d.merged == 1).map(|d| &d.frame[..]).collect();
        let merged: usize = deliveries.iter().filter(|d| d.merged > 1).map(|d| d.merged).sum();
        let ended = after.drops_since(before, OF_TUNNEL_FRAMES);
        let whole = frames == (single.len() + merged) as u64 + ended;
        self.ensure(whole, || "frames out of tunnels were neither delivered nor counted", (frames, ended));
        let sent = after.data - before.data;
        let allowed = before.waiting + of(RESPONSE) + if train.is_empty() { self.world.hosts.len() } else { 0 };
        self.ensure(sent <= allowed, || "what came from a peer went to a peer", (sent, allowed));
        self.record(n, deliveries);
    }

    fn record(&mut self, n: usize, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            if !self.world.hosts[n].ports.iter().any(|port| port.id == delivery.port) {
                // Its TAP is gone: an outbox counts that.
                continue;
            }
            if let Err(objection) = self.ledger.received(&delivery) {
                panic!("seed {}: {objection}", self.seed);
            }
        }
    }

    fn check_bounds(&mut self, n: usize) {
        let host = &self.world.hosts[n];
        let pinned = self.stations.iter().filter(|station| station.pinned).count();
        let entries = host.switch.fdb.len();
        let waiting = host.peers.values().map(|peer| peer.tunnel().waiting()).max().unwrap_or(0);
        self.ensure(entries <= LIMITS.max_entries + pinned, || "the FDB is too large", entries);
        self.ensure(waiting <= MAX_WAITING, || "too many packets wait", waiting);
    }

    pub(super) fn ensure<T: std::fmt::Debug>(&self, right: bool, what: impl FnOnce() -> &'static str, value: T) -> T {
        assert!(right, "seed {}: {}: {value:?}", self.seed, what());
        value
    }

    // ---- sending -------------------------------------------------------------------------------------------------

    /// The ports that a frame of this station to this address must reach when nothing is lost.
    fn receivers(&self, station: &Station, to: Mac) -> Vec<PortId> {
        let there = self.stations.iter().find(|other| other.mac == to && other.vni == station.vni);
        match there {
            Some(there) if there.port == station.port => Vec::new(),
            Some(there) => vec![there.port],
            None => {
                let ports = self.world.hosts.iter().flat_map(|host| &host.ports);
                let all = ports.filter(|port| port.vni == station.vni && port.id != station.port);
                all.map(|port| port.id).collect()
            }
        }
    }

    pub(super) fn port_of(&self, station: &Station) -> Option<Arc<Port>> {
        self.world.hosts[station.host].ports.iter().find(|port| port.id == station.port).cloned()
    }

    /// Station `s` sends something of a random shape to this address.
    pub(super) fn send(&mut self, s: usize, to: Mac) {
        let station = self.stations[s].clone();
        let shape = self.world.rng.next();
        let kind = [Kind::Tcp, Kind::Udp, Kind::Tcp, Kind::Raw][(shape % 4) as usize];
        let (v6, tagged) = (shape & 4 != 0, shape & 0x38 == 0);
        let class = kind as u8 | u8::from(v6) << 2 | u8::from(tagged) << 3;
        let fresh = self.fresh_flow();
        let tags = if tagged { vec![42] } else { Vec::new() };
        let flow = Flow { id: fresh, kind, v6, source: station.mac, destination: to, tags };
        let flow = self.flows.entry((station.mac, station.vni, to, class)).or_insert(flow).clone();
        if flow.id == fresh {
            self.ledger.open(&flow, station.vni);
        }
        let (vnet, frame, units) = self.shape(&flow);
        let receivers = self.calm.then(|| self.receivers(&station, to));
        self.ledger.sent(flow.id, station.port, &units, receivers.as_deref());
        let (mac, gso) = (station.mac, vnet.gso_size);
        let last = units[units.len() - 1];
        self.world
            .note(|| format!("{mac} sends {to} {} bytes, gso {gso}, {kind:?} {} to {last:?}", frame.len(), flow.id));
        let before = self.world.hosts[station.host].switch.counters.flooded_frames.get();
        self.input(&station, vnet, &frame, &flow, Way::Port);
        let flooded = self.world.hosts[station.host].switch.counters.flooded_frames.get() - before;
        if self.calm && self.stations.iter().any(|other| other.mac == to && other.vni == station.vni) {
            self.ensure(flooded == 0, || "known unicast was flooded", ());
        }
    }

    /// The next frame of a flow, in a random size.
    fn shape(&mut self, flow: &Flow) -> (VnetHeader, Vec<u8>, Vec<Unit>) {
        let rng = &mut self.world.rng;
        let next = self.ledger.next(flow.id);
        let room = usize::from(self.world.port_mtu) + flow.l3() - flow.header_len();
        let (large, partial) = (rng.one_in(3), rng.one_in(2));
        match flow.kind {
            Kind::Tcp => {
                let cut = large.then(|| rng.range(500..room.min(1500)));
                let len = if large { rng.range(room + 1..60_000) } else { rng.range(1..room + 1) };
                let (vnet, frame) = flow.tcp(next, len, partial, cut);
                (vnet, frame, vec![Unit::Stretch { from: next, to: next + len as u64 }])
            }
            Kind::Udp => {
                let len = rng.range(MIN_DATAGRAM..room + 1);
                let count = if large { rng.range(2..(60_000 / len).clamp(3, 64)) } else { 1 };
                let last = rng.range(MIN_DATAGRAM..len + 1);
                let number =
                    |i: usize| (next as u32 + i as u32, if i + 1 < count || count == 1 { len } else { last });
                let datagrams: Vec<_> = (0..count).map(number).collect();
                let units = datagrams.iter().map(|&(number, len)| Unit::Datagram { number, len }).collect();
                let (vnet, frame) = flow.udp(&datagrams, partial);
                (vnet, frame, units)
            }
            Kind::Raw => {
                let len = rng.range(MIN_DATAGRAM..room + 1);
                let (vnet, frame) = flow.raw(next as u32, len);
                (vnet, frame, vec![Unit::Datagram { number: next as u32, len }])
            }
        }
    }

    /// The switch of station `s` announces it: a frame that the daemon made.
    pub(super) fn announce(&mut self, s: usize) {
        let station = self.stations[s].clone();
        let (id, destination) = (self.fresh_flow(), Mac::BROADCAST);
        let flow = Flow { id, kind: Kind::Raw, v6: false, source: station.mac, destination, tags: Vec::new() };
        self.ledger.open(&flow, station.vni);
        let (vnet, frame) = flow.raw(0, 42);
        let receivers = self.calm.then(|| self.receivers(&station, destination));
        let unit = Unit::Datagram { number: 0, len: 42 };
        self.ledger.sent(id, station.port, &[unit], receivers.as_deref());
        self.world.note(|| format!("{} is announced", station.mac));
        self.input(&station, vnet, &frame, &flow, Way::Announcement);
    }

    /// A frame enters a switch, and goes where the FDB says.
    pub(super) fn input(&mut self, station: &Station, vnet: VnetHeader, frame: &[u8], flow: &Flow, way: Way) {
        let Some(port) = self.port_of(station) else { return };
        let n = station.host;
        let before = Snapshot::of(&self.world, n);
        let mut fan = self.fan(station, vnet, frame.len(), flow);
        match way {
            Way::Port => self.world.port_input(n, &port, vnet, frame),
            Way::Announcement => {
                self.world.announce(n, &port, frame);
                // Nobody lost anything when nobody is there to hear it.
                fan.drops -= fan.unheard;
            }
        }
        let after = Snapshot::of(&self.world, n);
        let deliveries = std::mem::take(&mut self.world.hosts[n].out.deliveries);
        let displaced = after.drops_since(&before, &[Drop::TunnelQueueFull]);
        let sealed = (after.data - before.data) as u64;
        let found = Fan {
            ports: deliveries.iter().map(|delivery| delivery.port).collect(),
            packets: sealed + after.waiting as u64 + displaced - before.waiting as u64,
            drops: after.drops_since(&before, Drop::ALL) - displaced,
            unheard: 0,
        };
        fan.unheard = 0;
        assert_eq!(found, fan, "seed {}: {station:?} to {}", self.seed, flow.destination);
        self.record(n, deliveries);
        self.check_bounds(n);
    }

    /// Where the FDB of a station's host sends its frame.
    fn fan(&self, station: &Station, vnet: VnetHeader, len: usize, flow: &Flow) -> Fan {
        let host = &self.world.hosts[station.host];
        let seconds = host.switch.seconds(self.world.instant());
        let place = host.switch.fdb.lookup(seconds, station.vni, flow.destination);
        let share = |n: usize| packets(flow, vnet, len, host.peers[&n].inner_limit());
        match place.filter(|_| !flow.destination.is_group()) {
            Some(Place::Port(id)) if id == station.port => Fan { drops: 1, ..Fan::default() },
            Some(Place::Port(id)) => Fan { ports: vec![id], ..Fan::default() },
            Some(Place::Peer(id)) => match host.peers.iter().find(|(_, peer)| peer.id == id) {
                Some((&n, _)) => Fan { packets: share(n), ..Fan::default() },
                None => Fan { drops: 1, ..Fan::default() },
            },
            None => {
                let here = host.ports.iter().filter(|port| port.vni == station.vni && port.id != station.port);
                let ports: Vec<PortId> = here.map(|port| port.id).collect();
                let has = |n: &usize| self.world.hosts[*n].ports.iter().any(|port| port.vni == station.vni);
                let peers: Vec<usize> = host.peers.keys().copied().filter(has).collect();
                let unheard = u64::from(ports.is_empty() && peers.is_empty());
                let (silent, rest): (Vec<usize>, Vec<usize>) =
                    peers.into_iter().partition(|n| host.peers[n].is_silent(seconds));
                let drops = unheard + silent.len() as u64;
                Fan { ports, packets: rest.into_iter().map(share).sum(), drops, unheard }
            }
        }
    }

    /// A frame enters a port and ends there, for this reason.
    pub(super) fn refused(&mut self, station: &Station, vnet: VnetHeader, frame: &[u8], reason: Drop) {
        let Some(port) = self.port_of(station) else { return };
        let n = station.host;
        let before = Snapshot::of(&self.world, n);
        self.world.note(|| format!("{} sends {} bytes that are {}", station.mac, frame.len(), reason.name()));
        self.world.port_input(n, &port, vnet, frame);
        let after = Snapshot::of(&self.world, n);
        assert_eq!(after.drops_since(&before, &[reason]), 1, "seed {}: {reason:?}: {vnet:?}", self.seed);
        assert_eq!(after.drops_since(&before, Drop::ALL), 1, "seed {}: not only {reason:?}", self.seed);
        assert_eq!((after.data, after.waiting), (before.data, before.waiting), "seed {}: {reason:?}", self.seed);
        assert!(self.world.hosts[n].out.deliveries.is_empty(), "seed {}: {reason:?}", self.seed);
    }
}

/// How many packets a frame makes on a path that carries packets of `inner_limit`.
fn packets(flow: &Flow, vnet: VnetHeader, len: usize, inner_limit: usize) -> u64 {
    let (limit, header) = (inner_limit - INNER_OVERHEAD, flow.header_len());
    let payload = len - header;
    let pieces = |frame: usize| {
        let packet = frame + INNER_OVERHEAD;
        if packet <= inner_limit { 1 } else { (packet - 20).div_ceil((inner_limit - 20) / 8 * 8) }
    };
    let gso = usize::from(vnet.gso_size);
    let count = match vnet.gso_type {
        vnet::GSO_TCPV4 | vnet::GSO_TCPV6 => payload.div_ceil(gso.min(limit - header)),
        vnet::GSO_UDP_L4 => {
            let last = (payload - 1) % gso + 1;
            (payload.div_ceil(gso) - 1) * pieces(header + gso) + pieces(header + last)
        }
        _ if len <= limit => 1,
        _ if flow.kind == Kind::Tcp && vnet.needs_checksum() => payload.div_ceil(limit - header),
        _ => pieces(len),
    };
    count as u64
}
