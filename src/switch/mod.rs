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
//! mutex held to find out which session seals a frame's packets or opens a run of datagrams, and not while that is done.
//! A session's replay window and a peer's fragments have their own. No lock is taken while another is held. A socket may
//! be written under a tunnel's when a session begins, a TAP under that of fragments when the arena is full.

pub mod counters;
pub mod fdb;
pub mod ids;
pub mod inbound;
pub mod outbound;
pub mod staging;
pub mod topology;

use crate::tunnel::{Gate, HANDSHAKE_ROOM, OVERHEAD, Timely, Tunnel};
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

    /// Makes `topology` the one that every following input meets. What waits for a peer that is not in it is dropped.
    pub fn publish(&self, topology: Topology) {
        let topology = Arc::new(topology);
        let before = self.topology.swap(topology.clone());
        for peer in before.peers().filter(|peer| topology.peer(peer.id).is_none()) {
            self.counters.drop_many(Drop::TunnelQueueExpired, peer.tunnel().abandon_waiting());
        }
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
        let second = self.seconds(now);
        self.fdb.sweep(second);
        for peer in self.topology.load().peers() {
            let mut tunnel = peer.tunnel();
            let mut message = [0; HANDSHAKE_ROOM];
            match tunnel.tick(now, &mut message) {
                Some(Timely::Initiation(length)) => send_handshake(&tunnel, &message[..length], out),
                Some(Timely::Keepalive(length)) => {
                    tunnel.endpoint().into_iter().for_each(|endpoint| send(endpoint, &message[..length], out));
                }
                None => {}
            }
            let is_called = tunnel.is_trying() || tunnel.handshake_endpoints().next().is_none();
            if peer.watch(second, tunnel.is_live(), is_called) {
                start_handshake(now, &mut tunnel, out);
            }
            self.counters.drop_many(Drop::TunnelQueueExpired, tunnel.expire_waiting(now));
            drop(tunnel);
            let mut reassembler = peer.reassembler();
            reassembler.expire(now);
            self.counters.drop_many(Drop::Unreassembled, reassembler.take_abandoned());
        }
    }

    /// Begins a session with `peer` unless one is live or on its way.
    pub fn connect(&self, now: Instant, peer: &Peer, out: &mut impl Egress) {
        let mut tunnel = peer.tunnel();
        if !tunnel.is_live() {
            start_handshake(now, &mut tunnel, out);
        }
    }

    /// Sends one inner packet of our own to `peer`, a message of the mesh; in fragments if it is larger than the path
    /// carries, unless it must stay `whole` to prove something of the path.
    pub fn send_packet(&self, now: Instant, peer: &Peer, packet: &[u8], whole: bool, out: &mut impl Egress) {
        let mut tunnel = peer.tunnel();
        let too_long = !whole && packet.len() > peer.inner_limit();
        let Some((header, _)) = packet.split_first_chunk::<IPV4_LEN>().filter(|_| too_long) else {
            return self.emit(now, &mut tunnel, packet, out);
        };
        let mut header = *header;
        header[4..6].copy_from_slice(&peer.next_identification().to_be_bytes());
        for piece in fragment::pieces(packet.len(), peer.inner_limit()) {
            let mut fragment = vec![0; header.len()];
            piece.stamp(&header, &mut fragment);
            fragment.extend_from_slice(&packet[piece.payload]);
            self.emit(now, &mut tunnel, &fragment, out);
        }
    }

    /// Seals one inner packet, or keeps it until there is a session.
    fn emit(&self, now: Instant, tunnel: &mut Tunnel, packet: &[u8], out: &mut impl Egress) {
        let Some((sealer, endpoint)) = tunnel.outgoing(now) else {
            self.counters.drop_many(Drop::TunnelQueueFull, tunnel.hold(now, packet));
            return start_handshake(now, tunnel, out);
        };
        out.transmit(endpoint, packet.len() + OVERHEAD, |datagram| sealer.seal(packet, datagram));
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

fn start_handshake(now: Instant, tunnel: &mut Tunnel, out: &mut impl Egress) {
    let mut message = [0; HANDSHAKE_ROOM];
    if let Some(length) = tunnel.initiate(now, &mut message) {
        send_handshake(tunnel, &message[..length], out);
    }
}

fn send_handshake(tunnel: &Tunnel, message: &[u8], out: &mut impl Egress) {
    tunnel.handshake_endpoints().for_each(|endpoint| send(endpoint, message, out));
}

fn send(to: SocketAddr, message: &[u8], out: &mut impl Egress) {
    out.transmit(to, message.len(), |datagram| {
        datagram[..message.len()].copy_from_slice(message);
        Some(message.len())
    });
}
