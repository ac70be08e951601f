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
//! straight into the send batch. BUM goes to the network's other ports and to the peers that have the network, except for
//! what need not: a question for a known address is answered ([`neighbours`]), multicast goes to who listens ([`groups`]).
//!
//! *In* ([`inbound`]): a datagram finds its tunnel by index, is opened into the [`staging`] arena, and its frame goes to
//! one port or to the network's ports, never to a peer (split horizon). Segments of one flow leave as a super-frame.
//!
//! What a frame may do in its network at all is asked where it enters and where it leaves ([`policy`]).
//! *Here* ([`service`]): what a port sends to its network's service address is answered by this member itself.
//!
//! *Through* ([`relay`]): datagrams of members that have no way of their own travel inside the tunnels of others.
//!
//! # Locks
//!
//! The topology is a snapshot (no lock), the FDB has one read-write lock held for a lookup, each peer's tunnel has a
//! mutex held to find out which session seals a frame's packets or opens a run of datagrams, and not while that is done.
//! A session's replay window and a peer's fragments have their own. No lock is taken while another is held, but for the
//! windows' when a tunnel's sessions are looked at; so the tunnel of a relay is asked for its way only when that of the peer
//! beyond was let go. A TAP may be written under the lock of fragments when the arena is full.

pub mod allowance;
pub mod counters;
pub mod fdb;
pub mod groups;
pub mod ids;
pub mod inbound;
pub mod neighbours;
pub mod outbound;
pub mod policy;
pub mod relay;
pub mod service;
pub mod staging;
pub mod topology;

use crate::tunnel::{Gate, HANDSHAKE_ROOM, OVERHEAD, Timely};
use crate::wire::fragment;
use crate::wire::key::PublicKey;
use crate::wire::vnet::VnetHeader;
use crate::wire::vxlan::IPV4_LEN;
use allowance::Allowance;
use arc_swap::{ArcSwap, Guard};
use counters::{Counters, Drop};
use fdb::{Fdb, Limits};
use groups::Groups;
use ids::{PeerId, PortId};
use neighbours::Neighbours;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use topology::{Peer, Port, Topology};

/// Bytes that must be free in front of a frame given to [`Switch::port_input`]: for the inner header.
pub const HEADROOM: usize = crate::wire::INNER_OVERHEAD;

/// Where the consequences of one input go. Nothing here fails: what cannot be done is counted by the implementor.
pub trait Egress {
    /// Hands one frame or super-frame to a local port, gathered from `pieces`: first its virtio-net header, then one
    /// piece for each frame that was merged.
    fn deliver(&mut self, port: PortId, pieces: &[IoSlice<'_>]);

    /// Lends `fill` at least `room` bytes for a datagram to `to`, an address of the underlay or a stream; `fill` returns how many it used, or `None` to give
    /// them back.
    fn transmit(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>);

    /// Hands over a port's frame that is to be answered at its network's service address, or whose packet has nowhere to go,
    /// which its sender may be told. Returns whether it was taken: when too many come at once it is not.
    fn serve(&mut self, port: &Port, header: VnetHeader, frame: &[u8]) -> bool;

    /// Tells the control plane. May drop when control does not keep up.
    fn notify(&mut self, event: Event<'_>);
}

/// What the data plane tells the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message of the mesh came out of this peer's tunnel, over this way: the payload of its UDP datagram.
    Message(PeerId, SocketAddr, &'a [u8]),
    /// A session with this peer came to life.
    SessionUp(PeerId),
    /// Somebody who is no peer wants to begin a session and may be made one: [`Switch::underlay_input`] then takes the same
    /// datagram again. That it has this key is not proven yet.
    Stranger {
        /// Who it claims to be.
        key: PublicKey,
        /// Where it came from.
        from: SocketAddr,
        /// Its initiation.
        datagram: &'a [u8],
    },
    /// A port's frame says who listens to which multicast groups, or that a multicast router is there.
    Snooped(PortId, &'a [u8]),
}

/// An Ethernet switch whose ports are local TAPs and remote peers.
pub struct Switch {
    topology: ArcSwap<Topology>,
    /// Where stations are.
    pub fdb: Fdb,
    /// Who has which address.
    pub neighbours: Neighbours,
    /// Who listens to which multicast group.
    pub groups: Groups,
    /// What became of everything.
    pub counters: Counters,
    /// What handshakes pass.
    pub gate: Gate,
    /// Strangers that control was told of.
    strangers: Allowance,
    /// Senders that are told that their packets have nowhere to go.
    complaints: Allowance,
    started: Instant,
}

impl Switch {
    /// A switch without networks. `seed` makes the FDB's hash unpredictable to strangers.
    pub fn new(gate: Gate, topology: Topology, limits: Limits, seed: u64, now: Instant) -> Self {
        Self {
            topology: ArcSwap::from_pointee(topology),
            fdb: Fdb::new(limits, seed),
            neighbours: Neighbours::default(),
            groups: Groups::default(),
            counters: Counters::default(),
            gate,
            strangers: Allowance::default(),
            complaints: Allowance::default(),
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
        let topology = self.topology.load();
        for peer in topology.peers() {
            let mut message = [0; HANDSHAKE_ROOM];
            let mut tunnel = peer.tunnel();
            let (length, endpoints) = match tunnel.tick(now, &mut message) {
                Some(Timely::Initiation(length)) => (length, tunnel.handshake_endpoints().collect()),
                Some(Timely::Keepalive(length)) => (length, tunnel.endpoint().into_iter().collect()),
                None => (0, Vec::new()),
            };
            let is_called = tunnel.is_trying() || tunnel.handshake_endpoints().next().is_none();
            let is_wanted = peer.watch(second, tunnel.is_live(), is_called);
            self.counters.drop_many(Drop::TunnelQueueExpired, tunnel.expire_waiting(now));
            drop(tunnel);
            self.send_to_all(now, &topology, endpoints, &message[..length], out);
            if is_wanted {
                self.call(now, &topology, peer, out);
            }
            let mut reassembler = peer.reassembler();
            reassembler.expire(now);
            self.counters.drop_many(Drop::Unreassembled, reassembler.take_abandoned());
        }
    }

    /// Begins a session with `peer` unless one is live or on its way.
    pub fn connect(&self, now: Instant, peer: &Peer, out: &mut impl Egress) {
        let is_live = peer.tunnel().is_live();
        if !is_live {
            self.call(now, &self.topology.load(), peer, out);
        }
    }

    /// Sends one inner packet of our own to `peer`, a message of the mesh; in fragments if it is larger than the path
    /// carries, unless it must stay `whole` to prove something of the path. With `via` it takes that way instead of the
    /// tunnel's, which stays where it is, and never waits for a session.
    pub fn send_packet(
        &self,
        now: Instant,
        peer: &Peer,
        packet: &[u8],
        whole: bool,
        via: Option<SocketAddr>,
        out: &mut impl Egress,
    ) {
        let topology = self.topology.load();
        let too_long = !whole && packet.len() > peer.inner_limit();
        let Some((header, _)) = packet.split_first_chunk::<IPV4_LEN>().filter(|_| too_long) else {
            return self.emit(now, &topology, peer, packet, via, out);
        };
        let mut header = *header;
        header[4..6].copy_from_slice(&peer.next_identification().to_be_bytes());
        for piece in fragment::pieces(packet.len(), peer.inner_limit()) {
            let mut fragment = vec![0; header.len()];
            piece.stamp(&header, &mut fragment);
            fragment.extend_from_slice(&packet[piece.payload]);
            self.emit(now, &topology, peer, &fragment, via, out);
        }
    }

    /// Seals one inner packet, or keeps it until there is a session.
    fn emit(
        &self,
        now: Instant,
        topology: &Topology,
        peer: &Peer,
        packet: &[u8],
        via: Option<SocketAddr>,
        out: &mut impl Egress,
    ) {
        let mut tunnel = peer.tunnel();
        let Some((sealer, endpoint)) = tunnel.outgoing(now) else {
            if via.is_some() {
                return self.counters.drop(Drop::NoSession);
            }
            self.counters.drop_many(Drop::TunnelQueueFull, tunnel.hold(now, packet));
            drop(tunnel);
            return self.call(now, topology, peer, out);
        };
        drop(tunnel);
        match self.way(now, topology, via.unwrap_or(endpoint)) {
            Ok(way) => way.transmit(packet.len() + OVERHEAD, out, |datagram| sealer.seal(packet, datagram)),
            Err(reason) => self.counters.drop(reason),
        }
    }

    /// A session came to life: what waited for it leaves.
    fn session_up(&self, now: Instant, topology: &Topology, peer: &Peer, out: &mut impl Egress) {
        peer.answered();
        let waiting = peer.tunnel().waiting();
        for _ in 0..waiting {
            let packet = peer.tunnel().next_waiting();
            packet.into_iter().for_each(|packet| self.emit(now, topology, peer, &packet, None, out));
        }
        out.notify(Event::SessionUp(peer.id));
    }

    /// Begins a handshake unless one is on its way.
    fn call(&self, now: Instant, topology: &Topology, peer: &Peer, out: &mut impl Egress) {
        let mut message = [0; HANDSHAKE_ROOM];
        let mut tunnel = peer.tunnel();
        let Some(length) = tunnel.initiate(now, &mut message) else { return };
        let endpoints = tunnel.handshake_endpoints().collect();
        drop(tunnel);
        self.send_to_all(now, topology, endpoints, &message[..length], out);
    }

    fn send_to_all(
        &self,
        now: Instant,
        topology: &Topology,
        endpoints: Vec<SocketAddr>,
        message: &[u8],
        out: &mut impl Egress,
    ) {
        for to in endpoints {
            if let Err(reason) = self.send(now, topology, to, message, out) {
                self.counters.drop(reason);
            }
        }
    }

    /// Sends a message that is sealed, or is none that is.
    fn send(
        &self,
        now: Instant,
        topology: &Topology,
        to: SocketAddr,
        message: &[u8],
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        self.way(now, topology, to)?.transmit(message.len(), out, |datagram| {
            datagram[..message.len()].copy_from_slice(message);
            Some(message.len())
        });
        Ok(())
    }
}
