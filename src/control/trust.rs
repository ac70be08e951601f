//! Trust as control has it: requests of the operator, messages of peers, and what follows for disk and mesh.
//!
//! All decisions are [`TrustState`]'s. Here its outputs are done, in their order: when something cannot be saved, nothing
//! that stands behind it happens, since a certificate that left before its invitation was crossed out could be had twice.

use super::peers::PeerOrigin;
use super::request::{Invite, Response};
use super::{Control, Host, Identity};
use crate::config::{self, Config, Endpoint};
use crate::mesh::facts::{Facts, ISSUER};
use crate::switch::ids::PeerId;
use crate::trust::record::Record;
use crate::trust::state::{Output, Settings};
use crate::trust::token::{Introducer, MAX_ENDPOINTS, MAX_INTRODUCERS, MAX_NETWORKS, NetworkHint};
use crate::trust::{Authority, Policy, Standing, TrustState};
use crate::wire::cidr::Cidr;
use crate::wire::key::{AuthorityKey, PublicKey};
use std::time::{Duration, Instant};

/// The policy that a file says, together with the authority whose key this member holds.
fn policy(config: &Config, authority: Option<&Authority>) -> Policy {
    let mut policy = Policy::default();
    set_rules(&mut policy, config, authority.map(Authority::key));
    policy
}

/// `own` is the authority whose key we hold: it counts where the file names none.
fn set_rules(policy: &mut Policy, config: &Config, own: Option<AuthorityKey>) {
    policy.pin(config.peers.iter().map(|peer| peer.public_key));
    policy.set_names(config.trust.allow.clone(), config.trust.deny.clone());
    match config.trust.authorities.is_empty() {
        true => policy.set_authorities(own),
        false => policy.set_authorities(config.trust.authorities.iter().copied()),
    }
}

/// The trust of a member that remembers these records.
pub fn trust(config: &Config, identity: Identity, authority: Option<Authority>, records: Vec<Record>) -> TrustState {
    TrustState::new(Settings {
        key: identity.key,
        name: config.node.name.clone(),
        tunnel_address: identity.address,
        policy: policy(config, authority.as_ref()),
        authority,
        records,
    })
}

/// The trust of a member that remembers nothing, until [`Control::set_trust`].
pub(super) fn without_records(config: &Config, identity: Identity) -> TrustState {
    trust(config, identity, None, Vec::new())
}

impl<H: Host> Control<H> {
    /// Gives control the trust that was made from the disk, and calls the members that it came in through.
    pub fn set_trust(&mut self, now: Instant, trust: TrustState) {
        self.trust = trust;
        if let Some(ledger) = self.trust.policy().ledger() {
            let (version, bytes) = (ledger.version, ledger.bytes().to_vec());
            self.members.membership.set_ledger(self.elapsed(now), version, &bytes);
        }
        self.drop_revoked();
        self.judge_again(now);
        self.recall(now);
        self.call_introducers(now);
        // First what our certificate gives: an issuer that does not know would give itself another slice.
        self.look_at_certificate();
        self.tell_slices();
        self.tick_trust(now);
        self.tick_addresses(now);
        self.tell_facts(now);
        self.run_mesh(now);
    }

    /// What this member's trust is.
    pub fn trust(&self) -> &TrustState {
        &self.trust
    }

    /// Why an invitation was not redeemed, since this daemon runs.
    pub fn join_failure(&self) -> Option<&str> {
        self.join_failure.as_deref()
    }

    /// This member's certificate, for its facts.
    pub fn own_certificate(&self) -> Option<Vec<u8>> {
        self.trust.certificate().map(<[u8]>::to_vec)
    }

    /// A ledger that the mesh brought.
    pub fn take_ledger(&mut self, now: Instant, bytes: &[u8]) {
        self.trust.ledger_input(self.host.unix_time(), bytes);
        self.run_trust(now);
    }

    pub(super) fn tick_trust(&mut self, now: Instant) {
        let (elapsed, unix) = (self.elapsed(now), self.host.unix_time());
        self.trust.tick(elapsed, unix);
        self.run_trust(now);
    }

    /// Makes the rules be those of the file, with these keys pinned.
    pub(super) fn apply_trust(&mut self, pinned: Vec<PublicKey>) {
        let (config, own) = (&self.config, self.trust.authority());
        self.trust.change_rules(|policy| {
            set_rules(policy, config, own);
            policy.pin(pinned);
        });
    }

    /// Whether somebody decides who is a member besides the file: then a stranger may turn out to be one.
    pub(super) fn trusts_an_authority(&self) -> bool {
        self.trust.is_issuer() || self.trust.policy().has_authorities()
    }

    /// A message about trust came out of a peer's tunnel.
    pub(super) fn trust_message(&mut self, now: Instant, id: PeerId, payload: &[u8]) {
        let Some(key) = self.peers.get(&id).map(|entry| entry.config.public_key) else { return };
        let (elapsed, unix) = (self.elapsed(now), self.host.unix_time());
        let is_member = self.is_member(&key);
        self.trust.input(elapsed, unix, key, is_member, payload);
        self.run_trust(now);
    }

    /// Whether a peer has been let in.
    fn is_member(&self, key: &PublicKey) -> bool {
        self.entry_of(key).is_some_and(|entry| entry.origin.is_admitted())
    }

    /// Does what the trust asks for.
    pub(super) fn run_trust(&mut self, now: Instant) {
        if let Err(problem) = self.do_trust(now) {
            tracing::error!("{problem}");
        }
    }

    /// What could not be saved is the error: what stood behind it is left undone.
    pub(super) fn do_trust(&mut self, now: Instant) -> Result<(), String> {
        let mut outcome = Ok(());
        while let Some(output) = self.trust.poll_output() {
            if outcome.is_err() {
                continue;
            }
            match output {
                Output::Save(record) => outcome = self.host.keep_trust(&record),
                Output::Forget(slot) => {
                    if let Err(problem) = self.host.drop_trust(&slot) {
                        tracing::warn!("{problem}");
                    }
                }
                Output::Send { to, payload } => self.send_message(now, &to, &payload),
                Output::Admitted { key, standing, certificate } => self.admitted(now, key, standing, certificate),
                Output::Stranger(key, reason) => self.warn_of_stranger(format!("{key} is not let in: {reason}")),
                Output::Certificate(_) => {
                    self.look_at_certificate();
                    let live = self.peers.values().filter(|entry| entry.peer.tunnel().is_live());
                    live.for_each(|entry| self.trust.session_up(entry.config.public_key));
                    self.tell_facts(now);
                }
                Output::Ledger { version, bytes } => {
                    self.members.membership.set_ledger(self.elapsed(now), version, &bytes);
                    self.drop_revoked();
                    self.look_at_certificate();
                    self.judge_again(now);
                }
                Output::Joined(name) => {
                    tracing::info!("joined: this host is the member '{name}'");
                    self.judge_again(now);
                    self.tell_facts(now);
                }
                Output::JoinFailed(reason) => {
                    self.warn(format!("cannot join: {reason}"));
                    self.join_failure = Some(reason);
                }
                Output::Warning(sentence) => self.warn(sentence),
            }
        }
        outcome
    }

    /// Somebody has shown that it is a member.
    fn admitted(&mut self, now: Instant, key: PublicKey, standing: Standing, certificate: Vec<u8>) {
        let Some(entry) = self.id_of(&key).and_then(|id| self.peers.get_mut(&id)) else { return };
        entry.certificate = Some(certificate.clone());
        if entry.origin.is_admitted() {
            return;
        }
        let name = standing.name.unwrap_or_default();
        let address = standing.tunnel_address.unwrap_or_else(|| key.tunnel_address());
        let peer = config::Peer::of_member(name.clone(), key, address);
        match self.admits(&peer) {
            Ok(()) => {
                tracing::info!("{key} is the member '{name}'");
                let id = self.set_peer(now, &peer, PeerOrigin::Member);
                if let Some(entry) = self.peers.get_mut(&id) {
                    entry.certificate = Some(certificate);
                }
                self.publish();
            }
            Err(reason) => self.warn(reason),
        }
    }

    /// Parts with the peers that were let in by a certificate that counts no longer, as far as the mesh has no document of them:
    /// one who never sends any is revoked like everybody else.
    pub(super) fn judge_shown(&mut self, now: Instant) {
        let (unix, policy) = (self.host.unix_time(), self.trust.policy());
        let counts = |entry: &super::PeerEntry| {
            let key = &entry.config.public_key;
            self.members.membership.member(key).is_some()
                || policy.judge(unix, key, entry.certificate.as_deref()).is_ok()
        };
        let ended: Vec<_> = self.peers.values().filter(|entry| !counts(entry)).map(|entry| entry.peer.id).collect();
        for id in ended {
            match self.peers.get(&id).map(|entry| entry.origin) {
                Some(PeerOrigin::Member) => self.lose_peers(now, [id]),
                Some(PeerOrigin::Introducer) => {
                    self.peers[&id].peer.set_admitted(false);
                    self.publish();
                }
                _ => {}
            }
        }
    }

    /// Shows again who we are to those with whom there is a session and no link: what was shown first may have been lost.
    pub(super) fn show_again(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        let linked = |key: &PublicKey| self.members.membership.is_linked(elapsed, key);
        let live = self.peers.values().filter(|entry| entry.peer.tunnel().is_live());
        let keys: Vec<_> = live.map(|entry| entry.config.public_key).filter(|key| !linked(key)).collect();
        keys.into_iter().for_each(|key| self.trust.session_up(key));
        self.run_trust(now);
    }

    /// Makes peers of those that this host comes in through.
    fn call_introducers(&mut self, now: Instant) {
        for introducer in self.trust.introducers().to_vec() {
            if introducer.key != self.identity.key && self.id_of(&introducer.key).is_none() {
                self.add_peer(now, &as_peer(&introducer), PeerOrigin::Introducer);
            }
        }
        self.resolve();
        self.publish();
        self.call_all(now);
    }

    /// `weft invite`.
    pub fn invite(&mut self, now: Instant, invite: &Invite) -> Response {
        let mut endpoints = invite.endpoints.clone();
        endpoints.extend(self.own_endpoints().iter().map(|endpoint| endpoint.address.to_string()));
        endpoints.truncate(MAX_ENDPOINTS);
        if let Some(wrong) = endpoints.iter().find(|text| text.parse::<Endpoint>().is_err()) {
            return Response::Refused(format!("'{wrong}' is no endpoint: write IP:PORT, [IPV6]:PORT or NAME:PORT"));
        }
        let subnets = || self.config.networks.iter().flat_map(|network| &network.subnets);
        let is_inside =
            |slice: &&Cidr| subnets().any(|net| net.prefix <= slice.prefix && net.contains(slice.address));
        if let Some(slice) = invite.slices.iter().find(|slice| subnets().next().is_some() && !is_inside(slice)) {
            return Response::Refused(format!(
                "slice {slice} lies in none of the subnets of this host's networks: `weft networks` shows them"
            ));
        }
        let us = Introducer { key: self.identity.key, tunnel_address: self.identity.address, endpoints };
        let others = self.known_introducers();
        let introducers: Vec<_> = std::iter::once(us).chain(others).take(MAX_INTRODUCERS).collect();
        if introducers.iter().all(|introducer| introducer.endpoints.is_empty()) {
            return Response::Refused(
                "this host does not know where others can reach it: say so with --endpoint HOST:PORT, or with 'advertise' \
                 in [node]"
                    .to_owned(),
            );
        }
        let hint = |network: &config::Network| NetworkHint {
            vni: network.vni,
            name: network.name.clone(),
            subnets: network.subnets.iter().map(ToString::to_string).collect(),
        };
        let networks = self.config.networks.iter().take(MAX_NETWORKS).map(hint).collect();
        let mut random = [0; 24];
        self.host.fill_random(&mut random);
        let (unix, life) = (self.host.unix_time(), Duration::from_secs(invite.life_s));
        let made = self.trust.invite(unix, &invite.name, invite.slices.clone(), life, introducers, networks, random);
        match (made, self.do_trust(now)) {
            (Ok(token), Ok(())) => Response::Invited(token.to_string()),
            (Err(reason), _) | (_, Err(reason)) => Response::Refused(reason),
        }
    }

    /// Other members that a new host may come in through, with where they can be reached.
    fn known_introducers(&self) -> Vec<Introducer> {
        let members = self.peers.values().filter(|entry| entry.origin.is_admitted());
        let introducers = members.map(|entry| {
            let mut endpoints: Vec<String> = entry.config.endpoints.iter().map(ToString::to_string).collect();
            let view = self.members.membership.member(&entry.config.public_key).filter(|view| view.alive);
            let told = view.into_iter().flat_map(|view| &view.facts.endpoints);
            endpoints.extend(told.map(|endpoint| endpoint.address.to_string()));
            endpoints.truncate(MAX_ENDPOINTS);
            Introducer { key: entry.config.public_key, tunnel_address: entry.config.tunnel_address, endpoints }
        });
        introducers.filter(|introducer| !introducer.endpoints.is_empty()).take(MAX_INTRODUCERS - 1).collect()
    }

    /// Tells trust who issues certificates, and through whom others may come in.
    pub(super) fn tell_trust(&mut self) {
        let issues = |facts: &Facts| facts.capabilities & ISSUER != 0;
        let members = self.members.membership.members().filter(|view| view.alive && issues(view.facts));
        let issuers = members.map(|view| view.key).collect();
        let known = self.known_introducers();
        self.trust.set_issuers(issuers);
        self.trust.set_known(known);
    }

    /// `weft revoke`.
    pub fn revoke(&mut self, now: Instant, member: &str) -> Response {
        let told = self.trust.revoke(self.host.unix_time(), member);
        self.answer_of(now, told)
    }

    /// `weft leases reclaim`.
    pub fn reclaim(&mut self, now: Instant, member: &str) -> Response {
        let is_meant = |name: &str, key: &PublicKey| name == member || key.to_string() == member;
        let alive = self.members.membership.members().find(|view| view.alive && is_meant(view.name(), &view.key));
        if self.trust.is_issuer() && alive.is_some() {
            return Response::Refused(format!(
                "'{member}' is there and may be giving addresses at this moment: stop weft on it first, or `weft revoke` it"
            ));
        }
        let told = self.trust.reclaim(self.host.unix_time(), member);
        self.addresses.due = true;
        self.answer_of(now, told)
    }

    /// `weft authority rotate`.
    pub fn rotate(&mut self, now: Instant, overlap: Duration) -> Response {
        if !self.trust.is_issuer() {
            return Response::Refused("this host does not hold the authority's key".to_owned());
        }
        let next = match self.host.next_authority() {
            Ok(next) => next,
            Err(reason) => return Response::Refused(reason),
        };
        let told = self.trust.rotate(self.host.unix_time(), next, overlap);
        let rotated = told.is_ok();
        let response = self.answer_of(now, told);
        // The succession is on the disk: only then may the old key go.
        if rotated
            && matches!(response, Response::Done(_))
            && let Err(reason) = self.host.adopt_next_authority()
        {
            tracing::warn!("{reason}; the next start does it");
        }
        response
    }

    fn answer_of(&mut self, now: Instant, told: Result<Vec<String>, String>) -> Response {
        let done = self.do_trust(now);
        self.run_mesh(now);
        match (told, done) {
            (Ok(told), Ok(())) => Response::Done(told),
            (Err(reason), _) | (_, Err(reason)) => Response::Refused(reason),
        }
    }
}

/// An introducer as a peer of the file would be.
fn as_peer(introducer: &Introducer) -> config::Peer {
    let short: String = introducer.key.to_string().chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    config::Peer {
        name: format!("introducer-{short}"),
        public_key: introducer.key,
        endpoints: introducer.endpoints.iter().filter_map(|text| text.parse().ok()).collect(),
        preshared_key: None,
        keepalive: None,
        tunnel_address: introducer.tunnel_address,
        networks: None,
        path_mtu: None,
    }
}
