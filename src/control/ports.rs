//! Ports: from asked for to made, and away again.
//!
//! A port of the file waits until its target exists, and again when the target's namespace dies. One that `weft attach`
//! made waits for its container to be started again, until that is removed; one of a process or path is gone with its namespace. Whatever is refused leaves everything as it was.

use super::ipam::Denied;
use super::request::{Attach, Detach, Response};
use super::{Control, Host, NewPort, TICK};
use crate::config::check_port;
use crate::config::{self, Target};
use crate::switch::allowance::Allowance;
use crate::switch::ids::{Place, PortId};
use crate::switch::topology::Port;
use crate::wire::announce;
use crate::wire::ethernet::Mac;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Announcements per attachment and the time between them: RFC 5227 §2.3 asks for two, two seconds apart; one more
/// makes up for a session that is still being made.
const ANNOUNCEMENTS: u8 = 3;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// What one copy of an announcement may take of the control thread's time: ten times what it does take, a write to a TAP or a
/// packet to a peer. So a restart with a thousand ports in one network, a million copies each time, uses a tenth of a core
/// for as long as it takes, and control goes on answering.
const ANNOUNCE_PACE: Duration = Duration::from_micros(20);
/// The interface name in the target unless asked otherwise, as pipework has it.
pub const DEFAULT_IFNAME: &str = "eth1";

/// Who asked for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration file: it exists whenever its target does.
    File,
    /// `weft attach`: it exists until its target does not. That of a container waits for one that has stopped to be started again.
    Attach,
    /// Docker's network driver: it exists until Docker deletes its endpoint, or its container is gone.
    Docker,
    /// `weft expose`: it exists until `weft hide`.
    Expose,
}

/// Why a target was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// One sentence.
    pub reason: String,
    /// Whether it is gone for good: the engine that had the container has it no longer.
    pub removed: bool,
}

/// One port asked for.
pub struct PortEntry {
    /// As it was asked for.
    pub spec: config::Port,
    /// Who asked.
    pub origin: Origin,
    /// Whether it exists.
    pub state: State,
    /// The MAC address that it had when it existed last: a container that is started again has it again.
    pub last_mac: Option<Mac>,
}

impl PortEntry {
    /// Whether it is the host's own. Docker's are not, which begin in the host's namespace.
    pub(super) fn is_hosts(&self) -> bool {
        self.spec.target == Target::Host && self.origin != Origin::Docker
    }
}

/// Whether a port exists.
pub enum State {
    /// Its target does not exist, or something is in the way: the reason.
    Waiting(String),
    /// It carries frames.
    Up {
        /// As the switch knows it.
        port: Arc<Port>,
    },
}

/// Gratuitous ARP and unsolicited neighbour advertisements still to be sent.
pub(super) struct Announcement {
    due: Instant,
    left: u8,
    port: Arc<Port>,
    addresses: Vec<IpAddr>,
}

impl<H: Host> Control<H> {
    /// A port is wanted as soon as its target is located.
    pub(super) fn want(&mut self, spec: config::Port, origin: Origin) {
        let state = State::Waiting("its target has not been found yet".to_owned());
        self.ports.insert(spec.name.clone(), PortEntry { spec, origin, state, last_mac: None });
    }

    /// Tells the host which targets ports wait for.
    pub(super) fn seek(&mut self) {
        let waiting = self.ports.values().filter(|entry| matches!(entry.state, State::Waiting(_)));
        let targets = waiting.map(|entry| (entry.spec.name.clone(), entry.spec.target.clone())).collect();
        self.host.seek(targets);
    }

    /// The target of a waiting port was found, or why it was not.
    pub fn located(&mut self, now: Instant, name: &str, place: Result<H::Place, Missing>) {
        let Some(entry) = self.ports.get(name) else { return };
        if !matches!(entry.state, State::Waiting(_)) {
            return;
        }
        let (spec, origin) = (entry.spec.clone(), entry.origin);
        if origin == Origin::Attach && matches!(&place, Err(missing) if missing.removed) {
            tracing::info!("port {name}: its container was removed, and it with it");
            self.remove_port(now, name);
            self.withdraw_held(now, name);
            return self.forget_holder(name);
        }
        let place = place.map_err(|missing| missing.reason);
        let made = place.and_then(|place| self.make(now, &spec, origin, &place).map_err(Denied::reason));
        match made {
            Ok(()) => {
                tracing::info!("port {name}: up in network {}", spec.network);
            }
            Err(reason) => {
                if let Some(entry) = self.ports.get_mut(name) {
                    if !matches!(&entry.state, State::Waiting(old) if *old == reason) {
                        tracing::warn!("port {name} waits: {reason}");
                    }
                    entry.state = State::Waiting(reason);
                }
            }
        }
    }

    /// `weft attach`, its target found.
    pub fn attach(&mut self, now: Instant, attach: &Attach, place: &H::Place) -> Response {
        let ifname = attach.ifname.clone().unwrap_or_else(|| DEFAULT_IFNAME.to_owned());
        let name = attach.name.clone().unwrap_or_else(|| format!("{}:{ifname}", attach.target));
        let spec = config::Port {
            name: name.clone(),
            network: attach.network.clone(),
            target: attach.target.clone(),
            ifname,
            mac: attach.mac,
            addresses: attach.addresses.clone(),
            auto: attach.auto,
            names: attach.names.clone(),
            labels: attach.labels.clone(),
            allow: attach.allow.clone(),
            rate: attach.rate.unwrap_or_default(),
        };
        if let Err(reason) = self.check(&spec) {
            return Response::Refused(reason);
        }
        match self.make(now, &spec, Origin::Attach, place) {
            Ok(()) => self.port_status(&name).map_or_else(
                || Response::Refused(format!("port {name} vanished while it was made: attach it again")),
                |port| Response::Attached(Box::new(port)),
            ),
            Err(denied) => denied.response(),
        }
    }

    /// Whether a port could be asked for beside those that exist.
    pub(super) fn check(&self, spec: &config::Port) -> Result<(), String> {
        let network = self.network(&spec.network).ok_or_else(|| self.no_network(&spec.network))?;
        // One that waits for its container to come back makes room for another wish.
        let gives_way = |entry: &PortEntry| {
            entry.spec.name == spec.name && entry.origin == Origin::Attach && matches!(entry.state, State::Waiting(_))
        };
        let others: Vec<_> =
            self.ports.values().filter(|entry| !gives_way(entry)).map(|entry| entry.spec.clone()).collect();
        check_port(spec, network, &others)?;
        let taken =
            spec.mac.and_then(|mac| self.up_ports().find(|(_, port, used)| *used == mac && port.vni == network.vni));
        if let Some((name, _, mac)) = taken {
            return Err(format!("the MAC address {mac} is already port {name}'s: choose another with --mac"));
        }
        Ok(())
    }

    /// Whether a MAC address that somebody asked for is not another member's. One that is gone is not counted.
    ///
    /// # Errors
    /// Whose it is.
    pub(super) fn check_station(&self, vni: u32, mac: Mac) -> Result<(), Denied> {
        let mut there = self.others_in(vni).filter(|view| view.alive);
        let found = there.find_map(|view| {
            let attached = view.facts.attachments.iter().find(|known| (known.vni, known.mac) == (vni, mac))?;
            Some(format!("{} of member '{}'", attached.name, view.name()))
        });
        found.map_or(Ok(()), |owner| {
            Err(Denied::Elsewhere(format!("the MAC address {mac} belongs to {owner}: choose another, or none")))
        })
    }

    pub(super) fn no_network(&self, name: &str) -> String {
        let names: Vec<_> = self.config.networks.iter().map(|network| network.name.as_str()).collect();
        format!("there is no network '{name}' here; this member has: {}", names.join(", "))
    }

    pub(super) fn make(
        &mut self,
        now: Instant,
        spec: &config::Port,
        origin: Origin,
        place: &H::Place,
    ) -> Result<(), Denied> {
        let network = self.network(&spec.network).ok_or_else(|| format!("there is no network '{}'", spec.network))?;
        let (vni, mtu) = (network.vni, network.mtu);
        let mac = spec.mac.or_else(|| self.last_mac(vni, &spec.name)).unwrap_or_else(|| {
            let [a, b, c, d, e, f, ..] = self.host.random().to_le_bytes();
            Mac::local([a, b, c, d, e, f])
        });
        spec.mac.map_or(Ok(()), |mac| self.check_station(vni, mac))?;
        let leases = self.lease_port(now, spec)?;
        let port = self.new_port(vni, mac);
        let addresses: Vec<IpAddr> = leases.addresses.iter().map(|address| address.cidr.address).collect();
        let sequence = self.stations.next_sequence(vni, mac, &addresses);
        let new = NewPort { port: port.clone(), spec, addresses: &leases.addresses, origin, mtu, sequence };
        if let Err(reason) = self.host.create_port(&new, place) {
            self.unlease(&leases);
            return Err(reason.into());
        }
        self.port_up(now, spec.clone(), origin, port, sequence, false);
        Ok(())
    }

    /// The MAC address that a port had before its container stopped, unless somebody has it by now.
    fn last_mac(&self, vni: u32, name: &str) -> Option<Mac> {
        let mac = self.ports.get(name)?.last_mac?;
        let is_free = self.up_ports().all(|(_, port, used)| (port.vni, used) != (vni, mac));
        (is_free && self.check_station(vni, mac).is_ok()).then_some(mac)
    }

    /// A port as the switch knows it, with an id of its own.
    pub fn new_port(&mut self, vni: u32, mac: Mac) -> Arc<Port> {
        let id = PortId(self.next_port);
        self.next_port += 1;
        Arc::new(Port { id, vni, mac, flow: crate::switch::counters::Flow::default(), spoken: Allowance::default() })
    }

    /// Whether a port found again after a restart still belongs here: the network it is in, or `None`.
    pub fn wants_adopted(&self, spec: &config::Port, origin: Origin, vni: u32) -> bool {
        let same_network = self.network(&spec.network).is_some_and(|network| network.vni == vni);
        same_network
            && match origin {
                Origin::File | Origin::Expose => self.ports.get(&spec.name).is_some_and(|entry| entry.spec == *spec),
                Origin::Attach => !self.ports.contains_key(&spec.name),
                Origin::Docker => self.docker.has_port(&spec.name) && !self.ports.contains_key(&spec.name),
            }
    }

    /// A port was found again after a restart. Its network's MTU may be another one meanwhile.
    pub fn adopted(&mut self, now: Instant, spec: config::Port, origin: Origin, port: Arc<Port>, sequence: u32) {
        let mtu = self.network(&spec.network).map(|network| self.mtu_of(&spec.name, network));
        if let Some(Err(reason)) = mtu.map(|mtu| self.host.set_port_mtu(port.id, mtu)) {
            tracing::warn!("port {} keeps its MTU: {reason}", spec.name);
        }
        let name = spec.name.clone();
        self.port_up(now, spec, origin, port, sequence, true);
        // Docker may be away, and its containers are there all the same.
        let names = self.docker.names_of(&name).to_vec();
        if !names.is_empty() {
            self.set_port_names(now, &name, names);
        }
    }

    /// A port exists: made, or found again.
    pub(super) fn port_up(
        &mut self,
        now: Instant,
        spec: config::Port,
        origin: Origin,
        port: Arc<Port>,
        sequence: u32,
        was_there: bool,
    ) {
        self.listeners.port_up(self.elapsed(now), port.vni, port.id, was_there);
        let addresses: Vec<IpAddr> = self.addresses_of(&spec).iter().map(|address| address.cidr.address).collect();
        self.port_has(now, port.id, port.vni, &spec.name, &addresses);
        self.attached(now, &port, &spec.name, addresses.clone(), sequence);
        self.announcements.push(Announcement { due: now, left: ANNOUNCEMENTS, port: port.clone(), addresses });
        let before = self
            .ports
            .insert(spec.name.clone(), PortEntry { spec, origin, state: State::Up { port }, last_mac: None });
        let was_waiting = before.is_some();
        self.apply_static_entries();
        self.publish();
        self.run_listeners();
        self.announce_due(now);
        if was_waiting {
            self.seek();
        }
    }

    /// Makes the announcements that are due, the latest ports' first, as far as their pace allows.
    pub(super) fn announce_due(&mut self, now: Instant) {
        // What was not used is kept for one tick.
        self.announce_from = self.announce_from.max(now.checked_sub(TICK).unwrap_or(now));
        for announcement in self.announcements.iter_mut().rev() {
            if self.announce_from > now {
                break;
            }
            if announcement.due > now {
                continue;
            }
            let topology = self.switch.topology();
            let network = topology.network(announcement.port.vni);
            let receivers = network.map_or(0, |network| {
                network.ports.len() + network.peers.iter().filter(|peer| !peer.is_meshed()).count()
            });
            let copies = receivers * announcement.addresses.len();
            self.announce_from += ANNOUNCE_PACE * u32::try_from(copies).unwrap_or(u32::MAX);
            announcement.left -= 1;
            announcement.due = now + ANNOUNCE_INTERVAL;
            for address in &announcement.addresses {
                let mac = announcement.port.mac;
                let frame = announce::of(mac, *address);
                self.switch.announce(now, &announcement.port, &frame, self.host.out());
            }
        }
        self.announcements.retain(|announcement| announcement.left > 0);
    }

    /// `weft detach`.
    pub fn detach(&mut self, now: Instant, detach: &Detach) -> Response {
        let matches = |entry: &&PortEntry| {
            let named = entry.spec.name == detach.port;
            let target = detach.port.parse::<Target>().is_ok_and(|target| target == entry.spec.target);
            (named || target) && detach.ifname.as_ref().is_none_or(|ifname| *ifname == entry.spec.ifname)
        };
        let found: Vec<_> = self.ports.values().filter(matches).collect();
        if found.is_empty() {
            // It may have died: then what is kept for it is needed no longer.
            self.forget_holder(&detach.port);
            return Response::Refused(format!("no port '{}': `weft ports` lists them", detach.port));
        }
        let entry = match found.as_slice() {
            [entry] => entry,
            several => {
                let names: Vec<_> = several.iter().map(|entry| entry.spec.name.as_str()).collect();
                return Response::Refused(format!(
                    "'{}' has {} ports ({}): name one of them, or add --ifname",
                    detach.port,
                    several.len(),
                    names.join(", ")
                ));
            }
        };
        if entry.origin == Origin::File {
            return Response::Refused(format!(
                "port {} stands in the configuration file: remove it there and run `weft reload`",
                entry.spec.name
            ));
        }
        if entry.origin == Origin::Docker {
            return Response::Refused(format!(
                "port {} is Docker's: `docker network disconnect` detaches it",
                entry.spec.name
            ));
        }
        if entry.origin == Origin::Expose {
            let network = &entry.spec.network;
            return Response::Refused(format!("port {} is this host's: `weft hide {network}`", entry.spec.name));
        }
        let name = entry.spec.name.clone();
        self.remove_port(now, &name);
        self.withdraw_held(now, &name);
        self.forget_holder(&name);
        Response::Done(vec![format!("port {name} detached")])
    }

    /// Removes a port, whatever its state.
    pub(super) fn remove_port(&mut self, now: Instant, name: &str) {
        let Some(entry) = self.ports.remove(name) else { return };
        self.forget_port_names(name);
        match entry.state {
            State::Up { port } => self.port_gone(now, &port, false),
            State::Waiting(_) => {
                self.host.forget_port(name);
                self.seek();
            }
        }
    }

    /// Forgets a port that was up: first the workers, then the FDB, then the interface. One that is to come back is remembered
    /// across restarts.
    fn port_gone(&mut self, now: Instant, port: &Port, comes_back: bool) {
        self.announcements.retain(|announcement| announcement.port.id != port.id);
        self.publish();
        self.listeners.port_down(port.id);
        self.run_listeners();
        self.switch.fdb.forget_place(Place::Port(port.id));
        self.detached(now, port);
        self.port_had(now, port.id);
        self.host.remove_port(port.id, comes_back);
    }

    /// A TAP could not be read: removes it if it is gone.
    pub fn port_failed(&mut self, now: Instant, id: PortId) {
        let name = self.up_ports().find(|(_, port, _)| port.id == id).map(|(name, ..)| name.clone());
        if let Some(name) = name.filter(|_| !self.host.port_lives(id)) {
            self.port_died(now, &name);
        }
    }

    pub(super) fn remove_dead_ports(&mut self, now: Instant) {
        let up: Vec<_> = self.up_ports().map(|(name, port, _)| (name.clone(), port.id)).collect();
        for (name, id) in up {
            if !self.host.port_lives(id) {
                self.port_died(now, &name);
            }
        }
    }

    /// A port's namespace or interface is gone: one that is wanted still waits for it to come back.
    fn port_died(&mut self, now: Instant, name: &str) {
        let Some(entry) = self.ports.remove(name) else { return };
        self.forget_port_names(name);
        tracing::info!("port {name}: its namespace or interface is gone");
        let comes_back = comes_back(&entry.spec, entry.origin);
        if comes_back {
            self.want(entry.spec, entry.origin);
        }
        if let State::Up { port } = entry.state {
            if let Some(waiting) = self.ports.get_mut(name) {
                waiting.last_mac = Some(port.mac);
            }
            self.port_gone(now, &port, comes_back);
        }
        if !comes_back {
            self.withdraw_held(now, name);
        }
        self.seek();
    }

    /// A port of an earlier run is not there any more: says whether it waits for its target now.
    pub fn not_adopted(&mut self, spec: &config::Port, origin: Origin) -> bool {
        let waits = origin == Origin::Attach && comes_back(spec, origin) && !self.ports.contains_key(&spec.name);
        if waits {
            self.want(spec.clone(), origin);
            self.seek();
        }
        waits || self.ports.contains_key(&spec.name)
    }
}

/// Whether a port whose namespace has ended waits for another one. A process and a path that are gone will not be the same again;
/// a container is started again under its name.
fn comes_back(spec: &config::Port, origin: Origin) -> bool {
    match origin {
        Origin::File | Origin::Expose => true,
        Origin::Attach => matches!(spec.target, Target::Container(_)),
        // A container that is started again has another endpoint.
        Origin::Docker => false,
    }
}
