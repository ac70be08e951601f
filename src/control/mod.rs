//! The control plane: one value that owns everything slow.
//!
//! [`Control`] knows what is wanted (the configuration, the ports asked for) and what is (ports made, sessions, what
//! peers told of themselves), and publishes the [`Topology`] that follows from both. It does no I/O: the time is an
//! argument, and the machine is a [`Host`] with two implementations, the daemon's and the tests'.
//!
//! One thread owns it and calls it for each thing that happens: a request ([`request`]), a message of a peer, a
//! namespace found, a tick. Nothing it does blocks for longer than a few netlink calls.

pub mod peers;
pub mod ports;
pub mod reload;
pub mod report;
pub mod request;

#[cfg(test)]
mod tests;

use crate::config::{self, Config, Target};
use crate::mesh::Mesh;
use crate::switch::ids::{PeerId, PortId};
use crate::switch::topology::{Network, Port, Topology};
use crate::switch::{Egress, Switch};
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use crate::wire::message::PARTIAL_CHECKSUM;
use peers::PeerEntry;
use ports::{Origin, PortEntry, State};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often [`Control::tick`] wants to be called: the tunnels' timers are made for it.
pub const TICK: Duration = Duration::from_millis(250);

/// How often peers without a session are called again, traffic or not: an outage of any length ends within this and one
/// handshake. WireGuard itself gives up after 90 seconds until there is something to send.
const CALL_AGAIN: Duration = Duration::from_secs(10);

/// The machine we run on, as the control plane needs it.
pub trait Host {
    /// A namespace that was found and can take a port.
    type Place;
    /// Where frames and datagrams of our own go.
    type Out: Egress;

    /// Makes a port's interface, all or nothing.
    ///
    /// # Errors
    /// One sentence: what is in the way and what to do.
    fn create_port(&mut self, port: &NewPort<'_>, place: &Self::Place) -> Result<(), String>;
    /// Removes a port's interface, wherever it is; one that is gone already is no error.
    fn remove_port(&mut self, id: PortId);
    /// Whether a port's interface and namespace still exist.
    fn port_lives(&mut self, id: PortId) -> bool;
    /// Changes the MTU of a port's interface.
    ///
    /// # Errors
    /// One sentence; the MTU is as before.
    fn set_port_mtu(&mut self, id: PortId, mtu: u16) -> Result<(), String>;
    /// Reads and checks the configuration file again.
    ///
    /// # Errors
    /// All that is wrong with it.
    fn load_config(&mut self) -> Result<Config, String>;
    /// Looks for these targets until told otherwise; what is found comes back through [`Control::located`].
    fn seek(&mut self, targets: Vec<(String, Target)>);
    /// Resolves these names until told otherwise; answers come back through [`Control::resolved`].
    fn resolve(&mut self, names: Vec<Lookup>);
    /// Changes how much is logged.
    fn set_log_level(&mut self, level: config::LogLevel);
    /// Random bits.
    fn random(&mut self) -> u64;
    /// Our way out.
    fn out(&mut self) -> &mut Self::Out;
    /// What the machine itself would tell an operator: offload name → state, and warnings.
    fn machine(&self) -> MachineReport;
}

/// A port to be made.
pub struct NewPort<'a> {
    /// As the switch will know it.
    pub port: Arc<Port>,
    /// As it was asked for.
    pub spec: &'a config::Port,
    /// Who asked.
    pub origin: Origin,
    /// MTU of its network.
    pub mtu: u16,
}

/// A name to be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The name, and the UDP port that goes with it.
    pub name: (String, u16),
    /// Whether a peer does not answer where the name led last: it may have moved.
    pub pressing: bool,
}

/// What the machine can do, for `weft status`.
#[derive(Debug, Clone, Default)]
pub struct MachineReport {
    /// Offload name → `on` or `off (why)`.
    pub offloads: BTreeMap<String, String>,
    /// Sentences an operator should read.
    pub warnings: Vec<String>,
    /// Data-plane threads.
    pub workers: usize,
    /// The configuration file.
    pub config_file: String,
    /// The daemon's process id.
    pub pid: u32,
}

/// Who this member is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Its public key.
    pub key: PublicKey,
    /// Its tunnel address.
    pub address: Ipv4Addr,
}

/// The control plane of one member.
pub struct Control<H: Host> {
    /// The machine.
    pub host: H,
    config: Config,
    identity: Identity,
    switch: Arc<Switch>,
    mesh: Mesh<PeerId>,
    peers: BTreeMap<PeerId, PeerEntry>,
    ports: BTreeMap<String, PortEntry>,
    next_peer: u32,
    next_port: u32,
    lookups: Vec<Lookup>,
    resolved: BTreeMap<(String, u16), Vec<std::net::SocketAddr>>,
    announcements: Vec<ports::Announcement>,
    /// When the next announcement may be made.
    announce_from: Instant,
    started: Instant,
    next_second: Instant,
    next_call: Instant,
}

impl<H: Host> Control<H> {
    /// Control of `switch` by `config`; peers are called at once, ports of the file wait until they are located.
    pub fn new(mut host: H, config: Config, identity: Identity, switch: Arc<Switch>, now: Instant) -> Self {
        // What containers' kernels are not to be left with is not asked of peers either.
        let capabilities = if config.offload.tap_checksum { PARTIAL_CHECKSUM } else { 0 };
        let mesh = Mesh::new(host.random(), capabilities);
        let mut control = Self {
            host,
            config,
            identity,
            switch,
            mesh,
            peers: BTreeMap::new(),
            ports: BTreeMap::new(),
            next_peer: 0,
            next_port: 0,
            lookups: Vec::new(),
            resolved: BTreeMap::new(),
            announcements: Vec::new(),
            announce_from: now,
            started: now,
            next_second: now,
            next_call: now + CALL_AGAIN,
        };
        for peer in control.config.peers.clone() {
            control.add_peer(now, &peer);
        }
        for port in control.config.ports.clone() {
            control.want(port, Origin::File);
        }
        control.apply_networks(now);
        control.seek();
        control.resolve();
        control.connect_all(now);
        control
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn network(&self, name: &str) -> Option<&config::Network> {
        self.config.networks.iter().find(|network| network.name == name)
    }

    /// Makes FDB, mesh and topology follow the configured networks, ports and peers.
    fn apply_networks(&mut self, now: Instant) {
        for network in &self.config.networks {
            let seconds = u32::try_from(network.ageing.as_secs()).unwrap_or(u32::MAX);
            self.switch.fdb.set_ageing(network.vni, seconds);
        }
        let elapsed = self.elapsed(now);
        self.mesh.set_networks(elapsed, self.config.networks.iter().map(|network| network.vni));
        self.apply_static_entries();
        self.publish();
    }

    fn apply_static_entries(&self) {
        for network in &self.config.networks {
            for entry in &network.static_entries {
                if let Some(place) = self.place_of(&entry.at) {
                    self.switch.fdb.insert_static(network.vni, entry.mac, place);
                }
            }
        }
    }

    fn place_of(&self, at: &config::StaticPlace) -> Option<crate::switch::ids::Place> {
        use crate::switch::ids::Place;
        match at {
            config::StaticPlace::Port(name) => match self.ports.get(name)?.state {
                State::Up { ref port, .. } => Some(Place::Port(port.id)),
                State::Waiting(_) => None,
            },
            config::StaticPlace::Peer(name) => {
                self.peers.iter().find(|(_, peer)| peer.config.name == *name).map(|(&id, _)| Place::Peer(id))
            }
        }
    }

    /// Publishes the topology that follows from what is known.
    fn publish(&self) {
        let peers: Vec<_> = self.peers.values().map(|entry| entry.peer.clone()).collect();
        let networks = self.config.networks.iter().map(|network| {
            let restricted = self.peers.values().any(|peer| peer.config.networks.is_some());
            let admitted =
                |peer: &&PeerEntry| peer.config.networks.as_ref().is_none_or(|names| names.contains(&network.name));
            Network {
                vni: network.vni,
                mtu: network.mtu,
                ports: self
                    .up_ports()
                    .filter(|(_, port, _)| port.vni == network.vni)
                    .map(|(_, p, _)| p.clone())
                    .collect(),
                peers: self.peers_of(network).map(|entry| entry.peer.clone()).collect(),
                admits: restricted.then(|| self.peers.values().filter(admitted).map(|entry| entry.peer.id).collect()),
            }
        });
        self.switch.publish(Topology::new(self.identity.address, networks.collect(), &peers));
    }

    /// The peers that BUM of `network` is replicated to: those the file or they themselves say have it, and those of
    /// which neither is known.
    fn peers_of<'a>(&'a self, network: &'a config::Network) -> impl Iterator<Item = &'a PeerEntry> {
        self.peers.values().filter(move |entry| match &entry.config.networks {
            Some(names) => names.contains(&network.name),
            None => self.greeted_networks(entry.peer.id).is_none_or(|vnis| vnis.contains(&network.vni)),
        })
    }

    fn up_ports(&self) -> impl Iterator<Item = (&String, &Arc<Port>, Mac)> {
        self.ports.iter().filter_map(|(name, entry)| match &entry.state {
            State::Up { port, .. } => Some((name, port, port.mac)),
            State::Waiting(_) => None,
        })
    }

    /// Time passed. Called every [`TICK`].
    pub fn tick(&mut self, now: Instant) {
        self.switch.tick(now, self.host.out());
        self.announce_due(now);
        if now >= self.next_second {
            self.next_second = now + Duration::from_secs(1);
            self.remove_dead_ports();
            self.resolve();
            if now >= self.next_call {
                self.next_call = now + CALL_AGAIN;
                self.connect_all(now);
            }
        }
        self.watch_tunnels(now);
        self.mesh.tick(self.elapsed(now));
        self.run_mesh(now);
    }

    /// The mesh's clock.
    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}
