//! Policies: what the file says of guards, isolation, rules and rates, with names and labels turned into addresses by what members
//! say of their ports.
//!
//! Each topology has the policies that follow from what is known at that moment; buckets, counters and the memory of what was
//! refused are the same ones as before. Names and labels are looked at anew when somebody's ports have changed, and only for
//! networks that have rules or isolation.

use super::ports::PortEntry;
use super::request::{NetworkPolicy, Refused, RuleStatus};
use super::{Control, Host};
use crate::config;
use crate::config::policy::{Allow, Guard as GuardLevel, Party, Permission};
use crate::mesh::facts::labels::Labels;
use crate::mesh::facts::{Name, Named};
use crate::switch::counters::Counter;
use crate::switch::ids::PortId;
use crate::switch::policy::guard::Guard;
use crate::switch::policy::rate::{Limit, Rates};
use crate::switch::policy::refusals::Refusals;
use crate::switch::policy::rules::{Rule, Rules, Sides};
use crate::switch::policy::{Policy, PortPolicy};
use crate::switch::topology::Port;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// What outlives a topology.
#[derive(Default)]
pub(super) struct Policies {
    /// Whose ports are called what has changed, and the topology does not know.
    pub(super) due: bool,
    rates: BTreeMap<PortId, Arc<Rates>>,
    networks: BTreeMap<u32, Kept>,
}

/// What is kept of one network.
#[derive(Default)]
struct Kept {
    refusals: Arc<Refusals>,
    hits: HashMap<String, Arc<Counter>>,
    resolved: Option<Resolved>,
}

/// What names and labels came to.
#[derive(Clone, Default)]
struct Resolved {
    rules: Option<Arc<Rules>>,
    /// For each rule, how many addresses are on each side.
    counts: Vec<[usize; 2]>,
    promiscuous: HashSet<Mac>,
}

/// By what a station is known.
#[derive(Default)]
struct Known<'a> {
    names: Vec<Cow<'a, str>>,
    labels: Vec<(&'a str, &'a str)>,
    promiscuous: bool,
    host: bool,
}

impl<H: Host> Control<H> {
    /// The policies of all networks that have any, for the next topology.
    pub(super) fn policies(&mut self, now: Instant) -> BTreeMap<u32, Arc<Policy>> {
        let due = std::mem::take(&mut self.policies.due);
        let mut kept = std::mem::take(&mut self.policies);
        let up: HashSet<PortId> = self.up_ports().map(|(_, port, _)| port.id).collect();
        kept.rates.retain(|id, _| up.contains(id));
        kept.networks.retain(|vni, _| self.config.networks.iter().any(|network| network.vni == *vni));
        let mut policies = BTreeMap::new();
        for network in &self.config.networks {
            let known = kept.networks.entry(network.vni).or_default();
            let resolved = match &known.resolved {
                Some(resolved) if !due => resolved.clone(),
                _ => self.resolve_policy(network, &mut known.hits),
            };
            known.resolved = Some(resolved.clone());
            let ports =
                self.up_ports().filter(|(_, port, _)| port.vni == network.vni).filter_map(|(name, port, _)| {
                    let entry = self.ports.get(name)?;
                    Some((port.id, self.port_policy(now, network, entry, port, &mut kept.rates)))
                });
            let policy = Policy {
                ports: ports.collect(),
                isolation: network.isolate.then_some(resolved.promiscuous),
                rules: resolved.rules,
                refusals: known.refusals.clone(),
            };
            if !policy.is_empty() {
                policies.insert(network.vni, Arc::new(policy));
            }
        }
        self.policies = kept;
        policies
    }

    /// Publishes what changed of policies since the last topology.
    pub(super) fn run_policies(&mut self) {
        if self.policies.due {
            self.publish();
        }
    }

    fn port_policy(
        &self,
        now: Instant,
        network: &config::Network,
        entry: &PortEntry,
        port: &Port,
        rates: &mut BTreeMap<PortId, Arc<Rates>>,
    ) -> PortPolicy {
        let spec = &entry.spec;
        let limit = |(rate, burst)| Limit { rate, burst };
        let limits = [spec.rate.egress(), spec.rate.ingress()].map(|rate| rate.map(limit));
        if limits == [None, None] {
            rates.remove(&port.id);
        } else if rates.get(&port.id).is_none_or(|known| known.limits() != limits) {
            rates.insert(port.id, Arc::new(Rates::new(limits[0], limits[1], now)));
        }
        let may = |permission| spec.allow.contains(&permission);
        let addresses = self.attachments.get(&port.id).map_or(&[][..], |known| known.addresses.as_slice());
        let bridge = may(Permission::Bridge) || addresses.is_empty();
        let guard = Guard {
            mac: (!bridge).then_some(port.mac),
            full: network.guard == GuardLevel::Full,
            addresses: if bridge { Box::default() } else { addresses.into() },
            dhcp_server: may(Permission::DhcpServer),
            router: may(Permission::Router),
            any_source: may(Permission::Router) || may(Permission::AnySource),
        };
        // Whoever has the host has this daemon.
        let guarded = network.guard != GuardLevel::Off && !entry.is_hosts();
        PortPolicy {
            guard: guarded.then_some(guard),
            promiscuous: is_promiscuous(entry),
            rates: rates.get(&port.id).cloned(),
        }
    }

    /// What policies of other members have to know of our ports, besides their addresses.
    pub(super) fn own_labels(&self) -> Vec<Labels> {
        let labels = self.up_ports().filter_map(|(name, port, _)| {
            let entry = self.ports.get(name)?;
            let labels = entry.spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            let (promiscuous, host) = (is_promiscuous(entry), entry.is_hosts());
            Some(Labels { vni: port.vni, mac: port.mac, promiscuous, host, labels })
        });
        labels.filter(|labels| labels.promiscuous || labels.host || !labels.labels.is_empty()).collect()
    }

    fn resolve_policy(&self, network: &config::Network, hits: &mut HashMap<String, Arc<Counter>>) -> Resolved {
        let allows: Vec<&Allow> = self.config.allows.iter().filter(|allow| allow.network == network.name).collect();
        if allows.is_empty() && !network.isolate {
            hits.clear();
            return Resolved::default();
        }
        let known = self.known_stations(network.vni);
        let promiscuous = known.iter().filter(|(_, known)| known.promiscuous).map(|(mac, _)| *mac).collect();
        if allows.is_empty() {
            hits.clear();
            return Resolved { promiscuous, ..Resolved::default() };
        }
        let texts: Vec<String> = allows.iter().map(|allow| text_of(allow)).collect();
        hits.retain(|text, _| texts.contains(text));
        let rule = |(allow, text): (&&Allow, &String)| Rule {
            ports: allow.ports.clone().into(),
            hits: hits.entry(text.clone()).or_default().clone(),
        };
        let service = network.service_addresses().iter().map(|address| address.address).collect();
        let rules = allows.iter().zip(&texts).map(rule).collect();
        let mut rules = Rules::new(rules, network.subnets.clone(), service);
        let (mut by_name, mut by_label) = (HashMap::<&str, Sides>::new(), HashMap::<(&str, &str), Sides>::new());
        let mut of_hosts = Sides::default();
        for (number, allow) in allows.iter().enumerate() {
            let [mut from, mut to] = [Sides::default(), Sides::default()];
            from.from.insert(number);
            to.to.insert(number);
            for (party, side) in [(&allow.from, from), (&allow.to, to)] {
                let entry = match party {
                    Party::Any => {
                        rules.add_anybody(side);
                        continue;
                    }
                    Party::Addresses(prefix) => {
                        rules.add_prefix(*prefix, side);
                        continue;
                    }
                    Party::Host => {
                        rules.add_beyond(side);
                        &mut of_hosts
                    }
                    Party::Label(key, value) => by_label.entry((key, value)).or_default(),
                    Party::Name(name) => by_name.entry(name).or_default(),
                };
                *entry = *entry | side;
            }
        }
        for (name, address) in self.added_names(network.vni) {
            if let Some(sides) = by_name.get(name.as_str()) {
                rules.add_prefix(Cidr::host(address), *sides);
            }
        }
        let mut counts = vec![[0; 2]; allows.len()];
        for (_, address, mac) in self.stations.addresses().filter(|(vni, ..)| *vni == network.vni) {
            let nobody = Known::default();
            let station = known.get(&mac).unwrap_or(&nobody);
            let names = station.names.iter().filter_map(|name| by_name.get(name.as_ref()));
            let labels = station.labels.iter().filter_map(|label| by_label.get(label));
            let host = station.host.then_some(&of_hosts);
            let sides = names.chain(labels).chain(host).fold(Sides::default(), |sides, more| sides | *more);
            let sides = rules.add_station(address, mac, sides);
            sides.from.iter().for_each(|rule| counts[rule][0] += 1);
            sides.to.iter().for_each(|rule| counts[rule][1] += 1);
        }
        Resolved { rules: Some(Arc::new(rules)), counts, promiscuous }
    }

    /// The stations of a network that members told of, and by what they are known.
    fn known_stations(&self, vni: u32) -> HashMap<Mac, Known<'_>> {
        let mut stations: HashMap<Mac, Known<'_>> = HashMap::new();
        let places: HashMap<Mac, PublicKey> =
            self.stations.stations().filter(|(of, ..)| *of == vni).map(|(_, mac, member, _)| (mac, member)).collect();
        let is_at = |mac: Mac, member: &PublicKey| places.get(&mac) == Some(member);
        for (name, port, mac) in self.up_ports().filter(|(_, port, _)| port.vni == vni) {
            let Some(entry) = self.ports.get(name).filter(|_| is_at(mac, &self.identity.key)) else { continue };
            let spec = &entry.spec;
            let known = stations.entry(port.mac).or_default();
            known.names.extend(names_of(name));
            known.labels.extend(spec.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            (known.promiscuous, known.host) = (is_promiscuous(entry), entry.is_hosts());
        }
        for Name { vni: of, name, of: what } in self.own_names() {
            if let Named::Attachment(mac) = what
                && of == vni
                && is_at(mac, &self.identity.key)
            {
                stations.entry(mac).or_default().names.push(Cow::Owned(name));
            }
        }
        for view in self.members.membership.members().filter(|view| view.alive) {
            for Name { name, of, .. } in view.facts.names.iter().filter(|known| known.vni == vni) {
                if let Named::Attachment(mac) = of
                    && is_at(*mac, &view.key)
                {
                    stations.entry(*mac).or_default().names.push(Cow::Borrowed(name));
                }
            }
            for attachment in view.facts.attachments.iter().filter(|known| known.vni == vni) {
                if is_at(attachment.mac, &view.key) {
                    stations.entry(attachment.mac).or_default().names.extend(names_of(&attachment.name));
                }
            }
            for labels in view.facts.labels.iter().filter(|known| known.vni == vni && is_at(known.mac, &view.key)) {
                let known = stations.entry(labels.mac).or_default();
                known.labels.extend(labels.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
                (known.promiscuous, known.host) = (labels.promiscuous, labels.host);
            }
        }
        stations
    }

    /// Names of a network that stand for addresses outside of weft.
    fn added_names(&self, vni: u32) -> Vec<(String, IpAddr)> {
        let others = self.members.membership.members().filter(|view| view.alive);
        let others = others.flat_map(|view| view.facts.names.iter().cloned());
        let added = self.own_names().into_iter().chain(others).filter(|name| name.vni == vni);
        let of = |name: Name| match name.of {
            Named::Added { addresses, .. } => addresses.into_iter().map(|ip| (name.name.clone(), ip)).collect(),
            Named::Attachment(_) => Vec::new(),
        };
        added.flat_map(of).collect()
    }

    /// `weft policy`.
    pub(super) fn policy_statuses(&self, now: Instant) -> Vec<NetworkPolicy> {
        let networks = self.config.networks.iter().map(|network| {
            let nothing = Kept::default();
            let kept = self.policies.networks.get(&network.vni).unwrap_or(&nothing);
            let allows = self.config.allows.iter().filter(|allow| allow.network == network.name);
            let rules = allows.enumerate().map(|(number, allow)| {
                let counts = kept.resolved.as_ref().and_then(|resolved| resolved.counts.get(number));
                let [from_addresses, to_addresses] = counts.copied().unwrap_or_default();
                RuleStatus {
                    from: allow.from.to_string(),
                    from_addresses,
                    to: allow.to.to_string(),
                    to_addresses,
                    ports: allow.ports.iter().map(ToString::to_string).collect(),
                    hits: kept.hits.get(&text_of(allow)).map_or(0, |hits| hits.get()),
                }
            });
            NetworkPolicy {
                network: network.name.clone(),
                guard: network.guard.to_string(),
                isolate: network.isolate,
                rules: rules.collect(),
                refused: kept.refusals.counts().into_iter().map(|(why, count)| (why.to_owned(), count)).collect(),
                latest: self.refused(now, network),
            }
        });
        networks.collect()
    }

    /// What was refused lately in all networks, the latest first.
    pub(super) fn refused_lately(&self, now: Instant) -> Vec<Refused> {
        let mut refused: Vec<_> =
            self.config.networks.iter().flat_map(|network| self.refused(now, network)).collect();
        refused.sort_by_key(|refused| refused.age_s);
        refused.truncate(SHOWN);
        refused
    }

    fn refused(&self, now: Instant, network: &config::Network) -> Vec<Refused> {
        let second = self.switch.seconds(now);
        let latest = self.policies.networks.get(&network.vni).map(|kept| kept.refusals.latest());
        let refused = latest.into_iter().flatten().map(|noted| Refused {
            network: network.name.clone(),
            reason: noted.refusal.reason.name().to_owned(),
            what: noted.refusal.to_string(),
            count: noted.count,
            age_s: second.saturating_sub(noted.second).into(),
        });
        refused.collect()
    }
}

/// Refusals that `weft status` shows.
const SHOWN: usize = 8;

fn is_promiscuous(entry: &PortEntry) -> bool {
    entry.is_hosts() || entry.spec.allow.contains(&Permission::Promiscuous)
}

/// A port's name, and that of its target if that is how it is called.
fn names_of(port: &str) -> impl Iterator<Item = Cow<'_, str>> {
    [port].into_iter().chain(port.rsplit_once(':').map(|(target, _)| target)).map(Cow::Borrowed)
}

/// What tells a rule from others of its network.
fn text_of(allow: &Allow) -> String {
    format!("{} {} {:?}", allow.from, allow.to, allow.ports)
}
