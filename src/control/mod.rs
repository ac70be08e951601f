//! The control plane: one value that owns everything slow.
//!
//! [`Control`] knows what is wanted (the configuration, the ports asked for) and what is (ports made, sessions, what
//! peers told of themselves), and publishes the [`Topology`] that follows from both. It does no I/O: the time is an
//! argument, and the machine is a [`Host`].
//!
//! One thread owns it and calls it for each thing that happens: a request ([`request`]), a message of a peer, a
//! namespace found, a tick. Nothing it does blocks for longer than a few netlink calls.

mod attachments;
mod chatter;
pub mod contacts;
pub mod docker;
pub mod exposures;
pub mod host;
pub mod ipam;
mod members;
mod multicast;
pub mod names;
pub mod nat;
mod paths;
pub mod peers;
mod policy;
pub mod ports;
pub mod publications;
pub mod reload;
pub mod report;
pub mod request;
mod strangers;
pub mod trust;
mod ways;

#[cfg(test)]
mod tests;

use crate::config::{self, Config};
use crate::docker::Driver;
use crate::mesh::Mesh;
use crate::mesh::document::Archive;
use crate::mesh::facts::Attachment;
use crate::mesh::listeners::Listeners;
use crate::mesh::membership::{Membership, Settings};
use crate::mesh::stations::Stations;
use crate::names::Directory;
use crate::switch::Switch;
use crate::switch::ids::{PeerId, Place, PortId};
use crate::switch::topology::{Network, Port, Topology};
use crate::trust::Policy;
use crate::trust::TrustState;
use crate::trust::sign::Signer;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use contacts::Contact;
pub use host::{Host, Lookup, MachineReport, NewPort};
use members::Members;
use names::Names;
use peers::{PeerEntry, PeerOrigin};
use ports::{Origin, PortEntry, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often [`Control::tick`] wants to be called: the tunnels' timers are made for it.
pub const TICK: Duration = Duration::from_millis(250);

/// How often, in seconds, who we are is shown to peers that may not know it yet.
const SHOW_AGAIN: u64 = 3;

/// How often peers without a session are called again, traffic or not: an outage of any length ends within this and one
/// handshake. WireGuard itself gives up after 90 seconds until there is something to send.
const CALL_AGAIN: Duration = Duration::from_secs(10);

/// How often everybody's certificate is looked at, if nothing else asks for it: a tenth of what clocks may differ by. Each costs a
/// signature's verification.
const JUDGE_AGAIN: Duration = Duration::from_secs(30);

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
    members: Members,
    /// What our ports have.
    attachments: BTreeMap<PortId, Attachment>,
    /// Who has what.
    stations: Stations,
    /// What our ports listen to.
    listeners: Listeners<PortId>,
    /// What peers that announce it listen to, by network.
    peer_groups: BTreeMap<PeerId, BTreeSet<(u32, IpAddr)>>,
    /// They have changed, and the switch does not know.
    multicast_due: bool,
    peers: BTreeMap<PeerId, PeerEntry>,
    by_key: BTreeMap<PublicKey, PeerId>,
    contacts: BTreeMap<PublicKey, Contact>,
    ports: BTreeMap<String, PortEntry>,
    policies: policy::Policies,
    next_peer: u32,
    next_port: u32,
    lookups: Vec<Lookup>,
    resolved: BTreeMap<(String, u16), Vec<SocketAddr>>,
    announcements: Vec<ports::Announcement>,
    /// What of this host is in networks, and what of networks is on it.
    outside: exposures::Outside,
    addresses: ipam::Addresses,
    trust: TrustState,
    /// What Docker was promised.
    docker: Driver,
    join_failure: Option<String>,
    /// Peers that are none any more and that the data plane still has.
    gone: Vec<PeerId>,
    /// The last of the peers of before that was called.
    recalled: Option<PeerId>,
    /// When the next announcement may be made.
    announce_from: Instant,
    started: Instant,
    /// The last tick.
    now: Instant,
    next_second: Instant,
    next_call: Instant,
    next_judgement: Instant,
    names: Names,
}

impl<H: Host> Control<H> {
    /// Control of `switch` by `config`; peers are called at once, ports of the file wait until they are located. Who is called what
    /// is put into `directory`.
    pub fn new(
        mut host: H,
        config: Config,
        signer: Signer,
        address: Ipv4Addr,
        switch: Arc<Switch>,
        directory: Arc<Directory>,
        now: Instant,
    ) -> Self {
        let identity = Identity { key: signer.public_key(), address };
        let incarnation = host.random();
        let mut mesh = Mesh::new(incarnation, members::capabilities(&config));
        if !config.node.discovery {
            mesh.forgo_punching();
        }
        let (seed, unix) = (host.random(), host.unix_time());
        let (policy, archive) = (Policy::default(), Archive::default());
        let settings = Settings { signer, incarnation, seed, unix, policy, archive };
        let members = Members::new(Membership::new(Duration::ZERO, settings), now);
        let contacts = host.contacts().into_iter().map(|contact| (contact.public_key, contact)).collect();
        let stations = Stations::new(identity.key);
        let names = Names::new(host.added_names(), directory);
        let trust = trust::without_records(&config, identity);
        let docker = Driver::new(host.docker_records(), Duration::ZERO);
        let mut control = Self {
            host,
            config,
            identity,
            switch,
            mesh,
            members,
            attachments: BTreeMap::new(),
            stations,
            listeners: Listeners::default(),
            peer_groups: BTreeMap::new(),
            multicast_due: false,
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            contacts,
            ports: BTreeMap::new(),
            policies: policy::Policies::default(),
            next_peer: 0,
            next_port: 0,
            lookups: Vec::new(),
            resolved: BTreeMap::new(),
            announcements: Vec::new(),
            outside: exposures::Outside::default(),
            addresses: ipam::Addresses::default(),
            trust,
            docker,
            join_failure: None,
            gone: Vec::new(),
            recalled: None,
            announce_from: now,
            started: now,
            now,
            next_second: now,
            next_call: now + CALL_AGAIN,
            next_judgement: now + JUDGE_AGAIN,
            names,
        };
        control.restore_leases(now);
        for peer in control.config.peers.clone() {
            control.add_peer(now, &peer, PeerOrigin::File);
        }
        control.recall(now);
        control.judge_again(now);
        for port in control.config.ports.clone() {
            control.want(port, Origin::File);
        }
        control.restore_outside();
        control.apply_networks(now);
        control.seek();
        control.resolve();
        control.look_at_addresses(now);
        control.tell_facts(now);
        control.call_all(now);
        control.run_mesh(now);
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
        self.mesh.set_inside(self.config.networks.iter().flat_map(|network| &network.subnets).copied().collect());
        self.apply_static_entries();
        self.place_all_stations();
        self.apply_zones();
        self.addresses.due = true;
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

    fn place_of(&self, at: &config::StaticPlace) -> Option<Place> {
        match at {
            config::StaticPlace::Port(name) => match self.ports.get(name)?.state {
                State::Up { ref port, .. } => Some(Place::Port(port.id)),
                State::Waiting(_) => None,
            },
            // The file means its own, whatever members call themselves.
            config::StaticPlace::Peer(name) => {
                let is_meant = |peer: &PeerEntry| peer.origin == PeerOrigin::File && peer.config.name == *name;
                self.peers.iter().find(|(_, peer)| is_meant(peer)).map(|(&id, _)| Place::Peer(id))
            }
        }
    }

    /// Publishes the topology that follows from what is known. The FDB forgets whom it no longer has: from then on the
    /// workers do not meet them and cannot learn of them anew.
    fn publish(&mut self) {
        let mut policies = self.policies(self.now);
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
                suppress: network.suppress,
                snooping: network.snooping,
                policy: policies.remove(&network.vni),
                service: network.service_addresses().into_iter().map(|cidr| cidr.address).collect(),
                egress: self.egress_of(&network.name),
            }
        });
        let relays = self.config.node.relay != config::Relay::No;
        let topology = Topology::new(self.identity.address, networks.collect(), &peers);
        let topology = topology.with_alias(self.identity.key.tunnel_address());
        self.switch.publish(topology.with_routes(relays, self.routes()).with_detours(self.detours()));
        for id in std::mem::take(&mut self.gone) {
            self.switch.fdb.forget_place(Place::Peer(id));
        }
    }

    /// The peers that BUM of `network` is replicated to: those that have it by the file, by what the mesh knows of them, or by
    /// their hello; and those of which none of it is known, unless the mesh knows that they are gone.
    fn peers_of<'a>(&'a self, network: &'a config::Network) -> impl Iterator<Item = &'a PeerEntry> {
        self.peers.values().filter(move |entry| match (&entry.config.networks, entry.origin) {
            (_, origin) if !origin.is_admitted() => false,
            (Some(names), _) => names.contains(&network.name),
            (None, _) => match self.members.membership.member(&entry.config.public_key) {
                Some(view) if view.was_alive => view.alive && view.facts.networks.contains(&network.vni),
                // Its links are not known yet; its session may be.
                Some(_) if !entry.peer.tunnel().is_live() => false,
                _ => self.greeted_networks(entry.peer.id).is_none_or(|vnis| vnis.contains(&network.vni)),
            },
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
        self.now = now;
        self.switch.tick(now, self.host.out());
        self.announce_due(now);
        self.stations.tick(self.elapsed(now));
        self.run_stations();
        self.listeners.tick(self.elapsed(now));
        self.run_listeners();
        if now >= self.next_second {
            self.next_second = now + Duration::from_secs(1);
            self.remove_dead_ports(now);
            self.tick_docker(now);
            self.tick_addresses(now);
            self.tick_trust(now);
            self.resolve();
            self.look_at_addresses(now);
            self.drop_strangers(now);
            self.note_networks(now);
            self.keep_neighbours(now);
            if self.elapsed(now).as_secs().is_multiple_of(SHOW_AGAIN) {
                self.show_again(now);
            }
            if now >= self.next_call {
                self.next_call = now + CALL_AGAIN;
                self.call_all(now);
                self.keep_contacts(now);
                self.tell_trust();
                self.tell_relays(now);
            }
            if now >= self.next_judgement {
                self.next_judgement = now + JUDGE_AGAIN;
                self.judge_again(now);
            }
        }
        self.watch_tunnels(now);
        self.hold_again(now);
        self.mend_exposures(now);
        self.run_outside(now);
        self.run_policies();
        self.run_due(now);
    }

    /// Does what the mesh has to do by now: it is in more of a hurry than [`TICK`].
    pub fn run_due(&mut self, now: Instant) {
        if self.members.facts_due {
            self.tell_facts(now);
        }
        let elapsed = self.elapsed(now);
        self.mesh.tick(elapsed);
        self.members.membership.tick(elapsed);
        self.run_mesh(now);
    }

    /// How long until [`Control::run_due`] has something to do.
    pub fn idle_for(&self, now: Instant) -> Duration {
        if self.members.facts_due {
            return Duration::ZERO;
        }
        let elapsed = self.elapsed(now);
        let members = self.members.membership.next_deadline(elapsed);
        self.mesh.next_deadline().map_or(members, |mesh| mesh.min(members)).saturating_sub(elapsed)
    }

    /// The mesh's clock.
    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}
