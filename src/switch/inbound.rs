//! From the underlay: find the tunnel, open, and hand the frame to local ports.
//!
//! Datagrams that arrive together from one address come as one buffer of equal strides. A tunnel stays locked while
//! consecutive datagrams belong to it. Packets are opened into the staging arena and their frames staged there.

use super::counters::Drop;
use super::ids::Place;
use super::outbound::check_addresses;
use super::staging::Staging;
use super::topology::{Peer, Topology};
use super::tunnel::{Admission, Claim, Gate, HANDSHAKE_ROOM, Tunnel};
use super::{Egress, Event, Switch};
use crate::switch::fdb::Source;
use crate::wire::ethernet::Frame;
use crate::wire::fragment::Outcome;
use crate::wire::vnet::PartialChecksum;
use crate::wire::vxlan::{self, Payload};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

/// What an inner packet turned out to be, once its addresses are right.
enum Inner {
    Frame { vni: u32, partial: Option<PartialChecksum>, range: Range<usize> },
    Message(Range<usize>),
    Waiting,
}

impl Switch {
    /// Datagrams of `stride` bytes each (the last may be shorter) came from `from`. Their frames are staged; the caller
    /// flushes `staging` when its batch ends.
    pub fn underlay_input(
        &self,
        now: Instant,
        from: SocketAddr,
        datagrams: &[u8],
        stride: usize,
        staging: &mut Staging,
        out: &mut impl Egress,
    ) {
        let topology = self.topology.load();
        let mut held: Option<(&Arc<Peer>, MutexGuard<'_, Tunnel>)> = None;
        let mut count = 0;
        // Nothing at all is a datagram, too.
        let empty = datagrams.is_empty().then_some(datagrams);
        for datagram in empty.into_iter().chain(datagrams.chunks(stride.max(1))) {
            count += 1;
            let result = match Gate::claim(datagram) {
                None => Err(Drop::NotWireguard),
                Some(Claim::Data(index)) => {
                    if held.as_ref().is_none_or(|(peer, _)| peer.index != index) {
                        drop(held.take());
                        held = topology.peer_by_index(index).map(|peer| (peer, peer.tunnel()));
                    }
                    match &mut held {
                        None => Err(Drop::UnknownSession),
                        Some((peer, tunnel)) => self.data(now, &topology, peer, tunnel, from, datagram, staging, out),
                    }
                }
                Some(claim) => {
                    drop(held.take());
                    self.handshake(now, &topology, claim, from, datagram, out)
                }
            };
            if let Err(reason) = result {
                self.counters.drop(reason);
            }
        }
        self.counters.datagrams_rx.add(count);
    }

    fn handshake(
        &self,
        now: Instant,
        topology: &Topology,
        claim: Claim,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let mut reply = [0; HANDSHAKE_ROOM];
        let send = |out: &mut _, bytes: &[u8]| {
            Egress::transmit(out, from, bytes.len(), |datagram: &mut [u8]| {
                datagram[..bytes.len()].copy_from_slice(bytes);
                Some(bytes.len())
            });
        };
        let peer = match claim {
            Claim::Initiation => match self.gate.admit(from, datagram, &mut reply) {
                Admission::From(key) => topology.peer_by_key(&key).ok_or(Drop::HandshakeRefused)?,
                Admission::Refused => return Err(Drop::HandshakeRefused),
                Admission::Cookie(length) => {
                    send(out, &reply[..length]);
                    return Err(Drop::HandshakeLimited);
                }
            },
            Claim::Reply(index) | Claim::Data(index) => topology.peer_by_index(index).ok_or(Drop::UnknownSession)?,
        };
        let mut tunnel = peer.tunnel();
        let outcome = tunnel.handshake(now, from, datagram, &mut reply)?;
        send(out, &reply[..outcome.reply]);
        if outcome.session_up {
            self.session_up(now, peer, &mut tunnel, out);
        }
        if outcome.limited { Err(Drop::HandshakeLimited) } else { Ok(()) }
    }

    #[expect(clippy::too_many_arguments, reason = "the datagram and everything it meets")]
    fn data(
        &self,
        now: Instant,
        topology: &Topology,
        peer: &Peer,
        tunnel: &mut Tunnel,
        from: SocketAddr,
        datagram: &[u8],
        staging: &mut Staging,
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let need = datagram.len().max(HANDSHAKE_ROOM);
        let room = match staging.room(need) {
            Some(room) => room,
            None => {
                staging.flush(out);
                staging.room(need).ok_or(Drop::MalformedPacket)?
            }
        };
        let was_live = tunnel.is_live();
        let length = tunnel.open(now, from, datagram, staging.bytes(room.clone()))?;
        if !was_live && tunnel.is_live() {
            self.session_up(now, peer, tunnel, out);
        }
        if length == 0 {
            return Ok(());
        }
        let packet = room.start..room.start + length;
        let inner = self.inner(now, topology, peer, tunnel, packet, staging, out)?;
        if !matches!(inner, Inner::Message(_)) {
            peer.flow.received(length);
        }
        match inner {
            Inner::Waiting => Ok(()),
            Inner::Message(_) if !peer.may_speak(self.seconds(now)) => Err(Drop::ControlQueueFull),
            Inner::Message(range) => {
                out.notify(Event::Message(peer.id, staging.bytes(range)));
                Ok(())
            }
            Inner::Frame { vni, partial, range } => {
                self.peer_frame(now, topology, peer, vni, partial, range, staging)
            }
        }
    }

    /// Reads an inner packet that lies in `staging`; a fragment that completes its packet is replaced by the whole.
    #[expect(clippy::too_many_arguments, reason = "the packet and everything it meets")]
    fn inner(
        &self,
        now: Instant,
        topology: &Topology,
        peer: &Peer,
        tunnel: &mut Tunnel,
        packet: Range<usize>,
        staging: &mut Staging,
        out: &mut impl Egress,
    ) -> Result<Inner, Drop> {
        let parsed = parse(topology, peer, staging.bytes(packet.clone()))?;
        if parsed != Payload::Fragment {
            return placed(parsed, packet.start);
        }
        match tunnel.reassembler.insert(now, staging.bytes(packet.clone())) {
            Outcome::Waiting => Ok(Inner::Waiting),
            Outcome::Bad => Err(Drop::BadFragment),
            Outcome::Whole(whole) => {
                let room = match staging.room(whole.len()) {
                    Some(room) => room,
                    None => {
                        staging.flush(out);
                        staging.room(whole.len()).ok_or(Drop::MalformedPacket)?
                    }
                };
                staging.bytes(room.clone()).copy_from_slice(whole);
                let parsed = parse(topology, peer, whole)?;
                placed(parsed, room.start)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the frame and everything it meets")]
    fn peer_frame(
        &self,
        now: Instant,
        topology: &Topology,
        peer: &Peer,
        vni: u32,
        partial: Option<PartialChecksum>,
        range: Range<usize>,
        staging: &mut Staging,
    ) -> Result<(), Drop> {
        self.counters.tunnel_rx_frames.add(1);
        let network = topology.network(vni).ok_or(Drop::UnknownNetwork)?;
        if network.admits.as_ref().is_some_and(|admits| !admits.contains(&peer.id)) {
            return Err(Drop::UnknownNetwork);
        }
        let frame = Frame::parse(staging.bytes(range.clone())).map_err(|_| Drop::MalformedInnerFrame)?;
        let (source, destination) = (frame.source(), frame.destination());
        check_addresses(source, destination)?;
        let observed = self.fdb.observe(self.seconds(now), vni, source, Place::Peer(peer.id), destination);
        if observed.source == Source::Pinned {
            return Err(Drop::SpoofedSource);
        }
        match observed.destination.filter(|_| !destination.is_group()) {
            Some(Place::Peer(_)) => return Err(Drop::SplitHorizon),
            Some(Place::Port(id)) => staging.stage(id, range.clone(), partial, false),
            None if network.ports.is_empty() => return Err(Drop::NoReceiver),
            None => {
                let alone = network.ports.len() > 1;
                for port in &network.ports {
                    staging.stage(port.id, range.clone(), partial, alone);
                }
            }
        }
        staging.keep(range.end);
        Ok(())
    }
}

/// Parses an inner packet and checks that it is the peer's, for us (WireGuard's cryptokey routing).
fn parse(topology: &Topology, peer: &Peer, packet: &[u8]) -> Result<Payload, Drop> {
    let parsed = vxlan::parse(packet).map_err(|_| Drop::MalformedPacket)?;
    if parsed.source != peer.address || parsed.destination != topology.address {
        return Err(Drop::SpoofedTunnelAddress);
    }
    Ok(parsed.payload)
}

/// Moves a payload's ranges to where the packet lies in the arena.
fn placed(payload: Payload, start: usize) -> Result<Inner, Drop> {
    let place = |range: Range<usize>| start + range.start..start + range.end;
    match payload {
        Payload::Frame { vni, partial, range } => Ok(Inner::Frame { vni, partial, range: place(range) }),
        Payload::Message(range) => Ok(Inner::Message(place(range))),
        Payload::Fragment | Payload::Other => Err(Drop::UnknownProtocol),
    }
}
