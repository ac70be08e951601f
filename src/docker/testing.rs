//! A member of maps, for this module's tests and its fuzz target.

use super::published::Published;
use super::record::Record;
use super::{HOLDER, Member, NewPort, Place, Refusal, Wish};
use crate::config;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// See the head of this file.
#[derive(Debug, Clone, Default)]
pub struct Maps {
    /// The networks of its file.
    pub networks: Vec<config::Network>,
    /// Who has what, by network and address.
    pub leases: BTreeMap<(String, IpAddr), String>,
    /// The ports, and where their interfaces are.
    pub ports: BTreeMap<String, (NewPort, Place)>,
    /// What is remembered.
    pub kept: BTreeMap<String, Record>,
    /// What is published.
    pub published: Vec<Published>,
    /// Why nothing can be made or remembered at the moment.
    pub refusal: Option<String>,
    numbers: u64,
}

impl Maps {
    /// A member with these networks and nothing else.
    pub fn new(networks: Vec<config::Network>) -> Self {
        Self { networks, ..Self::default() }
    }

    fn has(&self, network: &str) -> bool {
        self.networks.iter().any(|known| known.name == network)
    }

    /// Everything in order after a call: a port for each endpoint remembered and no other, no address that two endpoints have or
    /// that is not leased.
    ///
    /// # Panics
    /// It is not.
    pub fn check(&self) {
        let mut seen = BTreeMap::new();
        let mut ports = 0;
        for (slot, record) in &self.kept {
            assert_eq!(*slot, record.slot());
            let Record::Endpoint(endpoint) = record else { continue };
            ports += 1;
            assert!(self.ports.contains_key(&endpoint.port), "an endpoint without its port: {endpoint:?}");
            for address in &endpoint.addresses {
                let lease = (endpoint.network.clone(), address.address);
                assert!(self.leases.contains_key(&lease), "an address without its lease: {endpoint:?}");
                assert!(seen.insert(lease, slot).is_none(), "two endpoints have {address}");
            }
        }
        assert_eq!(self.ports.len(), ports, "a port without its endpoint");
    }
}

impl Member for Maps {
    fn networks(&self) -> &[config::Network] {
        &self.networks
    }

    fn lease(&mut self, network: &str, holder: &str, wish: Wish) -> Result<Cidr, Refusal> {
        let network =
            self.networks.iter().find(|known| known.name == network).ok_or_else(|| "no such network".to_owned())?;
        let address = match wish {
            Wish::Exactly(address) => address,
            Wish::Next { v6 } => {
                let subnet = network
                    .subnets
                    .iter()
                    .find(|subnet| subnet.address.is_ipv6() == v6)
                    .ok_or_else(|| "no subnet".to_owned())?;
                let mut next = subnet.first_host().ok_or_else(|| "too small".to_owned())?.address;
                // Behind the service address.
                loop {
                    next = match next {
                        IpAddr::V4(next) => IpAddr::V4(u32::from(next).wrapping_add(1).into()),
                        IpAddr::V6(next) => IpAddr::V6(u128::from(next).wrapping_add(1).into()),
                    };
                    if !subnet.contains(next) {
                        return Err("the slice is exhausted".to_owned().into());
                    }
                    if !self.leases.contains_key(&(network.name.clone(), next)) {
                        break next;
                    }
                }
            }
        };
        let subnet =
            network.subnets.iter().find(|subnet| subnet.contains(address)).ok_or_else(|| "outside".to_owned())?;
        let place = (network.name.clone(), address);
        match self.leases.get(&place) {
            Some(other) if other != holder => return Err(format!("{address} is {other}'s").into()),
            _ => self.leases.insert(place, holder.to_owned()),
        };
        Ok(Cidr { address, prefix: subnet.prefix })
    }

    fn release(&mut self, network: &str, address: IpAddr) {
        self.leases.remove(&(network.to_owned(), address));
    }

    fn holds(&self, network: &str, address: IpAddr) -> bool {
        self.leases.get(&(network.to_owned(), address)).is_some_and(|holder| holder.starts_with(HOLDER))
    }

    fn held(&self) -> Vec<(String, IpAddr)> {
        let ours =
            self.leases.iter().filter(|((network, _), holder)| self.has(network) && holder.starts_with(HOLDER));
        ours.map(|(lease, _)| lease.clone()).collect()
    }

    fn release_orphans(&mut self, except: &BTreeSet<IpAddr>) {
        let networks: BTreeSet<&String> = self.networks.iter().map(|network| &network.name).collect();
        self.leases.retain(|(network, address), holder| {
            networks.contains(network) || except.contains(address) || !holder.starts_with(HOLDER)
        });
    }

    fn make_port(&mut self, port: &NewPort) -> Result<Mac, Refusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone().into());
        }
        if self.ports.contains_key(&port.name) {
            return Err(format!("there is a port '{}' already", port.name).into());
        }
        self.ports.insert(port.name.clone(), (port.clone(), Place::Host));
        Ok(port.mac.unwrap_or(Mac([2, 0, 0, 0, 0, 9])))
    }

    fn publish(&mut self, wanted: &Published) -> Result<(), String> {
        assert!(self.ports.contains_key(&wanted.holder), "published for nobody: {wanted:?}");
        let of = |one: &Published| (one.host_ip, one.host_port, one.protocol);
        if let Some(other) = self.published.iter().find(|one| of(one) == of(wanted) && one.holder != wanted.holder) {
            return Err(format!("port {} is published for {}", wanted.host_port, other.holder));
        }
        self.published.push(wanted.clone());
        Ok(())
    }

    fn withdraw(&mut self, holder: &str) {
        self.published.retain(|one| one.holder != holder);
    }

    fn remove_port(&mut self, name: &str) {
        self.withdraw(name);
        self.ports.remove(name);
    }

    fn remove_interface(&mut self, ifname: &str) {
        let of_a_port = self.ports.values().any(|(port, _)| port.ifname == ifname);
        assert!(!of_a_port, "the interface {ifname} is removed under its port");
    }

    fn has_port(&self, name: &str) -> bool {
        self.ports.get(name).is_some_and(|(_, place)| *place != Place::Gone)
    }

    fn place(&mut self, port: &str, _: Option<&str>) -> Place {
        self.ports.get(port).map_or(Place::Gone, |(_, place)| *place)
    }

    fn keep(&mut self, record: &Record) -> Result<(), String> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        self.kept.insert(record.slot(), record.clone());
        Ok(())
    }

    fn forget(&mut self, slot: &str) {
        self.kept.remove(slot);
    }

    fn random(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}
