//! The data plane: a learning Ethernet switch whose ports are local TAPs and remote peers.
//!
//! A [`Switch`] is shared by all workers (`&self`) and does no I/O: a frame or datagram goes in with the time, and its
//! consequences leave through an [`Egress`] that the caller lends. The same code runs under real TAPs and in the
//! simulator.
//!
//! # The life of a frame
//!
//! *Out* ([`outbound`]): a port's frame is checked, its source learned, its destination looked up. To a local port it
//! goes as it is, super-frame and all. To a peer it is cut to what the path carries, wrapped in VXLAN and sealed
//! straight into the send batch. BUM goes to the network's other ports and to the peers that have the network.
//!
//! *In* ([`inbound`]): a datagram finds its tunnel by index, is opened into the [`staging`] arena, and its frame goes to
//! one port or to the network's ports, never to a peer (split horizon). Segments of one flow leave as a super-frame.
//!
//! # Locks
//!
//! The topology is a snapshot (no lock), the FDB has one read-write lock held for a lookup, each peer's tunnel has a
//! mutex held while a frame's packets are sealed or a run of datagrams is opened. No lock is taken while another is
//! held, except that a TAP or socket may be written under a tunnel's.

pub mod counters;
pub mod fdb;
pub mod ids;
pub mod inbound;
pub mod outbound;
pub mod staging;
pub mod topology;
pub mod tunnel;

use crate::wire::fragment;
use crate::wire::vxlan::IPV4_LEN;
use arc_swap::{ArcSwap, Guard};
use counters::{Counters, Drop};
use fdb::{Fdb, Limits};
use ids::{PeerId, PortId};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use topology::{Peer, Topology};
use tunnel::{Gate, HANDSHAKE_ROOM, Tunnel};

/// Bytes that must be free in front of a frame given to [`Switch::port_input`]: for the inner header.
pub const HEADROOM: usize = crate::wire::INNER_OVERHEAD;

/// Where the consequences of one input go. Nothing here fails: what cannot be done is counted by the implementor.
pub trait Egress {
    /// Hands one frame or super-frame to a local port, gathered from `pieces`: first its virtio-net header, then one
    /// piece for each frame that was merged.
    fn deliver(&mut self, port: PortId, pieces: &[IoSlice<'_>]);

    /// Lends `fill` at least `room` bytes for a datagram to `to`; `fill` returns how many it used, or `None` to give
    /// them back.
    fn transmit(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>);

    /// Which batch [`Self::transmit`] fills: each worker has one of its own. One that sends at once needs no number.
    fn lane(&self) -> usize {
        0
    }

    /// Sends what [`Self::transmit`] has collected.
    fn send_collected(&mut self) {}

    /// Tells the control plane. May drop when control does not keep up.
    fn notify(&mut self, event: Event<'_>);
}

/// What the data plane tells the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message of the mesh came out of this peer's tunnel: the payload of its UDP datagram.
    Message(PeerId, &'a [u8]),
    /// A session with this peer came to life.
    SessionUp(PeerId),
}

/// An Ethernet switch whose ports are local TAPs and remote peers.
pub struct Switch {
    topology: ArcSwap<Topology>,
    /// Where stations are.
    pub fdb: Fdb,
    /// What became of everything.
    pub counters: Counters,
    /// What handshakes pass.
    pub gate: Gate,
    started: Instant,
}

impl Switch {
    /// A switch without networks. `seed` makes the FDB's hash unpredictable to strangers.
    pub fn new(gate: Gate, topology: Topology, limits: Limits, seed: u64, now: Instant) -> Self {
        Self {
            topology: ArcSwap::from_pointee(topology),
            fdb: Fdb::new(limits, seed),
            counters: Counters::default(),
            gate,
            started: now,
        }
    }

    /// Makes `topology` the one that every following input meets.
    pub fn publish(&self, topology: Topology) {
        self.topology.store(Arc::new(topology));
    }

    /// The current topology.
    pub fn topology(&self) -> Guard<Arc<Topology>> {
        self.topology.load()
    }

    /// Whole seconds since the switch was made: the FDB's clock.
    pub fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX)
    }

    /// Time passed: renews sessions, ages the FDB. Called by control about four times a second.
    pub fn tick(&self, now: Instant, out: &mut impl Egress) {
        self.gate.tick();
        let second = self.seconds(now);
        self.fdb.sweep(second);
        for peer in self.topology.load().peers() {
            let mut tunnel = peer.tunnel();
            let mut message = [0; HANDSHAKE_ROOM];
            if let Some(length) = tunnel.tick(now, &mut message) {
                send_handshake(&tunnel, &message[..length], out);
            }
            let is_called = tunnel.is_trying() || tunnel.handshake_endpoints().next().is_none();
            if peer.watch(second, tunnel.is_live(), is_called) {
                start_handshake(&mut tunnel, out);
            }
            self.counters.drop_many(Drop::TunnelQueueExpired, tunnel.expire_waiting(now));
            tunnel.reassembler.expire(now);
            self.counters.drop_many(Drop::Unreassembled, tunnel.reassembler.take_abandoned());
        }
    }

    /// Begins a session with `peer` unless one is live or on its way.
    pub fn connect(&self, peer: &Peer, out: &mut impl Egress) {
        let mut tunnel = peer.tunnel();
        if !tunnel.is_live() {
            start_handshake(&mut tunnel, out);
        }
    }

    /// Sends one inner packet of our own to `peer`, a message of the mesh; in fragments if it is larger than the path
    /// carries, unless it must stay `whole` to prove something of the path.
    pub fn send_packet(&self, now: Instant, peer: &Peer, packet: &[u8], whole: bool, out: &mut impl Egress) {
        let mut tunnel = peer.tunnel();
        let too_long = !whole && packet.len() > peer.inner_limit();
        let Some((header, _)) = packet.split_first_chunk::<IPV4_LEN>().filter(|_| too_long) else {
            self.emit(now, &mut tunnel, packet, out);
            // Before a worker's datagrams overtake it by more than the replay window.
            return out.send_collected();
        };
        let mut header = *header;
        header[4..6].copy_from_slice(&tunnel.next_identification().to_be_bytes());
        for piece in fragment::pieces(packet.len(), peer.inner_limit()) {
            let mut fragment = vec![0; header.len()];
            piece.stamp(&header, &mut fragment);
            fragment.extend_from_slice(&packet[piece.payload]);
            self.emit(now, &mut tunnel, &fragment, out);
        }
        out.send_collected();
    }

    /// Seals one inner packet, or keeps it until there is a session.
    fn emit(&self, now: Instant, tunnel: &mut Tunnel, packet: &[u8], out: &mut impl Egress) {
        if !tunnel.is_live() {
            self.counters.drop_many(Drop::TunnelQueueFull, tunnel.hold(now, packet));
            start_handshake(tunnel, out);
            return;
        }
        let Some(endpoint) = tunnel.endpoint() else { return self.counters.drop(Drop::NoEndpoint) };
        let room = (packet.len() + crate::wire::WIREGUARD_OVERHEAD).max(HANDSHAKE_ROOM);
        out.transmit(endpoint, room, |datagram| tunnel.seal(now, packet, datagram));
    }

    /// A session came to life: what waited for it leaves.
    fn session_up(&self, now: Instant, peer: &Peer, tunnel: &mut Tunnel, out: &mut impl Egress) {
        peer.answered();
        while let Some(packet) = tunnel.next_waiting() {
            self.emit(now, tunnel, &packet, out);
        }
        out.notify(Event::SessionUp(peer.id));
    }
}

fn start_handshake(tunnel: &mut Tunnel, out: &mut impl Egress) {
    let mut message = [0; HANDSHAKE_ROOM];
    if tunnel.handshake_endpoints().next().is_none() {
        return;
    }
    if let Some(length) = tunnel.initiate(&mut message) {
        send_handshake(tunnel, &message[..length], out);
    }
}

fn send_handshake(tunnel: &Tunnel, message: &[u8], out: &mut impl Egress) {
    for endpoint in tunnel.handshake_endpoints() {
        out.transmit(endpoint, message.len(), |datagram| {
            datagram[..message.len()].copy_from_slice(message);
            Some(message.len())
        });
    }
}
