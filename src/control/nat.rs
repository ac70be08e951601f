//! What the host's packet filter has to do for us, as a value: who is exposed, and what is forwarded where.
//!
//! [`super::exposures`] and [`super::publications`] decide it, [`super::Host::set_rules`] makes it so.

use crate::switch::ids::PortId;
use crate::wire::cidr::Cidr;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What the names of our interfaces on the host begin with.
pub const PREFIX: &str = "weft-";

/// All of it. Nothing exposed means that nothing is to be done: a forward leads into an exposed network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Networks that this host has an address in.
    pub exposed: Vec<Exposed>,
    /// Ports of this host that lead to containers.
    pub forwards: Vec<Forward>,
    /// Whether instances of before a restart are still looked for: a connection to one that is not known is no stray then.
    pub resuming: bool,
}

/// A network that this host has an address in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The network's name.
    pub network: String,
    /// The host's interface in it.
    pub ifname: String,
    /// Its port: another one has a new interface, of which nothing is set yet.
    pub port: PortId,
    /// The prefixes whose containers may leave by this host, with its address.
    pub masquerade: Vec<Cidr>,
    /// Whether something is published from it.
    pub publishes: bool,
}

/// A port of this host that leads to containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub proto: Proto,
    /// Only at this address of the host; `None` is any.
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The instances that new connections go to, in equal shares.
    pub targets: Vec<SocketAddr>,
    /// All instances there are: connections to others are forgotten, unless [`Rules::resuming`].
    pub known: Vec<SocketAddr>,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", HostPort { ip: self.host_ip, port: self.host_port, proto: self.proto })
    }
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proto {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// At this address; `None` is any.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub proto: Proto,
}

impl HostPort {
    /// Whether a connection could be for both.
    pub fn clashes(&self, other: &Self) -> bool {
        let overlap = match (self.ip, other.ip) {
            (Some(a), Some(b)) if a.is_ipv4() == b.is_ipv4() => a == b || a.is_unspecified() || b.is_unspecified(),
            (Some(_), Some(_)) => false,
            _ => true,
        };
        overlap && (self.port, self.proto) == (other.port, other.proto)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(f, "{}/{}", SocketAddr::new(ip, self.port), self.proto),
            None => write!(f, "{}/{}", self.port, self.proto),
        }
    }
}
