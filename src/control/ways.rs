//! Ways: what the mesh learns of the tunnels, and what it has them do.
//!
//! Four times a second each tunnel is looked at: whether it lives, where it leads, whether it carried anything. The mesh
//! answers with packets to be sent over certain ways, and with the way that a tunnel is to use from then on.

use super::peers::PeerOrigin;
use super::{Control, Host};
use crate::mesh::Output;
use crate::mesh::paths::{Kind, RelayRoute};
use crate::switch::ids::PeerId;
use crate::wire::key::PublicKey;
use crate::wire::message::PARTIAL_CHECKSUM;
use crate::wire::vxlan::RELAY_OVERHEAD;
use crate::wire::{UNDERLAY_OVERHEAD_V4, UNDERLAY_OVERHEAD_V6, WIREGUARD_OVERHEAD, way};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Addresses that a TCP connection to one peer is tried at together.
const MAX_STREAMS: usize = 4;

impl<H: Host> Control<H> {
    /// A session with `id` came to life.
    pub fn session_up(&mut self, now: Instant, id: PeerId) {
        if let Some(entry) = self.peers.get(&id) {
            let (key, endpoint) = (entry.config.public_key, entry.peer.tunnel().endpoint());
            let endpoint = endpoint.map(|way| self.describe_way(id, way)).unwrap_or_default();
            self.tell_of_path(now, id, &format!("session up, {endpoint}"));
            self.trust.session_up(key);
            self.run_trust(now);
        }
        self.watch_tunnels(now);
        self.run_mesh(now);
    }

    /// A message of the mesh came out of `id`'s tunnel, over the way `from`.
    pub fn message(&mut self, now: Instant, id: PeerId, from: SocketAddr, payload: &[u8]) {
        let Some(entry) = self.peers.get(&id) else { return };
        let (key, elapsed) = (entry.config.public_key, self.elapsed(now));
        match payload.get(2) {
            Some(16..=31) => self.members.membership.input(elapsed, key, payload),
            Some(32..=39) => self.trust_message(now, id, payload),
            _ => self.mesh.input(elapsed, id, from, payload),
        }
        self.run_mesh(now);
    }

    /// A datagram with `bytes` of UDP payload was too large for the interface towards `to`.
    pub fn too_big(&mut self, now: Instant, to: SocketAddr, bytes: usize) {
        let overhead = if to.is_ipv4() { UNDERLAY_OVERHEAD_V4 } else { UNDERLAY_OVERHEAD_V6 };
        let size = u16::try_from(bytes + overhead).unwrap_or(u16::MAX);
        let elapsed = self.elapsed(now);
        for &id in self.peers.keys() {
            self.mesh.too_big(elapsed, id, to, size);
        }
        self.run_mesh(now);
    }

    /// What became of a TCP connection to `to` that was asked for: its number, or why there is none.
    pub fn stream(&mut self, now: Instant, to: PublicKey, address: SocketAddr, number: Result<u32, String>) {
        let Some(id) = self.id_of(&to) else {
            return number.into_iter().for_each(|number| self.host.close_stream(number));
        };
        let name = self.peers.get(&id).map(|entry| entry.config.name.as_str()).unwrap_or_default();
        match number {
            Ok(number) => {
                tracing::debug!("peer {name}: TCP connection {number} with {address}");
                self.mesh.stream_up(self.elapsed(now), id, way::stream(number));
                self.aim(id);
                self.call(now, id);
                self.run_mesh(now);
            }
            Err(reason) => tracing::debug!("peer {name}: no TCP connection with {address}: {reason}"),
        }
    }

    /// A TCP connection has ended: one that was asked for, or one on which a peer's session was heard.
    pub fn stream_closed(&mut self, now: Instant, number: u32) {
        let elapsed = self.elapsed(now);
        for &id in self.peers.keys() {
            self.mesh.stream_down(elapsed, id, way::stream(number));
        }
        self.run_mesh(now);
    }

    /// Tells the mesh what became of the tunnels since the last look.
    pub(super) fn watch_tunnels(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        for (&id, entry) in &mut self.peers {
            let (live, trying, endpoint, heard_at, reception) = {
                let tunnel = entry.peer.tunnel();
                (tunnel.is_live(), tunnel.is_trying(), tunnel.endpoint(), tunnel.heard_at(), tunnel.reception())
            };
            if endpoint != entry.endpoint.map(|(endpoint, _)| endpoint) {
                entry.endpoint = endpoint.map(|endpoint| (endpoint, now));
                self.mesh.rerouted(elapsed, id, endpoint);
            }
            if live {
                self.mesh.session_up(elapsed, id);
            } else {
                self.mesh.session_down(id);
                if trying {
                    self.mesh.trying(elapsed, id);
                }
            }
            let flow = &entry.peer.flow;
            let carried = (flow.tx.bytes.load(Relaxed), flow.rx.bytes.load(Relaxed));
            let before = std::mem::replace(&mut entry.carried, carried);
            if carried.0 != before.0 {
                self.mesh.used(elapsed, id);
            }
            if heard_at != entry.heard_at {
                entry.heard_at = heard_at;
                if let Some(endpoint) = endpoint.filter(|_| heard_at.is_some()) {
                    self.mesh.heard(elapsed, id, endpoint, carried.1 != before.1);
                }
            }
            if live {
                self.mesh.reception(elapsed, id, reception.received, reception.lost, reception.reordered);
            }
            // A session over members is none of the links that routes are made of; and whoever has not shown that it is a member
            // is not told what we have.
            let greeted = self.mesh.peer(id).is_some_and(|view| view.greeting.is_some());
            let direct = endpoint.is_some_and(|way| Kind::of(way, entry.peer.address) != Kind::Relayed);
            let key = entry.config.public_key;
            if live && greeted && direct && entry.origin.is_admitted() {
                self.members.membership.link_up(elapsed, key);
            } else if self.members.membership.has_session(&key) {
                self.members.membership.link_down(elapsed, key);
            }
        }
    }

    /// Does what the mesh asks for, until it asks for nothing.
    pub(super) fn run_mesh(&mut self, now: Instant) {
        let mut changed = false;
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send { peer, packet, whole, via } => {
                    if let Some(entry) = self.peers.get(&peer) {
                        self.switch.send_packet(now, &entry.peer, &packet, whole, via, self.host.out());
                    }
                }
                Output::Choose { peer, way } => {
                    if let Some(entry) = self.peers.get(&peer) {
                        entry.peer.tunnel().choose(now, way);
                        if entry.endpoint.is_none_or(|(endpoint, _)| endpoint != way) {
                            self.tell_of_path(now, peer, &format!("reached {}", self.describe_way(peer, way)));
                        }
                    }
                }
                Output::Release { peer } => {
                    if let Some(entry) = self.peers.get(&peer) {
                        entry.peer.tunnel().release();
                    }
                }
                Output::WantStream { peer } => self.want_stream(peer),
                Output::Answered { way } => self.host.confirm_neighbour(way),
                Output::Observed => {
                    if self.members.chatter.may_speak(now) {
                        tracing::info!("others see this member at {:?}", self.mesh.observed());
                    }
                    self.tell_facts(now);
                }
                Output::Changed { peer } => {
                    changed = true;
                    self.apply_view(peer);
                }
            }
        }
        if changed {
            self.publish();
        }
        self.run_members(now);
    }

    /// What we sent to a peer arrived. It is counted for the way that its tunnel uses, which is another one at most once when that changes.
    pub(super) fn confirm_way(&mut self, key: &PublicKey) {
        let entry = self.id_of(key).and_then(|id| self.peers.get(&id));
        let way = entry.and_then(|entry| {
            entry.peer.tunnel().endpoint().filter(|way| Kind::of(*way, entry.peer.address) == Kind::Direct)
        });
        way.into_iter().for_each(|way| self.host.confirm_neighbour(way));
    }

    /// Has the data plane know what the mesh knows of a peer.
    fn apply_view(&self, id: PeerId) {
        if let (Some(entry), Some(view)) = (self.peers.get(&id), self.mesh.peer(id)) {
            let capabilities = view.greeting.map_or(0, |greeting| greeting.capabilities);
            entry.peer.set_limits(view.inner_limit, view.expected_limit);
            entry.peer.set_takes_partial(capabilities & PARTIAL_CHECKSUM != 0);
        }
        self.aim(id);
    }

    fn want_stream(&mut self, id: PeerId) {
        let Some(entry) = self.peers.get(&id) else { return };
        let key = entry.config.public_key;
        for address in self.stream_addresses(entry).into_iter().take(MAX_STREAMS) {
            self.host.connect_stream(key, address);
        }
    }

    /// Tells the mesh again of the ways through others: what lies beyond a neighbour, and what tunnels carry, changes
    /// without any news of whom they lead to.
    pub(super) fn tell_relays(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.tell_relay(now, id));
        self.publish();
    }

    /// Tells the mesh of the way to a member through others, as their links are.
    pub(super) fn tell_relay(&mut self, now: Instant, id: PeerId) {
        let membership = &self.members.membership;
        let Some(entry) = self.peers.get_mut(&id) else { return };
        let key = &entry.config.public_key;
        // Without a route there is no detour either, and to look for one means to look at everybody.
        entry.detour = match membership.member(key).and_then(|view| view.route) {
            Some(route) if route.next_hop == *key => membership.detour(key),
            route => route,
        };
        let Some(entry) = self.peers.get(&id) else { return };
        let route = entry.detour.and_then(|route| {
            let first = self.entry_of(&route.next_hop)?;
            let way = first.peer.tunnel().endpoint()?;
            Some(RelayRoute {
                way: way::relayed(entry.peer.address),
                cost: u32::try_from(route.cost).unwrap_or(u32::MAX),
                hops: u8::try_from(route.hops.saturating_sub(1)).unwrap_or(u8::MAX),
                limit: first.peer.inner_limit().saturating_sub(RELAY_OVERHEAD + WIREGUARD_OVERHEAD),
                preferred: self.prefers_to_relay(&route.next_hop),
                over_stream: way::stream_of(&way).is_some(),
            })
        });
        self.mesh.set_relay(self.elapsed(now), id, route);
        self.aim(id);
    }

    /// Logs what became of the way to a peer; of a stranger nobody wants to know, and of one that flaps not every time.
    fn tell_of_path(&mut self, now: Instant, id: PeerId, what: &str) {
        let Some(entry) = self.peers.get_mut(&id) else { return };
        let name = &entry.config.name;
        if !matches!(entry.origin, PeerOrigin::Stranger(_)) && entry.chatter.may_speak(now) {
            tracing::info!("peer {name}: {what}");
        } else {
            tracing::debug!("peer {name}: {what}");
        }
    }

    /// A way to a peer, in words.
    pub(super) fn describe_way(&self, id: PeerId, way: SocketAddr) -> String {
        let Some(entry) = self.peers.get(&id) else { return way.to_string() };
        match Kind::of(way, entry.peer.address) {
            Kind::Direct => format!("at {way}"),
            Kind::Stream => "by TCP".to_owned(),
            Kind::Relayed => match self.relay_of(&entry.config.public_key) {
                Some(name) => format!("through {name}"),
                None => "through other members".to_owned(),
            },
        }
    }

    /// The member that carries what goes to `key` over others.
    pub(super) fn relay_of(&self, key: &PublicKey) -> Option<String> {
        let route = self.entry_of(key)?.detour?;
        self.entry_of(&route.next_hop).map(|entry| entry.config.name.clone())
    }
}
