//! Peers: their tunnels, their endpoints, and what they tell of themselves.

use super::{Control, Host, Lookup};
use crate::config::{self, Endpoint};
use crate::mesh::{Link, Output};
use crate::switch::ids::PeerId;
use crate::switch::topology::Peer;
use crate::tunnel::TunnelSettings;
use crate::wire::message::PARTIAL_CHECKSUM;
use crate::wire::{UNDERLAY_OVERHEAD_V4, UNDERLAY_OVERHEAD_V6};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// One peer of the configuration.
pub struct PeerEntry {
    /// As the file has it.
    pub config: config::Peer,
    /// As the switch has it.
    pub peer: Arc<Peer>,
    /// Its endpoint when the tunnel was last looked at.
    endpoint: Option<SocketAddr>,
    /// Bytes sent to it when the tunnel was last looked at.
    sent_bytes: u64,
}

impl<H: Host> Control<H> {
    pub(super) fn add_peer(&mut self, now: Instant, config: &config::Peer) {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let settings = TunnelSettings {
            peer: config.public_key,
            preshared_key: config.preshared_key.clone(),
            keepalive: config.keepalive,
            index: self.unused_index(),
            endpoints: self.addresses_of(&config.endpoints),
        };
        let peer = Arc::new(Peer::new(id, config.tunnel_address, &self.switch.gate, &settings, now));
        self.add_link(&peer, config);
        self.peers.insert(id, PeerEntry { config: config.clone(), peer, endpoint: None, sent_bytes: 0 });
    }

    /// Makes the mesh see a peer afresh.
    pub(super) fn add_link(&mut self, peer: &Peer, config: &config::Peer) {
        let (ours, theirs) = (self.identity.address, config.tunnel_address);
        let underlay_v6 = peer.tunnel().endpoint().is_some_and(|endpoint| endpoint.is_ipv6());
        self.mesh.add_peer(peer.id, Link { ours, theirs, path_mtu: config.path_mtu, underlay_v6 });
        if let Some(view) = self.mesh.peer(peer.id) {
            peer.set_limits(view.inner_limit, view.expected_limit);
        }
    }

    /// 24 random bits that no other peer's tunnel has.
    fn unused_index(&mut self) -> u32 {
        loop {
            let index = (self.host.random() & 0x00ff_ffff) as u32;
            if !self.peers.values().any(|entry| entry.peer.index == index) {
                return index;
            }
        }
    }

    /// Forgets a peer. What the FDB knows of it is the caller's to forget, once the topology without it is published.
    pub(super) fn remove_peer(&mut self, id: PeerId) {
        self.peers.remove(&id);
        self.mesh.remove_peer(id);
    }

    /// The addresses that the file's endpoints mean as far as names have resolved.
    fn addresses_of(&self, endpoints: &[Endpoint]) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for endpoint in endpoints {
            match endpoint {
                Endpoint::Address(address) => addresses.push(*address),
                Endpoint::Name(name, port) => {
                    addresses.extend(self.resolved.get(&(name.clone(), *port)).into_iter().flatten());
                }
            }
        }
        addresses
    }

    /// Asks the host for all names that the file's endpoints need, when they or their urgency have changed.
    pub(super) fn resolve(&mut self) {
        let mut names: BTreeMap<(String, u16), bool> = BTreeMap::new();
        for entry in self.peers.values() {
            let trying = entry.peer.tunnel().is_trying();
            for endpoint in &entry.config.endpoints {
                if let Endpoint::Name(name, port) = endpoint {
                    *names.entry((name.clone(), *port)).or_default() |= trying;
                }
            }
        }
        self.resolved.retain(|name, _| names.contains_key(name));
        let lookups: Vec<_> = names.into_iter().map(|(name, pressing)| Lookup { name, pressing }).collect();
        if lookups != self.lookups {
            self.lookups.clone_from(&lookups);
            self.host.resolve(lookups);
        }
    }

    /// A name of the file's endpoints resolved to these addresses.
    pub fn resolved(&mut self, now: Instant, name: (String, u16), addresses: Vec<SocketAddr>) {
        let asked = self.lookups.iter().any(|lookup| lookup.name == name);
        if !asked || self.resolved.get(&name) == Some(&addresses) {
            return;
        }
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        tracing::info!("{} is at {}", name.0, texts.join(", "));
        self.resolved.insert(name.clone(), addresses);
        let wanted = Endpoint::Name(name.0, name.1);
        for entry in self.peers.values().filter(|entry| entry.config.endpoints.contains(&wanted)) {
            entry.peer.tunnel().set_endpoints(self.addresses_of(&entry.config.endpoints));
            self.switch.connect(now, &entry.peer, self.host.out());
        }
    }

    /// Gives every tunnel the endpoints that its peer's configuration means.
    pub(super) fn apply_endpoints(&self) {
        for entry in self.peers.values() {
            entry.peer.tunnel().set_endpoints(self.addresses_of(&entry.config.endpoints));
        }
    }

    /// Begins a session with every peer that has an endpoint, so that `weft peers` shows what works before traffic
    /// asks for it.
    pub(super) fn connect_all(&mut self, now: Instant) {
        for entry in self.peers.values() {
            self.switch.connect(now, &entry.peer, self.host.out());
        }
    }

    /// A session with `id` came to life.
    pub fn session_up(&mut self, now: Instant, id: PeerId) {
        if let Some(entry) = self.peers.get(&id) {
            let endpoint = entry.peer.tunnel().endpoint().map(|endpoint| endpoint.to_string());
            tracing::info!("peer {}: session up with {}", entry.config.name, endpoint.unwrap_or_default());
        }
        self.watch_tunnels(now);
        self.run_mesh(now);
    }

    /// A message of the mesh came out of `id`'s tunnel.
    pub fn message(&mut self, now: Instant, id: PeerId, payload: &[u8]) {
        self.mesh.input(self.elapsed(now), id, payload);
        self.run_mesh(now);
    }

    /// A datagram with `bytes` of UDP payload was too large for the interface towards `to`.
    pub fn too_big(&mut self, now: Instant, to: SocketAddr, bytes: usize) {
        let overhead = if to.is_ipv4() { UNDERLAY_OVERHEAD_V4 } else { UNDERLAY_OVERHEAD_V6 };
        let size = u16::try_from(bytes + overhead).unwrap_or(u16::MAX);
        let elapsed = self.elapsed(now);
        for (&id, entry) in &self.peers {
            if entry.endpoint == Some(to) {
                self.mesh.too_big(elapsed, id, size);
            }
        }
        self.run_mesh(now);
    }

    /// Tells the mesh what became of the tunnels since the last look.
    pub(super) fn watch_tunnels(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        for (&id, entry) in &mut self.peers {
            let (live, endpoint) = {
                let tunnel = entry.peer.tunnel();
                (tunnel.is_live(), tunnel.endpoint())
            };
            if endpoint != entry.endpoint {
                entry.endpoint = endpoint;
                self.mesh.rerouted(elapsed, id, endpoint.is_some_and(|endpoint| endpoint.is_ipv6()));
            }
            match live {
                true => self.mesh.session_up(elapsed, id),
                false => self.mesh.session_down(id),
            }
            let sent = entry.peer.flow.tx.bytes.load(Relaxed);
            if sent != entry.sent_bytes {
                entry.sent_bytes = sent;
                self.mesh.used(elapsed, id);
            }
        }
    }

    /// Does what the mesh asks for.
    pub(super) fn run_mesh(&mut self, now: Instant) {
        let mut changed = false;
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send { peer, packet, whole } => {
                    if let Some(entry) = self.peers.get(&peer) {
                        self.switch.send_packet(now, &entry.peer, &packet, whole, self.host.out());
                    }
                }
                Output::Changed { peer } => {
                    changed = true;
                    if let (Some(entry), Some(view)) = (self.peers.get(&peer), self.mesh.peer(peer)) {
                        let capabilities = view.greeting.map_or(0, |greeting| greeting.capabilities);
                        entry.peer.set_limits(view.inner_limit, view.expected_limit);
                        entry.peer.set_takes_partial(capabilities & PARTIAL_CHECKSUM != 0);
                    }
                }
            }
        }
        if changed {
            self.publish();
        }
    }

    /// The VNIs a peer said it has.
    pub(super) fn greeted_networks(&self, id: PeerId) -> Option<&[u32]> {
        Some(&self.mesh.peer(id)?.greeting?.networks)
    }
}
