//! From a local port: check, learn, look up, and send to ports and peers.
//!
//! A frame lies in its worker's buffer with [`HEADROOM`] bytes free in front. Everything that goes to a peer is made
//! *in place*: the headers of a segment or fragment are stamped over the end of what precedes its payload, the packet is
//! sealed from there into the send batch, and the few bytes overwritten are put back. So the payload never moves, the
//! only copy is the encryption's, and the frame is whole again for the next receiver.

use super::counters::{Counters, Drop};
use super::groups::Audience;
use super::ids::{Place, PortId};
use super::policy::Passage;
use super::relay::Way;
use super::topology::{Network, Peer, Port, Topology};
use super::{Egress, HEADROOM, Switch, service};
use crate::switch::fdb::Source;
use crate::tunnel::{OVERHEAD, Sealer};
use crate::wire::ethernet::{Frame, Mac, TAG_LEN};
use crate::wire::neighbour::{Answer, question};
use crate::wire::segment::{MAX_HEADER, Plan};
use crate::wire::vnet::{Gso, PartialChecksum, VnetHeader};
use crate::wire::{INNER_OVERHEAD, checksum, ethernet, fragment, mss, packet, vxlan};
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

/// Room to save what a stamped header overwrites.
const SAVED: usize = INNER_OVERHEAD + MAX_HEADER;
const IPV4_HEADER: usize = 20;

/// A frame on its way to peers: what does not depend on which peer.
struct Outgoing {
    /// Where it begins in its buffer.
    at: usize,
    len: usize,
    header: VnetHeader,
    address: Ipv4Addr,
    vni: u32,
    flow: u16,
}

impl Switch {
    /// A container sent the frame `buffer[at..at + len]`; `at` is at least [`HEADROOM`]. The buffer comes back with the
    /// frame unchanged.
    pub fn port_input(
        &self,
        now: Instant,
        port: &Port,
        header: VnetHeader,
        buffer: &mut [u8],
        at: usize,
        out: &mut impl Egress,
    ) {
        let topology = self.topology.load();
        let len = buffer.len().saturating_sub(at);
        self.counters.port_rx_frames.add(1);
        port.flow.received(len);
        if let Err(reason) = self.forward(now, &topology, port, header, buffer, at, out) {
            self.counters.drop(reason);
            port.flow.rx.drop(1);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the frame and everything it meets")]
    fn forward(
        &self,
        now: Instant,
        topology: &Topology,
        port: &Port,
        header: VnetHeader,
        buffer: &mut [u8],
        at: usize,
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let bytes = buffer.get(at..).filter(|_| at >= HEADROOM).ok_or(Drop::MalformedFrame)?;
        let frame = Frame::parse(bytes).map_err(|_| Drop::MalformedFrame)?;
        let network = topology.network(port.vni).ok_or(Drop::UnknownNetwork)?;
        let gso = header.gso().map_err(|_| Drop::MalformedFrame)?;
        if header.partial().is_some_and(|partial| !packet::may_finish(&frame, partial)) {
            return Err(Drop::MalformedFrame);
        }
        if longest_frame(gso, &header, bytes.len()) > usize::from(network.mtu) + ethernet::HEADER_LEN + 2 * TAG_LEN {
            return Err(Drop::OversizedFrame);
        }
        let (source, destination) = (frame.source(), frame.destination());
        check_addresses(source, destination)?;
        let seconds = self.seconds(now);
        let content = service::content(network, &frame);
        if service::is_claim(network, source, &content) {
            return Err(self.refuse_claim(network, port, bytes, out));
        }
        let passage = match &network.policy {
            Some(policy) => Some(self.enter(now, policy, port, &frame, content)?),
            None => None,
        };
        service::check_readable(network, &content)?;
        let passage = passage.as_ref();
        if let Some(passage) = passage {
            passage.allowed()?;
        }
        let observed = self.fdb.observe(seconds, port.vni, source, Place::Port(port.id), destination);
        if observed.source == Source::Pinned {
            return Err(Drop::SpoofedSource);
        }
        let (address, vni, flow) = (topology.address, port.vni, flow(source, destination));
        let outgoing = Outgoing { at, len: bytes.len(), header, address, vni, flow };
        if let Some(answer) = self.answer(network, bytes) {
            self.counters.suppressed_frames.add(1);
            tell(&self.counters, port, answer.bytes(), out);
            return Ok(());
        }
        if destination == Mac::service(network.vni) {
            return self.serve(seconds, topology, network, port, passage, header, &mut buffer[at..], out);
        }
        match observed.destination.filter(|_| !destination.is_group()) {
            Some(Place::Port(id)) if id == port.id => Err(Drop::SamePort),
            Some(Place::Port(id)) => {
                if let Some(passage) = passage {
                    passage.to_port(id)?;
                }
                out.deliver(id, &[IoSlice::new(&header.to_bytes()), IoSlice::new(bytes)]);
                Ok(())
            }
            Some(Place::Peer(id)) => {
                if let Some(passage) = passage {
                    passage.to_peer()?;
                }
                let peer = topology.peer(id).ok_or(Drop::NoReceiver)?;
                self.send_to_peer(now, topology, peer, &outgoing, buffer, out)
            }
            None => {
                let audience = self.audience(network, &frame);
                let heard = destination.is_group() && self.snoop(seconds, network, port, &frame, out);
                match self.flood(now, topology, network, port, &audience, passage, &outgoing, buffer, out) {
                    Err(Drop::NoReceiver | Drop::NoListener) if heard => Ok(()),
                    result => result,
                }
            }
        }
    }

    /// The answer to a frame, if it is a question that need not go on.
    fn answer(&self, network: &Network, frame: &[u8]) -> Option<Answer> {
        if !network.suppress && !network.service.is_any() {
            return None;
        }
        let question = question(frame)?;
        if network.service.has(question.target) {
            return question.answer_of_router(Mac::service(network.vni));
        }
        network.suppress.then(|| self.neighbours.answer(network.vni, &question))?
    }

    #[expect(clippy::too_many_arguments, reason = "the frame and everything it meets")]
    fn flood(
        &self,
        now: Instant,
        topology: &Topology,
        network: &Network,
        port: &Port,
        audience: &Audience,
        passage: Option<&Passage<'_>>,
        outgoing: &Outgoing,
        buffer: &mut [u8],
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let reaches = |id| audience.has_port(id) && passage.is_none_or(|passage| passage.reaches(id));
        let ports = || network.ports.iter().filter(|other| other.id != port.id && reaches(other.id));
        let mut peers = network.peers.iter().filter(|peer| audience.has_peer(peer)).peekable();
        if peers.peek().is_none() && ports().next().is_none() {
            return Err(passage.map_or_else(|| audience.nobody(), |passage| passage.nobody(audience.nobody())));
        }
        self.counters.flooded_frames.add(1);
        for other in ports() {
            if let Some(Err(reason)) = passage.map(|passage| passage.to_port(other.id)) {
                self.counters.drop(reason);
                continue;
            }
            let frame = IoSlice::new(&buffer[outgoing.at..]);
            out.deliver(other.id, &[IoSlice::new(&outgoing.header.to_bytes()), frame]);
        }
        let second = self.seconds(now);
        let mut silent = 0;
        for peer in peers {
            if peer.is_silent(second) {
                silent += 1;
                continue;
            }
            // One peer that cannot be served must not silence the rest.
            if let Err(reason) = self.send_to_peer(now, topology, peer, outgoing, buffer, out) {
                self.counters.drop(reason);
            }
        }
        self.counters.drop_many(Drop::PeerSilent, silent);
        Ok(())
    }

    /// Hands a frame that we made ourselves to all local ports of a network but that of its source: what neighbours here have
    /// to know of a station elsewhere.
    pub fn tell_ports(&self, vni: u32, frame: &[u8], out: &mut impl Egress) {
        let topology = self.topology.load();
        let Ok(source) = Frame::parse(frame).map(|frame| frame.source()) else { return };
        let ports = topology.network(vni).into_iter().flat_map(|network| &network.ports);
        ports.filter(|port| port.mac != source).for_each(|port| tell(&self.counters, port, frame, out));
    }

    /// Hands a frame that we made ourselves to one local port.
    pub fn tell_port(&self, vni: u32, id: PortId, frame: &[u8], out: &mut impl Egress) {
        let topology = self.topology.load();
        let mut ports = topology.network(vni).into_iter().flat_map(|network| &network.ports);
        ports.find(|port| port.id == id).into_iter().for_each(|port| tell(&self.counters, port, frame, out));
    }

    /// Sends a frame that we made ourselves for `port`'s container, an announcement, to the rest of its network. Peers that hear
    /// of the container by the mesh are left out: there may be a thousand, and it would take a session with each.
    pub fn announce(&self, now: Instant, port: &Port, frame: &[u8], out: &mut impl Egress) {
        let topology = self.topology.load();
        let Some(network) = topology.network(port.vni) else { return };
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(frame);
        let flow = Frame::parse(frame).map_or(0, |frame| flow(frame.source(), frame.destination()));
        let (header, address) = (VnetHeader::default(), topology.address);
        let outgoing = Outgoing { at: HEADROOM, len: frame.len(), header, address, vni: port.vni, flow };
        if let Err(reason) =
            self.flood(now, &topology, network, port, &Audience::Unmeshed, None, &outgoing, &mut buffer, out)
            && reason != Drop::NoReceiver
        {
            self.counters.drop(reason);
        }
    }

    fn send_to_peer(
        &self,
        now: Instant,
        topology: &Topology,
        peer: &Peer,
        outgoing: &Outgoing,
        buffer: &mut [u8],
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        if peer.is_stranger() {
            return Err(Drop::NotAdmitted);
        }
        let limit = peer.inner_limit().saturating_sub(INNER_OVERHEAD);
        let frame = &buffer[outgoing.at..];
        let partial = outgoing.header.partial();
        let plan = match outgoing.header.gso() {
            Ok(Gso::None) if outgoing.len <= limit => None,
            Ok(Gso::None) => partial.and_then(|partial| Plan::oversized_tcp(frame, partial, limit)),
            _ => Some(Plan::new(frame, &outgoing.header, limit).map_err(|_| Drop::MalformedFrame)?),
        };
        let live = peer.tunnel().outgoing(now);
        let way = match live {
            Some((sealer, endpoint)) => Some((sealer, self.way(now, topology, endpoint)?)),
            None => None,
        };
        let mut sender = Sender { switch: self, now, topology, peer, way, outgoing, buffer, out };
        match plan {
            Some(plan) => {
                for segment in 0..plan.count() {
                    sender.segment(&plan, segment);
                }
                self.counters.tunnel_tx_frames.add(plan.count() as u64);
            }
            None => {
                sender.whole(partial);
                self.counters.tunnel_tx_frames.add(1);
            }
        }
        Ok(())
    }
}

/// One frame being sent to one peer.
struct Sender<'a, E> {
    switch: &'a Switch,
    now: Instant,
    topology: &'a Topology,
    peer: &'a Peer,
    /// What seals its packets, and where they go; `None` before there is a session.
    way: Option<(Arc<Sealer>, Way<'a>)>,
    outgoing: &'a Outgoing,
    buffer: &'a mut [u8],
    out: &'a mut E,
}

impl<E: Egress> Sender<'_, E> {
    /// Sends segment `n` of the super-frame.
    fn segment(&mut self, plan: &Plan, n: usize) {
        let payload = plan.payload(n);
        let (start, end) = (self.outgoing.at + payload.start, self.outgoing.at + payload.end);
        let head = start - plan.header_len();
        let mut saved = [0; SAVED];
        let saved = &mut saved[..INNER_OVERHEAD + plan.header_len()];
        saved.copy_from_slice(&self.buffer[head - INNER_OVERHEAD..start]);
        plan.stamp(n, &mut self.buffer[head..start]);
        self.frame(head, end, Some(plan.partial()));
        self.buffer[head - INNER_OVERHEAD..start].copy_from_slice(saved);
    }

    /// Sends the frame as it is, but for the segment size that a SYN asks for.
    fn whole(&mut self, partial: Option<PartialChecksum>) {
        let (at, end) = (self.outgoing.at, self.outgoing.at + self.outgoing.len);
        let limit = self.peer.expected_limit().saturating_sub(INNER_OVERHEAD);
        let lowered = mss::lower(&mut self.buffer[at..end], limit, partial.is_some());
        let field = partial.map(|p| at + usize::from(p.start) + usize::from(p.offset));
        let saved = field.map(|field| [self.buffer[field], self.buffer[field + 1]]);
        self.frame(at, end, partial);
        if let (Some(field), Some(saved)) = (field, saved) {
            self.buffer[field..field + 2].copy_from_slice(&saved);
        }
        if let Some(lowered) = lowered {
            lowered.undo(&mut self.buffer[at..end]);
        }
    }

    /// Wraps the frame `buffer[head..end]` and sends it, in fragments if it must be. The bytes in front of `head` and
    /// the checksum field are the caller's to restore.
    fn frame(&mut self, head: usize, end: usize, partial: Option<PartialChecksum>) {
        let packet = head - INNER_OVERHEAD;
        let fits = end - packet <= self.peer.inner_limit();
        // A packet in pieces carries its own checksum: only that tells if pieces of two packets were joined (RFC 4963).
        let signalled = partial.filter(|&p| fits && self.peer.takes_partial() && vxlan::can_signal(p));
        if let (Some(partial), None) = (partial, signalled) {
            let (start, offset) = (usize::from(partial.start), usize::from(partial.offset));
            if checksum::finish(&mut self.buffer[head..end], start, offset).is_err() {
                return self.switch.counters.drop(Drop::MalformedFrame);
            }
        }
        let &Outgoing { address, vni, flow, .. } = self.outgoing;
        // Only fragments need an identification of their own (RFC 6864); drawing fewer makes them last longer.
        let identification = if fits { 0 } else { self.peer.next_identification() };
        let header = &mut self.buffer[packet..head];
        vxlan::emit(header, address, self.peer.address, identification, vni, flow, signalled, end - head);
        if fits {
            self.packet(packet, end);
        } else {
            self.fragments(packet, end);
        }
    }

    fn fragments(&mut self, packet: usize, end: usize) {
        let mut original = [0; IPV4_HEADER];
        original.copy_from_slice(&self.buffer[packet..packet + IPV4_HEADER]);
        for piece in fragment::pieces(end - packet, self.peer.inner_limit()) {
            let (start, stop) = (packet + piece.payload.start, packet + piece.payload.end);
            let head = start - IPV4_HEADER;
            let mut saved = [0; IPV4_HEADER];
            saved.copy_from_slice(&self.buffer[head..start]);
            piece.stamp(&original, &mut self.buffer[head..start]);
            self.packet(head, stop);
            self.buffer[head..start].copy_from_slice(&saved);
        }
    }

    fn packet(&mut self, start: usize, end: usize) {
        self.peer.flow.sent(1, end - start);
        let packet = &self.buffer[start..end];
        match &self.way {
            Some((sealer, way)) => {
                way.transmit(packet.len() + OVERHEAD, self.out, |datagram| sealer.seal(packet, datagram));
            }
            None => self.switch.emit(self.now, self.topology, self.peer, packet, None, self.out),
        }
    }
}

/// Hands a frame that we made ourselves to a port.
pub(super) fn tell(counters: &Counters, port: &Port, frame: &[u8], out: &mut impl Egress) {
    counters.told_frames.add(1);
    out.deliver(port.id, &[IoSlice::new(&VnetHeader::default().to_bytes()), IoSlice::new(frame)]);
}

/// The checks of 802.1Q that concern addresses.
pub(super) fn check_addresses(source: Mac, destination: Mac) -> Result<(), Drop> {
    if source.is_group() || source.is_zero() {
        return Err(Drop::InvalidSource);
    }
    if destination.is_reserved() {
        return Err(Drop::ReservedDestination);
    }
    Ok(())
}

/// The longest frame that a super-frame of `len` bytes stands for, by its header: datagrams keep their size, while TCP is
/// cut to what its way carries.
fn longest_frame(gso: Gso, header: &VnetHeader, len: usize) -> usize {
    match gso {
        Gso::None => len,
        Gso::Udp => usize::from(header.csum_start) + vxlan::UDP_LEN + usize::from(header.gso_size),
        Gso::Tcp4 | Gso::Tcp6 => 0,
    }
}

/// What tells flows apart for the UDP source port (RFC 7348 §5): a stock host spreads them over its queues by it.
fn flow(source: Mac, destination: Mac) -> u16 {
    let ([.., a, b], [.., c, d]) = (source.0, destination.0);
    u16::from_be_bytes([a ^ c.rotate_left(4), b ^ d.rotate_left(4)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_frame_is_as_long_as_the_datagrams_it_stands_for() {
        let header = VnetHeader { gso_size: 1472, csum_start: 34, ..VnetHeader::default() };
        assert_eq!(longest_frame(Gso::None, &header, 9014), 9014);
        assert_eq!(longest_frame(Gso::Udp, &header, 60_000), 1514);
        assert_eq!(longest_frame(Gso::Tcp4, &VnetHeader { gso_size: 65_535, ..header }, 60_000), 0);
    }
}
