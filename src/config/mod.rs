//! The configuration file: typed, parsed and validated in one step.
//!
//! A [`Config`] that exists is valid: names are unique, references resolve, addresses lie in their subnets. All
//! errors of a file are reported in one go, each with its line, its key and a remedy ([`error`]). Every key stands
//! once, in the table of [`keys`], with what it means, its default and whether `reload` applies it; the reference in
//! `docs/configuration.md` is tested against that table.

mod check;
pub mod diff;
pub mod error;
pub mod keys;
mod naming;
pub mod parse;
pub mod policy;
mod reader;
pub mod reference;
mod suggest;
pub mod text;

pub use check::{check_identity, check_port};
pub use naming::{Dns, MAX_RESOLVERS, Naming};
pub use text::mac_from_text;

use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use crate::wire::key::{AuthorityKey, PublicKey, Secret};
use crate::wire::range::Range;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Everything a daemon is told by its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This member itself.
    pub node: Node,
    /// Which kernel offloads may be used.
    pub offload: Offload,
    /// Bounds of the FDB.
    pub fdb: FdbLimits,
    /// Whose certificates make others members.
    pub trust: Trust,
    /// Docker's network and IPAM drivers.
    pub docker: Docker,
    /// The networks this member takes part in.
    pub networks: Vec<Network>,
    /// The other members, pinned by public key.
    pub peers: Vec<Peer>,
    /// Ports that exist as long as the daemon runs and their target exists.
    pub ports: Vec<Port>,
    /// What is allowed in networks that do not allow everything.
    pub allows: Vec<policy::Allow>,
}

/// `[node]`: this member itself. None of it can change by reload, except `log` and `resolvers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The member's name, for people. Default: the host's name.
    pub name: String,
    /// The file with the X25519 private key; created on first start.
    pub key_file: PathBuf,
    /// UDP port for WireGuard, on every local address of both families.
    pub listen_port: u16,
    /// Directory of what must survive a restart.
    pub state_dir: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// Our tunnel address; `None` derives it from the public key.
    pub tunnel_address: Option<Ipv4Addr>,
    /// Data-plane threads; `None` is one per two cores, at least one.
    pub workers: Option<usize>,
    /// The most detailed log level written: error, warn, info or debug.
    pub log: LogLevel,
    /// Docker-compatible API sockets asked for container names, in this order.
    pub container_sockets: Vec<PathBuf>,
    /// Underlay addresses to announce besides those that are found.
    pub advertise: Vec<SocketAddr>,
    /// Whether we carry what passes between others.
    pub relay: Relay,
    /// Whether TCP is listened on, and used where UDP does not get through.
    pub tcp: bool,
    /// TCP ports to listen on besides the one of `listen_port`.
    pub tcp_ports: Vec<u16>,
    /// Whether peers are looked for by more than the file says.
    pub discovery: bool,
    /// Whether members on our LANs are looked for; needs `discovery`.
    pub lan_discovery: bool,
    /// Who is asked for names that no network has; empty means whom the host asks. Reloadable.
    pub resolvers: Vec<SocketAddr>,
}

/// Whether a member carries what passes between others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// Where there is no better path.
    Yes,
    /// Never.
    No,
    /// Rather than others.
    Prefer,
}

/// How much the daemon tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs somebody.
    Error,
    /// And what is odd.
    Warn,
    /// And what changed.
    Info,
    /// And why.
    Debug,
}

/// `[offload]`: each is used where the probe at start finds it, unless it is switched off here. Not reloadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Containers may leave L4 checksums to us, and we may leave them to the container's kernel.
    pub tap_checksum: bool,
    /// Containers may hand over TCP super-frames (needs `tap_checksum`).
    pub tap_tso: bool,
    /// Containers may hand over UDP super-frames (needs `tap_checksum`).
    pub tap_uso: bool,
    /// Frames of one flow that arrive together are written to the TAP as one super-frame (needs `tap_checksum`).
    pub merge: bool,
    /// Many datagrams to one endpoint leave in one syscall (UDP_SEGMENT).
    pub udp_segment: bool,
    /// Many datagrams of one endpoint arrive in one syscall (UDP_GRO).
    pub udp_gro: bool,
    /// Packets are encrypted with AVX-512 instructions.
    pub avx512: bool,
}

/// `[fdb]`: bounds on what strangers can make us remember. Reloadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbLimits {
    /// Dynamic entries in all.
    pub max_entries: usize,
    /// Dynamic entries behind one local port.
    pub max_per_port: usize,
    /// Dynamic entries behind one peer.
    pub max_per_peer: usize,
}

/// `[trust]`: who may be a member besides the peers of the file. Empty, nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// The authorities whose certificates count. Reloadable, like the names.
    pub authorities: Vec<AuthorityKey>,
    /// The file with an authority's secret key: this member issues certificates.
    pub authority_key_file: Option<PathBuf>,
    /// A file with this member's certificate, for one that did not come by an invitation.
    pub certificate_file: Option<PathBuf>,
    /// Whether this member, which issues certificates, gives slices of the networks it has with them. One in a mesh may.
    pub gives_slices: bool,
    /// The names that certified members may have; `None` is any.
    pub allow: Option<Vec<String>>,
    /// The names that they may not have.
    pub deny: Vec<String>,
}

/// `[docker]`: weft as Docker's network and IPAM driver. Not reloadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// Whether its calls are answered; `None` is where Docker is installed.
    pub enabled: Option<bool>,
    /// Where Docker looks for us; the file's name is the driver's.
    pub socket: PathBuf,
    /// The socket of Docker's API, which is asked for the names of containers.
    pub engine: PathBuf,
}

/// `[[network]]`: one broadcast domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name, on this member.
    pub name: String,
    /// Its VXLAN network identifier: 1 to 16777215. Members that use one VNI share one network.
    pub vni: u32,
    /// Prefixes the ports' addresses must lie in; empty means any.
    pub subnets: Vec<Cidr>,
    /// Its service addresses, one of a family at most: where this host answers for the network. Empty means the first of each
    /// subnet, see [`Self::service_addresses`].
    pub gateways: Vec<IpAddr>,
    /// MTU of the network's ports.
    pub mtu: u16,
    /// How long a silent MAC address stays in the FDB.
    pub ageing: Duration,
    /// What this member gives addresses from; `None` is what its certificate says, or all of it where it is alone.
    pub slices: Option<Vec<Cidr>>,
    /// Where within its slices it gives addresses; empty is everywhere.
    pub ranges: Vec<Range>,
    /// What it gives nobody who does not ask for that very address.
    pub reserved: Vec<Range>,
    /// Whether ARP and neighbour discovery are answered here for what the mesh knows.
    pub suppress: bool,
    /// Whether multicast goes only where somebody listens.
    pub snooping: bool,
    /// How far ports are held to their addresses.
    pub guard: policy::Guard,
    /// Whether ports do not reach each other.
    pub isolate: bool,
    /// What its containers are called.
    pub naming: Naming,
    /// Static FDB entries.
    pub static_entries: Vec<StaticEntry>,
}

impl Network {
    /// The addresses at which every member answers for the network itself, with the prefix they are in: `gateway` of the file, or
    /// the first host's of the first subnet of each family.
    pub fn service_addresses(&self) -> Vec<Cidr> {
        let of_family = |v4: bool| {
            let mut subnets = self.subnets.iter().filter(move |subnet| subnet.address.is_ipv4() == v4);
            let chosen = self.gateways.iter().find(|gateway| gateway.is_ipv4() == v4);
            match chosen {
                Some(&address) => {
                    let subnet = subnets.find(|subnet| subnet.contains(address))?;
                    Some(Cidr { address, ..*subnet })
                }
                None => subnets.next().and_then(Cidr::first_host),
            }
        };
        [true, false].into_iter().filter_map(of_family).collect()
    }
}

/// One of `static` in a network: a MAC address pinned to a peer or a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticEntry {
    /// The station.
    pub mac: Mac,
    /// Where it is.
    pub at: StaticPlace,
}

/// Where a static FDB entry points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaticPlace {
    /// A peer of this file, by name.
    Peer(String),
    /// A local port, by name.
    Port(String),
}

/// `[[peer]]`: another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for people.
    pub name: String,
    /// Its identity.
    pub public_key: PublicKey,
    /// Where it may be reached; empty means it comes to us.
    pub endpoints: Vec<Endpoint>,
    /// A secret both sides share besides their keys.
    pub preshared_key: Option<Secret>,
    /// Seconds between keepalives; `None` sends none.
    pub keepalive: Option<u16>,
    /// Its tunnel address; derived from the public key unless the file says otherwise.
    pub tunnel_address: Ipv4Addr,
    /// Names of the networks it has; `None` means it tells us itself (a weft member does), and all until it has.
    pub networks: Option<Vec<String>>,
    /// MTU of the underlay path to it; `None` is found by probing.
    pub path_mtu: Option<u16>,
}

impl Peer {
    /// A member of which the file says nothing.
    pub fn of_member(name: String, public_key: PublicKey, tunnel_address: Ipv4Addr) -> Self {
        Self {
            name,
            public_key,
            endpoints: Vec::new(),
            preshared_key: None,
            keepalive: None,
            tunnel_address,
            networks: None,
            path_mtu: None,
        }
    }
}

/// An underlay address of a peer as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// An IP address and port.
    Address(SocketAddr),
    /// A DNS name and port, resolved again and again.
    Name(String, u16),
    /// An IP address and port for TCP, where UDP does not get through.
    TcpAddress(SocketAddr),
    /// A DNS name and port for TCP.
    TcpName(String, u16),
}

impl Endpoint {
    /// The name to be resolved, and its port.
    pub fn name(&self) -> Option<(String, u16)> {
        match self {
            Self::Name(name, port) | Self::TcpName(name, port) => Some((name.clone(), *port)),
            Self::Address(_) | Self::TcpAddress(_) => None,
        }
    }

    /// Whether it is one for TCP.
    pub fn is_tcp(&self) -> bool {
        matches!(self, Self::TcpAddress(_) | Self::TcpName(..))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::TcpAddress(address) => write!(f, "tcp:{address}"),
            Self::TcpName(name, port) => write!(f, "tcp:{name}:{port}"),
        }
    }
}

/// A port asked for: by `[[port]]` in the file or by `weft attach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name on this member, unique. Default: `TARGET:IFNAME`.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// Whose namespace it goes to.
    pub target: Target,
    /// The interface's name there, at most 15 bytes.
    pub ifname: String,
    /// Its MAC address; `None` makes one up, which it has again when its container is started again.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub addresses: Vec<PortAddress>,
    /// Besides those, one of each family out of this member's slice, chosen when the port is made.
    #[serde(default)]
    pub auto: bool,
    /// The names that DNS answers with its addresses, within its network.
    #[serde(default)]
    pub names: Vec<String>,
    /// By what policies may know it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it may do although its network guards or isolates.
    #[serde(default)]
    pub allow: Vec<policy::Permission>,
    /// How much it may send and get.
    #[serde(default)]
    pub rate: policy::Rate,
}

/// `CIDR[@GATEWAY]`, as pipework has it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortAddress {
    /// The address and its prefix length.
    pub cidr: Cidr,
    /// A default route through this address.
    pub gateway: Option<IpAddr>,
}

impl fmt::Display for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gateway {
            Some(gateway) => write!(f, "{}@{gateway}", self.cidr),
            None => write!(f, "{}", self.cidr),
        }
    }
}

impl fmt::Debug for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `CIDR[@GATEWAY]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPortAddress {
    /// The part before `@`.
    #[error(transparent)]
    Cidr(#[from] crate::wire::cidr::NotACidr),
    /// The part behind `@` is not an address.
    #[error("the gateway behind '@' is not an IP address")]
    Gateway,
    /// Gateway and address are of different families, or the gateway is not in the prefix.
    #[error("the gateway behind '@' must be another address of the same prefix")]
    GatewayOutside,
}

impl FromStr for PortAddress {
    type Err = NotAPortAddress;
    fn from_str(text: &str) -> Result<Self, NotAPortAddress> {
        let (cidr, gateway) = match text.split_once('@') {
            None => (text, None),
            Some((cidr, gateway)) => (cidr, Some(gateway.parse().map_err(|_| NotAPortAddress::Gateway)?)),
        };
        let cidr: Cidr = cidr.parse()?;
        if gateway.is_some_and(|gateway| !cidr.contains(gateway) || gateway == cidr.address) {
            return Err(NotAPortAddress::GatewayOutside);
        }
        Ok(Self { cidr, gateway })
    }
}

impl TryFrom<String> for PortAddress {
    type Error = NotAPortAddress;
    fn try_from(text: String) -> Result<Self, NotAPortAddress> {
        text.parse()
    }
}

impl From<PortAddress> for String {
    fn from(address: PortAddress) -> Self {
        address.to_string()
    }
}

/// Whose network namespace a port goes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The daemon's own namespace.
    Host,
    /// The namespace of a process.
    Pid(i32),
    /// A namespace bound to a path, like `/run/netns/NAME`.
    Netns(PathBuf),
    /// The name or id of a running Docker or Podman container.
    Container(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Netns(path) => write!(f, "netns:{}", path.display()),
            Self::Container(name) => f.write_str(name),
        }
    }
}

/// The text names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no target: write host, pid:N, netns:PATH (absolute), or a container's name")]
pub struct NotATarget(pub String);

impl FromStr for Target {
    type Err = NotATarget;
    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let wrong = || NotATarget(text.to_owned());
        if text == "host" {
            return Ok(Self::Host);
        }
        if let Some(pid) = text.strip_prefix("pid:") {
            return match pid.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(wrong()),
            };
        }
        if let Some(path) = text.strip_prefix("netns:") {
            return if path.starts_with('/') { Ok(Self::Netns(path.into())) } else { Err(wrong()) };
        }
        // Docker's and Podman's own rule for names; it keeps a name from reaching into an HTTP path.
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        if first && text.len() <= 128 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            Ok(Self::Container(text.to_owned()))
        } else {
            Err(wrong())
        }
    }
}

impl TryFrom<String> for Target {
    type Error = NotATarget;
    fn try_from(text: String) -> Result<Self, NotATarget> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}
