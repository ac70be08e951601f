//! The control plane: one value that owns everything slow.
//!
//! [`Control`] knows what is wanted (the configuration, the ports asked for) and what is (ports made, sessions, what
//! peers told of themselves), and publishes the [`Topology`] that follows from both. It does no I/O: the time is an
//! argument, and the machine is a [`Host`] with two implementations, the daemon's and the tests'.
//!
//! One thread owns it and calls it for each thing that happens: a request ([`request`]), a message of a peer, a
//! namespace found, a tick. Nothing it does blocks for longer than a few netlink calls.

mod attachments;
mod chatter;
pub mod contacts;
pub mod docker;
pub mod exposures;
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

use crate::config::{self, Config, PortAddress, Target};
use crate::docker::Driver;
use crate::docker::record::Record as DockerRecord;
use crate::ipam::{Claim, Lease};
use crate::mesh::Mesh;
use crate::mesh::document::Archive;
use crate::mesh::facts::Attachment;
use crate::mesh::listeners::Listeners;
use crate::mesh::membership::{Membership, Settings};
use crate::mesh::stations::Stations;
use crate::switch::ids::{PeerId, Place, PortId};
use crate::switch::topology::{Network, Port, Topology};
use crate::switch::{Egress, Switch};
use crate::trust::Policy;
use crate::trust::record::Record;
use crate::trust::sign::Signer;
use crate::trust::{Authority, TrustState};
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use contacts::Contact;
use docker::Whereabouts;
use members::Members;
use names::{AddedName, Names};
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
    /// Makes a port's interface in the daemon's namespace, all or nothing: without addresses and not up, for Docker to take.
    ///
    /// # Errors
    /// One sentence: what is in the way and what to do.
    fn create_loose_port(&mut self, port: &NewPort<'_>) -> Result<(), String>;
    /// Where the interface of such a port is now; remembers it across restarts where that is news. `sandbox` is where Docker
    /// says that its container's namespace is.
    fn find_loose_port(&mut self, id: PortId, sandbox: Option<&str>) -> Whereabouts;
    /// Removes a TAP from the daemon's namespace that is no port's; one that is not there is no error.
    fn remove_loose_interface(&mut self, ifname: &str);
    /// Removes a port's interface, wherever it is; one that is gone already is no error. What is remembered of it stays if the
    /// port is to come back.
    fn remove_port(&mut self, id: PortId, comes_back: bool);
    /// Forgets what is remembered of a port that has no interface.
    fn forget_port(&mut self, name: &str);
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
    /// Connects to a member by TCP; what becomes of it comes back through [`Control::stream`]. `false` if this machine does
    /// not do that.
    fn connect_stream(&mut self, to: PublicKey, address: SocketAddr) -> bool;
    /// Closes a TCP connection; one that is not there is no error.
    fn close_stream(&mut self, number: u32);
    /// Names the members to look for on our LANs; where they are comes back through [`Control::seen`].
    fn set_known(&mut self, keys: Vec<PublicKey>);
    /// Changes how much is logged.
    fn set_log_level(&mut self, level: config::LogLevel);
    /// Random bits.
    fn random(&mut self) -> u64;
    /// What was kept of other members, once.
    fn contacts(&mut self) -> Vec<Contact>;
    /// Keeps a contact across restarts, in place of the one with its key.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn keep_contact(&mut self, contact: &Contact) -> Result<(), String>;
    /// Keeps it no longer.
    fn drop_contact(&mut self, key: &PublicKey);
    /// The time since 1970, as far as the machine knows it.
    fn unix_time(&self) -> Duration;
    /// The addresses by which other hosts may reach this one: those of its interfaces, but not those that are only of use
    /// on it, nor those that it has inside our own networks.
    fn underlay_addresses(&mut self) -> Vec<IpAddr>;
    /// Bits for secrets.
    fn fill_random(&mut self, bytes: &mut [u8]);
    /// Remembers a record of trust across restarts.
    ///
    /// # Errors
    /// One sentence; what was remembered before is.
    fn keep_trust(&mut self, record: &Record) -> Result<(), String>;
    /// Forgets what is in a slot.
    ///
    /// # Errors
    /// One sentence; it is remembered still.
    fn drop_trust(&mut self, slot: &str) -> Result<(), String>;
    /// Makes the key of the authority that is to follow ours, on the disk.
    ///
    /// # Errors
    /// One sentence; nothing changed.
    fn next_authority(&mut self) -> Result<Authority, String>;
    /// Puts it in the place of ours, whose key is gone then.
    ///
    /// # Errors
    /// One sentence; the next start does it.
    fn adopt_next_authority(&mut self) -> Result<(), String>;
    /// What was kept of Docker's networks and endpoints, once.
    fn docker_records(&mut self) -> Vec<DockerRecord>;
    /// Keeps such a record across restarts, in place of the one in its slot.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn keep_docker(&mut self, record: &DockerRecord) -> Result<(), String>;
    /// Keeps it no longer.
    fn drop_docker(&mut self, slot: &str);
    /// The daemon's own namespace.
    ///
    /// # Errors
    /// One sentence.
    fn host_place(&mut self) -> Result<Self::Place, String>;
    /// What was remembered of exposed networks and published ports, once.
    fn host_records(&mut self) -> Vec<exposures::Record>;
    /// Remembers such a record across restarts, in place of the one in its slot.
    ///
    /// # Errors
    /// One sentence; what was remembered before is.
    fn keep_host_record(&mut self, record: &exposures::Record) -> Result<(), String>;
    /// Forgets what is in a slot.
    ///
    /// # Errors
    /// One sentence; it is remembered still.
    fn drop_host_record(&mut self, slot: &str) -> Result<(), String>;
    /// Makes the packet filter, and the switches of the kernel that go with it, do this and nothing else for us.
    ///
    /// # Errors
    /// One sentence; it does what it did before.
    fn set_rules(&mut self, rules: &nat::Rules) -> Result<(), String>;
    /// What stands in the way of those rules: sentences that begin with the network.
    fn obstacles(&self) -> Vec<String>;
    /// Keeps a port of this host free of others as long as it is published.
    ///
    /// # Errors
    /// Who has it.
    fn hold_port(&mut self, port: nat::HostPort) -> Result<(), String>;
    /// Does so no longer; one that is not held is no error.
    fn release_port(&mut self, port: nat::HostPort);
    /// Probes these addresses by TCP until told otherwise; what they answer comes back through [`Control::probed`].
    fn probe(&mut self, instances: Vec<SocketAddr>);
    /// The names that were added by hand, once.
    fn added_names(&mut self) -> Vec<AddedName>;
    /// Keeps such a name across restarts, in place of the one with its network and name.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn keep_name(&mut self, added: &AddedName) -> Result<(), String>;
    /// Keeps it no longer.
    ///
    /// # Errors
    /// One sentence; it is kept still.
    fn drop_name(&mut self, added: &AddedName) -> Result<(), String>;
    /// The leases that were kept, once.
    fn leases(&mut self) -> Vec<Lease>;
    /// Keeps some leases across restarts, in place of those of their addresses, and forgets others: all of it or nothing.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn change_leases(&mut self, keep: &[Lease], forget: &[(u32, IpAddr)]) -> Result<(), String>;
    /// What other members were known to have in our slices, once.
    fn claims(&mut self) -> Vec<Claim>;
    /// Keeps some of it across restarts, and other no longer: all of it or nothing.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn change_claims(&mut self, keep: &[Claim], forget: &[Claim]) -> Result<(), String>;
    /// Tells the kernel that what we send to this underlay address arrives, so that it need not ask for its neighbour on the way.
    fn confirm_neighbour(&mut self, to: SocketAddr);
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
    /// The addresses of its interface: those asked for, and those chosen.
    pub addresses: &'a [PortAddress],
    /// Who asked.
    pub origin: Origin,
    /// MTU of its network.
    pub mtu: u16,
    /// Which of two places of its station is the later one; kept across restarts.
    pub sequence: u32,
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
    /// Control of `switch` by `config`; peers are called at once, ports of the file wait until they are located.
    pub fn new(
        mut host: H,
        config: Config,
        signer: Signer,
        address: Ipv4Addr,
        switch: Arc<Switch>,
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
        let names = Names::new(host.added_names());
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
