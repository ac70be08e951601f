//! From the underlay: find the tunnel, open, and hand the frame to local ports.
//!
//! Datagrams that arrive together from one address come as one buffer of equal strides. What opens those of one session is
//! asked for once while they follow each other, and the tunnel is told once that it was heard. Packets are opened into
//! the staging arena and their frames staged there.

use super::counters::Drop;
use super::ids::Place;
use super::outbound::check_addresses;
use super::staging::Staging;
use super::topology::{Peer, Topology};
use super::{Egress, Event, Switch, service};
use crate::switch::fdb::Source;
use crate::tunnel::{Admission, Claim, Content, Gate, HANDSHAKE_ROOM, Opener, Refusal, tunnel_of};
use crate::wire::MESH_PORT;
use crate::wire::ethernet::Frame;
use crate::wire::fragment::Outcome;
use crate::wire::packet;
use crate::wire::vnet::PartialChecksum;
use crate::wire::vxlan::{self, Packet, Payload};
use crate::wire::way;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Strangers that control is told of in a second: as many as handshakes are taken without a cookie would leave nothing of
/// the queue to it for others.
const STRANGERS_PER_SECOND: u32 = 32;

/// What an inner packet turned out to be, once its addresses are right.
enum Inner {
    Frame {
        vni: u32,
        partial: Option<PartialChecksum>,
        range: Range<usize>,
    },
    Message(Range<usize>),
    /// A datagram of the member with this tunnel address.
    Relayed(Ipv4Addr, Range<usize>),
    /// A whole packet for another member.
    Through(Range<usize>),
    Waiting,
}

/// Consecutive datagrams of one session.
struct Train<'a> {
    peer: &'a Arc<Peer>,
    opener: Arc<Opener>,
    /// What the tunnel was told that it heard, if anything.
    told: Option<Content>,
}

impl<'a> Train<'a> {
    fn find(now: Instant, topology: &'a Topology, index: u32) -> Option<Self> {
        let peer = topology.peer_by_index(tunnel_of(index))?;
        let opener = peer.tunnel().opener(now, index)?;
        Some(Self { peer, opener, told: None })
    }
}

impl Switch {
    /// Datagrams of `stride` bytes each (the last may be shorter) came from `from`. Their frames are staged; the caller
    /// flushes `staging` when its batch ends. Returns how many were authentic and led on.
    pub fn underlay_input(
        &self,
        now: Instant,
        from: SocketAddr,
        datagrams: &[u8],
        stride: usize,
        staging: &mut Staging,
        out: &mut impl Egress,
    ) -> u64 {
        let topology = self.topology.load();
        let mut train: Option<Train<'_>> = None;
        let (mut count, mut dropped) = (0, 0);
        // Nothing at all is a datagram, too.
        let empty = datagrams.is_empty().then_some(datagrams);
        for datagram in empty.into_iter().chain(datagrams.chunks(stride.max(1))) {
            count += 1;
            let result = match Gate::claim(datagram) {
                None => Err(Drop::NotWireguard),
                Some(Claim::Data(index)) => {
                    if train.as_ref().is_none_or(|train| train.opener.index() != index) {
                        train = Train::find(now, &topology, index);
                    }
                    match &mut train {
                        None => Err(Drop::UnknownSession),
                        Some(train) => self.data(now, &topology, train, from, datagram, staging, out),
                    }
                }
                Some(claim) => self.handshake(now, &topology, claim, from, datagram, out),
            };
            if let Err(reason) = result {
                dropped += 1;
                self.counters.drop(reason);
            }
        }
        self.counters.datagrams_rx.add(count);
        count - dropped
    }

    /// An initiation that was a stranger's comes again, since control made it a peer.
    pub fn handshake_input(&self, now: Instant, from: SocketAddr, initiation: &[u8], out: &mut impl Egress) {
        let topology = self.topology.load();
        if let Err(reason) = self.handshake(now, &topology, Claim::Initiation, from, initiation, out) {
            self.counters.drop(reason);
        }
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
        let by_index = |index| topology.peer_by_index(tunnel_of(index)).ok_or(Drop::UnknownSession);
        match claim {
            Claim::Initiation => {
                self.admit(now, topology, from, datagram, &mut reply, out)?;
                let called = self.gate.read(datagram).ok_or(Drop::HandshakeRefused)?;
                let key = called.caller();
                let Some(peer) = topology.peer_by_key(&key) else {
                    if self.strangers.take(self.seconds(now), STRANGERS_PER_SECOND) {
                        out.notify(Event::Stranger { key, from, datagram });
                    }
                    return Err(Drop::HandshakeRefused);
                };
                check_way(peer, from)?;
                let length = peer.tunnel().answer(now, from, called, &mut reply)?;
                self.send(now, topology, from, &reply[..length], out)?;
            }
            Claim::Response(index) => {
                let peer = by_index(index)?;
                self.admit(now, topology, from, datagram, &mut reply, out)?;
                check_way(peer, from)?;
                let outcome = peer.tunnel().take_response(now, from, datagram, &mut reply)?;
                let sent = self.send(now, topology, from, &reply[..outcome.reply], out);
                if outcome.session_up {
                    self.session_up(now, topology, peer, out);
                }
                sent?;
            }
            Claim::Cookie(index) | Claim::Data(index) => by_index(index)?.tunnel().take_cookie(now, datagram)?,
        }
        Ok(())
    }

    /// Asks the gate whether a handshake message may cost something.
    fn admit(
        &self,
        now: Instant,
        topology: &Topology,
        from: SocketAddr,
        datagram: &[u8],
        reply: &mut [u8; HANDSHAKE_ROOM],
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        match self.gate.admit(now, from, datagram, reply) {
            Admission::Admitted => Ok(()),
            Admission::Refused => Err(Drop::HandshakeRefused),
            Admission::Limited => Err(Drop::HandshakeLimited),
            Admission::Cookie(length) => {
                self.send(now, topology, from, &reply[..length], out)?;
                Err(Drop::HandshakeLimited)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the datagram and everything it meets")]
    fn data(
        &self,
        now: Instant,
        topology: &Topology,
        train: &mut Train<'_>,
        from: SocketAddr,
        datagram: &[u8],
        staging: &mut Staging,
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let room = room(staging, datagram.len(), out)?;
        let length = train.opener.open(datagram, staging.bytes(room.clone()))?;
        self.opened(now, topology, train, from, room.start..room.start + length, staging, out)
    }

    /// A datagram was authentic, and what was in it lies in `staging`.
    #[expect(clippy::too_many_arguments, reason = "the packet and everything it meets")]
    fn opened(
        &self,
        now: Instant,
        topology: &Topology,
        train: &mut Train<'_>,
        from: SocketAddr,
        packet: Range<usize>,
        staging: &mut Staging,
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let (peer, length) = (train.peer, packet.len());
        let content = match vxlan::destination_port(staging.bytes(packet.clone())) {
            _ if length == 0 => Content::Keepalive,
            Some(MESH_PORT) => Content::Message,
            _ => Content::Frame,
        };
        if train.told != Some(content) {
            train.told = Some(content);
            let session_up = peer.tunnel().heard(now, from, train.opener.index(), content);
            if session_up {
                self.session_up(now, topology, peer, out);
            }
        }
        if length == 0 {
            return Ok(());
        }
        let inner = self.inner(now, topology, peer, from, packet, staging, out)?;
        if !matches!(inner, Inner::Message(_)) {
            peer.flow.received(length);
        }
        match inner {
            Inner::Waiting => Ok(()),
            Inner::Message(_) if !peer.may_speak(self.seconds(now)) => Err(Drop::ControlQueueFull),
            Inner::Message(range) => {
                out.notify(Event::Message(peer.id, from, staging.bytes(range)));
                Ok(())
            }
            _ if peer.is_stranger() => Err(Drop::NotAdmitted),
            Inner::Frame { vni, partial, range } => {
                self.peer_frame(now, topology, peer, vni, partial, range, staging)
            }
            Inner::Through(packet) => self.pass_on(now, topology, peer, staging.bytes(packet), out),
            Inner::Relayed(source, range) => self.relayed_input(now, topology, source, range, staging, out),
        }
    }

    /// A datagram of the member with this tunnel address came out of another's tunnel. It lies in `staging`.
    fn relayed_input(
        &self,
        now: Instant,
        topology: &Topology,
        source: Ipv4Addr,
        range: Range<usize>,
        staging: &mut Staging,
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let from = way::relayed(source);
        let datagram = staging.bytes(range.clone());
        match Gate::claim(datagram).ok_or(Drop::NotWireguard)? {
            Claim::Data(index) => {
                let mut train = Train::find(now, topology, index).ok_or(Drop::UnknownSession)?;
                check_way(train.peer, from)?;
                let (datagram, start, room) = staging.beside(range, out).ok_or(Drop::MalformedPacket)?;
                let length = train.opener.open(datagram, room)?;
                self.opened(now, topology, &mut train, from, start..start + length, staging, out)
            }
            claim => self.handshake(now, topology, claim, from, datagram, out),
        }
    }

    /// Reads an inner packet that lies in `staging`; a fragment that completes its packet is replaced by the whole.
    #[expect(clippy::too_many_arguments, reason = "the packet and everything it meets")]
    fn inner(
        &self,
        now: Instant,
        topology: &Topology,
        peer: &Peer,
        from: SocketAddr,
        packet: Range<usize>,
        staging: &mut Staging,
        out: &mut impl Egress,
    ) -> Result<Inner, Drop> {
        let parsed = parse(topology, peer, from, staging.bytes(packet.clone()))?;
        if parsed.payload != Payload::Fragment || !topology.is_ours(parsed.destination) {
            return placed(topology, parsed, packet.start);
        }
        match peer.reassembler().insert(now, staging.bytes(packet.clone())) {
            Outcome::Waiting => Ok(Inner::Waiting),
            Outcome::Bad => Err(Drop::BadFragment),
            Outcome::Whole(whole) => {
                let room = room(staging, whole.len(), out)?;
                staging.bytes(room.clone()).copy_from_slice(whole);
                placed(topology, parse(topology, peer, from, whole)?, room.start)
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
        if partial.is_some_and(|partial| !packet::may_finish(&frame, partial)) {
            return Err(Drop::MalformedInnerFrame);
        }
        let (source, destination) = (frame.source(), frame.destination());
        check_addresses(source, destination)?;
        let content = service::content(network, &frame);
        let passage = match &network.policy {
            Some(policy) => Some(self.arrive(now, policy, vni, &frame, content)?),
            None => None,
        };
        let passage = passage.as_ref();
        service::check_peer(network, &frame, &content)?;
        let observed = self.fdb.observe(self.seconds(now), vni, source, Place::Peer(peer.id), destination);
        if observed.source == Source::Pinned {
            return Err(Drop::SpoofedSource);
        }
        match observed.destination.filter(|_| !destination.is_group()) {
            Some(Place::Peer(_)) => return Err(Drop::SplitHorizon),
            Some(Place::Port(id)) => {
                if let Some(passage) = passage {
                    passage.to_port(id)?;
                }
                staging.stage(id, range.clone(), partial, false);
            }
            None => {
                let audience = self.audience(network, &frame);
                let reaches = |id| audience.has_port(id) && passage.is_none_or(|passage| passage.reaches(id));
                let ports = || network.ports.iter().filter(|port| reaches(port.id));
                let count = ports().take(2).count();
                if count == 0 {
                    return Err(
                        passage.map_or_else(|| audience.nobody(), |passage| passage.nobody(audience.nobody()))
                    );
                }
                for port in ports() {
                    if let Some(Err(reason)) = passage.map(|passage| passage.to_port(port.id)) {
                        self.counters.drop(reason);
                        continue;
                    }
                    staging.stage(port.id, range.clone(), partial, count > 1);
                }
            }
        }
        staging.keep(range.end);
        Ok(())
    }
}

/// Room for a packet of at most so many bytes.
fn room(staging: &mut Staging, bytes: usize, out: &mut impl Egress) -> Result<Range<usize>, Drop> {
    if let Some(room) = staging.room(bytes) {
        return Ok(room);
    }
    staging.flush(out);
    staging.room(bytes).ok_or(Drop::MalformedPacket)
}

/// What a member sends through others has its own tunnel address in front, or else the answer would go astray.
fn check_way(peer: &Peer, from: SocketAddr) -> Result<(), Drop> {
    match way::relayed_of(&from) {
        Some(source) if source != peer.address => Err(Drop::SpoofedTunnelAddress),
        _ => Ok(()),
    }
}

/// Parses an inner packet and checks that it is the peer's, for us (WireGuard's cryptokey routing), or one that it passes on
/// to us or has us pass on.
fn parse(topology: &Topology, peer: &Peer, from: SocketAddr, packet: &[u8]) -> Result<Packet, Drop> {
    let parsed = vxlan::parse(packet).map_err(|_| Drop::MalformedPacket)?;
    // The address of a stranger may be set in its file, which nobody knows yet; nor does it matter, for it only gets to speak.
    let own = (parsed.source == peer.address || peer.is_stranger()) && topology.is_ours(parsed.destination);
    match parsed.payload {
        Payload::Relayed(_) if own => Err(Drop::NotRelayed),
        _ if own => Ok(parsed),
        Payload::Relayed(_) | Payload::Fragment => {
            let passes = parsed.destination == topology.address || topology.relays;
            if !passes || way::relayed_of(&from).is_some() {
                return Err(Drop::NotRelayed);
            }
            if parsed.source == topology.address {
                return Err(Drop::SpoofedTunnelAddress);
            }
            // Its fragments are not to take the room of others either.
            if peer.is_stranger() { Err(Drop::NotAdmitted) } else { Ok(parsed) }
        }
        _ => Err(Drop::SpoofedTunnelAddress),
    }
}

/// Moves a packet's ranges to where it lies in the arena.
fn placed(topology: &Topology, packet: Packet, start: usize) -> Result<Inner, Drop> {
    let place = |range: Range<usize>| start + range.start..start + range.end;
    if !topology.is_ours(packet.destination) {
        return Ok(Inner::Through(place(0..packet.len)));
    }
    match packet.payload {
        Payload::Frame { vni, partial, range } => Ok(Inner::Frame { vni, partial, range: place(range) }),
        Payload::Message(range) => Ok(Inner::Message(place(range))),
        Payload::Relayed(range) => Ok(Inner::Relayed(packet.source, place(range))),
        Payload::Fragment | Payload::Other => Err(Drop::UnknownProtocol),
    }
}

impl From<Refusal> for Drop {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::MalformedPacket,
            Refusal::UnknownSession => Self::UnknownSession,
            Refusal::NotAuthentic => Self::NotAuthentic,
            Refusal::Replay => Self::Replay,
            Refusal::Handshake => Self::HandshakeRefused,
        }
    }
}
