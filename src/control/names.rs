//! Names: what ports are called and what was added by hand, told to other members; and the directory of what all have.
//!
//! ```text
//!   ports' names, added names ──► Facts ──► other members
//!                                   │
//!   other members' Facts ───────────┴──► Directory ──► whoever answers questions
//! ```
//!
//! A member that is not alive has no names. What was added by hand belongs to the member where it was added, and is kept across restarts.

use super::ports::{PortEntry, State};
use super::request::{AddName, NameStatus, RemoveName, Response};
use super::{Control, Host};
use crate::config::{self, Dns, Target};
use crate::docker::names::MAX_CONTAINERS;
use crate::mesh::facts::{self, Attachment, Facts, MAX_ADDED, MAX_NAME_BYTES, MAX_NAMES, MAX_SERVICES, Name, Named};
use crate::names::directory::{Entry, Kind};
use crate::names::zone::Others;
use crate::names::{Directory, Settings, Zone};
use crate::wire::key::PublicKey;
use crate::wire::name::{is_host_name, to_host_name};
use crate::wire::service::Service;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Names that may be added on one member, and bytes of their records: three quarters of what a member can tell, so that names of
/// ports have room.
const MAX_BY_HAND: usize = MAX_NAMES / 4 * 3;
const MAX_BYTES_BY_HAND: usize = MAX_NAME_BYTES / 4 * 3;

/// A name that was added by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedName {
    /// The network's name.
    pub network: String,
    /// The name, in lower case, below the network's domain.
    pub name: String,
    /// Its addresses, ascending.
    pub addresses: Vec<IpAddr>,
    /// What it offers, ascending.
    pub services: Vec<Service>,
}

/// What control knows of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    directory: Arc<Directory>,
    /// By network and name.
    added: BTreeMap<(String, String), AddedName>,
    /// What ports are called besides what was asked for, by port.
    given: BTreeMap<String, Vec<String>>,
    /// Containers of Docker without names, since there are too many.
    unnamed: usize,
}

impl Names {
    pub(super) fn new(added: Vec<AddedName>, directory: Arc<Directory>) -> Self {
        let added = added.into_iter().map(|added| ((added.network.clone(), added.name.clone()), added)).collect();
        Self { added, directory, ..Self::default() }
    }
}

impl<H: Host> Control<H> {
    /// Who is called what, for whoever answers questions.
    pub fn names(&self) -> &Arc<Directory> {
        &self.names.directory
    }

    // ---- what we say -----------------------------------------------------------------------------------------------

    /// A port has these names from now on, instead of those it was asked for with, until it is gone. What cannot be a name becomes
    /// the nearest that can.
    pub fn set_port_names(&mut self, _: Instant, port: &str, names: Vec<String>) {
        if self.ports.contains_key(port) {
            let mut names: Vec<String> = names.iter().filter_map(|name| to_host_name(name)).collect();
            names.sort();
            names.dedup();
            self.members.facts_due |= self.names.given.get(port) != Some(&names);
            self.names.given.insert(port.to_owned(), names);
        }
    }

    /// A port is no more: neither are the names it was given.
    pub(super) fn forget_port_names(&mut self, port: &str) {
        self.names.given.remove(port);
    }

    /// So many containers of Docker have no names.
    pub(super) fn set_unnamed(&mut self, count: usize) {
        self.names.unnamed = count;
    }

    /// What a port is called.
    pub(super) fn names_of_port(&self, entry: &PortEntry) -> Vec<String> {
        match (self.names.given.get(&entry.spec.name), &entry.spec.target) {
            (Some(given), _) => given.clone(),
            (None, Target::Container(name)) if entry.spec.names.is_empty() => {
                to_host_name(name).into_iter().collect()
            }
            (None, _) => entry.spec.names.iter().filter_map(|name| to_host_name(name)).collect(),
        }
    }

    /// All names of ours.
    pub(super) fn own_names(&self) -> Vec<Name> {
        let mut names = Vec::new();
        for entry in self.ports.values() {
            let State::Up { port } = &entry.state else { continue };
            let of = Named::Attachment(port.mac);
            let called = self.names_of_port(entry).into_iter();
            names.extend(called.map(|name| Name { vni: port.vni, name, of: of.clone() }));
        }
        names.extend(self.names.added.values().filter_map(|added| {
            let AddedName { name, addresses, services, .. } = added.clone();
            Some(Name { vni: self.network(&added.network)?.vni, name, of: Named::Added { addresses, services } })
        }));
        names
    }

    /// `weft names add`.
    pub fn add_name(&mut self, add: &AddName) -> Response {
        match self.try_to_add(add) {
            Ok(added) => {
                self.members.facts_due = true;
                let mut whats: Vec<String> = added.addresses.iter().map(ToString::to_string).collect();
                whats.extend(added.services.iter().map(ToString::to_string));
                Response::Done(vec![format!("{} in network {}: {}", added.name, added.network, whats.join(", "))])
            }
            Err(reason) => Response::Refused(reason),
        }
    }

    fn try_to_add(&mut self, add: &AddName) -> Result<AddedName, String> {
        let (network, name) = self.name_below(&add.network, &add.name)?;
        if add.addresses.is_empty() && add.services.is_empty() {
            return Err(format!("{name} would stand for nothing: give it --ip ADDRESS, or --srv PORT"));
        }
        let is_no_host = |ip: &&IpAddr| {
            let is_mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            is_mapped || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback()
        };
        if let Some(wrong) = add.addresses.iter().find(is_no_host) {
            return Err(format!("{wrong} is not the address of a host that containers can reach: give another --ip"));
        }
        let key = (network.clone(), name.clone());
        let nothing = AddedName { network, name, addresses: Vec::new(), services: Vec::new() };
        let mut added = self.names.added.get(&key).cloned().unwrap_or(nothing);
        added.addresses.extend(&add.addresses);
        added.services.extend(add.services.iter().cloned());
        facts::ascending(&mut added.addresses);
        facts::ascending(&mut added.services);
        for (what, has, most) in
            [("addresses", added.addresses.len(), MAX_ADDED), ("services", added.services.len(), MAX_SERVICES)]
        {
            if has > most {
                let name = &added.name;
                return Err(format!(
                    "{name} would have {has} {what} of this member, and {most} are allowed: remove some"
                ));
            }
        }
        let vni = self.network(&added.network).map_or(0, |network| network.vni);
        let mut all = self.own_names();
        all.retain(|known| matches!(known.of, Named::Added { .. }) && (known.vni, &known.name) != (vni, &added.name));
        let of = Named::Added { addresses: added.addresses.clone(), services: added.services.clone() };
        all.push(Name { vni, name: added.name.clone(), of });
        let bytes: usize = all.iter().map(Name::record_len).sum();
        if all.len() > MAX_BY_HAND || bytes > MAX_BYTES_BY_HAND {
            return Err(format!(
                "this member has as many names as one may add, {MAX_BY_HAND} or {MAX_BYTES_BY_HAND} bytes of them: remove some, or \
                 add it on another member"
            ));
        }
        self.host.keep_name(&added)?;
        self.names.added.insert(key, added.clone());
        Ok(added)
    }

    /// `weft names remove`.
    pub fn remove_name(&mut self, remove: &RemoveName) -> Response {
        match self.try_to_remove(remove) {
            Ok(what) => {
                self.members.facts_due = true;
                Response::Done(vec![what])
            }
            Err(reason) => Response::Refused(reason),
        }
    }

    fn try_to_remove(&mut self, remove: &RemoveName) -> Result<String, String> {
        // Also of a network that has left the file: it may come again, and the name with it.
        let left = (remove.network.clone(), remove.name.trim_end_matches('.').to_ascii_lowercase());
        let key = match self.name_below(&remove.network, &remove.name) {
            Err(_) if self.names.added.contains_key(&left) => left,
            key => key?,
        };
        let (network, name) = &key;
        let unknown = || {
            format!(
                "nothing was added to {name} in network {network} on this member: `weft names` says what is where"
            )
        };
        let mut left = self.names.added.get(&key).cloned().ok_or_else(unknown)?;
        let is_all = remove.addresses.is_empty() && remove.services.is_empty();
        if let Some(wrong) = remove.addresses.iter().find(|address| !left.addresses.contains(address)) {
            return Err(format!("{name} was not given {wrong} on this member: `weft names` says what is where"));
        }
        if let Some(wrong) = remove.services.iter().find(|service| !left.services.contains(service)) {
            return Err(format!("{name} was not given {wrong} on this member: `weft names` says what is where"));
        }
        left.addresses.retain(|address| !is_all && !remove.addresses.contains(address));
        left.services.retain(|service| !is_all && !remove.services.contains(service));
        if left.addresses.is_empty() && left.services.is_empty() {
            self.host.drop_name(&left)?;
            self.names.added.remove(&key);
        } else {
            self.host.keep_name(&left)?;
            self.names.added.insert(key.clone(), left);
        }
        let (network, name) = key;
        Ok(if is_all {
            format!("{name} removed from network {network}")
        } else {
            format!("{name} in network {network} changed")
        })
    }

    /// A network of ours, and the name in it that is meant.
    pub(super) fn name_below(&self, network: &str, name: &str) -> Result<(String, String), String> {
        let network = self.network(network).ok_or_else(|| self.no_network(network))?;
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name == network.naming.zone {
            return Err(format!("'{name}' is the zone itself: give a name in it"));
        }
        let below = name.strip_suffix(&network.naming.zone).and_then(|name| name.strip_suffix('.'));
        let name = below.unwrap_or(&name);
        if is_host_name(name) {
            Ok((network.name.clone(), name.to_owned()))
        } else {
            let name = name.escape_debug();
            Err(format!(
                "'{name}' cannot be a name: it has at most 128 letters, digits, '-' and '_', in labels of at most 63 between dots"
            ))
        }
    }

    // ---- what everybody says ---------------------------------------------------------------------------------------

    /// Takes over what the file says.
    pub(super) fn apply_zones(&self) {
        let zones = self.config.networks.iter().map(|network| Zone {
            vni: network.vni,
            domain: network.naming.zone.clone(),
            others: match network.naming.dns {
                Dns::Forward => Others::Forward,
                Dns::Refuse => Others::Refuse,
                Dns::Off => Others::Off,
            },
            local_first: network.naming.local_first,
            subnets: network.subnets.clone(),
            service: network.service_addresses().iter().map(|service| service.address).collect(),
        });
        let settings = Settings::new(zones.collect(), self.config.node.resolvers.clone());
        if settings != *self.names.directory.settings() {
            self.names.directory.set_settings(settings);
        }
    }

    /// A member says this of itself; `None` when it is not there.
    pub(super) fn member_is_called(&self, member: PublicKey, facts: Option<&Facts>) {
        let mut listed = facts.map(|facts| listed(&facts.names, &facts.attachments)).unwrap_or_default();
        if let Some(admitted) = self.kept_to(&member) {
            listed.retain(|(vni, ..), _| admitted.contains(vni));
        }
        let entries = listed.iter().map(|((vni, name, kind), (addresses, services))| Entry {
            vni: *vni,
            name,
            kind: *kind,
            addresses,
            services,
        });
        self.names.directory.set_member(member, member == self.identity.key, entries);
    }

    /// `weft names`.
    pub(super) fn name_statuses(&self, network: Option<&str>) -> Response {
        if let Some(unknown) = network.filter(|name| self.network(name).is_none()) {
            return Response::Refused(self.no_network(unknown));
        }
        let networks: BTreeMap<u32, &config::Network> = self.config.networks.iter().map(|n| (n.vni, n)).collect();
        let mut statuses = Vec::new();
        let mut list = |member: &str, facts: &Facts| {
            for ((vni, name, kind), (addresses, services)) in listed(&facts.names, &facts.attachments) {
                let is_meant = |known: &&&config::Network| network.is_none_or(|name| known.name == name);
                let Some(known) = networks.get(&vni).filter(is_meant) else { continue };
                let kind = match kind {
                    Kind::Attachment => "attachment",
                    Kind::Added => "added",
                };
                statuses.push(NameStatus {
                    name: name.to_owned(),
                    network: known.name.clone(),
                    zone: known.naming.zone.clone(),
                    addresses,
                    services,
                    member: member.to_owned(),
                    kind: kind.to_owned(),
                });
            }
        };
        list(&self.config.node.name, &self.facts());
        let others = self.members.membership.members();
        others.filter(|view| view.alive).for_each(|view| list(view.name(), view.facts));
        statuses.sort();
        Response::Names(statuses)
    }

    /// What needs a person's attention among names.
    pub(super) fn name_warnings(&self) -> impl Iterator<Item = String> {
        let refused = Some(self.names.directory.refused()).filter(|&refused| refused > 0);
        let refused = refused.map(|count| format!("{count} names of members are not answered: there are too many"));
        let unnamed = Some(self.names.unnamed).filter(|&unnamed| unnamed > 0).map(|count| {
            format!("{count} containers of Docker have no names: those of {MAX_CONTAINERS} are taken, and more run")
        });
        refused.into_iter().chain(unnamed)
    }
}

type Listed<'f> = BTreeMap<(u32, &'f str, Kind), (Vec<IpAddr>, Vec<Service>)>;

/// Names with their addresses: an attachment's are those of the attachment, and several that share a name are one.
fn listed<'f>(names: &'f [Name], attachments: &[Attachment]) -> Listed<'f> {
    let attached: BTreeMap<_, _> = attachments.iter().map(|a| ((a.vni, a.mac), &a.addresses)).collect();
    let mut listed = Listed::new();
    for Name { vni, name, of } in names {
        match of {
            Named::Attachment(mac) => {
                let (addresses, _) = listed.entry((*vni, name.as_str(), Kind::Attachment)).or_default();
                addresses.extend(attached.get(&(*vni, *mac)).into_iter().flat_map(|addresses| addresses.iter()));
                facts::ascending(addresses);
            }
            Named::Added { addresses, services } => {
                listed.insert((*vni, name.as_str(), Kind::Added), (addresses.clone(), services.clone()));
            }
        }
    }
    listed
}
