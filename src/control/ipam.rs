//! Addresses as control has them: which slices are ours, who asks for what, what the disk must know first, and what members
//! say of theirs.
//!
//! A lease is on the disk before its address is used, and forgotten there before it is free: a daemon that is killed at any moment
//! finds every address that a container may have. Ports take their leases when they are made and give them back when they go;
//! others ask with [`Control::lease`] and [`Control::release`].
//!
//! Whether an address is free can only be asked of what is known. What another member's facts say, it may have changed a moment
//! ago, so that refusal is one of its own kind ([`Denied::Elsewhere`]): callers that can wait ask again for a moment. The same
//! for what cannot be known yet, because this daemon has just started ([`claims`]).

mod claims;
mod slices;

use super::request::{LeaseStatus, LeaseWanted, Response, Wish};
use super::{Control, Host};
use crate::config::{self, PortAddress};
use crate::ipam::leases::{Held, MAX_HOLDER, MAX_LEASES};
use crate::ipam::{By, Claims, Lease, Leases, Space, State};
use crate::mesh::membership::MemberView;
use crate::switch::ids::PortId;
use crate::wire::cidr::Cidr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Another member has it, or may have it, as far as is known here: it may have let it go a moment ago, or say so in the next.
    Elsewhere(String),
    /// For a reason that does not pass by itself.
    Refused(String),
}

impl From<String> for Denied {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl Denied {
    /// One sentence.
    pub fn reason(self) -> String {
        match self {
            Self::Elsewhere(reason) | Self::Refused(reason) => reason,
        }
    }

    /// As an answer: what may pass is worth asking again.
    pub fn response(self) -> Response {
        match self {
            Self::Elsewhere(reason) => Response::Absent(reason),
            Self::Refused(reason) => Response::Refused(reason),
        }
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    leases: Leases,
    /// What other members have in our slices, and had before a restart.
    claims: Claims,
    /// How much of it is not kept across restarts: it is too much.
    unkept_claims: usize,
    /// The slices of our certificate, as far as it counts.
    pub(super) certified: Vec<Cidr>,
    /// What our ports were made with.
    ports: BTreeMap<PortId, PortHas>,
    /// Addresses of our ports that another member has in its slice: we do not claim them.
    given_way: BTreeSet<(u32, IpAddr)>,
    /// Something changed that addresses may have to follow.
    pub(super) due: bool,
    /// Told of those.
    warnings: Vec<String>,
    /// Told of slices that two members claim.
    overlaps: Vec<String>,
}

#[derive(Debug, Clone)]
struct PortHas {
    vni: u32,
    name: String,
    addresses: Vec<IpAddr>,
}

/// What a port is made with.
pub(super) struct PortLeases {
    /// Those of its specification, and those chosen.
    pub(super) addresses: Vec<PortAddress>,
    /// Leases that were not there before.
    fresh: Vec<(u32, IpAddr)>,
}

/// For whom addresses are wanted.
struct Wanted<'a> {
    vni: u32,
    holder: &'a str,
    by: By,
}

impl<H: Host> Control<H> {
    /// Takes up what an earlier run left.
    pub(super) fn restore_leases(&mut self, now: Instant) {
        let leases = self.host.leases();
        self.addresses.leases = Leases::restore(self.elapsed(now), leases);
        self.addresses.claims = Claims::restore(self.host.claims());
        self.addresses.due = true;
    }

    // ---- asked for -------------------------------------------------------------------------------------------------

    /// Gives a holder addresses, the same ones if it has some.
    ///
    /// # Errors
    /// One sentence.
    pub fn lease(&mut self, now: Instant, wanted: &LeaseWanted) -> Result<Vec<Cidr>, String> {
        self.try_lease(now, wanted).map_err(Denied::reason)
    }

    /// As [`Control::lease`], for callers that may ask again.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn try_lease(&mut self, now: Instant, wanted: &LeaseWanted) -> Result<Vec<Cidr>, Denied> {
        let LeaseWanted { network, holder, wish } = wanted;
        let network = self.network(network).ok_or_else(|| self.no_network(network))?.clone();
        if holder.is_empty() || holder.len() > MAX_HOLDER || holder.contains(char::is_control) {
            return Err(Denied::Refused(format!("a holder is named by 1 to {MAX_HOLDER} printable bytes")));
        }
        let space = self.space(&network);
        let what = Wanted { vni: network.vni, holder, by: By::Request };
        let fresh = match *wish {
            Wish::Auto { v4, v6 } => self.choose(&network, &space, &what, v4, v6)?,
            // All members have it alike, and none can take it.
            Wish::Exactly(address) if space.service.contains(&address) => {
                return Ok(vec![with_prefix(&space, address)]);
            }
            Wish::Exactly(address) => {
                if !space.subnets.is_empty() && space.subnet_of(address).is_none() {
                    return Err(Denied::Refused(outside(&network, address)));
                }
                vec![(address, self.claim(&network, &what, address)?)]
            }
        };
        let addresses = fresh.iter().map(|(address, _)| with_prefix(&space, *address)).collect();
        self.keep_leases(now, fresh.into_iter().filter_map(|(_, lease)| lease).collect())?;
        Ok(addresses)
    }

    /// Lets an address go; one that nobody has is no error. One that a port has goes with the port.
    ///
    /// # Errors
    /// One sentence.
    pub fn release(&mut self, _now: Instant, network: &str, address: IpAddr) -> Result<(), String> {
        let vni = self.network(network).ok_or_else(|| self.no_network(network))?.vni;
        match self.addresses.leases.get(vni, address) {
            Some(Held { lease, state: State::Used }) if lease.by == By::Request => {
                let lease = Lease { by: By::Port, ..lease.clone() };
                self.host.change_leases(std::slice::from_ref(&lease), &[])?;
                self.addresses.leases.hand_over(vni, address);
                Ok(())
            }
            Some(Held { state: State::Used, .. }) | None => Ok(()),
            Some(_) => self.free_leases(&[(vni, address)]),
        }
    }

    /// [`super::request::Request::Lease`].
    pub fn leased(&mut self, now: Instant, wanted: &LeaseWanted) -> Response {
        let given = match self.try_lease(now, wanted) {
            Ok(given) => given,
            Err(denied) => return denied.response(),
        };
        let is_given = |status: &LeaseStatus| status.network == wanted.network && given.contains(&status.address);
        let own = self.lease_statuses(now).into_iter();
        Response::Leased(own.filter(|status| status.since.is_some() && is_given(status)).collect())
    }

    /// [`super::request::Request::Release`].
    pub fn released(&mut self, now: Instant, network: &str, address: IpAddr) -> Response {
        let what = format!("{address} of network {network}");
        let Some(vni) = self.network(network).map(|network| network.vni) else {
            return Response::Refused(self.no_network(network));
        };
        let has_it = |has: &&PortHas| has.vni == vni && has.addresses.contains(&address);
        let told = match self.addresses.leases.get(vni, address) {
            Some(_) => match self.addresses.ports.values().find(has_it) {
                Some(port) => format!("{what} belongs to port {}, and is free when that is detached", port.name),
                None => format!("{what} is free"),
            },
            None => match self.owner_elsewhere(vni, address) {
                Some(owner) => return Response::Refused(format!("{what} belongs to {owner}: release it there")),
                None => format!("{what} is nobody's on this host"),
            },
        };
        match self.release(now, network, address) {
            Ok(()) => Response::Done(vec![told]),
            Err(reason) => Response::Refused(reason),
        }
    }

    /// Who has an address on another member. One that is gone is not counted.
    fn owner_elsewhere(&self, vni: u32, address: IpAddr) -> Option<String> {
        let mut there = self.others_in(vni).filter(|view| view.alive);
        there.find_map(|view| {
            let (_, holder) = claims_in(view, vni).find(|(ip, _)| *ip == address)?;
            Some(format!("{holder} of member '{}'", view.name()))
        })
    }

    /// The addresses of this member that holders asked for who are called so in the beginning. Ports are no such holders, whatever
    /// they are called.
    pub(super) fn requested_for<'a>(&'a self, beginning: &'a str) -> impl Iterator<Item = (u32, IpAddr)> + 'a {
        let theirs = self.addresses.leases.iter().filter(move |held| held.lease.is_requested_for(beginning));
        theirs.map(|held| (held.lease.vni, held.lease.address))
    }

    /// Whether an address is one of those.
    pub(super) fn is_requested_for(&self, beginning: &str, vni: u32, address: IpAddr) -> bool {
        self.addresses.leases.get(vni, address).is_some_and(|held| held.lease.is_requested_for(beginning))
    }

    /// `weft leases`: ours, and what members say of theirs.
    pub(super) fn lease_statuses(&self, now: Instant) -> Vec<LeaseStatus> {
        let elapsed = self.elapsed(now);
        let spaces: BTreeMap<u32, (&str, Space)> =
            self.config.networks.iter().map(|n| (n.vni, (n.name.as_str(), self.space(n)))).collect();
        let status = |vni: u32, address: IpAddr, holder: &str, member: &str, state: &str| {
            let (network, space) = spaces.get(&vni)?;
            Some(LeaseStatus {
                network: (*network).to_owned(),
                address: with_prefix(space, address),
                holder: holder.to_owned(),
                member: member.to_owned(),
                state: state.to_owned(),
                since: None,
                expires_s: None,
            })
        };
        let ours = self.addresses.leases.iter().filter_map(|Held { lease, state }| {
            let (name, until) = match state {
                State::Used => ("in use", None),
                State::Reserved => ("reserved", None),
                State::Kept(until) => ("kept", Some(until.saturating_sub(elapsed).as_secs())),
            };
            let known = status(lease.vni, lease.address, &lease.holder, &self.config.node.name, name)?;
            Some(LeaseStatus { since: Some(lease.since), expires_s: until, ..known })
        });
        let mut all: Vec<_> = ours.collect();
        for view in self.others().filter(|view| view.alive) {
            let attached = view.facts.attachments.iter().flat_map(|attachment| {
                attachment
                    .addresses
                    .iter()
                    .map(|address| (attachment.vni, *address, attachment.name.as_str(), "in use"))
            });
            let leased = view.facts.leases.iter();
            let leased = leased.map(|lease| (lease.vni, lease.address, lease.holder.as_str(), "reserved"));
            let all_of = attached.chain(leased);
            all.extend(all_of.filter_map(|(vni, ip, holder, state)| status(vni, ip, holder, view.name(), state)));
        }
        all.sort_by(|a, b| (&a.network, a.address, &a.member).cmp(&(&b.network, b.address, &b.member)));
        all
    }

    // ---- ports -----------------------------------------------------------------------------------------------------

    /// The addresses that a port is to be made with, leased.
    pub(super) fn lease_port(&mut self, now: Instant, spec: &config::Port) -> Result<PortLeases, Denied> {
        let network = self.network(&spec.network).ok_or_else(|| self.no_network(&spec.network))?.clone();
        let space = self.space(&network);
        let what = Wanted { vni: network.vni, holder: &spec.name, by: By::Port };
        let mut taken = Vec::new();
        for address in &spec.addresses {
            let ip = address.cidr.address;
            taken.push((ip, self.claim(&network, &what, ip)?));
        }
        let mut addresses = spec.addresses.clone();
        if spec.auto {
            // A member with a slice of one family only gives addresses of that one.
            let has = |v4: bool| space.subnets.iter().any(|subnet| subnet.address.is_ipv4() == v4);
            let gives = |v4: bool| !space.pool(v4).is_empty();
            let (v4, v6) = match (gives(true), gives(false)) {
                (false, false) => (has(true), has(false)),
                some => some,
            };
            let chosen = self.choose(&network, &space, &what, v4, v6)?;
            addresses
                .extend(chosen.iter().map(|(ip, _)| PortAddress { cidr: with_prefix(&space, *ip), gateway: None }));
            taken.extend(chosen);
        }
        let fresh: Vec<Lease> = taken.into_iter().filter_map(|(_, lease)| lease).collect();
        let keys = fresh.iter().map(|lease| (lease.vni, lease.address)).collect();
        self.keep_leases(now, fresh)?;
        Ok(PortLeases { addresses, fresh: keys })
    }

    /// The port was not made after all.
    pub(super) fn unlease(&mut self, leases: &PortLeases) {
        if let Err(reason) = self.free_leases(&leases.fresh) {
            tracing::warn!("{reason}");
        }
    }

    /// The addresses of a port that exists, or did before a restart: those of its specification, and those it was given.
    pub(super) fn addresses_of(&self, spec: &config::Port) -> Vec<PortAddress> {
        let mut addresses = spec.addresses.clone();
        if let Some(network) = self.network(&spec.network).filter(|_| spec.auto) {
            let space = self.space(network);
            let given = self.addresses.leases.of_network(network.vni);
            let given = given.filter(|held| held.lease.chosen && held.lease.holder == spec.name);
            addresses.extend(
                given.map(|held| PortAddress { cidr: with_prefix(&space, held.lease.address), gateway: None }),
            );
        }
        addresses
    }

    /// A port is up with these addresses; what of them is not leased (by an earlier weft, or because it was attached where
    /// another had it) is from now on.
    pub(super) fn port_has(&mut self, now: Instant, id: PortId, vni: u32, name: &str, addresses: &[IpAddr]) {
        let is_leased = |ip: &&IpAddr| self.addresses.leases.get(vni, **ip).is_some();
        let since = self.host.unix_time().as_secs();
        let lease = |&address: &IpAddr| {
            let holder = name.to_owned();
            Lease { vni, address, holder, by: By::Port, chosen: false, since }
        };
        let missing: Vec<Lease> = addresses.iter().filter(|ip| !is_leased(ip)).map(lease).collect();
        if let Err(reason) = self.keep_leases(now, missing) {
            tracing::warn!("port {name}: {}", reason.reason());
        }
        addresses.iter().for_each(|ip| self.addresses.leases.used(vni, *ip));
        self.addresses.ports.insert(id, PortHas { vni, name: name.to_owned(), addresses: addresses.to_vec() });
        self.addresses.due = true;
    }

    /// A port is gone: its addresses are kept for it a while.
    pub(super) fn port_had(&mut self, now: Instant, id: PortId) {
        let elapsed = self.elapsed(now);
        if let Some(has) = self.addresses.ports.remove(&id) {
            has.addresses.iter().for_each(|ip| self.addresses.leases.unused(elapsed, has.vni, *ip));
            self.addresses.due = true;
        }
    }

    /// A port does not come back: what was kept for it is free.
    pub(super) fn forget_holder(&mut self, holder: &str) {
        let is_kept = |held: &&Held| matches!(held.state, State::Kept(_)) && held.lease.holder == holder;
        let kept: Vec<_> = self.addresses.leases.iter().filter(is_kept).collect();
        let kept: Vec<_> = kept.into_iter().map(|held| (held.lease.vni, held.lease.address)).collect();
        if let Err(reason) = self.free_leases(&kept) {
            tracing::warn!("{reason}");
        }
    }

    // ---- whose is what ---------------------------------------------------------------------------------------------

    /// An address of each wanted family, with the lease that is to be kept if it is none yet.
    fn choose(
        &self,
        network: &config::Network,
        space: &Space,
        what: &Wanted<'_>,
        v4: bool,
        v6: bool,
    ) -> Result<Vec<(IpAddr, Option<Lease>)>, Denied> {
        let name = &network.name;
        if !v4 && !v6 {
            return Err(Denied::Refused(format!(
                "network '{name}' has no subnets to choose an address from: give it `subnets` in [[network]]"
            )));
        }
        let mut chosen = Vec::new();
        let taken = self.taken(space, what, name, true);
        for v4 in [v4.then_some(true), v6.then_some(false)].into_iter().flatten() {
            let family = if v4 { "IPv4" } else { "IPv6" };
            let pool = space.pool(v4);
            if pool.is_empty() {
                return Err(Denied::Refused(self.no_slice(network, v4)));
            }
            let choose =
                |taken: &BTreeSet<IpAddr>| self.addresses.leases.choose(what.vni, what.holder, v4, &pool, taken);
            let found = match choose(&taken) {
                // What a member had that is gone is given last: it may come back with it, and is it gone?
                None if !taken.is_empty() => {
                    self.await_mesh(&format!("what is left in network '{name}'"))?;
                    choose(&self.taken(space, what, name, false))
                }
                found => found,
            };
            let address = found.ok_or_else(|| {
                let slices: Vec<_> = space.slices.iter().filter(|s| s.address.is_ipv4() == v4).map(Cidr::to_string).collect();
                Denied::Refused(format!(
                    "all {} {family} addresses that this host can give in network '{name}' are used (slice {}): detach \
                     something, or get another slice{}",
                    pool.len(),
                    slices.join(", "),
                    self.how_to_get_a_slice(network)
                ))
            })?;
            let known = self.addresses.leases.get(what.vni, address).map(|held| &held.lease);
            let is_same =
                |lease: &Lease| lease.holder == what.holder && (lease.by, what.by) != (By::Port, By::Request);
            let fresh = (!known.is_some_and(is_same)).then(|| self.new_lease(what, address, true));
            chosen.push((address, fresh));
        }
        Ok(chosen)
    }

    /// Addresses of our slices that others have: members, also those that are `gone` or not, and ports of the file that wait.
    fn taken(&self, space: &Space, what: &Wanted<'_>, network: &str, gone: bool) -> BTreeSet<IpAddr> {
        let known = self.others_in(what.vni).filter(|view| gone || view.alive);
        let claimed = known.flat_map(|view| claims_in(view, what.vni).map(|(ip, _)| ip).collect::<Vec<_>>());
        let before = self.claimed_before(what.vni, space).filter(|_| gone);
        let waiting =
            self.ports.values().filter(|entry| entry.spec.network == network && entry.spec.name != what.holder);
        let asked = waiting.flat_map(|entry| entry.spec.addresses.iter().map(|address| address.cidr.address));
        claimed.chain(before).chain(asked).filter(|ip| space.owns(*ip)).collect()
    }

    /// Whether a holder may have this very address; the lease that is to be kept if it is none yet.
    fn claim(&self, network: &config::Network, what: &Wanted<'_>, ip: IpAddr) -> Result<Option<Lease>, Denied> {
        let name = &network.name;
        if let Some(held) = self.addresses.leases.in_the_way(what.vni, ip, what.holder, what.by) {
            return Err(Denied::Refused(format!(
                "{ip} in network '{name}' belongs to {} of this host: choose another address",
                held.lease.holder
            )));
        }
        self.await_mesh(&format!("{ip} of network '{name}'"))?;
        // What a member had that is gone may be had by another: containers move away from hosts that died.
        if let Some(owner) = self.owner_elsewhere(what.vni, ip) {
            return Err(Denied::Elsewhere(format!(
                "{ip} in network '{name}' belongs to {owner}: choose another address"
            )));
        }
        let known = self.addresses.leases.get(what.vni, ip);
        let stays = known.is_some_and(|held| match held.state {
            State::Kept(_) if held.lease.holder != what.holder => false,
            // The engine's endpoint gets what the engine reserved, and the lease stays the engine's.
            _ => {
                held.lease.by == By::Request && what.by == By::Port
                    || held.lease.holder == what.holder && held.lease.by == what.by
            }
        });
        let chosen = known.is_some_and(|held| held.lease.holder == what.holder && held.lease.chosen);
        Ok((!stays).then(|| self.new_lease(what, ip, chosen)))
    }

    fn new_lease(&self, what: &Wanted<'_>, address: IpAddr, chosen: bool) -> Lease {
        let since = self.host.unix_time().as_secs();
        Lease { vni: what.vni, address, holder: what.holder.to_owned(), by: what.by, chosen, since }
    }

    fn no_slice(&self, network: &config::Network, v4: bool) -> String {
        let (name, family) = (&network.name, if v4 { "IPv4" } else { "IPv6" });
        if !network.subnets.iter().any(|subnet| subnet.address.is_ipv4() == v4) {
            return format!("network '{name}' has no {family} subnet to choose an address from");
        }
        let how = self.how_to_get_a_slice(network);
        format!("this host has no {family} addresses to give in network '{name}'{how}; or give the address yourself")
    }

    fn how_to_get_a_slice(&self, network: &config::Network) -> String {
        let told = self.trust.slice_trouble().map(|told| format!(" (the issuer says: {told})"));
        let told = told.unwrap_or_default();
        match network.slices {
            Some(_) => ": `slice` and `range` of [[network]] in its file say which".to_owned(),
            None if self.trust.certificate().is_some() => {
                format!(": the issuer gives slices with certificates, and has been asked{told}")
            }
            None => ": set `slice` of [[network]] in its file, to a part that no other member has".to_owned(),
        }
    }

    // ---- the disk --------------------------------------------------------------------------------------------------

    /// Keeps leases, first on the disk.
    fn keep_leases(&mut self, now: Instant, leases: Vec<Lease>) -> Result<(), Denied> {
        if leases.is_empty() {
            return Ok(());
        }
        if self.addresses.leases.is_full() {
            return Err(Denied::Refused(format!("this member has {MAX_LEASES} leases, and no more are allowed")));
        }
        self.host.change_leases(&leases, &[])?;
        let elapsed = self.elapsed(now);
        leases.into_iter().for_each(|lease| self.addresses.leases.take(elapsed, lease));
        self.addresses.due = true;
        Ok(())
    }

    /// Frees leases, first on the disk.
    pub(super) fn free_leases(&mut self, leases: &[(u32, IpAddr)]) -> Result<(), String> {
        if !leases.is_empty() {
            self.host.change_leases(&[], leases)?;
            leases.iter().for_each(|(vni, ip)| drop(self.addresses.leases.free(*vni, *ip)));
            self.addresses.due = true;
        }
        Ok(())
    }
}

/// What a member says that it has in a network: addresses, and who has them.
fn claims_in(view: MemberView<'_>, vni: u32) -> impl Iterator<Item = (IpAddr, &str)> {
    let attached = view.facts.attachments.iter().filter(move |attachment| attachment.vni == vni);
    let attached = attached.flat_map(|a| a.addresses.iter().map(move |address| (*address, a.name.as_str())));
    let leased = view.facts.leases.iter().filter(move |lease| lease.vni == vni);
    attached.chain(leased.map(|lease| (lease.address, lease.holder.as_str())))
}

/// An address with the prefix length that an interface has it with.
fn with_prefix(space: &Space, address: IpAddr) -> Cidr {
    let alone = if address.is_ipv4() { 32 } else { 128 };
    Cidr { address, prefix: space.subnet_of(address).map_or(alone, |subnet| subnet.prefix) }
}

/// Why an address cannot be in a network.
pub(super) fn outside(network: &config::Network, address: IpAddr) -> String {
    let subnets: Vec<String> = network.subnets.iter().map(ToString::to_string).collect();
    if subnets.is_empty() {
        return format!("{address} is no container's address: choose another");
    }
    format!("{address} is outside network '{}', which is {}: choose one inside", network.name, subnets.join(" and "))
}
