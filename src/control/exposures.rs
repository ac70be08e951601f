//! Exposed networks: this host has an address in them, on an interface of its own.
//!
//! An exposure is a port in the daemon's own namespace (`expose:NETWORK`) that stays across restarts of the daemon and of the
//! machine, like one of the file, until `weft hide`. With `masquerade` it is also the network's way out: the switch hands it what
//! containers send through the network's service address, and the packet filter gives it the host's address.
//!
//! Without it nothing of the sort happens: that a host can be reached from a network is no reason to let its containers out by it.
//!
//! What the packet filter has to do is derived anew each tick from exposures, publications and instances ([`Control::run_outside`]), and set
//! when it is another than before. What is given up is forgotten on the disk only after that: a daemon that is killed between finds it
//! again, instead of rules that belong to nothing.

use super::ipam::Denied;
use super::nat::{Exposed, HostPort, PREFIX, Rules};
use super::ports::{Origin, State};
use super::publications::Publications;
use super::request::{Expose, ExposureStatus, Publish, Response};
use super::{Control, Host};
use crate::config::policy::{Permission, Rate};
use crate::config::{self, PortAddress, Target};
use crate::switch::ids::PortId;
use crate::wire::cidr::Cidr;
use crate::wire::key::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often a published port is tried that a program has.
const HOLD_AGAIN: Duration = Duration::from_secs(2);

/// How often it is looked whether interfaces of exposures are as they were made.
const MEND_EVERY: Duration = Duration::from_secs(2);

/// The longest name of an interface, without the zero byte.
const MAX_IFNAME: usize = 15;

/// A network that this host has an address in, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// The network's name.
    pub network: String,
    /// The host's addresses.
    pub addresses: Vec<Cidr>,
    /// Besides those, one of each family out of this member's slice.
    pub auto: bool,
    /// Whether containers leave through this host.
    pub masquerade: bool,
    /// Whether `weft expose` asked for it; otherwise it goes with the last publication.
    pub asked_for: bool,
}

/// What is remembered across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// An exposed network.
    Exposure(Exposure),
    /// A published port.
    Publication(Publish),
    /// Switches of the kernel that we changed, by path, with what they were; and beside them the boot that this is about.
    Switches(BTreeMap<String, String>),
    /// The containers that published ports led to, each with the member that had it.
    Instances(Instances),
}

/// By published port, the instances of its name and whose they are.
pub type Instances = BTreeMap<String, Vec<(IpAddr, PublicKey)>>;

impl Record {
    /// The name under which a later one takes its place.
    pub fn slot(&self) -> String {
        match self {
            Self::Exposure(exposure) => Self::exposure_slot(&exposure.network),
            Self::Publication(publish) => format!("publication {}", publish.host()),
            Self::Switches(_) => "switches".to_owned(),
            Self::Instances(_) => "instances".to_owned(),
        }
    }

    fn exposure_slot(network: &str) -> String {
        format!("exposure {network}")
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub(super) exposures: BTreeMap<String, Exposure>,
    pub(super) publications: Publications,
    /// What the packet filter does; `None` if an earlier run may have left something.
    rules: Option<Rules>,
    /// Slots of records that are to be forgotten once the packet filter does without.
    dropped: BTreeSet<String>,
    /// What was published for ports that are gone was not looked for yet.
    orphans_due: bool,
    /// Published ports that a program took while there was no daemon, and which.
    unheld: BTreeMap<HostPort, String>,
    /// When those are tried again.
    hold_at: Option<Instant>,
    /// Why it does not do what it should.
    problem: Option<String>,
    /// When interfaces are looked at next, and why some are not as they should be.
    mend_at: Option<Instant>,
    unmended: BTreeMap<String, String>,
}

/// The port's name of an exposed network.
fn port_name(network: &str) -> String {
    format!("expose:{network}")
}

/// The interface's name: `weft-NETWORK`; of a long name its beginning and four digits that follow from all of it.
pub fn ifname(network: &str) -> String {
    let name = format!("{PREFIX}{network}");
    let is_plain = network.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if name.len() <= MAX_IFNAME && is_plain {
        return name;
    }
    // FNV-1a (RFC 9923), folded to 16 bits.
    let hash = network.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let plain = network.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let beginning: String = plain.take(MAX_IFNAME - PREFIX.len() - 4).collect();
    format!("{PREFIX}{beginning}{:04x}", (hash >> 16) ^ (hash & 0xffff))
}

impl<H: Host> Control<H> {
    /// Takes up what an earlier run left.
    pub(super) fn restore_outside(&mut self) {
        let records = self.host.host_records();
        self.outside.rules = records.is_empty().then(Rules::default);
        self.outside.orphans_due = !records.is_empty();
        let mut instances = Instances::new();
        for record in records {
            match record {
                Record::Exposure(exposure) => {
                    self.want(spec(&exposure), Origin::Expose);
                    self.outside.exposures.insert(exposure.network.clone(), exposure);
                }
                Record::Publication(publish) => {
                    if let Err(reason) = self.hold(&publish) {
                        tracing::warn!("published port {} is not ours alone: {reason}", publish.host());
                        self.outside.unheld.insert(publish.host(), reason);
                    }
                    self.outside.publications.insert(publish);
                }
                Record::Instances(before) => instances = before,
                Record::Switches(_) => {}
            }
        }
        self.outside.publications.remember(self.now, &instances);
    }

    /// `weft expose`.
    pub fn expose(&mut self, now: Instant, expose: &Expose) -> Response {
        let before = self.outside.exposures.get(&expose.network);
        let (addresses, auto) = match before {
            Some(before) if expose.addresses.is_empty() && !expose.auto => (before.addresses.clone(), before.auto),
            _ => (expose.addresses.clone(), expose.auto || expose.addresses.is_empty()),
        };
        let Expose { network, masquerade, .. } = expose.clone();
        let wanted = Exposure { network, addresses, auto, masquerade, asked_for: true };
        match self.set_exposure(now, wanted) {
            Ok(()) => self.done_outside(self.describe_exposure(&expose.network), &expose.network),
            Err(reason) => Response::Refused(reason),
        }
    }

    /// What was done, and what keeps it from being of use.
    pub(super) fn done_outside(&self, what: String, network: &str) -> Response {
        let of_network = format!("network {network}: ");
        let obstacles = self.host.obstacles().into_iter().filter(|text| text.starts_with(&of_network));
        Response::Done(std::iter::once(what).chain(obstacles.map(|text| format!("warning: {text}"))).collect())
    }

    /// Exposes a network for what is published from it, if it is not.
    pub(super) fn ensure_exposed(&mut self, now: Instant, network: &str) -> Result<(), String> {
        if self.outside.exposures.contains_key(network) {
            return Ok(());
        }
        let (network, addresses) = (network.to_owned(), Vec::new());
        let exposure = Exposure { network, addresses, auto: true, masquerade: false, asked_for: false };
        self.set_exposure(now, exposure)
    }

    /// Makes an exposure what is wanted; what failed leaves it as it was.
    fn set_exposure(&mut self, now: Instant, wanted: Exposure) -> Result<(), String> {
        let name = wanted.network.clone();
        let before = self.outside.exposures.get(&name).cloned();
        if before.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let same_port = before.as_ref().is_some_and(|before| spec(before) == spec(&wanted));
        let network = self.network(&name).ok_or_else(|| self.no_network(&name))?;
        if wanted.auto && network.subnets.is_empty() {
            return Err(format!(
                "network {name} has no subnets to take an address from: give one with `weft expose {name} --ip CIDR`"
            ));
        }
        self.keep_record(&Record::Exposure(wanted.clone()))?;
        let made = if same_port {
            self.outside.exposures.insert(name.clone(), wanted);
            Ok(())
        } else {
            self.remake(now, before.as_ref(), &wanted)
        };
        let done = made.and_then(|()| self.apply_outside(now));
        if done.is_err() {
            self.undo_exposure(now, &name, before);
            self.run_outside(now);
        }
        done
    }

    /// Makes the port of an exposure in the place of what it had.
    fn remake(&mut self, now: Instant, before: Option<&Exposure>, wanted: &Exposure) -> Result<(), String> {
        if let Some(before) = before {
            self.remove_port(now, &port_name(&before.network));
        }
        let spec = spec(wanted);
        self.check(&spec)?;
        let place = self.host.host_place()?;
        self.make(now, &spec, Origin::Expose, &place).map_err(Denied::reason)?;
        self.outside.exposures.insert(wanted.network.clone(), wanted.clone());
        Ok(())
    }

    fn undo_exposure(&mut self, now: Instant, name: &str, before: Option<Exposure>) {
        self.remove_exposure(now, name);
        let Some(before) = before else { return };
        if let Err(error) = self.keep_record(&Record::Exposure(before.clone())) {
            tracing::warn!("network {name}: {error}");
        }
        // It comes back as it would after a restart.
        self.want(spec(&before), Origin::Expose);
        self.outside.exposures.insert(name.to_owned(), before);
        self.seek();
    }

    /// `weft hide`.
    pub fn hide(&mut self, now: Instant, network: &str) -> Response {
        if !self.outside.exposures.contains_key(network) {
            return Response::Done(vec![format!("network {network} is not exposed")]);
        }
        let published: Vec<String> = self.outside.publications.of(network).map(|p| p.host().to_string()).collect();
        if !published.is_empty() {
            const SHOWN: usize = 5;
            let more = match published.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let first = published[..published.len().min(SHOWN)].join(", ");
            return Response::Refused(format!(
                "network {network} is needed for what is published from it ({first}{more}): `weft unpublish` that first"
            ));
        }
        self.remove_exposure(now, network);
        match self.apply_outside(now) {
            Ok(()) => {
                Response::Done(vec![format!("network {network} hidden: this host has no address in it any more")])
            }
            Err(reason) => Response::Refused(reason),
        }
    }

    /// Hides a network that was exposed only for what was published from it, if nothing is any more.
    pub(super) fn hide_unneeded(&mut self, now: Instant) {
        let publications = &self.outside.publications;
        let unneeded = self.outside.exposures.values();
        let unneeded =
            unneeded.filter(|exposure| !exposure.asked_for && publications.of(&exposure.network).count() == 0);
        let unneeded: Vec<String> = unneeded.map(|exposure| exposure.network.clone()).collect();
        unneeded.iter().for_each(|network| self.remove_exposure(now, network));
    }

    fn remove_exposure(&mut self, now: Instant, network: &str) {
        self.remove_port(now, &port_name(network));
        self.forget_holder(&port_name(network));
        self.outside.exposures.remove(network);
        self.outside.dropped.insert(Record::exposure_slot(network));
    }

    /// Remembers something across restarts.
    pub(super) fn keep_record(&mut self, record: &Record) -> Result<(), String> {
        self.host.keep_host_record(record)?;
        self.outside.dropped.remove(&record.slot());
        Ok(())
    }

    /// A published port is to be remembered no longer.
    pub(super) fn drop_publication(&mut self, publish: Publish) {
        self.outside.dropped.insert(Record::Publication(publish).slot());
    }

    /// The port by which containers of a network reach the outside.
    pub(super) fn egress_of(&self, network: &str) -> Option<PortId> {
        self.outside.exposures.get(network).filter(|exposure| exposure.masquerade)?;
        match &self.ports.get(&port_name(network))?.state {
            State::Up { port } => Some(port.id),
            State::Waiting(_) => None,
        }
    }

    /// Tells the packet filter what it has to do, if that is another thing than before.
    pub(super) fn run_outside(&mut self, now: Instant) {
        if std::mem::take(&mut self.outside.orphans_due) {
            self.withdraw_orphans(now);
        }
        let does_nothing = self.outside.rules.as_ref() == Some(&Rules::default());
        if self.outside.exposures.is_empty() && does_nothing && self.outside.dropped.is_empty() {
            return;
        }
        let before = self.outside.problem.take();
        if let Err(reason) = self.apply_outside(now) {
            if before.as_ref() != Some(&reason) {
                tracing::warn!("{reason}");
            }
            self.outside.problem = Some(reason);
        }
    }

    /// Tries again to hold what is published and a program had.
    pub(super) fn hold_again(&mut self, now: Instant) {
        if self.outside.unheld.is_empty() || self.outside.hold_at.is_some_and(|at| now < at) {
            return;
        }
        self.outside.hold_at = Some(now + HOLD_AGAIN);
        for host in std::mem::take(&mut self.outside.unheld).into_keys() {
            let Some(publish) = self.outside.publications.publish_at(&host) else { continue };
            match self.hold(&publish) {
                Ok(()) => tracing::info!("published port {host} is ours alone again"),
                Err(reason) => drop(self.outside.unheld.insert(host, reason)),
            }
        }
    }

    /// Gives interfaces of exposures back what somebody took from them: network managers flush addresses that they do not know.
    pub(super) fn mend_exposures(&mut self, now: Instant) {
        if self.outside.mend_at.is_some_and(|at| now < at) {
            return;
        }
        self.outside.mend_at = Some(now + MEND_EVERY);
        // What is said of one that was hidden goes with it.
        let before = std::mem::take(&mut self.outside.unmended);
        let names: Vec<String> = self.outside.exposures.keys().map(|network| port_name(network)).collect();
        for name in names {
            let Some(entry) = self.ports.get(&name).filter(|entry| matches!(entry.state, State::Up { .. })) else {
                continue;
            };
            let (ifname, addresses) = (entry.spec.ifname.clone(), self.addresses_of(&entry.spec));
            match self.host.mend_interface(&ifname, &addresses) {
                Ok(false) => {}
                Ok(true) => tracing::info!("port {name}: {ifname} has back what somebody had taken from it"),
                Err(reason) => {
                    if before.get(&name) != Some(&reason) {
                        tracing::warn!("port {name}: {ifname} is not as it should be: {reason}");
                    }
                    self.outside.unmended.insert(name, reason);
                }
            }
        }
    }

    /// As [`Self::run_outside`], with its failure.
    pub(super) fn apply_outside(&mut self, now: Instant) -> Result<(), String> {
        let rules = self.wanted_rules(now);
        self.host.probe(self.outside.publications.to_probe());
        if self.outside.rules.as_ref() != Some(&rules) {
            self.host.set_rules(&rules)?;
            self.outside.rules = Some(rules);
            self.publish();
        }
        for slot in std::mem::take(&mut self.outside.dropped) {
            if let Err(error) = self.host.drop_host_record(&slot) {
                tracing::warn!("{slot} will be back after a restart: {error}");
            }
        }
        Ok(())
    }

    fn wanted_rules(&mut self, now: Instant) -> Rules {
        let mut rules = Rules::default();
        let mut up = BTreeSet::new();
        for exposure in self.outside.exposures.values() {
            let Some(entry) = self.ports.get(&port_name(&exposure.network)) else { continue };
            let (State::Up { port }, Some(network)) = (&entry.state, self.network(&exposure.network)) else {
                continue;
            };
            up.insert(network.name.clone());
            rules.exposed.push(Exposed {
                network: network.name.clone(),
                ifname: entry.spec.ifname.clone(),
                port: port.id,
                masquerade: if exposure.masquerade { prefixes(network, exposure) } else { Vec::new() },
                publishes: self.outside.publications.of(&network.name).next().is_some(),
            });
        }
        self.look_for_instances(now);
        rules.forwards = self.outside.publications.forwards(|network| up.contains(network));
        rules.resuming = self.outside.publications.are_awaited() && !rules.forwards.is_empty();
        rules
    }

    pub(super) fn outside_warnings(&self) -> impl Iterator<Item = String> {
        let problem = self.outside.problem.iter().cloned();
        let unheld = self.outside.unheld.iter();
        let unheld = unheld.map(|(host, reason)| format!("published port {host} is not ours alone: {reason}"));
        let unmended = self.outside.unmended.iter();
        let unmended =
            unmended.map(|(port, reason)| format!("port {port}: its interface is not as it should be: {reason}"));
        problem.chain(unheld).chain(unmended).chain(self.outside.publications.warnings()).chain(self.host.obstacles())
    }

    /// The networks that this host has an address in.
    pub(super) fn exposure_statuses(&self) -> Vec<ExposureStatus> {
        let status = |exposure: &Exposure| {
            let port = self.port_status(&port_name(&exposure.network));
            ExposureStatus {
                network: exposure.network.clone(),
                ifname: ifname(&exposure.network),
                state: port.as_ref().map_or_else(|| "waiting".to_owned(), |port| port.state.clone()),
                addresses: port.map(|port| port.addresses).unwrap_or_default(),
                masquerade: exposure.masquerade,
                asked_for: exposure.asked_for,
            }
        };
        self.outside.exposures.values().map(status).collect()
    }

    fn describe_exposure(&self, network: &str) -> String {
        let Some(status) = self.exposure_statuses().into_iter().find(|status| status.network == network) else {
            return format!("network {network} is not exposed");
        };
        let addresses: Vec<String> = status.addresses.iter().map(|address| address.cidr.to_string()).collect();
        let masquerade = if status.masquerade { "; its containers reach the outside through this host" } else { "" };
        let (addresses, ifname) = (addresses.join(", "), &status.ifname);
        format!("network {network} is exposed: this host has {addresses} in it, on {ifname}{masquerade}")
    }
}

/// The port of an exposure.
fn spec(exposure: &Exposure) -> config::Port {
    let address = |cidr: &Cidr| PortAddress { cidr: *cidr, gateway: None };
    config::Port {
        name: port_name(&exposure.network),
        network: exposure.network.clone(),
        target: Target::Host,
        ifname: ifname(&exposure.network),
        mac: None,
        addresses: exposure.addresses.iter().map(address).collect(),
        auto: exposure.auto,
        names: Vec::new(),
        labels: BTreeMap::new(),
        // What the host forwards comes from anywhere.
        allow: vec![Permission::AnySource],
        rate: Rate::default(),
    }
}

/// Where containers of a network come from: its subnets, or where none are set, those of the host's addresses.
fn prefixes(network: &config::Network, exposure: &Exposure) -> Vec<Cidr> {
    if network.subnets.is_empty() { exposure.addresses.clone() } else { network.subnets.clone() }
}
