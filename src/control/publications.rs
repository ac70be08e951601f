//! Published ports: a port of this host leads to the containers of a name, wherever in the mesh they are.
//!
//! A name's instances are its addresses in the network, those of members that are there. TCP ones are probed from this host through the
//! exposed interface, every two seconds: one that refused or did not answer twice in a row gets no new connection as long as another
//! answers. If none does, all are used: then it is more likely the probe that is wrong. UDP has nothing to ask, so there the mesh's
//! word is all.
//!
//! New connections go round among the instances in use. Those to an instance that is gone are forgotten by the kernel at once,
//! those to one that is merely unhealthy go on.

use super::exposures::Record;
use super::nat::{Forward, HostPort, Proto};
use super::request::{Backend, InstanceStatus, Outside, PublicationStatus, Publish, Response, Unpublish};
use super::{Control, Host};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Published ports of one host: more than CNI makes for the pods of a node. They are looked through for each new connection.
pub const MAX_PUBLICATIONS: usize = 1024;
/// Instances of one publication: each is a rule for each new connection to be held against.
pub const MAX_INSTANCES: usize = 16;
/// Probes without an answer, one after the other, that make an instance unhealthy.
const FAILURES: u8 = 2;
/// The longest name of a holder.
const MAX_HOLDER: usize = 255;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Publications {
    all: BTreeMap<HostPort, Publication>,
    /// Probes that failed in a row; those never probed are not here.
    failures: BTreeMap<SocketAddr, u8>,
}

#[derive(Debug)]
struct Publication {
    publish: Publish,
    /// Its instances, ascending.
    instances: Vec<IpAddr>,
}

impl Publications {
    pub(super) fn insert(&mut self, publish: Publish) {
        self.all.insert(publish.host(), Publication { publish, instances: Vec::new() });
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
    fn known(&self) -> impl Iterator<Item = SocketAddr> {
        self.instances.iter().map(|&instance| SocketAddr::new(instance, self.publish.port))
    }
}

impl<H: Host> Control<H> {
    /// `weft publish`.
    pub fn publish_port(&mut self, now: Instant, publish: &Publish) -> Response {
        match self.try_publish(now, publish) {
            Ok(sentence) => Response::Done(vec![sentence]),
            Err(reason) => Response::Refused(reason),
        }
    }

    fn try_publish(&mut self, now: Instant, publish: &Publish) -> Result<String, String> {
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
        self.host.hold_port(host)?;
        let done = self.ensure_exposed(now, &publish.network).and_then(|()| {
            self.host.keep_host_record(&Record::Publication(publish.clone()))?;
            self.outside.publications.insert(publish.clone());
            self.apply_outside(now)
        });
        if let Err(reason) = done {
            self.withdraw(now, host);
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
        let is_meant = |publish: &Publish| match unpublish {
            Unpublish::Port { host_ip, host_port, proto } => {
                publish.host() == HostPort { ip: *host_ip, port: *host_port, proto: *proto }
            }
            Unpublish::Holder(holder) => publish.holder.as_ref() == Some(holder),
        };
        let publications = self.outside.publications.all.values();
        let meant: Vec<HostPort> =
            publications.map(|p| &p.publish).filter(|p| is_meant(p)).map(Publish::host).collect();
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

    fn withdraw(&mut self, now: Instant, host: HostPort) {
        self.host.release_port(host);
        if let Some(one) = self.outside.publications.all.remove(&host)
            && let Err(error) = self.host.drop_host_record(&Record::Publication(one.publish).slot())
        {
            tracing::warn!("port {host} will be published again after a restart: {error}");
        }
        self.hide_unneeded(now);
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
    pub(super) fn look_for_instances(&mut self, _now: Instant) {
        let mut publications = std::mem::take(&mut self.outside.publications);
        for one in publications.all.values_mut() {
            one.instances = self.instances(&one.publish);
        }
        self.outside.publications = publications;
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
