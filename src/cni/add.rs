//! ADD: an interface in the container's namespace, all of it or nothing.

use super::conf::{Bandwidth, Conf, Ipam, within};
use super::env::{Call, Command};
use super::error::{CniError, Code};
use super::success::{Dns, Interface, Ip, Route, Success};
use super::{Job, LIST_LABEL, NoSandbox, World, odd, publish};
use crate::config::policy::Rate;
use crate::config::text::host_name;
use crate::config::{PortAddress, Target};
use crate::control::request::{Attach, NetworkStatus, PortStatus, Request, Response};
use crate::wire::cidr::Cidr;
use serde_json::Map;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

impl<'a, W: World> Job<'a, W> {
    pub(super) fn add(&mut self) -> Result<Success, CniError> {
        let netns = self.sandbox()?;
        let ifname = self.call.ifname.clone();
        if self.look(netns)?.is_some() {
            let message = format!("CNI_IFNAME {ifname} exists in {} already", netns.display());
            return Err(CniError::new(Code::Environment, message));
        }
        let network = self.network()?;
        let name = self.call.port();
        if let Some(port) = self.port(&name)? {
            let message = format!(
                "CNI_IFNAME {ifname} of container {} is in network {} already: DEL it first",
                self.call.container, port.network
            );
            return Err(CniError::new(Code::Environment, message));
        }
        let (given, port) = self.attach(netns, &network).map_err(|error| {
            // The port is not ours to undo: where it was refused, an ADD at the same time made it.
            let undone = match error.code {
                Code::Later => self.del(),
                _ => self.delegate(Command::Del).map(|_| ()),
            };
            error.and(undone.err())
        })?;
        self.finish(netns, &network, given, &port).map_err(|error| {
            let undone = self.del().err();
            error.and(undone)
        })
    }

    /// Makes the port, with what an IPAM plugin gave.
    fn attach(&mut self, netns: &Path, network: &NetworkStatus) -> Result<(Option<Success>, PortStatus), CniError> {
        let given = self.delegate(Command::Add)?;
        let attach = wanted(self.call, self.conf, netns, network, given.as_ref())?;
        match self.ask(&Request::Attach(attach))? {
            Response::Attached(port) => Ok((given, *port)),
            other => Err(odd(&other)),
        }
    }

    /// What a port needs besides, and the result.
    fn finish(
        &mut self,
        netns: &Path,
        network: &NetworkStatus,
        given: Option<Success>,
        port: &PortStatus,
    ) -> Result<Success, CniError> {
        let default_route = match self.conf.default_route {
            None if given.is_none() => Some(self.has_way_out()?),
            said => said,
        };
        let mut made = given.unwrap_or_else(|| Success { ips: addresses(port, network), ..Success::default() });
        routes(default_route, &mut made)?;
        if let Some(dns) = &self.conf.dns {
            made.dns = dns.clone();
        } else if made.dns.is_empty() {
            made.dns = resolvers(network, &made.ips);
        }
        let to_add: Vec<_> = made.routes.iter().filter_map(|route| Some((route.dst, route.gw?))).collect();
        if !to_add.is_empty() {
            let refused = |sentence| CniError::new(Code::Refused, sentence);
            self.world.add_routes(netns, &self.call.ifname, &to_add).map_err(refused)?;
        }
        for publish in publish::wanted(&self.conf.port_mappings, &network.name, &port.name, &made.ips)? {
            self.ask(&Request::Publish(publish))?;
        }
        let interface = Interface {
            name: self.call.ifname.clone(),
            mac: port.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            mtu: Some(port.mtu.into()),
            sandbox: netns.display().to_string(),
            more: Map::new(),
        };
        Ok(after(self.conf.previous.clone().unwrap_or_default(), interface, made))
    }

    /// Whether the host lets the network's containers out.
    fn has_way_out(&mut self) -> Result<bool, CniError> {
        let exposed = self.outside()?.exposed;
        Ok(exposed.iter().any(|exposure| exposure.network == self.conf.network && exposure.masquerade))
    }

    /// The container's namespace. The variables were checked: it is said.
    pub(super) fn sandbox(&self) -> Result<&'a Path, CniError> {
        let missing = || CniError::new(Code::Environment, "required env variables [CNI_NETNS] missing");
        self.call.netns.as_deref().ok_or_else(missing)
    }

    /// The container's interface.
    pub(super) fn look(&mut self, netns: &Path) -> Result<Option<super::Seen>, CniError> {
        self.world.look(netns, &self.call.ifname).map_err(|error| match error {
            NoSandbox::Absent(sentence) => CniError::new(Code::NoContainer, format!("CNI_NETNS: {sentence}")),
            NoSandbox::Wrong(sentence) => CniError::new(Code::Environment, format!("CNI_NETNS: {sentence}")),
        })
    }
}

/// The port to ask for. `given` is what an IPAM plugin gave.
fn wanted(
    call: &Call,
    conf: &Conf,
    netns: &Path,
    network: &NetworkStatus,
    given: Option<&Success>,
) -> Result<Attach, CniError> {
    let subnets: Vec<Cidr> = network.subnets.iter().filter_map(|subnet| subnet.parse().ok()).collect();
    let exactly: Vec<Cidr> = match given {
        Some(given) => given.ips.iter().map(|ip| ip.address).collect(),
        None => conf.ips.iter().map(|&ip| with_prefix(ip, &subnets, network)).collect::<Result<_, _>>()?,
    };
    let mut attach = Attach::new(Target::Netns(netns.to_owned()), network.name.clone());
    attach.auto = conf.ipam == Ipam::Own && exactly.is_empty() && !subnets.is_empty();
    attach.addresses = exactly.into_iter().map(|cidr| PortAddress { cidr, gateway: None }).collect();
    attach.mac = conf.mac;
    attach.ifname = Some(call.ifname.clone());
    attach.name = Some(call.port());
    attach.names = names(call, conf);
    attach.rate = conf.bandwidth.map(rate);
    attach.labels = conf.labels.clone();
    attach.labels.insert(LIST_LABEL.to_owned(), conf.name.clone());
    Ok(attach)
}

/// Both count bits, and mean the same by ingress and egress. What is 0 is not said.
fn rate(bandwidth: Bandwidth) -> Rate {
    let said = |bits: u64| (bits > 0).then_some(bits);
    Rate {
        ingress_bps: said(bandwidth.ingress_rate),
        ingress_burst: said(bandwidth.ingress_burst),
        egress_bps: said(bandwidth.egress_rate),
        egress_burst: said(bandwidth.egress_burst),
    }
}

fn with_prefix(
    (address, prefix): (IpAddr, Option<u8>),
    subnets: &[Cidr],
    network: &NetworkStatus,
) -> Result<Cidr, CniError> {
    let of_subnet = || within(address, subnets);
    prefix.map(|prefix| Cidr { address, prefix }).or_else(of_subnet).ok_or_else(|| {
        let subnets = if subnets.is_empty() { "has no subnets".to_owned() } else { network.subnets.join(" and ") };
        let message = format!("{address} has no prefix length, and is not in network '{}' ({subnets})", network.name);
        CniError::new(Code::Config, message)
    })
}

/// What the container is called in its network: as its pod is and, where pods have namespaces, in that; and whatever was asked for. A
/// pod whose name DNS does not know has none, which nobody asked for; other names were checked.
fn names(call: &Call, conf: &Conf) -> Vec<String> {
    let pod = call.args.pod.as_ref().map(|pod| match &call.args.namespace {
        Some(namespace) => format!("{pod}.{namespace}"),
        None => pod.clone(),
    });
    let mut names: Vec<String> = Vec::new();
    for name in pod.and_then(|pod| host_name(&pod).ok()).iter().chain(&conf.aliases) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The port's addresses, each with the gateway of its subnet.
fn addresses(port: &PortStatus, network: &NetworkStatus) -> Vec<Ip> {
    let with_gateway = |cidr: Cidr| {
        let gateway = network.gateways.iter().find(|gateway| gateway.contains(cidr.address));
        Ip { address: cidr, gateway: gateway.map(|gateway| gateway.address), interface: None }
    };
    port.addresses.iter().map(|address| with_gateway(address.cidr)).collect()
}

/// Completes the routes: each gets its gateway, and the default routes are there or not as was said.
fn routes(default_route: Option<bool>, made: &mut Success) -> Result<(), CniError> {
    let is_default = |route: &Route| route.dst.prefix == 0;
    match default_route {
        Some(false) => made.routes.retain(|route| !is_default(route)),
        Some(true) => {
            for ip in made.ips.iter().filter(|ip| ip.gateway.is_some()) {
                let dst = everywhere(ip.address.address.is_ipv4());
                if !made.routes.iter().any(|route| route.dst == dst) {
                    made.routes.push(Route { dst, gw: ip.gateway, more: Map::new() });
                }
            }
        }
        None => {}
    }
    for route in &mut made.routes {
        let v4 = route.dst.address.is_ipv4();
        if let Some((key, value)) = route.more.iter().find(|(_, value)| !value.is_null()) {
            let message = format!("{key} {value} of the route to {} cannot be had: remove it", route.dst);
            return Err(CniError::new(Code::Unsupported, message));
        }
        if route.gw.is_none() {
            let mut of_family = made.ips.iter().filter(|ip| ip.address.address.is_ipv4() == v4);
            route.gw = of_family.find_map(|ip| ip.gateway);
        }
        if route.gw.is_none_or(|gateway| gateway.is_ipv4() != v4) {
            let message = format!("the route to {} has no gateway of its family: say gw", route.dst);
            return Err(CniError::new(Code::Config, message));
        }
    }
    Ok(())
}

fn everywhere(v4: bool) -> Cidr {
    let address = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Cidr { address, prefix: 0 }
}

/// Who resolves names in a network: it does itself, where it answers at an address of a family that the container has one of.
fn resolvers(network: &NetworkStatus, ips: &[Ip]) -> Dns {
    let is_reached = |gateway: &&Cidr| ips.iter().any(|ip| ip.address.address.is_ipv4() == gateway.address.is_ipv4());
    let nameservers: Vec<String> =
        network.gateways.iter().filter(is_reached).map(|gateway| gateway.address.to_string()).collect();
    match &network.domain {
        Some(domain) if !nameservers.is_empty() => {
            Dns { nameservers, search: vec![domain.clone()], ..Dns::default() }
        }
        _ => Dns::default(),
    }
}

/// What plugins before us made, and our interface behind theirs.
fn after(mut all: Success, interface: Interface, made: Success) -> Success {
    let index = all.interfaces.len();
    all.interfaces.push(interface);
    all.ips.extend(made.ips.into_iter().map(|ip| Ip { interface: Some(index), ..ip }));
    all.routes.extend(made.routes);
    if !made.dns.is_empty() {
        all.dns = made.dns;
    }
    all
}
