//! Members: what the mesh knows becomes peers, candidates, stations and routes; what we are becomes our facts.
//!
//! ```text
//!   ports, networks, addresses ──► Facts ──► Membership ◄──► the members' messages
//!                                               │ Changed
//!      peers, candidates, routes, stations ◄────┘
//! ```
//!
//! A member becomes a peer when its document is known and its key may be a member's; its tunnel is made when there is
//! something to say. [`Membership`] chooses the few with whom sessions are kept, to tell and to be told.

use super::chatter::Chatter;
use super::contacts::Contact;
use super::peers::PeerOrigin;
use super::{Control, Host};
use crate::config;
use crate::mesh::facts::{Attachment, Endpoint, EndpointKind, Facts, ISSUER, Relay};
use crate::mesh::membership::{Membership, Output};
use crate::mesh::paths::Source;
use crate::switch::ids::{IdMap, PeerId};
use crate::trust::policy::Stranger;
use crate::wire::key::PublicKey;
use crate::wire::message::{self, PARTIAL_CHECKSUM};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How often our own addresses are looked at: a host that moves is found through those it moves to.
const LOOK_AT_ADDRESSES: Duration = Duration::from_secs(5);
/// How long a network is announced that has no port any more, or none yet after the start.
const NETWORK_LASTS: Duration = Duration::from_secs(30);
/// Warnings kept for `weft status`; the oldest gives way.
const MAX_WARNINGS: usize = 16;
/// Refused strangers that it shows; the oldest gives way.
const MAX_REFUSALS: usize = 4;

/// The mesh as control holds it.
pub(super) struct Members {
    pub(super) membership: Membership,
    /// Underlay addresses of this host.
    addresses: Vec<IpAddr>,
    next_look: Instant,
    warnings: VecDeque<String>,
    /// The networks that we say we have, and until when though there is no port.
    networks: BTreeMap<u32, Instant>,
    /// Strangers that were refused, of which there may be any number: they crowd nothing else out.
    refusals: VecDeque<String>,
    pub(super) chatter: Chatter,
    /// What we say of ourselves is another thing than we said.
    pub(super) facts_due: bool,
    /// Members whose facts, life or route changed and were not looked at yet.
    pub(super) changed: BTreeSet<PublicKey>,
    /// Members that became peers, whose stations were not placed yet.
    unplaced: BTreeSet<PublicKey>,
    /// Whom to look for is another thing than was said.
    pub(super) known_due: bool,
}

impl Members {
    pub(super) fn new(membership: Membership, now: Instant) -> Self {
        Self {
            membership,
            addresses: Vec::new(),
            next_look: now,
            warnings: VecDeque::new(),
            networks: BTreeMap::new(),
            refusals: VecDeque::new(),
            chatter: Chatter::new(now),
            facts_due: false,
            changed: BTreeSet::new(),
            unplaced: BTreeSet::new(),
            known_due: false,
        }
    }

    /// Somebody is a peer from now on.
    pub(super) fn come(&mut self, key: PublicKey, origin: PeerOrigin) {
        self.known_due |= !matches!(origin, PeerOrigin::Stranger(_));
        if origin.is_admitted() {
            self.unplaced.insert(key);
        }
    }

    /// What needs a person's attention.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let left_out = self.membership.left_out();
        let left_out = left_out
            .map(|what| format!("this member has more to say than a member may: other members do not know {what}"));
        left_out.into_iter().chain(self.warnings.iter().chain(&self.refusals).cloned())
    }
}

impl<H: Host> Control<H> {
    // ---- what we say -----------------------------------------------------------------------------------------------

    /// Notes in which networks we have ports. One that we had a port in a while ago, or that the daemon began with, counts too:
    /// what is flooded meanwhile reaches the port that comes next from its first moment on.
    pub(super) fn note_networks(&mut self, now: Instant) {
        let before: Vec<u32> = self.members.networks.keys().copied().collect();
        let configured: BTreeSet<u32> = self.config.networks.iter().map(|network| network.vni).collect();
        let begins = now.saturating_duration_since(self.started) < NETWORK_LASTS;
        let with_ports: BTreeSet<u32> = self.attachments().map(|attachment| attachment.vni).collect();
        for &vni in &configured {
            if begins || with_ports.contains(&vni) {
                self.members.networks.insert(vni, now + NETWORK_LASTS);
            }
        }
        self.members.networks.retain(|vni, until| configured.contains(vni) && *until > now);
        self.members.facts_due |= !self.members.networks.keys().eq(before.iter());
    }

    /// Tells the mesh what we are, as far as that is another than it knows.
    pub(super) fn tell_facts(&mut self, now: Instant) {
        self.note_networks(now);
        self.members.facts_due = false;
        // What our ports are called may be what changed.
        self.policies.due = true;
        let (facts, elapsed) = (self.facts(), self.elapsed(now));
        self.member_is_called(self.identity.key, Some(&facts));
        self.members.membership.set_facts(elapsed, facts);
        self.run_members(now);
    }

    /// Everything that we say of ourselves.
    pub(super) fn facts(&self) -> Facts {
        let attachments: Vec<Attachment> = self.attachments().cloned().collect();
        Facts {
            name: self.config.node.name.clone(),
            tunnel_address: self.identity.address,
            program: concat!("weft ", env!("CARGO_PKG_VERSION")).to_owned(),
            capabilities: capabilities(&self.config) | if self.trust.is_issuer() { ISSUER } else { 0 },
            relay: match self.config.node.relay {
                config::Relay::Yes => Relay::Yes,
                config::Relay::No => Relay::No,
                config::Relay::Prefer => Relay::Prefer,
            },
            endpoints: self.own_endpoints(),
            networks: self.members.networks.keys().copied().collect(),
            groups: self.listened_groups(),
            attachments,
            labels: self.own_labels(),
            certificate: self.own_certificate(),
            names: self.own_names(),
            leases: self.lease_facts(),
            slices: self.slice_facts(),
            ..Facts::default()
        }
    }

    /// Where we can be reached, the most certain first.
    pub(super) fn own_endpoints(&self) -> Vec<Endpoint> {
        let node = &self.config.node;
        if !node.discovery {
            return Vec::new();
        }
        let of = |kind| move |address| Endpoint { kind, address };
        let own = self.members.addresses.iter().map(|&address| SocketAddr::new(address, node.listen_port));
        let advertised = node.advertise.iter().copied().map(of(EndpointKind::Configured));
        let observed = self.mesh.observed().iter().copied().map(of(EndpointKind::Observed));
        let mut told = BTreeSet::new();
        let all = advertised.chain(own.map(of(EndpointKind::Local))).chain(observed);
        all.filter(|endpoint| told.insert(endpoint.address)).collect()
    }

    /// Looks at this host's addresses, now and then.
    pub(super) fn look_at_addresses(&mut self, now: Instant) {
        if now < self.members.next_look || !self.config.node.discovery {
            return;
        }
        self.members.next_look = now + LOOK_AT_ADDRESSES;
        let inside: Vec<_> = self.config.networks.iter().flat_map(|network| &network.subnets).copied().collect();
        let mut addresses = self.host.underlay_addresses();
        addresses.retain(|address| !inside.iter().any(|subnet| subnet.contains(*address)));
        if addresses != self.members.addresses {
            let port = self.config.node.listen_port;
            let local: Vec<_> = addresses.iter().map(|&address| SocketAddr::new(address, port)).collect();
            self.mesh.set_local(&local);
            self.members.addresses = addresses;
            self.tell_facts(now);
        }
    }

    // ---- what others say -------------------------------------------------------------------------------------------

    /// Does what the membership asks for, until it asks for nothing.
    pub(super) fn run_members(&mut self, now: Instant) {
        while let Some(output) = self.members.membership.poll_output() {
            match output {
                Output::Send { to, payload } => self.send_message(now, &to, &payload),
                Output::Changed(key) | Output::Left(key) => {
                    self.members.changed.insert(key);
                }
                Output::Answered(key) => self.confirm_way(&key),
                Output::Neighbours => self.keep_neighbours(now),
                Output::Ledger(bytes) => self.take_ledger(now, &bytes),
                Output::Warning(sentence) => self.warn(sentence),
            }
        }
        let changed = std::mem::take(&mut self.members.changed);
        for key in &changed {
            self.apply_member(now, key);
        }
        self.addresses.due |= !changed.is_empty();
        self.run_multicast();
        let unplaced = std::mem::take(&mut self.members.unplaced);
        if !unplaced.is_empty() {
            self.place_stations(|member| unplaced.contains(member));
        }
        if std::mem::take(&mut self.members.known_due) {
            self.tell_known(now);
        }
        if !changed.is_empty() || !unplaced.is_empty() {
            self.publish();
        }
    }

    /// Puts a message of ours into the tunnel of a member, if there is a session.
    pub(super) fn send_message(&mut self, now: Instant, to: &PublicKey, payload: &[u8]) {
        let Some(entry) = self.id_of(to).and_then(|id| self.peers.get(&id)) else { return };
        if !entry.peer.tunnel().is_live() {
            return;
        }
        let packet = message::envelope(payload, self.identity.address, entry.peer.address);
        self.switch.send_packet(now, &entry.peer, &packet, false, None, self.host.out());
    }

    /// Sessions with those that the membership chose are kept; others end when nobody uses them.
    pub(super) fn keep_neighbours(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        let mut missing = Vec::new();
        for (&id, entry) in &self.peers {
            let kept = self.members.membership.neighbours().contains(&entry.config.public_key);
            self.mesh.set_keep(elapsed, id, kept);
            missing.extend((kept && !entry.peer.tunnel().is_live()).then_some(id));
        }
        for id in missing {
            self.call(now, id);
        }
    }

    /// Makes peer, candidates and attachments follow what is known of a member.
    fn apply_member(&mut self, now: Instant, key: &PublicKey) {
        let elapsed = self.elapsed(now);
        let Some(view) = self.members.membership.member(key) else {
            self.member_has_nothing(now, key);
            if let Some(id) = self.id_of(key).filter(|id| self.peers[id].origin == PeerOrigin::Member) {
                self.lose_peers(now, [id]);
            }
            return;
        };
        let (alive, name, facts) = (view.alive, view.name().to_owned(), view.facts.clone());
        let address = view.tunnel_address();
        let known = self.entry_of(key).map(|entry| (entry.peer.id, entry.origin, entry.config.clone()));
        let id = match known {
            // What the file says of it stays.
            Some((id, PeerOrigin::File | PeerOrigin::Connected, _)) => id,
            known => {
                let config = config::Peer::of_member(name.clone(), *key, address);
                if known.as_ref().is_some_and(|(_, origin, known)| *origin == PeerOrigin::Member && *known == config)
                {
                    known.map_or(PeerId(0), |(id, ..)| id)
                } else if let Err(reason) = self.admits(&config) {
                    // What it said before is no longer so, and would stay when it dies.
                    self.member_has_nothing(now, key);
                    return self.warn(reason);
                } else {
                    if known.is_none() {
                        tracing::info!("member {name}: {key}, tunnel address {address}");
                    }
                    self.set_peer(now, &config, PeerOrigin::Member)
                }
            }
        };
        if self.config.node.discovery {
            // Which link a link-local address is on, nobody else can say.
            let is_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            let usable = |endpoint: &&Endpoint| {
                let ip = endpoint.address.ip();
                self.is_underlay(ip) && !is_local(ip)
            };
            let of = |observed: bool| -> Vec<SocketAddr> {
                let wanted = |endpoint: &&Endpoint| (endpoint.kind == EndpointKind::Observed) == observed;
                let ways = facts.endpoints.iter().filter(wanted).filter(usable);
                ways.filter(|endpoint| endpoint.kind != EndpointKind::Stream)
                    .map(|endpoint| endpoint.address)
                    .collect()
            };
            let (announced, observed) = (of(false), of(true));
            self.mesh.set_candidates(elapsed, id, Source::Announced, &announced);
            self.mesh.set_candidates(elapsed, id, Source::Observed, &observed);
        }
        self.tell_relay(now, id);
        let attachments = if alive { facts.attachments.as_slice() } else { &[] };
        self.member_has(now, *key, &name, attachments);
        self.member_is_called(*key, alive.then_some(&facts));
        if let Some(entry) = self.peers.get(&id) {
            entry.peer.set_meshed(alive);
        }
        if alive {
            self.peer_listens(id, Some(facts.groups.iter().copied().collect()));
        }
        self.members.changed.remove(key);
    }

    /// Nothing is known of what a member has.
    fn member_has_nothing(&mut self, now: Instant, key: &PublicKey) {
        self.member_has(now, *key, "", &[]);
        self.member_is_called(*key, None);
        if let Some(entry) = self.entry_of(key) {
            entry.peer.set_meshed(false);
            self.peer_listens(entry.peer.id, None);
        }
    }

    /// Whether an address that a member announces may be one of the underlay: neither ours, nor inside one of our networks,
    /// where a tunnel would lead into itself.
    fn is_underlay(&self, address: IpAddr) -> bool {
        let nowhere = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        !nowhere && !self.members.addresses.contains(&address) && !self.is_inside(address)
    }

    /// Whether an address is one of our networks'.
    pub(super) fn is_inside(&self, address: IpAddr) -> bool {
        self.config.networks.iter().flat_map(|network| &network.subnets).any(|subnet| subnet.contains(address))
    }

    // ---- who they are ----------------------------------------------------------------------------------------------

    /// Whether a member's links lead to us.
    pub(super) fn is_alive(&self, key: &PublicKey) -> bool {
        self.members.membership.member(key).is_some_and(|view| view.alive)
    }

    /// Whether a member is one by its certificate.
    pub(super) fn is_certified(&self, key: &PublicKey) -> bool {
        self.members.membership.member(key).is_some_and(|view| view.standing.expires.is_some())
    }

    /// The certificate that a member shows.
    pub(super) fn certificate_of(&self, key: &PublicKey) -> Option<Vec<u8>> {
        self.members.membership.member(key)?.facts.certificate.clone()
    }

    /// Whether a member asks to be relayed through.
    pub(super) fn prefers_to_relay(&self, key: &PublicKey) -> bool {
        self.members.membership.member(key).is_some_and(|view| view.facts.relay == Relay::Prefer)
    }

    // ---- who may be one --------------------------------------------------------------------------------------------

    /// Judges everybody by the rules as they are.
    pub(super) fn judge_again(&mut self, now: Instant) {
        let (elapsed, unix) = (self.elapsed(now), self.host.unix_time());
        let connected = self.contacts.values().filter(|contact| contact.connected.is_some());
        let file = self.config.peers.iter().map(|peer| peer.public_key);
        let pinned: Vec<PublicKey> = file.chain(connected.map(|contact| contact.public_key)).collect();
        self.apply_trust(pinned);
        *self.members.membership.policy_mut() = self.trust.policy().clone();
        self.members.membership.rejudge(elapsed, unix);
        self.judge_shown(now);
    }

    /// Keeps nothing of those whose certificates were taken back.
    pub(super) fn drop_revoked(&mut self) {
        let (policy, unix) = (self.trust.policy(), self.host.unix_time());
        let is_revoked = |contact: &&Contact| {
            let judged = policy.judge(unix, &contact.public_key, contact.certificate.as_deref());
            contact.connected.is_none() && matches!(judged, Err(Stranger::Revoked { .. }))
        };
        let revoked: Vec<_> = self.contacts.values().filter(is_revoked).map(|contact| contact.public_key).collect();
        for key in revoked {
            self.contacts.remove(&key);
            self.host.drop_contact(&key);
        }
    }

    /// The next hop for the tunnel address of every member that is there.
    pub(super) fn routes(&self) -> IdMap<u32, PeerId> {
        let members = self.members.membership.members().filter(|view| view.alive);
        let routes = members.filter_map(|view| {
            let entry = self.entry_of(&view.key).filter(|entry| entry.origin.is_admitted())?;
            Some((u32::from(entry.peer.address), self.id_of(&view.route?.next_hop)?))
        });
        routes.collect()
    }

    /// The next hop for what goes through others to members that are neighbours.
    pub(super) fn detours(&self) -> IdMap<u32, PeerId> {
        let others = self.peers.values().filter(|entry| entry.origin.is_admitted());
        let detours = others.filter_map(|entry| {
            let key = &entry.config.public_key;
            let route = self.members.membership.member(key)?.route.filter(|route| route.next_hop == *key);
            route.and(Some((u32::from(entry.peer.address), self.id_of(&entry.detour?.next_hop)?)))
        });
        detours.collect()
    }

    /// Adds a sentence to what `weft status` shows; one that is there moves to the end.
    pub(super) fn warn(&mut self, sentence: String) {
        let Members { warnings, chatter, .. } = &mut self.members;
        if note(warnings, MAX_WARNINGS, &sentence) && chatter.may_speak(self.now) {
            tracing::warn!("{sentence}");
        }
    }

    /// The same for what is said of somebody who is not let in.
    pub(super) fn warn_of_stranger(&mut self, sentence: String) {
        let Members { refusals, chatter, .. } = &mut self.members;
        if note(refusals, MAX_REFUSALS, &sentence) && chatter.may_speak(self.now) {
            tracing::warn!("{sentence}");
        }
    }
}

/// What we tell peers that we can do. What containers' kernels are not to be left with is not asked of peers either.
pub(super) fn capabilities(config: &config::Config) -> u32 {
    if config.offload.tap_checksum { PARTIAL_CHECKSUM } else { 0 }
}

/// Puts a sentence at the end of some; whether it was not among them.
fn note(sentences: &mut VecDeque<String>, most: usize, sentence: &str) -> bool {
    let known = sentences.iter().position(|known| known == sentence);
    if let Some(at) = known {
        sentences.remove(at);
    }
    if sentences.len() >= most {
        sentences.pop_front();
    }
    sentences.push_back(sentence.to_owned());
    known.is_none()
}
