//! The host's own part in networks: its address in them, ports of it that lead to containers.

use crate::config::PortAddress;
use crate::control::nat::{HostPort, Proto};
use crate::wire::cidr::Cidr;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// `weft expose`: the host gets an address in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// The network's name.
    pub network: String,
    /// The addresses. None of them and not `auto` keeps what it has, or is `auto` for a network that is not exposed.
    #[serde(default)]
    pub addresses: Vec<Cidr>,
    /// One of each family out of this member's slice.
    #[serde(default)]
    pub auto: bool,
    /// Whether containers reach the outside through this host, with its address.
    #[serde(default)]
    pub masquerade: bool,
}

/// Where a publication leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Backend {
    /// To all that have this name in the network.
    Name(String),
    /// To this address.
    Address(IpAddr),
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// `weft publish`: a port of the host leads to containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The network's name.
    pub network: String,
    /// Only at this address of the host.
    #[serde(default)]
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub proto: Proto,
    /// To whom.
    pub to: Backend,
    /// The container's port.
    pub port: u16,
    /// The port that asked, where that was not a person (`cni:ID:IFNAME`): it is withdrawn when that ends.
    #[serde(default)]
    pub holder: Option<String>,
}

impl Publish {
    /// The port of the host.
    pub fn host(&self) -> HostPort {
        HostPort { ip: self.host_ip, port: self.host_port, proto: self.proto }
    }
}

/// `weft unpublish`: one port, or all of a holder. What is not published is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Unpublish {
    /// This port of the host.
    Port {
        /// At this address.
        #[serde(default)]
        host_ip: Option<IpAddr>,
        /// The port.
        host_port: u16,
        /// TCP or UDP.
        #[serde(default)]
        proto: Proto,
    },
    /// Everything that was published for this one.
    Holder(String),
}

/// What of the host is in networks, and what of networks is on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// Networks that the host has an address in.
    pub exposed: Vec<ExposureStatus>,
    /// Ports of the host that lead to containers.
    pub published: Vec<PublicationStatus>,
}

/// A network that the host has an address in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposureStatus {
    /// The network.
    pub network: String,
    /// The host's interface.
    pub ifname: String,
    /// `up`, or `waiting: why`.
    pub state: String,
    /// Its addresses.
    pub addresses: Vec<PortAddress>,
    /// Whether containers reach the outside through this host.
    pub masquerade: bool,
    /// Whether it was asked for by `weft expose`; otherwise it is for what is published, and goes with it.
    pub asked_for: bool,
}

/// A port of the host that leads to containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationStatus {
    /// As it was asked for.
    pub publish: Publish,
    /// The containers that there are.
    pub instances: Vec<InstanceStatus>,
}

/// One container behind a published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its address.
    pub address: IpAddr,
    /// `used` by new connections, or why not: `unhealthy`, `too many`.
    pub state: String,
}
