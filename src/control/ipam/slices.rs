//! Slices: which are ours, which we lack, what members are told of them, and what follows from what they tell.

use super::super::{Control, Host};
use super::{PortHas, claims_in};
use crate::config;
use crate::control::ports::State as PortState;
use crate::ipam::leases::Held;
use crate::ipam::{Lease, Space, State, slices};
use crate::mesh::facts::{Attachment, LeaseFact, SliceFact};
use crate::mesh::membership::MemberView;
use crate::wire::cidr::Cidr;
use crate::wire::key::PublicKey;
use crate::wire::range::number;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

/// Pairs of overlapping slices that are told: where there is one there may be hundreds, and one mistake behind them.
const MAX_TOLD: usize = 8;

impl<H: Host> Control<H> {
    /// What we may give addresses from in a network.
    pub(super) fn space(&self, network: &config::Network) -> Space {
        Space {
            subnets: network.subnets.clone(),
            service: network.service_addresses().into_iter().map(|service| service.address).collect(),
            reserved: network.reserved.clone(),
            ranges: network.ranges.clone(),
            slices: self.slices_of(network),
        }
    }

    /// Our slices of a network: those of the file, or of our certificate, or all of it where nobody else can be.
    pub(in crate::control) fn slices_of(&self, network: &config::Network) -> Vec<Cidr> {
        if let Some(slices) = &network.slices {
            return slices.clone();
        }
        if self.is_alone() {
            return network.subnets.clone();
        }
        let is_inside = |slice: &&Cidr| network.subnets.iter().any(|subnet| subnet.overlaps(slice));
        self.addresses.certified.iter().filter(is_inside).copied().collect()
    }

    /// Whether this member has no address left of a family that it gives in a network, or gives none although it should.
    pub(in crate::control) fn is_full(&self, network: &config::Network) -> bool {
        let (space, nobody) = (self.space(network), BTreeSet::new());
        let is_given = |v4: bool| {
            let pool = space.pool(v4);
            !pool.is_empty() && self.addresses.leases.choose(network.vni, "", v4, &pool, &nobody).is_none()
        };
        let gives_none = space.pool(true).is_empty() && space.pool(false).is_empty();
        is_given(true) || is_given(false) || gives_none && !network.subnets.is_empty()
    }

    /// Whether this member cannot have another one beside it: its file names none and no authority, and it is not about to join one.
    fn is_alone(&self) -> bool {
        self.config.peers.is_empty()
            && self.config.trust == config::Trust::default()
            && self.trust.certificate().is_none()
            && self.trust.joining().is_none()
            && !self.peers.values().any(|entry| entry.origin.is_admitted())
    }

    /// The other members, also those that are not there now.
    pub(in crate::control) fn others(&self) -> impl Iterator<Item = MemberView<'_>> {
        self.members.membership.members().filter(|view| view.key != self.identity.key)
    }

    /// Those of them whose word counts in a network.
    pub(in crate::control) fn others_in(&self, vni: u32) -> impl Iterator<Item = MemberView<'_>> {
        self.others().filter(move |view| self.kept_to(&view.key).is_none_or(|networks| networks.contains(&vni)))
    }

    /// What members are told that no attachment says: addresses that no port has.
    pub(in crate::control) fn lease_facts(&self) -> Vec<LeaseFact> {
        let idle = self.addresses.leases.iter().filter(|held| held.state != State::Used);
        let fact = |held: &Held| {
            let Lease { vni, address, holder, .. } = &held.lease;
            LeaseFact { vni: *vni, address: *address, holder: holder.clone() }
        };
        idle.map(fact).collect()
    }

    /// Our slices, for our facts.
    pub(in crate::control) fn slice_facts(&self) -> Vec<SliceFact> {
        let of = |network: &config::Network| {
            let vni = network.vni;
            self.slices_of(network).into_iter().map(move |slice| SliceFact { vni, slice }).collect::<Vec<_>>()
        };
        self.config.networks.iter().flat_map(of).collect()
    }

    /// Once a second: what was kept long enough is free, and what members say is looked at.
    pub(in crate::control) fn tick_addresses(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        // A port that waits for its container to be started again has its addresses for as long as it does.
        let waits =
            |name: &str| self.ports.get(name).is_some_and(|entry| matches!(entry.state, PortState::Waiting(_)));
        for (vni, ip) in self.addresses.leases.expired(elapsed) {
            if self.addresses.leases.get(vni, ip).is_some_and(|held| waits(&held.lease.holder)) {
                self.addresses.leases.unused(elapsed, vni, ip);
            }
        }
        let expired = self.addresses.leases.expired(elapsed);
        if let Err(reason) = self.free_leases(&expired) {
            tracing::warn!("{reason}");
        }
        self.look_at_certificate();
        if std::mem::take(&mut self.addresses.due) {
            self.tell_slices();
            self.note_claims(now);
            self.members.facts_due = true;
            self.give_way(now);
            self.look_for_overlaps();
        }
    }

    /// Our certificate may say something else than it did, or count no longer.
    pub(in crate::control) fn look_at_certificate(&mut self) {
        let certified = self.trust.slices(self.host.unix_time());
        self.addresses.due |= certified != self.addresses.certified;
        self.addresses.certified = certified;
    }

    /// Tells trust what slices it is to give, as an issuer, and what we lack.
    pub(in crate::control) fn tell_slices(&mut self) {
        let subnets = || self.config.networks.iter().flat_map(|network| network.subnets.iter().copied());
        let plan = self.config.trust.gives_slices.then(|| subnets().collect());
        // Of one that is gone its records here count, once its slices were reclaimed.
        let counted = self.others().filter(|view| view.alive || !self.trust.has_reclaimed(&view.key));
        let others = counted.flat_map(|view| view.facts.slices.iter().map(move |fact| (view.key, fact.slice)));
        let others: Vec<(PublicKey, Cidr)> = others.collect();
        let wants = self.wanted_slices();
        self.trust.set_slices(plan, others, wants);
    }

    /// The subnets in which our certificate gives us too little: nothing, or a slice that is nearly full.
    fn wanted_slices(&self) -> Vec<Cidr> {
        let auto = self.config.networks.iter().filter(|network| network.slices.is_none());
        let mut wanted = Vec::new();
        for network in auto.filter(|_| self.trust.certificate().is_some()) {
            // What is taken by hand or kept back is not what a slice is too small for.
            let space = Space { ranges: Vec::new(), reserved: Vec::new(), ..self.space(network) };
            for subnet in &network.subnets {
                let of_subnet = Space { subnets: vec![*subnet], ..space.clone() };
                let pool = of_subnet.pool(subnet.address.is_ipv4());
                let held = self.addresses.leases.of_network(network.vni).map(|held| held.lease.address);
                let used = held.filter(|ip| ip.is_ipv4() == subnet.address.is_ipv4() && pool.contains(number(*ip)));
                let used = used.count() as u128;
                if used.saturating_mul(5) >= pool.len().saturating_mul(4) && !wanted.contains(subnet) {
                    wanted.push(*subnet);
                }
            }
        }
        wanted
    }

    /// Gives up the addresses of our ports that another member has in its own slice: it is the one who gave it by right. Takes
    /// them up again when that one has let go.
    fn give_way(&mut self, now: Instant) {
        let mut given_way = BTreeSet::new();
        let mut told = Vec::new();
        for has in self.addresses.ports.values() {
            let Some(network) = self.config.networks.iter().find(|network| network.vni == has.vni) else { continue };
            let ours = self.slices_of(network);
            for ip in has.addresses.iter().filter(|ip| !ours.iter().any(|slice| slice.contains(**ip))) {
                let theirs = |view: &MemberView<'_>| -> Vec<Cidr> {
                    let of = view.facts.slices.iter().filter(|fact| fact.vni == has.vni);
                    of.map(|fact| fact.slice).collect()
                };
                let has_it = |view: &MemberView<'_>| claims_in(*view, has.vni).any(|(address, _)| address == *ip);
                let mut alive = self.others_in(has.vni).filter(|view| view.alive);
                if let Some(view) = alive.find(|view| slices::yields(*ip, &ours, &theirs(view)) && has_it(view)) {
                    given_way.insert((has.vni, *ip));
                    told.push(format!(
                        "port {} has {ip} of network {}, which member '{}' gave out of its slice: frames for it go there; \
                         detach it (what Docker attached: docker network disconnect) and attach it with another address",
                        has.name,
                        network.name,
                        view.name()
                    ));
                }
            }
        }
        told.iter().filter(|text| !self.addresses.warnings.contains(text)).for_each(|text| tracing::warn!("{text}"));
        self.addresses.warnings = told;
        let before = std::mem::replace(&mut self.addresses.given_way, given_way);
        let changed: BTreeSet<_> = before.symmetric_difference(&self.addresses.given_way).copied().collect();
        let is_touched = |has: &PortHas| has.addresses.iter().any(|ip| changed.contains(&(has.vni, *ip)));
        let touched = self.addresses.ports.iter().filter(|(_, has)| is_touched(has));
        let touched: Vec<_> = touched.map(|(id, has)| (*id, has.clone())).collect();
        for (id, has) in touched {
            let Some(attachment) = self.attachments.get(&id).cloned() else { continue };
            let keeps = |ip: &IpAddr| !self.addresses.given_way.contains(&(has.vni, *ip));
            let addresses = has.addresses.iter().copied().filter(keeps).collect();
            self.attach_again(now, id, Attachment { addresses, ..attachment });
        }
    }

    /// Two members that claim one slice is a mistake of people, and no rule can mend it.
    fn look_for_overlaps(&mut self) {
        let ours = self.slice_facts().into_iter().map(|fact| (fact.vni, fact.slice, self.identity.key));
        let theirs = self.others().filter(|view| view.alive);
        let theirs = theirs.flat_map(|v| v.facts.slices.iter().map(move |fact| (fact.vni, fact.slice, v.key)));
        let all = ours.chain(theirs).collect();
        let name = |key: &PublicKey| match self.members.membership.member(key) {
            Some(view) if *key != self.identity.key => view.name().to_owned(),
            _ => self.config.node.name.clone(),
        };
        let told = slices::overlaps(all, MAX_TOLD).into_iter().map(|[(vni, a, one), (_, b, other)]| {
            format!(
                "network {}: members '{}' and '{}' give addresses from one range, {a} and {b}: containers may get the same one; \
                 change `slice` of one of them",
                self.name_of_network(vni),
                name(&one),
                name(&other)
            )
        });
        let told: Vec<_> = told.collect();
        told.iter().filter(|text| !self.addresses.overlaps.contains(text)).for_each(|text| tracing::error!("{text}"));
        self.addresses.overlaps = told;
    }

    /// What needs a person's attention.
    pub(in crate::control) fn address_warnings(&self) -> impl Iterator<Item = String> {
        let unkept = Some(self.addresses.unkept_claims).filter(|count| *count > 0).map(|count| {
            format!(
                "members have {count} addresses of this member's slices more than are kept over a restart: \
                 `weft leases` shows whose they are"
            )
        });
        self.addresses.overlaps.iter().chain(&self.addresses.warnings).cloned().chain(unkept)
    }
}
