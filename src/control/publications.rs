//! Published ports: a port of this host leads to the containers of a name, wherever in the mesh they are.
//!
//! A name's instances are its addresses in the network, those of members that are there. TCP ones are probed from this host through the
//! exposed interface, every two seconds: one that refused or did not answer twice in a row gets no new connection as long as another
//! answers. If none does, all are used: then it is more likely the probe that is wrong. UDP has nothing to ask, so there the mesh's
//! word is all.
//!
//! New connections go round among the instances in use. Those to an instance that is gone are forgotten by the kernel at once,
//! those to one that is merely unhealthy go on.
//!
//! *A restart* begins with knowing nobody. So the instances are on the disk with the members that had them, and one of before stays an
//! instance until its member was heard again, or some seconds have passed: then what is said of names counts alone.

use super::exposures::{Instances, Record};
use super::ipam::outside;
use super::nat::{Forward, HostPort, Proto};
use super::request::{Backend, InstanceStatus, Outside, PublicationStatus, Publish, Response, Unpublish};
use super::{Control, Host};
use crate::docker;
use crate::mesh::facts::Named;
use crate::wire::key::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Published ports of one host: more than CNI makes for the pods of a node. They are looked through for each new connection.
pub const MAX_PUBLICATIONS: usize = 1024;
/// Instances of one publication: each is a rule for each new connection to be held against.
pub const MAX_INSTANCES: usize = 16;
/// Probes without an answer, one after the other, that make an instance unhealthy.
const FAILURES: u8 = 2;
/// The longest name of a holder.
const MAX_HOLDER: usize = 255;
/// How long an instance of before a restart counts without a word of its member: by then members have found each other again.
const AWAITED: Duration = Duration::from_secs(30);
/// Instances of one publication that are remembered across a restart: all that are used, and as many that were.
const MAX_REMEMBERED: usize = 64;
/// The least time between two writes of them: each waits for the disk.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Publications {
    all: BTreeMap<HostPort, Publication>,
    /// Probes that failed in a row; those never probed are not here.
    failures: BTreeMap<SocketAddr, u8>,
    /// Until when instances of before a restart count; `None` once all are known that there are.
    awaited_until: Option<Instant>,
    /// The instances as they are on the disk.
    saved: BTreeMap<HostPort, Vec<IpAddr>>,
    next_save: Option<Instant>,
}

#[derive(Debug)]
struct Publication {
    publish: Publish,
    /// Its instances, ascending.
    instances: Vec<IpAddr>,
    /// Those of before a restart of which nothing was heard yet, with their members.
    awaited: Vec<(IpAddr, PublicKey)>,
}

impl Publications {
    pub(super) fn insert(&mut self, publish: Publish) {
        let one = Publication { publish, instances: Vec::new(), awaited: Vec::new() };
        self.all.insert(one.publish.host(), one);
    }

    /// Takes up the instances of before a restart.
    pub(super) fn remember(&mut self, now: Instant, before: &Instances) {
        for (host, one) in self.all.iter_mut().filter(|(_, one)| one.is_named()) {
            self.awaited_until = Some(now + AWAITED);
            if let Some(instances) = before.get(&host.to_string()) {
                one.awaited.clone_from(instances);
                self.saved.insert(*host, instances.iter().map(|(address, _)| *address).collect());
            }
        }
    }

    /// Whether there may be instances of before a restart that are not known.
    pub(super) fn are_awaited(&self) -> bool {
        self.awaited_until.is_some()
    }

    /// What is published on a port of the host.
    pub(super) fn publish_at(&self, host: &HostPort) -> Option<Publish> {
        self.all.get(host).map(|one| one.publish.clone())
    }

    /// What was published for this port.
    fn held_by(&self, holder: &str) -> Vec<HostPort> {
        let theirs = self.all.values().filter(|one| one.publish.holder.as_deref() == Some(holder));
        theirs.map(|one| one.publish.host()).collect()
    }

    /// What is published from a network.
    pub(super) fn of<'a>(&'a self, network: &'a str) -> impl Iterator<Item = &'a Publish> {
        self.all.values().map(|one| &one.publish).filter(move |publish| publish.network == network)
    }

    /// The instances to be probed.
    pub(super) fn to_probe(&self) -> Vec<SocketAddr> {
        let tcp = self.all.values().filter(|one| one.publish.proto == Proto::Tcp);
        let all: BTreeSet<SocketAddr> = tcp.flat_map(Publication::known).collect();
        all.into_iter().collect()
    }

    /// What the packet filter has to do, for networks that are exposed.
    pub(super) fn forwards(&self, is_exposed: impl Fn(&str) -> bool) -> Vec<Forward> {
        let wanted = self.all.values().filter(|one| is_exposed(&one.publish.network));
        let forward = |one: &Publication| Forward {
            proto: one.publish.proto,
            host_ip: one.publish.host_ip,
            host_port: one.publish.host_port,
            targets: self.used(one),
            known: one.known().collect(),
        };
        wanted.map(forward).collect()
    }

    fn is_healthy(&self, one: &Publication, instance: &SocketAddr) -> bool {
        one.publish.proto == Proto::Udp || self.failures.get(instance).is_none_or(|&failures| failures < FAILURES)
    }

    /// The instances that new connections go to: the healthy ones of each family, or all where none is.
    fn used(&self, one: &Publication) -> Vec<SocketAddr> {
        let mut used = Vec::new();
        for v4 in [true, false] {
            let of_family = || one.known().filter(|instance| instance.is_ipv4() == v4);
            let mut some: Vec<_> = of_family().filter(|instance| self.is_healthy(one, instance)).collect();
            if some.is_empty() {
                some = of_family().collect();
            }
            some.truncate(MAX_INSTANCES);
            used.extend(some);
        }
        used
    }

    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let unanswered = self.all.values().filter(|one| one.instances.is_empty());
        unanswered.map(|one| {
            let Publish { network, to, .. } = &one.publish;
            format!("published port {} leads nowhere: nobody in network {network} is {to}", one.publish.host())
        })
    }
}

impl Publication {
    fn is_named(&self) -> bool {
        matches!(self.publish.to, Backend::Name(_))
    }

    fn known(&self) -> impl Iterator<Item = SocketAddr> {
        self.instances.iter().map(|&instance| SocketAddr::new(instance, self.publish.port))
    }
}

impl<H: Host> Control<H> {
    /// `weft publish`.
    pub fn publish_port(&mut self, now: Instant, publish: &Publish) -> Response {
        match self.try_publish(now, publish) {
            Ok(sentence) => self.done_outside(sentence, &publish.network),
            Err(reason) => Response::Refused(reason),
        }
    }

    pub(super) fn try_publish(&mut self, now: Instant, publish: &Publish) -> Result<String, String> {
        let to = match &publish.to {
            Backend::Name(name) => Backend::Name(self.name_below(&publish.network, name)?.1),
            address @ Backend::Address(_) => address.clone(),
        };
        let publish = &Publish { to, ..publish.clone() };
        let host = publish.host();
        let publications = &self.outside.publications.all;
        if let Some(other) = publications.values().find(|one| one.publish.host().clashes(&host)) {
            let Publish { to, port, network, holder, .. } = &other.publish;
            if other.publish == *publish {
                return Ok(format!("{host} is published already"));
            }
            let by = holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default();
            let other = other.publish.host();
            return Err(format!(
                "port {other} of this host is published{by} already, to {to}:{port} of network {network}: choose another, or \
                 `weft unpublish {other}`"
            ));
        }
        if publications.len() >= MAX_PUBLICATIONS {
            return Err(format!(
                "this host publishes {MAX_PUBLICATIONS} ports, and no more are allowed; unpublish some"
            ));
        }
        if publish.host_port == 0 || publish.port == 0 {
            return Err("0 is no port: give the host's and the container's, 1 to 65535".to_owned());
        }
        if publish.holder.as_ref().is_some_and(|holder| holder.len() > MAX_HOLDER) {
            return Err(format!("a holder's name has at most {MAX_HOLDER} bytes"));
        }
        if let Some(gone) = publish.holder.as_ref().filter(|holder| !self.ports.contains_key(*holder)) {
            return Err(format!("there is no port {gone} that something could be published for: attach it first"));
        }
        let network = self.network(&publish.network).ok_or_else(|| self.no_network(&publish.network))?;
        match &publish.to {
            // Anything else would be a way into the host itself, or through it.
            Backend::Address(ip)
                if ip.is_loopback()
                    || !network.subnets.is_empty() && !network.subnets.iter().any(|subnet| subnet.contains(*ip)) =>
            {
                return Err(outside(network, *ip));
            }
            _ if publish.host_ip == Some(Ipv6Addr::LOCALHOST.into()) => {
                return Err(
                    "Linux lets nothing out that comes from ::1: publish on 127.0.0.1, or on another address"
                        .to_owned(),
                );
            }
            _ => {}
        }
        self.hold(publish)?;
        let done = self.ensure_exposed(now, &publish.network).and_then(|()| {
            self.keep_record(&Record::Publication(publish.clone()))?;
            self.outside.publications.insert(publish.clone());
            self.apply_outside(now)
        });
        if let Err(reason) = done {
            self.withdraw(now, host);
            self.run_outside(now);
            return Err(reason);
        }
        let instances = self.outside.publications.all.get(&host).map_or(0, |one| one.instances.len());
        let Publish { to, port, network, .. } = publish;
        let instances = match instances {
            0 => "where nobody has that name yet".to_owned(),
            1 => "which is one instance".to_owned(),
            n => format!("which are {n} instances"),
        };
        Ok(format!("port {host} of this host leads to {to}:{port} of network {network}, {instances}"))
    }

    /// `weft unpublish`.
    pub fn unpublish(&mut self, now: Instant, unpublish: &Unpublish) -> Response {
        let meant: Vec<HostPort> = match unpublish {
            Unpublish::Port { host_ip, host_port, proto } => {
                let host = HostPort { ip: *host_ip, port: *host_port, proto: *proto };
                self.outside.publications.all.get_key_value(&host).map(|(host, _)| *host).into_iter().collect()
            }
            Unpublish::Holder(holder) => self.outside.publications.held_by(holder),
        };
        if meant.is_empty() {
            let what = match unpublish {
                Unpublish::Port { host_ip, host_port, proto } => {
                    let host = HostPort { ip: *host_ip, port: *host_port, proto: *proto };
                    format!("port {host} of this host is not published: `weft published` lists what is")
                }
                Unpublish::Holder(holder) => format!("nothing is published for {holder}"),
            };
            return Response::Done(vec![what]);
        }
        meant.iter().for_each(|host| self.withdraw(now, *host));
        match self.apply_outside(now) {
            Ok(()) => {
                Response::Done(meant.iter().map(|host| format!("port {host} is published no longer")).collect())
            }
            Err(reason) => Response::Refused(reason),
        }
    }

    /// Keeps the host's port free of others. What calls the CNI plugin does that itself: Podman listens on them.
    pub(super) fn hold(&mut self, publish: &Publish) -> Result<(), String> {
        let is_ours = publish.holder.as_ref().is_none_or(|holder| holder.starts_with(docker::HOLDER));
        if is_ours { self.host.hold_port(publish.host()) } else { Ok(()) }
    }

    fn withdraw(&mut self, now: Instant, host: HostPort) {
        self.host.release_port(host);
        if let Some(one) = self.outside.publications.all.remove(&host) {
            self.drop_publication(one.publish);
        }
        self.hide_unneeded(now);
    }

    /// A port has ended for good: what was published for it would lead to whoever gets its addresses next.
    pub(super) fn withdraw_held(&mut self, now: Instant, holder: &str) {
        let meant = self.outside.publications.held_by(holder);
        for host in &meant {
            tracing::info!("port {host} is published no longer for {holder}");
            self.withdraw(now, *host);
        }
        if !meant.is_empty() {
            self.run_outside(now);
        }
    }

    /// Withdraws what was published for ports that ended while there was no daemon.
    pub(super) fn withdraw_orphans(&mut self, now: Instant) {
        let holders: BTreeSet<String> =
            self.outside.publications.all.values().filter_map(|one| one.publish.holder.clone()).collect();
        for holder in holders.iter().filter(|holder| !self.ports.contains_key(*holder)).collect::<Vec<_>>() {
            self.withdraw_held(now, holder);
        }
    }

    /// Instances were probed: whether each answers.
    pub fn probed(&mut self, now: Instant, answers: &[(SocketAddr, bool)]) {
        let publications = &mut self.outside.publications;
        for (instance, healthy) in answers {
            let before = publications.failures.get(instance).copied();
            let failures = if *healthy { 0 } else { before.unwrap_or_default().saturating_add(1) };
            match (before.unwrap_or_default() < FAILURES, failures < FAILURES) {
                (true, false) => tracing::warn!("published: {instance} does not answer"),
                (false, true) => tracing::info!("published: {instance} answers again"),
                _ => {}
            }
            publications.failures.insert(*instance, failures);
        }
        let kept: BTreeSet<SocketAddr> = publications.to_probe().into_iter().collect();
        publications.failures.retain(|instance, _| kept.contains(instance));
        self.run_outside(now);
    }

    /// Looks who has the published names.
    pub(super) fn look_for_instances(&mut self, now: Instant) {
        let mut publications = std::mem::take(&mut self.outside.publications);
        let is_time_left = publications.awaited_until.is_some_and(|until| now < until);
        for one in publications.all.values_mut() {
            let mut found = self.instances(&one.publish);
            let network = &one.publish.network;
            one.awaited.retain(|(address, member)| {
                is_time_left && !found.contains(address) && self.may_come_back(network, *address, member)
            });
            found.extend(one.awaited.iter().map(|(address, _)| *address));
            found.sort_unstable();
            one.instances = found;
        }
        // An earlier weft wrote down none, so that none are awaited says nothing.
        let are_all_heard =
            !publications.saved.is_empty() && publications.all.values().all(|one| one.awaited.is_empty());
        if !is_time_left || are_all_heard {
            publications.awaited_until = None;
        }
        self.outside.publications = publications;
        self.save_instances(now);
    }

    /// Whether an instance of before a restart may be there though no name says so yet: its member was not heard since, or it is
    /// ours, and its port may be given its name still.
    fn may_come_back(&self, network: &str, address: IpAddr, member: &PublicKey) -> bool {
        if *member == self.identity.key {
            let vni = self.network(network).map(|network| network.vni);
            return self.attachments().any(|port| Some(port.vni) == vni && port.addresses.contains(&address));
        }
        self.members.membership.member(member).is_none_or(|view| !view.was_alive)
    }

    /// Keeps the instances on the disk as they are, for the next restart.
    fn save_instances(&mut self, now: Instant) {
        let publications = &self.outside.publications;
        let named = || publications.all.iter().filter(|(_, one)| one.is_named() && !one.instances.is_empty());
        let first = |one: &Publication| one.instances[..one.instances.len().min(MAX_REMEMBERED)].to_vec();
        let saved: BTreeMap<HostPort, Vec<IpAddr>> = named().map(|(host, one)| (*host, first(one))).collect();
        let waits = publications.next_save.is_some_and(|next| now < next) && !saved.is_empty();
        if waits || saved == publications.saved {
            return;
        }
        let mut members = BTreeMap::new();
        for view in self.members.membership.members().filter(|view| view.alive) {
            let attached =
                view.facts.attachments.iter().flat_map(|one| one.addresses.iter().map(|ip| (one.vni, *ip)));
            members.extend(attached.map(|place| (place, view.key)));
            for name in &view.facts.names {
                if let Named::Added { addresses, .. } = &name.of {
                    members.extend(addresses.iter().map(|ip| ((name.vni, *ip), view.key)));
                }
            }
        }
        let member_of = |one: &Publication, address: IpAddr| {
            let awaited = one.awaited.iter().find(|(awaited, _)| *awaited == address).map(|(_, member)| *member);
            let vni = self.network(&one.publish.network).map_or(0, |network| network.vni);
            awaited.or_else(|| members.get(&(vni, address)).copied()).unwrap_or(self.identity.key)
        };
        let with_members = |(host, one): (&HostPort, &Publication)| {
            (host.to_string(), first(one).into_iter().map(|ip| (ip, member_of(one, ip))).collect())
        };
        let record = Record::Instances(named().map(with_members).collect());
        let kept = match saved.is_empty() {
            true => self.host.drop_host_record(&record.slot()),
            false => self.host.keep_host_record(&record),
        };
        if let Err(error) = kept {
            tracing::warn!("a restart may cut connections of published ports: {error}");
        }
        let publications = &mut self.outside.publications;
        (publications.saved, publications.next_save) = (saved, Some(now + SAVE_AGAIN));
    }

    /// The addresses that a publication leads to, ascending.
    fn instances(&self, publish: &Publish) -> Vec<IpAddr> {
        let Some(network) = self.network(&publish.network) else { return Vec::new() };
        let name = match &publish.to {
            Backend::Address(address) => return vec![*address],
            Backend::Name(name) => name,
        };
        let named = self.names().addresses_of(network.vni, &name.to_ascii_lowercase()).unwrap_or_default();
        let is_inside =
            |ip: &IpAddr| network.subnets.is_empty() || network.subnets.iter().any(|net| net.contains(*ip));
        named.into_iter().map(|(address, _)| address).filter(is_inside).collect()
    }

    /// `weft published`.
    pub(super) fn outside_status(&self) -> Outside {
        let publications = &self.outside.publications;
        let status = |one: &Publication| {
            let used = publications.used(one);
            let state = |instance: &SocketAddr| match () {
                () if used.contains(instance) && publications.is_healthy(one, instance) => "used",
                () if used.contains(instance) => "used, though it does not answer",
                () if publications.is_healthy(one, instance) => "too many",
                () => "unhealthy",
            };
            let instances = one.known().map(|i| InstanceStatus { address: i.ip(), state: state(&i).to_owned() });
            PublicationStatus { publish: one.publish.clone(), instances: instances.collect() }
        };
        Outside { exposed: self.exposure_statuses(), published: publications.all.values().map(status).collect() }
    }
}
