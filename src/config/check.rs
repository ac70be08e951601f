//! What tables must agree on with each other: names that resolve, and things that may exist once.
//!
//! The rules for a port are one function, [`port_problems`], used for `[[port]]` in the file and, as [`check_port`],
//! for `weft attach`.

use super::parse::{MAX_ADDRESSES, MAX_NAMES, MAX_PORTS, NO_KEY, pools};
use super::policy::Allow;
use super::reader::{Report, Section, shortened};
use super::text::{check_ifname, is_port_name};
use super::{Config, Network, Node, Peer, Port, PortAddress, StaticPlace, Target};
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use crate::wire::ports::MAX_RULES;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

/// IPv6 requires this MTU of every link (RFC 8200 §5).
const IPV6_MIN_MTU: u16 = 1280;

/// An item of the file with the table it was read from.
pub(super) struct Found<'t, T> {
    pub(super) item: T,
    pub(super) section: Section<'t>,
}

/// Something wrong with one key of a port.
struct Problem {
    key: &'static str,
    /// Which of the port's addresses is meant, for `ip`.
    address: Option<PortAddress>,
    problem: String,
    remedy: &'static str,
}

/// Whether a port may be made in `network`, beside the `others` that this member has in all its networks.
///
/// # Errors
/// A sentence that says what is wrong and what to do.
pub fn check_port(port: &Port, network: &Network, others: &[Port]) -> Result<(), String> {
    if others.len() >= MAX_PORTS {
        return Err(format!("this member has {MAX_PORTS} ports, and no more are allowed; detach some"));
    }
    if port.addresses.len() > MAX_ADDRESSES {
        return Err(format!("an interface has at most {MAX_ADDRESSES} addresses; keep those that are needed"));
    }
    if port.names.len() > MAX_NAMES {
        let has = port.names.len();
        return Err(format!(
            "a port has at most {MAX_NAMES} names, and this one would have {has}; keep those that are needed"
        ));
    }
    if let Err(error) = check_ifname(&port.ifname) {
        return Err(format!("'{}' cannot name an interface: {error}", port.ifname.escape_debug()));
    }
    if !is_port_name(&port.name) {
        let name = port.name.escape_debug();
        return Err(format!(
            "'{name}' cannot name a port: it has 1 to 255 bytes, none of them blank; choose another"
        ));
    }
    if port.mac.is_some_and(|mac| mac.is_group() || mac.is_zero()) {
        return Err(
            "the MAC address belongs to no station; its first octet must be even and not all of it zero".into()
        );
    }
    let mut ports: Vec<&Port> = others.iter().collect();
    ports.push(port);
    let index = Index::new(&ports);
    match port_problems(ports.len() - 1, &ports, &index, network).into_iter().next() {
        None => Ok(()),
        Some(Problem { problem, remedy, .. }) => Err(format!("{problem}; {remedy}")),
    }
}

/// Whether this member, by its own public key, can live with the peers of its file. The parser cannot tell: the key
/// is in another file.
///
/// # Errors
/// A sentence that says which peer is in the way and what to do.
pub fn check_identity(config: &Config, own: &PublicKey) -> Result<(), String> {
    let address = config.node.tunnel_address.unwrap_or_else(|| own.tunnel_address());
    for peer in &config.peers {
        if peer.public_key == *own {
            let name = &peer.name;
            return Err(format!("peer '{name}' has this member's own public key; remove it from this member's file"));
        }
        if peer.tunnel_address == address {
            return Err(format!(
                "this member and peer '{}' have the same tunnel address {address}; set tunnel_address in [node] to \
                 another one, and in [[peer]] for this member in every other file",
                peer.name
            ));
        }
    }
    Ok(())
}

/// Compares the tables of a file with each other.
pub(super) fn across(
    report: &mut Report<'_>,
    node: &Node,
    networks: &[Found<'_, Network>],
    peers: &[Found<'_, Peer>],
    ports: &[Found<'_, Port>],
) {
    let readable = |vni: u32| (vni > 0).then_some(vni);
    once(report, networks, "name", |network| named(&network.name));
    once(report, networks, "vni", |network| readable(network.vni));
    once(report, peers, "name", |peer| named(&peer.name));
    once(report, peers, "public_key", |peer| (peer.public_key != NO_KEY).then_some(peer.public_key));
    once(report, ports, "name", |port| named(&port.name));

    let network_of = by_name(networks, |network| &network.name);
    let peer_of = by_name(peers, |peer| &peer.name);
    let port_of = by_name(ports, |port| &port.name);

    for Found { item: network, section } in networks {
        subnets(report, network, section);
        gateways(report, network, section);
        pools::check(report, network, section);
        static_entries(report, network, section, &peer_of, &port_of);
    }
    tunnel_addresses(report, node, peers);
    for Found { item: peer, section } in peers {
        let unknown = |name: &&String| !network_of.contains_key(name.as_str());
        for name in peer.networks.iter().flatten().filter(unknown) {
            let offset = section.offset_of("networks", name, |text| Some(text.to_owned()));
            let problem = format!("there is no network '{name}'");
            section.wrong_at(report, offset, "networks", problem, known(network_of.keys()));
        }
    }

    let all: Vec<&Port> = ports.iter().map(|port| &port.item).collect();
    let index = Index::new(&all);
    for (number, Found { item: port, section }) in ports.iter().enumerate() {
        match network_of.get(port.network.as_str()) {
            Some(network) => {
                for Problem { key, address, problem, remedy } in port_problems(number, &all, &index, network) {
                    let offset = match address {
                        Some(address) => section.offset_of(key, &address, |text| text.parse().ok()),
                        None => section.offset(key),
                    };
                    // `once` has told about names already, with the line of the first.
                    if key != "name" {
                        section.wrong_at(report, offset, key, problem, remedy);
                    }
                }
            }
            None if port.network.is_empty() && !section.has("network") => {}
            None => {
                let problem = format!("there is no network '{}'", shortened(&port.network));
                section.wrong(report, "network", problem, known(network_of.keys()));
            }
        }
    }
}

/// Compares the rules with the networks they are for.
pub(super) fn allows(report: &mut Report<'_>, networks: &[Found<'_, Network>], allows: &[Found<'_, Allow>]) {
    let network_of = by_name(networks, |network| &network.name);
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for Found { item: allow, section } in allows {
        if !network_of.contains_key(allow.network.as_str()) {
            if !allow.network.is_empty() || section.has("network") {
                let problem = format!("there is no network '{}'", shortened(&allow.network));
                section.wrong(report, "network", problem, known(network_of.keys()));
            }
            continue;
        }
        let count = counts.entry(&allow.network).or_default();
        *count += 1;
        if *count == MAX_RULES + 1 {
            let problem = format!("network '{}' has more than {MAX_RULES} rules", allow.network);
            section.wrong(report, "network", problem, "join some of them by labels or prefixes");
        }
    }
}

/// Reports every item after the first that shares `what`.
fn once<T, K: Hash + Eq>(
    report: &mut Report<'_>,
    found: &[Found<'_, T>],
    key: &'static str,
    what: impl Fn(&T) -> Option<K>,
) {
    let mut first: HashMap<K, &Section<'_>> = HashMap::new();
    for Found { item, section } in found {
        let Some(value) = what(item) else { continue };
        match first.get(&value) {
            None => {
                first.insert(value, section);
            }
            Some(other) => {
                let problem = format!("is the {key} of {} on line {} too", other.label(), other.line(report));
                section.wrong(report, key, problem, format!("give each a {key} of its own"));
            }
        }
    }
}

/// Items by their names; of several the first.
fn by_name<'f, T>(found: &'f [Found<'_, T>], name: impl Fn(&T) -> &str) -> HashMap<&'f str, &'f T> {
    found.iter().rev().map(|Found { item, .. }| (name(item), item)).collect()
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// A remedy that tells the names there are.
fn known<'a>(names: impl Iterator<Item = &'a &'a str>) -> String {
    const TOLD: usize = 10;
    let mut names: Vec<&str> = names.copied().filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    match names.len() {
        0 => "add it to the file".to_owned(),
        n if n > TOLD => "add it to the file, or correct the name".to_owned(),
        _ => format!("there is {}", names.join(", ")),
    }
}

fn subnets(report: &mut Report<'_>, network: &Network, section: &Section<'_>) {
    for (index, subnet) in network.subnets.iter().enumerate() {
        if let Some(other) = network.subnets[..index].iter().find(|other| other.overlaps(subnet)) {
            let offset = section.offset_of("subnets", subnet, |text| text.parse().ok());
            section.wrong_at(report, offset, "subnets", format!("{subnet} overlaps {other}"), "keep one of the two");
        }
    }
    let ipv6 = network.subnets.iter().any(|subnet| subnet.address.is_ipv6());
    if ipv6 && (1..IPV6_MIN_MTU).contains(&network.mtu) {
        let problem = format!("IPv6 needs an MTU of at least {IPV6_MIN_MTU}, and this is {}", network.mtu);
        section.wrong(report, "mtu", problem, "raise it, or remove the IPv6 subnet");
    }
}

fn gateways(report: &mut Report<'_>, network: &Network, section: &Section<'_>) {
    for (index, &gateway) in network.gateways.iter().enumerate() {
        let same = network.gateways[..index].iter().find(|earlier| earlier.is_ipv4() == gateway.is_ipv4());
        let subnet = network.subnets.iter().find(|subnet| subnet.contains(gateway));
        let problem = match (same, subnet) {
            (Some(earlier), _) => format!("{earlier} is one of this family already"),
            (None, None) => format!("{gateway} is in none of the network's subnets"),
            (None, Some(subnet)) => match no_host(Cidr { address: gateway, ..*subnet }) {
                Some(problem) => problem,
                None => continue,
            },
        };
        let offset = section.offset_of("gateway", &gateway, |text| text.parse().ok());
        section.wrong_at(report, offset, "gateway", problem, "give one address of each family, inside a subnet");
    }
}

fn static_entries(
    report: &mut Report<'_>,
    network: &Network,
    section: &Section<'_>,
    peers: &HashMap<&str, &Peer>,
    ports: &HashMap<&str, &Port>,
) {
    for (index, entry) in network.static_entries.iter().enumerate() {
        let mac = entry.mac;
        let mut wrong = |problem: String, remedy: String| {
            section.wrong_at(report, section.offset_in("static", index), "static", problem, remedy);
        };
        if !mac.is_zero() && network.static_entries[..index].iter().any(|other| other.mac == mac) {
            wrong(format!("{mac} is pinned twice"), "keep one of the two".to_owned());
        }
        if mac == Mac::service(network.vni) {
            let problem = format!("{mac} is where the network itself is answered for, on every member");
            wrong(problem, "remove the entry".to_owned());
        }
        match &entry.at {
            StaticPlace::Peer(name) | StaticPlace::Port(name) if name.is_empty() => {}
            StaticPlace::Peer(name) => match peers.get(name.as_str()) {
                None => wrong(format!("there is no peer '{}'", shortened(name)), known(peers.keys())),
                Some(peer) if peer.networks.as_ref().is_some_and(|networks| !networks.contains(&network.name)) => {
                    let remedy = "add it to the peer's networks, or remove the entry".to_owned();
                    wrong(format!("peer '{name}' does not have this network"), remedy);
                }
                Some(_) => {}
            },
            StaticPlace::Port(name) => match ports.get(name.as_str()) {
                None => wrong(format!("there is no port '{}'", shortened(name)), known(ports.keys())),
                Some(port) if port.network != network.name => {
                    let remedy = "pin the address in that network, or to another port".to_owned();
                    wrong(format!("port '{name}' is in network '{}'", shortened(&port.network)), remedy);
                }
                Some(_) => {}
            },
        }
    }
}

/// Tunnel addresses are who is who inside the tunnels: each member has its own.
fn tunnel_addresses(report: &mut Report<'_>, node: &Node, peers: &[Found<'_, Peer>]) {
    let remedy = "set tunnel_address of one of them to another address, in every member's file";
    let mut first: HashMap<_, (PublicKey, String)> = HashMap::new();
    first.extend(node.tunnel_address.map(|address| (address, (NO_KEY, "this member ([node])".to_owned()))));
    for Found { item: peer, section } in peers.iter().filter(|peer| peer.item.public_key != NO_KEY) {
        let address = peer.tunnel_address;
        if address.is_unspecified() {
            continue;
        }
        match first.get(&address) {
            None => {
                let who = format!("{} on line {}", section.label(), section.line(report));
                first.insert(address, (peer.public_key, who));
            }
            // Twice the same key is one error, told elsewhere.
            Some((key, _)) if *key == peer.public_key => {}
            Some((_, other)) => {
                let problem = format!("{address} is the tunnel address of {other} too");
                section.wrong(report, "tunnel_address", problem, remedy);
            }
        }
    }
}

/// Who was the first port with something that may exist once: ports by number.
struct Index<'p> {
    names: HashMap<&'p str, usize>,
    interfaces: HashMap<(&'p Target, &'p str), usize>,
    macs: HashMap<(&'p str, Mac), usize>,
    addresses: HashMap<(&'p str, IpAddr), usize>,
}

impl<'p> Index<'p> {
    fn new(ports: &[&'p Port]) -> Self {
        let mut index = Self {
            names: HashMap::new(),
            interfaces: HashMap::new(),
            macs: HashMap::new(),
            addresses: HashMap::new(),
        };
        for (number, port) in ports.iter().enumerate() {
            let network = port.network.as_str();
            index.names.entry(&port.name).or_insert(number);
            index.interfaces.entry((&port.target, &port.ifname)).or_insert(number);
            if let Some(mac) = port.mac {
                index.macs.entry((network, mac)).or_insert(number);
            }
            for address in &port.addresses {
                index.addresses.entry((network, address.cidr.address)).or_insert(number);
            }
        }
        index
    }
}

/// What is wrong with port `number` of `ports`, which goes into `network`. Of two that want the same thing, the later
/// is wrong.
fn port_problems(number: usize, ports: &[&Port], index: &Index<'_>, network: &Network) -> Vec<Problem> {
    let Some(port) = ports.get(number) else { return Vec::new() };
    let mut problems = Vec::new();
    let mut wrong = |key, problem, remedy| problems.push(Problem { key, address: None, problem, remedy });
    let before = |other: Option<&usize>| other.filter(|&&other| other < number).and_then(|&other| ports.get(other));

    let readable = port.target != Target::Container(String::new()) && !port.ifname.is_empty();
    if let Some(other) = before(index.interfaces.get(&(&port.target, port.ifname.as_str()))).filter(|_| readable) {
        let problem = format!("port '{}' is the interface {} of {} already", other.name, port.ifname, port.target);
        wrong("ifname", problem, "choose another interface name");
    }
    if before(index.names.get(port.name.as_str())).is_some() && !port.name.is_empty() {
        wrong("name", format!("there is a port '{}' already", port.name), "choose another name");
    }
    if let Some(mac) = port.mac {
        if let Some(other) = before(index.macs.get(&(network.name.as_str(), mac))) {
            let problem = format!("port '{}' in network '{}' has {mac} already", other.name, network.name);
            wrong("mac", problem, "choose another MAC address, or leave it out");
        }
        if mac == Mac::service(network.vni) {
            let problem =
                format!("{mac} is where network '{}' itself is answered for, on every member", network.name);
            wrong("mac", problem, "choose another MAC address, or leave it out");
        }
        let here = StaticPlace::Port(port.name.clone());
        if network.static_entries.iter().any(|entry| entry.mac == mac && entry.at != here) {
            let problem = format!("{mac} is pinned elsewhere by a static entry of network '{}'", network.name);
            wrong("mac", problem, "choose another MAC address, or remove the static entry");
        }
    }
    let mut gateways = [false; 2];
    for (position, address) in port.addresses.iter().enumerate() {
        let ip = address.cidr.address;
        let mut wrong =
            |problem, remedy| problems.push(Problem { key: "ip", address: Some(*address), problem, remedy });
        if let Some(problem) = no_host(address.cidr) {
            wrong(problem, "give the interface an address of a host");
        } else if !network.subnets.is_empty() && !network.subnets.iter().any(|subnet| subnet.contains(ip)) {
            let subnets: Vec<String> = network.subnets.iter().map(ToString::to_string).collect();
            let problem = format!("{ip} is outside network '{}', which is {}", network.name, subnets.join(" and "));
            wrong(problem, "choose an address inside");
        }
        if let Some(other) = before(index.addresses.get(&(network.name.as_str(), ip))) {
            let problem = format!("port '{}' in network '{}' has {ip} already", other.name, network.name);
            wrong(problem, "choose another address");
        } else if network.service_addresses().iter().any(|service| service.address == ip) {
            let problem = format!("at {ip} network '{}' itself is answered for, on every member", network.name);
            wrong(problem, "choose another address, or set the network's gateway to one that no container has");
        } else if port.addresses[..position].iter().any(|earlier| earlier.cidr.address == ip) {
            wrong(format!("{ip} is given twice"), "keep one of the two");
        }
        if ip.is_ipv6() && (1..IPV6_MIN_MTU).contains(&network.mtu) {
            let (name, mtu) = (&network.name, network.mtu);
            let problem = format!("IPv6 needs an MTU of at least {IPV6_MIN_MTU}, and network '{name}' has {mtu}");
            wrong(problem, "raise the network's mtu, or remove the address");
        }
        let gateway = &mut gateways[usize::from(ip.is_ipv6())];
        if address.gateway.is_some() && std::mem::replace(gateway, true) {
            wrong("there are two gateways of one family".to_owned(), "keep one of the two");
        }
    }
    problems
}

/// Why an interface cannot have this address, if it cannot.
fn no_host(cidr: Cidr) -> Option<String> {
    let ip = cidr.address;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return Some(format!("{ip} is not the address of a host"));
    }
    let IpAddr::V4(v4) = ip else { return None };
    // Point-to-point links have neither (RFC 3021).
    let hosts = u32::MAX.checked_shr(u32::from(cidr.prefix)).filter(|_| cidr.prefix < 31)?;
    match u32::from(v4) & hosts {
        0 => Some(format!("{ip} is the address of the network {cidr} itself")),
        bits if bits == hosts => Some(format!("{ip} is the broadcast address of {cidr}")),
        _ => None,
    }
}
