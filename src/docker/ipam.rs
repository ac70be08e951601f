//! The IPAM half: pools, which are subnets of the file's networks, and addresses in them, which are leases.
//!
//! A pool's name is made of nothing but the network and the subnet: it means the same after any restart, and two networks of
//! Docker's on one weft network share it.

use super::api::{Address, RequestPool};
use super::options::{self, shortened};
use super::{Driver, HOLDER, Member, PENDING, Place, Refusal, Wish};
use crate::config;
use crate::wire::cidr::Cidr;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// Our one address space, and the beginning of our pools' names.
const SPACE: &str = "weft";
/// What an address is for, when it is not for a container.
const ADDRESS_TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";
/// Within this time Docker asks again when it does not like a pool that it left to us …
const AGAIN: Duration = Duration::from_secs(1);
/// … and so often, and more often than people make networks at once, before it is refused.
pub(super) const TRIES: u32 = 8;

impl Driver {
    /// `RequestPool`. Docker compares a pool that it left to us with the routes of the host. One that overlaps it keeps, asks
    /// again for another, and goes on doing so for ever; there is no other, so that is refused in the end. Several `docker network
    /// create` at one time look alike for a moment.
    pub(super) fn request_pool(
        &mut self,
        now: Duration,
        asked: &RequestPool,
        member: &impl Member,
    ) -> Result<Value, String> {
        let networks = member.networks();
        if !asked.range.is_empty() {
            return Err(format!(
                "--ip-range {} is not possible: this member gives addresses out of its own slice of the network, so that \
                 no two hosts give the same; see docs/ipam.md",
                shortened(&asked.range)
            ));
        }
        let wanted = match asked.pool.as_str() {
            "" => None,
            text => Some(text.parse::<Cidr>().map_err(|error| format!("subnet {}: {error}", shortened(text)))?),
        };
        let how = "--ipam-opt network=NAME (besides -o network=NAME)";
        let (network, subnet) = match (options::ipam_network(&asked.options)?, wanted) {
            (Some(name), Some(wanted)) => {
                let network = options::find(&name, networks, how)?;
                let subnet = subnets(network).find(|subnet| same(subnet, &wanted)).ok_or_else(|| {
                    format!(
                        "{wanted} is no subnet of network '{name}': leave --subnet out, or give one of {}",
                        options::listed(std::slice::from_ref(network))
                    )
                })?;
                (network, subnet)
            }
            (Some(name), None) => {
                let network = options::find(&name, networks, how)?;
                let family = if asked.v6 { "IPv6" } else { "IPv4" };
                let subnet =
                    subnets(network).find(|subnet| subnet.address.is_ipv6() == asked.v6).ok_or_else(|| {
                        format!("network '{name}' has no {family} subnet: add one to its 'subnets' in weft's file")
                    })?;
                (network, subnet)
            }
            (None, Some(wanted)) => {
                let mut found = networks.iter().filter_map(|network| {
                    subnets(network).find(|subnet| same(subnet, &wanted)).map(|subnet| (network, subnet))
                });
                match (found.next(), found.next()) {
                    (Some(found), None) => found,
                    (Some(_), Some(_)) => {
                        return Err(format!("{wanted} is a subnet of several networks: say which with {how}"));
                    }
                    (None, _) => {
                        return Err(format!(
                            "{wanted} is no subnet of a network of weft: this host has {}",
                            options::listed(networks)
                        ));
                    }
                }
            }
            (None, None) if asked.v6 => {
                return Err(format!(
                    "Docker asks for an IPv6 pool (--ipv6): give the network's IPv6 subnet as a second --subnet, or {how}; \
                     this host has {}",
                    options::listed(networks)
                ));
            }
            (None, None) => {
                return Err(format!(
                    "which network is meant? Say it with {how}, or give its --subnet; this host has {}",
                    options::listed(networks)
                ));
            }
        };
        let id = format!("{SPACE}/{}/{subnet}", network.name);
        if wanted.is_none() {
            let before = self.proposed.take();
            let before = before.filter(|(pool, then, _)| *pool == id && now.saturating_sub(*then) < AGAIN);
            let tries = before.map_or(0, |(.., tries)| tries) + 1;
            if tries >= TRIES {
                return Err(format!(
                    "Docker asks for {subnet} of network '{}' again and again: a route of this host overlaps it, and if that \
                     is meant, say --subnet {subnet}; or many Docker networks of it are being made at once: make them one \
                     after the other",
                    network.name
                ));
            }
            self.proposed = Some((id.clone(), now, tries));
        }
        Ok(json!({ "PoolID": id, "Pool": subnet.to_string(), "Data": {} }))
    }

    /// `RequestAddress`.
    pub(super) fn request_address(
        &mut self,
        now: Duration,
        asked: &Address,
        member: &mut impl Member,
    ) -> Result<Value, Refusal> {
        self.proposed = None;
        let (network, subnet) = pool(&asked.pool, member.networks())?;
        let service = network.service_addresses().into_iter().find(|service| subnet.contains(service.address));
        let name = network.name.clone();
        let wanted = match asked.address.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| format!("{} is no address", shortened(text)))?),
        };
        let given = |address: Cidr| Ok(json!({ "Address": address.to_string(), "Data": {} }));
        if is_for_gateway(&asked.options) {
            let service = service.ok_or_else(|| {
                format!(
                    "subnet {subnet} of network '{name}' has no service address: its gateways are in other subnets"
                )
            })?;
            return match wanted {
                Some(other) if other != service.address => Err(format!(
                    "the gateway of network '{name}' is {} on all hosts, not {other}: leave --gateway out, or set \
                     'gateway' of [[network]] in weft's file",
                    service.address
                )
                .into()),
                _ => given(service),
            };
        }
        let holder = format!("{HOLDER}{:016x}", member.random());
        let wish = match wanted {
            None => Wish::Next { v6: subnet.address.is_ipv6() },
            Some(address) if service.is_some_and(|service| service.address == address) => {
                return Err(format!(
                    "{address} is the service address of network '{name}': choose another with --ip"
                )
                .into());
            }
            Some(address) if !subnet.contains(address) => {
                return Err(format!("{address} is not in subnet {subnet} of network '{name}'").into());
            }
            Some(address) => {
                self.vacate(now, &name, address, member)?;
                self.yield_lease(now, &name, address, member)?;
                Wish::Exactly(address)
            }
        };
        let leased = member.lease(&name, &holder, wish)?;
        if !subnet.contains(leased.address) {
            member.release(&name, leased.address);
            return Err(format!(
                "there is no free address in subnet {subnet} of network '{name}' on this host, only in another subnet: \
                 make the Docker network with that one"
            )
            .into());
        }
        self.idle.insert((name, leased.address), now);
        given(Cidr { prefix: subnet.prefix, ..leased })
    }

    /// A lease that was made for Docker and that no endpoint has gives way to the next who asks for its address.
    fn yield_lease(
        &mut self,
        now: Duration,
        network: &str,
        address: IpAddr,
        member: &mut impl Member,
    ) -> Result<(), String> {
        let lease = (network.to_owned(), address);
        if !member.holds(network, address) {
            return Ok(());
        }
        if self.is_used(&lease) {
            return Err(format!("{address} is set aside (--aux-address) in a Docker network of network '{network}'"));
        }
        if self.idle.get(&lease).is_some_and(|since| now.saturating_sub(*since) < PENDING) {
            return Err(format!("{address} of network '{network}' was given to another container a moment ago"));
        }
        self.idle.remove(&lease);
        member.release(network, address);
        Ok(())
    }

    /// `ReleaseAddress`. Docker releases the address of an endpoint after it deleted it; one that is still there was forgotten by
    /// a Docker that was killed. Where its container runs, nothing is taken from that: the address is free when it ends.
    pub(super) fn release_address(&mut self, asked: &Address, member: &mut impl Member) -> Result<Value, String> {
        // What is left of a network that is in the file no longer, the next tick gives back.
        let Ok((network, _)) = pool(&asked.pool, member.networks()) else { return Ok(json!({})) };
        let network = network.name.clone();
        let text = &asked.address;
        let address: IpAddr = text.parse().map_err(|_| format!("{} is no address", shortened(text)))?;
        if let Some(endpoint) = self.endpoint_at(&network, address).cloned() {
            if member.place(&endpoint.port, endpoint.sandbox.as_deref()) == Place::Container {
                tracing::warn!(
                    "Docker released {address}, which port {} has: it is free when that ends",
                    endpoint.port
                );
                self.released.insert((network, address));
                return Ok(json!({}));
            }
            self.collect(&endpoint.id, member);
        }
        if member.holds(&network, address) {
            member.release(&network, address);
        }
        self.idle.remove(&(network, address));
        Ok(json!({}))
    }
}

fn is_for_gateway(options: &Map<String, Value>) -> bool {
    options.get(ADDRESS_TYPE).and_then(Value::as_str) == Some(GATEWAY)
}

/// The subnets of a network, without host bits.
fn subnets(network: &config::Network) -> impl Iterator<Item = Cidr> {
    network.subnets.iter().map(Cidr::network)
}

fn same(subnet: &Cidr, wanted: &Cidr) -> bool {
    *subnet == wanted.network()
}

/// The network and subnet that a pool's name means.
fn pool<'n>(id: &str, networks: &'n [config::Network]) -> Result<(&'n config::Network, Cidr), String> {
    let odd = || format!("{} is no pool of weft: make the Docker network again", shortened(id));
    let mut parts = id.splitn(3, '/');
    let (space, name, subnet) = (parts.next(), parts.next(), parts.next());
    if space != Some(SPACE) {
        return Err(odd());
    }
    let network = options::find(name.unwrap_or_default(), networks, "--ipam-opt network=NAME")?;
    let subnet: Cidr = subnet.and_then(|subnet| subnet.parse().ok()).ok_or_else(odd)?;
    let known = subnets(network).any(|known| known == subnet);
    known.then_some((network, subnet)).ok_or_else(|| {
        format!("network '{}' has no subnet {subnet} any more: make the Docker network again", network.name)
    })
}
