//! From the text of a configuration file to a [`Config`], or to everything that is wrong with it.
//!
//! Two passes: this one reads table by table what stands in the file ([`super::reader`] does types, bounds, defaults
//! and unknown keys by the table of [`super::keys`]); [`super::check`] then compares the tables with each other. A
//! value that could not be read is replaced by one that no valid file holds (an empty name, VNI 0, the zero key), and
//! the second pass passes over those, so one slip is one error. Where the TOML itself is broken, what is absent may
//! only be unreadable: the second pass and complaints about missing keys then wait until that is mended.
//!
//! Nothing here touches the machine: the host's name and the content of key files are arguments.

pub(super) mod pools;

use super::check::{self, Found};
use super::error::Errors;
use super::keys;
use super::naming::{self, Naming};
use super::policy::{Allow, Party, Rate};
use super::reader::{Report, Section, described, sections, shortened};
use super::suggest::nearest;
use super::text::{NotAnIfname, check_ifname, host_name, is_name, is_port_name, label, mac_from_text};
use super::{
    Config, Docker, Endpoint, FdbLimits, LogLevel, Network, Node, Offload, Peer, Port, PortAddress, Relay,
    StaticEntry, StaticPlace, Target, Trust,
};
use crate::wire::cidr::{Cidr, NotACidr};
use crate::wire::ethernet::Mac;
use crate::wire::key::{AuthorityKey, PublicKey, Secret};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::{DeArray, DeTable, DeValue};

/// The largest file, far above what the bounds on tables can fill sensibly.
pub const MAX_FILE: usize = 1024 * 1024;
/// The most networks: a host has that many broadcast domains only by mistake.
pub const MAX_NETWORKS: usize = 1024;
/// The most peers: each has a session, a queue and timers.
pub const MAX_PEERS: usize = 4096;
/// The most ports, of the file and of `weft attach` together: each has a file descriptor and buffers.
pub const MAX_PORTS: usize = 4096;
/// The most endpoints of one peer: a handshake may have to try them all.
pub const MAX_ENDPOINTS: usize = 8;
/// The most addresses a member announces besides those that are found: each is probed by every other member.
pub const MAX_ADVERTISED: usize = 16;
/// The most TCP ports to listen on besides the usual one: each is a door that few firewalls leave shut.
pub const MAX_TCP_PORTS: usize = 8;
/// The most names of one port: a container's own and its aliases.
pub const MAX_NAMES: usize = 16;
/// The most labels of one port.
pub const MAX_LABELS: usize = 16;
/// The most subnets of one network, and the most addresses of one port: each is compared with all others.
pub const MAX_ADDRESSES: usize = 64;
/// The most rules of all networks together.
pub const MAX_ALLOWS: usize = 4096;
/// The most protocols and ports of one rule.
pub const MAX_RULE_PORTS: usize = 16;
/// The most static entries of one network.
pub const MAX_STATIC: usize = 4096;
/// The most authorities: one, and a few more while one takes over from another.
pub const MAX_AUTHORITIES: usize = 8;
/// The longest path of a Unix socket: sun_path without the terminating zero (unix(7)).
pub const MAX_SOCKET_PATH: usize = 107;

/// Stands in for a public key that could not be read.
pub(super) const NO_KEY: PublicKey = PublicKey([0; 32]);

/// What the machine supplies where the file is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The host's name, for `node.name`.
    pub hostname: String,
}

/// Reads the configuration `text` of the file that is called `file_name` in errors; relative paths in it are relative
/// to the directory of that name. `read` gives the text of a file that the configuration points to (a pre-shared
/// key), or says why it cannot.
///
/// # Errors
/// Everything that is wrong with the file, in the order of its lines.
pub fn parse(
    file_name: &str,
    text: &str,
    defaults: &Defaults,
    read: &dyn Fn(&Path) -> Result<String, String>,
) -> Result<Config, Errors> {
    if text.len() > MAX_FILE {
        let problem = format!("is {} bytes long; a configuration has at most {MAX_FILE}", text.len());
        return Err(Errors::whole_file(file_name, problem, "is this the right file?"));
    }
    let mut report = Report::new(file_name, text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        report.syntax(error);
    }
    let directory = Path::new(file_name).parent().unwrap_or_else(|| Path::new(""));
    let mut walk = Walk { report, directory, read };
    walk.known_tables(document.get_ref());

    let (empty, root) = (DeTable::new(), document.get_ref());
    let section = walk.one(root, &keys::NODE, &empty);
    let node = walk.node(&section, defaults);
    let section = walk.one(root, &keys::TRUST, &empty);
    let trust = walk.trust(&section);
    let section = walk.one(root, &keys::OFFLOAD, &empty);
    let offload = walk.offload(&section);
    let section = walk.one(root, &keys::FDB, &empty);
    let fdb = walk.fdb(&section);
    let section = walk.one(root, &keys::DOCKER, &empty);
    let docker = walk.docker(&section);
    let networks = walk.many(root, &keys::NETWORK, MAX_NETWORKS, Walk::network);
    let peers = walk.many(root, &keys::PEER, MAX_PEERS, Walk::peer);
    let ports = walk.many(root, &keys::PORT, MAX_PORTS, Walk::port);
    let allows = walk.many(root, &keys::ALLOW, MAX_ALLOWS, Walk::allow);

    let mut report = walk.report;
    if !report.is_broken() {
        check::across(&mut report, &node, &networks, &peers, &ports);
        check::allows(&mut report, &networks, &allows);
    }
    report.finish()?;
    let networks = networks.into_iter().map(|found| found.item).collect();
    let peers = peers.into_iter().map(|found| found.item).collect();
    let ports = ports.into_iter().map(|found| found.item).collect();
    let allows = allows.into_iter().map(|found| found.item).collect();
    Ok(Config { node, offload, fdb, trust, docker, networks, peers, ports, allows })
}

/// The first pass over a file.
struct Walk<'t> {
    report: Report<'t>,
    /// What relative paths are relative to.
    directory: &'t Path,
    read: &'t dyn Fn(&Path) -> Result<String, String>,
}

impl<'t> Walk<'t> {
    /// Reports what stands at the top of the file and is no table of ours.
    fn known_tables(&mut self, root: &DeTable<'_>) {
        let known = || keys::TABLES.iter().filter(|table| !table.name.contains('.'));
        for key in root.keys().filter(|key| known().all(|table| table.name != key.get_ref().as_ref())) {
            let name = key.get_ref();
            let homes: Vec<_> = known().filter(|table| table.key(name).is_some()).map(keys::Table::header).collect();
            let remedy = if !homes.is_empty() {
                format!("it is a key of {}: put it below such a line", homes.join(" and "))
            } else if let Some(meant) = nearest(name, known().map(|table| table.name)) {
                let header = known().find(|table| table.name == meant).map(keys::Table::header);
                format!("did you mean {}?", header.unwrap_or_default())
            } else {
                format!("the tables are {}", known().map(keys::Table::header).collect::<Vec<_>>().join(", "))
            };
            let problem = format!("there is no table or key '{}' here", shortened(name));
            self.report.at(key.span().start, shortened(name), problem, remedy);
        }
    }

    /// The section of a table that a file has at most once; `empty` stands in for one it does not have.
    fn one(&mut self, root: &'t DeTable<'t>, about: &'static keys::Table, empty: &'t DeTable<'t>) -> Section<'t> {
        let (mut values, mut offset) = (empty, 0);
        match root.get(about.name).map(|value| (value.get_ref(), value.span().start)) {
            None => {}
            Some((DeValue::Table(found), start)) => (values, offset) = (found, start),
            Some((DeValue::Array(_), start)) => {
                let remedy = format!("write it once, as {}", about.header());
                self.report.at(start, about.name.to_owned(), "cannot be repeated", remedy);
            }
            Some((other, start)) => {
                let problem = format!("must be a table, not {}", described(other));
                self.report.at(start, about.name.to_owned(), problem, format!("write it as {}", about.header()));
            }
        }
        Section::new(about, about.name.to_owned(), values, offset, &mut self.report)
    }

    /// The items of a table that a file has many times.
    fn many<T>(
        &mut self,
        root: &'t DeTable<'t>,
        about: &'static keys::Table,
        most: usize,
        item: impl Fn(&mut Self, &Section<'t>) -> T,
    ) -> Vec<Found<'t, T>> {
        let Some(value) = root.get(about.name) else { return Vec::new() };
        let DeValue::Array(tables) = value.get_ref() else {
            let (start, header) = (value.span().start, about.header());
            let problem = format!("must be written {header}, in double brackets");
            let remedy = format!("write {header} before each {}", about.name);
            self.report.at(start, about.name.to_owned(), problem, remedy);
            return Vec::new();
        };
        if let Some(first_too_many) = tables.get(most) {
            let problem = format!("there are {}, and at most {most} are allowed", tables.len());
            let remedy = "spread them over more hosts";
            self.report.at(first_too_many.span().start, about.name.to_owned(), problem, remedy);
        }
        let tables: &DeArray<'_> = tables;
        let tables = &tables[..tables.len().min(most)];
        let found = sections(about, about.name, tables, &mut self.report);
        found.into_iter().map(|section| Found { item: item(self, &section), section }).collect()
    }

    fn node(&mut self, section: &Section<'t>, defaults: &Defaults) -> Node {
        let report = &mut self.report;
        let name = section.read(report, "name", name).unwrap_or_default();
        let hostname = || if is_name(&defaults.hostname) { defaults.hostname.clone() } else { String::new() };
        let name = if section.has("name") { name } else { hostname() };
        if name.is_empty() && !section.has("name") {
            let problem =
                format!("is missing, and the host's name '{}' cannot stand in", shortened(&defaults.hostname));
            section.wrong(report, "name", problem, "add a line like name = \"alpha\" to [node]");
        }
        let state_dir = self.path(section, "state_dir").unwrap_or_default();
        let key_file = self.path(section, "key_file").unwrap_or_else(|| state_dir.join("key"));
        let control_socket = self.path(section, "control_socket").unwrap_or_default();
        let container_sockets = self.paths(section, "container_sockets");
        let report = &mut self.report;
        if control_socket.as_os_str().len() > MAX_SOCKET_PATH {
            let problem = format!("a socket's path has at most {MAX_SOCKET_PATH} bytes");
            section.wrong(report, "control_socket", problem, "choose a shorter path, like /run/weft/control.sock");
        }
        Node {
            name,
            key_file,
            listen_port: section.number(report, "listen_port"),
            state_dir,
            control_socket,
            tunnel_address: section.read(report, "tunnel_address", tunnel_address),
            workers: section.integer(report, "workers").and_then(|workers| workers.try_into().ok()),
            log: section.read(report, "log", log_level).unwrap_or(LogLevel::Info),
            container_sockets,
            advertise: {
                section.at_most(report, "advertise", MAX_ADVERTISED);
                let addresses = section.read_list(report, "advertise", underlay_address).into_iter();
                addresses.take(MAX_ADVERTISED).map(|(_, address)| address).collect()
            },
            relay: section.read(report, "relay", relay).unwrap_or(Relay::Yes),
            tcp: section.boolean(report, "tcp"),
            tcp_ports: {
                section.at_most(report, "tcp_ports", MAX_TCP_PORTS);
                let ports = section.integers(report, "tcp_ports").into_iter();
                ports.take(MAX_TCP_PORTS).filter_map(|port| port.try_into().ok()).collect()
            },
            discovery: section.boolean(report, "discovery"),
            lan_discovery: section.boolean(report, "lan_discovery"),
            resolvers: naming::resolvers(report, section),
        }
    }

    fn trust(&mut self, section: &Section<'t>) -> Trust {
        let authority_key_file = self.path(section, "authority_key_file");
        let certificate_file = self.path(section, "certificate_file");
        let report = &mut self.report;
        let mut names = |key: &str| -> Vec<String> {
            section.at_most(report, key, MAX_PEERS);
            section.read_list(report, key, name).into_iter().take(MAX_PEERS).map(|(_, name)| name).collect()
        };
        let (allow, deny) = (names("allow"), names("deny"));
        if let Some(name) = deny.iter().find(|name| allow.contains(name)) {
            let offset = section.offset_of("deny", name, |text| Some(text.to_owned()));
            section.wrong_at(
                report,
                offset,
                "deny",
                format!("'{name}' is in 'allow' too"),
                "keep it in one of the two",
            );
        }
        section.at_most(report, "authority", MAX_AUTHORITIES);
        let authorities = section.read_list(report, "authority", authority_key);
        Trust {
            authorities: authorities.into_iter().take(MAX_AUTHORITIES).map(|(_, key)| key).collect(),
            authority_key_file,
            certificate_file,
            gives_slices: section.boolean(report, "gives_slices"),
            allow: section.has("allow").then_some(allow),
            deny,
        }
    }

    fn offload(&mut self, section: &Section<'t>) -> Offload {
        let report = &mut self.report;
        Offload {
            tap_checksum: section.boolean(report, "tap_checksum"),
            tap_tso: section.boolean(report, "tap_tso"),
            tap_uso: section.boolean(report, "tap_uso"),
            merge: section.boolean(report, "merge"),
            udp_segment: section.boolean(report, "udp_segment"),
            udp_gro: section.boolean(report, "udp_gro"),
            avx512: section.boolean(report, "avx512"),
        }
    }

    fn fdb(&mut self, section: &Section<'t>) -> FdbLimits {
        let report = &mut self.report;
        FdbLimits {
            max_entries: section.number(report, "max_entries"),
            max_per_port: section.number(report, "max_per_port"),
            max_per_peer: section.number(report, "max_per_peer"),
        }
    }

    fn docker(&mut self, section: &Section<'t>) -> Docker {
        let (socket, engine) = (self.path(section, "socket"), self.path(section, "engine"));
        let report = &mut self.report;
        for (key, path) in [("socket", &socket), ("engine", &engine)] {
            if path.as_ref().is_some_and(|path| path.as_os_str().len() > MAX_SOCKET_PATH) {
                let problem = format!("a socket's path has at most {MAX_SOCKET_PATH} bytes");
                section.wrong(report, key, problem, "choose a shorter path, like /run/docker/plugins/weft.sock");
            }
        }
        let enabled = section.has("enabled").then(|| section.boolean(report, "enabled"));
        Docker { enabled, socket: socket.unwrap_or_default(), engine: engine.unwrap_or_default() }
    }

    fn network(&mut self, section: &Section<'t>) -> Network {
        let report = &mut self.report;
        let static_entries = section.tables(report, "static");
        section.at_most(report, "static", MAX_STATIC);
        section.at_most(report, "subnets", MAX_ADDRESSES);
        let name = section.read(report, "name", name).unwrap_or_default();
        Network {
            naming: Naming::read(report, section, &name),
            name,
            vni: section.number(report, "vni"),
            subnets: section
                .read_list(report, "subnets", subnet)
                .into_iter()
                .take(MAX_ADDRESSES)
                .map(|(_, subnet)| subnet)
                .collect(),
            gateways: section
                .read_list(report, "gateway", gateway)
                .into_iter()
                .take(MAX_ADDRESSES)
                .map(|(_, address)| address)
                .collect(),
            slices: pools::slices(section, report),
            ranges: pools::ranges(section, report, "range"),
            reserved: pools::ranges(section, report, "reserved"),
            mtu: section.number(report, "mtu"),
            ageing: Duration::from_secs(section.number(report, "ageing")),
            suppress: section.boolean(report, "suppress"),
            snooping: section.boolean(report, "snooping"),
            guard: section.read(report, "guard", str::parse).unwrap_or_default(),
            isolate: section.boolean(report, "isolate"),
            static_entries: static_entries.iter().take(MAX_STATIC).map(|entry| self.static_entry(entry)).collect(),
        }
    }

    fn static_entry(&mut self, section: &Section<'t>) -> StaticEntry {
        let report = &mut self.report;
        let mac = section.read(report, "mac", mac_from_text).unwrap_or(Mac([0; 6]));
        let (peer, port) = (section.text(report, "peer"), section.text(report, "port"));
        if section.has("peer") && section.has("port") {
            let problem = "a MAC address is behind a peer or a port, not both";
            section.wrong(report, "port", problem, "remove peer or port");
        } else if !section.has("peer") && !section.has("port") && !report.is_broken() {
            section.wrong(report, "peer", "neither peer nor port is given", "add peer = NAME or port = NAME");
        }
        let at = match (peer, port) {
            (Some(peer), None) => StaticPlace::Peer(peer.to_owned()),
            (None, Some(port)) => StaticPlace::Port(port.to_owned()),
            _ => StaticPlace::Peer(String::new()),
        };
        StaticEntry { mac, at }
    }

    fn peer(&mut self, section: &Section<'t>) -> Peer {
        let preshared_key = self.preshared_key(section);
        let report = &mut self.report;
        let public_key = section.read(report, "public_key", public_key).unwrap_or(NO_KEY);
        let endpoints = section.read_list(report, "endpoints", str::parse::<Endpoint>);
        section.at_most(report, "endpoints", MAX_ENDPOINTS);
        let own_address = section.read(report, "tunnel_address", tunnel_address);
        let derived = if section.has("tunnel_address") { Ipv4Addr::UNSPECIFIED } else { public_key.tunnel_address() };
        let networks = section.read_list(report, "networks", name).into_iter().map(|(_, name)| name).collect();
        Peer {
            name: section.read(report, "name", name).unwrap_or_default(),
            public_key,
            endpoints: endpoints.into_iter().map(|(_, endpoint)| endpoint).collect(),
            preshared_key,
            keepalive: section.integer(report, "keepalive").and_then(|seconds| seconds.try_into().ok()),
            tunnel_address: own_address.unwrap_or(derived),
            networks: section.has("networks").then_some(networks),
            path_mtu: section.integer(report, "path_mtu").and_then(|mtu| mtu.try_into().ok()),
        }
    }

    fn preshared_key(&mut self, section: &Section<'t>) -> Option<Secret> {
        let inline = section.read(&mut self.report, "preshared_key", str::parse::<Secret>);
        let file = self.path(section, "preshared_key_file");
        if section.has("preshared_key") && section.has("preshared_key_file") {
            let problem = "a pre-shared key stands in the file or in a file of its own, not both";
            section.wrong(&mut self.report, "preshared_key_file", problem, "remove one of the two");
            return inline;
        }
        let Some(file) = file else { return inline };
        let key = (self.read)(&file).and_then(|text| text.parse().map_err(|error| format!("{error}")));
        key.map_err(|error| {
            let problem = format!("{}: {error}", shortened(&file.display().to_string()));
            let remedy = "make the file with 'weft key psk', and give both sides the same";
            section.wrong(&mut self.report, "preshared_key_file", problem, remedy);
        })
        .ok()
    }

    fn port(&mut self, section: &Section<'t>) -> Port {
        let report = &mut self.report;
        // A container's name is never empty.
        let nowhere = || Target::Container(String::new());
        let target = section.read(report, "target", target).unwrap_or_else(nowhere);
        let ifname = section.read(report, "ifname", ifname);
        let ifname = ifname.unwrap_or_default();
        let name = match section.read(report, "name", port_name) {
            Some(name) => name,
            None if section.has("name") || target == nowhere() || ifname.is_empty() => String::new(),
            None => {
                let name = format!("{target}:{ifname}");
                if !is_port_name(&name) {
                    let problem = format!("'{}' is no name for a port", shortened(&name));
                    section.wrong(report, "name", problem, "add a line like name = \"web\"");
                }
                name
            }
        };
        // `auto` among the addresses is one of each family out of our slice.
        let wish = |text: &str| if text == "auto" { Ok(None) } else { text.parse::<PortAddress>().map(Some) };
        let wishes = section.read_list(report, "ip", wish);
        section.at_most(report, "ip", MAX_ADDRESSES);
        let auto = wishes.iter().any(|(_, wish)| wish.is_none());
        let addresses = wishes.into_iter().filter_map(|(_, wish)| wish);
        let names = section.read_list(report, "names", host_name).into_iter().take(MAX_NAMES).map(|(_, name)| name);
        section.at_most(report, "names", MAX_NAMES);
        let labels = section.read_list(report, "labels", label).into_iter().take(MAX_LABELS).map(|(_, label)| label);
        section.at_most(report, "labels", MAX_LABELS);
        let allow = section.read_list(report, "allow", str::parse).into_iter().map(|(_, permission)| permission);
        let [into, out] = ["rate_in", "rate_out"].map(|key| section.read(report, key, str::parse));
        Port {
            name,
            network: section.text(report, "network").unwrap_or_default().to_owned(),
            target,
            ifname,
            mac: section.read(report, "mac", mac_from_text),
            addresses: addresses.take(MAX_ADDRESSES).collect(),
            auto,
            names: names.collect(),
            labels: labels.collect(),
            allow: allow.collect(),
            rate: Rate::new(into, out),
        }
    }

    fn allow(&mut self, section: &Section<'t>) -> Allow {
        let report = &mut self.report;
        section.at_most(report, "ports", MAX_RULE_PORTS);
        section.not_empty(report, "ports", "leave it out to allow everything, or name what is allowed");
        let ports = section.read_list(report, "ports", str::parse).into_iter().take(MAX_RULE_PORTS);
        Allow {
            network: section.text(report, "network").unwrap_or_default().to_owned(),
            from: section.read(report, "from", str::parse).unwrap_or(Party::Any),
            to: section.read(report, "to", str::parse).unwrap_or(Party::Any),
            ports: ports.map(|(_, ports)| ports).collect(),
        }
    }

    /// A path, made relative to the file's directory.
    fn path(&mut self, section: &Section<'t>, name: &str) -> Option<PathBuf> {
        section.read(&mut self.report, name, |text| path(self.directory, text))
    }

    fn paths(&mut self, section: &Section<'t>, name: &str) -> Vec<PathBuf> {
        let directory = self.directory;
        let paths = section.read_list(&mut self.report, name, |text| path(directory, text));
        paths.into_iter().map(|(_, path)| path).collect()
    }
}

fn path(directory: &Path, text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() || text.contains('\0') { Err("not a path") } else { Ok(directory.join(text)) }
}

fn name(text: &str) -> Result<String, &'static str> {
    let rule = "a name has 1 to 64 letters, digits, '.', '_' or '-'";
    if is_name(text) { Ok(text.to_owned()) } else { Err(rule) }
}

fn port_name(text: &str) -> Result<String, &'static str> {
    let rule = "a port's name has 1 to 255 bytes, none of them blank";
    if is_port_name(text) { Ok(text.to_owned()) } else { Err(rule) }
}

fn ifname(text: &str) -> Result<String, NotAnIfname> {
    check_ifname(text).map(|()| text.to_owned())
}

fn target(text: &str) -> Result<Target, &'static str> {
    text.parse().map_err(|_| "a target is host, pid:N, netns:PATH (absolute), or a container's name")
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    match text.parse() {
        Ok(NO_KEY) => Err("nobody can have the zero key".to_owned()),
        Ok(key) => Ok(key),
        Err(error) => Err(error.to_string()),
    }
}

fn authority_key(text: &str) -> Result<AuthorityKey, &'static str> {
    text.parse().map_err(|_| "an authority's key is 32 bytes in base64, 44 characters ending in '='")
}

fn tunnel_address(text: &str) -> Result<Ipv4Addr, &'static str> {
    let address: Ipv4Addr = text.parse().map_err(|_| "not an IPv4 address")?;
    let nobody =
        address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast();
    if nobody { Err("not the address of a host") } else { Ok(address) }
}

fn log_level(text: &str) -> Result<LogLevel, &'static str> {
    match text {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        _ => Err("a level is error, warn, info or debug"),
    }
}

fn relay(text: &str) -> Result<Relay, &'static str> {
    match text {
        "yes" => Ok(Relay::Yes),
        "no" => Ok(Relay::No),
        "prefer" => Ok(Relay::Prefer),
        _ => Err("it is yes, no or prefer"),
    }
}

fn underlay_address(text: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr = text.parse().map_err(|_| "not an address with a port, like 192.0.2.1:51820")?;
    let nowhere = address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0;
    if nowhere { Err("nobody can be reached there") } else { Ok(address) }
}

fn gateway(text: &str) -> Result<IpAddr, &'static str> {
    let address: IpAddr = text.parse().map_err(|_| "not an IP address")?;
    if address.is_unspecified() || address.is_multicast() { Err("not the address of a host") } else { Ok(address) }
}

fn subnet(text: &str) -> Result<Cidr, String> {
    let subnet: Cidr = text.parse().map_err(|error: NotACidr| error.to_string())?;
    if subnet.address.is_multicast() { Err("hosts have no multicast addresses".to_owned()) } else { Ok(subnet) }
}
