//! The network half: Docker's networks, and the endpoints that are containers' presence in them.
//!
//! An endpoint is a port whose TAP is made in the host's namespace under a temporary name. `Join` tells Docker that name; Docker
//! moves the interface into the container, renames it and gives it its addresses. `Leave` leaves it alone: Docker still has to
//! move it back and rename it. `DeleteEndpoint` removes it, wherever it is.

use super::api::{Endpoint, Interface, Network};
use super::options::{self, Gateway, NetworkOptions, shortened};
use super::record::{self, EndpointRecord, NetworkRecord, Record};
use super::{DIGITS, Driver, HOLDER, MAX_NETWORKS, Member, NewPort, Refusal, SOURCE, Wish};
use crate::config;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// What Docker calls interfaces in containers, with a number behind.
const PREFIX: &str = "eth";
/// The longest id: what Docker makes has 64 digits.
const MAX_ID: usize = 64;
/// A MAC address among an endpoint's options: six bytes in base64, as Go has it.
const MAC: &str = "com.docker.network.endpoint.macaddress";

impl Driver {
    /// `CreateNetwork`.
    pub(super) fn create_network(&mut self, asked: &Network, member: &mut impl Member) -> Result<Value, String> {
        self.proposed = None;
        check_id(&asked.id)?;
        let options = NetworkOptions::read(&asked.options, member.networks())?;
        let network = options::find(&options.network, member.networks(), "-o network=NAME")?;
        let mut aux = Vec::new();
        for pool in asked.v4.iter().chain(&asked.v6) {
            check_subnet(&pool.pool, network)?;
            // Docker writes them with a prefix length, and its documentation without.
            let addresses = pool.aux.values().map(|text| text.split('/').next().unwrap_or_default().parse());
            aux.extend(addresses.filter_map(Result::<IpAddr, _>::ok));
        }
        if self.networks.len() >= MAX_NETWORKS && !self.networks.contains_key(&asked.id) {
            return Err(format!(
                "there are {MAX_NETWORKS} Docker networks of weft on this host already: remove some"
            ));
        }
        self.remember(NetworkRecord { id: asked.id.clone(), options, aux }, member)?;
        Ok(json!({}))
    }

    fn remember(&mut self, network: NetworkRecord, member: &mut impl Member) -> Result<(), String> {
        member.keep(&Record::Network(network.clone()))?;
        self.unconfirmed.retain(|id| *id != network.id);
        self.networks.insert(network.id.clone(), network);
        Ok(())
    }

    /// `DeleteNetwork`. Docker did not do it while there were endpoints: what is left of them it forgot.
    pub(super) fn delete_network(&mut self, asked: &Network, member: &mut impl Member) -> Value {
        let left = self.endpoints.values().filter(|endpoint| endpoint.network_id == asked.id);
        let left: Vec<String> = left.map(|endpoint| endpoint.id.clone()).collect();
        left.iter().for_each(|id| self.collect(id, member));
        self.unconfirmed.retain(|id| *id != asked.id);
        if self.networks.remove(&asked.id).is_some() {
            member.forget(&record::network_slot(&asked.id));
        }
        json!({})
    }

    /// `CreateEndpoint`.
    pub(super) fn create_endpoint(
        &mut self,
        now: Duration,
        asked: &Endpoint,
        member: &mut impl Member,
    ) -> Result<Value, Refusal> {
        check_id(&asked.id)?;
        options::check_endpoint(&asked.options)?;
        let addresses = addresses(&asked.interface)?;
        let mac = wanted_mac(&asked.interface, &asked.options)?;
        if let Some(endpoint) = self.endpoints.get(&asked.id) {
            // Docker asks again when our answer got lost.
            let same = endpoint.addresses == addresses && mac.is_none_or(|mac| mac == endpoint.mac);
            return match same {
                true => Ok(created(&asked.interface, endpoint.mac)),
                false => Err(format!("endpoint {} exists, and is another", shortened(&asked.id)).into()),
            };
        }
        let docker = self.network_of(asked, &addresses, member)?;
        let network = docker.options.network.clone();
        let mut claimed: Vec<IpAddr> = Vec::new();
        for address in addresses.iter().map(|cidr| cidr.address) {
            let taken = self.vacate(now, &network, address, member).map_err(Refusal::from);
            let outcome = taken.and_then(|()| {
                if member.holds(&network, address) {
                    return Ok(());
                }
                // An IPAM driver that is not ours gave it: it must not be another host's all the same.
                let holder = format!("{HOLDER}{}", short(&asked.id));
                member.lease(&network, &holder, Wish::Exactly(address)).map(|_| claimed.push(address))
            });
            if let Err(reason) = outcome {
                claimed.iter().for_each(|&address| member.release(&network, address));
                return Err(reason);
            }
        }
        let made = self.make(asked, docker, addresses, mac, claimed.clone(), member);
        let mac = made.inspect_err(|_| claimed.iter().for_each(|&address| member.release(&network, address)))?;
        self.loose.insert(asked.id.clone(), now);
        Ok(created(&asked.interface, mac))
    }

    /// The network of a new endpoint. One that we do not know (our state was lost) is found by its subnet, where that is one network's.
    fn network_of(
        &mut self,
        asked: &Endpoint,
        addresses: &[Cidr],
        member: &mut impl Member,
    ) -> Result<NetworkRecord, String> {
        if let Some(known) = self.networks.get(&asked.network) {
            options::find(&known.options.network, member.networks(), "-o network=NAME")?;
            return Ok(known.clone());
        }
        check_id(&asked.network)?;
        let fits = |network: &&config::Network| {
            !addresses.is_empty()
                && addresses
                    .iter()
                    .all(|address| network.subnets.iter().any(|subnet| subnet.network() == address.network()))
        };
        let mut found = member.networks().iter().filter(fits).map(|network| network.name.clone());
        match (found.next(), found.next()) {
            (Some(network), None) => {
                let options = NetworkOptions { network, ..NetworkOptions::default() };
                let network = NetworkRecord { id: asked.network.clone(), options, aux: Vec::new() };
                self.remember(network.clone(), member)?;
                Ok(network)
            }
            _ => Err(format!(
                "weft does not know the Docker network {}, and its addresses do not tell which of weft's it is: remove it and make \
                 it again with -o network=NAME",
                shortened(&asked.network)
            )),
        }
    }

    fn make(
        &mut self,
        asked: &Endpoint,
        docker: NetworkRecord,
        addresses: Vec<Cidr>,
        mac: Option<Mac>,
        claimed: Vec<IpAddr>,
        member: &mut impl Member,
    ) -> Result<Mac, Refusal> {
        let (port, source) = (format!("{HOLDER}{}", short(&asked.id)), source(&asked.id));
        let new = NewPort {
            name: port.clone(),
            network: docker.options.network.clone(),
            ifname: source.clone(),
            addresses: addresses.clone(),
            mac,
            mtu: docker.options.mtu,
        };
        let mac = member.make_port(&new)?;
        let endpoint = EndpointRecord {
            id: asked.id.clone(),
            network_id: docker.id,
            network: docker.options.network,
            port,
            source,
            addresses,
            claimed,
            mac,
            sandbox: None,
            names: Vec::new(),
        };
        if let Err(reason) = member.keep(&Record::Endpoint(endpoint.clone())) {
            member.remove_port(&endpoint.port);
            return Err(reason.into());
        }
        self.endpoints.insert(endpoint.id.clone(), endpoint);
        Ok(mac)
    }

    /// `Join`. The namespace may not exist yet: it is only remembered.
    pub(super) fn join(
        &mut self,
        now: Duration,
        asked: &Endpoint,
        member: &mut impl Member,
    ) -> Result<Value, String> {
        let unknown = || format!("there is no endpoint {}: start the container again", shortened(&asked.id));
        let endpoint = self.endpoints.get_mut(&asked.id).ok_or_else(unknown)?;
        let sandbox = Some(asked.sandbox.clone()).filter(|path| path.starts_with('/') && path.len() < 4096);
        if endpoint.sandbox != sandbox {
            let next = EndpointRecord { sandbox, ..endpoint.clone() };
            member.keep(&Record::Endpoint(next.clone()))?;
            *endpoint = next;
        }
        self.loose.insert(asked.id.clone(), now);
        let options =
            self.networks.get(&endpoint.network_id).map(|docker| docker.options.clone()).unwrap_or_default();
        let mut answer = json!({
            "InterfaceName": { "SrcName": endpoint.source, "DstPrefix": PREFIX },
            "StaticRoutes": [],
            "DisableGatewayService": options.gateway == Gateway::None,
        });
        let has = |v4: bool| endpoint.addresses.iter().any(|address| address.address.is_ipv4() == v4);
        if options.gateway == Gateway::Weft && !options.internal {
            let network = member.networks().iter().find(|network| network.name == endpoint.network);
            for service in network.map(config::Network::service_addresses).unwrap_or_default() {
                let v4 = service.address.is_ipv4();
                if has(v4) {
                    answer[if v4 { "Gateway" } else { "GatewayIPv6" }] = json!(service.address.to_string());
                }
            }
        }
        Ok(answer)
    }

    /// `Leave`. Docker moves the interface back afterwards, and should say `DeleteEndpoint` then.
    pub(super) fn leave(&mut self, now: Duration, asked: &Endpoint) -> Value {
        if self.endpoints.contains_key(&asked.id) {
            self.loose.insert(asked.id.clone(), now);
        }
        json!({})
    }

    /// `DeleteEndpoint`. One that is gone is what was wanted; but its interface may be back: where a container ended while we were
    /// away, Docker moves it only after its `Leave` is answered.
    pub(super) fn delete_endpoint(&mut self, asked: &Endpoint, member: &mut impl Member) -> Value {
        if self.endpoints.contains_key(&asked.id) {
            self.collect(&asked.id, member);
        } else if check_id(&asked.id).is_ok() {
            let source = source(&asked.id);
            if self.endpoints.values().all(|endpoint| endpoint.source != source) {
                member.remove_interface(&source);
            }
        }
        json!({})
    }
}

/// Only fields that were empty may be filled in.
fn created(asked: &Interface, mac: Mac) -> Value {
    match asked.mac.is_empty() {
        true => json!({ "Interface": { "MacAddress": mac.to_string() } }),
        false => json!({ "Interface": {} }),
    }
}

fn addresses(interface: &Interface) -> Result<Vec<Cidr>, String> {
    let given = [(&interface.v4, true), (&interface.v6, false)].into_iter().filter(|(text, _)| !text.is_empty());
    let read = |(text, v4): (&String, bool)| {
        let address: Cidr = text.parse().map_err(|error| format!("address {}: {error}", shortened(text)))?;
        let fits = address.address.is_ipv4() == v4;
        fits.then_some(address).ok_or_else(|| format!("address {address} is of the other family"))
    };
    given.map(read).collect()
}

fn wanted_mac(interface: &Interface, options: &Map<String, Value>) -> Result<Option<Mac>, String> {
    let text = interface.mac.as_str();
    let mac = match options.get(MAC).and_then(Value::as_str) {
        _ if !text.is_empty() => {
            config::mac_from_text(text).map_err(|error| format!("MAC address {}: {error}", shortened(text)))?
        }
        Some(encoded) if !encoded.is_empty() => {
            let octets = STANDARD.decode(encoded).ok().and_then(|bytes| bytes.try_into().ok());
            let mac = Mac(octets.ok_or_else(|| format!("{MAC} is {}: no MAC address", shortened(encoded)))?);
            if mac.is_group() || mac.is_zero() {
                return Err(format!("{mac} is not the MAC address of a station"));
            }
            mac
        }
        _ => return Ok(None),
    };
    Ok(Some(mac))
}

/// Docker's subnet must be one of the network's: a container is told its prefix.
fn check_subnet(pool: &str, network: &config::Network) -> Result<(), String> {
    if pool.is_empty() || network.subnets.is_empty() {
        return Ok(());
    }
    let subnet: Cidr = pool.parse().map_err(|error| format!("subnet {}: {error}", shortened(pool)))?;
    // Docker's IPAM driver `null`: containers come without addresses.
    let is_none = subnet.prefix == 0;
    let known = network.subnets.iter().any(|known| known.network() == subnet.network());
    (is_none || known).then_some(()).ok_or_else(|| {
        format!(
            "{subnet} is no subnet of {}: use --ipam-driver weft, or give one with --subnet",
            options::listed(std::slice::from_ref(network))
        )
    })
}

fn short(id: &str) -> &str {
    id.get(..DIGITS).unwrap_or(id)
}

/// The name of an endpoint's interface in the host's namespace.
fn source(id: &str) -> String {
    format!("{SOURCE}{}", short(id))
}

/// An id becomes a part of names.
fn check_id(id: &str) -> Result<(), String> {
    let fits = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then_some(()).ok_or_else(|| format!("{} is no id of Docker's", shortened(id)))
}
