//! Peers: their tunnels, their endpoints, and what they tell of themselves.

use super::{Control, Host};
use crate::config::{self, Endpoint};
use crate::mesh::Output;
use crate::switch::ids::{PeerId, Place};
use crate::switch::topology::Peer;
use crate::switch::tunnel::TunnelSettings;
use crate::wire::message::PARTIAL_CHECKSUM;
use crate::wire::{UNDERLAY_OVERHEAD_V4, UNDERLAY_OVERHEAD_V6};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// One peer of the configuration.
pub struct PeerEntry {
    /// As the file has it.
    pub config: config::Peer,
    /// As the switch has it.
    pub peer: Arc<Peer>,
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
        self.mesh.add_peer(id, self.identity.address, config.tunnel_address, config.path_mtu);
        self.peers.insert(id, PeerEntry { config: config.clone(), peer });
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

    pub(super) fn remove_peer(&mut self, id: PeerId) {
        self.peers.remove(&id);
        self.mesh.remove_peer(id);
        self.switch.fdb.forget_place(Place::Peer(id));
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

    /// Asks the host for all names that the file's endpoints need.
    pub(super) fn resolve(&mut self) {
        let names = self.peers.values().flat_map(|entry| &entry.config.endpoints).filter_map(|endpoint| match endpoint {
            Endpoint::Name(name, port) => Some((name.clone(), *port)),
            Endpoint::Address(_) => None,
        });
        let names: std::collections::BTreeSet<_> = names.collect();
        self.resolved.retain(|name, _| names.contains(name));
        self.host.resolve(names.into_iter().collect());
    }

    /// A name of the file's endpoints resolved to these addresses.
    pub fn resolved(&mut self, name: (String, u16), addresses: Vec<SocketAddr>) {
        let first = self.resolved.insert(name.clone(), addresses).is_none();
        let wanted = Endpoint::Name(name.0, name.1);
        for entry in self.peers.values() {
            if entry.config.endpoints.contains(&wanted) {
                entry.peer.tunnel().set_endpoints(self.addresses_of(&entry.config.endpoints));
                if first {
                    self.switch.connect(&entry.peer, self.host.out());
                }
            }
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
    pub(super) fn connect_all(&mut self) {
        for entry in self.peers.values() {
            self.switch.connect(&entry.peer, self.host.out());
        }
    }

    /// A session with `id` came to life.
    pub fn session_up(&mut self, now: Instant, id: PeerId) {
        let Some(entry) = self.peers.get(&id) else { return };
        tracing::info!("peer {}: session up with {:?}", entry.config.name, entry.peer.tunnel().endpoint());
        self.mesh.session_up(now, id);
        self.run_mesh(now);
    }

    /// A message of the mesh came out of `id`'s tunnel.
    pub fn message(&mut self, now: Instant, id: PeerId, payload: &[u8]) {
        self.mesh.input(now, id, payload);
        self.run_mesh(now);
    }

    /// A datagram with `bytes` of UDP payload was too large for the interface towards `to`.
    pub fn too_big(&mut self, now: Instant, to: SocketAddr, bytes: usize) {
        let overhead = if to.is_ipv4() { UNDERLAY_OVERHEAD_V4 } else { UNDERLAY_OVERHEAD_V6 };
        let size = u16::try_from(bytes + overhead).unwrap_or(u16::MAX);
        let ids: Vec<_> = self.peers.values().filter(|e| e.peer.tunnel().endpoint() == Some(to)).map(|e| e.peer.id).collect();
        for id in ids {
            self.mesh.too_big(now, id, size);
        }
        self.run_mesh(now);
    }

    /// Does what the mesh asks for.
    pub(super) fn run_mesh(&mut self, now: Instant) {
        for entry in self.peers.values() {
            let (live, endpoint) = {
                let tunnel = entry.peer.tunnel();
                (tunnel.is_live(), tunnel.endpoint())
            };
            self.mesh.set_path(now, entry.peer.id, live, endpoint.is_some_and(|endpoint| endpoint.is_ipv6()));
        }
        let mut networks_changed = false;
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send { peer, packet } => {
                    if let Some(entry) = self.peers.get(&peer) {
                        self.switch.send_packet(now, &entry.peer, &packet, self.host.out());
                    }
                }
                Output::Changed { peer } => {
                    if let Some(entry) = self.peers.get(&peer) {
                        entry.peer.set_inner_limit(self.mesh.inner_limit(peer));
                        entry.peer.set_takes_partial(self.mesh.capabilities(peer) & PARTIAL_CHECKSUM != 0);
                        networks_changed = true;
                    }
                }
            }
        }
        if networks_changed {
            self.publish();
        }
    }
}
