//! The member that Docker drives ([`docker::Driver`]) is this control plane: its networks, its leases, its ports.

use super::ipam::Denied;
use super::nat::Proto;
use super::ports::{Origin, State};
use super::request::{self, Backend, LeaseWanted, Publish};
use super::{Control, Host, NewPort};
use crate::config::{self, PortAddress, Target};
use crate::docker::published::Published;
use crate::docker::record::Record;
use crate::docker::{self, Driver, Member, Place, Refusal, Reply, Wish};
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use crate::wire::service::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

/// What Docker's own API says, to which its drivers' calls are blind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It has these networks, by their ids.
    Networks(Vec<String>),
    /// Containers are called so, by their endpoints' ids.
    Names(Vec<(String, Vec<String>)>),
    /// So many containers have no names, since there are too many.
    LeftOut(usize),
}

/// Where the interface of a port is that Docker moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the daemon's namespace.
    Here,
    /// In the namespace of processes that are alive, under this name.
    There(String),
    /// Nowhere, or in a namespace that nobody is in.
    Nowhere,
}

impl<H: Host> Control<H> {
    /// A call of Docker's.
    pub fn docker_call(&mut self, now: Instant, path: &str, body: &[u8]) -> Reply {
        let elapsed = self.elapsed(now);
        self.with_docker(now, |driver, bridge| driver.answer(elapsed, path, body, bridge))
    }

    /// News from Docker's API.
    pub fn docker_heard(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Networks(ids) => self.with_docker(now, |driver, bridge| driver.networks_are(&ids, bridge)),
            Heard::Names(names) => {
                for (endpoint, names) in names {
                    let port = self.with_docker(now, |driver, bridge| driver.named(&endpoint, &names, bridge));
                    if let Some(port) = port {
                        self.set_port_names(now, &port, names);
                    }
                }
            }
            Heard::LeftOut(count) => self.set_unnamed(count),
        }
    }

    pub(super) fn tick_docker(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        self.with_docker(now, |driver, bridge| driver.tick(elapsed, bridge));
    }

    /// The MTU of a port in a network: Docker may have been asked for a smaller one.
    pub(super) fn mtu_of(&self, port: &str, network: &config::Network) -> u16 {
        self.docker.mtu_of(port).map_or(network.mtu, |mtu| mtu.min(network.mtu))
    }

    fn with_docker<T>(&mut self, now: Instant, act: impl FnOnce(&mut Driver, &mut Bridge<'_, H>) -> T) -> T {
        let mut driver = std::mem::take(&mut self.docker);
        let done = act(&mut driver, &mut Bridge { control: self, now });
        self.docker = driver;
        done
    }

    fn make_loose(&mut self, now: Instant, new: &docker::NewPort) -> Result<Mac, Denied> {
        let addresses = new.addresses.iter().map(|&cidr| PortAddress { cidr, gateway: None });
        let spec = config::Port {
            name: new.name.clone(),
            network: new.network.clone(),
            target: Target::Host,
            ifname: new.ifname.clone(),
            mac: new.mac,
            addresses: addresses.collect(),
            auto: false,
            names: Vec::new(),
            labels: BTreeMap::new(),
            allow: Vec::new(),
            rate: config::policy::Rate::default(),
        };
        self.check(&spec)?;
        let network = self.network(&spec.network).ok_or_else(|| format!("there is no network '{}'", spec.network))?;
        let (vni, mtu) = (network.vni, new.mtu.map_or(network.mtu, |mtu| mtu.min(network.mtu)));
        let mac = new.mac.unwrap_or_else(|| {
            let [a, b, c, d, e, f, ..] = self.host.random().to_le_bytes();
            Mac::local([a, b, c, d, e, f])
        });
        new.mac.map_or(Ok(()), |mac| self.check_station(vni, mac))?;
        let port = self.new_port(vni, mac);
        let addresses: Vec<IpAddr> = new.addresses.iter().map(|cidr| cidr.address).collect();
        let sequence = self.stations.next_sequence(vni, mac, &addresses);
        let origin = Origin::Docker;
        let new = NewPort { port: port.clone(), spec: &spec, addresses: &spec.addresses, origin, mtu, sequence };
        self.host.create_loose_port(&new)?;
        self.port_up(now, spec, origin, port, sequence, false);
        Ok(mac)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self { may_pass: matches!(denied, Denied::Elsewhere(_)), reason: denied.reason() }
    }
}

/// Control while its driver is at work.
struct Bridge<'a, H: Host> {
    control: &'a mut Control<H>,
    now: Instant,
}

impl<H: Host> Member for Bridge<'_, H> {
    fn networks(&self) -> &[config::Network] {
        &self.control.config.networks
    }

    fn lease(&mut self, network: &str, holder: &str, wish: Wish) -> Result<Cidr, Refusal> {
        let wish = match wish {
            Wish::Next { v6 } => request::Wish::Auto { v4: !v6, v6 },
            Wish::Exactly(address) => request::Wish::Exactly(address),
        };
        let wanted = LeaseWanted { network: network.to_owned(), holder: holder.to_owned(), wish };
        match self.control.try_lease(self.now, &wanted) {
            Ok(leased) => {
                leased.first().copied().ok_or_else(|| "there is no address of this family".to_owned().into())
            }
            Err(denied) => Err(denied.into()),
        }
    }

    fn release(&mut self, network: &str, address: IpAddr) {
        // At once, and not with the next second: it may be started on another host already.
        self.control.members.facts_due = true;
        if let Err(reason) = self.control.release(self.now, network, address) {
            tracing::warn!("{address} of network '{network}' is not released: {reason}");
        }
    }

    fn holds(&self, network: &str, address: IpAddr) -> bool {
        let vni = self.control.network(network).map(|network| network.vni);
        vni.is_some_and(|vni| self.control.is_requested_for(docker::HOLDER, vni, address))
    }

    fn held(&self) -> Vec<(String, IpAddr)> {
        let networks = &self.control.config.networks;
        let name = |vni: u32| networks.iter().find(|network| network.vni == vni).map(|network| network.name.clone());
        let held = self.control.requested_for(docker::HOLDER);
        held.filter_map(|(vni, address)| Some((name(vni)?, address))).collect()
    }

    fn release_orphans(&mut self, except: &BTreeSet<IpAddr>) {
        let is_gone = |vni: u32| self.control.config.networks.iter().all(|network| network.vni != vni);
        let orphans = self.control.requested_for(docker::HOLDER);
        let orphans: Vec<_> = orphans.filter(|(vni, ip)| is_gone(*vni) && !except.contains(ip)).collect();
        if let Err(reason) = self.control.free_leases(&orphans) {
            tracing::warn!("{reason}");
        }
    }

    fn make_port(&mut self, port: &docker::NewPort) -> Result<Mac, Refusal> {
        self.control.make_loose(self.now, port).map_err(Refusal::from)
    }

    fn publish(&mut self, wanted: &Published) -> Result<(), String> {
        let publish = Publish {
            network: wanted.network.clone(),
            host_ip: Some(wanted.host_ip),
            host_port: wanted.host_port,
            proto: match wanted.protocol {
                Protocol::Tcp => Proto::Tcp,
                Protocol::Udp => Proto::Udp,
            },
            to: Backend::Address(wanted.address),
            port: wanted.port,
            holder: Some(wanted.holder.clone()),
        };
        self.control.try_publish(self.now, &publish).map(drop)
    }

    fn withdraw(&mut self, holder: &str) {
        self.control.withdraw_held(self.now, holder);
    }

    fn remove_port(&mut self, name: &str) {
        self.control.remove_port(self.now, name);
        self.control.withdraw_held(self.now, name);
    }

    fn remove_interface(&mut self, ifname: &str) {
        let of_a_port = self.control.ports.values().any(|entry| entry.spec.ifname == ifname);
        if !of_a_port {
            self.control.host.remove_loose_interface(ifname);
        }
    }

    fn has_port(&self, name: &str) -> bool {
        self.control.ports.contains_key(name)
    }

    fn place(&mut self, port: &str, sandbox: Option<&str>) -> Place {
        let Some(entry) = self.control.ports.get_mut(port) else { return Place::Gone };
        let State::Up { port } = &entry.state else { return Place::Gone };
        match self.control.host.find_loose_port(port.id, sandbox) {
            Whereabouts::Here => Place::Host,
            Whereabouts::Nowhere => Place::Gone,
            Whereabouts::There(ifname) => {
                entry.spec.ifname = ifname;
                if let Some(path) = sandbox {
                    entry.spec.target = Target::Netns(path.into());
                }
                Place::Container
            }
        }
    }

    fn keep(&mut self, record: &Record) -> Result<(), String> {
        self.control.host.keep_docker(record)
    }

    fn forget(&mut self, slot: &str) {
        self.control.host.drop_docker(slot);
    }

    fn random(&mut self) -> u64 {
        self.control.host.random()
    }
}
