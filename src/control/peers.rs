//! Peers: who is one, why, and where it may be reached.
//!
//! A peer stands in the file, was made by `weft connect`, is a member that the mesh knows, or is a stranger that may yet show that it
//! is one. Whatever the reason, it has a tunnel, and a set of candidate ways of which [`super::ways`] has the tunnel
//! use the best.

use super::chatter::Chatter;
use super::{Control, Host, Lookup};
use crate::config::{self, Endpoint};
use crate::mesh::Link;
use crate::mesh::graph::Route;
use crate::mesh::paths::Source;
use crate::switch::ids::PeerId;
use crate::switch::topology::Peer;
use crate::tunnel::TunnelSettings;
use crate::wire::key::PublicKey;
use crate::wire::way;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Addresses on the local network that are kept of one peer: it has a few interfaces.
const MAX_SEEN: usize = 4;
/// Peers known only from before a restart that are called in one round, while nobody answers: the mesh needs one of them.
const MAX_CALLED: usize = 16;

/// Why somebody is a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerOrigin {
    /// It stands in the file.
    File,
    /// `weft connect` made it.
    Connected,
    /// The mesh knows it as a member, or did before the last restart.
    Member,
    /// It is known from a token: it is called, and passes for a member once it has shown that it is one.
    Introducer,
    /// It began a session and has not shown yet that it may, until then.
    Stranger(Instant),
}

impl PeerOrigin {
    /// Whether it was let in: its frames are taken, and it gets ours. An introducer has still to show that it is a member,
    /// as a stranger has.
    pub(super) fn is_admitted(self) -> bool {
        !matches!(self, Self::Introducer | Self::Stranger(_))
    }
}

/// One peer.
pub struct PeerEntry {
    /// As the file has it, or would have it.
    pub config: config::Peer,
    /// Why it is one.
    pub origin: PeerOrigin,
    /// As the switch has it.
    pub peer: Arc<Peer>,
    /// Where its tunnel led when it was last looked at, and since when.
    pub(super) endpoint: Option<(SocketAddr, Instant)>,
    /// Bytes sent to it and received from it when the tunnel was last looked at.
    pub(super) carried: (u64, u64),
    /// Until when it was heard from.
    pub(super) heard_at: Option<Instant>,
    /// The way to it through other members, as of the last look.
    pub(super) detour: Option<Route>,
    /// The certificate that it showed, for as long as the mesh has no document of it.
    pub(super) certificate: Option<Vec<u8>>,
    /// Where beacons on the local network come from that may be its.
    seen: Vec<SocketAddr>,
    /// What is logged of its paths.
    pub(super) chatter: Chatter,
}

impl PeerEntry {
    fn new(config: &config::Peer, origin: PeerOrigin, peer: Arc<Peer>, now: Instant) -> Self {
        Self {
            config: config.clone(),
            origin,
            peer,
            endpoint: None,
            carried: (0, 0),
            heard_at: None,
            detour: None,
            certificate: None,
            seen: Vec::new(),
            chatter: Chatter::new(now),
        }
    }

    /// The underlay address by which its tunnel has been in use for that long.
    pub(super) fn worked(&self, now: Instant, long: Duration) -> Option<SocketAddr> {
        let (address, since) = self.endpoint?;
        let direct = address.ip() != self.peer.address && way::stream_of(&address).is_none();
        let long = now.saturating_duration_since(since) >= long;
        (direct && long && self.peer.tunnel().is_live()).then_some(address)
    }
}

impl<H: Host> Control<H> {
    /// The peer with this key.
    pub(super) fn id_of(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// The peer with this key.
    pub(super) fn entry_of(&self, key: &PublicKey) -> Option<&PeerEntry> {
        self.peers.get(&self.id_of(key)?)
    }

    /// The networks to which the file keeps a member, if it does: what it says of others does not count.
    pub(super) fn kept_to(&self, member: &PublicKey) -> Option<BTreeSet<u32>> {
        let admitted = self.entry_of(member)?.config.networks.as_ref()?;
        let networks = self.config.networks.iter().filter(|network| admitted.contains(&network.name));
        Some(networks.map(|network| network.vni).collect())
    }

    /// The peer with this name: that of the file, if several have it.
    pub(super) fn peer_named(&self, name: &str) -> Option<&PeerEntry> {
        let named = self.peers.values().filter(|entry| entry.config.name == name);
        named.min_by_key(|entry| match entry.origin {
            PeerOrigin::File => 0,
            PeerOrigin::Connected => 1,
            PeerOrigin::Member => 2,
            PeerOrigin::Introducer | PeerOrigin::Stranger(_) => 3,
        })
    }

    pub(super) fn add_peer(&mut self, now: Instant, config: &config::Peer, origin: PeerOrigin) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let settings = TunnelSettings {
            peer: config.public_key,
            preshared_key: config.preshared_key.clone(),
            keepalive: config.keepalive,
            index: self.unused_index(),
            endpoints: Vec::new(),
        };
        let peer = Arc::new(Peer::new(id, config.tunnel_address, &self.switch.gate, &settings, now));
        peer.set_admitted(origin.is_admitted());
        self.members.come(config.public_key, origin);
        self.peers.insert(id, PeerEntry::new(config, origin, peer, now));
        self.by_key.insert(config.public_key, id);
        self.add_link(now, id);
        id
    }

    /// Adds a peer, or makes the one with this key be as it is said here.
    pub(super) fn set_peer(&mut self, now: Instant, config: &config::Peer, origin: PeerOrigin) -> PeerId {
        let Some(id) = self.id_of(&config.public_key) else { return self.add_peer(now, config, origin) };
        let Some(entry) = self.peers.get_mut(&id) else { return id };
        let old = std::mem::replace(&mut entry.config, config.clone());
        if !entry.origin.is_admitted() {
            self.members.come(config.public_key, origin);
        }
        entry.origin = origin;
        entry.peer.set_admitted(origin.is_admitted());
        let same_session = old.preshared_key == config.preshared_key
            && old.keepalive == config.keepalive
            && old.tunnel_address == config.tunnel_address;
        if !same_session {
            self.remove_peer(now, id);
            return self.add_peer(now, config, origin);
        }
        // What it says may count in other networks than before.
        if old.networks.is_some() || config.networks.is_some() {
            self.members.changed.insert(config.public_key);
        }
        if old.path_mtu != config.path_mtu {
            self.add_link(now, id);
            self.watch_tunnels(now);
        } else {
            self.tell_candidates(now, id);
        }
        id
    }

    /// Makes the mesh see a peer afresh.
    fn add_link(&mut self, now: Instant, id: PeerId) {
        let Some(entry) = self.peers.get(&id) else { return };
        let (peer, config) = (&entry.peer, &entry.config);
        let (ours, theirs) = (self.identity.address, config.tunnel_address);
        let endpoint = peer.tunnel().endpoint();
        self.mesh.add_peer(id, Link { ours, theirs, path_mtu: config.path_mtu, endpoint });
        if let Some(view) = self.mesh.peer(id) {
            peer.set_limits(view.inner_limit, view.expected_limit);
        }
        // What the mesh has to say of it was said of the one before.
        if self.members.membership.member(&config.public_key).is_some() {
            self.members.changed.insert(config.public_key);
        }
        self.tell_candidates(now, id);
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

    /// Forgets a peer; what the FDB knows of it goes when the topology without it is published.
    pub(super) fn remove_peer(&mut self, now: Instant, id: PeerId) {
        if let Some(entry) = self.peers.remove(&id) {
            self.by_key.remove(&entry.config.public_key);
            self.gone.push(id);
            self.members.known_due |= !matches!(entry.origin, PeerOrigin::Stranger(_));
            let elapsed = self.elapsed(now);
            self.members.membership.link_down(elapsed, entry.config.public_key);
        }
        self.mesh.remove_peer(id);
        self.multicast_due |= self.peer_groups.remove(&id).is_some();
    }

    /// Forgets peers and all that is known of them.
    pub(super) fn lose_peers(&mut self, now: Instant, ids: impl IntoIterator<Item = PeerId>) {
        ids.into_iter().for_each(|id| self.remove_peer(now, id));
        if !self.gone.is_empty() {
            self.publish();
            self.run_stations();
        }
    }

    /// Whether a peer could be added beside those that are there.
    pub(super) fn admits(&self, config: &config::Peer) -> Result<(), String> {
        let others = || self.peers.values().filter(|entry| entry.config.public_key != config.public_key);
        let is_peer = |entry: &&PeerEntry| !matches!(entry.origin, PeerOrigin::Stranger(_));
        if others().filter(is_peer).count() >= config::parse::MAX_PEERS {
            return Err(format!("this member has {} peers, and no more are allowed", config::parse::MAX_PEERS));
        }
        if config.public_key == self.identity.key {
            return Err(format!(
                "'{}' has this member's own public key: give each host a key of its own",
                config.name
            ));
        }
        if config.tunnel_address == self.identity.address {
            return Err(format!(
                "'{}' and this member have the same tunnel address {}: set tunnel_address on one of them",
                config.name, config.tunnel_address
            ));
        }
        if let Some(other) =
            others().filter(is_peer).find(|other| other.config.tunnel_address == config.tunnel_address)
        {
            return Err(format!(
                "'{}' and '{}' have the same tunnel address {}: set tunnel_address on one of them",
                config.name, other.config.name, config.tunnel_address
            ));
        }
        Ok(())
    }

    /// The VNIs a peer said it has.
    pub(super) fn greeted_networks(&self, id: PeerId) -> Option<&[u32]> {
        Some(&self.mesh.peer(id)?.greeting?.networks)
    }

    // ---- where a peer may be reached -------------------------------------------------------------------------------

    /// Tells the mesh where a peer may be reached, as far as file, names, beacons and memory know.
    pub(super) fn tell_candidates(&mut self, now: Instant, id: PeerId) {
        let Some(entry) = self.peers.get(&id) else { return };
        let elapsed = self.elapsed(now);
        let mut file = Vec::new();
        let mut dns = Vec::new();
        for endpoint in &entry.config.endpoints {
            match endpoint {
                Endpoint::Address(address) => file.push(*address),
                Endpoint::Name(name, port) => {
                    dns.extend(self.resolved.get(&(name.clone(), *port)).into_iter().flatten().copied());
                }
                Endpoint::TcpAddress(_) | Endpoint::TcpName(..) => {}
            }
        }
        let contact = self.contacts.get(&entry.config.public_key).filter(|_| self.config.node.discovery);
        let cache = contact.map(|contact| contact.worked.clone()).unwrap_or_default();
        // An address of the link alone says little to people, and is needed only where there is no other.
        let member = self.members.membership.member(&entry.config.public_key);
        let announced = member.is_some_and(|view| !view.facts.endpoints.is_empty());
        let has_other = announced || !(file.is_empty() && dns.is_empty() && cache.is_empty());
        let of_link = |way: &SocketAddr| matches!(way.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        let seen: Vec<_> = entry.seen.iter().copied().filter(|way| !(has_other && of_link(way))).collect();
        for (source, ways) in [(Source::File, file), (Source::Dns, dns), (Source::Cache, cache), (Source::Lan, seen)]
        {
            self.mesh.set_candidates(elapsed, id, source, &ways);
        }
        self.aim(id);
    }

    /// Gives a peer's tunnel the ways that a handshake may take.
    pub(super) fn aim(&self, id: PeerId) {
        if let Some(entry) = self.peers.get(&id) {
            entry.peer.tunnel().set_endpoints(self.mesh.handshake_candidates(id));
        }
    }

    /// Where a TCP connection to a peer may be tried: what the file names for it, else its underlay addresses.
    pub(super) fn stream_addresses(&self, entry: &PeerEntry) -> Vec<SocketAddr> {
        let mut named = Vec::new();
        for endpoint in &entry.config.endpoints {
            match endpoint {
                Endpoint::TcpAddress(address) => named.push(*address),
                Endpoint::TcpName(name, port) => {
                    named.extend(self.resolved.get(&(name.clone(), *port)).into_iter().flatten().copied());
                }
                Endpoint::Address(_) | Endpoint::Name(..) => {}
            }
        }
        if named.is_empty() {
            let ways = self.mesh.handshake_candidates(entry.peer.id);
            let direct =
                |address: &SocketAddr| address.ip() != entry.peer.address && way::stream_of(address).is_none();
            named.extend(ways.into_iter().filter(direct));
        }
        named
    }

    /// Asks the host for all names that the peers' endpoints need, when they or their urgency have changed.
    pub(super) fn resolve(&mut self) {
        let mut names: BTreeMap<(String, u16), bool> = BTreeMap::new();
        for entry in self.peers.values() {
            let trying = entry.peer.tunnel().is_trying();
            for endpoint in &entry.config.endpoints {
                if let Some(name) = endpoint.name() {
                    *names.entry(name).or_default() |= trying;
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

    /// A name of the peers' endpoints resolved to these addresses.
    pub fn resolved(&mut self, now: Instant, name: (String, u16), addresses: Vec<SocketAddr>) {
        let asked = self.lookups.iter().any(|lookup| lookup.name == name);
        if !asked || self.resolved.get(&name) == Some(&addresses) {
            return;
        }
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        tracing::info!("{} is at {}", name.0, texts.join(", "));
        self.resolved.insert(name.clone(), addresses);
        let named =
            |entry: &&PeerEntry| entry.config.endpoints.iter().any(|other| other.name().as_ref() == Some(&name));
        let ids: Vec<PeerId> = self.peers.values().filter(named).map(|entry| entry.peer.id).collect();
        for id in ids {
            self.tell_candidates(now, id);
            self.call(now, id);
        }
        self.run_mesh(now);
    }

    /// Somebody on our LAN says, unauthenticated, that a member is at `address`.
    pub fn seen(&mut self, now: Instant, key: PublicKey, address: SocketAddr) {
        let Some(id) = self.id_of(&key).filter(|_| !self.is_inside(address.ip())) else { return };
        let Some(entry) = self.peers.get_mut(&id) else { return };
        if entry.seen.contains(&address) {
            return;
        }
        tracing::debug!("peer {} may be on our LAN, at {address}", entry.config.name);
        entry.seen.insert(0, address);
        entry.seen.truncate(MAX_SEEN);
        self.tell_candidates(now, id);
        self.call(now, id);
        self.run_mesh(now);
    }

    // ---- calling ---------------------------------------------------------------------------------------------------

    /// Begins a session with a peer unless there is one.
    pub(super) fn call(&mut self, now: Instant, id: PeerId) {
        let Some(entry) = self.peers.get(&id) else { return };
        self.switch.connect(now, &entry.peer, self.host.out());
    }

    /// Begins a session with every peer that is to have one without traffic that asks for it: those of whom the mesh knows
    /// nothing yet, so that it finds out, and those that [`crate::mesh::membership`] chose.
    pub(super) fn call_all(&mut self, now: Instant) {
        let recalled = self.next_to_recall();
        let membership = &self.members.membership;
        let mut ids = Vec::new();
        for (&id, entry) in &self.peers {
            let key = &entry.config.public_key;
            let is_called = membership.neighbours().contains(key)
                || match entry.origin {
                    PeerOrigin::File | PeerOrigin::Connected | PeerOrigin::Introducer => {
                        membership.member(key).is_none()
                    }
                    PeerOrigin::Member => recalled.contains(&id),
                    PeerOrigin::Stranger(_) => false,
                };
            ids.extend(is_called.then_some(id));
        }
        for id in ids {
            self.call(now, id);
        }
    }

    /// The next few members of before a restart, while there is no link with anybody.
    fn next_to_recall(&mut self) -> Vec<PeerId> {
        let has_link = |entry: &PeerEntry| self.members.membership.has_session(&entry.config.public_key);
        if self.peers.values().any(has_link) {
            return Vec::new();
        }
        let of_before = |(_, entry): &(&PeerId, &PeerEntry)| entry.origin == PeerOrigin::Member;
        let all: Vec<PeerId> = self.peers.iter().filter(of_before).map(|(&id, _)| id).collect();
        let from = all.partition_point(|&id| Some(id) <= self.recalled);
        let next: Vec<PeerId> = all.iter().cycle().skip(from).take(all.len().min(MAX_CALLED)).copied().collect();
        self.recalled = next.last().copied();
        next
    }

    /// Tells the host whom to look for on our LANs, and the membership whom to look for at all.
    pub(super) fn tell_known(&mut self, now: Instant) {
        let known = |entry: &&PeerEntry| !matches!(entry.origin, PeerOrigin::Stranger(_));
        let keys: Vec<PublicKey> = self.peers.values().filter(known).map(|entry| entry.config.public_key).collect();
        if self.config.node.discovery {
            self.host.set_known(keys.clone());
        }
        self.members.membership.set_contacts(self.elapsed(now), keys);
    }
}
