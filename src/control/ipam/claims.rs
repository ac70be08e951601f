//! What members have in our slices, over restarts; and whether what is known of members is worth an answer yet.

use super::super::{Control, Host};
use super::Denied;
use crate::ipam::{Claim, Space};
use crate::mesh::membership::{GRACE_UNSEEN, MemberView};
use crate::wire::key::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long after the start members of before may take to come back before they pass for gone: a handshake and the first documents, with
/// one of them lost. Shorter than callers ask again, so that a host that is alone starts its containers.
pub(in crate::control) const COMEBACK: Duration = Duration::from_millis(1500);

impl<H: Host> Control<H> {
    /// Whether it is known what members have: those of before a restart are here, or had the time to come.
    fn is_mesh_known(&self) -> bool {
        let before = || self.contacts.keys().copied().chain(self.addresses.claims.members());
        self.elapsed(self.now) >= COMEBACK || before().all(|key| self.is_alive(&key))
    }

    /// What is only known from members is not yet.
    ///
    /// # Errors
    /// Then.
    pub(super) fn await_mesh(&self, wanted: &str) -> Result<(), Denied> {
        self.is_mesh_known().then_some(()).ok_or_else(|| {
            Denied::Elsewhere(format!(
                "this host has just started and does not know yet whether another member has {wanted}: ask again in a moment"
            ))
        })
    }

    /// Addresses of our slices that members had who are not there.
    pub(super) fn claimed_before<'a>(&'a self, vni: u32, space: &'a Space) -> impl Iterator<Item = IpAddr> + 'a {
        let of_network = self.addresses.claims.iter().filter(move |claim| claim.vni == vni);
        of_network
            .filter(|claim| space.owns(claim.address) && !self.is_alive(&claim.member))
            .map(|claim| claim.address)
    }

    /// Keeps what members say that they have in our slices. What one that is gone had is kept until it is back, or forgotten by the
    /// mesh: where somebody is there, and nobody knows of it.
    pub(super) fn note_claims(&mut self, now: Instant) {
        let spaces: BTreeMap<u32, Space> =
            self.config.networks.iter().map(|network| (network.vni, self.space(network))).collect();
        let is_ours = |vni: u32, ip: IpAddr| spaces.get(&vni).is_some_and(|space| space.owns(ip));
        let mut said: Vec<(PublicKey, BTreeSet<Claim>)> = Vec::new();
        let mut is_anyone_there = false;
        for MemberView { key: member, facts, .. } in self.others().filter(|view| view.alive) {
            is_anyone_there = true;
            let attached = facts.attachments.iter().flat_map(|had| had.addresses.iter().map(|ip| (had.vni, *ip)));
            let all = attached.chain(facts.leases.iter().map(|lease| (lease.vni, lease.address)));
            let admitted = self.kept_to(&member);
            let counts = |vni: &u32| admitted.as_ref().is_none_or(|networks| networks.contains(vni));
            let inside = all.filter(|(vni, ip)| counts(vni) && is_ours(*vni, *ip));
            said.push((member, inside.map(|(vni, address)| Claim { member, vni, address }).collect()));
        }
        if is_anyone_there && self.elapsed(now) >= GRACE_UNSEEN {
            let is_forgotten = |key: &PublicKey| self.members.membership.member(key).is_none();
            let forgotten = self.addresses.claims.members().into_iter().filter(is_forgotten);
            said.extend(forgotten.map(|key| (key, BTreeSet::new())));
        }
        self.addresses.unkept_claims = 0;
        for (member, said) in said {
            let change = self.addresses.claims.change(member, &said);
            self.addresses.unkept_claims += change.excess;
            if change.keep.is_empty() && change.forget.is_empty() {
                continue;
            }
            match self.host.change_claims(&change.keep, &change.forget) {
                Ok(()) => self.addresses.claims.apply(&change),
                // What changes next tries again.
                Err(reason) => tracing::warn!("what others have of this member's addresses is not kept: {reason}"),
            }
        }
    }
}
