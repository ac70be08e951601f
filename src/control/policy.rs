//! Policies: what the file says of guards, isolation, rules and rates, with names and labels turned into addresses by what members
//! say of their ports.
//!
//! Each topology has the policies that follow from what is known at that moment; buckets, counters and the memory of what was
//! refused are the same ones as before. Names and labels are looked at anew when somebody's ports have changed, in one pass for all
//! networks that have rules or isolation. In a large mesh there is always somebody whose ports change: what others say is looked
//! at once a [`TICK`](super::TICK) at most, and the networks of our own ports as soon as these change, for a port's first frame
//! meets its rules.

use super::ports::PortEntry;
use super::request::{NetworkPolicy, Refused, RuleStatus};
use super::{Control, Host};
use crate::config;
use crate::config::policy::{Allow, Guard as GuardLevel, Party, Permission};
use crate::docker::HOLDER;
use crate::mesh::facts::labels::Labels;
use crate::mesh::facts::{Facts, Name, Named};
use crate::switch::counters::Counter;
use crate::switch::ids::PortId;
use crate::switch::policy::guard::Guard;
use crate::switch::policy::rate::{Limit, Rates};
use crate::switch::policy::refusals::Refusals;
use crate::switch::policy::rules::{Rule, Rules, Sides};
use crate::switch::policy::{Isolation, Policy, PortPolicy};
use crate::switch::topology::Port;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// What outlives a topology.
#[derive(Default)]
pub(super) struct Policies {
    /// Whose ports are called what has changed, and the topology does not know.
    pub(super) due: bool,
    /// The networks in which that is so of our own ports: they are not to wait.
    pub(super) pressing: BTreeSet<u32>,
    /// The tick in which everything was looked at last.
    looked: Option<Instant>,
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
    hosts: HashSet<Mac>,
}

/// What is known of one network.
#[derive(Default)]
struct Known<'a> {
    stations: HashMap<Mac, Station<'a>>,
    /// Who has which address.
    addresses: Vec<(IpAddr, Mac)>,
    /// Names that stand for addresses outside of weft.
    added: Vec<(Cow<'a, str>, IpAddr)>,
}

/// By what a station is known.
#[derive(Default)]
struct Station<'a> {
    names: Vec<Cow<'a, str>>,
    labels: Vec<(&'a str, &'a str)>,
    promiscuous: bool,
    host: bool,
}

impl<H: Host> Control<H> {
    /// The policies of all networks that have any, for the next topology.
    pub(super) fn policies(&mut self, now: Instant) -> BTreeMap<u32, Arc<Policy>> {
        let mut kept = std::mem::take(&mut self.policies);
        let all = kept.due && kept.looked != Some(self.now);
        if all {
            (kept.due, kept.looked) = (false, Some(self.now));
        }
        let pressing = std::mem::take(&mut kept.pressing);
        let is_stale = |network: &&config::Network| {
            let resolved = kept.networks.get(&network.vni).and_then(|known| known.resolved.as_ref());
            all || pressing.contains(&network.vni) || resolved.is_none()
        };
        let stale: BTreeSet<u32> = self.config.networks.iter().filter(is_stale).map(|network| network.vni).collect();
        let asked =
            self.config.networks.iter().filter(|network| stale.contains(&network.vni) && self.has_policy(network));
        let known = self.known(asked.map(|network| network.vni).collect());
        let nothing = Known::default();
        let up: HashSet<PortId> = self.up_ports().map(|(_, port, _)| port.id).collect();
        kept.rates.retain(|id, _| up.contains(id));
        kept.networks.retain(|vni, _| self.config.networks.iter().any(|network| network.vni == *vni));
        let mut policies = BTreeMap::new();
        for network in &self.config.networks {
            let of_network = kept.networks.entry(network.vni).or_default();
            let resolved = match &of_network.resolved {
                Some(resolved) if !stale.contains(&network.vni) => resolved.clone(),
                _ => self.resolve_policy(network, known.get(&network.vni).unwrap_or(&nothing), &mut of_network.hits),
            };
            of_network.resolved = Some(resolved.clone());
            let ports =
                self.up_ports().filter(|(_, port, _)| port.vni == network.vni).filter_map(|(name, port, _)| {
                    let entry = self.ports.get(name)?;
                    Some((port.id, self.port_policy(now, network, entry, port, &mut kept.rates)))
                });
            let policy = Policy {
                ports: ports.collect(),
                isolation: network.isolate.then(|| Isolation {
                    promiscuous: resolved.promiscuous,
                    hosts: resolved.hosts,
                    subnets: network.subnets.clone(),
                }),
                rules: resolved.rules,
                refusals: of_network.refusals.clone(),
            };
            if !policy.is_empty() {
                policies.insert(network.vni, Arc::new(policy));
            }
        }
        self.policies = kept;
        policies
    }

    /// The next topology has policies by the file as it is.
    pub(super) fn renew_policies(&mut self) {
        self.policies.pressing.extend(self.config.networks.iter().map(|network| network.vni));
    }

    /// Publishes what changed of policies since the last topology.
    pub(super) fn run_policies(&mut self) {
        if self.policies.due || !self.policies.pressing.is_empty() {
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

    fn allows<'a>(&'a self, network: &'a config::Network) -> impl Iterator<Item = &'a Allow> {
        self.config.allows.iter().filter(|allow| allow.network == network.name)
    }

    /// Whether it matters in a network who is called what.
    fn has_policy(&self, network: &config::Network) -> bool {
        network.isolate || self.allows(network).next().is_some()
    }

    fn resolve_policy(
        &self,
        network: &config::Network,
        known: &Known<'_>,
        hits: &mut HashMap<String, Arc<Counter>>,
    ) -> Resolved {
        let allows: Vec<&Allow> = self.allows(network).collect();
        if allows.is_empty() && !network.isolate {
            hits.clear();
            return Resolved::default();
        }
        let those = |is: fn(&Station<'_>) -> bool| {
            known
                .stations
                .iter()
                .filter(move |(_, station)| is(station))
                .map(|(mac, _)| *mac)
                .collect::<HashSet<Mac>>()
        };
        let (promiscuous, hosts) = (those(|station| station.promiscuous), those(|station| station.host));
        if allows.is_empty() {
            hits.clear();
            return Resolved { promiscuous, hosts, ..Resolved::default() };
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
        // What is sent to the service MAC goes to the host's way out.
        hosts.iter().copied().chain([Mac::service(network.vni)]).for_each(|mac| rules.add_host(mac));
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
        for (name, address) in &known.added {
            if let Some(sides) = by_name.get(name.as_ref()) {
                rules.add_prefix(Cidr::host(*address), *sides);
            }
        }
        let mut counts = vec![[0; 2]; allows.len()];
        let nobody = Station::default();
        for &(address, mac) in &known.addresses {
            let station = known.stations.get(&mac).unwrap_or(&nobody);
            let names = station.names.iter().filter_map(|name| by_name.get(name.as_ref()));
            let labels = station.labels.iter().filter_map(|label| by_label.get(label));
            let host = station.host.then_some(&of_hosts);
            let sides = names.chain(labels).chain(host).fold(Sides::default(), |sides, more| sides | *more);
            let sides = rules.add_station(address, mac, sides);
            sides.from.iter().for_each(|rule| counts[rule][0] += 1);
            sides.to.iter().for_each(|rule| counts[rule][1] += 1);
        }
        Resolved { rules: Some(Arc::new(rules)), counts, promiscuous, hosts }
    }

    /// What members told of these networks, as far as the file admits them there.
    fn known(&self, vnis: BTreeSet<u32>) -> HashMap<u32, Known<'_>> {
        let mut networks: HashMap<u32, Known<'_>> = vnis.into_iter().map(|vni| (vni, Known::default())).collect();
        if networks.is_empty() {
            return networks;
        }
        let shown = self.stations.stations().filter(|(vni, ..)| networks.contains_key(vni));
        let places: HashMap<(u32, Mac), PublicKey> =
            shown.map(|(vni, mac, member, _)| ((vni, mac), member)).collect();
        for (vni, address, mac) in self.stations.addresses() {
            if let Some(known) = networks.get_mut(&vni) {
                known.addresses.push((address, mac));
            }
        }
        let mut all = Gathered { networks, places };
        let own = &self.identity.key;
        for (name, port, _) in self.up_ports() {
            let Some((entry, station)) = self.ports.get(name).zip(all.station(port.vni, port.mac, own)) else {
                continue;
            };
            station.names.extend(names_of(name));
            station.labels.extend(entry.spec.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            (station.promiscuous, station.host) = (is_promiscuous(entry), entry.is_hosts());
        }
        for Name { vni, name, of } in self.own_names() {
            all.name(vni, own, Cow::Owned(name), &of);
        }
        for view in self.members.membership.members().filter(|view| view.alive) {
            let admitted = self.kept_to(&view.key);
            let is_admitted = |vni: u32| admitted.as_ref().is_none_or(|admitted| admitted.contains(&vni));
            let Facts { names, attachments, labels, .. } = view.facts;
            for Name { vni, name, of } in names.iter().filter(|name| is_admitted(name.vni)) {
                all.name(*vni, &view.key, Cow::Borrowed(name), of);
            }
            for known in attachments.iter().filter(|known| is_admitted(known.vni)) {
                if let Some(station) = all.station(known.vni, known.mac, &view.key) {
                    station.names.extend(names_of(&known.name));
                }
            }
            for known in labels.iter().filter(|known| is_admitted(known.vni)) {
                if let Some(station) = all.station(known.vni, known.mac, &view.key) {
                    station.labels.extend(known.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
                    (station.promiscuous, station.host) = (known.promiscuous, known.host);
                }
            }
        }
        all.networks
    }

    /// `weft policy`.
    pub(super) fn policy_statuses(&self, now: Instant) -> Vec<NetworkPolicy> {
        let networks = self.config.networks.iter().map(|network| {
            let nothing = Kept::default();
            let kept = self.policies.networks.get(&network.vni).unwrap_or(&nothing);
            let rules = self.allows(network).enumerate().map(|(number, allow)| {
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

/// A port's name, and its container's if that is how it is called: `CONTAINER:INTERFACE`. Told by the name alone, for that is all
/// that other hosts know of it, and all are to come to one verdict. What else has a ':' in its name is in no container's name:
/// ports of other targets and of CNI have two, and Docker's a number in the interface's place.
fn names_of(port: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let is_docker =
        port.strip_prefix(HOLDER).is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    let container = port.split_once(':').filter(|(_, interface)| !is_docker && !interface.contains(':'));
    [port].into_iter().chain(container.map(|(container, _)| container)).map(Cow::Borrowed)
}

/// What is being put together of several networks.
struct Gathered<'a> {
    networks: HashMap<u32, Known<'a>>,
    /// At which member a station is: what others say of it does not count.
    places: HashMap<(u32, Mac), PublicKey>,
}

impl<'a> Gathered<'a> {
    fn station(&mut self, vni: u32, mac: Mac, member: &PublicKey) -> Option<&mut Station<'a>> {
        let known = self.networks.get_mut(&vni).filter(|_| self.places.get(&(vni, mac)) == Some(member))?;
        Some(known.stations.entry(mac).or_default())
    }

    fn name(&mut self, vni: u32, member: &PublicKey, name: Cow<'a, str>, of: &Named) {
        match of {
            Named::Attachment(mac) => {
                if let Some(station) = self.station(vni, *mac, member) {
                    station.names.push(name);
                }
            }
            Named::Added { addresses, .. } => {
                let Some(known) = self.networks.get_mut(&vni) else { return };
                known.added.extend(addresses.iter().map(|address| (name.clone(), *address)));
            }
        }
    }
}

/// What tells a rule from others of its network.
fn text_of(allow: &Allow) -> String {
    format!("{} {} {:?}", allow.from, allow.to, allow.ports)
}
