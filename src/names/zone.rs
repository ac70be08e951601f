//! What the file says of names: a [`Zone`] for each network, and where other names are asked for.

use super::text::below;
use crate::wire::cidr::Cidr;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

/// The domain of all networks that do not have one of their own choice. Nothing below it is asked elsewhere.
pub const DOMAIN: &str = "weft";

/// What becomes of questions for names that are not a network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Others {
    /// The host's resolvers are asked.
    #[default]
    Forward,
    /// They are refused.
    Refuse,
    /// No question at all is answered in this network.
    Off,
}

/// The names of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The network.
    pub vni: u32,
    /// The domain its names are below, in lower case without a dot at the end: `blue.weft`.
    pub domain: String,
    /// What becomes of other names.
    pub others: Others,
    /// Whether the instances on this host come before all others.
    pub local_first: bool,
    /// The network's prefixes: names of other addresses in them there are none, anywhere.
    pub subnets: Vec<Cidr>,
    /// Where the network's names are asked for; the domain itself has these addresses.
    pub service: Vec<IpAddr>,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Each network's zone, ascending by VNI.
    zones: Vec<Zone>,
    /// Domains of which nothing is asked elsewhere, besides [`DOMAIN`].
    domains: HashSet<String>,
    /// Whom to ask for other names, in this order; empty means whom the host asks.
    pub resolvers: Vec<SocketAddr>,
}

impl Settings {
    /// Settings of these zones.
    pub fn new(mut zones: Vec<Zone>, resolvers: Vec<SocketAddr>) -> Self {
        zones.sort_by_key(|zone| zone.vni);
        zones.dedup_by_key(|zone| zone.vni);
        let domains = zones.iter().map(|zone| zone.domain.clone()).collect();
        Self { zones, domains, resolvers }
    }

    /// All zones.
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// The domain of which nothing is asked elsewhere that a name is in. Below [`DOMAIN`] it is always that: whether there is another
    /// network of some name is not told.
    pub(super) fn domain_of<'t>(&self, name: &'t str) -> Option<&'t str> {
        if below(name, DOMAIN).is_some() {
            return Some(&name[name.len() - DOMAIN.len()..]);
        }
        let ends = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
        std::iter::once(name).chain(ends).find(|end| self.domains.contains(*end))
    }

    /// A network's zone.
    pub fn zone(&self, vni: u32) -> Option<&Zone> {
        self.zones.binary_search_by_key(&vni, |zone| zone.vni).ok().and_then(|at| self.zones.get(at))
    }
}
