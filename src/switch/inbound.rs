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
use super::{Egress, Event, Switch, send};
use crate::switch::fdb::Source;
use crate::tunnel::{Admission, Claim, Gate, HANDSHAKE_ROOM, Opener, Refusal, tunnel_of};
use crate::wire::ethernet::Frame;
use crate::wire::fragment::Outcome;
use crate::wire::vnet::PartialChecksum;
use crate::wire::vxlan::{self, Payload};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// What an inner packet turned out to be, once its addresses are right.
enum Inner {
    Frame { vni: u32, partial: Option<PartialChecksum>, range: Range<usize> },
    Message(Range<usize>),
    Waiting,
}

/// Consecutive datagrams of one session.
struct Train<'a> {
    peer: &'a Arc<Peer>,
    opener: Arc<Opener>,
    /// Whether the tunnel knows that it was heard, and that there was data.
    told: (bool, bool),
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
        let mut train: Option<Train<'_>> = None;
        let mut count = 0;
        // Nothing at all is a datagram, too.
        let empty = datagrams.is_empty().then_some(datagrams);
        for datagram in empty.into_iter().chain(datagrams.chunks(stride.max(1))) {
            count += 1;
            let result = match Gate::claim(datagram) {
                None => Err(Drop::NotWireguard),
                Some(Claim::Data(index)) => {
                    if train.as_ref().is_none_or(|train| train.opener.index() != index) {
                        train = topology.peer_by_index(tunnel_of(index)).and_then(|peer| {
                            let opener = peer.tunnel().opener(now, index)?;
                            Some(Train { peer, opener, told: (false, false) })
                        });
                    }
                    match &mut train {
                        None => Err(Drop::UnknownSession),
                        Some(train) => self.data(now, &topology, train, from, datagram, staging, out),
                    }
                }
                Some(claim) => self.handshake(now, &topology, claim, from, datagram, out),
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
        let by_index = |index| topology.peer_by_index(tunnel_of(index)).ok_or(Drop::UnknownSession);
        match claim {
            Claim::Initiation => {
                self.admit(now, from, datagram, &mut reply, out)?;
                let called = self.gate.read(datagram).ok_or(Drop::HandshakeRefused)?;
                let peer = topology.peer_by_key(&called.caller()).ok_or(Drop::HandshakeRefused)?;
                let length = peer.tunnel().answer(now, from, called, &mut reply)?;
                send(from, &reply[..length], out);
            }
            Claim::Response(index) => {
                let peer = by_index(index)?;
                self.admit(now, from, datagram, &mut reply, out)?;
                let mut tunnel = peer.tunnel();
                let outcome = tunnel.take_response(now, from, datagram, &mut reply)?;
                send(from, &reply[..outcome.reply], out);
                if outcome.session_up {
                    self.session_up(now, peer, &mut tunnel, out);
                }
            }
            Claim::Cookie(index) | Claim::Data(index) => by_index(index)?.tunnel().take_cookie(now, datagram)?,
        }
        Ok(())
    }

    /// Asks the gate whether a handshake message may cost something.
    fn admit(
        &self,
        now: Instant,
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
                send(from, &reply[..length], out);
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
        let need = datagram.len();
        let room = match staging.room(need) {
            Some(room) => room,
            None => {
                staging.flush(out);
                staging.room(need).ok_or(Drop::MalformedPacket)?
            }
        };
        let peer = train.peer;
        let length = train.opener.open(datagram, staging.bytes(room.clone()))?;
        let heard = (true, length > 0 || train.told.1);
        if train.told != heard {
            train.told = heard;
            let mut tunnel = peer.tunnel();
            if tunnel.heard(now, from, train.opener.index(), heard.1) {
                self.session_up(now, peer, &mut tunnel, out);
            }
        }
        if length == 0 {
            return Ok(());
        }
        let packet = room.start..room.start + length;
        let inner = self.inner(now, topology, peer, packet, staging, out)?;
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
    fn inner(
        &self,
        now: Instant,
        topology: &Topology,
        peer: &Peer,
        packet: Range<usize>,
        staging: &mut Staging,
        out: &mut impl Egress,
    ) -> Result<Inner, Drop> {
        let parsed = parse(topology, peer, staging.bytes(packet.clone()))?;
        if parsed != Payload::Fragment {
            return placed(parsed, packet.start);
        }
        match peer.reassembler().insert(now, staging.bytes(packet.clone())) {
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
