//! Relaying: a pair of members that have no way of their own send each other their datagrams through the tunnels of others.
//!
//! ```text
//!  A ── tunnel A–B ──► B ── tunnel B–C ──► C
//!       [IPv4 A→C, UDP, datagram of A–C]       the same, one TTL less
//! ```
//!
//! The datagram is one of WireGuard's like any other, handshakes included, sealed with keys that A and C alone have: B sees
//! who talks to whom, how much and when. It knows the way by [`Topology::routes`], a next hop for every tunnel address.
//!
//! # What cannot happen
//!
//! * *Nesting*: a next hop is a peer with a way of its own, and what came relayed is for us alone. So a frame is sealed
//!   twice at most, and nobody can have us unwrap boxes in boxes.
//! * *Loops*: every relay takes one from the TTL, and gives nothing back to where it came from. Routes that disagree, as
//!   while they change, cost 16 hops at most.
//! * *Deadlock*: the pair's tunnel is let go before the next hop's is asked; see [`Peer::tunnel`].
//!
//! # Copies
//!
//! The batch lends room for two datagrams. The pair's is sealed into the second half, behind room for its headers, and from
//! there into the first half by the next hop's tunnel. So nothing is allocated, unless it must be cut to what the
//! next hop's path carries; control sees to it that it need not ([`Peer::set_limits`]).

use super::counters::Drop;
use super::ids::PeerId;
use super::topology::{Peer, Topology};
use super::{Egress, Switch};
use crate::tunnel::{OVERHEAD, Sealer};
use crate::wire::vxlan::{self, IPV4_LEN, RELAY_OVERHEAD};
use crate::wire::{fragment, way};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Hops that a datagram may take: more than a mesh worth using has, and soon over where routes go in circles.
pub const TTL: u8 = 16;

/// Where datagrams for a peer go.
pub(super) enum Way<'a> {
    /// To this endpoint.
    Straight(SocketAddr),
    /// Inside this peer's tunnel, from our tunnel address to that of the peer they are for.
    Relayed { hop: Hop<'a>, source: Ipv4Addr, destination: Ipv4Addr },
}

/// A peer that passes packets on, and its own way.
pub(super) struct Hop<'a> {
    peer: &'a Peer,
    sealer: Arc<Sealer>,
    endpoint: SocketAddr,
}

impl Switch {
    /// What `to` stands for.
    #[inline]
    pub(super) fn way<'a>(&self, now: Instant, topology: &'a Topology, to: SocketAddr) -> Result<Way<'a>, Drop> {
        let Some(destination) = way::relayed_of(&to) else { return Ok(Way::Straight(to)) };
        let bits = u32::from(destination);
        let hop = next_hop(now, topology, topology.detours.get(&bits).or_else(|| topology.routes.get(&bits)))?;
        // What the pair says to each other inside its own tunnel needs no other.
        if hop.peer.address == destination {
            return Err(Drop::NoRoute);
        }
        Ok(Way::Relayed { hop, source: topology.address, destination })
    }

    /// Passes on a packet that `peer` sent for another member.
    pub(super) fn pass_on(
        &self,
        now: Instant,
        topology: &Topology,
        peer: &Peer,
        packet: &mut [u8],
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let (source, destination) = vxlan::addresses(packet).ok_or(Drop::MalformedPacket)?;
        let hop = next_hop(now, topology, topology.routes.get(&u32::from(destination)))?;
        if hop.peer.id == peer.id {
            return Err(Drop::NoRoute);
        }
        // Whether it is the source's is for the destination to find out. It is not ours, nor that of whom it goes to.
        if [topology.address, hop.peer.address, destination].contains(&source) {
            return Err(Drop::SpoofedTunnelAddress);
        }
        if !vxlan::decrement_ttl(packet) {
            return Err(Drop::TtlExpired);
        }
        self.counters.relayed_packets.add(1);
        self.counters.relayed_bytes.add(packet.len() as u64);
        hop.send(packet, out);
        Ok(())
    }
}

/// A peer as the next hop, if it may be one.
fn next_hop<'a>(now: Instant, topology: &'a Topology, id: Option<&PeerId>) -> Result<Hop<'a>, Drop> {
    let hop = id.and_then(|&id| topology.peer(id)).ok_or(Drop::NoRoute)?;
    let outgoing = hop.tunnel().outgoing(now);
    let (sealer, endpoint) = outgoing.ok_or(Drop::NoRoute)?;
    if hop.is_stranger() || way::relayed_of(&endpoint).is_some() {
        return Err(Drop::NoRoute);
    }
    Ok(Hop { peer: hop, sealer, endpoint })
}

impl Way<'_> {
    /// Lends `fill` at least `room` bytes for a datagram that goes this way; `fill` returns how many it used, or `None` to
    /// give them back.
    #[inline]
    pub(super) fn transmit(&self, room: usize, out: &mut impl Egress, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        match self {
            Self::Straight(to) => out.transmit(*to, room, fill),
            Self::Relayed { hop, source, destination } => hop.relay(*source, *destination, room, out, fill),
        }
    }
}

impl Hop<'_> {
    fn relay(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        room: usize,
        out: &mut impl Egress,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let longest = RELAY_OVERHEAD + room;
        // A relay may have to cut it, also where we need not.
        let identification = self.peer.next_identification();
        let wrap = |packet: &mut [u8]| {
            let (header, datagram) = packet.split_at_mut(RELAY_OVERHEAD);
            let length = fill(datagram)?;
            vxlan::emit_relayed(header, source, destination, identification, TTL, length);
            Some(RELAY_OVERHEAD + length)
        };
        if longest > self.peer.inner_limit() {
            let mut packet = vec![0; longest];
            if let Some(length) = wrap(&mut packet) {
                self.send(&mut packet[..length], out);
            }
            return;
        }
        out.transmit(self.endpoint, 2 * longest + OVERHEAD, |space| {
            let (outer, packet) = space.split_at_mut(longest + OVERHEAD);
            let length = wrap(packet.get_mut(..longest)?)?;
            self.peer.flow.sent(1, length);
            self.sealer.seal(&packet[..length], outer)
        });
    }

    /// Sends an inner packet, in pieces if it must be. What lies in front of a piece's payload is sent by then, and gives way to
    /// its header.
    fn send(&self, packet: &mut [u8], out: &mut impl Egress) {
        let limit = self.peer.inner_limit();
        let Some((original, _)) = packet.split_first_chunk::<IPV4_LEN>().filter(|_| packet.len() > limit) else {
            return self.piece(packet, out);
        };
        let original = *original;
        for piece in fragment::pieces(packet.len(), limit) {
            let (start, end) = (piece.payload.start, piece.payload.end);
            piece.stamp(&original, &mut packet[start - IPV4_LEN..start]);
            self.piece(&packet[start - IPV4_LEN..end], out);
        }
    }

    fn piece(&self, packet: &[u8], out: &mut impl Egress) {
        self.peer.flow.sent(1, packet.len());
        out.transmit(self.endpoint, packet.len() + OVERHEAD, |datagram| self.sealer.seal(packet, datagram));
    }
}
